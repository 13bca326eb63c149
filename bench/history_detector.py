"""Does `hotlap history` find what experts found, and nothing where there is nothing?

It is asked on labelled series and on series without a change, and for how long it takes.

    python bench/history_detector.py [--labelled FOLDER]   writes docs/results/history_detector.json
    python bench/history_detector.py --table FILE          the table of docs/gate.md

The labelled series are SAP's (github SAP/performance-regression-data-set, folder hana/small_2021,
CC-BY-4.0); without the folder they are left out, and the table says so. Times are test durations:
lower is better. A row of the details file names the last index before the regression, counted from
1.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hotlap.perf.machine import survey

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "results" / "history_detector.json"
# Points from the expert's at which a worsening still counts as the same.
NEAR = 5
# Series without a change, and points of each.
NULLS = 2000
LENGTH = 200
# Series whose analysis is timed, and points of each.
MANY = 500
LONG = 800


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labelled", type=Path, metavar="FOLDER", help="SAP's hana/small_2021")
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())), end="")
        return

    results = {
        "hardware": survey.collect(1, "keep").hardware,
        "labelled": labelled(arguments.labelled) if arguments.labelled else [],
        "nulls": [null(phi) for phi in (0.0, 0.3)],
        "seconds": seconds(),
    }
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results), end="")


def labelled(folder: Path) -> list[dict[str, Any]]:
    """Each series with its label, its number of worsenings, and how far the nearest is off.

    off: points from the expert's worsening; None where there is none of either.
    """
    details = (folder / "metadata" / "dataset_details.csv").read_text().splitlines()
    answers = []
    for row in sorted(csv.DictReader(details, delimiter=";"), key=lambda row: row["Dataset"]):
        with (folder / "data" / row["Dataset"]).open() as file:
            points = {int(line["Index"]): float(line["Measurement"]) for line in csv.DictReader(file)}
        worse = [change.index for change in changes(list(points.values())) if change.effect > 0]
        off = None
        if last_good := int(row["Change Point"]):
            true = list(points).index(last_good) + 1
            off = min((abs(index - true) for index in worse), default=None)
        answers.append(
            {
                "series": row["Dataset"],
                "label": row["Type"].strip(),
                "points": len(points),
                "worsenings": len(worse),
                "off": off,
            }
        )
    return answers


def null(phi: float) -> dict[str, Any]:
    """How many of NULLS series without a change, of AR(phi) noise, are said to have one."""
    alarmed = sum(bool(changes(series(LENGTH, phi, seed))) for seed in range(NULLS))
    return {"phi": phi, "series": NULLS, "alarmed": alarmed}


def seconds() -> float:
    """How long MANY series of LONG points take."""
    many = [series(LONG, 0.0, seed) for seed in range(MANY)]
    start = time.perf_counter()
    for values in many:
        changes(values)
    return time.perf_counter() - start


def changes(values: list[float]) -> Any:
    """The changes that `hotlap history` finds in a series."""
    from hotlap.perf.stats import changes

    return changes.change_points(values)


def series(length: int, phi: float, seed: int) -> list[float]:
    """A series without a change: AR(phi) noise of 5 % on the log scale."""
    import numpy as np

    rng = np.random.default_rng(seed)
    noise: np.ndarray = rng.normal(0, 0.05, length)
    for index in range(1, length):
        noise[index] += phi * noise[index - 1]
    return [float(value) for value in np.exp(noise)]


def table(results: dict[str, Any]) -> str:
    lines = [f"{results['hardware']}; one process.", "", "| series | n | found |", "|---|---|---|"]
    if results["labelled"]:
        lines += labelled_rows(results["labelled"])
    else:
        lines.append("| labelled by experts | 0 | not there when this ran |")
    for row in results["nulls"]:
        kind = f"AR({row['phi']:g})" if row["phi"] else "independent"
        lines.append(
            f"| no change, {LENGTH} points, {kind} | {row['series']} | {row['alarmed']} with a change"
            f" ({row['alarmed'] / row['series']:.1%}) |"
        )
    lines.append(f"| {LONG} points | {MANY} | took {results['seconds']:.1f} s |")
    return "\n".join(lines) + "\n"


def labelled_rows(answers: list[dict[str, Any]]) -> list[str]:
    """The table's rows for labelled series, regressions first."""
    rows = []
    regressions = [
        answer for answer in answers if answer["off"] is not None or answer["label"] == "regression"
    ]
    if regressions:
        near = [answer for answer in regressions if answer["off"] is not None and answer["off"] <= NEAR]
        off = ", ".join(str(answer["off"]) for answer in regressions)
        rows.append(
            f"| SAP HANA, labelled a regression | {len(regressions)} | {len(near)} within {NEAR} points (off"
            f" by {off}) |"
        )
    for label in sorted({answer["label"] for answer in answers} - {"regression"}):
        worsenings = [answer["worsenings"] for answer in answers if answer["label"] == label]
        rows.append(
            f"| SAP HANA, labelled {label.lower()} | {len(worsenings)} |"
            f" {sum(number > 0 for number in worsenings)} with a worsening |"
        )
    return rows


if __name__ == "__main__":
    main()
