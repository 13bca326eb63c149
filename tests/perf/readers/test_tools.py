"""Files of every tool that is read: whose they are, what they say, and that a gate sees what became
slower in them.

Those in files/ were written by the tools themselves (machine and paths renamed); those of
github-action-benchmark follow its README. The tools that pip installs run here once more.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hotlap.perf import cli
from hotlap.perf.gate.judge import judge
from hotlap.perf.gate.policy import Policy
from hotlap.perf.readers import reading, runs
from hotlap.perf.readers.side import Known, Side
from hotlap.perf.terms.reasons import Misuse
from hotlap.perf.terms.verdict import Finding, Verdict

FILES = Path(__file__).parent / "files"


class Expected(NamedTuple):
    """What a file says of one of its cases."""

    tool: str
    case: str
    metric: str
    # In the base unit.
    centre: float
    unit: str
    # Other cases, with their status.
    others: Mapping[str, str]
    # How a figure of the file is multiplied: a pattern with the number as its only group.
    number: str = ""


EXPECTED = {
    "pyperf.json": Expected("pyperf", "sort a list", "latency", 6.18e-6, "s", {"sum": "ok"}),
    "google.json": Expected(
        "Google Benchmark", "sort_a_list/min_time:0.010/repeats:5", "latency", 8.14e-6, "s",
        {"broken/min_time:0.010": "failed"}, r'"real_time": ([0-9.e+-]+)',
    ),
    "google-aggregates.json": Expected(
        "Google Benchmark", "sort_a_list/min_time:0.010/repeats:5", "latency", 7.82e-6, "s",
        {"broken/min_time:0.010": "failed"}, r'"real_time": ([0-9.e+-]+)',
    ),
    "hyperfine.json": Expected("hyperfine", "true", "latency", 1.33e-3, "s", {"ls /": "ok"}),
    "asv.json": Expected(
        "asv", "benchmarks.Suite.time_sort(1000)", "latency", 9.764e-6, "s",
        {"benchmarks.time_broken": "failed", "benchmarks.track_ratio": "ok"},
        r"\b(9.763999969436554e-06)",
    ),
    "go.txt": Expected(
        "go test", "example.com/sorting.Sort", "latency", 7.459e-6, "s",
        {"example.com/sorting.Sum": "ok", "example.com/sorting.Broken": "failed"}, r"(\d+) ns/op",
    ),
    "go.jsonl": Expected(
        "go test", "example.com/sorting.Sort", "latency", 7.508e-6, "s",
        {"example.com/sorting.Sum": "ok", "example.com/sorting.Broken": "failed"}, r"(\d+) ns/op",
    ),
    "data.js": Expected("github-action-benchmark", "sort", "latency", 130e-9, "s", {}, r'"value": ([0-9.]+)'),
    "custom.json": Expected(
        "github-action-benchmark", "sort", "latency", 12.5e-3, "s",
        {"size": "ok", "score": "ok", "rate": "ok"}, r'"value": (12.5)',
    ),
}  # fmt: skip


def case(side: Side, name: str) -> Known:
    return side.cases[name]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_is_known_by_what_it_holds(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    shutil.copy(FILES / name, tmp_path / "results")
    side = reading.read(tmp_path / "results")[-1]
    assert side.tool == expected.tool
    sample = side.cases[expected.case].metrics[expected.metric]
    assert sample.centre == pytest.approx(expected.centre, rel=0.01) and sample.unit == expected.unit
    for other, status in expected.others.items():
        assert side.cases[other].status == status
    assert all(known.reason for known in side.cases.values() if known.status != "ok")


@pytest.mark.parametrize("name", [name for name in EXPECTED if not name.startswith("go.")])
def test_a_damaged_file_is_named_with_its_tool(name: str, tmp_path: Path) -> None:
    text = (FILES / name).read_bytes()
    cut = text[: 2 * len(text) // 3]
    (tmp_path / "cut.json").write_bytes(cut)
    with pytest.raises(Misuse) as caught:
        reading.read(tmp_path / "cut.json")
    assert caught.value.exit_code == 4
    known = name != "custom.json"  # three words that anybody's list may have
    assert not known or EXPECTED[name].tool in str(caught.value)
    assert "\n" not in str(caught.value) and "cut.json" in str(caught.value)


@pytest.mark.parametrize("name", ["go.txt", "go.jsonl"])
def test_a_text_that_is_cut_is_a_shorter_text(name: str, tmp_path: Path) -> None:
    """As of a job that was stopped: a case is missing, and that is not green."""
    text = (FILES / name).read_bytes()
    (tmp_path / "cut").write_bytes(text[: text.rindex(b"BenchmarkSum")])
    whole, cut = runs.side([FILES / name]), runs.side([tmp_path / "cut"])
    assert cut.tool == "go test" and cut.cases.keys() < whole.cases.keys()
    assert judge(whole, cut, Policy()).verdict != "pass"


def multiplied(name: str, factor: float) -> str:
    """The file with the expected case's times multiplied."""
    text, number = (FILES / name).read_text(), EXPECTED[name].number
    if number:
        return re.sub(number, lambda match: match[0].replace(match[1], repr(float(match[1]) * factor)), text)
    file = json.loads(text)
    for each in (*file.get("benchmarks", ()), *file.get("results", ())):
        for part in (each, *each.get("runs", ())):
            for key in ("values", "times"):
                part[key] = [factor * value for value in part.get(key, ())]
    return json.dumps(file)


def finding(verdict: Verdict, name: str) -> Finding:
    expected = EXPECTED[name]
    return next(
        each for each in verdict.findings if (each.case, each.metric) == (expected.case, expected.metric)
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_four_times_slower_is_a_regression_and_the_same_is_none(name: str, tmp_path: Path) -> None:
    """Two runs of one process each differ by what jobs differ by: 10 %, unless the policy knows."""
    (tmp_path / "head").write_text(multiplied(name, 4.0))
    (tmp_path / "near").write_text(multiplied(name, 1.0001))
    base = runs.side([FILES / name])
    worse = judge(base, runs.side([tmp_path / "head"]), Policy())
    assert finding(worse, name).verdict == "regression"
    assert finding(worse, name).ratio == pytest.approx(4.0, rel=0.01)
    same = judge(base, runs.side([tmp_path / "near"]), Policy())
    assert finding(same, name).verdict == "inconclusive" and same.verdict != "pass"
    assert finding(same, name).ratio == pytest.approx(1.0, abs=0.01)


def test_every_run_of_a_page_is_a_point_of_the_history(tmp_path: Path, capsys: Any) -> None:
    page = json.loads((FILES / "data.js").read_text().partition("=")[2])
    first = page["entries"]["Benchmark"][0]
    page["entries"]["Benchmark"] = [
        {
            **first,
            "commit": {**first["commit"], "id": f"{day:040x}"},
            "date": first["date"] + 86_400_000 * day,
            "benches": [{**first["benches"][0], "value": (100 if day < 20 else 150) + day % 3}],
        }
        for day in range(28)
    ]
    (tmp_path / "data.js").write_text("window.BENCHMARK_DATA = " + json.dumps(page))
    assert cli.status(["history", str(tmp_path / "data.js"), "--index", str(tmp_path / "index")]) == 1
    printed = capsys.readouterr().out
    assert f"{20:040x}"[:12] in printed and "sort: latency" in printed


def test_units_of_a_list_say_what_is_better() -> None:
    side = reading.read(FILES / "custom.json")[0]
    metrics = {name: next(iter(known.metrics.items())) for name, known in side.cases.items()}
    assert {name: (metric, sample.centre, sample.better) for name, (metric, sample) in metrics.items()} == {
        "sort": ("latency", 0.0125, "lower"),
        "size": ("memory", 4e6, "lower"),
        "score": ("figure", 50.0, "lower"),
        "rate": ("latency", pytest.approx(5e-4), "lower"),
    }


PYPERF = """import pyperf
runner = pyperf.Runner(processes=3, values=2, warmups=0, min_time=0.001)
runner.timeit("sum", "sum(x)", setup="x = list(range({size}))")
"""
GOOGLE = """import google_benchmark as benchmark
@benchmark.register
@benchmark.option.repetitions(5)
@benchmark.option.min_time(0.005)
def total(state):
    x = list(range({size}))
    while state:
        sum(x)
benchmark.main()
"""
ASV = """class Suite:
    def setup(self):
        self.x = list(range({size}))
    def time_sum(self):
        sum(self.x)
"""


def ran(*command: str, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def of_pyperf(folder: Path, size: int) -> Path:
    (folder / "bench.py").write_text(PYPERF.format(size=size))
    ran(sys.executable, "bench.py", "-o", f"{size}.json", "-q", folder=folder)
    return folder / f"{size}.json"


def of_google(folder: Path, size: int) -> Path:
    (folder / "bench.py").write_text(GOOGLE.format(size=size))
    ran(
        sys.executable,
        "bench.py",
        f"--benchmark_out={size}.json",
        "--benchmark_out_format=json",
        folder=folder,
    )
    return folder / f"{size}.json"


def of_asv(folder: Path, size: int) -> Path:
    place = folder / str(size)
    (place / "benchmarks").mkdir(parents=True)
    (place / "benchmarks" / "__init__.py").touch()
    (place / "benchmarks" / "bench.py").write_text(ASV.format(size=size))
    settings = {"version": 1, "project": "p", "repo": ".", "branches": ["HEAD"]}
    settings |= {"benchmark_dir": "benchmarks", "environment_type": "existing"}
    (place / "asv.conf.json").write_text(json.dumps(settings))
    git = ("git", "-c", "user.email=a@b", "-c", "user.name=a")
    ran(*git, "init", "-q", ".", folder=place)
    ran(*git, "add", "-A", folder=place)
    ran(*git, "commit", "-qm", "x", folder=place)
    asv = (sys.executable, "-m", "asv")
    ran(*asv, "machine", "--yes", "--config", "asv.conf.json", folder=place)
    ran(*asv, "run", "-E", "existing:same", "--set-commit-hash", "HEAD", "--quick", folder=place)
    files = [path for path in (place / "results").glob("*/*.json") if path.name != "machine.json"]
    assert len(files) == 1
    return files[0]


def of_hyperfine(folder: Path, size: int) -> Path:
    if shutil.which("hyperfine") is None:
        pytest.skip("hyperfine is not installed (Debian: apt-get install hyperfine)")
    command = f"{sys.executable} -c 'sum(range({size} * 1000))'"
    ran(
        "hyperfine", "-N", "--runs", "6", "-n", "sum", "--export-json", f"{size}.json", command, folder=folder
    )
    file = json.loads((folder / f"{size}.json").read_text())
    for each in file["results"]:
        each["command"] = "sum"  # as --command-name writes it from 1.16 on
    (folder / f"{size}.json").write_text(json.dumps(file))
    return folder / f"{size}.json"


@pytest.mark.parametrize("make", [of_pyperf, of_google, of_asv, of_hyperfine])
def test_what_the_tool_itself_writes_now_is_read_and_gated(
    make: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Twenty times the work: no noise hides it."""
    monkeypatch.setenv("HOME", str(tmp_path))  # asv notes its machines there
    small, large = make(tmp_path, 1_000), make(tmp_path, 20_000)
    arguments = ["gate", str(small), str(large), "--json", str(tmp_path / "verdict.json")]
    assert cli.status(arguments) == 1
    findings = json.loads((tmp_path / "verdict.json").read_text())["findings"]
    assert [each["verdict"] for each in findings if each["metric"] == "latency"] == ["regression"]


CRITERION = FILES / "criterion"


def messages(folder: Path) -> str:
    """What cargo criterion prints of the same measurements, by its documentation."""
    lines = ['{"reason":"group-complete"}', "Compiling sorting v0.1.0"]
    for path in sorted(folder.rglob("sample.json")):
        sample = json.loads(path.read_bytes())
        name = json.loads(path.with_name("benchmark.json").read_bytes())["full_id"]
        message = {"reason": "benchmark-complete", "id": name, "iteration_count": sample["iters"],
                   "measured_values": sample["times"], "unit": "ns"}  # fmt: skip
        lines.insert(1, json.dumps(message))
    return "\n".join(lines) + "\n"


def exported(folder: Path) -> str:
    """What critcmp --export writes of the same measurements, by its source."""
    benchmarks = {}
    for path in sorted(folder.rglob("estimates.json")):
        about = json.loads(path.with_name("benchmark.json").read_bytes())
        estimates = json.loads(path.read_bytes())
        benchmarks[about["full_id"]] = {"baseline": "new", "fullname": about["full_id"],
                                        "criterion_benchmark_v1": about,
                                        "criterion_estimates_v1": estimates}  # fmt: skip
    return json.dumps({"name": "new", "benchmarks": benchmarks})


def test_criterions_folder_its_messages_and_an_export_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "messages").write_text(messages(CRITERION))
    (tmp_path / "export").write_text(exported(CRITERION))
    sides = [runs.side([path]) for path in (CRITERION, tmp_path / "messages", tmp_path / "export")]
    for side in sides:
        assert side.tool == "criterion" and side.cases.keys() == {"lists/sort", "lists/sum"}
        assert side.cases["lists/sort"].metrics["latency"].centre == pytest.approx(458e-9, rel=0.02)
    alone = runs.side([CRITERION / "lists" / "sort" / "new" / "estimates.json"])
    assert alone.cases.keys() == {"lists/sort"}


def test_criterions_folder_is_gated(tmp_path: Path) -> None:
    shutil.copytree(CRITERION, tmp_path / "head")
    sample = tmp_path / "head" / "lists" / "sort" / "new" / "sample.json"
    content = json.loads(sample.read_bytes())
    sample.write_text(json.dumps({**content, "times": [3 * time for time in content["times"]]}))
    assert (
        cli.status(["gate", str(CRITERION), str(tmp_path / "head"), "--json", str(tmp_path / "v.json")]) == 1
    )
    findings = json.loads((tmp_path / "v.json").read_text())["findings"]
    assert {each["case"]: each["verdict"] for each in findings} == {
        "lists/sort": "regression",
        "lists/sum": "inconclusive",
    }


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def page(runs_of: dict[str, list[tuple[str, int, list[dict[str, Any]]]]], tool: str = "cargo") -> str:
    """A data.js: suite -> commit, date and benches of each run."""
    entries = {
        suite: [{"commit": {"id": commit}, "date": date, "tool": tool, "benches": benches}
                for commit, date, benches in each]
        for suite, each in runs_of.items()
    }  # fmt: skip
    return "window.BENCHMARK_DATA = " + json.dumps({"entries": entries})


def test_suites_that_are_pushed_one_after_the_other_are_one_run(tmp_path: Path) -> None:
    bench = {"name": "t", "value": 1.0, "unit": "ms"}
    text = page({"A": [("c1", 1000, [bench])], "B": [("c1", 2000, [bench])]})
    (side,) = reading.read(written(tmp_path / "data.js", text))
    assert side.cases.keys() == {"A/t", "B/t"}


@pytest.mark.parametrize(
    ("tool", "better"), [("customSmallerIsBetter", "lower"), ("customBiggerIsBetter", "higher")]
)
def test_what_is_better_is_what_the_action_was_told(tool: str, better: str, tmp_path: Path) -> None:
    text = page({"A": [("c1", 1, [{"name": "t", "value": 10.0, "unit": "errors/s"}])]}, tool)
    ((metric, sample),) = reading.read(written(tmp_path / "data.js", text))[0].cases["t"].metrics.items()
    assert (metric, sample.unit, sample.better) == ("figure", "errors/s", better)


def test_repeated_entries_are_one_process_and_a_range_of_pytest_is_a_share(tmp_path: Path) -> None:
    repeated = [{"name": "t", "value": 100.0 + each, "unit": "ns/op"} for each in range(5)]
    pytests = {"name": "p", "value": 50_000.0, "unit": "iter/sec", "range": "stddev: 0.00002"}
    null = {"name": "n", "value": None, "unit": "ns"}
    text = page({"A": [("c1", 1, [*repeated, pytests, null])]})
    cases = reading.read(written(tmp_path / "data.js", text))[0].cases
    assert cases["t"].metrics["latency"].freedom == 4
    assert cases["p"].metrics["latency"].error == pytest.approx(1.0)
    assert cases["n"].status == "unreadable" and cases["n"].reason


GO = "goos: linux\ngoarch: amd64\npkg: p\ncpu: Xeon\n"


def test_go_names_and_failures(tmp_path: Path) -> None:
    def cases(text: str) -> dict[str, Known]:
        return reading.read(written(tmp_path / "go.txt", GO + text))[0].cases

    sizes = cases("BenchmarkY/size-100  10  5 ns/op\nBenchmarkY/size-200  10  9 ns/op\n")
    assert sizes.keys() == {"p.Y/size-100", "p.Y/size-200"}
    assert cases("BenchmarkX-8  10  5 ns/op\nBenchmarkZ-8  10  5 ns/op\n").keys() == {"p.X", "p.Z"}
    cut = "BenchmarkX-8  10  5 ns/op\nBenchmarkX-8  \t--- FAIL: BenchmarkX-8\n"
    assert {name: known.status for name, known in cases(cut).items()} == {"p.X": "failed"}
    own = cases("BenchmarkN-8  10  7.5 widgets\n")["p.N"].metrics
    assert own["figure"].unit == "widgets" and own["figure"].centre == 7.5


def google(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"context": {"num_cpus": 2}, "benchmarks": list(rows)}


def test_google_rows_that_are_no_times_and_names_of_an_earlier_version(tmp_path: Path) -> None:
    time = {"name": "BM/8", "run_name": "BM/8", "run_type": "iteration", "real_time": 5.0, "time_unit": "ns"}
    order = {"name": "BM_BigO", "run_name": "BM", "run_type": "aggregate", "aggregate_name": "BigO",
             "real_coefficient": 1.0, "big_o": "N", "time_unit": "ns"}  # fmt: skip
    cases = reading.read(written(tmp_path / "a", google(time, order)))[0].cases
    assert cases.keys() == {"BM/8"} and cases["BM/8"].good
    old = [{"name": f"BM_{kind}", "real_time": value, "time_unit": "ns", "iterations": 1}
           for kind, value in (("mean", 10.0), ("median", 10.0), ("stddev", 1.0))]  # fmt: skip
    (known,) = reading.read(written(tmp_path / "b", google(*old)))[0].cases.values()
    assert known.case == "BM" and known.metrics["latency"].centre == pytest.approx(10e-9)
    wrong = {**time, "name": "W", "run_name": "W", "real_time": "soon"}
    cases = reading.read(written(tmp_path / "c", google(time, wrong)))[0].cases
    assert cases["W"].status == "unreadable" and cases["BM/8"].good


def test_hyperfine_without_memory_and_with_a_bad_command(tmp_path: Path) -> None:
    fine = {"command": "a", "times": [0.1, 0.2, 0.15], "memory_usage_byte": [0, 0, 0]}
    cases = reading.read(written(tmp_path / "h", {"results": [fine, {"command": "b", "times": [None]}]}))[
        0
    ].cases
    assert cases["a"].good and cases["a"].metrics.keys() == {"latency"}
    assert cases["b"].status == "unreadable"


def test_a_damaged_measurement_of_criterion_takes_no_other_along(tmp_path: Path) -> None:
    shutil.copytree(CRITERION, tmp_path / "c")
    (tmp_path / "c" / "lists" / "sort" / "new" / "sample.json").write_text("{")
    side = runs.side([tmp_path / "c"])
    assert sorted(known.status for known in side.cases.values()) == ["ok", "unreadable"]
    shutil.copytree(CRITERION, tmp_path / "copy")
    assert cli.status(["gate", str(CRITERION), str(tmp_path / "copy")]) == 2


@pytest.mark.parametrize(
    "content",
    [
        {"machine_info": {}, "benchmarks": [{"fullname": "a", "stats": {"mean": 1.0, "rounds": 3},
                                             "extra_info": {"n": 10**400}}]},
        google({"name": "a", "run_type": "iteration", "real_time": 5.0, "items": 10**400}),
    ],
)  # fmt: skip
def test_a_number_beyond_any_float_is_left_out(content: Any, tmp_path: Path) -> None:
    (known,) = reading.read(written(tmp_path / "x", content))[0].cases.values()
    assert known.good and not known.extras


def test_a_file_that_nobody_claims_is_refused_at_once(tmp_path: Path) -> None:
    """Planted: a pattern that tries every end for every beginning takes minutes for this."""
    start = time.monotonic()
    for text in ('{"schema":1111111 "' * 20_000, '{"environment": ' * 20_000):
        with pytest.raises(Misuse):
            reading.read(written(tmp_path / "x", text))
    assert time.monotonic() - start < 20


def test_names_that_are_alike_for_long_are_two(tmp_path: Path) -> None:
    file = json.loads((FILES / "asv.json").read_text())
    long = "x" * 400
    file["results"] = {"b.time_x": [[1.0, 2.0], [[long + "1", long + "2"]]]}
    assert len(reading.read(written(tmp_path / "asv.json", file))[0].cases) == 2
