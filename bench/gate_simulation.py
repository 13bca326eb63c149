"""Does the gate alarm as rarely as it says? Races with known truth through the gate's own tests.

    python bench/gate_simulation.py [--trials 20000]      writes docs/results/gate_simulation.json
    python bench/gate_simulation.py --table FILE           the table of docs/gate.md

HEAD is slower than BASE by exactly the tolerance, where an alarm is an error by definition, and by
more, where it is power. A race has 16 blocks of 20 rounds; each block has fresh workers with
effects of their own, each sample noise of 5 %. The block's figure is the median over its rounds of
HEAD / BASE.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "gate_simulation.json"
ROUNDS, BLOCKS, TOLERANCE, ALPHA, NOISE = 20, 16, 0.03, 0.05, 0.05
# name: (phi and sd of what both sides see from sample to sample, sd of a worker's own effect, sd of
# an effect of the whole job)
WORLDS = {
    "independent samples": (0.0, 0.0, 0.0, 0.0),
    "AR(0.5) of 10 % that both see": (0.5, 0.10, 0.0, 0.0),
    "AR(0.9) of 10 % that both see": (0.9, 0.10, 0.0, 0.0),
    "workers differ by 1 %": (0.0, 0.0, 0.01, 0.0),
    "workers differ by 3 %": (0.0, 0.0, 0.03, 0.0),
    "jobs differ by 20 %": (0.0, 0.0, 0.01, 0.20),
    "all of it": (0.9, 0.10, 0.03, 0.20),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--table", type=Path, metavar="FILE")
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.table.read_text())), end="")
        return
    cells = []
    for name, world in WORLDS.items():
        for slower in (TOLERANCE, 0.05, 0.10):
            cells.append({"world": name, "slower": slower, **cell(world, slower, asked.trials)})
            print(cells[-1], flush=True)
    FILE.write_text(
        json.dumps(
            {
                "trials": asked.trials,
                "tolerance": TOLERANCE,
                "alpha": ALPHA,
                "blocks": BLOCKS,
                "rounds": ROUNDS,
                "cells": cells,
            },
            indent=1,
        )
        + "\n"
    )


def cell(world: tuple[float, float, float, float], slower: float, trials: int) -> dict[str, float]:
    """Shares of all races: alarms, passes, and intervals that hold the truth at the look where the
    race stopped.
    """
    import numpy as np

    from hotlap.perf.stats import compare

    each, looks = compare.level(ALPHA)
    rng = np.random.default_rng(11)
    count = {"regression": 0, "pass": 0, "inconclusive": 0, "covered": 0}
    for _ in range(trials):
        ratios = race(world, slower, rng)
        for n in looks:
            found = judged(ratios[:n], each)
            if found.verdict != "inconclusive":
                break
        count[found.verdict] += 1
        count["covered"] += found.low <= 1 + slower <= found.high
    return {name: number / trials for name, number in count.items()}


def judged(values: np.ndarray, each: float) -> Any:
    """The gate's own judgement."""
    from hotlap.perf.stats import compare

    return compare.lockstep([float(value) for value in values], TOLERANCE, each, each)


def race(world: tuple[float, float, float, float], slower: float, rng: np.random.Generator) -> np.ndarray:
    """Log ratios of the blocks (BLOCKS,)."""
    import numpy as np
    from scipy.signal import lfilter

    phi, drift, worker, job = world
    shape = (BLOCKS, ROUNDS)
    seen = np.zeros((BLOCKS, 2 * ROUNDS))
    if drift:
        noise = rng.standard_normal(BLOCKS * 2 * ROUNDS)
        seen = drift * lfilter([math.sqrt(1 - phi**2)], [1, -phi], noise).reshape(BLOCKS, 2 * ROUNDS)
    common = job * rng.standard_normal()
    first = rng.random(shape) < 0.5  # which side has the first turn of the round
    early, late = seen[:, ::2], seen[:, 1::2]
    sides = []
    for turn, centre in (
        (np.where(first, early, late), 0.0),
        (np.where(first, late, early), math.log1p(slower)),
    ):
        sides.append(
            centre
            + common
            + turn
            + worker * rng.standard_normal((BLOCKS, 1))
            + NOISE * rng.standard_normal(shape)
        )
    return np.median(sides[1] - sides[0], axis=1)


def table(found: dict[str, Any]) -> str:
    lines = [
        (
            f"Tolerance {found['tolerance']:.0%}, alpha {found['alpha']:.0%}, looks after 6, 9, 12 and 16"
            f" blocks of {found['rounds']} rounds, {found['trials']} races a cell."
        ),
        "",
        (
            "| what disturbs | HEAD slower by | regression | pass | could not tell | intervals that hold the"
            " truth |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for one in found["cells"]:
        shares = (one["regression"], one["pass"], one["inconclusive"], one["covered"])
        lines.append(
            f"| {one['world']} | {one['slower']:.0%} | "
            + " | ".join(f"{share:.1%}" for share in shares)
            + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
