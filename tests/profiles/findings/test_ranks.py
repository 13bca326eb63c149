"""Several ranks: who waited for whom, with clocks that agree and that do not, and what cannot be
told.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotlap.perf.cli import status
from hotlap.profiles.findings import ranks

from .. import real, synthetic

REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL"


def job(folder: Path, arrivals: list[list[float]], clocks: list[float] | None = None, extra: int = 0) -> Path:
    """A file a rank; arrivals[k][r]: us after 1000 * k at which rank r comes to collective k.

    All leave it 50 us after the last has come.
    """
    folder.mkdir(exist_ok=True)
    for rank in range(len(arrivals[0])):
        events: list[dict[str, Any]] = []
        shift = 5000 + (clocks[rank] if clocks else 0)
        for number, each in enumerate(arrivals):
            start, end = shift + 1000 * number + each[rank], shift + 1000 * number + max(each) + 50
            events += synthetic.launched(
                "gemm", shift + 1000 * number - 300, shift + 1000 * number - 290, 80, 10 * number + 1
            )
            events += synthetic.launched(REDUCE, start - 5, start, end - start, 10 * number + 2, stream=20)
        for number in range(extra * rank):
            events += synthetic.launched(
                "ncclDevKernel_Broadcast",
                shift + 7_000_000,
                shift + 7_000_100 + 1000 * number,
                10,
                9000 + number,
                stream=20,
            )
        path = synthetic.written(folder / f"rank{rank}.json", events)
        content = json.loads(path.read_text())
        path.write_text(
            json.dumps({**content, "distributedInfo": {"rank": rank, "world_size": len(arrivals[0])}})
        )
    return folder


@pytest.mark.parametrize("clocks", [None, [0, 123_456.0, -98_765.0]])
def test_the_last_to_arrive_is_the_straggler(clocks: list[float] | None, tmp_path: Path) -> None:
    job_ranks = ranks.read(job(tmp_path, [[0, 30, 100], [10, 0, 70], [0, 40, 20], [0, 5, 60]], clocks))
    assert [rank.number for rank in job_ranks.ranks] == [0, 1, 2] and job_ranks.world == 3
    assert [rank.matched for rank in job_ranks.ranks] == [4, 4, 4]
    assert [rank.last for rank in job_ranks.ranks] == [0, 1, 3]
    assert [rank.held for rank in job_ranks.ranks] == [0, 20_000, (100 - 30 + 70 - 10 + 60 - 5) * 1000]
    assert [rank.waited for rank in job_ranks.ranks] == [
        (100 + 60 + 40 + 60) * 1000,
        (70 + 70 + 0 + 55) * 1000,
        20_000,
    ]
    assert job_ranks.straggler is not None and job_ranks.straggler.number == 2
    assert [rank.offset for rank in job_ranks.ranks] == [int(1000 * clock) for clock in clocks or [0, 0, 0]]


def test_ranks_that_arrive_together_have_no_straggler(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["review", str(job(tmp_path, [[0, 0], [0, 0]]))]) == 0
    output = capsys.readouterr().out
    assert "straggler none" in output and "ranks     2 of 2; 4 of 4 collectives" in output


def test_collectives_of_one_rank_alone_are_not_matched(tmp_path: Path) -> None:
    pair = ranks.read(job(tmp_path, [[0, 30], [10, 0]], extra=3))
    assert [(rank.collectives, rank.matched) for rank in pair.ranks] == [(2, 2), (5, 2)]


def test_what_ends_at_other_times_does_not_belong_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank, starts in enumerate(((1000, 9000), (3000, 5500))):
        events = [
            event
            for number, start in enumerate(starts)
            for event in synthetic.launched(REDUCE, start - 5, start, 100 + 900 * number, number + 1)
        ]
        synthetic.written(tmp_path / f"job_rank-{rank}.json", events)
    assert status(["review", str(tmp_path)]) == 0
    assert "straggler" in (output := capsys.readouterr().out) and "rank 0 " in output and "rank 1 " in output


def test_as_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["review", str(job(tmp_path, [[0, 30]])), "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["straggler"] == 1 and document["tool"] == "review" and document["verdict"] == "pass"
    assert [rank["figures"]["timeline"]["window_ns"] for rank in document["ranks"]] == [
        rank["window_ns"] for rank in document["ranks"]
    ]
    assert all(sum(rank["parts_ns"].values()) == rank["window_ns"] for rank in document["ranks"])


def rank(path: Path, number: int, calls: list[tuple[float, float]], group: list[int] | None = None) -> None:
    """A file with collectives (start, end in us), of a process group that it names or does not."""
    events = []
    for index, (start, end) in enumerate(calls):
        more = {"Process_Group_Ranks": str(group)} if group else {}
        events += synthetic.launched(REDUCE, start - 3, start, end - start, index + 1, stream=20, **more)
    synthetic.written(path / f"rank{number}.json", events)


def costs(folder: Path) -> list[tuple[int, int, int]]:
    return [(rank.matched, rank.last, rank.held) for rank in ranks.read(folder).ranks]


@pytest.mark.parametrize("named", [True, False])
def test_groups_that_share_no_rank_have_stragglers_of_their_own(named: bool, tmp_path: Path) -> None:
    """Ranks 0 and 1, 2 and 3; the second of each comes 600 us late, four times.

    The groups end 2 ms apart: no offset between clocks.
    """
    for number in range(4):
        shift, late = 2000 * (number // 2), 600 * (number % 2)
        pair = [number // 2 * 2, number // 2 * 2 + 1]
        rank(
            tmp_path,
            number,
            [(10_000 * index + shift + late, 10_000 * index + shift + 650) for index in range(1, 5)],
            pair if named else None,
        )
    assert costs(tmp_path) == [(4, 0, 0), (4, 4, 2_400_000)] * 2
    assert [item.offset for item in ranks.read(tmp_path).ranks] == [0, 0, 0, 0]


def test_groups_that_end_together_are_kept_apart_by_their_names(tmp_path: Path) -> None:
    for number in range(4):
        shift, late = 0.01 * (number // 2), 600 * (number % 2)
        rank(
            tmp_path,
            number,
            [(10_000 * index + shift + late, 10_000 * index + shift + 650) for index in range(1, 5)],
            [number // 2 * 2, number // 2 * 2 + 1],
        )
    assert costs(tmp_path) == [(4, 0, 0), (4, 4, 2_400_000)] * 2


def test_short_collectives_one_of_which_is_missing_make_no_straggler(tmp_path: Path) -> None:
    calls = [(15.0 * index, 15.0 * index + 10) for index in range(50)]
    rank(tmp_path, 0, calls[1:])
    rank(tmp_path, 1, calls)
    assert costs(tmp_path) == [(49, 0, 0), (49, 0, 0)] or all(held == 0 for _, _, held in costs(tmp_path))


def test_an_offset_that_could_be_another_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal periods: one collective more in front, and the clocks are 7 s apart or a step less."""
    rank(tmp_path, 0, [(5000.0 * index, 5000.0 * index + 100) for index in range(1, 5)])
    rank(tmp_path, 1, [(7e6 + 5000.0 * index, 7e6 + 5000.0 * index + 100) for index in range(5)])
    assert status(["review", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert (
        "how far its clock is from the others' cannot be told" in output and "straggler not known" in output
    )


@pytest.mark.parametrize("recorded", [True, -1, "0", 10**30, None])
def test_a_rank_that_is_no_rank_is_asked_for(
    recorded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.json", "b.json"):
        path = synthetic.written(tmp_path / name, synthetic.launched(REDUCE, 0, 5, 5, 1))
        path.write_text(
            json.dumps(
                {**json.loads(path.read_text()), "distributedInfo": {"rank": recorded, "world_size": 10**30}}
            )
        )
    assert status(["review", str(tmp_path)]) == 4
    assert "which rank it is of is not recorded; name it rank0.json" in capsys.readouterr().err


def test_what_is_no_set_of_ranks_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    same = job(tmp_path / "same", [[0, 1]])
    (same / "again.json").write_bytes((same / "rank1.json").read_bytes())
    cpu = job(tmp_path / "cpu", [[0, 1]])
    synthetic.written(cpu / "rank7.json", [synthetic.operator("aten::mm", 1, 2)])
    for folder, words in (
        (tmp_path / "empty", "0 traces"),
        (same, "are both of rank 1"),
        (cpu, "no GPU events"),
    ):
        assert status(["review", str(folder)]) == 4
        assert words in capsys.readouterr().err
    assert status(["review", str(same), "--html", "-"]) == 2
    assert "folder of ranks" in capsys.readouterr().err


def test_a_damaged_rank_is_shown_and_not_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = job(tmp_path, [[0, 30], [0, 0]])
    path = folder / "rank1.json"
    path.write_bytes(path.read_bytes()[:-120])
    assert status(["review", str(folder)]) == 4
    assert "rank 1: the file is cut" in capsys.readouterr().out
    assert status(["review", str(folder), "--allow-truncated"]) == 0


def test_a_real_pair() -> None:
    """Two ranks of 128: four of the ten collectives are of groups that both are in."""
    pair = ranks.read(real.trace("multirank/a100_dlrm_rank0.json.gz").parent)
    assert [(rank.number, rank.collectives, rank.matched, rank.offset) for rank in pair.ranks] == [
        (0, 10, 4, 0),
        (1, 10, 4, 0),
    ]
    assert pair.world == 128 and pair.straggler is not None and pair.straggler.number == 1


moments = st.lists(
    st.tuples(st.integers(-(1 << 40), 1 << 40), st.integers(0, 1 << 30), st.sampled_from("ab")), max_size=12
)


@settings(max_examples=50)
@given(first=moments, second=moments)
def test_any_two_ranks_are_matched_each_once(first: Any, second: Any) -> None:
    import numpy as np

    def of(rows: Any) -> ranks.Collectives:
        rows = sorted(rows, key=lambda row: row[0] + row[1])
        start, dur = (np.array([row[column] for row in rows], np.int64) for column in (0, 1))
        return ranks.Collectives(start, start + dur, [(row[2], b"") for row in rows])

    a, b = of(first), of(second)
    matches = ranks.pairs(a, b, 0)
    assert len({row for row, _ in matches}) == len({row for _, row in matches}) == len(matches)
    for row, other in matches:
        assert a.keys[row] == b.keys[other] and abs(int(a.end[row]) - int(b.end[other])) <= ranks.TOGETHER_NS
