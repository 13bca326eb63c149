"""Does `hotlap history` find what experts found and what was planted, and nothing where there is
nothing? And for how long does it take?

    python bench/history_detector.py [--labelled FOLDER] [--otava PYTHON]
                                     writes docs/results/history_detector.json
    python bench/history_detector.py --table FILE    the table of docs/gate.md

With --otava the same series go to Apache Otava (bench/otava_child.py), in an interpreter that has
it; without, the table says so. The labelled series are SAP's (github
SAP/performance-regression-data-set, folder hana/small_2021, CC-BY-4.0); without the folder they are
left out. Their times are test durations: lower is better. A row of the details file names the last
index before the regression, counted from 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "results" / "history_detector.json"
# Points from the true one within which a change counts as found.
NEAR = 5
# Spread of the noise on the log scale.
NOISE = 0.05


class Family(NamedTuple):
    """Series of one kind, and where in each the level changes."""

    kind: str
    name: str
    series: list[list[float]]
    truth: list[list[int]]


# Index and relative step of each change of a series.
Changes = list[tuple[int, float]]
# A series and where it changes, drawn from a generator of random numbers.
Draw = Callable[["np.random.Generator"], "tuple[np.ndarray, list[int]]"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--labelled", type=Path, metavar="FOLDER", help="SAP's hana/small_2021")
    parser.add_argument("--otava", metavar="PYTHON", help="an interpreter that has apache-otava")
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())), end="")
        return

    from hotlap.perf.machine import survey

    results: dict[str, Any] = {
        "hardware": survey.collect(1, "keep").hardware,
        "otava": None,
        "labelled": [],
        "families": [],
    }
    if arguments.labelled:
        labels, family = labelled(arguments.labelled)
        answers = ask(family, arguments.otava)
        results["labelled"] = expert_rows(labels, family, answers)
    for family in families():
        answers = ask(family, arguments.otava)
        results["otava"] = answers["otava"]["version"] if answers["otava"] else None
        results["families"].append(measured(family, answers))
        print(row(results["families"][-1]), flush=True)
    FILE.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results), end="")


def ask(family: Family, otava: str | None) -> dict[str, Any]:
    """The changes that we find and those that Otava finds, and the CPU seconds of either."""
    answers: dict[str, Any] = {"ours": ours(family.series), "otava": None}
    if otava:
        child = Path(__file__).with_name("otava_child.py")
        done = subprocess.run(
            [otava, str(child)],
            input=json.dumps(family.series),
            capture_output=True,
            text=True,
            check=True,
        )
        answers["otava"] = json.loads(done.stdout)
    return answers


def ours(many: list[list[float]]) -> dict[str, Any]:
    """The changes that `hotlap history` finds, how many series alternate, and the CPU seconds."""
    from hotlap.perf.stats import changes, two_levels

    changes.change_points(many[0])
    start = time.process_time()
    answers = [changes.change_points(values) for values in many]
    seconds = time.process_time() - start
    return {
        "seconds": seconds,
        "changes": [[(change.index, change.effect) for change in steps] for steps in answers],
        "alternating": sum(two_levels.two_levels(values) is not None for values in many),
    }


def measured(family: Family, answers: dict[str, Any]) -> dict[str, Any]:
    """What is stored of a family: how many series changed, how many planted changes were hit."""
    stored: dict[str, Any] = {
        "kind": family.kind,
        "name": family.name,
        "series": len(family.series),
        "planted": sum(map(len, family.truth)),
    }
    for tool, answer in answers.items():
        if answer is None:
            stored[tool] = None
            continue
        places = [[index for index, _ in steps] for steps in answer["changes"]]
        stored[tool] = {
            "changed": sum(map(bool, places)),
            "changes": sum(map(len, places)),
            "hits": sum(hits(truth, place) for truth, place in zip(family.truth, places, strict=True)),
            "seconds": answer["seconds"],
        }
        if "alternating" in answer:
            stored[tool]["alternating"] = answer["alternating"]
    return stored


def hits(truth: list[int], places: list[int]) -> int:
    """How many of the true changes have a change of their own within NEAR points."""
    left, count = list(places), 0
    for true in truth:
        nearest = min(left, key=lambda place: abs(place - true), default=None)
        if nearest is not None and abs(nearest - true) <= NEAR:
            left.remove(nearest)
            count += 1
    return count


def families() -> list[Family]:
    """Series without a change, series that alternate, and series with planted changes."""
    none = [
        family("null", f"no change, {length} points, {noise_name(phi)}", 2000, nothing(length, phi))
        for length in (60, 200)
        for phi in (0.0, 0.3, 0.7)
    ]
    bistable = [
        family("bistable", f"two levels, turns at {turn:.0%} of 100 points", 500, alternating(turn))
        for turn in (0.5, 0.2)
    ]
    tails = [
        family("planted", f"last 5 to 9 points of 20 to 109 up by {sigmas} sigma", 500, tail(sigmas))
        for sigmas in (2, 3, 5)
    ]
    short = [
        family("planted", f"last 8 of 14 points up by {sigmas} sigma", 500, tail_of_14(sigmas))
        for sigmas in (3, 5)
    ]
    near = [
        family(
            "planted", f"three steps of 2.5 %, ten points apart, in noise of {noise:.2%}", 300, steps(noise)
        )
        for noise in (0.005, 0.0075, 0.01)
    ]
    return [*none, *bistable, *tails, *short, *near, family("time", "800 points", 500, nothing(800, 0.0))]


def noise_name(phi: float) -> str:
    return f"AR({phi:g})" if phi else "independent"


def family(kind: str, name: str, count: int, draw: Draw) -> Family:
    """As many series as `count` on the log scale about 0, as measurements about 1."""
    import numpy as np

    drawn = [draw(np.random.default_rng(seed)) for seed in range(count)]
    series = [[float(value) for value in np.exp(x)] for x, _ in drawn]
    return Family(kind, name, series, [truth for _, truth in drawn])


def autoregressive(rng: np.random.Generator, length: int, phi: float) -> np.ndarray:
    """AR(phi) noise of unit variance."""
    noise: np.ndarray = rng.standard_normal(length)
    for index in range(1, length):
        noise[index] = phi * noise[index - 1] + math.sqrt(1 - phi**2) * noise[index]
    return noise


def nothing(length: int, phi: float) -> Draw:
    return lambda rng: (NOISE * autoregressive(rng, length, phi), [])


def alternating(turn: float) -> Draw:
    """Two levels ten standard deviations apart; a point is on the other side with chance `turn`."""
    import numpy as np

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        side = np.cumsum(rng.random(100) < turn) % 2
        return NOISE / 5 * (10 * side + rng.standard_normal(100)), []

    return draw


def tail(sigmas: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        head = int(rng.choice([15, 30, 100]))
        x = rng.standard_normal(head + int(rng.integers(5, 10)))
        x[head:] += sigmas
        return NOISE * x, [head]

    return draw


def tail_of_14(sigmas: float) -> Draw:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        x = rng.standard_normal(14)
        x[6:] += sigmas
        return NOISE * x, [6]

    return draw


def steps(noise: float) -> Draw:
    """Three steps up, ten points apart, with 10 or 30 points on either side of them."""
    import numpy as np

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
        side = int(rng.choice([10, 30]))
        level = np.repeat(np.arange(4) * math.log(1.025), [side, 10, 10, side])
        return level + noise * rng.standard_normal(len(level)), [side, side + 10, side + 20]

    return draw


def labelled(folder: Path) -> tuple[list[dict[str, str]], Family]:
    """The rows of the details file in order of name, and their series."""
    details = (folder / "metadata" / "dataset_details.csv").read_text().splitlines()
    labels = sorted(csv.DictReader(details, delimiter=";"), key=lambda row: row["Dataset"])
    series, truth = [], []
    for label in labels:
        with (folder / "data" / label["Dataset"]).open() as file:
            points = {int(line["Index"]): float(line["Measurement"]) for line in csv.DictReader(file)}
        last_good = int(label["Change Point"])
        series.append(list(points.values()))
        truth.append([list(points).index(last_good) + 1] if last_good else [])
    return labels, Family("labelled", "SAP HANA", series, truth)


def expert_rows(
    labels: list[dict[str, str]], family: Family, answers: dict[str, Any]
) -> list[dict[str, Any]]:
    """Each series with its label, and of each tool its number of worsenings and how far the nearest
    is off.

    off: points from the expert's worsening; None where there is none of either.
    """
    rows = []
    for number, (label, truth) in enumerate(zip(labels, family.truth, strict=True)):
        stored = {
            "series": label["Dataset"],
            "label": label["Type"].strip(),
            "points": len(family.series[number]),
        }
        for tool, answer in answers.items():
            if answer is None:
                stored[tool] = None
                continue
            worse = [index for index, effect in answer["changes"][number] if effect > 0]
            off = min((abs(index - true) for index in worse for true in truth), default=None)
            stored[tool] = {"worsenings": len(worse), "off": off}
        rows.append(stored)
    return rows


def table(results: dict[str, Any]) -> str:
    otava = (
        f"Otava {results['otava']} at p 1e-6" if results["otava"] else "Otava: not installed when this ran"
    )
    lines = [f"{results['hardware']}; one process.", "", f"| series | n | hotlap | {otava} |"]
    lines.append("|---|---|---|---|")
    if results["labelled"]:
        lines += labelled_rows(results["labelled"])
    else:
        lines.append("| labelled by experts | 0 | not there when this ran | |")
    lines += [row(family) for family in results["families"]]
    return "\n".join(lines) + "\n"


def row(family: dict[str, Any]) -> str:
    cells = " | ".join(in_words(family, family[tool]) for tool in ("ours", "otava"))
    return f"| {family['name']} | {family['series']} | {cells} |"


def in_words(family: dict[str, Any], answer: dict[str, Any] | None) -> str:
    """What one tool did on one family."""
    if answer is None:
        return ""
    if family["kind"] == "time":
        return f"{answer['seconds']:.1f} s of CPU"
    if family["kind"] == "planted":
        every = answer["changes"] + family["planted"]
        return f"F1 {2 * answer['hits'] / every:.2f}, {answer['seconds']:.2f} s"
    words = f"{answer['changed']} with a change ({answer['changed'] / family['series']:.1%})"
    if family["kind"] == "bistable" and "alternating" in answer:
        words += f", {answer['alternating']} called alternating"
    return words


def labelled_rows(answers: list[dict[str, Any]]) -> list[str]:
    """The table's rows for labelled series, regressions first."""
    rows = []
    for label in sorted(
        {answer["label"] for answer in answers}, key=lambda label: (label != "regression", label)
    ):
        of_label = [answer for answer in answers if answer["label"] == label]
        cells = [label_in_words(label, [answer[tool] for answer in of_label]) for tool in ("ours", "otava")]
        rows.append(f"| SAP HANA, labelled {label.lower()} | {len(of_label)} | {' | '.join(cells)} |")
    return rows


def label_in_words(label: str, answers: list[dict[str, Any] | None]) -> str:
    known = [answer for answer in answers if answer is not None]
    if not known:
        return ""
    if label != "regression":
        return f"{sum(answer['worsenings'] > 0 for answer in known)} with a worsening"
    near = sum(answer["off"] is not None and answer["off"] <= NEAR for answer in known)
    off = ", ".join("none" if answer["off"] is None else str(answer["off"]) for answer in known)
    return f"{near} within {NEAR} points (off by {off})"


if __name__ == "__main__":
    main()
