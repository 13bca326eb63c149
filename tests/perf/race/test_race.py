"""Races with real worker processes: what must be caught is caught, what dies takes no other with
it, and nothing stays behind.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from hotlap.perf.lookup import plugins
from hotlap.perf.lookup.cases import expand
from hotlap.perf.machine import survey
from hotlap.perf.machine.telemetry import Window
from hotlap.perf.measure import rundir
from hotlap.perf.measure.journal import Progress
from hotlap.perf.measure.measure import measure
from hotlap.perf.race.entrant import Entrant
from hotlap.perf.race.messages import Weigh, Weighed
from hotlap.perf.race.observations import Block, Observations
from hotlap.perf.race.race import Race
from hotlap.perf.race.timing import Turn
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Result, read
from hotlap.perf.terms.work import Subject, Work

TINY = "planted.workloads:tiny"
# No block of fresh workers: importing torch takes longer than all that it measures.
QUICK = Plan(budget_s=60, looks=(2,), rounds=4, tail_s=0.02, timeout_s=60, threads=2, fresh_blocks=0)
DEFECTS = ("stale", "imprecise", "elsewhere", "killed", "hangs", "full_disk", "greedy")

pytestmark = [pytest.mark.usefixtures("planted", "kept_servers"), pytest.mark.slow]


def measured(
    cases: Sequence[Case], plan: Plan = QUICK, progress: Progress | None = None
) -> dict[Case, Result]:
    """Results of one run by case, and the same read back from the file."""
    here = survey.collect(plan.threads, "keep")
    run = rundir.RunFolder(None, "test", here, cases)
    try:
        results = {
            result.case: result for result in measure(cases, run, plan, here.key, progress or Progress())
        }
    finally:
        run.close()
    assert {result.case: result for result in read(run.file).results} == results
    return results


def race(
    workload: str, backends: Sequence[str], plan: Plan = QUICK, progress: Progress | None = None
) -> dict[str, Result]:
    """Results by backend spec."""
    results = measured(expand([workload], backends), plan, progress)
    return {case.spec: result for case, result in results.items()}


# Races that end at once, by name: workload, backends, precision and batch.
SHORT = {
    "broken": ("planted.workloads:broken", ["eager", "null"], "fp32", 1),
    "nan": ("planted.workloads:nan", ["eager", "null"], "fp32", 1),
    "raises": ("planted.workloads:raises", ["eager", "null"], "fp32", 1),
    "another batch": ("planted.workloads:fixed", ["eager", "null"], "fp32", 3),
    "missing": ("planted.workloads:missing", ["eager", "null"], "fp32", 1),
    "its own batch": ("planted.workloads:fixed", ["eager"], "fp32", 4),
    "too large": (TINY, ["eager"], "fp32", 2**45),
    "unsupported": (TINY, ["eager", "onnxruntime"], "tf32", 1),
}


@pytest.fixture(scope="module")
def short_races(planted: Path) -> dict[str, dict[str, Result]]:
    """All of SHORT in one run, whose fork server imports torch once: results by backend spec."""
    cases = {
        name: expand([workload], backends, [precision], [batch])
        for name, (workload, backends, precision, batch) in SHORT.items()
    }
    results = measured([case for some in cases.values() for case in some])
    return {name: {case.spec: results[case] for case in some} for name, some in cases.items()}


@pytest.fixture(scope="module")
def defects(planted: Path) -> dict[str, Result]:
    """All planted defects in one race beside honest entrants."""
    plan = Plan(budget_s=120, looks=(3,), rounds=20, tail_s=0.02, timeout_s=20, threads=2)
    return race(TINY, ["eager", *DEFECTS, "null[takes:1ms]"], plan)


def reason(result: Result) -> tuple[str, str]:
    assert result.reason is not None
    return result.status, result.reason.code


def test_the_others_go_on_beside_defects(defects: dict[str, Result]) -> None:
    for name in ("eager", "null[takes:1ms]", "pace"):
        assert defects[name].status in ("ok", "noisy")
        assert len(defects[name].metrics["latency"].blocks) == 3


def test_last_calls_output_is_caught_in_the_timed_run(defects: dict[str, Result]) -> None:
    assert reason(defects["stale"]) == ("failed", "stale_output")
    assert defects["stale"].metrics == {}
    assert defects["stale"].deviation is not None and all(
        distance.within for distance in defects["stale"].deviation.distances.values()
    )


def test_lower_precision_than_requested_is_caught(defects: dict[str, Result]) -> None:
    assert reason(defects["imprecise"]) == ("failed", "accuracy")
    assert defects["imprecise"].metrics == {}


def test_another_provider_than_requested_is_caught(defects: dict[str, Result]) -> None:
    assert reason(defects["elsewhere"]) == ("fell_back", "wrong_provider")
    assert defects["elsewhere"].metrics == {}
    placement = defects["elsewhere"].placement
    assert (
        placement is not None
        and placement.requested == "CUDAExecutionProvider"
        and placement.ran_on["CPUExecutionProvider"] > 0
    )


def test_a_killed_worker_keeps_its_samples(defects: dict[str, Result]) -> None:
    assert reason(defects["killed"]) == ("failed", "crashed")
    assert "SIGKILL" in str(defects["killed"].reason) and "--resume" in str(defects["killed"].reason)


def test_a_hanging_backend_times_out(defects: dict[str, Result]) -> None:
    assert reason(defects["hangs"]) == ("failed", "timeout")
    assert "20 s" in str(defects["hangs"].reason)


def test_a_full_disk_is_named(defects: dict[str, Result]) -> None:
    assert reason(defects["full_disk"]) == ("failed", "out_of_space")


def test_too_little_memory_is_named(defects: dict[str, Result]) -> None:
    assert reason(defects["greedy"]) == ("failed", "oom")


def test_null_takes_its_stated_time(defects: dict[str, Result]) -> None:
    """The least disturbed sample does; how near the centre comes is the machine's doing too, and
    stands in docs/measuring.md.
    """
    result = defects["null[takes:1ms]"]
    assert result.disturbance is not None
    for blocks in (result.metrics["latency"].values, result.disturbance.first_s):
        assert 0.001 <= min(value for block in blocks for value in block) <= 0.00102


def test_disturbance_is_reported_per_sample_and_block(defects: dict[str, Result]) -> None:
    disturbance = defects["eager"].disturbance
    latency = defects["eager"].metrics["latency"]
    assert disturbance is not None
    shape = [len(block) for block in latency.values]
    for name in ("cpu_s", "first_s", "switches", "migrations", "faults"):
        assert [len(block) for block in getattr(disturbance, name)] == shape
    assert len(disturbance.steal) == len(shape) and all(0 <= share <= 1 for share in disturbance.steal)
    assert all(value > 0 for block in disturbance.cpu_s for value in block)
    numbers = [number for block in latency.turns for number in block]
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)


def test_first_block_is_fresh_and_carries_memory_and_cold_start(defects: dict[str, Result]) -> None:
    memory, cold = defects["eager"].metrics["memory"], defects["eager"].metrics["cold_start"]
    assert len(memory.values) == len(cold.values) == 1
    assert float(memory.details["after_imports_bytes"] or 0) > 100 * 2**20
    assert {"import", "load", "first_call"} <= cold.details.keys()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken", "forward fails in fp32 eager"),
        ("nan", "NaN or infinite"),
        ("raises", "no such file of weights"),
        ("another batch", "made for a batch of 4: --batch 4"),
        ("missing", "missing"),
    ],
)
def test_a_workload_that_cannot_run_gives_every_case_its_reason(
    short_races: dict[str, dict[str, Result]], name: str, words: str
) -> None:
    results = short_races[name]
    assert results.keys() == {"eager", "null", "pace"}
    for result in results.values():
        assert reason(result) == ("failed", "invalid_input")
        assert words in str(result.reason)


def test_a_batch_that_does_not_fit_is_out_of_memory(short_races: dict[str, dict[str, Result]]) -> None:
    result = short_races["too large"]["eager"]
    assert reason(result) == ("failed", "oom")
    assert "smaller batch" in str(result.reason)


def test_a_fixed_batch_runs_at_its_own_size(short_races: dict[str, dict[str, Result]]) -> None:
    result = short_races["its own batch"]["eager"]
    assert result.status in ("ok", "noisy") and result.metrics


def test_a_precision_that_nothing_supports_is_skipped_with_its_reason(
    short_races: dict[str, dict[str, Result]],
) -> None:
    results = short_races["unsupported"]
    assert reason(results["eager"]) == ("skipped", "unsupported_precision")
    assert reason(results["pace"]) == ("skipped", "unsupported_target")


class StopAfterBlock(Progress):
    """Presses Ctrl-C when the first block is in the file."""

    def race(self, group: str, entrants: Sequence[Entrant], event: str) -> None:
        if any(entrant.seen.timed for entrant in entrants):
            raise KeyboardInterrupt


def test_ctrl_c_keeps_what_is_measured_and_resume_finishes_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        race(TINY, ["eager", "null[takes:1ms]"], progress=StopAfterBlock())
    folder = rundir.latest()
    kept = read(folder / "results.json")
    assert {reason(result) for result in kept.results} == {("noisy", "interrupted")}
    assert all(result.metrics["latency"].values for result in kept.results)
    here = survey.collect(2, "keep")
    run = rundir.RunFolder(folder, "", here)
    measure(run.unfinished(), run, QUICK, here.key, Progress())
    assert run.unfinished() == []
    run.close()
    assert all(len(result.metrics["latency"].blocks) == 2 for result in read(run.file).results)


@pytest.mark.parametrize("asked", ["normal", "raised"])
def test_the_scheduler_is_asked_as_the_plan_says(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the nice values of the workers, and of their sessions where the kernel has these."""
    nice: set[int] = set()
    sessions: set[str] = set()
    take_turn = Race.take_turn

    def watched(self: Race, entrant: Entrant) -> None:
        pid = entrant.running().pid
        nice.add(os.getpriority(os.PRIO_PROCESS, pid))
        autogroup = Path(f"/proc/{pid}/autogroup")
        sessions.add(autogroup.read_text().split()[-1] if autogroup.exists() else "none")
        take_turn(self, entrant)

    monkeypatch.setattr(Race, "take_turn", watched)
    result = race(TINY, ["eager"], msgspec.structs.replace(QUICK, priority=asked))["eager"]
    assert result.plan.priority == asked and result.disturbance is not None
    if asked == "normal":
        assert result.disturbance.priority == "normal (as asked)"
        assert nice == {os.getpriority(os.PRIO_PROCESS, 0)} and sessions <= {"0", "none"}
    elif result.disturbance.priority == "raised":
        assert nice == {-20} and sessions <= {"-20", "none"}
    else:
        assert result.disturbance.priority.startswith("normal (") and nice != {-20}


RUN = (
    "import sys; from hotlap.perf.cli import main; main(['run', 'planted.workloads:tiny', '--backends',"
    " 'eager,null', '--budget', '60s', '--out', sys.argv[1]])"
)


def stopped(process: psutil.Process) -> bool:
    """Whether a process waits for its turn; one that has ended meanwhile does not."""
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def test_no_worker_outlives_a_killed_parent(tmp_path: Path) -> None:
    environment = {**os.environ, "HOTLAP_TEST": "orphans"}
    parent = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "out")], env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 90
    started: list[psutil.Process] = []
    try:
        while time.monotonic() < deadline and not any(map(stopped, started)):
            started = [
                process for process in below(parent.pid) if "hotlap.perf.race.worker" in command(process)
            ]
            time.sleep(0.05)
        assert any(map(stopped, started))
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []


nothing: Any = None


def entrant(backend: str, blocks: Sequence[Sequence[float]]) -> Entrant:
    """An entrant that has seen samples of these times."""
    case = Case("w", backend)
    seen = Observations(case, {}, Subject(Work(0, 1, 1, 1, "row", True), ""))
    for times in blocks:
        turns = [
            Turn(first_s=seconds, call_s=seconds, calls=1, cpu_s=seconds, switches=0, migrations=0, faults=0)
            for seconds in times
        ]
        seen.blocks.append(Block(True, 0.0, 0.0, 0.0, 0, 0, 0, turns=turns))
    return Entrant(case, plugins.backend(backend), [], {}, Path(), Path(), Path(), seen, nothing)


def look(ratios: Sequence[float], affordable: float) -> str:
    entrants = [
        entrant("eager", [[1.0, 1.1]] * len(ratios)),
        entrant("compile", [[ratio, 1.1 * ratio] for ratio in ratios]),
    ]
    return Race(entrants, Plan(), nothing, nothing, nothing).look(affordable)


def test_a_race_ends_when_the_ratio_is_known_when_it_is_hopeless_and_not_before() -> None:
    assert look([0.5, 0.501, 0.499, 0.5, 0.5, 0.5], affordable=9) == "half-width of 2%"
    noisy = [0.4, 0.5, 0.6, 0.4, 0.5, 0.6]
    assert look(noisy, affordable=9).startswith("hopeless")
    assert look(noisy, affordable=300) == ""


class Clocked(Race):
    """Blocks that take what they are said to take, by a clock of their own:

    `overhead_s` each, the first `imports_s` more, and a second a round.
    """

    def __init__(self, overhead_s: float, imports_s: float, plan: Plan) -> None:
        super().__init__(
            [entrant("eager", []), entrant("compile", [])], plan, nothing, lambda event: None, lambda: None
        )
        self.now, self.overhead_s, self.imports_s = 0.0, overhead_s, imports_s
        self.rounds: list[int] = []

    def check(self) -> None:
        pass

    def block(
        self, number: int, rounds: int, order: random.Random, fresh: bool = False
    ) -> tuple[float, float]:
        self.rounds.append(rounds)
        for member, times in zip(
            self.entrants, ([1.0 + 0.1 * number, 1.1], [0.5, 0.5 + 0.1 * number]), strict=True
        ):
            member.seen.blocks += entrant("eager", [times]).seen.blocks
        self.now += self.overhead_s + rounds + (self.imports_s if number == 0 else 0.0)
        return float(rounds), 0.0


@pytest.mark.parametrize(
    ("budget_s", "imports_s", "least", "rounds"),
    [
        (1000.0, 30.0, 0, [30, 30, 30, 30, 30, 30]),
        (200.0, 30.0, 0, [30, 26, 13, 13, 14, 14]),
        (100.0, 30.0, 0, [30, 10]),
        (100.0, 30.0, 3, [30, 10, 10]),
    ],
)
def test_a_slow_model_has_fewer_rounds_in_the_blocks_that_its_budget_has_room_for(
    monkeypatch: pytest.MonkeyPatch, budget_s: float, imports_s: float, least: int, rounds: list[int]
) -> None:
    clocked = Clocked(10.0, imports_s, Plan(budget_s=budget_s, looks=(6,)))
    clocked.least = least
    monkeypatch.setattr("hotlap.perf.race.race.time.monotonic", lambda: clocked.now)
    clocked.run()
    assert clocked.rounds == rounds
    assert clocked.now <= budget_s or len(rounds) == least


class Weighing:
    """A worker whose GPU takes `needs_s` for a window, by a clock of its own; asked: the room that
    each had.
    """

    def __init__(self, needs_s: float) -> None:
        self.now, self.needs_s = 0.0, needs_s
        self.asked: list[float] = []

    def ask(self, request: Weigh, timeout_s: float) -> Weighed:
        self.asked.append(request.cap_s)
        enough = self.needs_s <= request.cap_s
        self.now += min(self.needs_s, request.cap_s)
        if not enough:
            return Weighed(None, Reason("timeout", "too short"))
        return Weighed(Window(1.0, 10, 100, self.needs_s))


@pytest.mark.parametrize(
    ("needs_s", "windows", "asked"), [(1.0, 3, [4.0, 3.0, 2.0]), (3.0, 1, [4.0]), (5.0, 0, [4.0])]
)
def test_energy_is_weighed_in_as_many_blocks_as_its_share_of_the_budget_has_room_for(
    monkeypatch: pytest.MonkeyPatch, needs_s: float, windows: int, asked: list[float]
) -> None:
    """A tenth of 40 s for each of two: a counter that is updated seldom is still read once where
    there is room for once.
    """
    eager, worker = entrant("eager", []), Weighing(needs_s)
    monkeypatch.setattr("hotlap.perf.race.race.time.monotonic", lambda: worker.now)
    eager.case = Case("w", "eager", target="cuda:0")
    monkeypatch.setattr(eager, "worker", worker)
    race = Race([eager, eager], Plan(budget_s=40), nothing, nothing, nothing)
    for _ in range(6):
        eager.seen.blocks.append(Block(True, 0.0, 0.0, 0.0, 0, 0, 0))
        race.weigh(eager)
    assert sum(block.energy is not None for block in eager.seen.blocks) == windows and worker.asked == asked
    assert (eager.seen.no_energy is None) == bool(windows)


def below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
