"""Model surgery: the forward of each module calls our operations where it has their patterns.

    report = hotlap.kernels.replace(model)      # before torch.compile
    print(report)                               # what was replaced and what was not, and why
    hotlap.kernels.restore(model)               # undoes it

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
from .operation import OperationModule, ReplacedOperationModule
from .patterns import Attribute, Match, Pattern

# Attributes that a trace fixes: their values are constants in the new forward.
PLAIN = (int, float, str, tuple, type(None))
# The function of torch that attention is, which stays torch's own unless ours is asked for.
SDPA = "scaled_dot_product_attention"
# torch's own modules that are an operation by themselves, and so are worth tracing.
WHOLE_OPERATIONS = (nn.RMSNorm, nn.LayerNorm, nn.Softmax, nn.CrossEntropyLoss)


class ReplacedModule(NamedTuple):
    """A module whose forward calls an operation of ours."""

    # Its name in the model, empty for the model itself.
    module: str
    operation: str
    # Names of its children that went into the operation.
    parts: tuple[str, ...]


class KeptModule(NamedTuple):
    """A module that stays as it was, although it may look like an operation."""

    # Its name in the model, empty for the model itself.
    module: str
    why: str


@dataclass(frozen=True)
class Report:
    """What `replace` did to a model; as text a line for each module."""

    replaced: tuple[ReplacedModule, ...]
    kept: tuple[KeptModule, ...]

    def __str__(self) -> str:
        lines = []
        for replaced in self.replaced:
            parts = f" of {', '.join(replaced.parts)}" if replaced.parts else ""
            lines.append(f"{replaced.module or '(model)'}: {replaced.operation}{parts}")
        lines += [f"{kept.module or '(model)'}: kept, {kept.why}" for kept in self.kept]
        return "\n".join(lines) or "nothing to replace"


def replace(model: nn.Module, only: Iterable[str] | None = None) -> Report:
    """Lets the model's modules call our operations, and returns what was replaced and what not.

    `only` are names of operations; without it all are taken but attention, where torch's own stays
    the default. Raises Unsupported for a compiled model, ValueError for a wrong name.
    """
    refuse_compiled(model)
    chosen = choose_patterns(only)
    replaced: list[ReplacedModule] = []
    kept: list[KeptModule] = []
    consumed: set[nn.Module] = set()
    for name, module in model.named_modules():
        if type(module) is OperationModule:
            module.__class__ = ReplacedOperationModule
            replaced.append(ReplacedModule(name, module.operation, ()))
            continue
        if module in consumed or is_replaced(module) or not worth_tracing(module):
            continue
        try:
            graph = trace_forward(module)
        except Unsupported as error:
            kept.append(KeptModule(name, str(error)))
            continue
        children = dict(module.named_children())
        matches = rewrite(graph, children, chosen)
        if not matches:
            kept += [KeptModule(name, why) for why in remarks(graph, module, chosen)]
            continue
        replace_forward(module, graph)
        for operation, match in matches:
            consumed |= {children[child] for child in match.children}
            replaced.append(ReplacedModule(name, operation, tuple(sorted(match.children))))
    return Report(tuple(replaced), tuple(kept))


def restore(model: nn.Module) -> int:
    """Makes every replaced module what it was, and returns how many there were."""
    replaced = [module for module in model.modules() if is_replaced(module)]
    for module in replaced:
        module.__class__ = type(module).__mro__[1]
    return len(replaced)


def is_replaced(module: nn.Module) -> bool:
    """Whether `replace` gave the module another forward."""
    return getattr(type(module), "hotlap_replaced", False)


def refuse_compiled(model: nn.Module) -> None:
    """Raises Unsupported for a model of which a part is compiled or scripted already."""
    for name, module in model.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None):
            raise Unsupported(
                f"{name or 'the model'} is compiled already, so its code would not change; call replace"
                " first, then torch.compile"
            )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise Unsupported(
            "the model is a TorchScript module, which has no Python forward; replace the module that it was"
            " made from"
        )


def choose_patterns(only: Iterable[str] | None) -> dict[str, tuple[Pattern, ...]]:
    """Returns the patterns by operation, the longest first, so that a norm with the sum before it
    is found before the norm alone.

    Raises ValueError for a name in `only` that no operation with patterns has.
    """
    known = {name: op.patterns for name in library.NAMES if (op := library.operation(name)).patterns}
    if only is None:
        names = [name for name in known if not library.operation(name).asked_for]
    else:
        names = list(dict.fromkeys(only))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}" if near else f"there are {', '.join(known)}"
            raise ValueError(f"no operation {name!r} to replace by; {hint}")
    names.sort(key=lambda name: -max(len(pattern.graph.nodes) for pattern in known[name]))
    return {name: known[name] for name in names}


def worth_tracing(module: nn.Module) -> bool:
    """Whether a module's forward may hold an operation: not that of a container without one, nor of
    torch's own modules but for those that are an operation by themselves.
    """
    torch_s_own = type(module).__module__.startswith("torch.nn.modules")
    return type(module).forward is not nn.Module.forward and (
        not torch_s_own or isinstance(module, nn.Sequential) or type(module) in WHOLE_OPERATIONS
    )


class ForwardTracer(fx.Tracer):
    """Traces a module's own forward only, into no child; buffers are read when it runs."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def trace_forward(module: nn.Module) -> fx.Graph:
    """Returns the graph of a module's forward.

    Raises Unsupported where the trace would not be the forward for all inputs.
    """
    optional = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.default is not parameter.empty
        or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if optional and not type(module).__module__.startswith("torch.nn.modules"):
        raise Unsupported(
            f"its forward has optional arguments ({', '.join(optional)}), which a trace would fix"
        )
    before = module.training
    try:
        graphs = []
        for training in (True, False):
            module.training = training
            graphs.append(trace_once(module))
    finally:
        module.training = before
    if graphs[0].python_code("self").src != graphs[1].python_code("self").src:
        raise Unsupported("its forward differs between training and evaluation")
    return graphs[0]


def trace_once(module: nn.Module) -> fx.Graph:
    """Returns the graph of a module's forward as the module is now, and leaves nothing in it.

    Raises Unsupported where the forward cannot be traced, or holds tensors of its own.
    """
    try:
        graph = ForwardTracer().trace(module)
    except Exception as error:  # whatever a forward does with a proxy
        text = (str(error).splitlines() or [""])[0]
        raise Unsupported(f"its forward cannot be followed: {type(error).__name__}: {text[:160]}") from None
    finally:
        constants = [name for name in vars(module) if name.startswith("_tensor_constant")]
        for name in constants:
            delattr(module, name)
    if constants:
        raise Unsupported("its forward makes tensors that depend on no input, which a trace would fix")
    return graph


def rewrite(
    graph: fx.Graph, children: dict[str, nn.Module], chosen: dict[str, tuple[Pattern, ...]]
) -> list[tuple[str, Match]]:
    """Puts a call of ours in place of every match of the patterns, and returns each with its
    operation.
    """
    matches = []
    for name, forms in chosen.items():
        for pattern in forms:
            while (match := next(patterns.find_matches(pattern, graph, children), None)) is not None:
                insert_call(graph, name, pattern, match)
                matches.append((name, match))
    if matches:
        graph.lint()
    return matches


def insert_call(graph: fx.Graph, name: str, pattern: Pattern, match: Match) -> None:
    """Puts one call of the operation in place of the nodes of a match."""
    outputs = [match.inner[output] for output in patterns.output_nodes(pattern)]
    with graph.inserting_before(outputs[0]):
        arguments = []
        for parameter in pattern.parameters:
            value = match.bound[parameter]
            if isinstance(value, Attribute):
                value = graph.create_node("get_attr", value.target)
            arguments.append(value)
        call = graph.call_function(operation_or_aten(name, pattern), tuple(arguments))
        if len(outputs) == 1:
            replacements = [call]
        else:
            replacements = [
                graph.call_function(operator.getitem, (call, index)) for index in range(len(outputs))
            ]
    for old, new in zip(outputs, replacements, strict=True):
        old.replace_all_uses_with(new)
    for node in sorted(match.inner.values(), reverse=True):
        graph.erase_node(node)


def operation_or_aten(name: str, pattern: Pattern) -> Callable[..., Any]:
    """Returns a function of the form's parameters: the operation where Triton is wanted and takes
    them, the form itself in aten everywhere else.
    """
    op, aten = library.operation(name), pattern.aten
    apply = library.differentiable(op, whole=pattern.settle is not None)
    names = pattern.parameters
    chosen = [names.index(wanted) for wanted in op.inputs if wanted in names]

    def run(*arguments: Any) -> Any:
        if not dispatch.uses_triton(arguments[0]):
            return aten(*arguments)
        try:
            if pattern.inputs is not None:
                raw = pattern.inputs(*arguments)
            else:
                raw = tuple(arguments[index] for index in chosen)
            if raw is None:
                return aten(*arguments)
            inputs = library.prepare(op, raw)
        except Unsupported as error:
            dispatch.count_fallback(name, str(error))
            return aten(*arguments)
        results = apply(*inputs)
        return results if pattern.settle is None else pattern.settle(arguments, results)

    run.__name__ = run.__qualname__ = f"hotlap_{name}"
    run.__module__ = __name__
    return run


def replace_forward(module: nn.Module, graph: fx.Graph) -> None:
    """Makes the module's class a subclass of what it is, whose forward is the graph.

    The subclass takes itself back when an attribute is set that the graph holds as a constant.
    """
    original = type(module)
    forward: Any = type(fx.GraphModule(module, graph)).forward

    def set_attribute(self: nn.Module, name: str, value: Any) -> None:
        fixed = (
            not name.startswith("_")
            and name != "training"
            and (name in self._modules or isinstance(vars(self).get(name, self), PLAIN))
        )
        if fixed and getattr(self, name) is not value:
            self.__class__ = original
            why = f"{original.__name__}.{name} was set after replace, so the module is itself again"
            dispatch.fallbacks["replace", why] += 1
        original.__setattr__(self, name, value)

    attributes = {
        "forward": forward,
        "__setattr__": set_attribute,
        "hotlap_replaced": True,
        "__module__": original.__module__,
    }
    module.__class__ = type(original.__name__, (original,), attributes)


def remarks(graph: fx.Graph, module: nn.Module, chosen: dict[str, tuple[Pattern, ...]]) -> list[str]:
    """Says why something that looks like an operation was left, one reason a string."""
    names = {
        getattr(node.target, "__name__", str(node.target))
        for node in graph.nodes
        if node.op in ("call_function", "call_method")
    }
    reasons = []
    if SDPA in names and "attention" not in chosen:
        reasons.append("attention stays with torch's own kernels; only=['attention'] takes ours")
    if type(module) in (nn.RMSNorm, nn.LayerNorm) and getattr(module, "weight", None) is None:
        reasons.append(f"{type(module).__name__} has no weight")
    if patterns.has_hooks(module):
        reasons.append("it has hooks")
    return reasons
