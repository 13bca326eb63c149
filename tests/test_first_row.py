"""bench/first_row.py takes a row for a row and nothing else, and leaves no process."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from bench import first_row

LINES = """
print("AMD EPYC; results in small:make", flush=True)
print("   0.1 s  small:make/b1/cpu/inference: building eager fp32", flush=True)
"""


def plant(folder: Path, code: str) -> None:
    """A hotlap of the working directory, which comes first on the path of `python -m`."""
    (folder / "hotlap" / "perf").mkdir(parents=True)
    (folder / "hotlap" / "__init__.py").touch()
    (folder / "hotlap" / "perf" / "__init__.py").touch()
    (folder / "hotlap" / "perf" / "cli.py").write_text(LINES + code)


def test_it_takes_the_first_row_and_stops_the_run(tmp_path: Path) -> None:
    plant(
        tmp_path,
        """
import os, pathlib, time
pathlib.Path("pid").write_text(str(os.getpid()))
time.sleep(0.3)
print("small:make eager   12.4 us", flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("small:make onnxruntime   1 us", flush=True)
""",
    )
    run = first_row.first_row(tmp_path)
    assert run.row == "small:make eager 12.4 us" and run.seconds >= 0.3
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_a_run_without_a_row_is_no_figure(tmp_path: Path) -> None:
    plant(tmp_path, "raise SystemExit(4)")
    with pytest.raises(RuntimeError, match="without a row, exit 4"):
        first_row.first_row(tmp_path)


def test_a_row_that_does_not_come_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, "import time\ntime.sleep(600)")
    monkeypatch.setattr(first_row, "PATIENCE_S", 1.0)
    with pytest.raises(RuntimeError, match="without a row, exit -9"):
        first_row.first_row(tmp_path)


def test_the_table_has_mean_ends_and_load() -> None:
    runs = [
        first_row.FirstRow(seconds, load, "row")._asdict() for seconds, load in ((20.0, 0.1), (31.0, 1.25))
    ]
    file = {
        "machine": "a machine",
        "libraries": {"torch": "2"},
        "command": "hotlap run small:make",
        "model": "small",
        "runs": runs,
    }
    assert "| 2 | 25.5 | 20.0 | 31.0 | 0.1 to 1.2 |" in first_row.table(file)
