"""Finds an operation inside a module's forward: its patterns in the graph that torch.fx traces.

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

# Functions whose two arguments may be exchanged.
ANY_ORDER = ("add", "mul")
# Parameters of torch's functions that say how, not what, and so do not count in a match.
INPLACE = ("inplace",)


@dataclass(frozen=True)
class Pattern:
    """One form of an operation in models."""

    # The form as it stands in models, which also runs wherever Triton does not.
    aten: Callable[..., Any]
    # From the parameters of the form to the inputs of the operation; without it they have the same
    # names. It may raise Unsupported, or return None where aten is what is wanted.
    inputs: Callable[..., tuple[Any, ...] | None] | None = None
    # From the parameters of the form and all that the operation returned to what the form gives;
    # without it the operation's outputs are that.
    settle: Callable[[tuple[Any, ...], Any], Any] | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the form's parameters, in order."""
        return tuple(inspect.signature(self.aten).parameters)

    @property
    def graph(self) -> fx.Graph:
        """The form as torch.fx traces it."""
        return trace_form(self.aten)


@cache
def trace_form(form: Callable[..., Any]) -> fx.Graph:
    """The graph of a form, traced once."""
    return fx.Tracer().trace(form)


class Attribute(NamedTuple):
    """`self.target` of the module that is matched in: a parameter, or a child itself."""

    target: str


@dataclass
class Match:
    """Where a pattern stands in the graph of a module."""

    # Parameter of the pattern -> node, attribute or literal of the module.
    bound: dict[str, Any] = field(default_factory=dict)
    # Node of the pattern -> node of the module.
    inner: dict[fx.Node, fx.Node] = field(default_factory=dict)
    # Names of the module's children that are a part of the match.
    children: set[str] = field(default_factory=set)

    def copy(self) -> Match:
        """A match to which one can add without changing this one."""
        return Match(dict(self.bound), dict(self.inner), set(self.children))


# What a node calls: the function's name and its arguments.
Call = tuple[str, tuple[Any, ...]]


def optional_attribute(module: nn.Module, name: str, attribute: str) -> Attribute | None:
    """`self.NAME.ATTRIBUTE` of the parent, or None where the child has no such parameter."""
    return None if getattr(module, attribute) is None else Attribute(f"{name}.{attribute}")


def call_of_linear(x: Any, name: str, module: Any) -> Call:
    return "linear", (x, Attribute(f"{name}.weight"), optional_attribute(module, name, "bias"))


def call_of_rms_norm(x: Any, name: str, module: Any) -> Call:
    weight = optional_attribute(module, name, "weight")
    return "rms_norm", (x, module.normalized_shape, weight, module.eps)


def call_of_layer_norm(x: Any, name: str, module: Any) -> Call:
    weight, bias = (optional_attribute(module, name, attribute) for attribute in ("weight", "bias"))
    return "layer_norm", (x, module.normalized_shape, weight, bias, module.eps)


# torch's own modules that may be a part of a pattern, and what each calls with the input x, given
# its name in its parent and itself.
PARTS: dict[type[nn.Module], Callable[[Any, str, Any], Call]] = {
    nn.Linear: call_of_linear,
    nn.GELU: lambda x, name, module: ("gelu", (x, module.approximate)),
    nn.ReLU: lambda x, name, module: ("relu", (x,)),
    nn.SiLU: lambda x, name, module: ("silu", (x,)),
    nn.RMSNorm: call_of_rms_norm,
    nn.LayerNorm: call_of_layer_norm,
    # The child itself, which keeps statistics: `norm(x)` in a pattern.
    nn.BatchNorm2d: lambda x, name, module: ("__call__", (Attribute(name), x)),
}


def find_call(node: fx.Node, children: dict[str, nn.Module]) -> Call | None:
    """Returns the name and the arguments of what a node calls, or None where no pattern could match
    it.
    """
    if node.op == "call_module":
        child = children.get(str(node.target))
        part = PARTS.get(type(child)) if child is not None else None
        if part is None or len(node.args) != 1 or node.kwargs or has_hooks(child):
            return None
        return part(node.args[0], str(node.target), child)
    unbound = (*node.args, *(node.kwargs[name] for name in sorted(node.kwargs)))
    if node.op == "call_method":
        return str(node.target), unbound
    if node.op != "call_function":
        return None
    target: Any = node.target
    if target is F.gelu:
        return "gelu", (node.args[0], node.kwargs.get("approximate", "none"))
    try:
        bound = inspect.signature(target).bind(*node.args, **node.kwargs)
    except (ValueError, TypeError):  # a builtin says nothing of its parameters
        return target.__name__, unbound
    bound.apply_defaults()
    return target.__name__, tuple(
        value for name, value in bound.arguments.items() if not name.startswith("_") and name not in INPLACE
    )


def has_hooks(module: nn.Module | None) -> bool:
    """Whether something listens to a module's calls, which a fused one would not make."""
    return module is not None and bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def find_matches(pattern: Pattern, graph: fx.Graph, children: dict[str, nn.Module]) -> Iterator[Match]:
    """Yields matches from the last node of the graph to the first; the caller may rewrite the graph
    between two of them.
    """
    outputs = output_nodes(pattern)
    must_be_tensors = {
        name
        for name, parameter in inspect.signature(pattern.aten).parameters.items()
        if "Tensor" in str(parameter.annotation)
    }
    for node in reversed(graph.nodes):
        match = match_value(outputs[0], node, Match(), children)
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
        leaks = any(user not in inside for inner in inside - kept for user in inner.users)
        early = any(user not in inside and user < node for output in kept for user in output.users)
        if not leaks and not early:
            yield match


def output_nodes(pattern: Pattern) -> tuple[fx.Node, ...]:
    """The nodes of a pattern's graph whose values the form returns."""
    (last,) = next(iter(reversed(pattern.graph.nodes))).args
    return tuple(last) if isinstance(last, (tuple, list)) else (last,)


def match_value(wanted: Any, candidate: Any, match: Match, children: dict[str, nn.Module]) -> Match | None:
    """Returns the match with what these two add to it, or None where they differ.

    `wanted` is a value of the pattern, `candidate` one of the module's graph: a node, a tuple or a
    literal.
    """
    if isinstance(wanted, (tuple, list)):
        if not isinstance(candidate, (tuple, list)) or len(wanted) != len(candidate):
            return None
        return match_all(tuple(wanted), tuple(candidate), match, children)
    if not isinstance(wanted, fx.Node):
        return match if type(wanted) is type(candidate) and wanted == candidate else None
    if wanted.op == "placeholder":
        if wanted.name in match.bound:
            before = match.bound[wanted.name]
            return match if before is candidate or before == candidate else None
        return Match({**match.bound, wanted.name: candidate}, match.inner, match.children)
    if not isinstance(candidate, fx.Node):
        return None
    if wanted in match.inner:
        return match if match.inner[wanted] is candidate else None
    return match_call(wanted, candidate, match, children)


def match_call(
    wanted: fx.Node, candidate: fx.Node, match: Match, children: dict[str, nn.Module]
) -> Match | None:
    """Returns the match with these two nodes and their arguments added, or None where their calls
    differ.
    """
    mine, theirs = find_call(wanted, {}), find_call(candidate, children)
    if mine is None or theirs is None or mine[0] != theirs[0] or len(mine[1]) != len(theirs[1]):
        return None
    further = match.copy()
    further.inner[wanted] = candidate
    if candidate.op == "call_module":
        further.children.add(str(candidate.target))
    orders = [theirs[1]] if mine[0] not in ANY_ORDER else [theirs[1], theirs[1][::-1]]
    for order in orders:
        longer = match_all(mine[1], order, further, children)
        if longer is not None:
            return longer
    return None


def match_all(
    wanted: tuple[Any, ...],
    candidates: tuple[Any, ...],
    match: Match | None,
    children: dict[str, nn.Module],
) -> Match | None:
    """Returns the match with what each pair adds to it, or None where some pair differs."""
    for mine, theirs in zip(wanted, candidates, strict=True):
        if match is None:
            return None
        match = match_value(mine, theirs, match, children)
    return match
