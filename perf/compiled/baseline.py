"""The stored registers and instructions that kernels are judged against: a JSON file,
`operation/dtype/target` -> name -> number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..terms import stored
from ..terms.files import put
from ..terms.reasons import Misuse, Unreadable
from ..terms.stored import Count
from .rules import RATCHETS

Levels = dict[str, dict[str, int]]


def read(file: Path, required: bool) -> Levels | None:
    """Returns a baseline, or None where there is none and none is required. Raises Unreadable."""
    if not file.exists():
        if required:
            raise Unreadable(f"{file}: there is no such baseline; --accept makes it")
        return None
    levels = stored.decode(
        file, stored.content(file), dict[str, dict[str, Count]], "not a baseline of hotlap kernels"
    )
    for key, level in levels.items():
        if "/" not in key or not level.keys() >= {*RATCHETS}:
            raise Unreadable(f"{file}: not a baseline of hotlap kernels: {stored.line(key)!r} is no level")
    return levels


def built_again(
    levels: Mapping[str, dict[str, int]], ops: Sequence[str], targets: Sequence[str], all_settings: bool
) -> Levels:
    """Returns the part of a baseline that a run over these operations and targets builds again.

    all_settings: whether it also builds the settings beside the default ones, whose keys hold a [.
    """
    return {
        key: level
        for key, level in levels.items()
        if key.split("/")[1] in ops and key.rpartition("/")[2] in targets and (all_settings or "[" not in key)
    }


def store(file: Path, levels: Levels) -> None:
    """Writes a baseline. Raises Misuse."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(f"cannot write {file}: {error.strerror}") from None
    put(file, msgspec.json.format(msgspec.json.encode(levels, order="deterministic"), indent=1) + b"\n")
