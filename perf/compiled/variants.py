"""How often Triton would compile a kernel of ours over 40 sizes of what changes from call to call
(rows, sequence length, images, tensors).

Each size that is a constexpr, equals 1 or becomes a multiple of 16 can be another variant, each
with seconds of compiling in the middle of a run. Nothing is compiled or launched here
(launches.py).
"""

from __future__ import annotations

import importlib
import inspect
from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

from .launches import Launch, recorded

SIZES = (*range(1, 34), 47, 48, 63, 64, 65, 96, 128)


class Variants(NamedTuple):
    """Of one kernel: how many, and the arguments by which they differ."""

    number: int
    differing: tuple[str, ...]


def of_operation(name: str, dtype: str = "fp32", sizes: tuple[int, ...] = SIZES) -> dict[str, Variants]:
    """Name of the kernel -> its variants, forward and backward, in the default setting."""
    module = importlib.import_module(f"hotlap.kernels.ops.{name}")
    return counted(
        [launch for count in sizes for launch in recorded(partial(typical_call, module, dtype, count))]
    )


def typical_call(module: Any, dtype: Any, count: int) -> None:
    """Forward and backward on typical inputs of `count` rows."""
    forth_and_back(module, module.typical(dtype, count, "cpu"))


def forth_and_back(module: Any, given: tuple[Any, ...]) -> None:
    """As library.py calls the two."""
    import torch

    inputs = dict(zip(inspect.signature(module.forward).parameters, given, strict=False))
    made = module.forward(*given)
    if not module.GRADIENTS:
        return
    known = inputs | dict(zip(module.RETURNS, made, strict=True))
    known |= {
        f"d{name}": torch.empty_like(known[name]) for name in module.RETURNS[: getattr(module, "OUTPUTS", 1)]
    }
    module.backward(
        **{name: known[name] for name in inspect.signature(module.backward).parameters if name in known}
    )


def counted(launches: list[Launch]) -> dict[str, Variants]:
    keys: dict[str, list[dict[str, str]]] = defaultdict(list)
    for launch in launches:
        if launch.key not in keys[launch.name]:
            keys[launch.name].append(launch.key)
    return {
        name: Variants(
            len(found),
            tuple(argument for argument in found[0] if len({key.get(argument) for key in found}) > 1),
        )
        for name, found in keys.items()
    }
