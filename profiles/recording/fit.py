"""Profile a training of one of our own networks:

`python -m hotlap.profiles.recording.fit`, what to do on stdin (capture.training).

A process of its own, so that threads and allocator are the harness's.
"""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from ...perf.terms.case import Case
from ...perf.terms.contract import Schedule


class Asked(msgspec.Struct):
    case: Case
    seed: int
    schedule: Schedule
    file: str
    about: dict[str, Any]


def main() -> None:
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Asked)
    from ...models.quiet import undisturbed
    from ...models.training.configuration import Configuration, words
    from .callback import Profile

    case, schedule = asked.case, asked.schedule
    settings = (f"seed_everything={asked.seed}", f"data.batch_size={case.batch}")
    callback = Profile(
        asked.file,
        schedule.wait,
        schedule.warmup,
        schedule.active,
        schedule.stacks,
        {**asked.about, "weights": f"random, seed {asked.seed}"},
    )
    with undisturbed():
        chosen = Configuration([*words(case.workload, overrides=settings), "--trainer.callbacks=null"])
        trainer, module, data = chosen.build(
            accelerator="cpu" if case.target == "cpu" else "gpu",
            devices=1 if case.target == "cpu" else [int(case.target[5:])],
            max_steps=schedule.wait + schedule.warmup + schedule.active,
            max_epochs=-1,
            callbacks=[callback],
            deterministic=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        if case.backend == "compile":
            module.compile()
        trainer.fit(module, datamodule=data)


if __name__ == "__main__":
    main()
