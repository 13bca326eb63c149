"""`hotlap gate` and `hotlap history` as a CI job runs them: files in, files out, exit status."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from hotlap.perf import cli

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(name: str, mean: float) -> str:
    """A pytest-benchmark file with one benchmark of 1 % noise."""
    rng = random.Random(name)
    data = [mean * math.exp(rng.gauss(0, 0.01)) for _ in range(64)]
    stats = {"mean": mean, "median": mean, "stddev": 0.01 * mean, "rounds": 64, "data": data}
    Path(name).write_text(
        json.dumps(
            {
                "machine_info": {"node": "one"},
                "benchmarks": [{"name": "t", "fullname": "bench/t.py::t", "stats": stats}],
            }
        )
    )
    return name


def test_a_regression_exits_1_and_writes_every_format(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    arguments = [
        "--json",
        "v.json",
        "--junit",
        "v.xml",
        "--sarif",
        "v.sarif",
        "--markdown",
        "v.md",
        "--github",
    ]
    assert cli.status(["gate", written("a.json", 0.01), written("b.json", 0.02), *arguments]) == 1
    printed = capsys.readouterr().out
    assert (
        "::error file=bench/t.py,line=1,title=hotlap gate::bench/t.py::t: latency 10.0 ms -> 20.0 ms, +100.0%"
        in printed
    )
    assert printed.splitlines()[-1] == "gate: regression (0 of 1 findings passed)"
    assert json.loads(Path("v.json").read_text())["verdict"] == "regression"
    assert "<failure" in Path("v.xml").read_text() and "2.1.0" in Path("v.sarif").read_text()
    assert Path("v.md").read_text() == Path("summary.md").read_text()


def test_exit_statuses(capsys: Captured) -> None:
    base = written("a.json", 0.01)
    Path("calm.toml").write_text("between_jobs_sd = 0.0\n")
    assert cli.status(["gate", base, written("b.json", 0.01), "--policy", "calm.toml"]) == 0
    assert cli.status(["gate", base, written("b.json", 0.0101)]) == 3
    Path("cut.json").write_text(Path(base).read_text()[:-9])
    for bad, code in (("cut.json", 4), ("absent.json", 2)):
        assert cli.status(["gate", base, bad]) == code
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and bad in error
    Path("wrong.toml").write_text("alhpa = 1\n")
    assert cli.status(["gate", base, base, "--policy", "wrong.toml"]) == 2
    for unwritable in ("no/such/folder.json", "."):
        assert cli.status(["gate", base, base, "--json", unwritable]) == 2


@pytest.mark.parametrize("option", ["--json", "--junit", "--sarif", "--markdown"])
def test_a_file_that_cannot_be_written_hides_no_regression(option: str, capsys: Captured) -> None:
    base, slow = written("a.json", 0.01), written("b.json", 0.02)
    Path("calm.toml").write_text("between_jobs_sd = 0.0\n")
    assert cli.status(["gate", base, slow, option, "no/such/folder"]) == 1
    out, error = capsys.readouterr()
    assert out.endswith("gate: regression (0 of 1 findings passed)\n")
    assert error.startswith("hotlap: cannot write no/such/folder") and error.count("\n") == 1
    same = written("c.json", 0.01)
    assert cli.status(["gate", base, same, "--policy", "calm.toml", option, "no/such/folder"]) == 2


def test_a_name_from_a_file_is_no_command_to_the_ci_system(capsys: Captured) -> None:
    for name, mean in (("a.json", 0.01), ("b.json", 0.02)):
        content = json.loads(Path(written(name, mean)).read_text())
        content["benchmarks"][0]["fullname"] = "::error::x\n::stop-commands::y\x1b[31m"
        Path(name).write_text(json.dumps(content))
    assert cli.status(["gate", "a.json", "b.json"]) == 1
    output = capsys.readouterr().out
    assert not any(line.lstrip().startswith("::") for line in output.splitlines()) and "\x1b" not in output


def test_gate_toml_of_the_working_directory_is_the_policy() -> None:
    Path("gate.toml").write_text("inconclusive = 'pass'\n")
    assert cli.status(["gate", written("a.json", 0.01), written("b.json", 0.0101)]) == 0


def test_a_verdict_of_another_command_joins(capsys: Captured) -> None:
    Path("calm.toml").write_text("between_jobs_sd = 0.0\n")
    Path("kernels.json").write_text(
        '{"schema": 1, "tool": "kernels", "verdict": "regression", "reasons": ["spills"], "findings": []}'
    )
    sides = written("a.json", 0.01), written("b.json", 0.01)
    assert cli.status(["gate", *sides, "--policy", "calm.toml", "--with", "kernels.json"]) == 1
    assert "note: kernels: spills" in capsys.readouterr().out


def test_stdout_holds_nothing_but_what_was_asked_for(capsys: Captured) -> None:
    cli.status(["gate", written("a.json", 0.01), written("b.json", 0.02), "--json", "-"])
    assert json.loads(capsys.readouterr().out)["tool"] == "gate"


def test_history_finds_the_row_where_the_level_changed(capsys: Captured) -> None:
    rng = random.Random(1)
    lines = [
        "Index,Time",
        *(f"{row},{(1.0 if row < 60 else 1.3) * math.exp(rng.gauss(0, 0.01))}" for row in range(100)),
    ]
    Path("times.csv").write_text("\n".join(lines))
    assert cli.status(["history", "--csv", "times.csv", "--column", "Time", "--json", "-"]) == 0
    (change,) = json.loads(capsys.readouterr().out)["change_points"]
    assert change["index"] == 60 and change["effect"] == pytest.approx(0.3, abs=0.02)
    assert cli.status(["history", "--csv", "times.csv", "--column", "Time"]) == 0
    assert capsys.readouterr().out.startswith("row 61: +")


@pytest.mark.parametrize(
    ("content", "column", "code", "words"),
    [
        ("a,b\n1,2\n", "c", 2, "unknown column"),
        ("a\nx\n", "a", 4, "row 2 has no number"),
        ("a\n", "a", 0, ""),
        ("", "a", 2, "unknown column"),
        ("a\n" + "1\n" * 20 + "-1\n", "a", 0, ""),
        ("a\n-1\n0\n", "a", 4, "row 2 has no measurement"),
        ("a,b\n1\n", "b", 4, "no number"),
    ],
)
def test_a_series_that_cannot_be_read_is_one_line(
    content: str, column: str, code: int, words: str, capsys: Captured
) -> None:
    Path("x.csv").write_text(content)
    assert cli.status(["history", "--csv", "x.csv", "--column", column]) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == (code != 0)
    assert cli.status(["history", "--csv", "absent.csv", "--column", column]) == 2


def test_a_file_against_itself_is_no_pass(capsys: Captured) -> None:
    """As where a CI job names one path twice, or links the new results to the old ones."""
    Path("b.json").symlink_to(written("a.json", 0.01))
    for head in ("a.json", "b.json"):
        assert cli.status(["gate", "a.json", head]) == 2
        assert "are one file" in capsys.readouterr().err
