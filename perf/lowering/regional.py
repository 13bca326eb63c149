"""Regional compilation: the repeated blocks of a model instead of all of it, so that one
compilation serves them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..terms.reasons import Refusal

if TYPE_CHECKING:
    import torch


def blocks(module: torch.nn.Module, name: str) -> list[torch.nn.Module]:
    """Returns the repeated blocks, each of which dynamo compiles or finds compiled.

    Lifts dynamo's limit of 8 variants (recompile_limit). Raises Refusal(unsupported_op) where there
    are no blocks.
    """
    import torch

    regions = repeated(module)
    if not regions:
        raise Refusal(
            "unsupported_op",
            f"regional: {name} has no nn.ModuleList or nn.Sequential with repeated blocks; use"
            " [regional:off]",
        )
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, len(regions))
    return regions


def repeated(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Returns the children of lists that occur there twice, outermost first.

    Two are the same by class and parameter shapes; failing that, by class. So a transformer gives
    its blocks, not the experts or heads inside; a Swin gives the blocks inside its four different
    stages.
    """
    import torch

    children = list(module.children())
    is_list = isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential))
    blocks = [child for child in children if is_list and any(True for _ in child.children())]
    chosen: list[torch.nn.Module] = []
    for child in children:
        same_class = [other for other in blocks if type(other) is type(child)] if child in blocks else []
        if sum(_shapes(other) == _shapes(child) for other in same_class) > 1:
            chosen.append(child)
        elif inside := repeated(child):
            chosen += inside
        elif len(same_class) > 1:
            chosen.append(child)
    return chosen


def _shapes(module: torch.nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, parameter.shape) for name, parameter in module.named_parameters()]
