"""Two revisions of a real repository through the whole command, and a worktree beside an editable
install.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotlap.perf import cli
from hotlap.perf.gate import judge, ledger
from hotlap.perf.gate.ab import ABRun, write_results
from hotlap.perf.gate.duel import Duel
from hotlap.perf.gate.ledger import SelfRace
from hotlap.perf.gate.policy import Policy
from hotlap.perf.gate.revisions import Revision, Revisions, git, readable
from hotlap.perf.lookup import plugins
from hotlap.perf.machine import survey
from hotlap.perf.race.entrant import Entrant
from hotlap.perf.race.handle import Worker
from hotlap.perf.race.messages import Preload, TraceSource
from hotlap.perf.race.observations import Block, Observations
from hotlap.perf.race.origin import Origin
from hotlap.perf.race.race import Race
from hotlap.perf.race.timing import Turn, WarmUp
from hotlap.perf.readers import runs
from hotlap.perf.stats import compare
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Misuse, Reason
from hotlap.perf.terms.result import encode, read
from hotlap.perf.terms.verdict import Finding, Verdict
from hotlap.perf.terms.work import Subject, Work

ROOT = Path(__file__).resolve().parents[3]
MODELS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(128, 128) for _ in range(4)])

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x)){slower}
        return x


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(16, 128)
"""
SLOWER = " + 0 * torch.tanh(x @ layer.weight)"


def commit(message: str) -> str:
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", message], check=True
    )
    return git(Path(), "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's repository with one commit, whose working copy is in front of the path, as an
    editable install would have it and more so.
    """
    folder = tmp_path / "repository"
    (folder / "lap_pkg").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    )
    monkeypatch.delenv("HOTLAP_RUNS", raising=False)
    subprocess.run(["git", "init", "-q", "."], check=True)
    Path(".gitignore").write_text("runs/\n")
    Path("lap_pkg/__init__.py").write_text("")
    Path("lap_pkg/models.py").write_text(MODELS.replace("{slower}", ""))
    commit("first")
    return folder


QUICKLY = ("--threads", "1", "--budget", "90s", "--target", "cpu")


def ab(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hotlap.perf.cli", "ab", *arguments, *QUICKLY]
    return subprocess.run(command, capture_output=True, text=True, timeout=540, check=False)


@pytest.mark.slow
def test_a_slower_revision_is_a_confirmed_regression_and_names_its_cause(repository: Path) -> None:
    Path("lap_pkg/models.py").write_text(MODELS.replace("{slower}", SLOWER))
    commit("slower")
    Path("lap_pkg/models.py").write_text("raise RuntimeError('the working copy must not be loaded')\n")
    done = ab("HEAD~1", "HEAD", "lap_pkg.models:make", "--json", "verdict.json", "--out", "out")
    assert done.returncode == 1, done.stderr
    verdict = json.loads(Path("verdict.json").read_text())
    findings = {finding["metric"]: finding for finding in verdict["findings"]}
    assert (verdict["tool"], verdict["verdict"]) == ("ab", "regression")
    assert findings["latency"]["verdict"] == "regression" and findings["latency"]["low"] > 1.03
    assert any("confirmed on" in text for text in findings["latency"]["evidence"])
    assert any("with operators" in text for text in findings["latency"]["evidence"])
    # Which operator it is can drown in noise; that profiles were taken cannot.
    assert any("profiles" in text for text in findings["latency"]["evidence"])
    profiles = sorted(path.name.partition("-lap_pkg")[0] for path in Path("out").glob("*.json.gz"))
    assert profiles == ["base-1", "base-2", "head-1", "head-2"]
    assert any(reason.startswith("again: hotlap ab ") for reason in verdict["reasons"])
    assert any("chance of a false alarm 5%; took" in reason for reason in verdict["reasons"])
    assert findings["operators"]["verdict"] == "regression" and findings["memory"]["verdict"] == "pass"
    assert findings["outputs"]["verdict"] == "pass"
    assert (
        findings["latency"]["place"] == {"file": "lap_pkg/models.py"}
        or findings["latency"]["place"]["file"] == "lap_pkg/models.py"
    )
    assert len(git(Path(), "worktree", "list").splitlines()) == 1
    assert cli.status(["gate", "out/base.json", "out/head.json"]) == 1


@pytest.mark.slow
def test_another_answer_is_a_regression_until_the_policy_accepts_it(repository: Path) -> None:
    """It is as fast, as large and as many operators."""
    Path("lap_pkg/models.py").write_text(
        MODELS.replace("{slower}", "").replace("torch.relu", "torch.nn.functional.softplus")
    )
    commit("another activation")
    Path("gate.toml").write_text("tolerance.latency = 10\n")
    done = ab("HEAD~1", "HEAD", "lap_pkg.models:make", "--json", "verdict.json")
    assert done.returncode == 1, done.stderr
    findings = {each["metric"]: each for each in json.loads(Path("verdict.json").read_text())["findings"]}
    assert {name for name, each in findings.items() if each["verdict"] != "pass"} == {"outputs"}
    apart, accepting = findings["outputs"]["evidence"]
    assert apart.startswith("outputs differ: rmse ") and "on real inputs" in apart
    assert apart in done.stdout and accepting in done.stdout
    line = accepting.partition("gate.toml: ")[2].partition(" (")[0]
    Path("gate.toml").write_text(f"tolerance.latency = 10\n{line}\n")
    assert ab("HEAD~1", "HEAD", "lap_pkg.models:make").returncode == 0


LARGER = """

class Larger(Net):
    def __init__(self):
        super().__init__()
        # 96 MB: more than 10 % of a worker's peak
        self.register_buffer("table", torch.ones(24_000_000), persistent=False)


def larger():
    torch.manual_seed(0)
    return Larger(), torch.randn(16, 128)
"""


@pytest.mark.slow
def test_a_tenth_more_memory_is_a_confirmed_regression(repository: Path) -> None:
    Path("lap_pkg/models.py").write_text(MODELS.replace("{slower}", "") + LARGER)
    # Its latency is decided at the first look: it is not what this is about.
    Path("gate.toml").write_text("[tolerance]\nlatency = 0.5\n")
    done = ab("lap_pkg.models:make", "lap_pkg.models:larger", "--json", "verdict.json")
    assert done.returncode == 1, done.stderr
    findings = json.loads(Path("verdict.json").read_text())["findings"]
    (memory,) = (finding for finding in findings if finding["metric"] == "memory")
    assert memory["verdict"] == "regression" and 1.08 < memory["ratio"] < 1.3
    assert any("confirmed in 3 more fresh workers a side" in text for text in memory["evidence"])


@pytest.mark.slow
def test_a_change_of_nothing_that_is_measured_passes_and_says_so(repository: Path) -> None:
    Path("README").write_text("words\n")
    models = Path("lap_pkg/models.py")
    models.write_text("# A comment, and one blank line more.\n\n" + models.read_text())
    commit("words")
    done = ab("HEAD~1", "HEAD", "lap_pkg.models:make", "--json", "verdict.json", "--markdown", "comment.md")
    assert done.returncode == 0, done.stderr
    assert "the answers of head" in done.stderr and "building" not in done.stderr
    verdict = json.loads(Path("verdict.json").read_text())
    assert verdict["reasons"][0].startswith("nothing measured changed: the 2 files that the cases load hold")
    assert [finding["metric"] for finding in verdict["findings"]] == ["outputs"]
    assert (
        "nothing measured changed" in done.stdout
        and "nothing measured changed" in Path("comment.md").read_text()
    )


def test_a_file_that_a_model_might_read_is_no_reason_to_time_nothing(repository: Path) -> None:
    """Planted: a setting beside the code that may make it slower and changes no answer."""
    base = git(Path(), "rev-parse", "HEAD")
    Path("README").write_text("words\n")
    Path("page.md").write_text("words\n")
    Path("lap_pkg/other.py").write_text("")
    words = commit("words")
    assert readable(repository, base, words) == []
    Path("lap_pkg/settings.yaml").write_text("slow: true\n")
    assert readable(repository, words, "") == ["lap_pkg/settings.yaml"]
    assert readable(repository, base, commit("a setting")) == ["lap_pkg/settings.yaml"]


@pytest.mark.slow
def test_weights_that_changed_are_a_change_although_no_code_did(repository: Path) -> None:
    """Planted: a file of numbers beside the code, which no import knows."""
    scale = MODELS.replace("{slower}", "").replace(
        "return x\n", "return x * float(open(__file__.replace('models.py', 'scale.txt')).read())\n"
    )
    Path("lap_pkg/models.py").write_text(scale)
    Path("lap_pkg/scale.txt").write_text("1")
    commit("a scale")
    Path("lap_pkg/scale.txt").write_text("3")
    commit("another scale")
    done = ab("HEAD~1", "HEAD", "lap_pkg.models:make", "--json", "verdict.json")
    assert done.returncode == 1, done.stderr
    findings = {each["metric"]: each for each in json.loads(Path("verdict.json").read_text())["findings"]}
    assert findings["outputs"]["verdict"] == "regression" and findings["outputs"]["head"] == pytest.approx(2)
    assert "latency" in findings


@pytest.mark.slow
def test_code_from_the_working_copy_is_refused(repository: Path) -> None:
    """The planted mistake: a revision that reaches around its worktree, so that both sides would
    run the same file.
    """
    Path("helper.py").write_text("SIZE = 16\n")
    text = MODELS.replace("{slower}", "").replace(
        "import torch\n",
        f"import sys\n\nimport torch\n\nsys.path.insert(0, {str(repository)!r})\nimport helper\n",
        1,
    )
    Path("lap_pkg/models.py").write_text(text)
    commit("reaches around")
    done = ab("HEAD~1", "HEAD", "lap_pkg.models:make")
    assert done.returncode == 2
    assert "helper.py came from the working copy" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_revision_that_cannot_be_loaded_is_a_regression(repository: Path) -> None:
    Path("lap_pkg/models.py").write_text(MODELS.replace("{slower}", "") + "\nraise RuntimeError('planted')\n")
    commit("broken")
    done = ab("HEAD~1", "HEAD", "lap_pkg.models:make")
    assert done.returncode == 1
    assert "presence" in done.stdout and "planted" in done.stdout


def environment_with(folder: Path, version: int, slower: str = "", libraries: bool = True) -> Path:
    """A real virtual environment without hotlap: torch and the rest from where these tests run, and
    a package of its own.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    if libraries:
        (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "lap_library.py").write_text(MODELS.replace("{slower}", slower))
    information = site / f"lap_library-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: lap-library\nVersion: {version}\n")
    return folder


@pytest.mark.slow
def test_two_installed_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither has hotlap, and both run the running one's timing loop.

    One block of fresh workers: memory is not what this is about.
    """
    monkeypatch.setattr("hotlap.perf.commands.ab.FRESH_BLOCKS", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOTLAP_RUNS", raising=False)
    environment_with(tmp_path / "old", 1)
    environment_with(tmp_path / "new", 2, SLOWER)
    (tmp_path / "my_workload.py").write_text("from lap_library import make\n")
    sides = ["old", "new/bin/python", "my_workload:make"]
    assert cli.status(["ab", *sides, *QUICKLY, "--json", "verdict.json", "--out", "out"]) == 1
    verdict = json.loads(Path("verdict.json").read_text())
    findings = {finding["metric"]: finding for finding in verdict["findings"]}
    assert findings["latency"]["verdict"] == findings["operators"]["verdict"] == "regression"
    assert findings["latency"]["low"] > 1.03
    assert "lap-library 1 -> 2" in verdict["reasons"][0]
    assert cli.status(["gate", "out/base.json", "out/head.json"]) == 1


@pytest.mark.parametrize(
    ("sides", "words"),
    [
        (("bare", "bare"), "lacks msgspec, numpy, torch"),
        (("same", "same"), "both sides are the environment"),
        (("same", "HEAD"), "environment and revision"),
    ],
)
def test_environments_that_cannot_be_compared_are_one_line(
    sides: tuple[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    environment_with(tmp_path / "bare", 1, libraries=False)
    environment_with(tmp_path / "same", 1)
    assert cli.status(["ab", *sides, "my_workload:make", "--out", "out"]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1


def test_an_interpreter_that_does_not_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("#!/bin/false\n")
    (tmp_path / "bin" / "python").chmod(0o755)
    with pytest.raises(Misuse, match="is no Python"):
        Revisions(tmp_path).open("base", str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope", "HEAD", "lap_pkg.models:make"], "'nope' is no revision"),
        (["HEAD", "HEAD"], "name a workload"),
        (["HEAD", "lap_pkg.models:make"], "different kinds"),
        (["lap_pkg.models:make", "lap_pkg.models:make", "mlp"], "leave the third argument out"),
        (["HEAD", "HEAD", "lap_pkg.models:make", "--case", "vit/*"], "no case matches vit/*"),
        (["HEAD", "HEAD", "lap_pkg.models:make", "--policy", "absent.toml"], "no such policy"),
        (["HEAD", "HEAD", "lap_pkg.models:make", "--out", ".gitignore"], "choose another --out"),
        (["HEAD", "HEAD", "lap_pkg.models:make", "--backends", "pace"], "does no work of the model"),
        (["HEAD", "HEAD", "lap_pkg.models:make", "--precisions", "tf32"], "tf32 is a mode of NVIDIA"),
    ],
)
def test_usage_errors_are_one_line(
    repository: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.status(["ab", *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1
    assert len(git(Path(), "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["-x", "--output=planted", "--upload-pack=planted", "main;touch${IFS}planted"]
)
def test_a_branch_may_have_any_name_and_is_never_an_option(
    name: str, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = git(Path(), "rev-parse", "HEAD")
    git(Path(), "update-ref", f"refs/heads/{name}", head)
    revisions = Revisions(tmp_path / "out")
    try:
        side = revisions.open("base", name)
        assert side.sha == head and (tmp_path / "out/trees/base/lap_pkg/models.py").is_file()
    finally:
        revisions.close()
    git(Path(), "update-ref", "-d", f"refs/heads/{name}")
    assert cli.status(["ab", "--out", "out", "--", name, "HEAD", "lap_pkg.models:make"]) == 2
    assert f"{name!r} is no revision of repository" in capsys.readouterr().err
    assert not [path for path in repository.rglob("*planted*") if ".git" not in path.parts]
    assert len(git(Path(), "worktree", "list").splitlines()) == 1


@pytest.mark.parametrize(
    "name", ["HEAD^{tree}", "HEAD HEAD", "a..b", "", "x\0y", "\udcff", "--all", "--git-dir"]
)
def test_what_is_no_commit_is_no_revision(name: str, repository: Path) -> None:
    with pytest.raises(Misuse, match="is no revision"):
        Revisions(repository).open("base", name)


def comparison(folder: Path, ratios: list[float], sha: str = "s") -> ABRun:
    """Of one case whose two sides have seen samples with these ratios a block; no process is
    started.
    """
    nothing: Any = None
    case = Case("w", "eager")
    entrants = []
    for factor in ([1.0] * len(ratios), ratios):
        seen = Observations(case, {}, Subject(Work(0, 1, 1, 1, "row", True), ""))
        for value in factor:
            turns = [Turn(value, value, 1, value, 0, 0, 0)] * 3
            seen.blocks.append(
                Block(
                    False,
                    0.0,
                    0.0,
                    0.0,
                    1,
                    1,
                    1,
                    WarmUp(1, True, 0.0, value),
                    turns,
                    [1, 2, 3],
                    priority="raised",
                )
            )
        entrants.append(
            Entrant(case, plugins.backend("eager"), [], {}, folder, folder, folder, seen, nothing)
        )
    revisions = Revision("base", Origin("base"), "b"), Revision("head", Origin("head"), sha)
    run = ABRun(*revisions, Policy(), Plan(), folder, survey.collect(1, "keep"), lambda text: None)
    race = Race(entrants, run.plan, nothing, lambda text: None, lambda: None)
    run.duels.append(Duel(case, race, 0.03, blocks=len(ratios)))
    return run


SLOW = [1.2, 1.21, 1.19, 1.2, 1.22, 1.18]


def latency(verdict: Verdict) -> Finding:
    return next(finding for finding in verdict.findings if finding.metric == "latency")


def test_six_blocks_decide_and_five_do_not(tmp_path: Path) -> None:
    for ratios, verdict in (
        (SLOW, "regression"),
        ([1.0, 1.001, 0.999] * 2, "pass"),
        (SLOW[:5], "inconclusive"),
    ):
        run = comparison(tmp_path, ratios)
        run.judge(len(ratios))
        assert latency(run.conclude(tmp_path / "aa.jsonl")).verdict == verdict


def test_the_gate_keeps_the_pairs_of_the_files_that_ab_wrote(tmp_path: Path) -> None:
    """A machine that drifts by as much as half: blocks of one race share it."""
    ratios = [1.1, 1.12, 1.09, 1.1, 1.11, 1.08]
    run = comparison(tmp_path, ratios)
    base, head = run.duels[0].sides
    for block, drift in enumerate((1.0, 1.5, 0.8, 1.2, 0.7, 1.4)):
        for entrant in (base, head):
            turns = [
                msgspec.structs.replace(turn, call_s=drift * turn.call_s)
                for turn in entrant.seen.blocks[block].turns
            ]
            entrant.seen.blocks[block].turns = turns
    run.judge(len(ratios))
    ours = latency(run.conclude(tmp_path / "aa.jsonl"))
    write_results(tmp_path, run)
    both = runs.side([tmp_path / "base.json"]), runs.side([tmp_path / "head.json"])
    theirs = latency(judge.judge(*both, Policy()))
    assert (
        (theirs.verdict, theirs.ratio)
        == (ours.verdict, pytest.approx(ours.ratio))
        == ("regression", theirs.ratio)
    )
    assert (theirs.low, theirs.high) == (pytest.approx(ours.low), pytest.approx(ours.high))
    assert theirs.evidence[0] == "6 blocks that both sides share"
    # Of another race of ab only the spread of the blocks is known.
    later = msgspec.structs.replace(read(tmp_path / "head.json"), started="2026-01-01T00:00:00Z")
    (tmp_path / "later.json").write_bytes(encode(later))
    apart = latency(judge.judge(both[0], runs.side([tmp_path / "later.json"]), Policy()))
    assert apart.verdict == "inconclusive"


@pytest.mark.parametrize(("again", "verdict"), [(300e6, "inconclusive"), (345e6, "regression")])
def test_memory_that_grew_must_have_grown_in_fresh_workers_too(
    again: float, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(entrant: Entrant, peak: float) -> None:
        turns = [Turn(1.0, 1.0, 1, 1.0, 0, 0, 0)] * 3
        entrant.seen.blocks.append(
            Block(
                True,
                1.0,
                1.0,
                1.0,
                1,
                1,
                1,
                WarmUp(1, True, 0.0, 1.0),
                turns,
                [1, 2, 3],
                run_peak_bytes=int(peak),
                priority="raised",
            )
        )

    run = comparison(tmp_path, [])
    run.plan = Plan(fresh_blocks=3)
    duel = run.duels[0]
    for number in range(3):
        for entrant, peak in zip(duel.sides, (300e6, 345e6), strict=True):
            fresh(entrant, peak + 1e5 * number)
    duel.blocks = 3
    monkeypatch.setattr(
        Race,
        "block",
        lambda race, number, *rest: [
            fresh(entrant, peak + 1e5 * number)
            for entrant, peak in zip(race.entrants, (300e6, again), strict=True)
        ],
    )
    run.confirm_memory(math.inf)
    findings = run.conclude(tmp_path / "aa.jsonl").findings
    (memory,) = (finding for finding in findings if finding.metric == "memory")
    assert memory.verdict == verdict and "confirmed in 3 more fresh workers" in str(memory.evidence)


class Raced:
    """Gives both sides a block of a second whenever the race is asked for one. unsteady: in how
    many first ones the warm-up did not end.
    """

    def __init__(self, run: ABRun, unsteady: int) -> None:
        self.race, self.unsteady, self.now = run.duels[0].race, unsteady, 0.0

    def block(self, number: int, *rest: Any) -> None:
        self.now += 1.0
        for entrant, time in zip(self.race.entrants, (1.0, SLOW[number % len(SLOW)]), strict=True):
            turns = [Turn(time, time, 1, time, 0, 0, 0)] * 3
            warm = WarmUp(1, number >= self.unsteady, 0.0, time)
            entrant.seen.blocks.append(
                Block(False, 0.0, 0.0, 0.0, 1, 1, 1, warm, turns, [1, 2, 3], priority="raised")
            )


def raced(folder: Path, monkeypatch: pytest.MonkeyPatch, unsteady: int) -> tuple[ABRun, Raced]:
    """A comparison whose race is planted, by a clock of its own."""
    run = comparison(folder, [])
    planted = Raced(run, unsteady)
    monkeypatch.setattr(run.duels[0].race, "block", planted.block)
    monkeypatch.setattr("hotlap.perf.gate.duel.time.monotonic", lambda: planted.now)
    return run, planted


def test_a_regression_is_confirmed_however_slow_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, planted = raced(tmp_path, monkeypatch, 0)
    run.decide(0.0)
    run.confirm(planted.now)
    finding = latency(run.conclude(tmp_path / "aa.jsonl"))
    assert run.duels[0].blocks == 12 and finding.verdict == "regression"
    assert any("confirmed on 6 fresh blocks" in text for text in finding.evidence)


@pytest.mark.parametrize(
    ("unsteady", "blocks", "verdict"), [(2, 6, "regression"), (3, 9, "regression"), (99, 16, "inconclusive")]
)
def test_a_race_whose_sides_were_not_steady_goes_on(
    unsteady: int, blocks: int, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = raced(tmp_path, monkeypatch, unsteady)
    run.decide(math.inf)
    assert run.duels[0].blocks == blocks
    assert latency(run.conclude(tmp_path / "aa.jsonl")).verdict == verdict


def test_blocks_between_two_looks_decide_nothing(tmp_path: Path) -> None:
    run = comparison(tmp_path, [*SLOW, 1.2])
    run.judge(9)
    assert latency(run.conclude(tmp_path / "aa.jsonl")).verdict == "inconclusive"


def test_a_look_that_the_level_was_not_solved_for_decides_nothing(tmp_path: Path) -> None:
    duel = comparison(tmp_path, SLOW).duels[0]
    each = compare.level(0.05)
    assert duel.judged(each, each).verdict == "regression"
    assert duel.judged((each[0], (9, 12, 16)), each).verdict == "inconclusive"


@pytest.mark.parametrize(("side", "verdict"), [(0, "inconclusive"), (1, "regression")])
def test_a_side_that_dies_is_never_green(side: int, verdict: str, tmp_path: Path) -> None:
    run = comparison(tmp_path, SLOW[:4])
    run.duels[0].sides[side].refusal = Reason("crashed", "planted")
    conclusion = run.conclude(tmp_path / "aa.jsonl")
    assert conclusion.verdict == verdict and "planted" in str(latency(conclusion).evidence)


def test_a_ledger_that_cries_wolf_suspends_what_is_timed_and_nothing_else(tmp_path: Path) -> None:
    for _ in range(20):
        ledger.add(tmp_path / "aa.jsonl", SelfRace("c", "s", 16, 1.0, True))
    run = comparison(tmp_path, SLOW)
    run.judge(6)
    assert run.conclude(tmp_path / "aa.jsonl").verdict == "inconclusive"
    run.findings.append(Finding("w", "graph_breaks", "regression", 0, 1, kind="counter"))
    assert run.conclude(tmp_path / "aa.jsonl").verdict == "regression"


def test_outside_a_repository_a_revision_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(Misuse, match="not a git repository"):
        Revisions(tmp_path).open("base", "HEAD")


def test_a_worktree_beside_the_editable_install_is_what_a_worker_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own repository, which is installed editable where its tests run. hotlap.perf stays the
    running one.
    """
    monkeypatch.chdir(ROOT)
    revisions = Revisions(tmp_path)
    try:
        side = revisions.open("base", "HEAD")
        assert side.origin.folder is not None and revisions.repository == ROOT
        worker = Worker.start({**os.environ, **side.origin.variables()}, tmp_path / "log.txt")
        try:
            worker.ask(Preload(["hotlap.models.nets.mlp"]), 120)
            source = worker.ask(TraceSource(str(ROOT), str(side.origin.folder)), 60)
        finally:
            worker.kill()
    finally:
        revisions.close()
    assert "models/nets/mlp.py" in source.inside and source.outside == []
    assert not any(name.startswith("perf/") for name in source.inside)
    assert not (tmp_path / "trees" / "base").exists()


ADD = """
import os, sys
from pathlib import Path
from hotlap.perf.gate.revisions import check_out
check_out(Path(), Path(sys.argv[1]), "HEAD")
os.kill(os.getpid(), 9)
"""


def test_the_worktree_of_a_killed_run_is_removed_by_the_next_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, killed, theirs = (tmp_path / name for name in ("repository", "killed", "theirs"))
    repository.mkdir()
    monkeypatch.chdir(repository)
    author = ("-c", "user.name=A", "-c", "user.email=a@b")
    git(repository, "init", "--quiet")
    git(repository, *author, "commit", "--quiet", "--allow-empty", "--message", "first")
    git(repository, "worktree", "add", "--quiet", "--detach", str(theirs))
    git(repository, "worktree", "lock", "--reason", "a disk of mine", str(theirs))
    assert subprocess.run([sys.executable, "-c", ADD, str(killed)], check=False).returncode == -9
    assert killed.is_dir()
    revisions = Revisions(tmp_path)
    try:
        revisions.open("base", "HEAD")
        listed = git(repository, "worktree", "list")
        assert not killed.exists() and theirs.is_dir() and len(listed.splitlines()) == 3
        Revisions(tmp_path / "second").open("base", "HEAD")
        assert (tmp_path / "trees" / "base").is_dir()
    finally:
        revisions.close()
    assert not (tmp_path / "trees" / "base").exists()


@pytest.mark.usefixtures("planted", "kept_servers")
@pytest.mark.parametrize(
    ("head", "backend", "counter"),
    [("broken", "compile", "graph_breaks"), ("unfused", "onnxruntime", "nodes")],
)
@pytest.mark.slow
def test_what_the_compiler_lost_is_a_regression_before_anything_is_timed(
    head: str, backend: str, counter: str, tmp_path: Path
) -> None:
    """A graph break, and an operator that falls out of ONNX Runtime's fusion: real builds, checked
    and counted, no block raced.
    """
    revisions = Revisions(tmp_path)
    sides = revisions.open("base", "planted.changes:whole"), revisions.open("head", f"planted.changes:{head}")
    comparison = ABRun(*sides, Policy(), Plan(threads=1), tmp_path, survey.collect(1, "keep"), print)
    try:
        case = Case(f"planted.changes:{head}", backend, batch=4)
        comparison.refer(case, None)
        comparison.build(case)
        comparison.duels[0].race.check()
        verdict = comparison.conclude(tmp_path / "aa.jsonl")
    finally:
        comparison.close()
    (finding,) = (finding for finding in verdict.findings if finding.metric == counter)
    assert finding.verdict == "regression" and verdict.verdict == "regression"
    assert finding.base is not None and finding.head is not None and finding.head > finding.base


def test_the_ledger_keeps_what_is_whole_and_suspends_a_gate_that_cries_wolf(tmp_path: Path) -> None:
    path = tmp_path / "aa.jsonl"
    for index in range(40):
        ledger.add(path, SelfRace("c", "s", 16, 1.0, alarm=index < 4))
    with path.open("ab") as file:
        file.write(b'{"case": "to')
    entries = ledger.read(path)
    assert len(entries) == 40
    assert ledger.distrusted(entries, 0.05) == ""
    assert "5 of 40" in ledger.distrusted(
        [*entries[:35], *[SelfRace("c", "s", 16, 1.0, True)] * 1, *entries[36:]], 0.05
    )
    assert ledger.distrusted([], 0.05) == "" and ledger.read(tmp_path / "absent") == []


def test_one_case_in_ten_is_raced_against_itself_and_which_changes_with_the_commit() -> None:
    chosen = [{case for case in range(200) if ledger.chosen(str(case), commit)} for commit in ("a", "b")]
    assert all(8 <= len(some) <= 35 for some in chosen) and chosen[0] != chosen[1]
