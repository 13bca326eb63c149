"""The operations as torch.ops.hotlap.NAME and NAME_backward, and one differentiable function for
each: `function("rms_norm")(x, weight)`.

A function is an autograd.Function around two operators of torch.library: so torch.compile,
torch.export and the fake tensors see one node each way. Where Triton is not wanted (dispatch.py) it
is the operation's reference, plain aten, and no operator of ours is in the graph.
`decompositions()` takes our operators out of an exported program again, for ONNX and TensorRT.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, cast

import torch

from . import dispatch, ops
from .contract import DTYPES, OperationFile, Unsupported
from .patterns import Pattern

# The operations there are: the files of ops/.
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(ops.__path__)))
# The dtypes that kernels take.
KINDS = tuple(getattr(torch, name) for name in DTYPES.values())
# Where our operators are defined; they live as long as this object.
LIBRARY: Any = torch.library.Library("hotlap", "DEF")  # type: ignore[no-untyped-call]  # torch's has no types
# How an operation follows torch.autocast: as `autocast_inputs` says.
Autocast = Literal["lower", "fp32", "none", "widest"]


@dataclass(frozen=True)
class Operation:
    """One file of ops/, with the names of what its functions take and the defaults of the rest."""

    # The file's name, without .py.
    name: str
    # The file itself.
    module: OperationFile
    # Names of forward's parameters, in order.
    inputs: tuple[str, ...]
    # Defaults of these parameters; inspect.Parameter.empty where there is none.
    defaults: tuple[Any, ...]
    # Names of check's parameters, which are some of forward's.
    checked: tuple[str, ...]
    # How many of the values that forward returns are outputs; the others are for backward alone.
    outputs: int
    # Names of backward's parameters; none where there is no gradient.
    needed: tuple[str, ...]
    # The overload torch.ops.hotlap.NAME.default.
    forward: Any
    # The overload torch.ops.hotlap.NAME_backward.default; None where there is no gradient.
    backward: Any
    # All that forward returns, computed in aten.
    aten: Callable[..., Any]
    # How it follows torch.autocast.
    autocast: Autocast
    # Inputs that forward changes in place.
    mutates: tuple[str, ...]
    # Its forms in models, which `replace` finds.
    patterns: tuple[Pattern, ...]
    # Whether `replace` takes it only where it is asked for by name.
    asked_for: bool


@cache
def operation(name: str) -> Operation:
    """Returns the operation of that name, whose operators it defines at the first call.

    Raises ValueError where no file has that name.
    """
    if name not in NAMES:
        raise ValueError(f"no operation is called {name!r}; there are {', '.join(NAMES)}")
    file = importlib.import_module(f"{ops.__name__}.{name}")
    module = cast(OperationFile, file)
    parameters = inspect.signature(module.forward).parameters
    backward = getattr(file, "backward", None)
    aten = getattr(file, "results", None) or module.reference
    mutates = getattr(file, "MUTATES", ())
    return Operation(
        name=name,
        module=module,
        inputs=tuple(parameters),
        defaults=tuple(parameter.default for parameter in parameters.values()),
        checked=tuple(inspect.signature(module.check).parameters),
        outputs=getattr(file, "OUTPUTS", 1),
        needed=tuple(inspect.signature(backward).parameters) if backward else (),
        forward=define(name, module.forward, aten, mutates),
        backward=define(f"{name}_backward", backward, None, ()) if backward else None,
        aten=aten,
        autocast=getattr(file, "AUTOCAST", "widest"),
        mutates=mutates,
        patterns=getattr(file, "PATTERNS", ()),
        asked_for=getattr(file, "ASKED_FOR", False),
    )


def define(
    name: str, triton: Callable[..., Any], aten: Callable[..., Any] | None, mutates: tuple[str, ...]
) -> Any:
    """Defines one operator and returns its overload.

    It is `triton` on a GPU and in the interpreter, and `aten` on a CPU; shapes come from the same
    code, which launches nothing for fake tensors.
    """
    schema = torch.library.infer_schema(triton, mutates_args=mutates).replace("((Tensor))", "Tensor")
    LIBRARY.define(f"{name}{schema}")

    def on_gpu(*arguments: Any) -> Any:
        dispatch.launched[name] += 1
        return unwrap_single(triton(*arguments))

    def on_cpu(*arguments: Any) -> Any:
        if dispatch.uses_triton(next(tensors_in(arguments))):
            return on_gpu(*arguments)
        if aten is None:
            raise Unsupported(
                f"{name}: on a CPU the gradient is that of the reference; call the function, not the operator"
            )
        results = aten(*arguments)
        if results is None:
            return None
        # As forward lays them out: contiguous, but for images, which may be channels_last.
        return unwrap_single(
            tuple(value.contiguous() if value.ndim != 4 else value for value in as_tuple(results))
        )

    def on_fake(*arguments: Any) -> Any:
        return unwrap_single(triton(*arguments))

    LIBRARY.impl(name, on_gpu, "CUDA")
    LIBRARY.impl(name, on_cpu, "CPU")
    torch.library.register_fake(f"hotlap::{name}", on_fake, lib=LIBRARY)
    return getattr(torch.ops.hotlap, name).default


@cache
def function(name: str) -> Callable[..., Any]:
    """Returns the operation's differentiable function: an output, or a tuple of them, of the inputs
    that its reference takes.

    Raises ValueError where no operation has that name.
    """
    return partial(call, operation(name), differentiable(operation(name)))


def call(op: Operation, apply: Callable[..., Any], *inputs: Any) -> Any:
    """The outputs by `apply` where Triton is wanted and takes these inputs, by the reference
    otherwise.
    """
    if not dispatch.uses_triton(inputs[0]):
        return op.module.reference(*inputs)
    try:
        ready = prepare(op, inputs)
    except Unsupported as error:
        dispatch.count_fallback(op.name, str(error))
        return op.module.reference(*inputs)
    return apply(*ready)


def prepare(op: Operation, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns all inputs of forward: in the dtypes that autocast asks for, with the defaults.

    Raises Unsupported for inputs that the operation does not take.
    """
    if torch.is_autocast_enabled(inputs[0].device.type):
        inputs = autocast_inputs(op, inputs)
    inputs += op.defaults[len(inputs) :]
    check_inputs(op, inputs)
    if "slopes" in op.inputs:  # whether forward has gradients to make
        slopes = torch.is_grad_enabled() and any(
            isinstance(value, torch.Tensor) and value.requires_grad for value in inputs
        )
        inputs = tuple(
            slopes if name == "slopes" else value for name, value in zip(op.inputs, inputs, strict=True)
        )
    return inputs


def check_inputs(op: Operation, inputs: tuple[Any, ...]) -> None:
    """Raises Unsupported for shapes and dtypes that the operation does not take."""
    by_name = dict(zip(op.inputs, inputs, strict=True))
    op.module.check(**{name: by_name[name] for name in op.checked})
    for name, value in by_name.items():
        if is_floating(value) and value.dtype not in KINDS:
            raise Unsupported(f"{name} is {value.dtype}; expected float32, float16 or bfloat16")


def autocast_inputs(op: Operation, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns the inputs in the dtypes that torch.autocast would give them.

    By the operation's AUTOCAST that is `lower` (the dtype of the context), `fp32`, `none` (the
    inputs as they are) or `widest` (of the inputs), which is the default.
    """
    if op.autocast == "none":
        return inputs
    if op.autocast == "lower":
        kind = torch.get_autocast_dtype(inputs[0].device.type)
    elif op.autocast == "fp32":
        kind = torch.float32
    else:
        kinds = [value.dtype for value in inputs if is_floating(value)]
        kind = torch.float32 if torch.float32 in kinds or len(set(kinds)) > 1 else kinds[0]
    return tuple(value.to(kind) if is_floating(value) else value for value in inputs)


def differentiable(op: Operation, whole: bool = False) -> Callable[..., Any]:
    """Returns the operator with its gradient, or without one where it has none.

    With `whole` it gives all that the operator returns, of which only the outputs have a gradient.
    """

    def without_gradient(*inputs: Any) -> Any:
        return select_outputs(op, as_tuple(op.forward(*inputs)), whole)

    if op.backward is None:
        return without_gradient

    def forward(ctx: Any, *inputs: Any) -> Any:
        results = as_tuple(op.forward(*inputs))
        by_name = dict(zip(op.inputs, inputs, strict=True))
        known = {**by_name, **dict(zip(op.module.RETURNS, results, strict=True))}
        kept = {name: known[name] for name in op.needed if name in known}
        tensors = {name: value for name, value in kept.items() if isinstance(value, torch.Tensor)}
        ctx.save_for_backward(*tensors.values())
        ctx.saved_names = list(tensors)
        ctx.plain = {name: value for name, value in kept.items() if name not in tensors}
        ctx.sought = [
            name
            for name, value in by_name.items()
            if name in op.module.GRADIENTS and isinstance(value, torch.Tensor)
        ]
        if whole:
            ctx.mark_non_differentiable(*results[op.outputs :])
        return select_outputs(op, results, whole)

    def backward(ctx: Any, *slopes: Any) -> Any:
        known = {f"d{name}": value for name, value in zip(op.module.RETURNS, slopes, strict=False)}
        known |= {**dict(zip(ctx.saved_names, ctx.saved_tensors, strict=True)), **ctx.plain}
        gradients = as_tuple(op.backward(*(known[name] for name in op.needed)))
        by_name = dict(zip(ctx.sought, gradients, strict=True))
        return tuple(by_name.get(name) for name in op.inputs)

    autograd_function: Any = type(
        f"{op.name}_function",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward)},
    )

    def apply(*inputs: Any) -> Any:
        # Where no gradient is wanted torch.compile calls such a forward without its first input.
        wanted = torch.is_grad_enabled() and any(value.requires_grad for value in tensors_in(inputs))
        return autograd_function.apply(*inputs) if wanted else without_gradient(*inputs)

    return apply


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Returns each of our operators in aten, as ExportedProgram.run_decompositions takes them."""
    return {op.forward: op.aten for op in map(operation, NAMES) if not op.mutates}


def is_floating(value: Any) -> bool:
    """Whether a value is a tensor of floating-point numbers."""
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def tensors_in(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """Yields the tensors among the values, and those in lists and tuples among them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)


def select_outputs(op: Operation, results: tuple[torch.Tensor, ...], whole: bool) -> Any:
    """All results where `whole` is set, otherwise the outputs among them: one, or a tuple."""
    if whole:
        return results
    return results[0] if op.outputs == 1 else results[: op.outputs]


def as_tuple(value: Any) -> tuple[Any, ...]:
    """The values of a tuple or list as a tuple, any other value as a tuple of one."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def unwrap_single(results: Any) -> Any:
    """The value itself of a tuple of one, as a schema with one result asks for."""
    return results[0] if isinstance(results, tuple) and len(results) == 1 else results
