"""What is left of a race's budget after a block, and how many rounds and blocks it still has room
for.
"""

from __future__ import annotations

from typing import NamedTuple

# Fewer give a block no median worth having.
LEAST_ROUNDS = 10


class Rest(NamedTuple):
    """The time that is left, and what a block takes of it."""

    left_s: float
    # Seconds of one round.
    round_s: float
    # Seconds of a block beside its rounds.
    overhead_s: float
    # Whether the next block does what the last one did; if not, its overhead is not known yet.
    alike: bool = True

    def blocks(self, rounds: int) -> float:
        """How many blocks of so many rounds it has room for."""
        return self.left_s / (self.next_s + rounds * self.round_s)

    def rounds(self, most: int, blocks: int = 1) -> int:
        """As many rounds as each of so many blocks has room for: several blocks of few rounds give
        an interval, two of many give none.
        """
        return min(most, max(LEAST_ROUNDS, int((self.left_s / blocks - self.next_s) / self.round_s)))

    def over(self, rounds: int) -> bool:
        """Whether it has no room for another block."""
        return self.blocks(rounds) < 1 if self.alike else self.left_s < 1

    @property
    def next_s(self) -> float:
        return self.overhead_s if self.alike else 0.0
