"""What a module returns, as the list of arrays that is compared: every tensor of it, whatever holds
them, in pytree's order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_flatten_with_path, tree_leaves

from .arrays import comparable


def tensors(outputs: Any) -> list[torch.Tensor]:
    """Returns the tensors in a value: itself, or those in its tuples, lists, dicts and classes that
    pytree knows.
    """
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def names(outputs: Any) -> list[str]:
    """Returns what to call each of those tensors: its keys and places, else its number."""
    named: list[str] = []
    try:
        paths: list[tuple[Any, Any]] = tree_flatten_with_path(outputs)[0]
    except ValueError:  # a class is registered without names of its parts
        paths = [((), leaf) for leaf in tree_leaves(outputs)]
    for path, leaf in paths:
        if isinstance(leaf, torch.Tensor):
            keys = [getattr(part, "key", getattr(part, "name", getattr(part, "idx", ""))) for part in path]
            known = any(isinstance(key, str) for key in keys)
            named.append(".".join(map(str, keys)) if known else f"output {len(named)}")
    return named


def identifiers(names: Sequence[str], reserved: Sequence[str]) -> list[str]:
    """Returns names of outputs as a file can have them: each different, and none of those that are
    reserved.
    """
    kept: list[str] = []
    for index, name in enumerate(names):
        word = f"out{index}" if name == f"output {index}" else re.sub(r"[^\w.]+", "_", name)
        while word in kept or word in reserved:
            word += "_out"
        kept.append(word)
    return kept


def array(tensor: torch.Tensor) -> np.ndarray:
    """Returns a copy on the host in the form that is compared (arrays.comparable)."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    copied: np.ndarray = comparable(tensor.to("cpu", copy=True).numpy())
    return copied
