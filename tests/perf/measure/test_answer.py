"""What a result says beside its figures: a precision that this machine multiplies slowly, work that
ran elsewhere than asked.
"""

from pathlib import Path

import pytest

from hotlap.perf.lookup import plugins
from hotlap.perf.measure import answer
from hotlap.perf.race.entrant import Entrant
from hotlap.perf.race.observations import Block, Observations
from hotlap.perf.race.timing import Turn
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Placement
from hotlap.perf.terms.work import Subject, Work

SUBJECT = Subject(Work(0, 1, 1, 1, "row", True), "as given")


@pytest.mark.parametrize(
    ("rate", "flags", "words"),
    [
        (
            2e9,
            {"avx2"},
            "bf16 runs at 0.02 of fp32's speed on this machine; this CPU lacks avx512_bf16 and amx_bf16",
        ),
        (
            9e10,
            {"avx512_bf16", "amx_bf16"},
            "bf16 runs at 0.90 of fp32's speed on this machine: the precision",
        ),
        (2e11, {"avx512_bf16"}, ""),
    ],
)
def test_a_precision_that_is_slower_than_fp32_is_said_with_the_reason(monkeypatch, rate, flags, words):
    monkeypatch.setattr(answer.cpu, "flags", lambda: frozenset(flags))
    warning = answer.slow_precision(
        Observations(Case("w", "eager", "bf16"), {}, SUBJECT, {"flop_rate": rate}, {"flop_rate": 1e11})
    )
    assert words in warning and bool(warning) == bool(words)


def test_of_fp32_itself_and_of_a_machine_without_peaks_nothing_is_said():
    same = {"flop_rate": 1e11}
    assert answer.slow_precision(Observations(Case("w", "eager"), {}, SUBJECT, same, same)) == ""
    assert answer.slow_precision(Observations(Case("w", "eager", "bf16"), {}, SUBJECT)) == ""


def timed(precision: str, times: list[float], **peaks: float) -> Entrant:
    seen = Observations(
        Case("w", "eager", precision),
        {},
        SUBJECT,
        {"flop_rate": peaks[precision]} if precision in peaks else {},
        {"flop_rate": 1e11},
    )
    for seconds in times:
        turns = [
            Turn(first_s=seconds, call_s=seconds, calls=1, cpu_s=seconds, switches=0, migrations=0, faults=0)
        ] * 3
        seen.blocks.append(Block(True, 0.0, 0.0, 0.0, 0, 0, 0, turns=turns))
    return Entrant(seen.case, plugins.backend("eager"), [], {}, Path(), Path(), Path(), seen, None)


@pytest.mark.parametrize(
    ("entrant", "words"),
    [
        (
            timed("bf16", [1.2, 1.21, 1.2], bf16=2e11),
            (
                "bf16 takes 1.20 times as long as fp32 in this backend, although a product of large matrices"
                " runs at 2.0 of fp32's speed here: this model's time is in smaller ones or elsewhere; hotlap"
                " profile shows where its time goes"
            ),
        ),
        (timed("bf16", [5.0, 5.1, 5.0], bf16=2e9), "bf16 takes 5.03 times as long as fp32 in this backend"),
        (
            timed("int8", [1.5, 1.6, 1.5]),
            (
                "int8 takes 1.53 times as long as fp32 in this backend; hotlap profile shows where its time"
                " goes"
            ),
        ),
        (timed("int8", [0.5, 0.6, 0.5]), ""),
        (timed("int8", [0.5, 5.0, 1.5]), ""),
        (timed("int8", [1.5, 1.5]), ""),
    ],
)
def test_a_precision_that_made_a_model_slower_is_said_with_what_is_known_of_why(entrant, words):
    """Only where the interval says so; two blocks or noise say nothing."""
    assert answer.slower(entrant, timed("fp32", [1.0, 1.0, 1.0])) == words


def test_times_of_an_entrant_that_left_the_race_are_no_yardstick():
    fp32 = timed("fp32", [1.0, 1.0, 1.0])
    fp32.refusal = Reason("stale_output", "outputs of other inputs")
    assert answer.slower(timed("int8", [1.5, 1.6, 1.5]), fp32) == ""


def test_what_ran_elsewhere_in_part_is_a_warning():
    seen = Observations(Case("w", "eager"), {}, SUBJECT)
    entrant = Entrant(seen.case, plugins.backend("eager"), [], {}, Path(), Path(), Path(), seen, None)
    assert answer.warnings(entrant) == []
    entrant.placement = Placement("cuda:0", {"cuda:0": 9, "cpu": 1}, partial="1 of 10 nodes ran on the CPU")
    assert answer.warnings(entrant) == ["1 of 10 nodes ran on the CPU"]
