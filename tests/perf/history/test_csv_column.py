"""A column with gaps and impossible numbers: what is left out is said, rows keep their numbers."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest

from hotlap.perf import cli

Captured = pytest.CaptureFixture[str]


def lines(path: Path, cells: list[str]) -> list[str]:
    """Writes the cells as a column beside another, and returns the command that reads it."""
    path.write_text("\n".join(["when,s", *(f"{row},{cell}" for row, cell in enumerate(cells))]))
    return ["history", "--csv", str(path), "--column", "s"]


def cells(seed: int = 1) -> list[str]:
    """Sixty measurements, the last eight a third slower."""
    rng = random.Random(seed)
    return [f"{math.exp(rng.gauss(0, 0.01)) * (1.33 if row >= 52 else 1):.5f}" for row in range(60)]


@pytest.mark.parametrize(
    ("put", "words"),
    [
        ({3: ""}, "row 4 left out: an empty cell"),
        ({3: " ", 9: "", 20: ""}, "3 rows from row 4 on left out: an empty cell"),
        ({5: "0"}, "row 6 left out: no measurement, as 0, negative or beyond bounds"),
        ({5: "-1.5", 7: "0", 8: "inf", 9: "nan"}, "4 rows from row 6 on left out: no measurement"),
    ],
)
def test_what_is_no_measurement_is_left_out_in_one_line(
    put: dict[int, str], words: str, tmp_path: Path, capsys: Captured
) -> None:
    """And the change keeps the number of its row."""
    column = cells()
    for row, text in put.items():
        column[row] = text
    command = lines(tmp_path / "times.csv", column)
    assert cli.status(command) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(words) and second.startswith("row 53: +") and "an alarm" in second
    assert cli.status([*command, "--json", "-"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["change_points"][0]["index"] == content["alarm"]["index"] == 52
    assert content["left_out"][0].startswith(words)


def test_without_gaps_nothing_is_left_out(tmp_path: Path, capsys: Captured) -> None:
    assert cli.status([*lines(tmp_path / "times.csv", cells()), "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out)["left_out"] == []


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (["0", "-1", ""], "row 2 has no measurement under s, nor has any other"),
        (["", ""], "row 2 has no number under s, nor has any other"),
        (["1", "fast"], "row 3 has no number under s"),
    ],
)
def test_a_column_without_measurements_or_with_words_is_none(
    column: list[str], words: str, tmp_path: Path, capsys: Captured
) -> None:
    assert cli.status(lines(tmp_path / "times.csv", column)) == 4
    assert words in capsys.readouterr().err


def test_an_alternation_is_named_instead_of_changes(tmp_path: Path, capsys: Captured) -> None:
    rng = random.Random(2)
    column = [f"{rng.choice([1.0, 1.3]) * math.exp(rng.gauss(0, 0.01)):.5f}" for _ in range(60)]
    command = lines(tmp_path / "times.csv", column)
    assert cli.status(command) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(
        r"two levels, alternating: (1\.00|0\.99)\d+ and 1\.(29|30)\d* \(\d\d% of the points\)", line
    )
    assert cli.status([*command, "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["alternating"]["high"] == pytest.approx(1.3, rel=0.02) and not content["change_points"]


def test_an_empty_line_keeps_its_number_and_a_mark_of_byte_order_is_no_letter(
    tmp_path: Path, capsys: Captured
) -> None:
    """One column alone: an empty line is an empty cell, but for those at the end."""
    path = tmp_path / "x.csv"
    path.write_text(
        "\ufeffx\n" + "1.0\n" * 3 + "\n" + "1.01\n" * 17 + "2.0\n" * 12 + "\n\n", encoding="utf-8"
    )
    assert cli.status(["history", "--csv", str(path), "--column", "x", "--json", "-"]) in (0, 1)
    content = json.loads(capsys.readouterr().out)
    assert [step["index"] for step in content["change_points"]] == [21]
    assert content["left_out"] == ["row 4 left out: an empty cell"]
