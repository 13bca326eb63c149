"""`pytest bench --benchmark-json=out.json`: our samples in pytest-benchmark's report.

A benchmark test takes the fixture `lap` and a parameter `case`, a case's id made by `hotlap.cases`:

    @pytest.mark.parametrize("case", hotlap.cases("my_pkg:make"))
    def test_speed(lap, case):
        lap(case)

The first test of a group measures all selected cases of that group in one race; each test then
replays its own samples through pytest-benchmark's public API, so its JSON, its compare command and
every reader of its files keep working.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..machine import cores, survey
from ..terms import escape, files

if TYPE_CHECKING:
    from ..measure.rundir import RunFolder
    from ..terms.result import Result

    Lap = Callable[[str], Result]

# The name of pytest-benchmark's plug-in and of its fixture.
BENCHMARK = "benchmark"
# Fields of the plan under --benchmark-disable: one block of one turn.
ONCE = {"budget_s": 0.01, "looks": (1,), "rounds": 1, "tail_s": 0.0}
# What the timer of the present replay reads next, last reading first.
_readings: list[float] = []


def cases(
    *workloads: str,
    backends: Iterable[str] | None = None,
    precisions: Iterable[str] = ("fp32",),
    batches: Iterable[int] = (1,),
    target: str = "cpu",
) -> list[str]:
    """Returns the ids of all combinations, to parametrise a benchmark test with.

    Backends default to every one there is. Raises Misuse.
    """
    from ..lookup.cases import default_backends, expand

    chosen = default_backends(target) if backends is None else backends
    return [case.id for case in expand(workloads, chosen, precisions, batches, target, pace=False)]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("hotlap")
    group.addoption(
        "--hotlap-budget",
        default="90s",
        metavar="TIME",
        help="Measuring time of one race, such as 60s or 5m (default: %(default)s).",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RACES] = Races(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    if (races := config.stash.get(_RACES, None)) is not None:  # another plug-in may have failed before
        races.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Has --benchmark-only and --benchmark-skip take a test with `lap` for a benchmark, although it
    asks for the fixture `benchmark` only once it has a time. Raises UsageError for what could not
    be measured, before anything is.
    """
    fixtures: list[list[str]] = [getattr(item, "fixturenames", []) for item in items if _laps(item)]
    # Tests of one function share theirs.
    lists = [each for each in {id(each): each for each in fixtures}.values() if BENCHMARK not in each]
    for each in lists:
        each.append(BENCHMARK)
    try:
        yield
    finally:
        for each in lists:
            each.remove(BENCHMARK)
    if laps := [item for item in items if _laps(item)]:
        measurable(config, laps)


def measurable(config: pytest.Config, laps: Iterable[pytest.Item]) -> None:
    """Raises UsageError where pytest-benchmark is switched off, or a case is wrong: its workload's
    module is looked for once.
    """
    if not config.pluginmanager.hasplugin(BENCHMARK):
        raise pytest.UsageError(
            "tests with the fixture lap report to pytest-benchmark, which -p no:benchmark switches off; leave"
            " that out, or deselect them"
        )
    if config.getoption("benchmark_skip"):
        return
    from ..lookup import workloads
    from ..terms.case import Case
    from ..terms.reasons import Misuse

    try:
        for name in dict.fromkeys(Case.parse(text).workload for text in _named(laps)):
            workloads.check(workloads.Reference(name))
    except Misuse as error:
        raise pytest.UsageError(escape.log(str(error))) from None


def switched_off(config: pytest.Config) -> bool:
    """Returns whether nothing is to be timed: --benchmark-disable, or one of several processes of
    pytest-xdist, in which pytest-benchmark times nothing either.
    """
    asked = config.getoption("benchmark_disable") and not config.getoption("benchmark_enable")
    return bool(asked or hasattr(config, "workerinput"))


@pytest.fixture
def lap(request: pytest.FixtureRequest) -> Lap:
    """Returns a function that measures a case, with every other selected case of its group in the
    same race, and reports it to pytest-benchmark.

    The function returns the Result. A skipped case skips the test; a failed one or one that fell
    back fails it; both with the reason. Under --benchmark-disable, and in the processes of
    pytest-xdist, cases are built, checked and called once, and nothing is reported.
    """
    request.node.add_marker(pytest.mark.benchmark(timer=replayed))

    def measured(case: str) -> Result:
        result = request.config.stash[_RACES].result(case, request.session.items)
        latency = result.metrics.get("latency")
        if latency is None:
            if result.status == "skipped":
                pytest.skip(escape.log(str(result.reason)))
            pytest.fail(escape.log(f"{result.status}: {result.reason}"), pytrace=False)
        if switched_off(request.config):
            return result
        benchmark = request.getfixturevalue(BENCHMARK)  # only now: unused, it would warn
        replay(benchmark, result.case.group, latency.flat)
        benchmark.extra_info["hotlap"] = builtins(result)
        return result

    return measured


def replay(benchmark: Any, group: str, samples: Iterable[float]) -> None:
    """Feeds samples, in s, to pytest-benchmark: its timer reads 0, t1, 0, t2, ... around an empty
    function.
    """
    benchmark.group = group
    _readings[:] = [reading for sample in reversed(list(samples)) for reading in (sample, 0.0)]
    benchmark.pedantic(int, rounds=len(_readings) // 2)


def replayed() -> float:
    """Returns the next reading of a replay, in s; it is the benchmark's timer."""
    return _readings.pop() if _readings else time.perf_counter()


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    """Adds our section. pytest-benchmark calls it for each file that it writes."""
    config.stash[_RACES].reported = True
    output_json["hotlap"] = config.stash[_RACES].section()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says where the results are, and writes the JSON where pytest-benchmark wrote none because
    nothing was timed.
    """
    races = config.stash[_RACES]
    if not races.done:
        return
    path: Path | None = config.getoption("benchmark_json", default=None)
    if path is not None and not races.reported:
        files.put(path, (json.dumps(races.untimed_file(config), indent=4) + "\n").encode())
    terminalreporter.section("hotlap")
    for text in races.lines():
        terminalreporter.write_line(escape.log(text))


class Races:
    """All races of a pytest session, measured when their first result is asked for, in one run
    folder.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        # Case id -> its result.
        self.done: dict[str, Result] = {}
        # None until the first race.
        self.folder: RunFolder | None = None
        # Whether pytest-benchmark has written a file of its own.
        self.reported = False

    def result(self, case_id: str, items: Iterable[pytest.Item]) -> Result:
        if case_id not in self.done:
            self.measure(case_id, items)
        return self.done[case_id]

    def measure(self, case_id: str, items: Iterable[pytest.Item]) -> None:
        """Races the group of this case: every case of it that a selected test names."""
        # Here, because every pytest of a user imports this file, with benchmarks or without.
        from ..lookup import workloads
        from ..lookup.cases import PACE
        from ..measure.journal import Progress
        from ..measure.measure import measure
        from ..measure.rundir import RunFolder
        from ..terms.case import Case, Plan
        from ..terms.units import seconds

        wanted = Case.parse(case_id)
        selected = [
            Case.parse(text)
            for text in dict.fromkeys(_named(items))
            if Case.parse(text).group == wanted.group
        ] or [wanted]
        pace = Case(wanted.workload, PACE, wanted.precision, wanted.batch, wanted.target, wanted.mode)
        workloads.check(workloads.Reference(wanted.workload))
        off, budget_s = switched_off(self.config), seconds(self.config.getoption("hotlap_budget"))
        plan = Plan(threads=cores.count(), **(ONCE if off else {"budget_s": budget_s}))
        here = survey.collect(plan.threads, "keep")
        if self.folder is None:
            self.folder = RunFolder(None, "pytest", here)
        self.folder.ask([*selected, pace])
        doing = "checking, not racing (benchmarks are disabled)," if off else "racing"
        self.tell(f"hotlap: {doing} {len(selected)} cases of {wanted.group}")
        for result in measure(
            [*selected, pace], self.folder, plan, here.key, Progress(), train=False, prove=False
        ):
            self.done[result.case.id] = result

    def tell(self, text: str) -> None:
        """A race takes a minute; a line on the terminal says so while pytest captures output."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(escape.log(text))

    def section(self) -> dict[str, Any]:
        """Returns the file's top-level `hotlap`: environments, and the results that have no time
        (the others are in extra_info).
        """
        if self.folder is None:
            return {"environment": {}, "results": []}
        untimed = [
            result
            for result in self.done.values()
            if "latency" not in result.metrics or result.case.backend == "pace"
        ]
        return {
            "schema": self.folder.results.schema,
            "environment": builtins(self.folder.results.environment),
            "results": builtins(untimed),
        }

    def untimed_file(self, config: pytest.Config) -> dict[str, Any]:
        """Returns a file of pytest-benchmark's shape with nothing timed in it."""
        hook = config.hook
        return {
            "machine_info": hook.pytest_benchmark_generate_machine_info(config=config),
            "commit_info": hook.pytest_benchmark_generate_commit_info(config=config),
            "benchmarks": [],
            "datetime": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
            "version": metadata.version("pytest-benchmark"),
            "hotlap": self.section(),
        }

    def lines(self) -> list[str]:
        from ..reports.report import reasons

        where = [f"results: {self.folder.file}"] if self.folder is not None else []
        return [*reasons(list(self.done.values())), *where]

    def close(self) -> None:
        if self.folder is not None:
            self.folder.close()


_RACES = pytest.StashKey[Races]()


def builtins(value: Any) -> Any:
    """Returns a value as JSON holds it: no NaN or infinity, which readers of pytest-benchmark's
    files refuse.
    """
    import msgspec

    return msgspec.json.decode(msgspec.json.encode(value))


def _named(items: Iterable[pytest.Item]) -> Iterator[str]:
    """Yields the case ids that tests with the fixture `lap` are parametrised with."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and _laps(item) and isinstance(callspec.params.get("case"), str):
            yield callspec.params["case"]


def _laps(item: pytest.Item) -> bool:
    """Returns whether a test asks for the fixture `lap`."""
    return "lap" in getattr(item, "fixturenames", ())
