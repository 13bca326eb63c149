"""What a result says beside its figures: a precision that this machine multiplies slowly, work that ran elsewhere than asked."""

from pathlib import Path

import pytest

from hotlap.perf import answer, plugins
from hotlap.perf.case import Case
from hotlap.perf.observations import Observations
from hotlap.perf.race import Lane
from hotlap.perf.result import Placement


@pytest.mark.parametrize(
    ("rate", "flags", "words"),
    [
        (2e9, {"avx2"}, "bf16 runs at 0.02 of fp32's speed on this machine; this CPU lacks avx512_bf16 and amx_bf16"),
        (9e10, {"avx512_bf16", "amx_bf16"}, "bf16 runs at 0.90 of fp32's speed on this machine: the precision"),
        (2e11, {"avx512_bf16"}, ""),
    ],
)
def test_a_precision_that_is_slower_than_fp32_is_said_with_the_reason(monkeypatch, rate, flags, words):
    monkeypatch.setattr(answer, "cpu_flags", lambda: frozenset(flags))
    said = answer.slow_precision(Observations(Case("w", "eager", "bf16"), {}, {}, {"flop_rate": rate}, fp32={"flop_rate": 1e11}))
    assert words in said and bool(said) == bool(words)


def test_of_fp32_itself_and_of_a_machine_without_peaks_nothing_is_said():
    same = {"flop_rate": 1e11}
    assert answer.slow_precision(Observations(Case("w", "eager"), {}, {}, same, fp32=same)) == ""
    assert answer.slow_precision(Observations(Case("w", "eager", "bf16"), {}, {}, {})) == ""


def test_what_ran_elsewhere_in_part_is_a_warning():
    seen = Observations(Case("w", "eager"), {}, {"sensitive": True, "weights": "as given"}, {})
    lane = Lane(seen.case, plugins.backend("eager"), [], {}, Path(), Path(), Path(), seen, None)
    assert answer.warnings(lane) == []
    lane.placement = Placement("cuda:0", {"cuda:0": 9, "cpu": 1}, partial="1 of 10 nodes ran on the CPU")
    assert answer.warnings(lane) == ["1 of 10 nodes ran on the CPU"]
