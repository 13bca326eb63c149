"""Finding an operation inside a module's forward: its patterns against the graph that torch.fx
traces.

A pattern is a plain function in aten, such as `F.silu(a) * b`, traced like the module. Nodes match
if they call the same thing with matching arguments: functions, methods and operators of one name
(`torch.chunk`, `x.chunk`) are one thing, sums and products may be turned round, parameters of the
pattern match anything, those annotated torch.Tensor anything but a literal. A child that is exactly
one of torch's own modules counts as the function that it calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import fx, nn

ANY_ORDER = ("add", "mul")
INPLACE = ("inplace",)


@dataclass(frozen=True)
class Pattern:
    """aten: the form as it stands in models, which also runs wherever Triton does not.

    inputs: from the parameters of the form to the inputs of the operation; without it they have the
    same names. It may raise Unsupported, or return None where aten is what is wanted. settle: gets
    the parameters and all that the operation returned, and gives what the form would.
    """

    aten: Callable[..., Any]
    inputs: Callable[..., tuple[Any, ...] | None] | None = None
    settle: Callable[..., Any] | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.aten).parameters)

    @property
    def graph(self) -> fx.Graph:
        return traced(self.aten)


@cache
def traced(function: Callable[..., Any]) -> fx.Graph:
    return fx.Tracer().trace(function)


class Attribute(NamedTuple):
    """`self.target` of the module that is matched in: a parameter, or a child itself."""

    target: str


@dataclass
class Match:
    """bound: parameter of the pattern -> node, attribute or literal.

    inner: node of the pattern -> node of the module. children: consumed modules.
    """

    bound: dict[str, Any] = field(default_factory=dict)
    inner: dict[fx.Node, fx.Node] = field(default_factory=dict)
    children: set[str] = field(default_factory=set)

    def copy(self) -> Match:
        return Match(dict(self.bound), dict(self.inner), set(self.children))


# torch's own modules that may be a part of a pattern: the function that each calls, given the
# module's name in its parent and the module.
PARTS: dict[type[nn.Module], Callable[[Any, str, Any], tuple[str, tuple[Any, ...]]]] = {
    nn.Linear: lambda x, name, module: (
        "linear",
        (x, Attribute(f"{name}.weight"), Attribute(f"{name}.bias") if module.bias is not None else None),
    ),
    nn.GELU: lambda x, name, module: ("gelu", (x, module.approximate)),
    nn.ReLU: lambda x, name, module: ("relu", (x,)),
    nn.SiLU: lambda x, name, module: ("silu", (x,)),
    nn.RMSNorm: lambda x, name, module: (
        "rms_norm",
        (
            x,
            module.normalized_shape,
            Attribute(f"{name}.weight") if module.weight is not None else None,
            module.eps,
        ),
    ),
    nn.LayerNorm: lambda x, name, module: (
        "layer_norm",
        (
            x,
            module.normalized_shape,
            Attribute(f"{name}.weight") if module.weight is not None else None,
            Attribute(f"{name}.bias") if module.bias is not None else None,
            module.eps,
        ),
    ),
    nn.BatchNorm2d: lambda x, name, module: (
        "__call__",
        (Attribute(name), x),
    ),  # the child itself, which keeps statistics: `norm(x)` in a pattern
}


def called(node: fx.Node, children: dict[str, nn.Module]) -> tuple[str, tuple[Any, ...]] | None:
    """Name and arguments of what a node calls; None where no pattern could match it."""
    if node.op == "call_module":
        child = children.get(str(node.target))
        part = PARTS.get(type(child)) if child is not None else None
        if part is None or len(node.args) != 1 or node.kwargs or has_hooks(child):
            return None
        return part(node.args[0], str(node.target), child)
    if node.op == "call_method":
        return str(node.target), (*node.args, *(node.kwargs[name] for name in sorted(node.kwargs)))
    if node.op != "call_function":
        return None
    target: Any = node.target
    if target is F.gelu:
        return "gelu", (node.args[0], node.kwargs.get("approximate", "none"))
    try:
        bound = inspect.signature(target).bind(*node.args, **node.kwargs)
    except (ValueError, TypeError):  # a builtin says nothing of its parameters
        return target.__name__, (*node.args, *(node.kwargs[name] for name in sorted(node.kwargs)))
    bound.apply_defaults()
    return target.__name__, tuple(
        value for name, value in bound.arguments.items() if not name.startswith("_") and name not in INPLACE
    )


def has_hooks(module: nn.Module | None) -> bool:
    return module is not None and bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def find(pattern: Pattern, graph: fx.Graph, children: dict[str, nn.Module]) -> Iterator[Match]:
    """Matches, from the last node of the graph to the first; the caller rewrites between two of
    them or not.
    """
    outputs = of_pattern(pattern)
    must_be_tensors = {
        name
        for name, parameter in inspect.signature(pattern.aten).parameters.items()
        if "Tensor" in str(parameter.annotation)
    }
    for node in reversed(graph.nodes):
        match = same(outputs[0], node, Match(), children)
        if match is None or any(
            not isinstance(match.bound[name], (fx.Node, Attribute)) for name in must_be_tensors
        ):
            continue
        if (
            len(match.inner) == 1
            and match.children
            and not any(isinstance(children[child], nn.BatchNorm2d) for child in match.children)
        ):
            continue  # a child by itself is replaced in its own forward
        inside, kept = set(match.inner.values()), {match.inner[output] for output in outputs}
        leaks = any(user not in inside for one in inside - kept for user in one.users)
        early = any(user not in inside and user < node for one in kept for user in one.users)
        if not leaks and not early:
            yield match


def of_pattern(pattern: Pattern) -> tuple[fx.Node, ...]:
    (last,) = next(iter(reversed(pattern.graph.nodes))).args
    return tuple(last) if isinstance(last, (tuple, list)) else (last,)


def same(wanted: Any, given: Any, match: Match, children: dict[str, nn.Module]) -> Match | None:
    """The match with what these two add to it."""
    if isinstance(wanted, (tuple, list)):
        if not isinstance(given, (tuple, list)) or len(wanted) != len(given):
            return None
        return all_same(tuple(wanted), tuple(given), match, children)
    if not isinstance(wanted, fx.Node):
        return match if type(wanted) is type(given) and wanted == given else None
    if wanted.op == "placeholder":
        if wanted.name in match.bound:
            return match if match.bound[wanted.name] is given or match.bound[wanted.name] == given else None
        return Match({**match.bound, wanted.name: given}, match.inner, match.children)
    if not isinstance(given, fx.Node):
        return None
    if wanted in match.inner:
        return match if match.inner[wanted] is given else None
    mine, theirs = called(wanted, {}), called(given, children)
    if mine is None or theirs is None or mine[0] != theirs[0] or len(mine[1]) != len(theirs[1]):
        return None
    further = match.copy()
    further.inner[wanted] = given
    if given.op == "call_module":
        further.children.add(str(given.target))
    orders = [theirs[1]] if mine[0] not in ANY_ORDER else [theirs[1], theirs[1][::-1]]
    return next(
        (found for order in orders if (found := all_same(mine[1], order, further, children)) is not None),
        None,
    )


def all_same(
    wanted: tuple[Any, ...], given: tuple[Any, ...], match: Match | None, children: dict[str, nn.Module]
) -> Match | None:
    for one, other in zip(wanted, given, strict=True):
        if match is None:
            return None
        match = same(one, other, match, children)
    return match
