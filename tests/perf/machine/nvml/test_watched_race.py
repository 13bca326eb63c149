"""Races whose device is watched: workers of their own on the stand-in's device."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .scenarios import GIB, NORMAL

# Calls that a worker makes until its first turn: it opens the device twice (itself, its meter) and
# reads it.
ASKED_UNTIL_TURNS = 24


class Watched(NamedTuple):
    """How one race is watched."""

    scenario: dict[str, Any] = NORMAL
    # Of the scenario, after the first block.
    changes: dict[str, Any] | None = None
    budget_s: float = 60
    # CUDA_VISIBLE_DEVICES, where it is set.
    visible: str | None = None


RACES = {
    "throttled": Watched(changes={"throttle": "0x20", "ecc_uncorrected": 1}),
    "small budget": Watched({**NORMAL, "energy_every": 400}, budget_s=2),
    "lost between blocks": Watched(changes={"every.error": 15}),
    "lost in a turn": Watched({**NORMAL, "lost_after": ASKED_UNTIL_TURNS}),
    "invisible": Watched(visible=""),
}
CODE = """
from pathlib import Path
from hotlap.perf.measure import answer
from hotlap.perf.terms.case import Case
from hotlap.perf.measure.prepare import Preparation
from hotlap.perf.race.race import Race
from hotlap.perf.terms.case import Plan
from hotlap.perf.race.servers import Servers
from hotlap.perf.lookup.workloads import Reference

file = Path(os.environ["HOTLAP_STANDIN_NVML"])
plan = Plan(budget_s=60, looks=(2,), rounds=4, tail_s=0.02, timeout_s=60, threads=1)
servers = Servers(file.parent / "race", plan.timeout_s, lambda line: None)
preparation = Preparation(Reference("planted.workloads:tiny"), file.parent / "race", plan, servers)
case = Case("planted.workloads:tiny", "null", target="cuda:0", options=(("takes", "0.2ms"),))

def watched(first, changes, budget_s, visible):
    file.write_text("")
    scenario(**first)
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
    entrant = preparation.build(case)
    own = msgspec.structs.replace(plan, budget_s=budget_s)
    race = Race([entrant], own, servers, lambda line: None, lambda: scenario(**(changes or {})))
    race.run()
    return answer.answer(answer.Setting("race", own, ""), entrant, entrant, race.stopped_by, False)

try:
    preparation.refer([Case("planted.workloads:tiny", "null")], False, lambda line: None, lambda line: None)
    reply([watched(*race) for race in RACES])
finally:
    preparation.close()
    servers.close()
"""


@pytest.fixture(scope="module")
def results(
    child_of: Callable[..., subprocess.CompletedProcess[str]],
    planted: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The Result of each of RACES, of workers of their own which do a case on the stand-in's
    device: only what telemetry says of it is looked at. All are of one child, which imports torch
    once.
    """
    code = CODE.replace("RACES", repr([tuple(race) for race in RACES.values()]))
    done = child_of(tmp_path_factory.mktemp("watched"), code)
    return dict(zip(RACES, json.loads(done.stdout), strict=True))


def test_a_race_watches_its_device(results: dict[str, Any]) -> None:
    result = results["throttled"]
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


def test_a_race_with_too_small_a_budget_for_energy_has_none(results: dict[str, Any]) -> None:
    result = results["small budget"]
    assert "energy" not in result["metrics"] and result["absent"]["energy"]["code"] == "timeout"


@pytest.mark.parametrize("lost", ["lost between blocks", "lost in a turn"])
def test_a_device_lost_midway_ends_its_case(results: dict[str, Any], lost: str) -> None:
    result = results[lost]
    assert (result["status"], result["reason"]["code"]) == ("failed", "crashed")
    assert "GPU is lost" in result["reason"]["detail"]


def test_a_device_lost_in_a_turn_ends_its_case_before_the_blocks_end(results: dict[str, Any]) -> None:
    assert "nvmlDeviceGetCurrentClocksEventReasons" in results["lost in a turn"]["reason"]["detail"]


def test_a_race_on_a_device_that_cannot_be_watched_says_so(results: dict[str, Any]) -> None:
    result = results["invisible"]
    unseen = "no_device: cuda:0: CUDA sees 0 device(s) here (CUDA_VISIBLE_DEVICES=)"
    assert f"the GPU's clocks and memory errors were not watched: {unseen}" in result["warnings"]
    assert result["absent"]["energy"]["code"] == "no_device"
