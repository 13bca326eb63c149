"""Does the gate alarm as rarely as it says? Races of known truth go through the gate's own tests.

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
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "gate_simulation.json"
# Of a race, and rounds of a block.
BLOCKS = 16
ROUNDS = 20
# The gate's defaults: how much slower counts, and the error rate.
TOLERANCE = 0.03
ALPHA = 0.05
# Standard deviation of a sample, as a share.
NOISE = 0.05
# How much slower HEAD is.
SLOWER = (TOLERANCE, 0.05, 0.10)


class World(NamedTuple):
    """What disturbs a race; standard deviations are shares of the latency."""

    # Of the noise that both sides see from sample to sample: its autocorrelation and its sd.
    phi: float = 0.0
    drift: float = 0.0
    # Sd of the effect that a worker of one block has.
    worker: float = 0.0
    # Sd of the effect that the whole job has.
    job: float = 0.0


WORLDS = {
    "independent samples": World(),
    "AR(0.5) of 10 % that both see": World(phi=0.5, drift=0.10),
    "AR(0.9) of 10 % that both see": World(phi=0.9, drift=0.10),
    "workers differ by 1 %": World(worker=0.01),
    "workers differ by 3 %": World(worker=0.03),
    "jobs differ by 20 %": World(worker=0.01, job=0.20),
    "all of it": World(phi=0.9, drift=0.10, worker=0.03, job=0.20),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())), end="")
        return
    cells = []
    for name, world in WORLDS.items():
        for slower in SLOWER:
            cells.append({"world": name, "slower": slower, **cell(world, slower, arguments.trials)})
            print(cells[-1], flush=True)
    results = {
        "trials": arguments.trials,
        "tolerance": TOLERANCE,
        "alpha": ALPHA,
        "blocks": BLOCKS,
        "rounds": ROUNDS,
        "cells": cells,
    }
    FILE.write_text(json.dumps(results, indent=1) + "\n")


def cell(world: World, slower: float, trials: int) -> dict[str, float]:
    """Simulates races and returns the shares of each verdict, and of intervals that hold the truth.

    Both are at the look where the race stopped.
    """
    import numpy as np

    from hotlap.perf.stats import compare

    each, looks = compare.level(ALPHA)
    rng = np.random.default_rng(11)
    count = {"regression": 0, "pass": 0, "inconclusive": 0, "covered": 0}
    for _ in range(trials):
        ratios = race(world, slower, rng)
        for n in looks:
            judgement = judged(ratios[:n], each)
            if judgement.verdict != "inconclusive":
                break
        count[judgement.verdict] += 1
        count["covered"] += judgement.low <= 1 + slower <= judgement.high
    return {name: number / trials for name, number in count.items()}


def judged(values: np.ndarray, each: float) -> Any:
    """The gate's own judgement of log ratios, at one look with the error rate `each`."""
    from hotlap.perf.stats import compare

    return compare.lockstep([float(value) for value in values], TOLERANCE, each, each)


def race(world: World, slower: float, rng: np.random.Generator) -> np.ndarray:
    """Simulates a race and returns the log ratios of its blocks (BLOCKS,)."""
    import numpy as np
    from scipy.signal import lfilter

    shape = (BLOCKS, ROUNDS)
    seen = np.zeros((BLOCKS, 2 * ROUNDS))
    if world.drift:
        noise = rng.standard_normal(BLOCKS * 2 * ROUNDS)
        filtered = lfilter([math.sqrt(1 - world.phi**2)], [1, -world.phi], noise)
        seen = world.drift * filtered.reshape(BLOCKS, 2 * ROUNDS)
    job = world.job * rng.standard_normal()
    base_first = rng.random(shape) < 0.5
    early, late = seen[:, ::2], seen[:, 1::2]  # the first and the second turn of each round

    def side(turns: np.ndarray, centre: float) -> np.ndarray:
        workers = world.worker * rng.standard_normal((BLOCKS, 1))
        return centre + job + turns + workers + NOISE * rng.standard_normal(shape)

    base = side(np.where(base_first, early, late), 0.0)
    head = side(np.where(base_first, late, early), math.log1p(slower))
    return np.median(head - base, axis=1)


def table(results: dict[str, Any]) -> str:
    lines = [
        (
            f"Tolerance {results['tolerance']:.0%}, alpha {results['alpha']:.0%}, looks after 6, 9, 12 and 16"
            f" blocks of {results['rounds']} rounds, {results['trials']} races a cell."
        ),
        "",
        (
            "| what disturbs | HEAD slower by | regression | pass | could not tell | intervals that hold the"
            " truth |"
        ),
        "|---|---|---|---|---|---|",
    ]
    for row in results["cells"]:
        shares = [f"{row[name]:.1%}" for name in ("regression", "pass", "inconclusive", "covered")]
        lines.append(f"| {row['world']} | {row['slower']:.0%} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
