"""The free axes of a workload's inputs as torch.export is told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..terms.reasons import Refusal

if TYPE_CHECKING:
    import torch

    from ..terms.case import Workload


def shapes(workload: Workload) -> tuple[dict[int, Any], ...] | None:
    """Returns torch.export's dynamic shapes of `positional` inputs; None where every size is
    fixed.
    """
    import torch

    named = workload.free
    dims = {name: torch.export.Dim(name) for each in named for name in each.values()}
    if not dims:
        return None
    return tuple({axis: dims[name] for axis, name in each.items()} for each in named)


def unbounded(workload: Workload, program: torch.export.ExportedProgram) -> None:
    """Raises Refusal(export_failed) where a free axis has a largest size in the exported program:
    forward does otherwise beyond it, and the file would not.
    """
    ports = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    for port, axes in zip(ports, workload.free, strict=True):
        for axis, name in axes.items():
            size = port.meta["val"].shape[axis]
            limits = program.range_constraints.get(getattr(getattr(size, "node", None), "expr", None))
            if limits is not None and limits.upper.is_Integer:  # infinity is a number of another kind
                raise Refusal(
                    "export_failed",
                    f"{name} is free, and forward does otherwise where it is above {limits.upper}: a file has"
                    " one way; write it without a branch, or leave that axis fixed",
                )


def examples(workload: Workload) -> tuple[torch.Tensor, ...]:
    """Returns the example inputs with 2 rows at least where the batch is free: torch.export takes a
    dimension of size 1 for a constant.
    """
    import torch

    if workload.dynamic and len(workload.inputs[0]) == 1:
        return tuple(torch.cat((value, value)) for value in workload.inputs)
    return workload.inputs


def positional(module: torch.nn.Module) -> torch.nn.Module:
    """Returns a module whose forward takes *inputs.

    Dynamic shapes go by the names of forward's arguments; here they go by order.
    """
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Any) -> Any:
            return self.module(*inputs)

    wrapped = Positional()
    wrapped.training = False  # an exported module refuses eval()
    return wrapped
