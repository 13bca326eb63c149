"""Ways to look faster than one is, raced beside an honest eager: each is caught, and by what.

docs/trust.md has the same list in words.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hotlap.perf.lookup.cases import expand
from hotlap.perf.machine import survey
from hotlap.perf.measure import rundir
from hotlap.perf.measure.journal import Progress
from hotlap.perf.measure.measure import measure
from hotlap.perf.race import audit
from hotlap.perf.race.entrant import Entrant, Oracle
from hotlap.perf.race.messages import Array, Audited
from hotlap.perf.race.observations import Block
from hotlap.perf.terms.case import Plan
from hotlap.perf.terms.reasons import Refusal
from hotlap.perf.terms.result import Result

# Planted backend -> the reason that its result must have, and words of it.
CHEATS = {
    "cached_by_id": ("unmeasured_work", "it keeps its answers"),
    "cached_by_content": ("unmeasured_work", "it keeps its answers"),
    "put_off": ("unmeasured_work", "fetching the outputs takes"),
    "in_a_thread": ("unmeasured_work", "fetching the outputs takes"),
    "done_ahead": ("unmeasured_work", "placing the inputs takes"),
    "last_only": ("stale_output", "outputs of"),
    "by_caller": ("stale_output", "outputs of"),
    "slow_clock": ("unmeasured_work", "its clock is slow"),
    "own_threads": ("unmeasured_work", "work is done in other threads"),
    "reads_reference": ("crashed", "AssertionError"),
}


@pytest.fixture(scope="module")
def results(planted: Path) -> dict[str, Result]:
    """One thread for each entrant, three blocks."""
    plan = Plan(budget_s=120, looks=(3,), rounds=8, tail_s=0.02, timeout_s=60, threads=1, fresh_blocks=0)
    cases = expand(["planted.workloads:busy"], ["eager", *CHEATS, "null"], batches=[8])
    here = survey.collect(plan.threads, "keep")
    run = rundir.RunFolder(None, "test", here, cases)
    try:
        measured = measure(cases, run, plan, here.key, Progress())
    finally:
        run.close()
    return {result.case.spec: result for result in measured}


@pytest.mark.slow
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_cheat_is_caught_and_has_no_time(results: dict[str, Result], cheat: str) -> None:
    result = results[cheat]
    if cheat == "own_threads" and result.disturbance is not None:
        # Where other processes kept the second core busy it had one, as everyone: nothing to catch.
        latencies = result.metrics["latency"].values
        over = [
            statistics.median(cpu_s / call_s for cpu_s, call_s in zip(block, times, strict=True))
            > 1 + audit.THREADS_OVER
            for block, times in zip(result.disturbance.cpu_s, latencies, strict=True)
        ]
        assert sum(over) <= len(over) / 2
        return
    assert result.reason is not None
    code, words = CHEATS[cheat]
    assert (result.status, result.reason.code) == ("failed", code), result.reason
    assert words in result.reason.detail
    assert result.metrics == {}


@pytest.mark.slow
@pytest.mark.parametrize("honest", ["eager", "null", "pace"])
def test_who_is_honest_stays(results: dict[str, Result], honest: str) -> None:
    assert results[honest].status in ("ok", "noisy"), results[honest].reason
    assert len(results[honest].metrics["latency"].blocks) == 3


def test_the_page_lists_every_cheat_with_its_reason() -> None:
    page = (Path(__file__).parents[3] / "docs" / "trust.md").read_text()
    for cheat, (code, _) in CHEATS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{cheat}`:")]
        assert row.endswith(f"`{code}` |") or code == "crashed"


def audited(**differences: object) -> Audited:
    fields = {
        "fresh_s": [1e-3, 1.1e-3, 1e-3],
        "seen_s": [1e-3, 0.9e-3, 1e-3],
        "fetch_s": [1e-5] * 3,
        "place_s": [2e-5] * 3,
        "copy_s": 1e-6,
        "outputs": [packed(np.ones((2, 3), np.float32))],
        "inputs": 1,
    }
    return Audited(**{**fields, **differences})  # type: ignore[arg-type]


def packed(array: np.ndarray) -> Array:
    return Array(array.dtype.str, array.shape, array.tobytes())


@pytest.fixture
def entrant(tmp_path: Path) -> Entrant:
    """Its references of inputs that are kept back are 0 for the first and 1 for the second."""
    values = np.stack([np.zeros((2, 3)), np.ones((2, 3))])
    np.savez(tmp_path / "fresh.npz", in0=values, ref0=values)
    (case,) = expand(["w:w"], ["eager"], pace=False)[:1]
    return Entrant(
        case,
        None,  # type: ignore[arg-type]  # nothing of the backend is asked for
        [],
        {},
        tmp_path,
        tmp_path,
        tmp_path,
        None,  # type: ignore[arg-type]
        Oracle(None, tmp_path, None),  # type: ignore[arg-type]
        limits=[1e-6, 1e-6],
    )


def test_an_honest_audit_says_nothing(entrant: Entrant) -> None:
    assert audit.judge(entrant, audited()) == ""


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ({"seen_s": [1e-5] * 3}, "it keeps its answers"),
        ({"fetch_s": [2e-3] * 3}, "fetching the outputs takes"),
        ({"place_s": [2e-3] * 3}, "placing the inputs takes"),
    ],
)
def test_each_way_to_hide_work_is_named(entrant: Entrant, differences: dict[str, object], words: str) -> None:
    assert words in audit.judge(entrant, audited(**differences))


@pytest.mark.parametrize(
    "differences",
    [
        {"fetch_s": [2e-3] * 3, "copy_s": 2e-4},
        {"fresh_s": [1e-3, 8e-3, 9.0], "fetch_s": [1e-5, 1.0, 1.0], "place_s": [1.0, 2e-5, 1.0]},
        {"fresh_s": [5e-5] * 3, "seen_s": [5e-6] * 3, "fetch_s": [4e-5] * 3, "place_s": [4e-5] * 3},
    ],
    ids=["large outputs", "all but one were disturbed", "calls of microseconds"],
)
def test_what_is_no_hidden_work_is_not_called_so(entrant: Entrant, differences: dict[str, object]) -> None:
    assert audit.judge(entrant, audited(**differences)) == ""


def test_copies_between_devices_are_no_hidden_work(entrant: Entrant) -> None:
    entrant.case = replace(entrant.case, target="cuda:0")
    assert audit.judge(entrant, audited(fetch_s=[2e-3] * 3, place_s=[2e-3] * 3)) == ""
    assert "it keeps its answers" in audit.judge(entrant, audited(seen_s=[1e-5] * 3))


def test_wrong_outputs_of_new_inputs_are_refused_at_once(entrant: Entrant) -> None:
    with pytest.raises(Refusal, match="stale_output: outputs of inputs that it had not seen before"):
        audit.judge(entrant, audited(inputs=0))


@pytest.mark.parametrize(
    ("doubts", "over", "refused"),
    [
        (["a"], False, False),
        (["a"], True, True),
        (["a", "b"], False, True),
        (["", "a"], True, False),
        (["a", "", "b"], True, True),
        (["a", "", "", "b"], True, False),
        ([], True, False),
    ],
)
def test_noise_in_a_block_is_no_verdict(
    entrant: Entrant, doubts: list[str], over: bool, refused: bool
) -> None:
    entrant.doubts = doubts
    if not refused:
        audit.settle(entrant, over)
        return
    with pytest.raises(Refusal, match=f"unmeasured_work: in {len([*filter(None, doubts)])} of"):
        audit.settle(entrant, over)


@pytest.mark.parametrize(
    ("clocks", "slow"),
    [
        ([(100.0, 7.0), (101.0, 8.0), (103.0, 10.0)], False),
        ([(100.0, 7.0), (101.0, 7.3), (103.0, 8.0)], True),
        ([(100.0, 7.0), (100.2, 7.0001)], False),
        ([(100.0, 7.0)], False),
        ([], False),
    ],
    ids=["they agree", "a third of the speed", "the parent woke up late", "one turn", "none"],
)
def test_a_slow_clock_is_slow_over_a_whole_block(clocks: list[tuple[float, float]], slow: bool) -> None:
    block = Block(True, 1.0, 1.0, 1.0, 1, 1, 1, clocks=clocks)
    assert bool(audit.clocks(block)) == slow
