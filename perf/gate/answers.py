"""Whether HEAD gives the answers that BASE gives: what either side's module makes of the same
inputs in fp64 is compared before anything is timed.

Both sides are made with the same seeds, so without a checkpoint they have the same weights as long
as they are made alike. The rule is the oracle's (oracle/check.py): HEAD may be as far from BASE as
a backend may be from fp64. An algorithm that is written otherwise and computes the same is within
it; another activation, an axis too many, a normalisation that was lost are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..oracle import check
from ..oracle.arrays import named
from ..stats.compare import Outcome
from ..terms.verdict import Finding
from .policy import MOST_TOLERANCE, OUTPUTS, Rules, accepting, percent

# Kinds of inputs that references are made of (oracle/inputs.py), the user's own first.
KINDS = ("real", "random")


class Change(NamedTuple):
    """How far one output of HEAD is from BASE's."""

    # Root mean square of the difference over that of BASE's output; infinite for another shape.
    share: float
    # The same of what is allowed.
    allowed: float
    # In words.
    evidence: str

    @property
    def within(self) -> bool:
        return self.share <= self.allowed

    @property
    def excess(self) -> float:
        """By how many times it is more than what is allowed."""
        return self.share / self.allowed if self.allowed else math.inf if self.share else 0.0


def finding(
    case: str, precision: str, base: Path, head: Path, terms: int, names: Sequence[str], rules: Rules
) -> Finding:
    """Returns what the reference outputs of both sides say.

    base, head: folders of the oracle. terms: the longest sum behind an element. names: of the
    outputs, where they are known.
    """
    asked = rules.tolerance.get(OUTPUTS)
    compared = [
        change
        for kind in KINDS
        if alike(base / f"{kind}.npz", head / f"{kind}.npz")
        for change in changes(base / f"{kind}.npz", head / f"{kind}.npz", kind, precision, terms, names)
    ]
    if not compared:
        why = "the two sides have other inputs, so their answers cannot be compared"
        return judged(case, "inconclusive" if asked is None else "pass", asked, None, why)
    worst = max(compared, key=lambda change: change.excess)
    if worst.within:
        return judged(case, "pass", asked, 0.0, f"the same answers: {worst.excess:.2g} of what is allowed")
    accepted = asked is not None and (worst.share <= asked or asked == MOST_TOLERANCE)
    verdict: Outcome = "pass" if accepted else "regression"
    return judged(case, verdict, asked, worst.share, worst.evidence)


def judged(case: str, verdict: Outcome, tolerance: float | None, share: float | None, why: str) -> Finding:
    """Returns a finding; one that is not green with the line of gate.toml that accepts it."""
    least = share if share is not None and math.isfinite(share) else MOST_TOLERANCE
    return Finding(
        case,
        OUTPUTS,
        verdict,
        None if share is None else 0.0,
        share if share is not None and math.isfinite(share) else None,
        tolerance=tolerance,
        kind="counter",
        evidence=(why,) if verdict == "pass" else (why, accepting("tolerance", OUTPUTS, percent(least))),
    )


def alike(base: Path, head: Path) -> bool:
    """Returns whether both sides have inputs of this kind, and the same."""
    import numpy as np

    if not (base.is_file() and head.is_file()):
        return False
    with np.load(base, allow_pickle=False) as mine, np.load(head, allow_pickle=False) as theirs:
        ours, others = named(mine, "in"), named(theirs, "in")
    return len(ours) == len(others) and all(map(np.array_equal, ours, others))


def changes(
    base: Path, head: Path, kind: str, precision: str, terms: int, names: Sequence[str]
) -> Iterator[Change]:
    """Yields how far each output of HEAD is from BASE's, over all batches of one kind of inputs."""
    import numpy as np

    with np.load(base, allow_pickle=False) as mine, np.load(head, allow_pickle=False) as theirs:
        references, others = named(mine, "ref"), named(theirs, "ref")
        eagers = named(mine, f"eager-{precision}-")
        roundings = [float(mine.get(f"rounding{index}", 0.0)) for index in range(len(references))]
    if len(references) != len(others):
        yield Change(math.inf, 0.0, f"{len(others)} outputs where base has {len(references)}")
        return
    for index, (true, other, eager, rounding) in enumerate(
        zip(references, others, eagers, roundings, strict=True)
    ):
        where = f"{names[index] if index < len(names) else f'output {index}'} on {kind} inputs"
        if true.shape != other.shape:
            yield Change(
                math.inf, 0.0, f"{where} has shape {other.shape[1:]} where base has {true.shape[1:]}"
            )
            continue
        apart = check.distance(other, true, eager, precision, terms, rounding)
        size = float(np.sqrt(np.mean(np.square(true, dtype=np.float64)))) if true.size else 0.0
        scale = size if size > 0 and true.dtype.kind not in "iub" else 1.0
        share = apart.rmse / scale if not math.isnan(apart.rmse) else math.inf
        yield Change(
            share, apart.tolerance / scale, f"outputs differ: rmse {share:.2g} of base's scale at {where}"
        )
