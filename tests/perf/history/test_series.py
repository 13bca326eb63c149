"""Stored results over time: alarms young and old, and borders that nothing crosses."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.perf.terms import verdict


def noise(count: int, seed: int = 1, level: float = 1e-3, spread: float = 0.01) -> list[float]:
    rng = random.Random(seed)
    return [level * math.exp(rng.gauss(0, spread)) for _ in range(count)]


def history(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = cli.status(
        [
            "history",
            str(folder / "results"),
            "--index",
            str(folder / "index"),
            "--json",
            str(folder / "out.json"),
            *arguments,
        ]
    )
    return status, json.loads((folder / "out.json").read_bytes())


def one_series(report: dict[str, Any], metric: str = "latency") -> dict[str, Any]:
    (series,) = (series for series in report["series"] if series["metric"] == metric)
    return dict(series)


@pytest.mark.parametrize(
    ("young", "status", "words"),
    [
        (2, 0, ""),
        (3, 3, "provisional: 3 points"),
        (6, 1, "confirmed by 6 points"),
        (9, 1, "confirmed by 9 points"),
        (30, 0, ""),
    ],
)
def test_a_slower_level_is_an_alarm_while_it_is_young(
    stored: Any, young: int, status: int, words: str, tmp_path: Path
) -> None:
    values = noise(60)
    values[-young:] = [1.1 * value for value in values[-young:]]
    stored.runs(tmp_path / "results", {"a": values})
    ended, report = history(tmp_path)
    assert ended == status, report["findings"]
    if words:
        (finding,) = report["findings"]
        assert words in str(finding["evidence"]) and stored.sha(60 - young)[:12] in str(finding["evidence"])
        assert finding["ratio"] == pytest.approx(1.1, abs=0.02)
        assert finding["case"] == "a/eager/fp32/b1/cpu/inference"
    assert verdict.read(tmp_path / "out.json").tool == "history"


def test_a_case_that_is_no_longer_measured_is_named(stored: Any, tmp_path: Path) -> None:
    """Runs of other workloads in files of their own are no sign of it."""
    for day, value in enumerate(noise(20)):
        path = stored.run(tmp_path / "results" / f"{day}.json", day, {"a": value})
        if day < 15:
            content = json.loads(path.read_bytes())
            (result,) = content["results"]
            content["results"].append({**result, "case": {**result["case"], "backend": "compile"}})
            path.write_text(json.dumps(content))
        if day < 12:
            stored.run(tmp_path / "results" / f"other-{day}.json", day, {"b": value})
    _, report = history(tmp_path)
    (reason,) = (reason for reason in report["reasons"] if "newest" in reason)
    assert reason.startswith(
        "a/compile/fp32/b1/cpu/inference is not in the newest 3 results, last 2026-01-15"
    )


@pytest.mark.parametrize(("new", "status"), [(4, 3), (14, 3), (40, 0)])
def test_a_setting_that_is_gone_vouches_for_nothing_and_alarms_no_more(
    new: int, status: int, stored: Any, tmp_path: Path
) -> None:
    """The old setting ended in an alarm; the new one must be judged by itself, and what it lost
    with the old one is named.
    """
    values = [*noise(40), *(1.2 * value for value in noise(6))]
    for day, value in enumerate([*values, *noise(new, seed=2)]):
        path = stored.run(
            tmp_path / "results" / f"{day}.json",
            day,
            {"a": value},
            libraries={"torch": "2.14" if day < 46 else "2.15"},
        )
        if day < 46:
            content = json.loads(path.read_bytes())
            (result,) = content["results"]
            content["results"].append({**result, "case": {**result["case"], "backend": "compile"}})
            path.write_text(json.dumps(content))
    ended, report = history(tmp_path, "--metric", "latency")
    recent = new < 10  # the old alarm is among the newest results: still the news
    assert ended == (1 if recent else status), report["reasons"]
    assert any(
        reason.startswith("a/compile/") and "not in the newest" in reason for reason in report["reasons"]
    )


def test_too_short_to_alarm_is_no_pass(stored: Any, tmp_path: Path) -> None:
    """Twelve points, twice as slow from the seventh on: no detector could say so."""
    stored.runs(tmp_path / "results", {"a": [1e-3] * 6 + [2e-3] * 6})
    ended, report = history(tmp_path, "--metric", "latency")
    assert ended == 3 and "shorter than the 15 points" in str(report["reasons"])


def test_sides_of_ab_are_no_history(stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    for day, value in enumerate(noise(16)):
        stored.run(tmp_path / "runs" / "race" / f"{day}" / "results.json", day, {"a": value})
        stored.run(tmp_path / "runs" / "ab" / f"{day}" / "head.json", day, {"a": 2 * value})
    out = tmp_path / "out.json"
    assert cli.status(["history", "--json", str(out), "--metric", "latency"]) == 0
    (series,) = json.loads(out.read_bytes())["series"]
    assert len(series["points"]) == 16


def test_a_faster_level_is_no_alarm(stored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = noise(60)
    stored.runs(tmp_path / "results", {"a": [*values[:52], *(0.9 * value for value in values[52:])]})
    assert cli.status(["history", str(tmp_path / "results"), "--index", str(tmp_path / "index")]) == 0
    output = capsys.readouterr().out
    assert "better" in output and "history: pass" in output


def test_no_series_crosses_a_change_of_the_environment(stored: Any, tmp_path: Path) -> None:
    """torch is new and everything is slower: a border and two series, no alarm of ours."""
    for day, value in enumerate(noise(50)):
        new = day >= 30
        stored.run(
            tmp_path / "results" / f"{day}.json",
            day,
            {"a": value * (1.2 if new else 1)},
            libraries={"torch": "2.15" if new else "2.14"},
        )
    ended, report = history(tmp_path, "--metric", "latency")
    assert ended == 0 and [len(series["points"]) for series in report["series"]] == [30, 20]
    (border,) = report["borders"]
    assert border["changed"] == {"torch": ["2.14", "2.15"]} and border["commit"] == stored.sha(30)


def test_runners_that_take_turns_have_a_series_each(stored: Any, tmp_path: Path) -> None:
    values = noise(60)
    for day, value in enumerate(values):
        slow, late = day % 2, day >= 50
        stored.run(
            tmp_path / "results" / f"{day}.json",
            day,
            {"a": value * (1.5 if slow else 1) * (1.1 if late and slow else 1)},
            cpu="slow" if slow else "fast",
        )
    ended, report = history(tmp_path, "--metric", "latency")
    assert [len(series["points"]) for series in report["series"]] == [30, 30] and len(report["borders"]) == 2
    assert ended == 1 and len(report["findings"]) == 1


def test_a_counter_changes_exactly_and_is_told_with_its_commit(
    stored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in range(4):
        stored.run(tmp_path / "results" / f"{day}.json", day, {"a": 1e-3}, operators=30 if day < 2 else 31)
    _, report = history(tmp_path, "--metric", "operators")
    assert [change["index"] for change in one_series(report, "operators")["change_points"]] == [2]
    cli.status(["history", str(tmp_path / "results"), "--index", str(tmp_path / "index")])
    assert (
        f"{stored.sha(2)[:12]}: a/eager/fp32/b1/cpu/inference: operators 30 -> 31, worse"
        in capsys.readouterr().out
    )


def test_too_few_points_are_no_pass(stored: Any, tmp_path: Path) -> None:
    stored.runs(tmp_path / "results", {"a": noise(14)})
    ended, report = history(tmp_path)
    assert ended == 3 and "shorter than the 15 points" in report["reasons"][0]


def test_other_files_of_the_folder_are_counted_not_fatal(stored: Any, tmp_path: Path) -> None:
    stored.runs(tmp_path / "results", {"a": noise(16)})
    (tmp_path / "results" / "verdict.json").write_text("{}")
    (tmp_path / "results" / "broken.json").write_text('{"run": ')
    ended, report = history(tmp_path)
    assert ended == 0 and set(report["not_results"]) == {"verdict.json", "broken.json"}
    assert "2 of 18 files are no results" in str(report["reasons"])
    assert (
        cli.status(["history", str(tmp_path / "results" / "broken.json"), "--index", str(tmp_path / "index")])
        == 4
    )


def test_new_files_are_added_to_what_was_read(
    stored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored.runs(tmp_path / "results", {"a": noise(12)})
    history(tmp_path)
    stored.run(tmp_path / "results" / "new.json", 12, {"a": 1e-3})
    cli.status(["history", str(tmp_path / "results"), "--index", str(tmp_path / "index")])
    assert "13 files (1 new)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["absent"], 2, "no such file or folder"),
        (["."], 2, "no results in 0 files"),
        (["results", "--case", "vit/*"], 2, "there are: a/eager"),
        (["results", "--metric", "latncy"], 2, "there are: latency, operators"),
        (["results", "--html", "absent/page.html"], 2, "cannot write absent"),
        (["results", "--csv", "x.csv", "--column", "y"], 2, "without results"),
        (["--csv", "x.csv"], 2, "--column"),
        (["--csv", "x.csv", "--column", "y", "--html", "page.html"], 2, "its rows have no dates"),
        (["--csv", "x.csv", "--column", "y", "--acknowledged", "h.toml"], 2, "its rows have no dates"),
        (["results", "--better", "higher"], 2, "--better goes with --csv"),
        (["results", "--bisect", "vit"], 2, "no case 'vit'"),
        (["results", "--bisect", "a/eager/fp32/b1/cpu/inference"], 2, "nothing to look for"),
    ],
)
def test_mistakes_are_one_line(
    stored: Any,
    arguments: list[str],
    status: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments != ["."]:
        stored.runs(tmp_path / "results", {"a": noise(12)})
    assert cli.status(["history", *arguments, "--index", "index"]) == status
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("tail", "better", "status", "words"),
    [
        (7, "lower", 1, "worse (p"),
        (7, "higher", 0, "better (p"),
        (0, "lower", 0, "no change of level"),
        # So long ago that somebody has seen it.
        (30, "lower", 0, "worse (p"),
    ],
)
def test_a_column_of_a_csv_file_alarms_at_its_end(
    tail: int, better: str, status: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [*noise(40), *(1.2 * value for value in noise(tail))]
    file = tmp_path / "times.csv"
    file.write_text("\n".join(["when,seconds", *(f"{row},{value}" for row, value in enumerate(values))]))
    command = ["history", "--csv", str(file), "--column", "seconds", "--better", better]
    assert cli.status(command) == status
    printed = capsys.readouterr().out
    assert words in printed and ("an alarm" in printed) == (status == 1)
    assert cli.status([*command, "--json", "-"]) == status
    content = json.loads(capsys.readouterr().out)
    assert content["better"] == better and (content["alarm"] is not None) == (status == 1)


def test_a_case_that_alternates_is_named_and_alarms_not(
    stored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is fast in one process and slow in the next, and now slow for the fourth time in a row."""
    rng = random.Random(3)
    sides = [rng.choice([1.0, 1.25]) for _ in range(56)] + [1.25] * 4
    stored.runs(
        tmp_path / "results", {"a": [side * value for side, value in zip(sides, noise(60), strict=True)]}
    )
    ended, report = history(tmp_path, "--metric", "latency", "--html", str(tmp_path / "page.html"))
    series = one_series(report)
    assert ended == 0 and not series["change_points"] and series["provisional"] is None
    assert series["alternating"]["high"] / series["alternating"]["low"] == pytest.approx(1.25, abs=0.02)
    words = "two levels, alternating: 1.0"
    assert words in (tmp_path / "page.html").read_text()
    cli.status(["history", str(tmp_path / "results"), "--index", str(tmp_path / "index")])
    assert f"a/eager/fp32/b1/cpu/inference: latency: {words}" in capsys.readouterr().out
