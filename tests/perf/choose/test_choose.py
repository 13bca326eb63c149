"""What is chosen among results, why, and in which words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import msgspec

from hotlap.perf.choose import candidates, sentences, wishes
from hotlap.perf.choose.choose import Choice, best, searching
from hotlap.perf.choose.knockout import Knockout
from hotlap.perf.lookup.cases import LIBRARY_DEFAULTS, parse_backend
from hotlap.perf.measure.measure import for_all
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Placement, Result, Samples
from hotlap.perf.terms.work import Subject, Work

SUBJECT = Subject(Work(10, 10, 10, 1, "row", True), "random")


def timed(
    spec: str, seconds: float, precision: str = "fp32", memory: float = 1e8, **fields: object
) -> Result:
    """A result of five blocks that differ by 0.1 %."""
    backend, options = parse_backend(spec)
    blocks = tuple((seconds * (1 + 0.001 * number),) * 4 for number in (-2, -1, 0, 1, 2))
    return Result(
        Case("net", backend, precision, 1, "cpu", "inference", options),
        "race",
        Plan(),
        "ok",
        metrics={
            "latency": Samples("s", "lower", blocks),
            "memory": Samples("B", "lower", ((memory,), (memory,), (memory,))),
        },
        placement=Placement("cpu", {"cpu": 1}, {"artefact_bytes": 1000, "nodes": 5}),
        artefact=f"work/{backend}",
        **fields,  # type: ignore[arg-type]
    )


EAGER = timed("eager[allocator:default][binding:none]", 10e-3)


def choice(search: list[Result], bounds: str = "", confirm: list[Result] | None = None) -> Choice:
    wish = wishes.parse("min latency", bounds)
    chosen, runner_up, why = best(search, wish)
    return Choice(
        wish, SUBJECT, search, search if confirm is None else confirm, chosen, runner_up, EAGER, why=why
    )


def test_the_fastest_that_can_be_shipped_is_chosen() -> None:
    search = [EAGER, timed("onnxruntime", 5e-3), timed("openvino", 4e-3), timed("openvino[threads:1]", 6e-3)]
    outcome = choice(search)
    assert outcome.chosen is search[2] and outcome.runner_up is search[1] and not outcome.why
    first, *rest = sentences.answer(outcome)
    assert first.startswith("openvino fp32: 2.50 times as fast as eager by default [2.5")
    assert any(line.startswith("runner-up: onnxruntime fp32, 1.25 times its time") for line in rest)


def test_a_default_is_measured_against_and_never_shipped() -> None:
    assert (
        best(
            [EAGER, timed("openvino[allocator:default][binding:none]", 1e-3)], wishes.parse("min latency", "")
        )[0]
        is None
    )


def test_what_the_launcher_gives_is_said() -> None:
    """Except where the file by itself is a library by default, which the first line has."""
    extended = timed("onnxruntime[optimization:extended]", 4e-3)
    plain = timed("onnxruntime[optimization:extended][allocator:default][binding:none]", 5e-3)
    words = "the same file without what run.sh sets: 1.25 times its time [1.25"
    outcome = choice([EAGER, extended], confirm=[EAGER, extended, plain])
    assert any(line.startswith(words) for line in sentences.answer(outcome))
    usual, default = timed("onnxruntime", 4e-3), timed(f"onnxruntime{candidates.DEFAULTS}", 5e-3)
    outcome = choice([EAGER, default, usual])
    assert not any("run.sh" in line for line in sentences.answer(outcome))


def test_of_equal_ones_the_simpler_is_chosen_and_said() -> None:
    fused, plain = timed("onnxruntime[fusion:transformer]", 4.00e-3), timed("onnxruntime", 4.03e-3)
    package = timed("compile[package:aoti]", 4.01e-3)
    outcome = choice([EAGER, package, fused, plain])
    assert outcome.chosen is plain
    assert "onnxruntime[fusion:transformer] fp32 is as good within 2%" in outcome.why
    half = timed("openvino", 3.98e-3, "bf16")
    assert choice([EAGER, half, plain]).chosen is plain


def test_a_bound_leaves_out_the_fastest() -> None:
    large, small = timed("openvino", 3e-3, memory=9e8), timed("onnxruntime", 4e-3, memory=1e8)
    outcome = choice([EAGER, large, small], "memory<=500MB")
    assert outcome.chosen is small
    rows = {row[0]: row[3] for row in sentences.rows(outcome)}
    assert rows["openvino fp32"] == "breaks memory<=500MB: 858 MiB"
    assert any("memory<=500MB holds" in line for line in sentences.answer(outcome))


def test_infeasible_is_an_answer() -> None:
    untried = Result(
        Case("net", "compile"), "race", Plan(), "skipped", Reason("not_tried", "it takes about 40 s")
    )
    outcome = choice([EAGER, timed("openvino", 3e-3), timed("onnxruntime", 4e-3), untried], "latency<=1ms")
    lines = list(sentences.answer(outcome))
    assert lines[0] == "nothing meets latency<=1ms; nearest: openvino fp32, 3.00 ms [2.99 ms, 3.01 ms]"
    assert lines[-1] == "what would: it takes about 40 s (compile fp32)"
    assert not sentences.holds(outcome)


def test_what_fresh_blocks_do_not_show_does_not_hold() -> None:
    chosen = timed("openvino", 3e-3, memory=4e8)
    worse = timed("openvino", 3e-3, memory=6e8)
    outcome = choice([EAGER, chosen], "memory<=500MB", [EAGER, worse])
    assert outcome.chosen is chosen and not sentences.holds(outcome)
    assert any("memory<=500MB does not hold: 572 MiB" in line for line in sentences.answer(outcome))


def test_two_blocks_confirm_nothing() -> None:
    chosen = timed("openvino", 3e-3)
    two = Samples("s", "lower", ((3e-3,) * 4, (3.1e-3,) * 4))
    again = msgspec.structs.replace(chosen, metrics={"latency": two})
    outcome = choice([EAGER, chosen], "", [EAGER, again])
    assert list(sentences.answer(outcome)) == [
        "openvino fp32 is the best so far, and not confirmed: the second race had time for 2 of at least 3"
        " blocks; raise --budget"
    ]
    assert not sentences.holds(outcome)
    assert "stopped before the second race" in next(iter(sentences.answer(choice([EAGER, chosen], "", []))))


def test_each_loser_has_a_cause() -> None:
    other = timed("openvino", 8e-3)
    broken = Placement("cpu", {"cpu": 1}, {"graph_breaks": 3})
    breaks = msgspec.structs.replace(timed("compile[package:aoti]", 6e-3), placement=broken)
    failed = Result(
        Case("net", "openvino", "bf16"), "race", Plan(), "failed", Reason("accuracy", "outputs are off")
    )
    rows = {
        row[0]: row[3]
        for row in sentences.rows(choice([EAGER, timed("onnxruntime", 4e-3), other, breaks, failed]))
    }
    assert rows["onnxruntime fp32"] == "chosen"
    assert rows["compile[package:aoti] fp32"] == "3 graph breaks, between which Python runs"
    assert rows["openvino bf16"] == "accuracy: outputs are off"
    assert all(rows.values())


def test_ways_begin_with_the_baseline_and_what_is_built_soon() -> None:
    cases = candidates.ways("net", 1, "cpu", ("fp32", "int8"), Plan(threads=2))
    assert (cases[0].backend, cases[0].options) == ("eager", LIBRARY_DEFAULTS)
    seconds = [candidates.expected_s(case) for case in cases]
    soon = [value <= candidates.SOON_S for value in seconds]
    assert soon == sorted(soon, reverse=True)
    assert not any(case.precision == "bf16" for case in cases)
    assert any(case.options == (("threads", "1"),) for case in cases)
    alone = candidates.ways("net", 1, "cpu", ("fp32",), Plan(threads=1))
    assert not any(dict(case.options).get("threads") == "1" for case in alone)
    assert {case.backend for case in candidates.ways("net.onnx", 1, "cpu", ("fp32",), Plan())} == {
        "onnxruntime",
        "openvino",
    }


class Standing:
    """What a knock-out race asks of an entrant."""

    def __init__(self, seconds: float) -> None:
        self.case = Case("net", "onnxruntime")
        self.blocks = [[seconds * (1 + 0.001 * number)] * 4 for number in range(3)]
        self.seen = SimpleNamespace(timed=self.blocks)
        self.refusal, self.let_go, self.own_work, self.doubts = None, "", False, []

    @property
    def live(self) -> bool:
        return not self.let_go

    def latencies(self) -> list[list[float]]:
        return self.blocks


def test_who_is_surely_slower_leaves() -> None:
    near, far, first = Standing(1.01e-3), Standing(3e-3), Standing(1e-3)
    race = Knockout([Standing(10e-3), near, far, first], Plan(), None, print, print)  # type: ignore[list-item,arg-type]
    for entrant in (near, far):
        entrant.worker = None  # type: ignore[attr-defined]
        entrant.spent_s = 0.0  # type: ignore[attr-defined]
    race.look(10.0)
    assert "surely slower" in far.let_go and not near.let_go and not first.let_go


def test_a_race_is_given_its_budget_once_for_each_precision_and_a_choice_once_in_all() -> None:
    fp32 = Case("net", "openvino", "fp32", 1)
    cases = [fp32, replace(fp32, precision="int8"), replace(fp32, precision="bf16")]
    plan = Plan(budget_s=100.0)
    assert for_all(plan, cases).budget_s == 300.0 and for_all(plan, cases[:1]).budget_s == 100.0
    assert searching(plan).budget_s == 25.0
