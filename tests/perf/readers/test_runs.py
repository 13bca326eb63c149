"""Several runs of a side, what all benches of a job share, and what is said beside the verdict."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.perf.gate import shift
from hotlap.perf.gate.judge import judge
from hotlap.perf.gate.policy import Policy
from hotlap.perf.readers import runs
from hotlap.perf.readers.side import Side
from hotlap.perf.terms.reasons import Misuse
from hotlap.perf.terms.verdict import Verdict

MACHINE = {"machine": "x86_64", "python_version": "3.11.7", "cpu": {"brand_raw": "Xeon", "count": 2}}
MANY = [f"t.py::test_{number}" for number in range(12)]
Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a pytest-benchmark file without raw data: a time a bench."""

    def write(name: str, times: dict[str, float], **more: Any) -> Path:
        benchmarks = [
            {
                "fullname": bench,
                "stats": {"mean": time, "median": time, "stddev": 0.01 * time, "rounds": 20},
                "extra_info": more.get("extra_info", {}),
            }
            for bench, time in times.items()
        ]
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {"machine_info": more.get("machine_info", MACHINE), "datetime": more.get("datetime", "")}
        commit = {"id": more.get("commit", "")}
        path.write_text(json.dumps({**head, "commit_info": commit, "benchmarks": benchmarks}))
        return path

    return write


def times(seed: int, shift: float = 1.0, spread: float = 0.005, **changed: float) -> dict[str, float]:
    """A time for each of MANY, with noise; `test_3=1.2` makes that one 20 % slower."""
    rng = random.Random(seed)
    return {
        name: 1e-3
        * (1 + number)
        * shift
        * math.exp(rng.gauss(0, spread))
        * changed.get(name.partition("::")[2], 1.0)
        for number, name in enumerate(MANY)
    }


def judged(base: Side, head: Side, **policy: Any) -> Verdict:
    return judge(base, head, Policy(**policy))


def verdicts(verdict: Verdict) -> dict[str, str]:
    return {finding.case: finding.verdict for finding in verdict.findings if finding.metric == "latency"}


def test_a_shift_that_all_benches_share_is_taken_out_and_said(written: Written) -> None:
    """The machine of HEAD is 15 % slower, and one bench is 40 % slower than that."""
    base = runs.side([written("a.json", times(1, spread=0.002))])
    verdict = judged(base, runs.side([written("b.json", times(2, 1.15, spread=0.002, test_3=1.4))]))
    slower = [case for case, outcome in verdicts(verdict).items() if outcome == "regression"]
    assert slower == ["t.py::test_3"]
    finding = next(each for each in verdict.findings if each.case == "t.py::test_3")
    assert finding.ratio == pytest.approx(1.4, rel=0.03)
    assert finding.base and finding.head and finding.head / finding.base == pytest.approx(finding.ratio)
    assert sum("all 12 cases share a shift of +1" in reason for reason in verdict.reasons) == 1
    assert judged(base, runs.side([written("c.json", times(3, 1.15, 0.002))])).verdict == "pass"
    # Without it nothing could be told of 15 % between two jobs.
    five = dict(list(times(1).items())[:5]), dict(list(times(2, 1.15).items())[:5])
    few = judged(*(runs.side([written(f"few{each[0]}.json", each[1])]) for each in enumerate(five)))
    assert set(verdicts(few).values()) == {"inconclusive"}


def test_a_shift_beyond_what_jobs_differ_by_is_not_green(written: Written) -> None:
    base = runs.side([written("a.json", times(1))])
    verdict = judged(base, runs.side([written("b.json", times(2, 1.5))]))
    assert verdict.verdict == "inconclusive"
    assert any("jobs are taken to differ by up to 33%" in line for each in verdict.findings
               for line in each.evidence)  # fmt: skip
    assert judged(base, runs.side([written("c.json", times(2, 0.6))])).verdict == "pass"


def test_false_alarms_of_many_benches_stay_at_alpha(written: Written) -> None:
    """Jobs differ by 10 %, the same bench of two processes by 1 to 4 %: nothing changed."""
    alarms = 0
    for seed in range(60):
        rng = random.Random(seed)
        sides = []
        for side in "ab":
            spread = rng.uniform(0.01, 0.04)
            path = written(f"{side}.json", times(rng.randrange(10**6), math.exp(rng.gauss(0, 0.1)), spread))
            sides.append(runs.side([path]))
        alarms += "regression" in verdicts(judged(*sides)).values()
    assert alarms <= 7  # 99 % of what chance gives at 5 %


def of_runs(written: Written, name: str, seeds: Sequence[int], **more: Any) -> Side:
    """A folder of a run for each seed, each hour with a speed of its own."""
    for seed in seeds:
        hour = math.exp(random.Random(seed).gauss(0, 0.05))
        written(f"{name}/{seed}.json", {"t.py::t": 1e-3 * hour * more.get("slower", 1.0)}, **more)
    return runs.side([written(f"{name}/{seeds[0]}.json", {"t.py::t": 1e-3}).parent])


def test_runs_of_a_side_are_blocks(written: Written) -> None:
    many = list(range(12))
    base = of_runs(written, "base", many)
    assert base.runs == 12 and len(base.cases["t.py::t"].metrics["latency"].logs) == 12
    worse = of_runs(written, "head", [100 + seed for seed in many], slower=1.6)
    assert verdicts(judged(base, worse))["t.py::t"] == "regression"


def test_runs_that_took_turns_do_not_differ_by_the_job(written: Written) -> None:
    def side(name: str, minutes: Sequence[int], slower: float) -> Side:
        paths = [
            written(
                f"{name}{minute}.json",
                {"t.py::t": slower * 1e-3 * math.exp(random.Random(minute).gauss(0, 0.005))},
                datetime=f"2026-03-01T10:{minute:02}:00",
            )
            for minute in minutes
        ]
        return runs.side(paths)

    base, turns = side("a", range(0, 20, 2), 1.0), side("b", range(1, 21, 2), 1.08)
    assert verdicts(judged(base, turns))["t.py::t"] == "regression"
    later = side("c", range(30, 40), 1.08)
    assert verdicts(judged(base, later))["t.py::t"] == "inconclusive"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"commit": "b" * 40}, "one commit"),
        ({"machine_info": {**MACHINE, "cpu": {"brand_raw": "EPYC", "count": 2}}}, "cpu is EPYC, and Xeon"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(
    second: dict[str, Any], words: str, written: Written
) -> None:
    first = written("a.json", times(1), commit="a" * 40)
    with pytest.raises(Misuse, match=words) as caught:
        runs.side([first, written("b.json", times(2), **{"commit": "a" * 40, **second})])
    assert caught.value.exit_code == 4


def test_a_copy_is_no_second_run_and_no_other_side(written: Written, capsys: Any) -> None:
    first, copy = written("a.json", times(1)), written("copy.json", times(1))
    with pytest.raises(Misuse, match="a copy is no run"):
        runs.side([first, copy])
    for head in (first, copy):
        assert cli.status(["gate", str(first), str(head)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_names_what_is_no_result(written: Written, tmp_path: Path) -> None:
    path = written("base/a.json", times(1))
    (path.parent / "notes.txt").write_text("slow day")
    side = runs.side([path.parent])
    assert any("1 files hold no results" in note and "notes.txt" in note for note in side.notes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Misuse, match="a folder without results"):
        runs.side([tmp_path / "empty"])


def test_one_bad_bench_takes_no_other_along(written: Written) -> None:
    base = runs.side([written("a.json", times(1, spread=0.002))])
    bad = {**times(2, spread=0.002), "t.py::test_0": 0.0}
    head = runs.side([written("b.json", bad)])
    assert head.cases["t.py::test_0"].status == "unreadable"
    verdict = judged(base, head)
    assert verdict.verdict == "inconclusive"
    assert [each.case for each in verdict.findings if each.verdict != "pass"] == ["t.py::test_0"]
    assert len([each for each in verdict.findings if each.verdict == "pass"]) == 11


def test_what_grew_and_is_not_judged_is_mentioned(written: Written) -> None:
    base = runs.side([written("a.json", {"t": 1e-3}, extra_info={"peak_mb": 100, "items": 5, "note": "x"})])
    head = runs.side([written("b.json", {"t": 1e-3}, extra_info={"peak_mb": 400, "items": 6, "note": "y"})])
    lines = [reason for reason in judged(base, head).reasons if "mentioned" in reason]
    assert lines == ["t: peak_mb 100 -> 400 (4.00x): mentioned, not judged"]


def test_nothing_is_green_for_nothing(written: Written) -> None:
    one, other = runs.side([written("a.json", {"t": 1e-3})]), runs.side([written("b.json", {"u": 1e-3})])
    apart = judged(one, other, missing="pass", between_jobs_sd=0.0)
    assert apart.verdict == "inconclusive"
    assert any("no results in common: BASE has t; HEAD has u" in each.evidence for each in apart.findings)
    unnamed = [runs.side([written(name, {"t": 1e-3 + number}, machine_info={})])
               for number, name in enumerate(("c.json", "d.json"))]  # fmt: skip
    assert judged(*unnamed).verdict == "not_comparable"
    assert any("not named in the file" in reason for reason in judged(*unnamed).reasons)


def test_a_patch_of_python_is_noted_and_no_border(written: Written) -> None:
    base = runs.side([written("a.json", times(1))])
    patched = written("b.json", times(2), machine_info={**MACHINE, "python_version": "3.11.9"})
    verdict = judged(base, runs.side([patched]))
    assert verdict.verdict == "pass" and "noted, python patch: 3.11.7 -> 3.11.9" in verdict.reasons
    other = written("c.json", times(2), machine_info={**MACHINE, "python_version": "3.12.1"})
    assert judged(base, runs.side([other])).verdict == "not_comparable"


def test_many_benches_that_could_not_be_told_are_a_few_lines(written: Written, capsys: Any) -> None:
    """Two jobs of two benches each say little; the remedy is said once."""
    many = {f"t{number}": 1e-3 for number in range(4)}
    paths = [written("a.json", many), written("b.json", dict.fromkeys(many, 0.0011))]
    assert cli.status(["gate", *map(str, paths)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("- ") for line in lines) == 4
    assert sum("three runs or more of each side" in line for line in lines) == 1
    noisy = written("c.json", times(1)), written("d.json", times(2, spread=0.3))
    assert cli.status(["gate", *map(str, noisy)]) in (1, 3)
    lines = capsys.readouterr().out.splitlines()
    assert any("more could not be told: worsenings of" in line for line in lines)
    assert sum("could not tell" in line for line in lines) <= 7


def test_a_gain_is_printed_as_a_gain(written: Written, capsys: Any) -> None:
    paths = [written("a.json", times(1, spread=0.002)), written("b.json", times(2, spread=0.002, test_3=0.5))]
    assert cli.status(["gate", *map(str, paths)]) == 0
    better = [line for line in capsys.readouterr().out.splitlines() if line.startswith("+ ")]
    assert len(better) == 1 and "t.py::test_3: latency" in better[0] and better[0].count("a gain") == 1


def test_what_all_benches_of_a_run_share_is_no_benchs_own_spread(written: Written) -> None:
    """Each of five runs a side meets an hour of its own, 10 % apart; one bench is 10 % slower."""
    rng = random.Random(5)

    def side(name: str, **changed: float) -> Side:
        paths = [
            written(f"{name}{run}.json", times(rng.randrange(10**6), math.exp(rng.gauss(0, 0.1)), **changed))
            for run in range(5)
        ]
        return runs.side(paths)

    verdict = judged(side("a"), side("b", test_3=1.1))
    assert [case for case, each in verdicts(verdict).items() if each == "regression"] == ["t.py::test_3"]
    finding = next(each for each in verdict.findings if each.case == "t.py::test_3")
    assert finding.low is not None and finding.high is not None and finding.high - finding.low < 0.06
    # Of five benches alone nothing is known of the hours.
    few = [replace(each, cases=dict([*each.cases.items()][:5])) for each in (side("c"), side("d"))]
    wide = judged(*few).findings[0]
    assert wide.low is not None and wide.high is not None and wide.high - wide.low > 0.2


def test_a_spread_is_not_spoilt_by_cases_that_changed() -> None:
    rng = random.Random(2)
    spreads = []
    for _ in range(400):
        values = [rng.gauss(0, 1) for _ in range(12)]
        spreads.append(shift.scale(values))
        assert shift.scale([*values[:8], 90.0, 80.0, -70.0, 60.0]) < 6
    assert sum(spreads) / len(spreads) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("base", "head", "nodes"),
    [
        # Two jobs at the same time on two machines.
        ([f"2026-03-01T10:{minute:02}:00" for minute in range(0, 20, 2)],
         [f"2026-03-01T10:{minute:02}:00" for minute in range(1, 21, 2)], ("a", "b")),
        # One straggler makes no turns.
        ([f"2026-03-01T10:{minute:02}:00" for minute in range(9)] + ["2026-03-01T13:00:00"],
         [f"2026-03-01T12:{minute:02}:00" for minute in range(10)], ("a", "a")),
        # Nine hours apart, by their zones.
        ([f"2026-03-01T10:{minute:02}:00+00:00" for minute in range(0, 20, 2)],
         [f"2026-03-01T10:{minute:02}:00+09:00" for minute in range(1, 21, 2)], ("a", "a")),
    ],
)  # fmt: skip
def test_only_runs_that_took_turns_on_one_machine_share_their_hours(
    base: list[str], head: list[str], nodes: tuple[str, str], written: Written
) -> None:
    def side(name: str, moments: list[str], node: str, slower: float) -> Side:
        return runs.side([
            written(f"{name}{number}.json", {"t.py::t": slower * 1e-3 * (1 + 0.001 * (number % 3))},
                    datetime=moment, machine_info={**MACHINE, "node": node})
            for number, moment in enumerate(moments)
        ])  # fmt: skip

    verdict = judged(side("a", base, nodes[0], 1.0), side("b", head, nodes[1], 1.08))
    assert verdicts(verdict)["t.py::t"] == "inconclusive"


def test_a_case_that_is_not_in_every_run_could_not_be_told(written: Written) -> None:
    both, one = {"t": 1e-3, "u": 1e-3}, {"t": 1e-3}
    base = runs.side([written(f"a{n}.json", {name: time * (1 + n / 1e3) for name, time in both.items()})
                      for n in range(3)])  # fmt: skip
    head = runs.side([written(f"b{n}.json", {name: time * (1 + n / 1e3)
                      for name, time in (both if n == 0 else one).items()}) for n in range(3)])  # fmt: skip
    verdict = judged(base, head, between_jobs_sd=0.0)
    assert verdict.verdict == "inconclusive"
    assert any("stands in 1 of 3 runs" in line for each in verdict.findings for line in each.evidence)


def test_figures_that_are_rounded_alike_are_no_certainty(written: Written) -> None:
    """Seven benches in whole ns, of which one went from 20 to 21: rounding."""
    whole = {f"t{number}": 20e-9 for number in range(7)}
    base, head = runs.side([written("a.json", whole)]), runs.side([written("b.json", {**whole, "t0": 21e-9})])
    assert verdicts(judged(base, head))["t0"] == "inconclusive"


def test_a_metric_that_changed_its_unit_is_not_green(tmp_path: Path) -> None:
    paths = []
    for name, unit in (("a", "widgets"), ("b", "gadgets")):
        paths.append(tmp_path / name)
        paths[-1].write_text(json.dumps([{"name": "t", "unit": unit, "value": 10},
                                         {"name": "u", "unit": "ms", "value": 10}]))  # fmt: skip
    verdict = judged(*(runs.side([path]) for path in paths), between_jobs_sd=0.0)
    assert {each.case: each.verdict for each in verdict.findings}["t"] == "inconclusive"


def test_a_count_that_was_zero_is_mentioned(written: Written) -> None:
    base = runs.side([written("a.json", {"t": 1e-3}, extra_info={"allocations": 0})])
    head = runs.side([written("b.json", {"t": 1e-3}, extra_info={"allocations": 1000})])
    assert "t: allocations 0 -> 1000: mentioned, not judged" in judged(base, head).reasons


def test_criterion_below_runs_hides_none_of_them(written: Written, tmp_path: Path) -> None:
    path = written("base/a.json", times(1))
    below = path.parent / "cache" / "sort" / "new"
    below.mkdir(parents=True)
    (below / "estimates.json").write_text("{}")
    assert runs.side([path.parent]).tool == "pytest-benchmark"


def test_a_name_too_long_for_a_file_is_one_line(capsys: Any) -> None:
    assert cli.status(["gate", "a" * 300, "b"]) == 4
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.status(["history", "a" * 300]) == 2
