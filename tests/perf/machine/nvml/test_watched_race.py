"""A race whose device is watched: workers of their own on the stand-in's device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .scenarios import GIB, NORMAL, Ask

# Calls that a worker makes until its first turn: it opens the device twice (itself, its meter) and
# reads it.
ASKED_UNTIL_TURNS = 24
RACE = """
from pathlib import Path
from hotlap.perf.measure import answer
from hotlap.perf.terms.case import Case
from hotlap.perf.measure.prepare import Preparation
from hotlap.perf.race.race import Race
from hotlap.perf.terms.case import Plan
from hotlap.perf.race.servers import Servers
from hotlap.perf.lookup.workloads import Reference

plan = Plan(budget_s=BUDGET_S, looks=(2,), rounds=4, tail_s=0.02, timeout_s=60, threads=1)
folder = Path(os.environ["HOTLAP_STANDIN_NVML"]).parent / "race"
servers = Servers(folder, plan.timeout_s, lambda line: None)
preparation = Preparation(Reference("planted.workloads:tiny"), folder, plan, servers)
def journal():
    scenario(**CHANGES)
try:
    preparation.refer([Case("planted.workloads:tiny", "null")], False, lambda line: None, lambda line: None)
    case = Case("planted.workloads:tiny", "null", target="cuda:0", options=(("takes", "0.2ms"),))
    entrant = preparation.build(case)
    race = Race([entrant], plan, servers, lambda line: None, journal)
    race.run()
finally:
    preparation.close()
    servers.close()
setting = answer.Setting("race", plan, "")
reply(answer.answer(setting, entrant, entrant, race.stopped_by, False))
"""


@pytest.fixture
def race(ask: Ask, planted: Path) -> Ask:
    """The Result of workers of their own, which do a case on the stand-in's device: only what
    telemetry says of it is looked at. CHANGES: after the first block.
    """

    def run(
        scenario: Mapping[str, Any] = NORMAL,
        changes: Mapping[str, Any] = {},
        budget_s: float = 60,
        **environment: str,
    ) -> Any:
        return ask(
            RACE.replace("CHANGES", repr(dict(changes))).replace("BUDGET_S", str(budget_s)),
            scenario,
            **environment,
        )

    return run


def test_a_race_watches_its_device(race: Ask) -> None:
    result = race(NORMAL, {"throttle": "0x20", "ecc_uncorrected": 1})
    assert "the GPU's clocks were held down in 1 of 2 blocks: sw_thermal_slowdown" in result["warnings"]
    assert (
        "1 uncorrected ECC errors of the GPU during the race; its results cannot be trusted"
        in result["warnings"]
    )
    details = result["metrics"]["latency"]["details"]
    assert (
        details["gpu_sm_clock_lowest_hz"],
        details["gpu_throttle"],
        details["gpu_ecc_uncorrected_new"],
    ) == (1_980_000_000, "sw_thermal_slowdown", 1)
    assert "gpu_absent" not in details
    assert result["metrics"]["memory"]["details"]["gpu_nvml_process_bytes"] == 3 * GIB
    (first,), (second,) = result["metrics"]["energy"]["values"]
    assert (
        first == second == pytest.approx(0.05 / 3)
        and result["metrics"]["energy"]["details"]["least_updates"] == 100
    )


def test_a_race_with_too_small_a_budget_for_energy_has_none(race: Ask) -> None:
    result = race({**NORMAL, "energy_every": 400}, budget_s=2)
    assert "energy" not in result["metrics"] and result["absent"]["energy"]["code"] == "timeout"


def test_a_device_lost_midway_ends_its_case(race: Ask) -> None:
    for scenario, changes in (
        (NORMAL, {"every.error": 15}),
        ({**NORMAL, "lost_after": ASKED_UNTIL_TURNS}, {}),
    ):
        result = race(scenario, changes)
        assert (result["status"], result["reason"]["code"]) == (
            "failed",
            "crashed",
        ) and "GPU is lost" in result["reason"]["detail"]
    assert "nvmlDeviceGetCurrentClocksEventReasons" in result["reason"]["detail"], (
        "lost in a turn, before the block's end"
    )


def test_a_race_on_a_device_that_cannot_be_watched_says_so(race: Ask) -> None:
    result = race(NORMAL, CUDA_VISIBLE_DEVICES="")
    unseen = "no_device: cuda:0: CUDA sees 0 device(s) here (CUDA_VISIBLE_DEVICES=)"
    assert f"the GPU's clocks and memory errors were not watched: {unseen}" in result["warnings"]
    assert result["absent"]["energy"]["code"] == "no_device"
