"""Values of options that are lists: `--backends eager,compile`, `--batch 1,8`; and what stands for
a target that nobody named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..terms.reasons import Misuse

if TYPE_CHECKING:
    from ..lookup.workloads import Reference
    from ..terms.case import Plan

# The target where none is named.
AUTO = "auto"
# A batch of a thousand million is none.
MOST_DIGITS = 9


def split(text: str) -> list[str]:
    """Returns the parts between commas, without blanks and empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def target_of(text: str, notes: list[str]) -> str:
    """Returns a target as it was typed; for `auto` the first GPU or else the CPU, and notes it."""
    from ..machine.present import automatic_target

    if text != AUTO:
        return text
    target, line = automatic_target()
    notes.append(line)
    return target


def batch_sizes(text: str) -> list[int]:
    """Returns the numbers of --batch. Raises Misuse where one is no whole number of at least 1."""
    return [batch_size(part) for part in split(text)]


def batches_of(reference: Reference, text: str, plan: Plan) -> list[int]:
    """Returns the numbers of --batch; without any 1, or the only batch that the model takes.

    Raises Misuse.
    """
    from ..measure.examine import default_batch

    return batch_sizes(text) or [default_batch(reference, plan)]


def batch_size(text: str) -> int:
    if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) < 1:
        raise Misuse(f"--batch {text[:40]!r}: expected whole numbers of at least 1, such as 1,8")
    return int(text)


def arguments_of(texts: Sequence[str]) -> dict[str, str]:
    """Returns the arguments of `--arg NAME=VALUE`. Raises Misuse."""
    for text in texts:
        if not text.partition("=")[0].isidentifier() or "=" not in text:
            raise Misuse(f"--arg {text}: expected NAME=VALUE, such as hidden=48")
    return {name: value for name, _, value in (text.partition("=") for text in texts)}
