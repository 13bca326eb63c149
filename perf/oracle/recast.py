"""One module in two precisions, one at a time: its weights are exchanged for others and come
back.

A copy of the module would do as well, and many cannot be copied: those that hold a lock, a client
or a weight that a hook computes.
"""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

# What a model that names a precision gets in fp64.
RAISED = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}
# Attributes of a module that are changed where they are.
CONTAINERS = (dict, list, set, OrderedDict)
CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16)


def cast_floats(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Casts the floating-point weights of a module in place, and returns it. Complex ones stay:
    torch's own cast takes their real part.
    """
    cast: torch.nn.Module = module._apply(  # type: ignore[no-untyped-call]  # torch leaves it untyped
        lambda value: value.to(dtype) if value.is_floating_point() else value
    )
    return cast


class Held:
    """What a module and its parts hold besides the values of their weights: attributes, and what
    is in those that are lists, dicts and sets, as caches and registers of buffers are.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.attributes = [(part.__dict__, dict(part.__dict__)) for part in module.modules()]
        containers = [value for _, held in self.attributes for value in held.values()]
        self.contents = [(value, copy.copy(value)) for value in containers if type(value) in CONTAINERS]

    def restore(self) -> None:
        for attributes, held in self.attributes:
            attributes.clear()
            attributes.update(held)
        for container, content in self.contents:
            container.clear()
            if isinstance(container, list):
                container.extend(content)
            else:
                container.update(content)


class Recast:
    """A module's weights in another precision or on another device, beside its own."""

    def __init__(
        self, module: torch.nn.Module, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self.module = module
        tensors = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
        self.tensors = list(tensors.values())
        self.own = [tensor.data for tensor in self.tensors]
        self.recast = [
            data.to(device, dtype, copy=True) if data.is_floating_point() else data.to(device, copy=True)
            for data in self.own
        ]
        self.first = Held(module)

    @contextlib.contextmanager
    def active(self) -> Iterator[torch.nn.Module]:
        """Lets the module have the other weights inside, and what it held when this was made;
        afterwards it has its own again, whatever the code inside does.
        """
        before = Held(self.module)
        self.first.restore()
        self.put(self.recast)
        try:
            yield self.module
        finally:
            self.put(self.own)
            before.restore()

    def put(self, datas: list[torch.Tensor]) -> None:
        for tensor, data in zip(self.tensors, datas, strict=True):
            tensor.data = data


class InFp64(TorchFunctionMode):
    """Lets what forward makes be fp64: tensors of the default dtype and of one that it names."""

    def __enter__(self) -> InFp64:
        self.default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        super().__enter__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self.default)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in CASTS:
            return args[0].double()
        args, kwargs = tree_map_only(
            torch.dtype, lambda dtype: RAISED.get(dtype, dtype), (args, kwargs or {})
        )
        return func(*args, **kwargs)
