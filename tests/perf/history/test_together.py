"""What many cases do together that none of them shows alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hotlap.perf.history import archive, series
from hotlap.perf.history.together import NAME, together
from tests.perf.history.test_series import history, noise

RUNS = 60


def of_values(values: list[float], case: str) -> series.Series:
    points = [
        archive.Point(
            f"{at}.json", float(at), case, "latency", "time", "here", "", value, value, "s", "lower"
        )
        for at, value in enumerate(values)
    ]
    return series.Series(tuple(points))


def of_cases(seed: int, spread: float = 0.015) -> list[list[float]]:
    return [noise(RUNS, seed=100 * seed + case, level=1e-3 * (1 + case), spread=spread) for case in range(12)]


def test_a_step_that_no_case_shows_alone_is_an_alarm_of_all(stored: Any, tmp_path: Path) -> None:
    shifted = {
        f"w{case}": [value * (1.0125 if at >= RUNS - 8 else 1) for at, value in enumerate(values)]
        for case, values in enumerate(of_cases(0))
    }
    stored.runs(tmp_path / "results", shifted)
    status, report = history(tmp_path)
    (finding,) = report["findings"]
    assert status == 1 and finding["case"] == NAME
    assert 1.005 < finding["ratio"] < 1.02 and finding["base"] < 1.0 <= finding["head"] * 1.001
    joint = report["series"][0]
    assert joint["case"] == NAME and len(joint["points"]) == RUNS and joint["unit"] == ""
    # It is acknowledged as any other alarm is.
    (tmp_path / "history.toml").write_text("\n".join(finding["entry"]).replace('""', '"a new library"'))
    status, report = history(tmp_path, "--acknowledged", str(tmp_path / "history.toml"))
    assert status == 0, json.dumps(report["findings"])


def test_a_step_of_one_case_is_its_own_and_noise_is_none() -> None:
    alarms = 0
    for seed in range(40):
        values = of_cases(seed)
        values[0] = [value * (1.5 if at >= 30 else 1) for at, value in enumerate(values[0])]
        (joint,) = together([of_values(each, f"w{case}") for case, each in enumerate(values)])
        alarms += bool(joint.changes or joint.young)
    assert alarms <= 2


def test_cases_that_are_few_or_young_or_of_other_runs_are_not_put_together() -> None:
    cases = [of_values(values, f"w{case}") for case, values in enumerate(of_cases(0))]
    assert together(cases[:5]) == []
    assert (
        together([of_values([point.value for point in each.points[:14]], each.case) for each in cases]) == []
    )
    young = cases[6]._replace(points=cases[6].points[-20:])
    (joint,) = together([*cases[:6], young])
    assert len(joint.points) == RUNS
