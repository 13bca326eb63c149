"""How often is what `hotlap experiment` says wrong?

    python -m bench.experiment_errors [--experiments 20]
        simulates experiments, and trains the same arm twice for so many real ones; writes
        docs/results/experiment_errors.json
    python -m bench.experiment_errors --table docs/results/experiment_errors.json
        the table of docs/experiments/README.md

Simulated values are normal. Real ones are accuracies of our mlp after three epochs, all with
different seeds: the same seed twice gives the same bits. tests/perf/stats/test_arms.py keeps the
rates.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hotlap.models.experiments import trials
from hotlap.models.experiments.design import Design
from hotlap.perf.stats.arms import contrasts
from hotlap.perf.stats.power import POWER, detectable

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "experiment_errors.json"
# 1 (0.1.0): first version.
SCHEMA = 1
TIMES = 2000
PILOT = 5
LEVEL = 0.05
# No difference is smaller: only whether there is one is asked.
TINY = 1e-9
# Seeds of each side of a real experiment.
SEEDS = 5


def simulated(seeds: int, correlation: float) -> dict[str, Any]:
    """Returns how often an arm that is the control is called different, and how often one is found
    that differs by what a pilot of five says is found.
    """
    random = np.random.default_rng(seeds)
    called = welch = better = 0
    for _ in range(TIMES):
        control, other, first, second = random.standard_normal((4, max(seeds, PILOT)))
        arm = correlation * control + math.sqrt(1 - correlation**2) * other
        again = correlation * first + math.sqrt(1 - correlation**2) * second
        control, arm = control[:seeds], arm[:seeds]
        contrast = contrasts(control.tolist(), {"arm": arm.tolist()}, TINY, "higher")["arm"]
        called += contrast.p <= LEVEL
        paired = contrast.correlation is not None and contrast.correlation > 0
        welch += (contrast.p if paired else contrast.p_unpaired) <= LEVEL
        effect = detectable(float(np.std((again - first)[:PILOT], ddof=1)), PILOT, seeds, LEVEL)
        planted = contrasts(control.tolist(), {"arm": (arm + effect).tolist()}, TINY, "higher")["arm"]
        better += planted.answer == "better"
    return {
        "seeds": seeds,
        "correlation": correlation,
        "called": called / TIMES,
        "welch": welch / TIMES,
        "found": better / TIMES,
    }


def real(experiments: int) -> dict[str, Any]:
    """Returns how many of so many experiments with one arm twice call it different."""
    design = Design(
        question="Does an mlp differ from itself?",
        train="mlp",
        control={"once": {}},
        arms={"again": {}},
        metric="accuracy",
        better="higher",
        smallest_effect=TINY,
        seeds=SEEDS,
        settings={"trainer.max_epochs": 3},
    )
    with tempfile.TemporaryDirectory() as folder:
        todo = [
            trials.Trial("once", seed, Path(folder) / str(seed)) for seed in range(2 * SEEDS * experiments)
        ]
        trials.prepare()
        outcomes = trials.carry_out(design, todo, None, len(os.sched_getaffinity(0)), print)
    values = [outcome.value for outcome in outcomes]
    answers = []
    for start in range(0, len(values), 2 * SEEDS):
        once, again = values[start : start + SEEDS], values[start + SEEDS : start + 2 * SEEDS]
        answers.append(contrasts(once, {"again": again}, TINY, "higher")["again"])
    return {
        "experiments": experiments,
        "seeds": SEEDS,
        "called": sum(each.answer in ("better", "worse") for each in answers),
        "p": [each.p for each in answers],
        "values": values,
    }


def table(path: Path) -> str:
    """Returns the stored rates in Markdown."""
    content = json.loads(path.read_bytes())
    lines = [
        f"| seeds | correlation of the pairs | called different, of the same | by Welch's test where"
        f" the pairs' correlation is not positive | found, of what a plan says ({POWER:g}) |",
        "|---|---|---|---|---|",
        *(
            f"| {row['seeds']} | {row['correlation']:g} | {100 * row['called']:.1f} % |"
            f" {100 * row['welch']:.1f} % | {100 * row['found']:.0f} % |"
            for row in content["simulated"]
        ),
    ]
    ours = content["real"]
    words = (
        f"{TIMES} simulated experiments a row, at {100 * LEVEL:g} %. Real ones: our mlp against itself, three"
        f" epochs, {ours['seeds']} seeds a side: {ours['called']} of {ours['experiments']} called different."
    )
    return "\n".join([words, "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiments", type=int, default=20)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table(arguments.table))
        return
    rows = [simulated(seeds, correlation) for seeds in (3, 5, 8) for correlation in (-0.5, 0.0, 0.5)]
    content = {"schema": SCHEMA, "simulated": rows, "real": real(arguments.experiments)}
    FILE.write_text(json.dumps(content, indent=1) + "\n")
    print(table(FILE))


if __name__ == "__main__":
    main()
