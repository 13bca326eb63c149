"""The cache of TensorRT engines: what is part of its key, and what is never used.

No TensorRT is needed.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from hotlap.perf.lowering import engine_cache
from hotlap.perf.lowering.engine_cache import ABOUT, ENGINE, Key

KEY = Key(
    "graph", {"in0": ((1, 3), (4, 3), (8, 3))}, "fp16", {"tf32": "False"}, "tensorrt_rtx 1.6.1", "sm_89"
)
OTHERS = {
    "graph": "another",
    "profile": {"in0": ((1, 3), (4, 3), (16, 3))},
    "precision": "fp32",
    "flags": {"tf32": "True"},
    "library": "tensorrt_rtx 1.7.0",
    "architecture": "sm_80",
}


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path))
    return tmp_path


def test_what_was_put_is_found() -> None:
    assert engine_cache.get(KEY) == (None, "")
    assert engine_cache.put(KEY, b"engine", 1.5, "Layers:") == ""
    cached, message = engine_cache.get(KEY)
    assert cached is not None and (cached.engine, cached.entry.seconds, cached.entry.layers, message) == (
        b"engine",
        1.5,
        "Layers:",
        "",
    )


@pytest.mark.parametrize("field", msgspec.structs.fields(Key), ids=lambda field: field.name)
def test_every_part_of_the_key_makes_another_engine(field: msgspec.structs.FieldInfo) -> None:
    """A new field without a value here fails: what decides an engine must be told apart."""
    engine_cache.put(KEY, b"engine", 1.5, "")
    other = msgspec.structs.replace(KEY, **{field.name: OTHERS[field.name]})
    assert other.digest != KEY.digest and engine_cache.get(other)[0] is None


def test_an_entry_under_a_wrong_key_is_not_used() -> None:
    """As after a change of how keys are made: the folder's name fits, what it was built for does
    not.
    """
    other = msgspec.structs.replace(KEY, architecture="sm_80")
    engine_cache.put(other, b"for sm_80", 1.0, "")
    (engine_cache.folder() / other.digest).rename(engine_cache.folder() / KEY.digest)
    cached, message = engine_cache.get(KEY)
    assert cached is None and "built for something else (architecture)" in message
    engine_cache.put(KEY, b"for sm_89", 1.0, "")
    cached, _ = engine_cache.get(KEY)
    assert cached is not None and cached.engine == b"for sm_89", "the wrong entry is replaced"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (ENGINE, b"engina", "damaged"),
        (ABOUT, b"{", "cannot be read"),
        (ABOUT, b"[" * 100_000, "cannot be read"),
    ],
)
def test_a_damaged_entry_is_not_used(file: str, content: bytes, words: str) -> None:
    engine_cache.put(KEY, b"engine", 1.0, "")
    (engine_cache.folder() / KEY.digest / file).write_bytes(content)
    cached, message = engine_cache.get(KEY)
    assert cached is None and words in message
    assert engine_cache.put(KEY, b"engine", 1.0, "") == "" and engine_cache.get(KEY)[0] is not None


def test_a_full_disk_costs_the_entry_not_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == ENGINE:
            whole(path, content[:3])
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    message = engine_cache.put(KEY, b"engine", 1.0, "")
    assert "not in the cache" in message and "No space left on device" in message
    assert engine_cache.get(KEY) == (None, "") and list(engine_cache.folder().iterdir()) == [], (
        "no half an entry stays"
    )


def test_the_part_of_a_killed_build_goes_when_it_is_old() -> None:
    old, new = (engine_cache.folder() / f"{engine_cache.PART}{name}" for name in ("old", "new"))
    for part in (old, new):
        part.mkdir(parents=True)
    past = time.time() - 2 * engine_cache.OLD_S
    os.utime(old, (past, past))
    assert engine_cache.put(KEY, b"engine", 1.0, "") == ""
    assert not old.exists() and new.exists() and engine_cache.get(KEY)[0] is not None


def test_a_read_only_cache_is_said(runs: Path) -> None:
    (runs / "cache").write_text("a file where the folder should be")
    assert "not in the cache" in engine_cache.put(KEY, b"engine", 1.0, "")
    assert engine_cache.get(KEY)[0] is None


def test_processes_that_build_the_same_entry_at_once_leave_one_whole(runs: Path) -> None:
    code = """
import sys
from hotlap.perf.lowering import engine_cache
from hotlap.perf.lowering.engine_cache import Key
key = Key("graph", {}, "fp16", {}, "library", "sm_89")
for at in range(40):
    assert engine_cache.put(key, sys.argv[1].encode() * 100_000, 1.0, "") == ""
    entry, reason = engine_cache.get(key)
    assert entry is not None and len(set(entry.engine)) == 1, reason
"""
    children = [subprocess.Popen([sys.executable, "-P", "-c", code, letter]) for letter in "abc"]
    assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    assert [entry.name for entry in engine_cache.folder().iterdir()] == [
        Key("graph", {}, "fp16", {}, "library", "sm_89").digest
    ]


def test_the_longest_unused_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setattr(engine_cache, "MOST_BYTES", 3000)
    keys = [msgspec.structs.replace(KEY, graph=str(index)) for index in range(3)]
    for index, key in enumerate(keys[:2]):
        engine_cache.put(key, b"x" * 1000, 1.0, "")
        os.utime(engine_cache.folder() / key.digest, (1000 + index, 1000 + index))
    assert engine_cache.get(keys[0])[0] is not None, "used again, so it stays"
    engine_cache.put(keys[2], b"x" * 1000, 1.0, "")
    assert [engine_cache.get(key)[0] is not None for key in keys] == [True, False, True]


def test_weights_beside_the_graph_are_part_of_it(tmp_path: Path) -> None:
    graph, weights = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    graph.write_bytes(b"graph")
    alone = engine_cache.graph_digest([graph])
    weights.write_bytes(b"weights")
    both = engine_cache.graph_digest([graph, weights])
    weights.write_bytes(b"weighty")
    assert len({alone, both, engine_cache.graph_digest([graph, weights])}) == 3
