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

# Where specialisation changes: 1, multiples of 16 and their neighbours, powers of two.
SIZES = (*range(1, 34), 47, 48, 63, 64, 65, 96, 128)


class Variants(NamedTuple):
    """How many variants a kernel has, and the arguments by which they differ."""

    number: int
    differing: tuple[str, ...]


def of_operation(name: str, dtype: str = "fp32", sizes: tuple[int, ...] = SIZES) -> dict[str, Variants]:
    """Returns the variants of each kernel of an operation, forward and backward, by its name.

    They are those of the default setting.
    """
    module = importlib.import_module(f"hotlap.kernels.ops.{name}")
    return counted(
        [launch for count in sizes for launch in recorded(partial(typical_call, module, dtype, count))]
    )


def typical_call(module: Any, dtype: Any, count: int) -> None:
    """Runs forward and backward on typical inputs of `count` rows."""
    forth_and_back(module, module.typical(dtype, count, "cpu"))


def forth_and_back(module: Any, arguments: tuple[Any, ...]) -> None:
    """Calls an operation's forward, then its backward, with the arguments that each names.

    So does kernels/library.py, which registers both with torch. The gradients that come in are
    uninitialised.
    """
    import torch

    inputs = dict(zip(inspect.signature(module.forward).parameters, arguments, strict=False))
    outputs = module.forward(*arguments)
    if not module.GRADIENTS:
        return
    known = inputs | dict(zip(module.RETURNS, outputs, strict=True))
    known |= {
        f"d{name}": torch.empty_like(known[name]) for name in module.RETURNS[: getattr(module, "OUTPUTS", 1)]
    }
    module.backward(
        **{name: known[name] for name in inspect.signature(module.backward).parameters if name in known}
    )


def counted(launches: list[Launch]) -> dict[str, Variants]:
    """Returns the variants of each kernel that was launched, by its name."""
    keys: dict[str, list[dict[str, str]]] = defaultdict(list)
    for launch in launches:
        if launch.key not in keys[launch.name]:
            keys[launch.name].append(launch.key)
    return {
        name: Variants(
            len(own),
            tuple(argument for argument in own[0] if len({key.get(argument) for key in own}) > 1),
        )
        for name, own in keys.items()
    }
