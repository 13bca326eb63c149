"""Model surgery:

`replace(model)` lets the forward of each module call our operations where it has their patterns,
and can be undone.

    report = hotlap.kernels.replace(model)      # before torch.compile
    print(report)                               # what was replaced and what was not, and why
    hotlap.kernels.restore(model)

A module keeps its parameters, children, hooks and names (so its state_dict); only its class becomes
a subclass of what it was, with another forward. On a CPU that forward runs the same aten operators
as before. What torch.fx cannot follow stays as it is and is reported. Setting a plain attribute or
a child later restores the module, since the new forward holds what the old one would have read.
"""

from __future__ import annotations

import difflib
import inspect
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from . import dispatch, library, patterns
from .contract import Unsupported
from .operation import Operation, ReplacedOperation
from .patterns import Attribute, Match, Pattern

PLAIN = (int, float, str, tuple, type(None))
SDPA = "scaled_dot_product_attention"


class Replaced(NamedTuple):
    """module: name in the model, empty for the model itself.

    parts: its children that went into the operation.
    """

    module: str
    operation: str
    parts: tuple[str, ...]


class Kept(NamedTuple):
    module: str
    why: str


@dataclass(frozen=True)
class Report:
    replaced: tuple[Replaced, ...]
    kept: tuple[Kept, ...]

    def __str__(self) -> str:
        lines = [
            f"{one.module or '(model)'}: {one.operation}{' of ' + ', '.join(one.parts) if one.parts else ''}"
            for one in self.replaced
        ]
        lines += [f"{one.module or '(model)'}: kept, {one.why}" for one in self.kept]
        return "\n".join(lines) or "nothing to replace"


def replace(model: nn.Module, only: Iterable[str] | None = None) -> Report:
    """only: names of operations; without it all but attention, where torch's own stays the default.

    Raises Unsupported for a compiled model, ValueError for a wrong name.
    """
    refuse_compiled(model)
    chosen = choose(only)
    replaced: list[Replaced] = []
    kept: list[Kept] = []
    consumed: set[nn.Module] = set()
    for name, module in model.named_modules():
        if type(module) is Operation:
            module.__class__ = ReplacedOperation
            replaced.append(Replaced(name, module.operation, ()))
            continue
        if module in consumed or is_replaced(module) or not worth_tracing(module):
            continue
        try:
            graph = followed(module)
        except Unsupported as error:
            kept.append(Kept(name, str(error)))
            continue
        children = dict(module.named_children())
        found = rewrite(graph, children, chosen)
        if not found:
            kept += [Kept(name, why) for why in remarks(graph, module, chosen)]
            continue
        swap(module, graph)
        for made, match in found:
            consumed |= {children[child] for child in match.children}
            replaced.append(Replaced(name, made, tuple(sorted(match.children))))
    return Report(tuple(replaced), tuple(kept))


def restore(model: nn.Module) -> int:
    """Every module as it was; returns how many there were."""
    found = [module for module in model.modules() if is_replaced(module)]
    for module in found:
        module.__class__ = type(module).__mro__[1]
    return len(found)


def is_replaced(module: nn.Module) -> bool:
    return getattr(type(module), "hotlap_replaced", False)


def refuse_compiled(model: nn.Module) -> None:
    compiled = next(
        (
            name or "the model"
            for name, module in model.named_modules()
            if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None)
        ),
        None,
    )
    if compiled is not None:
        raise Unsupported(
            f"{compiled} is compiled already, so its code would not change; call replace first, then"
            " torch.compile"
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise Unsupported(
            "the model is a TorchScript module, which has no Python forward; replace the module that it was"
            " made from"
        )


def choose(only: Iterable[str] | None) -> dict[str, tuple[Pattern, ...]]:
    """Patterns by operation; longer ones first, so that a norm with the sum before it is found
    before the norm alone.
    """
    known = {
        name: patterns_of
        for name in library.NAMES
        if (patterns_of := getattr(library.operation(name).module, "PATTERNS", ()))
    }
    names = (
        [name for name in known if not getattr(library.operation(name).module, "ASKED_FOR", False)]
        if only is None
        else list(dict.fromkeys(only))
    )
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            raise ValueError(
                f"no operation {name!r} to replace by;"
                f" {'did you mean ' + ' or '.join(near) if near else 'there are ' + ', '.join(known)}"
            )
    return {
        name: known[name]
        for name in sorted(names, key=lambda name: -max(len(pattern.graph.nodes) for pattern in known[name]))
    }


def worth_tracing(module: nn.Module) -> bool:
    """Not containers without a forward, nor torch's own modules but for those that are an operation
    by themselves.
    """
    own = type(module).__module__.startswith("torch.nn.modules")
    return type(module).forward is not nn.Module.forward and (
        not own
        or isinstance(module, nn.Sequential)
        or type(module) in (nn.RMSNorm, nn.LayerNorm, nn.Softmax, nn.CrossEntropyLoss)
    )


class Children(fx.Tracer):
    """A module's own forward only; buffers are read when it runs."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def followed(module: nn.Module) -> fx.Graph:
    """Raises Unsupported where the trace would not be the forward for all inputs."""
    optional = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is not parameter.empty or parameter.kind in (2, 4)
    ]
    if optional and not type(module).__module__.startswith("torch.nn.modules"):
        raise Unsupported(
            f"its forward has optional arguments ({', '.join(optional)}), which a trace would fix"
        )
    graphs, was = [], module.training
    for training in (True, False):
        module.training = training
        try:
            graphs.append(Children().trace(module))
        except Exception as error:  # whatever a forward does with a proxy
            text = (str(error).splitlines() or [""])[0]
            raise Unsupported(
                f"its forward cannot be followed: {type(error).__name__}: {text[:160]}"
            ) from None
        finally:
            module.training = was
            constants = [name for name in vars(module) if name.startswith("_tensor_constant")]
            for name in constants:
                delattr(module, name)
        if constants:
            raise Unsupported("its forward makes tensors that depend on no input, which a trace would fix")
    if graphs[0].python_code("self").src != graphs[1].python_code("self").src:
        raise Unsupported("its forward differs between training and evaluation")
    return graphs[0]


def rewrite(
    graph: fx.Graph, children: dict[str, nn.Module], chosen: dict[str, tuple[Pattern, ...]]
) -> list[tuple[str, Match]]:
    found = []
    for name, forms in chosen.items():
        for pattern in forms:
            while (match := next(patterns.find(pattern, graph, children), None)) is not None:
                put(graph, name, pattern, match)
                found.append((name, match))
    if found:
        graph.lint()
    return found


def put(graph: fx.Graph, name: str, pattern: Pattern, match: Match) -> None:
    """One call in place of the nodes of a match."""
    outputs = [match.inner[output] for output in patterns.of_pattern(pattern)]
    with graph.inserting_before(outputs[0]):
        arguments = [
            graph.create_node("get_attr", value.target) if isinstance(value, Attribute) else value
            for value in (match.bound[name] for name in pattern.parameters)
        ]
        call = graph.call_function(either(name, pattern), tuple(arguments))
        fresh = (
            [call]
            if len(outputs) == 1
            else [graph.call_function(operator.getitem, (call, at)) for at in range(len(outputs))]
        )
    for old, new in zip(outputs, fresh, strict=True):
        old.replace_all_uses_with(new)
    for node in sorted(match.inner.values(), reverse=True):
        graph.erase_node(node)


def either(name: str, pattern: Pattern) -> Callable[..., Any]:
    """The operation where Triton is wanted, and the form in aten everywhere else."""
    op, aten = library.operation(name), pattern.aten
    apply = library.differentiable(op, whole=pattern.settle is not None)
    names = pattern.parameters
    chosen = [names.index(wanted) for wanted in op.inputs if wanted in names]

    def run(*given: Any) -> Any:
        if not dispatch.wanted(given[0]):
            return aten(*given)
        try:
            raw = pattern.inputs(*given) if pattern.inputs is not None else tuple(given[at] for at in chosen)
            if raw is None:
                return aten(*given)
            inputs = library.prepared(op, raw)
        except Unsupported as error:
            dispatch.fell_back(name, str(error))
            return aten(*given)
        made = apply(*inputs)
        return made if pattern.settle is None else pattern.settle(given, made)

    run.__name__ = run.__qualname__ = f"hotlap_{name}"
    run.__module__ = __name__
    return run


def swap(module: nn.Module, graph: fx.Graph) -> None:
    """Makes the module's class a subclass of what it is, whose forward is the graph."""
    was = type(module)
    forward: Any = type(fx.GraphModule(module, graph)).forward

    def set_attribute(self: nn.Module, name: str, value: Any) -> None:
        fixed = (
            not name.startswith("_")
            and name != "training"
            and (name in self._modules or isinstance(vars(self).get(name, self), PLAIN))
        )
        if fixed and getattr(self, name) is not value:
            self.__class__ = was
            dispatch.fallbacks[
                "replace", f"{was.__name__}.{name} was set after replace, so the module is itself again"
            ] += 1
        was.__setattr__(self, name, value)

    module.__class__ = type(
        was.__name__,
        (was,),
        {
            "forward": forward,
            "__setattr__": set_attribute,
            "hotlap_replaced": True,
            "__module__": was.__module__,
        },
    )


def remarks(graph: fx.Graph, module: nn.Module, chosen: dict[str, tuple[Pattern, ...]]) -> list[str]:
    """Why something that looks like an operation was left."""
    names = {
        getattr(node.target, "__name__", str(node.target))
        for node in graph.nodes
        if node.op in ("call_function", "call_method")
    }
    said = []
    if SDPA in names and "attention" not in chosen:
        said.append("attention stays with torch's own kernels; only=['attention'] takes ours")
    if type(module) in (nn.RMSNorm, nn.LayerNorm) and getattr(module, "weight", None) is None:
        said.append(f"{type(module).__name__} has no weight")
    if patterns.has_hooks(module):
        said.append("it has hooks")
    return said
