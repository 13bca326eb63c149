"""Measurements that go on where they were stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import stored


def test_what_is_stored_is_not_measured_again_and_all_is_written_after_each(tmp_path: Path) -> None:
    file, measured = tmp_path / "results.json", []

    def measure(key: str) -> dict[str, object]:
        if key == "c":
            raise KeyboardInterrupt
        measured.append(key)
        return {"way": key.upper()}

    with pytest.raises(KeyboardInterrupt):
        stored.fill(file, "cells", 1, ["b", "a", "c"], ["a", "b", "c"], measure)
    content = json.loads(file.read_text())
    assert content["schema"] == 1 and list(content["cells"]) == ["b", "a"]  # in the order of the table
    with pytest.raises(KeyboardInterrupt):
        stored.fill(file, "cells", 1, ["b", "a", "c"], [], measure)
    assert measured == ["a", "b"]
    stored.fill(file, "cells", 1, ["b", "a"], ["other", "a"], measure)
    assert list(json.loads(file.read_text())["cells"]) == ["b", "a", "other"] and measured[2:] == [
        "other",
        "a",
    ]
