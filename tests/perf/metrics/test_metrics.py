"""Each metric from observations with known numbers, and the reason where it cannot be had."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hotlap.perf.lookup import plugins
from hotlap.perf.machine.telemetry import Window
from hotlap.perf.measure import answer
from hotlap.perf.race.messages import Weigh
from hotlap.perf.race.observations import Block, Observations
from hotlap.perf.race.tasks import Tasks
from hotlap.perf.race.timing import Turn, WarmUp
from hotlap.perf.stats import estimates
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Reason, Refusal
from hotlap.perf.terms.result import Samples
from hotlap.perf.terms.work import Subject, Work

MIB = 2**20


def turn(call_s: float, calls: int = 4) -> Turn:
    return Turn(first_s=9.0, call_s=call_s, calls=calls, cpu_s=0.0, switches=0, migrations=0, faults=0)


def block(*call_s: float, fresh: bool = True, **more: Any) -> Block:
    """A worker that took 1 s to start, 0.5 s to load, 0.25 s for its first call, with peaks of 100,
    150, 120 and 140 MiB.
    """
    defaults: dict[str, Any] = {
        "start_s": 1.0,
        "load_s": 0.5,
        "first_call_s": 0.25,
        "import_peak_bytes": 100 * MIB,
        "load_peak_bytes": 150 * MIB,
        "first_call_peak_bytes": 120 * MIB,
        "run_peak_bytes": 140 * MIB,
        "warm": WarmUp(4, True, 0.125, 0.01),
        "turns": [turn(value) for value in call_s],
        "numbers": list(range(len(call_s))),
    }
    return Block(fresh=fresh, **{**defaults, **more})


def seen(*blocks: Block, **more: Any) -> Observations:
    """Blocks of a case with batch 8, two items a sample, 1 MFLOP a call; one that died before its
    first turn is among them.
    """
    defaults: dict[str, Any] = {
        "ledger": {"export": 2.0, "compile": 3.0},
        "subject": Subject(Work(1_000_000, 7, 1, 2, "token", True), ""),
        "peaks": {"flop_rate": 4e8},
    }
    return Observations(
        **{"case": Case("net", "null", batch=8), **defaults, **more}, blocks=[*blocks, block()]
    )


def measure(name: str, observations: Observations) -> Samples:
    samples: Samples = plugins.load("hotlap.metrics", name).measure(observations)
    return samples


def absent(name: str, observations: Observations) -> str:
    with pytest.raises(Refusal) as refused:
        measure(name, observations)
    return str(refused.value.reason)


TWO = seen(block(0.01, 0.02), block(0.005, fresh=False, numbers=[7]))


def test_latency() -> None:
    assert measure("latency", TWO) == Samples("s", "lower", ((0.01, 0.02), (0.005,)), ((0, 1), (7,)))


def test_throughput_is_items_a_second() -> None:
    samples = measure("throughput", TWO)
    assert (samples.unit, samples.better, samples.turns) == ("1/s", "higher", ((0, 1), (7,)))
    assert samples.values == (pytest.approx((1600, 800)), pytest.approx((3200,)))
    assert samples.details == {"item": "token", "items_per_call": 16}


def test_flop_rate_stands_beside_the_peak() -> None:
    samples = measure("flop_rate", TWO)
    assert (samples.unit, samples.better) == ("FLOP/s", "higher")
    assert samples.values == (pytest.approx((1e8, 5e7)), pytest.approx((2e8,)))
    share = (0.75e8 + 2e8) / 2 / 4e8
    assert samples.details == {
        "flops": 1_000_000,
        "operators_eager": 7,
        "peak": 4e8,
        "share_of_peak": pytest.approx(share),
    }
    assert "peak" not in measure("flop_rate", seen(block(0.01), peaks={})).details


def test_flop_rate_needs_arithmetic() -> None:
    without = Subject(Work(0, 7, 1, 1, "row", True), "")
    assert absent("flop_rate", seen(block(0.01), subject=without)).startswith(
        "unsupported_op: torch's flop counter found no matrix product"
    )


def test_memory_is_the_peak_of_all_phases_of_fresh_workers() -> None:
    blocks = (
        block(0.01, gpu={"torch_peak": 5}),
        block(0.01, run_peak_bytes=210 * MIB),
        block(0.01, fresh=False, run_peak_bytes=999 * MIB),
    )
    samples = measure("memory", seen(*blocks))
    assert (samples.unit, samples.better) == ("B", "lower")
    assert samples.values == ((150.0 * MIB,), (210.0 * MIB,))
    assert samples.details == {
        "after_imports_bytes": 100 * MIB,
        "growth_bytes": 50 * MIB,
        "load_peak_bytes": 150 * MIB,
        "first_call_peak_bytes": 120 * MIB,
        "run_peak_bytes": 140 * MIB,
        "gpu_torch_peak_bytes": 5,
    }


def test_memory_never_shrinks_below_nothing() -> None:
    assert measure("memory", seen(block(0.01, import_peak_bytes=999 * MIB))).details["growth_bytes"] == 0


def test_cold_start_is_the_build_and_each_fresh_workers_start() -> None:
    samples = measure(
        "cold_start", seen(block(0.01), block(0.01, start_s=2.0), block(0.01, fresh=False, start_s=0.0))
    )
    assert (samples.unit, samples.better) == ("s", "lower")
    assert samples.values == ((6.75,), (7.75,))
    assert samples.details == {
        "export": 2.0,
        "compile": 3.0,
        "import": 1.0,
        "load": 0.5,
        "first_call": 0.25,
        "steady": 0.125,
    }


@pytest.mark.parametrize("name", ["memory", "cold_start"])
def test_what_needs_a_fresh_worker_is_absent_without_one(name: str) -> None:
    assert (
        absent(name, seen(block(0.01, fresh=False)))
        == "interrupted: no worker that started fresh lived to the end of its block"
    )


def test_energy_is_joules_a_call_with_the_first_call_of_each_turn() -> None:
    samples = measure(
        "energy", seen(block(0.01, 0.01, joules=[1.0, 2.0]), block(0.01), block(0.01, joules=[4.0]))
    )
    assert (samples.unit, samples.better) == ("J", "lower")
    assert samples.values == ((3.0 / 10,), (4.0 / 5,))


def test_energy_without_a_meter_is_absent_for_the_meters_reason() -> None:
    assert (
        absent("energy", seen(block(0.01), no_meter={"code": "no_device", "detail": "no RAPL"}))
        == "no_device: no RAPL"
    )
    assert absent("energy", seen(block(0.01))) == "interrupted: no block with energy readings was finished"


def test_with_a_cold_cache_a_gpu_has_no_energy_of_its_calls() -> None:
    """The counter runs on while the cache is emptied between them."""
    case = Case("net", "eager", target="cuda:0", options=(("l2", "cold"),))
    worker = SimpleNamespace(meter=SimpleNamespace(gpu=object()), case=case)
    weighed = Tasks.weigh(worker, Weigh(1.0))  # type: ignore[arg-type]
    assert weighed.window is None and weighed.reason is not None
    assert weighed.reason.code == "unsupported_op" and "l2:cold" in weighed.reason.detail


def test_energy_of_a_gpu_is_that_of_windows_and_never_of_turns() -> None:
    case = Case("net", "null", target="cuda:0")
    window = Window(energy_j=12.0, calls=48, updates=100, length_s=2.0)
    samples = measure(
        "energy", seen(block(0.01, joules=[9.0], energy=window), block(0.01, joules=[9.0]), case=case)
    )
    assert samples.values == ((0.25,),)
    assert samples.details == {"least_updates": 100, "shortest_window_s": 2.0}
    assert (
        absent("energy", seen(block(0.01, joules=[9.0]), case=case))
        == "interrupted: the race ended before its pass for energy"
    )
    assert (
        absent("energy", seen(block(0.01, joules=[9.0]), case=case, no_energy=Reason("timeout", "3 updates")))
        == "timeout: 3 updates"
    )


def test_call_latency_has_the_percentiles_that_its_single_calls_bear() -> None:
    tails = [[float(at if at % 2 else 100 - at) for at in range(start, start + 40)] for start in (0, 40)]
    samples = measure(
        "call_latency", seen(block(0.01, tail=tails[0]), block(0.01), block(0.01, tail=tails[1]))
    )
    assert (samples.unit, samples.better) == ("s", "lower")
    assert samples.values == tuple(tuple(tail) for tail in tails)
    expected, n = estimates.percentiles(tails[0] + tails[1])
    assert set(expected) == {"p90", "p95"}
    assert samples.details == {**expected, "effective_n": n}


def test_call_latency_without_single_calls_is_absent() -> None:
    assert (
        absent("call_latency", seen(block(0.01)))
        == "interrupted: the race ended before its pass of single calls"
    )


def test_every_metric_is_measured_or_absent_with_its_reason() -> None:
    metrics, missing = answer.measured(
        seen(block(0.01), no_meter={"code": "no_device", "detail": "no RAPL"}), own_work=False
    )
    assert set(metrics) | set(missing) == set(plugins.modules("hotlap.metrics"))
    assert missing == {
        "energy": Reason("no_device", "no RAPL"),
        "call_latency": Reason("interrupted", "the race ended before its pass of single calls"),
    }


def test_an_entrant_with_work_of_its_own_has_a_latency_and_nothing_else() -> None:
    metrics, missing = answer.measured(TWO, own_work=True)
    assert (list(metrics), missing) == (["latency"], {})
