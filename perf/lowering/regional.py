"""Regional compilation: the repeated blocks of a model instead of all of it, so that one
compilation serves them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..terms.reasons import Refusal

if TYPE_CHECKING:
    import torch


def blocks(module: torch.nn.Module, name: str) -> list[torch.nn.Module]:
    """The repeated blocks, each of which dynamo compiles or finds compiled.

    Lifts dynamo's limit of 8 variants (recompile_limit).
    """
    import torch

    found = repeated(module)
    if not found:
        raise Refusal(
            "unsupported_op",
            f"regional: {name} has no nn.ModuleList or nn.Sequential with repeated blocks; use"
            " [regional:off]",
        )
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, len(found))
    return found


def repeated(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Children of lists that occur there twice with the same class and parameter shapes, outermost
    first; failing that, with the same class.

    So a transformer gives its blocks, not the experts or heads inside; a Swin gives the blocks
    inside its four different stages.
    """
    import torch

    children = list(module.children())
    is_list = isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential))
    blocks = [child for child in children if is_list and any(True for _ in child.children())]
    found: list[torch.nn.Module] = []
    for child in children:
        same_class = [other for other in blocks if type(other) is type(child)] if child in blocks else []
        if sum(_shapes(other) == _shapes(child) for other in same_class) > 1:
            found.append(child)
        elif inside := repeated(child):
            found += inside
        elif len(same_class) > 1:
            found.append(child)
    return found


def _shapes(module: torch.nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, parameter.shape) for name, parameter in module.named_parameters()]
