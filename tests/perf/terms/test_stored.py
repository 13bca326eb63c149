"""Results files that were written before are read, and keep every key.

    python tests/perf/terms/test_stored.py RESULTS.json

prints which keys a new file of `hotlap run mlp` lacks or adds beside the stored one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hotlap.perf.terms.result import encode, read

# What 0.1.0 wrote for `hotlap run mlp`, with the first three samples of each block.
STORED = Path(__file__).with_name("results-0.1.0.json")


def keys(value: Any, path: str = "") -> set[str]:
    """Every path of keys in a JSON document; the names of results' metrics and providers are kept,
    those of environments, which are hashes, are not.
    """
    if isinstance(value, list):
        return {key for item in value for key in keys(item, f"{path}[]")}
    if not isinstance(value, dict):
        return {path}
    paths = {path}
    for name, item in value.items():
        paths |= keys(item, f"{path}.{'*' if path == '.environment' else name}")
    return paths


def test_a_results_file_of_before_is_read_and_written_with_the_same_keys(tmp_path: Path) -> None:
    results = read(STORED)
    assert len(results.results) == 6 and results.schema == 1
    (tmp_path / "again.json").write_bytes(encode(results))
    again = json.loads((tmp_path / "again.json").read_text())
    stored = json.loads(STORED.read_text())
    assert keys(stored) <= keys(again)
    assert [result["case"] for result in again["results"]] == [result["case"] for result in stored["results"]]
    assert [result["metrics"] for result in again["results"]] == [
        result["metrics"] for result in stored["results"]
    ]


def test_a_key_that_is_lost_is_seen() -> None:
    stored = json.loads(STORED.read_text())
    del stored["results"][0]["placement"]
    for result in stored["results"]:
        result.pop("placement", None)
    assert ".results[].placement.requested" in keys(json.loads(STORED.read_text())) - keys(stored)


if __name__ == "__main__":
    new, old = keys(json.loads(Path(sys.argv[1]).read_text())), keys(json.loads(STORED.read_text()))
    print(f"lacks: {sorted(old - new) or 'none'}; adds: {sorted(new - old) or 'none'}")
