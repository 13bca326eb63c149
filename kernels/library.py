"""The operations as torch.ops.hotlap.NAME and NAME_backward, and one differentiable function for
each: `function("rms_norm")(x, weight)`.

An autograd.Function around two operators of torch.library: so torch.compile, torch.export and the
fake tensors see one node each way. Where Triton is not wanted (dispatch.py) the function is the
operation's reference, plain aten, and no operator of ours is in the graph. `decompositions()` takes
our operators out of an exported program again, for ONNX and TensorRT.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch

from . import dispatch, ops
from .contract import DTYPES, Unsupported

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(ops.__path__)))
KINDS = tuple(getattr(torch, name) for name in DTYPES.values())
LIBRARY: Any = torch.library.Library("hotlap", "DEF")  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Operation:
    """One file of ops/, with the names of what its functions take.

    `forward`, `backward`: overloads of torch.ops.hotlap.
    """

    name: str
    module: ModuleType
    inputs: tuple[str, ...]
    defaults: tuple[Any, ...]
    checked: tuple[str, ...]
    outputs: int
    needed: tuple[str, ...]
    forward: Any
    backward: Any = None


@cache
def operation(name: str) -> Operation:
    """Defines its operators. Raises ValueError where no file has that name."""
    if name not in NAMES:
        raise ValueError(f"no operation is called {name!r}; there are {', '.join(NAMES)}")
    module = importlib.import_module(f"{ops.__name__}.{name}")
    parameters = inspect.signature(module.forward).parameters
    checked = tuple(inspect.signature(module.check).parameters) if hasattr(module, "check") else ()
    backward = getattr(module, "backward", None)
    needed = tuple(inspect.signature(backward).parameters) if backward else ()
    aten = getattr(module, "results", None) or module.reference
    made = define(name, module.forward, aten, getattr(module, "MUTATES", ()))
    undone = define(f"{name}_backward", backward, None, ()) if backward else None
    defaults = tuple(parameter.default for parameter in parameters.values())
    return Operation(
        name,
        module,
        tuple(parameters),
        defaults,
        checked,
        getattr(module, "OUTPUTS", 1),
        needed,
        made,
        undone,
    )


def define(
    name: str, triton: Callable[..., Any], aten: Callable[..., Any] | None, mutates: tuple[str, ...]
) -> Any:
    """One operator:

    Triton on a GPU and in the interpreter, aten on a CPU, shapes by the same code without its
    launches.
    """
    schema = torch.library.infer_schema(triton, mutates_args=mutates).replace("((Tensor))", "Tensor")
    LIBRARY.define(f"{name}{schema}")

    def on_gpu(*arguments: Any) -> Any:
        dispatch.launched[name] += 1
        return alone(triton(*arguments))

    def on_cpu(*arguments: Any) -> Any:
        if dispatch.wanted(next(tensors(arguments))):
            return on_gpu(*arguments)
        if aten is None:
            raise Unsupported(
                f"{name}: on a CPU the gradient is that of the reference; call the function, not the operator"
            )
        found = aten(*arguments)
        return (
            None
            if found is None
            else alone(tuple(value.contiguous() if value.ndim != 4 else value for value in several(found)))
        )

    LIBRARY.impl(name, on_gpu, "CUDA")
    LIBRARY.impl(name, on_cpu, "CPU")
    torch.library.register_fake(f"hotlap::{name}", lambda *arguments: alone(triton(*arguments)), lib=LIBRARY)
    return getattr(torch.ops.hotlap, name).default


@cache
def function(name: str) -> Callable[..., Any]:
    """The differentiable function: an output, or a tuple of them, for the inputs of the operation's
    reference.
    """
    return partial(call, operation(name), differentiable(operation(name)))


def call(op: Operation, apply: Callable[..., Any], *inputs: Any) -> Any:
    if not dispatch.wanted(inputs[0]):
        return op.module.reference(*inputs)
    try:
        ready = prepared(op, inputs)
    except Unsupported as error:
        dispatch.fell_back(op.name, str(error))
        return op.module.reference(*inputs)
    return apply(*ready)


def prepared(op: Operation, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """All inputs, in the dtypes that autocast asks for. Raises Unsupported."""
    if torch.is_autocast_enabled(inputs[0].device.type):
        inputs = cast(op, inputs)
    inputs += op.defaults[len(inputs) :]
    check(op, inputs)
    if "slopes" in op.inputs:  # whether forward has gradients to make
        slopes = torch.is_grad_enabled() and any(
            isinstance(value, torch.Tensor) and value.requires_grad for value in inputs
        )
        inputs = tuple(
            slopes if name == "slopes" else value for name, value in zip(op.inputs, inputs, strict=True)
        )
    return inputs


def check(op: Operation, inputs: tuple[Any, ...]) -> None:
    """Raises Unsupported."""
    given = dict(zip(op.inputs, inputs, strict=True))
    op.module.check(**{name: given[name] for name in op.checked})
    for name, value in given.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype not in KINDS:
            raise Unsupported(f"{name} is {value.dtype}; expected float32, float16 or bfloat16")


def cast(op: Operation, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """As torch.autocast does it:

    AUTOCAST of the operation is `lower` (the dtype of the context), `fp32`, `none`, or `widest` (of
    the inputs), which is the default.
    """
    rule = getattr(op.module, "AUTOCAST", "widest")
    if rule == "none":
        return inputs
    floating = [
        value.dtype for value in inputs if isinstance(value, torch.Tensor) and value.is_floating_point()
    ]
    widest = torch.float32 if torch.float32 in floating or len(set(floating)) > 1 else floating[0]
    kind = {
        "lower": torch.get_autocast_dtype(inputs[0].device.type),
        "fp32": torch.float32,
        "widest": widest,
    }[rule]
    return tuple(
        value.to(kind) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for value in inputs
    )


def differentiable(op: Operation, whole: bool = False) -> Callable[..., Any]:
    """The operator with its gradient; without one where it has none.

    whole: it gives all that it returns, of which only the outputs have a gradient.
    """
    if op.backward is None:
        return lambda *inputs: first(op, several(op.forward(*inputs)), whole)

    def forward(ctx: Any, *inputs: Any) -> Any:
        made = several(op.forward(*inputs))
        known = {
            **dict(zip(op.inputs, inputs, strict=True)),
            **dict(zip(op.module.RETURNS, made, strict=True)),
        }
        kept = [(name, known[name]) for name in op.needed if name in known]
        ctx.save_for_backward(*(value for _, value in kept if isinstance(value, torch.Tensor)))
        ctx.plain = {name: value for name, value in kept if not isinstance(value, torch.Tensor)}
        ctx.saved_names = [name for name, value in kept if isinstance(value, torch.Tensor)]
        ctx.given = [
            name
            for name, value in zip(op.inputs, inputs, strict=True)
            if name in op.module.GRADIENTS and isinstance(value, torch.Tensor)
        ]
        if whole:
            ctx.mark_non_differentiable(*made[op.outputs :])
        return first(op, made, whole)

    def backward(ctx: Any, *slopes: Any) -> Any:
        known = {f"d{name}": value for name, value in zip(op.module.RETURNS, slopes, strict=False)}
        known |= {**dict(zip(ctx.saved_names, ctx.saved_tensors, strict=True)), **ctx.plain}
        found = dict(zip(ctx.given, several(op.backward(*(known[name] for name in op.needed))), strict=True))
        return tuple(found.get(name) for name in op.inputs)

    made: Any = type(
        f"{op.name}_function",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward)},
    )
    apply: Callable[..., Any] = made.apply
    return apply


def decompositions() -> dict[Any, Callable[..., Any]]:
    """For ExportedProgram.run_decompositions: each of our operators in aten."""
    functions = [op for op in map(operation, NAMES) if not hasattr(op.module, "MUTATES")]
    return {op.forward: getattr(op.module, "results", None) or op.module.reference for op in functions}


def tensors(arguments: Any) -> Any:
    for value in arguments:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors(value)


def first(op: Operation, made: tuple[torch.Tensor, ...], whole: bool) -> Any:
    return made if whole else made[0] if op.outputs == 1 else made[: op.outputs]


def several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def alone(made: tuple[Any, ...]) -> Any:
    """As a schema with one result asks for it."""
    return made[0] if isinstance(made, tuple) and len(made) == 1 else made
