"""Chooses a training recipe on the validation split alone; the test split is not touched.

Every combination is trained with several seeds.

    python bench/select_recipe.py mlp --epochs 10,20,40 --decay 0.01,0.1,1 --seeds 5
        writes docs/results/recipe-NAME.json
    python bench/select_recipe.py --table docs/results/recipe-mlp.json
        the table of docs/models/architecture.md
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", default="mlp")
    parser.add_argument("--epochs", default="10,20,40")
    parser.add_argument("--decay", default="0.01,0.1,1")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())), end="")
        return
    from hotlap.models.quiet import undisturbed

    cells = []
    name = arguments.name
    every_epochs, every_decay = arguments.epochs.split(","), arguments.decay.split(",")
    with undisturbed():
        for epochs, decay in itertools.product(map(int, every_epochs), map(float, every_decay)):
            scores = [scored(name, epochs, decay, seed) for seed in range(arguments.seeds)]
            cells.append({"epochs": epochs, "decay": decay, "seeds": scores})
            print(cells[-1], flush=True)
    results = {"name": name, "cells": cells}
    (FOLDER / f"recipe-{name}.json").write_text(json.dumps(results, indent=1) + "\n")


def scored(name: str, epochs: int, decay: float, seed: int) -> dict[str, float]:
    """Trains once and returns the scores on the validation split, the mean loss among them."""
    import torch

    from hotlap.models.training.configuration import Configuration, words

    settings = [f"seed_everything={seed}", f"trainer.max_epochs={epochs}"]
    settings.append(f"model.recipe.weight_decay={decay}")
    chosen = Configuration([*words(name, overrides=settings), "--trainer.callbacks=null"])
    with tempfile.TemporaryDirectory() as folder:
        trainer, module, data = chosen.build(
            accelerator="cpu",
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(module, datamodule=data)
        (scores,) = trainer.validate(module, datamodule=data, verbose=False)
    module.eval()
    with torch.inference_mode():
        losses = [
            (float(module.loss(module(inputs), targets)), len(inputs))
            for inputs, targets in data.val_dataloader()
        ]
    loss = sum(value * count for value, count in losses) / sum(count for _, count in losses)
    return {**{key.partition("_")[2]: float(value) for key, value in scores.items()}, "loss": loss}


def table(results: dict[str, Any]) -> str:
    """The table with the best loss first: mean and standard deviation over the seeds."""
    seeds = results["cells"][0]["seeds"]
    metrics = list(seeds[0])
    lines = [
        f"| epochs | weight decay | {' | '.join(metric.replace('_', ' ') for metric in metrics)} |",
        "|---" * (2 + len(metrics)) + "|",
    ]
    for cell in sorted(results["cells"], key=lambda cell: fmean(seed["loss"] for seed in cell["seeds"])):
        values = [[seed[metric] for seed in cell["seeds"]] for metric in metrics]
        scores = " | ".join(f"{fmean(column):.4f} ± {stdev(column):.4f}" for column in values)
        lines.append(f"| {cell['epochs']} | {cell['decay']:g} | {scores} |")
    return "\n".join([f"{results['name']}, validation split, {len(seeds)} seeds.", "", *lines]) + "\n"


if __name__ == "__main__":
    main()
