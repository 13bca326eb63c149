"""Two files and a policy: what regresses, what cannot be told, what may not be compared, and that
nothing of it is ever green by mistake.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotlap.perf.gate import judge
from hotlap.perf.gate.policy import CasePart, Policy
from hotlap.perf.readers import runs
from hotlap.perf.readers.side import Side
from hotlap.perf.terms import result as result_file
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.environment import Environment
from hotlap.perf.terms.reasons import Misuse, Reason
from hotlap.perf.terms.result import Deviation, Distance, Placement, Result, Results, Samples, Task, encode
from hotlap.perf.terms.verdict import Finding, Place, Verdict

HERE = Environment(
    "Xeon", 2, 2**30, (), "Linux 6", "3.11.7", {"torch": "2.14.1"}, (), "", 2, "keep", "madvise", "", "one"
)
NAME = "net/eager/fp32/b1/cpu/inference"
BLOCKS = 12


def latency(centre: float, seed: int, spread: float = 0.005) -> Samples:
    """Blocks of three samples around a drift that a pace of the same seed shares."""
    rng, drift = random.Random(seed), random.Random(99)
    values = []
    for _ in range(BLOCKS):
        level = centre * math.exp(drift.gauss(0, 0.3))
        values.append(tuple(level * math.exp(rng.gauss(0, spread)) for _ in range(3)))
    return Samples("s", "lower", tuple(values))


def result(backend: str = "eager", slower: float = 1.0, seed: int = 1, **more: Any) -> Result:
    metrics = {
        "latency": latency(0.01 * slower, seed),
        "memory": Samples("B", "lower", ((3e8,), (3.01e8,), (2.99e8,))),
    }
    metrics |= more.pop("metrics", {})
    placement = Placement("cpu", {"cpu": 9}, more.pop("counters", {"operators": 40, "artefact_bytes": 1000}))
    return Result(
        Case("net", backend),
        "race",
        Plan(),
        **{"status": "ok", "environment": HERE.key, "metrics": metrics, "placement": placement, **more},
    )


def pace(seed: int = 7) -> Result:
    return Result(
        Case("net", "pace"),
        "race",
        Plan(),
        "ok",
        environment=HERE.key,
        metrics={"latency": latency(0.001, seed)},
    )


Write = Callable[..., Side]


@pytest.fixture
def side(tmp_path: Path) -> Write:
    """Writes a results file and reads it as a side."""

    def write(*results: Result, environment: Environment = HERE, with_pace: bool = True) -> Side:
        every = [
            msgspec.structs.replace(outcome, environment=environment.key)
            for outcome in (*results, *([pace(len(results))] if with_pace else []))
        ]
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_bytes(encode(Results("run", "test", {environment.key: environment}, results=tuple(every))))
        return runs.side([path])

    return write


def judged(base: Side, head: Side, **policy: Any) -> Verdict:
    return judge.judge(base, head, Policy(**policy))


def of(verdict: Verdict, metric: str) -> Finding:
    return next(finding for finding in verdict.findings if finding.metric == metric)


def test_the_same_code_passes(side: Write) -> None:
    verdict = judged(side(result(seed=1)), side(result(seed=2)))
    assert verdict.verdict == "pass" and verdict.exit_status == 0
    metrics = {finding.metric for finding in verdict.findings}
    assert metrics == {"latency", "memory", "operators", "artefact_bytes"}


def test_ten_per_cent_slower_is_a_regression_with_its_interval(side: Write) -> None:
    verdict = judged(side(result(seed=1)), side(result(slower=1.1, seed=2)))
    assert verdict.verdict == "regression" and verdict.exit_status == 1
    finding = of(verdict, "latency")
    assert finding.ratio == pytest.approx(1.1, rel=0.01)
    assert finding.low is not None and finding.high is not None
    assert 1.03 < finding.low < 1.1 < finding.high
    assert "no structural cause" in finding.evidence


def test_twice_as_fast_passes(side: Write) -> None:
    verdict = judged(side(result(seed=1)), side(result(slower=0.5, seed=2)))
    assert verdict.verdict == "pass"


@pytest.mark.parametrize(
    ("counter", "slower", "policy", "verdict"),
    [
        ("operators", 0.7, {}, "pass"),
        ("operators", 1.0, {}, "regression"),
        ("operators", 0.7, {"slack": {"operators": 1}}, "regression"),
        ("graph_breaks", 0.7, {}, "regression"),
        ("kernel_fallbacks", 0.7, {}, "regression"),
    ],
)
def test_more_of_what_is_no_harm_is_reported_only_where_the_case_is_faster(
    counter: str, slower: float, policy: dict[str, Any], verdict: str, side: Write
) -> None:
    base = result(seed=1, counters={counter: 40})
    head = result(seed=2, slower=slower, counters={counter: 55})
    whole = judged(side(base), side(head), **policy)
    finding = of(whole, counter)
    assert whole.verdict == finding.verdict == verdict
    if verdict == "regression":
        line = finding.evidence[0].partition("gate.toml: ")[2].partition(" (")[0]
        accepting = msgspec.toml.decode(line, type=Policy)
        assert judge.judge(side(base), side(head), accepting).verdict == "pass"
    else:
        assert finding.evidence == ("reported only: the case is faster",)


def test_a_gain_is_called_one(side: Write) -> None:
    verdict = judged(
        side(result(seed=1, counters={"graph_breaks": 3})), side(result(seed=2, counters={"graph_breaks": 0}))
    )
    assert of(verdict, "graph_breaks").evidence == ("a gain",) and verdict.verdict == "pass"


def test_the_pace_cancels_a_slower_machine(side: Write) -> None:
    """Both jobs are compared as ratios to the pace that ran beside them; without it the machine's
    drift is all there is to see.
    """
    base, head = result(seed=1), result(slower=3.0, seed=2)
    slow = msgspec.structs.replace(pace(), metrics={"latency": latency(0.003, 7)})
    assert judged(side(base, pace(), with_pace=False), side(head, slow, with_pace=False)).verdict == "pass"
    slower = msgspec.structs.replace(result(slower=1.1, seed=2), metrics={"latency": latency(0.0055, 2)})
    quick = msgspec.structs.replace(pace(), metrics={"latency": latency(0.0005, 7)})
    finding = of(judged(side(base, pace(), with_pace=False), side(slower, quick, with_pace=False)), "latency")
    assert finding.verdict == "regression" and finding.base is not None and finding.head is not None
    # What is shown agrees with the ratio, although HEAD's own figure is smaller.
    assert finding.head / finding.base == pytest.approx(finding.ratio) and finding.ratio > 1.05
    assert "HEAD took" in finding.evidence[0] and "% faster" in finding.evidence[0]
    alone = judged(side(base, with_pace=False), side(result(slower=1.1, seed=2), with_pace=False))
    assert of(alone, "latency").verdict == "inconclusive"
    assert sum("10% between jobs" in reason for reason in alone.reasons) == 1
    assert sum("three runs or more of each side" in reason for reason in alone.reasons) == 1


def test_too_noisy_is_inconclusive_and_names_what_it_could_have_seen(side: Write) -> None:
    noisy = {"latency": latency(0.01, 3, spread=0.3)}
    verdict = judged(side(result(metrics=noisy)), side(result(seed=2)))
    finding = of(verdict, "latency")
    assert verdict.verdict == "inconclusive" and verdict.exit_status == 3
    assert finding.detectable is not None and finding.detectable > 0.03
    assert any("could pass from a tolerance of" in text for text in finding.evidence)


def test_could_not_tell_is_green_only_where_the_policy_says_so(side: Write) -> None:
    noisy = {"latency": latency(0.01, 3, spread=0.3)}
    verdict = judged(side(result(metrics=noisy)), side(result(seed=2)), inconclusive="pass")
    assert verdict.verdict == "pass" and "count as passed, as the policy says" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("counter", "before", "after"),
    [("graph_breaks", 0, 1), ("memcpy_nodes", 0, 2), ("nodes", 40, 41), ("artefact_bytes", 1000, 1100)],
)
def test_a_structural_counter_that_grows_is_a_regression_with_no_time_involved(
    side: Write, counter: str, before: int, after: int
) -> None:
    verdict = judged(
        side(result(counters={counter: before})), side(result(seed=2, counters={counter: after}))
    )
    assert verdict.verdict == "regression"
    finding = of(verdict, counter)
    assert (finding.base, finding.head, finding.kind) == (before, after, "counter")
    assert of(verdict, "latency").verdict == "pass"
    fewer = judged(side(result(counters={counter: after})), side(result(seed=2, counters={counter: before})))
    assert fewer.verdict == "pass"


def test_slack_lets_a_counter_grow_and_a_slower_case_names_it(side: Write) -> None:
    before = result(counters={"graph_breaks": 0})
    after = result(seed=2, slower=1.2, counters={"graph_breaks": 1})
    verdict = judged(side(before), side(after), slack={"graph_breaks": 1})
    assert of(verdict, "graph_breaks").verdict == "pass"
    assert "with graph_breaks 0 -> 1" in of(verdict, "latency").evidence


def test_a_counter_that_only_one_side_has_cannot_be_told(side: Write) -> None:
    verdict = judged(side(result(counters={"graph_breaks": 0})), side(result(seed=2, counters={})))
    assert of(verdict, "graph_breaks").verdict == "inconclusive"


def test_ten_per_cent_more_memory_is_a_regression_over_blocks(side: Write) -> None:
    more = {"memory": Samples("B", "lower", ((3.3e8,), (3.31e8,), (3.29e8,)))}
    verdict = judged(side(result()), side(result(seed=2, metrics=more)))
    assert of(verdict, "memory").verdict == "regression"
    assert of(verdict, "memory").tolerance == pytest.approx(0.02 + 4 * 2**20 / 3e8, rel=0.01)


def test_one_value_a_side_is_no_interval(side: Write) -> None:
    one_value = {"memory": Samples("B", "lower", ((3e8,),))}
    verdict = judged(side(result(metrics=one_value)), side(result(seed=2, metrics=one_value)))
    assert verdict.verdict == "pass"
    assert any("memory is not judged: 1 block a side" in text for text in verdict.reasons)
    asked = judged(
        side(result(metrics=one_value)), side(result(seed=2, metrics=one_value)), tolerance={"memory": 0.02}
    )
    assert asked.verdict == "inconclusive"


def test_throughput_regresses_downwards(side: Write) -> None:
    def rate(value: float) -> dict[str, Samples]:
        return {
            "throughput": Samples(
                "1/s", "higher", tuple((value * (1 + 0.001 * block),) for block in range(6))
            )
        }

    verdict = judged(
        side(result(metrics=rate(100))),
        side(result(seed=2, metrics=rate(50))),
        tolerance={"throughput": 0.03},
    )
    finding = of(verdict, "throughput")
    assert finding.verdict == "regression" and finding.ratio == pytest.approx(0.5)
    assert finding.low is not None and finding.high is not None and finding.low < 0.5 < finding.high
    assert (
        judged(
            side(result(metrics=rate(50))),
            side(result(seed=2, metrics=rate(100))),
            tolerance={"throughput": 0.03},
        ).verdict
        == "pass"
    )


@pytest.mark.parametrize(
    ("status", "code"), [("skipped", "no_device"), ("fell_back", "wrong_provider"), ("failed", "accuracy")]
)
def test_a_case_that_lost_its_result_is_a_regression(side: Write, status: Any, code: Any) -> None:
    lost = result(status=status, reason=Reason(code, "planted"), metrics={"latency": latency(0.01, 2)})
    verdict = judged(side(result()), side(lost))
    assert verdict.verdict == "regression"
    assert status in of(verdict, "presence").evidence[0] and "planted" in of(verdict, "presence").evidence[0]


def test_missing_new_and_renamed_cases_are_named(side: Write) -> None:
    verdict = judged(
        side(result("eager"), result("compile")), side(result("eager", seed=2), result("compiled"))
    )
    presence = of(verdict, "presence")
    assert presence.case == "net/compile/fp32/b1/cpu/inference" and presence.verdict == "inconclusive"
    assert any("renamed to net/compiled/" in text for text in presence.evidence)
    assert "new: net/compiled/fp32/b1/cpu/inference" in verdict.reasons
    assert (
        judged(
            side(result("eager"), result("compile")), side(result("eager", seed=2)), missing="regression"
        ).verdict
        == "regression"
    )


def test_a_case_that_failed_before_and_is_fixed_passes(side: Write) -> None:
    failed = result("compile", status="failed", reason=Reason("build_failed", "planted"), metrics={})
    verdict = judged(side(result(), failed), side(result(seed=2), result("compile")))
    assert verdict.verdict == "pass" and any("was failed" in text for text in verdict.reasons)


def test_nothing_judged_is_not_green(side: Write) -> None:
    skipped = result(status="skipped", reason=Reason("no_device", "planted"), metrics={})
    verdict = judged(side(skipped), side(skipped))
    assert verdict.verdict == "inconclusive" and "nothing could be judged" in verdict.reasons
    assert judged(side(skipped), side(skipped), inconclusive="pass").verdict == "inconclusive"


def test_what_fails_on_both_sides_is_not_hidden_by_what_passes(side: Write) -> None:
    failed = result("compile", status="failed", reason=Reason("build_failed", "planted"), metrics={})
    verdict = judged(side(result(), failed), side(result(seed=2), failed))
    assert verdict.verdict == "inconclusive" and "failed on both sides" in of(verdict, "presence").evidence[0]
    skipped = result("compile", status="skipped", reason=Reason("no_device", "planted"), metrics={})
    assert judged(side(result(), skipped), side(result(seed=2), skipped)).verdict == "pass"


def test_a_latency_that_cannot_be_tested_is_never_green(side: Write) -> None:
    short = result(seed=2, metrics={"latency": Samples("s", "lower", ((0.1,), (0.1,)))})
    assert of(judged(side(result()), side(short)), "latency").verdict == "inconclusive"
    no_pace = judged(side(result()), side(result(seed=2, slower=10), with_pace=False))
    assert no_pace.verdict == "inconclusive" and "only one has a pace" in of(no_pace, "latency").evidence[0]


def test_a_limit_of_a_new_case_that_fails_is_not_kept(side: Write) -> None:
    failed = result("compile", status="failed", reason=Reason("build_failed", "planted"), metrics={})
    verdict = judged(side(result()), side(result(seed=2), failed), limits={"latency": 1.0})
    assert verdict.verdict == "inconclusive"
    assert any("HEAD is failed" in text for finding in verdict.findings for text in finding.evidence)


def test_a_pace_of_zero_and_numbers_beyond_all_bounds(side: Write, tmp_path: Path) -> None:
    still = msgspec.structs.replace(
        pace(), metrics={"latency": Samples("s", "lower", ((0.0,), (0.0,), (0.0,)))}
    )
    with pytest.raises(Misuse, match="not above 0"):
        side(result(), still, with_pace=False)
    stats = {"mean": 0.2, "median": 1e-4, "stddev": 1e6, "rounds": 5}
    file = {"machine_info": {"node": "one"}, "benchmarks": [{"fullname": "a", "stats": stats}]}
    (tmp_path / "wide.json").write_text(json.dumps(file))
    wide = runs.side([tmp_path / "wide.json"])
    assert of(judged(wide, wide), "latency").verdict == "inconclusive"


def test_a_rule_that_applies_to_nothing_is_named(side: Write) -> None:
    verdict = judged(side(result()), side(result(seed=2)), case=(CasePart("restnet/*", ignore=True),))
    assert "policy: [[case]] match = 'restnet/*' matches no case" in verdict.reasons


def test_not_steady_is_not_gated(side: Write) -> None:
    unsteady = result(status="noisy", reason=Reason("not_steady", "planted"), slower=1.5, seed=2)
    finding = of(judged(side(result()), side(unsteady)), "latency")
    assert finding.verdict == "inconclusive" and finding.evidence[0] == "HEAD was not steady"
    alike = result(status="noisy", reason=Reason("not_steady", "planted"), seed=2)
    finding = of(judged(side(result()), side(alike)), "latency")
    assert finding.verdict == "inconclusive"
    assert not any("could pass" in text for text in finding.evidence)  # it is not the tolerance


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("libraries", {"torch": "2.15.0"}, "2.15.0"),
        ("threads", 4, "threads: 2 -> 4"),
        ("gpus", ("H200",), "H200"),
        ("driver", "600", "driver"),
        ("cpu", "EPYC", "cpu: Xeon -> EPYC"),
    ],
)
def test_another_machine_is_not_comparable_and_says_what_differs(
    side: Write, field: str, value: Any, words: str
) -> None:
    other = msgspec.structs.replace(HERE, **{field: value})
    verdict = judged(side(result()), side(result(seed=2), environment=other))
    assert verdict.verdict == "not_comparable" and verdict.exit_status == 4
    assert any(words in text for text in verdict.reasons)


def test_another_node_is_only_noted(side: Write) -> None:
    verdict = judged(
        side(result()), side(result(seed=2), environment=msgspec.structs.replace(HERE, host="two"))
    )
    assert verdict.verdict == "pass" and "noted, host: one -> two" in verdict.reasons


def test_absolute_limits_hold_for_head_alone(side: Write) -> None:
    task = Deviation(
        {"real": Distance(1e-7, 1e-7, 2e-7, 2, 0, 1, 0, 10)}, Task("accuracy", "higher", 0.9, 0.95, 0.1)
    )
    base, head = side(result(deviation=task)), side(result(seed=2, deviation=task))
    assert judged(base, head, limits={"latency": 1.0, "task": 0.85}).verdict == "pass"
    for limits in ({"latency": 1e-6}, {"task": 0.95}, {"memory": 1e6}, {"deviation": 0.1}):
        assert judged(base, head, limits=limits).verdict == "regression"
    assert judged(base, head, limits={"energy": 1.0}).verdict == "inconclusive"


def test_task_and_deviation_are_exact(side: Write) -> None:
    def seen(rmse: float, accuracy: float) -> Deviation:
        return Deviation(
            {"real": Distance(rmse, 1e-7, 2e-7, 2, 0, 1, 0, 10)},
            Task("accuracy", "higher", accuracy, 0.95, 0.1),
        )

    base = side(result(deviation=seen(1e-7, 0.95)))
    assert (
        judged(base, side(result(seed=2, deviation=seen(1e-7, 0.90))), tolerance={"task": 0.01}).verdict
        == "regression"
    )
    assert (
        judged(base, side(result(seed=2, deviation=seen(1.5e-7, 0.95))), tolerance={"deviation": 0.2}).verdict
        == "regression"
    )
    assert (
        judged(
            base,
            side(result(seed=2, deviation=seen(1.1e-7, 0.95))),
            tolerance={"deviation": 0.2, "task": 0.01},
        ).verdict
        == "pass"
    )
    for name in ("task", "deviation"):
        assert of(judged(base, side(result(seed=2)), tolerance={name: 0.2}), name).verdict == "inconclusive"
    other = Deviation({}, Task("loss", "lower", 0.95, 0.95, 0.1))
    assert (
        of(judged(base, side(result(seed=2, deviation=other)), tolerance={"task": 0.2}), "task").verdict
        == "inconclusive"
    )


def test_an_ignored_case_is_not_looked_at(side: Write) -> None:
    verdict = judged(
        side(result("eager"), result("compile")),
        side(result("eager", seed=2), result("compile", slower=2)),
        case=(CasePart("*/compile/*", ignore=True),),
    )
    assert verdict.verdict == "pass" and all("compile" not in finding.case for finding in verdict.findings)


def test_more_cases_need_more_evidence(side: Write) -> None:
    """Holm: p of the only slow case is judged at alpha over the number of cases.

    A change that alone is found can be lost among forty.
    """
    fast = [result(f"backend{index}", seed=index) for index in range(40)]
    alone = judged(side(result(seed=1)), side(result(slower=1.1, seed=2)))
    among = judged(side(*fast, result(seed=1)), side(*fast, result(slower=1.1, seed=2)))
    assert (of(alone, "latency").detectable or 0) < max(finding.detectable or 0 for finding in among.findings)


def test_a_file_by_others_bears_what_one_process_can_say(tmp_path: Path) -> None:
    def theirs(name: str, mean: float, raw: bool, **machine: Any) -> Side:
        rng = random.Random(name)
        data = [mean * math.exp(rng.gauss(0, 0.01)) for _ in range(200)]
        stats = {
            "mean": mean,
            "median": mean,
            "stddev": 0.01 * mean,
            "rounds": 200,
            **({"data": data} if raw else {}),
        }
        info = {
            "node": "one",
            "machine": "x86_64",
            "python_version": "3.11.7",
            "cpu": {"brand_raw": "Xeon", "count": 2, "hz_actual": name},
            **machine,
        }
        path = tmp_path / f"{name}.json"
        path.write_text(
            json.dumps(
                {
                    "machine_info": info,
                    "benchmarks": [{"name": "test_x", "fullname": "bench/test_x.py::test_x", "stats": stats}],
                    "version": "5.3.1",
                }
            )
        )
        return runs.side([path])

    for raw in (True, False):
        small = judged(theirs("a", 0.01, raw), theirs("b", 0.0105, raw))
        assert of(small, "latency").verdict == "inconclusive"
        large = judged(theirs("a", 0.01, raw), theirs("c", 0.02, raw))
        assert of(large, "latency").verdict == "regression"
        assert of(large, "latency").place == Place("bench/test_x.py")
        certain = judged(theirs("a", 0.01, raw), theirs("b", 0.0105, raw), between_jobs_sd=0.0)
        assert of(certain, "latency").verdict == "regression"
    assert (
        judged(theirs("a", 0.01, True), theirs("d", 0.01, True, cpu={"brand_raw": "EPYC"})).verdict
        == "not_comparable"
    )
    assert judged(theirs("a", 0.01, True), theirs("e", 0.01, True, node="two")).verdict == "inconclusive"


GOOD = '{"benchmarks": [{"fullname": "a", "stats": {"mean": 1.0, "rounds": 3}}]}'


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "{}", '{"benchmarks": {}}', '{"benchmarks": [{}]}', "\x00\xff", "[" * 100_000,
        '{"schema": 99, "results": []}', GOOD.replace("1.0", "NaN"), GOOD.replace("1.0", "1e999"),
        GOOD.replace("1.0", "-1"), GOOD.replace("1.0", "0"), GOOD.replace("1.0", "null"),
        GOOD.replace("1.0", "9" * 400), GOOD.replace('"rounds": 3', '"rounds": -3'),
        GOOD.replace('"rounds": 3', '"rounds": 3, "data": [1, -1]'),
        GOOD.replace("[{", '[{"fullname": "a", "stats": {"mean": 1.0, "rounds": 3}}, {'), GOOD[:-5],
    ],
)  # fmt: skip
def test_a_damaged_or_hostile_file_is_exit_4_and_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hostile.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(Misuse) as caught:
        runs.side([path])
    assert caught.value.exit_code == 4
    message = str(caught.value)
    assert "\n" not in message and "hostile.json" in message and len(message) < 1000


def test_no_such_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no such file") as caught:
        runs.side([tmp_path / "absent.json"])
    assert caught.value.exit_code == 2


def test_an_environment_that_the_file_does_not_hold_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(encode(Results("run", "test", {}, results=(result(),))))
    with pytest.raises(Misuse, match="environment"):
        runs.side([path])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"reason": Reason("accuracy", "wrong")}, "the reason is accuracy"),
        ({"deviation": Deviation({"real": Distance(5.0, 1e-7, 3e-7, 3.0, 1e-7, 0.1, 9, 10)})}, "too far off"),
        ({"deviation": Deviation(task=Task("top1", "higher", 0.1, 0.9, 0.01))}, "top1 is out of its budget"),
        (
            {"placement": Placement("cpu", {"cpu": 9}, wrong=Reason("wrong_provider", "elsewhere"))},
            "the work ran elsewhere",
        ),
    ],
)
def test_a_time_beside_outputs_that_are_wrong_is_no_pass(
    side: Write, tmp_path: Path, wrong: dict[str, Any], words: str
) -> None:
    """As in a file that somebody edited, or that another tool wrote."""
    with pytest.raises(Misuse, match=f"status ok although .*{words}") as caught:
        side(result(**wrong))
    assert caught.value.exit_code == 4
    with pytest.raises(Misuse, match=words):
        result_file.read(next(tmp_path.iterdir()))
