"""A run of tests that crashes or hangs in a library says where."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import os, signal

def test_as_lightning_leaves_it():
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)

def test_that_crashes():
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def run(folder: Path, *plugins: str) -> str:
    (folder / "test_planted.py").write_text(PROGRAM)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:hotlap", *plugins, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -11
    return done.stderr


def test_a_crash_after_a_fit_says_where(tmp_path: Path) -> None:
    assert "test_that_crashes" not in run(tmp_path)  # the defect that the plug-in is for
    errors = run(tmp_path, "-p", "tests.crashes")
    assert "Fatal Python error: Segmentation fault" in errors and "in test_that_crashes" in errors


def test_what_hangs_in_a_library_is_ended() -> None:
    """The time limit of a test is a signal that Python hears only when the library returns."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["faulthandler_exit_on_timeout"] and options["faulthandler_timeout"] > options["timeout"]
