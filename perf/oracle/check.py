"""The oracle's verdict: outputs may be as wrong as same-precision eager is, times k, and no worse.

No speed is reported for wrong ones.

Rule (after PyTorch's benchmarks/dynamo): RMSE to fp64 <= k * RMSE of same-precision eager + floor;
k = 2, and 3 for half precision or fewer than 1,000 elements. int8 has no eager of its own: its
yardstick is the fp32 module with weights and inputs of its layers rounded to 8 bits (rounded.py), k
= 3; where there is a task metric, that alone decides.

The floor is 0.5 ulp of the output's precision at the output's root mean square, and what summing in
another order may cost in fp32, the precision that all backends accumulate in: 0.5 ulp times the
square root of the longest sum (Higham and Mary, A New Approach to Probabilistic Rounding Error
Analysis, SIAM J. Sci. Comput. 41(5), 2019). Without the second part Inductor's mean over 1,024
values, 6e-7 from fp64, counted as wrong because eager's pairwise sum happened to be four times
closer. To it comes what rounding was seen to cost the output (rounding.py): an output that is
exactly zero, where equal terms cancel, has no size that says what its terms were, and the sine of
1,000 radians has the error of its angle, which eager may hit or miss.

Integers and booleans are right or wrong: their RMSE is the root of the share that is wrong, and
there is no floor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..terms.reasons import Refusal
from ..terms.result import Deviation, Distance, Task
from ..terms.work import TaskMetric
from .arrays import named, rmse

if TYPE_CHECKING:
    import numpy as np

# Distance from 1 to the next larger number: 2 to the minus stored fraction bits (IEEE 754; bfloat16
# and TF32 by their makers).
EPSILON = {"fp32": 2.0**-23, "tf32": 2.0**-10, "bf16": 2.0**-7, "fp16": 2.0**-10, "int8": 2.0**-7}
# Precisions whose roundings are coarse against the differences between backends: k = 3.
LOW = ("bf16", "fp16", "tf32", "int8")
# Below this many elements an RMSE is itself uncertain: k = 3 (PyTorch's benchmarks/dynamo).
FEW = 1000
# The smallest normal number, below which the spacing stays as it is (IEEE 754); only fp16 has it
# where outputs are.
SMALLEST = {"fp16": 2.0**-14}


# The most that outputs may be allowed to be off by, in multiples of their root mean square, whether
# eager or files from elsewhere would allow it. Eager of deep models is off by 1e-6 in fp32 and by
# some percent in bf16 and int8; more is no reference but a permission. An output that is zero may
# be off by ZERO.
MOST = {"fp32": 0.01, "tf32": 0.1, "fp16": 0.1, "bf16": 0.5, "int8": 0.75}
ZERO = 1e-3
# Share of its integers that eager may have wrong by the word of files from elsewhere.
SHARE_WRONG = 0.1
# Elements below this share of the root mean square are judged by their own, where they are most.
MINOR = 1e-6


class Allowance(NamedTuple):
    """The rule: an RMSE to fp64 of at most k times eager's, plus the floor."""

    k: float
    floor: float
    tolerance: float


def allowance(
    eager_rmse: float, rms: float, elements: int, precision: str, sums: float, gradient: bool = False
) -> Allowance:
    """Returns how far an output of this root mean square and number of elements may be from fp64.

    eager_rmse: how far same-precision eager is. sums: what summing in another order may cost.
    """
    k = 3.0 if gradient or precision in LOW or elements < FEW else 2.0
    floor = half_ulp(precision, rms) + sums
    return Allowance(k, floor, k * eager_rmse + floor)


def half_ulp(precision: str, rms: float) -> float:
    """Returns half the spacing of the precision's numbers around rms."""
    rms = max(rms, SMALLEST.get(precision, 2.0**-126))
    return 0.5 * EPSILON[precision] * 2.0 ** math.floor(math.log2(rms))


def summing(terms: int, rms: float) -> float:
    """Returns what summing `terms` numbers in another order may cost in fp32 around rms."""
    return math.sqrt(terms) * half_ulp("fp32", rms)


def distance(
    outputs: np.ndarray,
    reference: np.ndarray,
    eager: np.ndarray,
    precision: str,
    terms: int,
    rounding: float = 0.0,
) -> Distance:
    """Returns how far one output is from fp64, over all batches: arrays (K, B, ...).

    eager: the same precision's own output. terms: the longest sum behind an element. rounding: what
    fp32 may cost besides. An output of another shape is infinitely far.
    """
    import numpy as np

    eager_rmse = rmse([eager], [reference])
    if whole := reference.dtype.kind in "iub":
        k, floor, tolerance = 1.0, 0.0, eager_rmse
    else:
        rms = float(np.sqrt(np.mean(reference**2))) if reference.size else 0.0
        sums = summing(terms, rms) + rounding
        k, floor, tolerance = allowance(eager_rmse, rms, reference.size, precision, sums)
    if outputs.shape != reference.shape:
        return Distance(math.inf, eager_rmse, tolerance, k, floor, 0.0, reference.size, reference.size)
    if whole:
        wrong = int((outputs != reference).sum())
        share = 1 - wrong / max(1, reference.size)
        return Distance(
            rmse([outputs], [reference]), eager_rmse, tolerance, k, floor, share, wrong, reference.size
        )
    a, b = outputs.astype(np.float64).ravel(), reference.ravel()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / norms if norms > 0 and math.isfinite(norms) else 1.0 if (a == b).all() else 0.0
    flips = (
        int((outputs.argmax(-1) != reference.argmax(-1)).sum())
        if reference.ndim > 2 and reference.shape[-1] > 1
        else 0
    )
    return Distance(
        rmse([outputs], [reference]), eager_rmse, tolerance, k, floor, cosine, flips, reference.size
    )


def distances(
    oracle: Path, outputs: Mapping[str, Path], precision: str, terms: int, names: Sequence[str] = ()
) -> dict[str, Distance]:
    """Returns, for each kind of inputs (random, real), the distance of the worst output.

    The worst is the one furthest out in units of its tolerance. names: of the outputs, where they
    are known. Raises Refusal(accuracy) where there are more or fewer outputs than eager gives, or
    one has another shape.
    """
    import numpy as np

    worst = {}
    for kind, path in outputs.items():
        with (
            np.load(oracle / f"{kind}.npz", allow_pickle=False) as stored,
            np.load(path, allow_pickle=False) as produced,
        ):
            references = named(stored, "ref")
            eagers = named(stored, f"eager-{precision}-")
            outs = named(produced, "out")
            roundings = [float(stored.get(f"rounding{index}", 0.0)) for index in range(len(references))]
            minors = [float(stored.get(f"minor-rounding{index}", 0.0)) for index in range(len(references))]
        if len(outs) != len(references):
            raise Refusal(
                "accuracy", f"{len(outs)} outputs on {kind} inputs where eager gives {len(references)}"
            )
        for index, (out, reference) in enumerate(zip(outs, references, strict=True)):
            if out.shape != reference.shape:
                name = names[index] if index < len(names) else f"output {index}"
                raise Refusal(
                    "accuracy",
                    f"{name} on {kind} inputs has shape {out.shape[1:]} where eager gives"
                    f" {reference.shape[1:]}",
                )
        each = []
        for index, (out, true, eager, rounding, cost) in enumerate(
            zip(outs, references, eagers, roundings, minors, strict=True)
        ):
            whole = distance(out, true, eager, precision, terms, rounding)
            if precision != "int8" and true.any() and not whole.tolerance <= most(true, precision):
                cause = f"eager itself is off by {whole.eager_rmse:.3g} RMSE in {precision}"
                if rounding > whole.eager_rmse:
                    cause = f"rounding in fp32 was seen to move it by {rounding:.3g} RMSE, as where an order"
                    cause += " of scores or a branch hangs on the last bit"
                raise Refusal(
                    "accuracy",
                    f"output {index} cannot be checked on {kind} inputs: {cause}, which would allow"
                    f" {whole.tolerance:.3g}; at most {most(true, precision):.3g} can be allowed for its"
                    " size",
                )
            each.append(whole)
            small = minor(true)
            if precision != "int8" and small.any():
                cost = min(cost, most(true[small], precision))
                each.append(distance(out[small], true[small], eager[small], precision, terms, cost))
        worst[kind] = max(each, key=_excess)
    return worst


def most(reference: np.ndarray, precision: str) -> float:
    """Returns the most that outputs may be allowed to be off by: MOST of their size, or ZERO. Of
    integers, whose RMSE is the root of the share that is wrong, half may be.
    """
    import numpy as np

    if reference.dtype.kind in "iub":
        return math.sqrt(0.5)
    size = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64)))) if reference.size else 0.0
    return MOST[precision] * size if size > 0 else ZERO


def minor(reference: np.ndarray) -> np.ndarray:
    """Returns which elements are so much smaller than the output's root mean square that it says
    nothing of them: a score of -1e9 in each row hides all others. None where fewer than half are.
    """
    import numpy as np

    size = np.abs(reference, dtype=np.float64) if reference.dtype.kind == "f" else np.ones(reference.shape)
    small = (size > 0) & (size < MINOR * np.sqrt(np.mean(np.square(size)))) if size.size else size > 0
    return small if 2 * small.sum() >= size.size else np.zeros_like(small)


def bounded(reference: Path, precision: str, terms: int, judged_rmse: float = 0.0) -> None:
    """Raises Refusal(accuracy) where a file of references (K, B, ...) that came from elsewhere
    allows outputs that are no more like them than MOST.

    terms: the longest sum, as the same source states it. judged_rmse: what a task metric is said to
    have accepted.
    """
    import numpy as np

    with np.load(reference, allow_pickle=False) as stored:
        references, eagers = named(stored, "ref"), named(stored, f"eager-{precision}-")
        roundings = [float(stored.get(f"rounding{index}", 0.0)) for index in range(len(references))]
    for index, (true, eager, rounding) in enumerate(zip(references, eagers, roundings, strict=True)):
        allowed = max(distance(true, true, eager, precision, terms, rounding).tolerance, judged_rmse)
        limit = SHARE_WRONG**0.5 if true.dtype.kind in "iub" else most(true, precision)
        if not allowed <= limit:
            raise Refusal(
                "accuracy",
                f"by its own files, output {index} may be off by {allowed:.3g} RMSE; in {precision} at most"
                f" {limit:.3g} can be allowed for its size: build it again",
            )


def _excess(distance: Distance) -> tuple[bool, float]:
    """Orders distances: those beyond their tolerance last, by multiples of it."""
    share = distance.rmse / distance.tolerance if distance.tolerance > 0 else distance.rmse
    return not distance.within, share


def task(metric: TaskMetric, scores: Mapping[str, float], precision: str) -> Task:
    """The task metric that the case reached, beside fp32 eager's."""
    budget = metric.int8_budget if precision == "int8" else metric.budget
    return Task(metric.metric, metric.better, scores[metric.metric], metric.reference, budget, dict(scores))


def judge(deviation: Deviation, precision: str, has_task: bool) -> None:
    """Raises Refusal(accuracy) with the first rule that the outputs break.

    has_task: whether there is a task metric, which for int8 alone decides; it may be scored later.
    """
    for kind, distance in deviation.distances.items():
        if math.isnan(distance.rmse):
            raise Refusal("accuracy", f"NaN outputs on {kind} inputs where fp64 eager is finite")
        if not distance.within and not (precision == "int8" and has_task):
            rule = f"{distance.k:g} x eager's {distance.eager_rmse:.3g} + {distance.floor:.2g}"
            raise Refusal(
                "accuracy",
                f"outputs on {kind} inputs are off by {distance.rmse:.3g} RMSE; at most"
                f" {distance.tolerance:.3g} is allowed ({rule}), cosine {distance.cosine:.6f}",
            )
    metric = deviation.task
    if metric is not None and not metric.within:
        beside = f"fp32 eager reaches {metric.reference:.4f} and it may be worse by at most {metric.budget:g}"
        raise Refusal("accuracy", f"{metric.metric} on the validation split is {metric.value:.4f}; {beside}")


def timed_limits(
    oracle: Path, outputs: Mapping[str, Path], checked: Mapping[str, Distance], judged: bool = True
) -> list[float]:
    """Returns how far (RMSE) outputs of a timed call may be, for each rotating input.

    That is twice what the check saw for this input, or the check's largest tolerance. Where
    distances were not judged, as of int8 with a task metric, it is at least twice what any random
    input was off: inputs that no call has seen are of that kind.
    """
    seen = by_batch(oracle / "timed.npz", outputs["timed"])
    allowed = max(distance.tolerance for distance in checked.values())
    if not judged and "random" in outputs:
        random = filter(math.isfinite, by_batch(oracle / "random.npz", outputs["random"]))
        allowed = max(allowed, 2 * max(random, default=0.0))
    return [max(allowed, 2 * each) for each in seen]


def by_batch(oracle: Path, outputs: Path) -> list[float]:
    """Returns the RMSE of each batch of stored outputs to its reference."""
    import numpy as np

    with (
        np.load(oracle, allow_pickle=False) as stored,
        np.load(outputs, allow_pickle=False) as produced,
    ):
        references, outs = named(stored, "ref"), named(produced, "out")
    return [
        rmse([out[index] for out in outs], [ref[index] for ref in references])
        for index in range(len(references[0]))
    ]
