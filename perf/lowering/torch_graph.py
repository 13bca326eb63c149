"""The torch side of locating: a module's exported graph, whose nodes are computed one by one in
fp64 or in a case's precision, from the module's inputs or from values that a backend computed.

torch's exporter to ONNX names the values of a file after the nodes of this graph, and OpenVINO
keeps those names, so that a value of a file and a node of the same name are the same quantity.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_map

from ..oracle import rounded
from ..oracle.reference import DTYPES
from ..terms.case import Workload
from ..terms.contract import Arrays
from ..terms.reasons import Refusal
from . import exporters, free_axes

if TYPE_CHECKING:
    from torch.export.graph_signature import InputSpec

# The precision of the reference, beside those of cases.
EXACT = "fp64"


class TorchGraph:
    """A module's graph. named: what a value is called in an exported file -> the node."""

    def __init__(self, workload: Workload) -> None:
        """Exports the module as export.py does, but for the exporter's optimisations. Raises
        Refusal(export_failed).
        """
        program = exported(workload)
        self.module = program.graph_module
        nodes = {node.name: node for node in self.module.graph.nodes}
        signature = program.graph_signature
        self.input_names = exporters.input_names(workload)
        self.inputs = [nodes[name] for name in signature.user_inputs if isinstance(name, str)]
        returned = [nodes[name] for name in signature.user_outputs if isinstance(name, str)]
        self.outputs = [node for node in returned if is_tensor(node)]
        self.constants = {
            nodes[spec.arg.name]: value
            for spec in signature.input_specs
            if (value := held(program, spec)) is not None
        }
        computed = {
            name: node
            for name, node in nodes.items()
            if node.op == "call_function" and is_tensor(node) and not node.meta["val"].is_complex()
        }
        self.named: dict[str, Node] = {
            **computed,
            **dict(zip(self.input_names, self.inputs, strict=True)),
            **dict(zip(exporters.output_names(workload), self.outputs, strict=True)),
        }

    def values(
        self, wanted: Iterable[Node], bound: Mapping[Node, Any], precision: str = EXACT
    ) -> dict[Node, Any]:
        """Returns the values of nodes, computed from those that are bound (node -> array) and from
        the module's weights.

        In int8 what is bound, weights and results are rounded to 8 bits over their range.
        """
        wanted = list(wanted)
        needed = self.needed(wanted, bound)
        dtype = torch.float64 if precision == EXACT else DTYPES.get(precision, torch.float32)
        runner = Runner(self.module, dtype)
        for node in self.module.graph.nodes:
            if node not in needed:
                continue
            if node in bound or node in self.constants:
                value = torch.as_tensor(bound[node] if node in bound else self.constants[node])
                kind = node.meta["val"].dtype if node in bound else value.dtype
                value = value.to(dtype if kind.is_floating_point else kind)
                runner.env[node] = in_bytes(value, node in bound) if precision == "int8" else value
            else:
                runner.env[node] = runner.run_node(node)
        results = {node: runner.env[node] for node in wanted}
        if precision == "int8":
            return {node: in_bytes(value, True) for node, value in results.items()}
        return results

    def needed(self, wanted: Iterable[Node], bound: Mapping[Node, Any]) -> set[Node]:
        """Returns the nodes that these depend on, up to those that are bound."""
        needed: set[Node] = set()
        stack = list(wanted)
        while stack:
            node = stack.pop()
            if node not in needed:
                needed.add(node)
                stack += [] if node in bound else node.all_input_nodes
        return needed

    def everything(self, inputs: Arrays) -> dict[Node, torch.Tensor]:
        """Returns the value of every named node in fp64, from the module's inputs."""
        bound = dict(zip(self.inputs, inputs, strict=True))
        return self.values(dict.fromkeys(self.named.values()), bound)

    def moved(self, exact: Mapping[Node, Any], node: Node, value: torch.Tensor) -> list[torch.Tensor]:
        """Returns the module's outputs in fp64 where one node has another value than `exact`."""
        after, stack = {node}, [node]
        while stack:
            fresh = [user for user in stack.pop().users if user not in after]
            after.update(fresh)
            stack += fresh
        bound = {name: held for name, held in exact.items() if name not in after}
        outputs = self.values(self.outputs, {**bound, node: value})
        return [outputs[output] for output in self.outputs]


class Runner(Interpreter):
    """Runs single nodes; what the graph says of fp32 holds for the dtype that it runs in."""

    def __init__(self, module: torch.fx.GraphModule, dtype: torch.dtype) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.dtype = dtype

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = tree_map(self.followed, (args, kwargs))
        with torch.no_grad():
            return super().call_function(target, args, kwargs)

    def followed(self, value: Any) -> Any:
        return self.dtype if value is torch.float32 else value


def exported(workload: Workload) -> torch.export.ExportedProgram:
    """Returns the graph that torch's exporter to ONNX makes its file of. Raises
    Refusal(export_failed).
    """
    shapes = free_axes.shapes(workload)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                free_axes.positional(workload.module.float()),
                free_axes.examples(workload),
                dynamo=True,
                dynamic_shapes=(shapes,) if shapes else None,
                opset_version=exporters.OPSET,
                optimize=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise Refusal("export_failed", f"not exported again: {str(error).splitlines()[0]}") from error
    assert program is not None and program.exported_program is not None
    return program.exported_program


def held(program: torch.export.ExportedProgram, spec: InputSpec) -> torch.Tensor | None:
    """Returns the weight, buffer or constant that an input of the graph stands for."""
    if spec.target is None:
        return None
    value = program.state_dict.get(spec.target, program.constants.get(spec.target))
    return value.detach() if isinstance(value, torch.Tensor) else None


def is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def in_bytes(value: Any, activation: bool) -> Any:
    """Returns a tensor rounded to 8 bits as int8 does at best; what is no weight of a product stays
    as it is.
    """
    if not isinstance(value, torch.Tensor) or not value.is_floating_point() or not value.numel():
        return value
    if not bool(value.isfinite().all()):
        return value
    return rounded.inputs(value) if activation else rounded.weights(value) if value.dim() > 1 else value
