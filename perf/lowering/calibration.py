"""What int8 takes the ranges of activations from: real inputs of the training split, never of the
one that judges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..terms.case import Workload
from ..terms.reasons import Refusal

if TYPE_CHECKING:
    from ..terms.contract import Arrays

# Rows that give ranges and judge, all together.
ROWS = 256
# One batch in this many judges instead of giving ranges.
HELD_BACK = 4
# At most this many batches judge.
JUDGED = 16
# Cosine to the fp32 outputs below which layers are left in fp32: 0.995 is an error of 10 % of the
# outputs' length (sin of the angle). Models that quantise well reach 0.996 and more.
LIMIT = 0.995


class Calibration(NamedTuple):
    """Inputs for a quantiser.

    batches: each with as many rows as the workload's own. source: where they come from, in words
    that stand with the result.
    """

    batches: list[Arrays]
    source: str

    def split(self) -> tuple[Sequence[Arrays], Sequence[Arrays], bool]:
        """Returns batches for the ranges, batches to be judged on, and whether those are others.

        The first is always used: it may be the only real one.
        """
        if len(self.batches) < 2:
            return self.batches, self.batches, False
        held = [
            batch for index, batch in enumerate(self.batches) if index % HELD_BACK == HELD_BACK - 1
        ] or self.batches[1:]
        judging = {id(batch) for batch in held}
        return [batch for batch in self.batches if id(batch) not in judging], held[:JUDGED], True


def calibration(workload: Workload) -> Calibration:
    """Returns at most ROWS rows of the training split, in whole batches.

    Without such a split they are the example inputs and four look-alikes of them; `source` says so.

    Raises Refusal(invalid_input) for inputs that give no ranges.
    """
    import torch

    from ..oracle.inputs import lookalike

    rows = len(workload.inputs[0])
    split = workload.calibration
    if split is None or len(split[0]) < rows:
        torch.manual_seed(0)
        sets = [workload.inputs, *(tuple(lookalike(value) for value in workload.inputs) for _ in range(4))]
        return useful(
            [tuple(value.numpy() for value in values) for values in sets],
            "the example inputs and 4 random ones like them: give Workload.calibration real ones",
        )
    starts = range(0, min(ROWS, len(split[0])) - rows + 1, rows)
    return useful(
        [tuple(value[start : start + rows].numpy() for value in split) for start in starts],
        f"{len(starts) * rows} rows of the training split",
    )


def useful(batches: list[Arrays], source: str) -> Calibration:
    """Returns the calibration; raises Refusal(invalid_input) if it gives no ranges."""
    import numpy as np

    inputs = [np.stack(values) for values in zip(*batches, strict=True)]
    if not all(np.isfinite(value).all() for value in inputs):
        raise Refusal(
            "invalid_input",
            "calibration inputs hold NaN or infinity: int8 has no ranges to take from them; give"
            " Workload.calibration finite ones",
        )
    if all(value.min() == value.max() for value in inputs):
        values = ", ".join(f"{value.min():g}" for value in inputs)
        raise Refusal(
            "invalid_input",
            f"calibration inputs hold one value only ({values}): int8 has no ranges to take from them; give"
            " Workload.calibration real ones",
        )
    return Calibration(batches, source)


def cosine(wanted: Sequence[Arrays], outputs: Sequence[Arrays]) -> float:
    """Returns the cosine of the output that is furthest from what was wanted, over all batches.

    It is 0 where an output is not finite.
    """
    import numpy as np

    worst = 1.0
    for ours, theirs in zip(zip(*wanted, strict=True), zip(*outputs, strict=True), strict=True):
        a, b = (
            np.concatenate([np.ravel(value).astype("float64") for value in values])
            for values in (ours, theirs)
        )
        norms = float(np.linalg.norm(a) * np.linalg.norm(b))
        if norms > 0 and math.isfinite(norms):
            worst = min(worst, float(a @ b) / norms)
        elif not np.array_equal(a, b):
            worst = 0.0
    return worst
