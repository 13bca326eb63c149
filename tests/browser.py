"""A page as Chromium has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def browsed(path: Path, tmp_path: Path) -> tuple[str, str]:
    """The page as the browser has it, and what the browser complained of."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    asked = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'chromium'}",
        "--enable-logging=stderr",
        "--v=0",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr
