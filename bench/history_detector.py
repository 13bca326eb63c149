"""Does `hotlap history` find what experts found, and nothing where there is nothing?

Labelled series, null series, and how long it takes.

    python bench/history_detector.py [--labelled FOLDER]   writes docs/results/history_detector.json
    python bench/history_detector.py --table FILE            the table of docs/gate.md

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
NEAR = 5
NULLS, LENGTH = 2000, 200
MANY, LONG = 500, 800


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--labelled",
        type=Path,
        default=ROOT.parent / "shared" / "history" / "sap_small_2021",
        metavar="FOLDER",
    )
    parser.add_argument("--table", type=Path, metavar="FILE")
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.table.read_text())), end="")
        return

    found: dict[str, Any] = {
        "hardware": survey.collect(1, "keep").hardware,
        "labelled": labelled(asked.labelled) if asked.labelled.is_dir() else [],
    }
    found["nulls"] = [
        {
            "phi": phi,
            "series": NULLS,
            "alarmed": sum(bool(changes(series(LENGTH, phi, seed))) for seed in range(NULLS)),
        }
        for phi in (0.0, 0.3)
    ]
    values = [series(LONG, 0.0, seed) for seed in range(MANY)]
    start = time.perf_counter()
    for one in values:
        changes(one)
    found["seconds"] = time.perf_counter() - start
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found), end="")


def labelled(folder: Path) -> list[dict[str, Any]]:
    """Each series with its label: how many points the nearest worsening is from the expert's, and
    how many worsenings there are.
    """
    rows = csv.DictReader(
        (folder / "metadata" / "dataset_details.csv").read_text().splitlines(), delimiter=";"
    )
    answers = []
    for row in sorted(rows, key=lambda row: row["Dataset"]):
        with (folder / "data" / row["Dataset"]).open() as file:
            points = [(int(line["Index"]), float(line["Measurement"])) for line in csv.DictReader(file)]
        worse = [one.index for one in changes([value for _, value in points]) if one.effect > 0]
        true = (
            [index for index, _ in points].index(int(row["Change Point"])) + 1
            if int(row["Change Point"])
            else None
        )
        off = min((abs(index - true) for index in worse), default=None) if true is not None else None
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


def changes(values: list[float]) -> Any:
    from hotlap.perf.stats import changes

    return changes.change_points(values)


def series(length: int, phi: float, seed: int) -> list[float]:
    """Without a change: AR(phi) noise of 5 % on the log scale."""
    import numpy as np

    rng = np.random.default_rng(seed)
    noise: np.ndarray = rng.normal(0, 0.05, length)
    for at in range(1, length):
        noise[at] += phi * noise[at - 1]
    return [float(value) for value in np.exp(noise)]


def table(found: dict[str, Any]) -> str:
    lines = [f"{found['hardware']}; one process.", "", "| series | n | found |", "|---|---|---|"]
    if not found["labelled"]:
        lines.append("| labelled by experts | 0 | not there when this ran |")
    regressions = [one for one in found["labelled"] if one["off"] is not None or one["label"] == "regression"]
    if regressions:
        near = [one for one in regressions if one["off"] is not None and one["off"] <= NEAR]
        off = ", ".join(str(one["off"]) for one in regressions)
        lines.append(
            f"| SAP HANA, labelled a regression | {len(regressions)} | {len(near)} within {NEAR} points (off"
            f" by {off}) |"
        )
    for label in sorted({one["label"] for one in found["labelled"]} - {"regression"}):
        same = [one for one in found["labelled"] if one["label"] == label]
        lines.append(
            f"| SAP HANA, labelled {label.lower()} | {len(same)} |"
            f" {sum(one['worsenings'] > 0 for one in same)} with a worsening |"
        )
    for one in found["nulls"]:
        kind = f"AR({one['phi']:g})" if one["phi"] else "independent"
        lines.append(
            f"| no change, {LENGTH} points, {kind} | {one['series']} | {one['alarmed']} with a change"
            f" ({one['alarmed'] / one['series']:.1%}) |"
        )
    lines.append(f"| {LONG} points | {MANY} | took {found['seconds']:.1f} s |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
