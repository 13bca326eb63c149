"""Values of options that are lists: `--backends eager,compile`, `--batch 1,8`."""

from __future__ import annotations

from ..terms.reasons import Misuse

# A batch of a thousand million is none.
MOST_DIGITS = 9


def split(text: str) -> list[str]:
    """Returns the parts between commas, without blanks and empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def batch_sizes(text: str) -> list[int]:
    """Returns the numbers of --batch. Raises Misuse where one is no whole number of at least 1."""
    return [batch_size(part) for part in split(text)]


def batch_size(text: str) -> int:
    if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) < 1:
        raise Misuse(f"--batch {text[:40]!r}: expected whole numbers of at least 1, such as 1,8")
    return int(text)
