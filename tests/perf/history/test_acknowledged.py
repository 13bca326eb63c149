"""Alarms that somebody accepts: what they say and where, which alarms they mean, and mistakes in
history.toml.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotlap.perf import cli
from hotlap.perf.history import acknowledged
from hotlap.perf.history.acknowledged import Acknowledgements
from hotlap.perf.history.archive import Point
from hotlap.perf.terms import verdict

Captured = pytest.CaptureFixture[str]
# Days and the number of the run at which the level of `slower` changes.
DAYS, CHANGE = 60, 53
CASE = "a/eager/fp32/b1/cpu/inference"


def slower(seed: int = 1) -> list[float]:
    """A latency that grew by 10 % seven points ago."""
    rng = random.Random(seed)
    return [1e-3 * math.exp(rng.gauss(0, 0.01)) * (1.1 if day >= CHANGE else 1) for day in range(DAYS)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def history(*arguments: str) -> int:
    return cli.status(["history", "results", "--index", "index", *arguments])


def accepted(**keys: str) -> str:
    """An entry of history.toml that means the alarm of `slower`, but for what is named."""
    keys = {"case": '"a/*"', "metric": '"latency"', "reason": '"safer sums"'} | keys
    return "\n".join(["[[acknowledged]]", *(f"{name} = {value}" for name, value in keys.items()), ""])


def test_an_acknowledged_alarm_is_shown_with_its_reason_and_is_no_failure(
    stored: Any, capsys: Captured
) -> None:
    stored.runs(Path("results"), {"a": slower()})
    assert history() == 1
    capsys.readouterr()
    Path("history.toml").write_text(accepted(commit=f'"{stored.sha(CHANGE)[:10]}"'))
    assert history("--json", "out.json", "--markdown", "out.md", "--html", "out.html") == 0
    shown = capsys.readouterr().out
    for text in (shown, Path("out.md").read_text(), Path("out.html").read_text()):
        assert "acknowledged: safer sums" in text and "reason = " not in text
    (finding,) = json.loads(Path("out.json").read_bytes())["findings"]
    assert (finding["verdict"], finding["acknowledged"]) == ("pass", "safer sums")
    assert "acknowledged alarm" in Path("out.html").read_text()
    assert "history: pass" in shown and "matches no alarm" not in shown
    assert verdict.read(Path("out.json")).exit_status == 0


def test_the_entry_that_an_alarm_prints_acknowledges_it(stored: Any, capsys: Captured) -> None:
    """Once a reason is written; as it is printed, it asks for one."""
    stored.runs(Path("results"), {"a": slower()})
    assert history("--json", "out.json", "--markdown", "out.md", "--html", "out.html") == 1
    (finding,) = json.loads(Path("out.json").read_bytes())["findings"]
    entry = finding["entry"]
    for text in (capsys.readouterr().out, Path("out.md").read_text()):
        assert all(f"    {line}\n" in text for line in entry)
    assert "commit = &#34;" in Path("out.html").read_text()
    Path("history.toml").write_text("\n".join(entry))
    assert history() == 2
    assert "needs a reason" in capsys.readouterr().err
    Path("history.toml").write_text("\n".join(entry).replace('""', '"meant"'))
    assert history() == 0
    assert "acknowledged: meant" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"commit": "SHA"}, 0),
        ({"date": "DAY"}, 0),
        ({"commit": "SHA", "case": '"*"'}, 0),
        ({"commit": "SHA", "case": '"b/*"'}, 1),
        ({"commit": "SHA", "metric": '"memory"'}, 1),
        ({"commit": '"0123456789"'}, 1),
        ({"date": "2026-01-01"}, 1),
    ],
)
def test_an_entry_means_its_own_alarm_alone(
    keys: dict[str, str], status: int, stored: Any, capsys: Captured
) -> None:
    stored.runs(Path("results"), {"a": slower()})
    known = {"SHA": f'"{stored.sha(CHANGE)[:7]}"', "DAY": f"2026-{1 + CHANGE // 28:02}-{1 + CHANGE % 28:02}"}
    Path("other.toml").write_text(accepted(**{name: known.get(value, value) for name, value in keys.items()}))
    assert history("--acknowledged", "other.toml") == status
    notes = [line for line in capsys.readouterr().out.splitlines() if "matches no alarm" in line]
    assert len(notes) == status


def test_another_alarm_is_still_one(stored: Any, capsys: Captured) -> None:
    stored.runs(Path("results"), {"a": slower(), "b": slower(2)})
    Path("history.toml").write_text(accepted(commit=f'"{stored.sha(CHANGE)[:10]}"'))
    assert history() == 1
    shown = capsys.readouterr().out
    assert "a/eager/fp32/b1/cpu/inference: latency" in shown and "acknowledged: safer sums" in shown
    assert 'case = "b/eager/fp32/b1/cpu/inference"' in shown and f'case = "{CASE}"' not in shown
    # Of a part of the series an entry for another part is no mistake.
    assert history("--case", "b/*") == 1
    assert "matches no alarm" not in capsys.readouterr().out


def test_too_short_a_history_is_no_pass_for_an_acknowledged_alarm(stored: Any) -> None:
    """Of 14 points the last three are off: provisional, in a series too short for a change."""
    values = slower()[:11] + [1.5e-3] * 3
    stored.runs(Path("results"), {"a": values})
    assert history("--metric", "latency", "--json", "out.json") == 3
    (finding,) = json.loads(Path("out.json").read_bytes())["findings"]
    Path("history.toml").write_text("\n".join(finding["entry"]).replace('""', '"meant"'))
    assert history("--metric", "latency", "--json", "out.json") == 3
    (finding,) = json.loads(Path("out.json").read_bytes())["findings"]
    assert finding["verdict"] == "pass"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (accepted(), "needs either a commit or a date"),
        (accepted(commit='"0123456"', date="2026-01-01"), "needs either a commit or a date"),
        (accepted(commit='"0123456"', reason='" "'), "needs a reason"),
        (accepted(commit='"012"'), "$.acknowledged[0].commit"),
        (accepted(commit='"main"'), "$.acknowledged[0].commit"),
        (accepted(date='"yesterday"'), "$.acknowledged[0].date"),
        (accepted(commit='"0123456"', cases='"a"'), "unknown field `cases`"),
        ('[[acknowledged]]\ncase = "a"\n', "missing required field `metric`"),
        ("[[acknowleged]]\n", "unknown field `acknowleged`"),
        ("[[acknowledged]\n", "no acknowledgements"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(text: str, words: str, stored: Any, capsys: Captured) -> None:
    stored.runs(Path("results"), {"a": slower()})
    Path("history.toml").write_text(text)
    assert history() == 2
    message = capsys.readouterr().err
    assert message.startswith("hotlap: history.toml: no acknowledgements: ")
    assert words in message and message.count("\n") == 1


def test_a_file_that_is_named_and_not_there_is_a_mistake(stored: Any, capsys: Captured) -> None:
    stored.runs(Path("results"), {"a": slower()})
    assert history("--acknowledged", "absent.toml") == 2
    assert capsys.readouterr().err == "hotlap: absent.toml: there is no such file\n"


@pytest.mark.parametrize(
    ("case", "revision"),
    [
        ('"quoted" \\ and [glob]*', "0123456789abcdef"),
        ("é \u202e \x1b \x7f \x9b\n", "0123456789abcdef+"),
        ("\U0001f3c1", "r4711"),
        ("a", ""),
    ],
)
def test_the_entry_is_toml_and_matches_whatever_the_names(case: str, revision: str) -> None:
    """What cannot be printed is a ? of the glob, and what is no hash is a date."""
    point = Point("x", 1.77e9, case, "latency", "time", "k", revision, 1.0, 1.0, "s", "lower")
    lines = acknowledged.entry(point)
    assert all(line.isprintable() for line in lines)
    text = "\n".join(lines).replace('""', '"meant"')
    assert msgspec.toml.decode(text, type=Acknowledgements).reason(point) == "meant"
    assert ("commit = " in text) == revision.startswith("0123456")
