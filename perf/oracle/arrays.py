"""Arrays that processes hand to each other in npz files, and the distance between two lists."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..terms.contract import Arrays


def on_stored(run: Callable[[Arrays], Arrays], inputs: Path, outputs: Path) -> None:
    """Runs the stored inputs (K, B, ...) one after another and stores the outputs (K, B, ...)."""
    import numpy as np

    with np.load(inputs, allow_pickle=False) as stored:
        values = named(stored, "in")
    results = [
        run(tuple(np.asarray(value[index], order="C") for value in values)) for index in range(len(values[0]))
    ]
    np.savez(
        outputs,
        allow_pickle=False,
        **{f"out{index}": np.stack(parts) for index, parts in enumerate(zip(*results, strict=True))},
    )


def on_split(run: Callable[[Arrays], Arrays], split: Sequence[Any], batch: int) -> Arrays:
    """Returns the outputs (N, ...) of a whole split (N, ...), run in batches of `batch` rows.

    The last batch is filled up with rows from the beginning, whose outputs are dropped.
    """
    import numpy as np

    total = len(split[0])
    batches = [np.arange(start, start + batch) % total for start in range(0, total, batch)]
    results = [run(tuple(np.ascontiguousarray(value[rows]) for value in split)) for rows in batches]
    return tuple(np.concatenate(parts)[:total] for parts in zip(*results, strict=True))


def comparable(array: Any) -> Any:
    """Returns an output in the form that is compared: float64 and integers as they are, complex
    numbers as two parts (..., 2), all else as float32.
    """
    import numpy as np

    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], -1)
    return array if array.dtype.kind in "iub" or array.dtype == np.float64 else array.astype(np.float32)


def inputs_alone(source: Path, target: Path) -> None:
    """Stores the inputs of an npz file without their outputs. Raises OSError."""
    import numpy as np

    with np.load(source, allow_pickle=False) as stored:
        arrays = {f"in{index}": value for index, value in enumerate(named(stored, "in"))}
    np.savez(target, allow_pickle=False, **arrays)


def named(stored: Any, prefix: str) -> list[Any]:
    """Returns the arrays prefix0, prefix1, ... of an npz file, in order."""
    count = sum(name.startswith(prefix) for name in stored.files)
    return [stored[f"{prefix}{index}"] for index in range(count)]


def rmse(outputs: Any, expected: Any) -> float:
    """Returns the root mean square error over all elements of all outputs; an integer or boolean is
    off by 1 if it is another.

    NaN where any is NaN, infinite where shapes differ.
    """
    import numpy as np

    def squares(value: Any, true: Any) -> float:
        if true.dtype.kind in "iub":
            return float(np.sum(value != true))
        return float(np.sum((value.astype(np.float64) - true) ** 2))

    if len(outputs) != len(expected) or any(
        a.shape != b.shape for a, b in zip(outputs, expected, strict=True)
    ):
        return float("inf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        total = sum(squares(a, b) for a, b in zip(outputs, expected, strict=True))
    return float((total / max(1, sum(a.size for a in outputs))) ** 0.5)
