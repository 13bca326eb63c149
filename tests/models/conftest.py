"""Every test here has its own runs folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def runs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs" / "train"
