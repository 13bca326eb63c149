"""Weights of a checkpoint in a module that a user's function made.

Nothing is unpickled but tensors and plain values (torch.load with weights_only).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terms.reasons import Refusal

if TYPE_CHECKING:
    import torch

# What torch.compile puts into the names of a module's parameters.
COMPILED = "_orig_mod."
# How torch names the class that it does not unpickle.
REFUSED = re.compile(r"GLOBAL ([\w.]+)")
# Names of a message; the others are counted.
NAMED = 3
# Share of a checkpoint's numbers that may stay behind where a network's weights are taken out of a
# module around it: weights of a loss, states of metrics, and never half of another network.
LEFT_OUT = 0.01


def described(path: Path) -> str:
    """Returns a checkpoint's name and the beginning of its SHA-256, as results carry it."""
    return f"checkpoint {path.name} sha256:{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def fill(module: torch.nn.Module, path: Path) -> str:
    """Puts a checkpoint's weights into the module and returns where they come from, in words.

    The names of the weights must be the module's own, all of them; prefixes that torch.compile and
    a LightningModule around the network put in front are taken off, and the words say so. Raises
    Refusal(invalid_input) with the names that are missing or too many.
    """
    own = module.state_dict()
    state = weights(path)
    for words, names in renamings(state, own):
        if names.keys() == own.keys():
            try:
                module.load_state_dict({name: state[names[name]] for name in own})
            except RuntimeError as error:
                last = str(error).strip().splitlines()[-1].strip()
                raise Refusal("invalid_input", f"{path} does not fit the module: {last}") from error
            return described(path) + words
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    raise Refusal(
        "invalid_input",
        f"{path} is not of this module: it lacks {listed(missing)} and has {listed(unexpected)} besides; give"
        " the function that makes the module as it was trained",
    )


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the tensors of a Lightning checkpoint's state_dict, or of a file that is one.

    Raises Refusal(invalid_input).
    """
    import torch

    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, all meaning the same to the user
        text = str(error).strip()
        if name := REFUSED.search(text):
            raise Refusal(
                "invalid_input",
                f"{path} holds a {name[1]}, which is not loaded from files: if you trust it, write"
                f" torch.serialization.add_safe_globals([{name[1]}]) in the file of the model, or save the"
                " checkpoint without it (save_hyperparameters(ignore=[...]))",
            ) from error
        first = text.splitlines()[0] if text else type(error).__name__
        raise Refusal("invalid_input", f"{path} cannot be read with weights_only: {first}") from error
    state = stored.get("state_dict", stored) if isinstance(stored, dict) else None
    if isinstance(state, dict) and state is stored and not any(map(is_tensor, state.values())):
        inner = [
            part for part in state.values() if isinstance(part, dict) and any(map(is_tensor, part.values()))
        ]
        state = inner[0] if len(inner) == 1 else state
    if not isinstance(state, dict) or not state:
        raise Refusal("invalid_input", f"{path} holds no state_dict")
    return {str(name): value for name, value in state.items()}


def is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def renamings(state: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields what was done to the names, in words, and the module's name -> the checkpoint's."""
    yield "", {name: name for name in state}
    plain = {name.replace(COMPILED, ""): name for name in state}
    compiled = f" (names without {COMPILED})" if plain.keys() != state.keys() else ""
    yield compiled, plain
    for prefix in dict.fromkeys(name.partition(".")[0] + "." for name in plain):
        inner = {name[len(prefix) :]: whole for name, whole in plain.items() if name.startswith(prefix)}
        rest = sorted(set(plain.values()) - set(inner.values()))
        if numbers(state, rest) <= LEFT_OUT * numbers(state, plain.values()):
            without = f" without {listed(rest)}" if rest else ""
            yield f"{compiled} (its {prefix[:-1]}{without})", inner
    for prefix in dict.fromkeys(name.partition(".")[0] + "." for name in own):
        yield f"{compiled} (as {prefix[:-1]})", {prefix + name: whole for name, whole in plain.items()}


def numbers(state: Mapping[str, Any], names: Iterable[str]) -> int:
    """Returns how many numbers these weights have."""
    return sum(getattr(state[name], "numel", int)() for name in names)


def listed(names: list[str]) -> str:
    """Returns the first names, and how many there are besides."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (", ".join(names[:NAMED]) or "nothing") + more
