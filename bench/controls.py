"""Does each of our networks beat its controls?

python -m bench.controls [NAME ...] [--seeds 1]
    trains networks (all of models/nets) by their own settings, scores them and their controls
    (models/controls) on the validation split, and writes docs/results/controls.json after
    each; of networks that are not named it keeps what is there
python -m bench.controls --table docs/results/controls.json
    the table of docs/models/controls.md
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "controls.json"
# 1 (0.1.0): first version.
SCHEMA = 1


def compared(name: str, seeds: int) -> dict[str, Any]:
    """Trains a network once with each seed and returns its scores beside its controls'."""
    from hotlap.models.catalog import network
    from hotlap.models.controlled import beats, control_scores
    from hotlap.models.train import train

    net = network(name)
    runs = [train(name, seed=seed) for seed in range(seeds)]
    controls = {control: scores[net.metric] for control, scores in control_scores(net).items()}
    values = [run.validation[net.metric] for run in runs]
    return {
        "name": name,
        "metric": net.metric,
        "better": net.better,
        "scores": values,
        "seconds": [run.seconds for run in runs],
        "controls": controls,
        "beats": [beats(net, value, controls) for value in values],
    }


def verdict(beats: list[bool]) -> str:
    if all(beats):
        return "yes"
    return f"with {sum(beats)} of {len(beats)} seeds" if any(beats) else "no"


def table(content: dict[str, Any]) -> str:
    lines = [
        f"{content['hardware']}. Validation split; of a network the mean over its seeds (0, 1 ...).",
        "",
        "| network | metric | its score | seeds | its controls | beats its controls | training |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in content["networks"]:
        arrow = {"higher": "higher is better", "lower": "lower is better"}[each["better"]]
        controls = ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}" for name, value in each["controls"].items()
        )
        cells = (
            each["name"],
            f"{each['metric']}, {arrow}",
            f"{fmean(each['scores']):.4g}",
            len(each["scores"]),
            controls,
            verdict(each["beats"]),
            f"{fmean(each['seconds']):.0f} s",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--table", type=Path, metavar="FILE")
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.table.read_text())), end="")
        return
    from hotlap.models.catalog import names
    from hotlap.perf.machine import survey

    before = json.loads(asked.out.read_text())["networks"] if asked.out.exists() else []
    networks = {each["name"]: each for each in before}
    for name in asked.names or names():
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HOTLAP_RUNS"] = folder
            networks[name] = compared(name, asked.seeds)
        content = {
            "schema": SCHEMA,
            "hardware": survey.collect(1, "default").hardware,
            "networks": [networks[each] for each in sorted(networks)],
        }
        asked.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
