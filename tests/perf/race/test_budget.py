"""How many rounds and blocks the rest of a budget has room for."""

from __future__ import annotations

from hotlap.perf.race.budget import Rest


def test_rounds_are_fewer_where_the_blocks_that_are_wanted_would_not_fit() -> None:
    assert Rest(80, round_s=1, overhead_s=10).rounds(30, blocks=2) == 30
    assert Rest(50, round_s=1, overhead_s=10).rounds(30, blocks=2) == 15
    assert Rest(5, round_s=1, overhead_s=10).rounds(30) == 10, "never so few that a block says nothing"
    assert Rest(5, round_s=1, overhead_s=10).rounds(2) == 2, "nor more than there were"


def test_it_is_over_where_another_block_does_not_fit() -> None:
    assert Rest(40, round_s=1, overhead_s=10).blocks(30) == 1 and not Rest(40, round_s=1, overhead_s=10).over(
        30
    )
    assert Rest(39, round_s=1, overhead_s=10).over(30)


def test_a_block_of_another_kind_is_begun_with_what_is_left() -> None:
    """The imports of a fresh worker say nothing of a forked one, so its cost is not known before it
    has run.
    """
    rest = Rest(5, round_s=1, overhead_s=1000, alike=False)
    assert not rest.over(30) and rest.rounds(30) == 10
    assert Rest(0.5, round_s=1, overhead_s=0, alike=False).over(1) and Rest(
        -1, round_s=1, overhead_s=0, alike=False
    ).over(1)
