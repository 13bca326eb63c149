"""Every figure of real traces against values that others computed (traces/EXPECTED.json), to the
nanosecond; damaged files by their own rules.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.profiles.facts.figures import figures
from hotlap.profiles.tables import kineto

from .. import real

SECTIONS = (
    "n_events",
    "ph",
    "cat",
    "gpu_counts",
    "timeline",
    "gaps",
    "correlation",
    "launch",
    "idle_device",
    "queue_length",
    "top_kernels",
    "op_attribution",
    "steps",
    "sync",
    "memcpy",
    "memory",
    "occupancy",
)


@pytest.mark.parametrize("key", real.EXPECTED)
def test_every_figure_is_the_expected_one(key: str) -> None:
    expected = real.EXPECTED[key]
    computed = figures(kineto.read(real.expected_trace(key)))
    sections = [section for section in SECTIONS if section in expected]
    assert len(sections) >= 4
    for section in sections:
        assert computed[section] == expected[section], section


@pytest.mark.parametrize("rule", real.BROKEN, ids=lambda rule: rule["file"])
def test_damaged_files_keep_what_is_whole_and_say_what_is_not(
    rule: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = real.damaged_trace(rule, tmp_path)
    clean, damaged = figures(kineto.read(real.trace(real.CLEAN))), figures(kineto.read(path))
    same = {section: damaged.get(section) == clean.get(section) for section in SECTIONS}
    assert all(same.values()) == rule["metrics_equal_clean_file"], same
    status, output = cli.status(["review", str(path)]), capsys.readouterr().out
    match path.name:
        case "truncated.json":
            text = path.read_text(errors="replace")
            whole = sum(1 for _ in events_before_the_cut(text))
            assert status == 4 and f"the file is cut: {whole:,} whole events" in output and whole > 1000
            assert cli.status(["review", str(path), "--allow-truncated"]) == 0
        case "trailing_comma.json":
            assert status == 0 and output.count("a comma stands") == 1
        case "empty_events.json":
            assert status == 4 and "no GPU events, and nothing else" in output
        case "bare_array.json":
            assert status == 0 and "unknown GPU" in output
        case _:
            assert status == 0 and "NVIDIA H100" in output


def events_before_the_cut(text: str) -> Any:
    """Yields one after the other with the standard library's own parser."""
    decoder, position = json.JSONDecoder(), text.index("[", text.index('"traceEvents"')) + 1
    while True:
        while text[position] in ", \n\t":
            position += 1
        try:
            event, position = decoder.raw_decode(text, position)
        except (json.JSONDecodeError, IndexError):
            return
        yield event


def test_the_pair_with_and_without_workers_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """What torch's own documentation shows with these two files: the first waits for its data
    loader.
    """
    assert cli.status(["review", str(real.trace("v100_resnet50_train_nw0.pt.trace.json.gz"))]) == 0
    without = capsys.readouterr().out
    assert cli.status(["review", str(real.trace("v100_resnet50_train_nw4.pt.trace.json.gz"))]) == 0
    with_workers = capsys.readouterr().out
    assert (
        "num_workers above 0" in without and "enumerate(DataLoader)#_SingleProcessDataLoaderIter" in without
    )
    assert "num_workers" not in with_workers
