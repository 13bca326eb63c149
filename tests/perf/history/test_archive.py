"""The index of results: what is new is read once, two writers do not hurt each other, and what
cannot be used is one line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.perf.history import archive
from hotlap.perf.history.archive import Archive
from hotlap.perf.terms.reasons import Misuse


def taken_in(index: Path, files: list[Path]) -> tuple[int, dict[str, str]]:
    store = Archive(index)
    try:
        return store.take_in(files, print)
    finally:
        store.close()


def test_a_file_is_read_once_and_again_only_when_it_changes(stored: Any, tmp_path: Path) -> None:
    files = stored.runs(tmp_path / "results", {"a": [1e-3] * 5})
    assert taken_in(tmp_path / "index", files) == (5, {})
    assert taken_in(tmp_path / "index", files) == (0, {})
    stored.run(files[2], 2, {"a": 2e-3})
    os.utime(files[2], ns=(1, 1))
    assert taken_in(tmp_path / "index", files) == (1, {})
    store = Archive(tmp_path / "index")
    points = [point for point in store.points(files) if point.metric == "latency"]
    store.close()
    assert [round(point.value, 6) for point in points] == [1e-3, 1e-3, 2e-3, 1e-3, 1e-3]
    assert [point.revision for point in points] == [stored.sha(at) for at in range(5)]


def test_only_the_files_that_are_asked_for_are_told(stored: Any, tmp_path: Path) -> None:
    files = stored.runs(tmp_path / "results", {"a": [1e-3] * 4})
    taken_in(tmp_path / "index", files)
    store = Archive(tmp_path / "index")
    assert {point.path for point in store.points(files[:1])} == {str(files[0].resolve())}
    store.close()


def test_two_writers_at_once(stored: Any, tmp_path: Path) -> None:
    """Both see every file as new; the index has each point once."""
    files = stored.runs(tmp_path / "results", {"a": [1e-3] * 30, "b": [2e-3] * 30})
    script = (
        "import sys; from pathlib import Path; from hotlap.perf.history.archive import Archive; s ="
        " Archive(Path(sys.argv[1])); s.take_in([Path(p) for p in sys.argv[2:]], print)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "index"), *map(str, files)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in both] == [("", 0)] * 2
    store = Archive(tmp_path / "index")
    assert len([point for point in store.points(files) if point.metric == "latency"]) == 60
    store.close()


def test_two_that_make_the_index_at_the_same_moment(tmp_path: Path) -> None:
    """A hundred times, both in step:

    SQLite answers the switch to its journal with "locked" at once in some of them, whatever its
    timeout.
    """
    script = """
import sys, time
from pathlib import Path
from hotlap.perf.history.archive import Archive
print("ready", flush=True)
start = float(input())
for at in range(100):
    time.sleep(max(0.0, start + at * 0.02 - time.time()))
    Archive(Path(sys.argv[1]) / str(at)).close()
"""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    assert [process.stdout and process.stdout.readline() for process in both] == ["ready\n"] * 2
    start = time.time() + 0.1
    for process in both:
        print(start, file=process.stdin, flush=True)
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in both] == [("", 0)] * 2


def test_a_writer_that_is_killed_leaves_files_whole_or_unread(stored: Any, tmp_path: Path) -> None:
    files = stored.runs(tmp_path / "results", {"a": [1e-3] * 3})
    script = """
import os, sys
from pathlib import Path
from hotlap.perf.history import archive
store = archive.Archive(Path(sys.argv[1]))
store.take_in([Path(sys.argv[2])], print)
store.store.execute("begin immediate")
store.store.execute("delete from point")
os.kill(os.getpid(), 9)
"""
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "index"), str(files[0])], check=False, timeout=60
    )
    assert taken_in(tmp_path / "index", files)[0] == 2
    store = Archive(tmp_path / "index")
    assert len([point for point in store.points(files) if point.metric == "latency"]) == 3
    store.close()


def test_a_file_that_is_no_result_is_named_and_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "verdict.json").write_text('{"schema": 1, "tool": "gate"}')
    for _ in range(2):
        _, problems = taken_in(tmp_path / "index", [tmp_path / "verdict.json"])
        assert "no results of a tool" in problems[str((tmp_path / "verdict.json").resolve())]


def test_a_damaged_index_is_one_line_with_the_remedy(
    stored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = stored.runs(tmp_path / "results", {"a": [1e-3] * 3})
    (tmp_path / "index").write_bytes(b"no database, but long enough to be looked at as one" * 100)
    with pytest.raises(Misuse, match="delete it"):
        taken_in(tmp_path / "index", files)
    assert cli.status(["history", str(tmp_path / "results"), "--index", str(tmp_path / "index")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_index_of_another_version_is_made_anew(stored: Any, tmp_path: Path) -> None:
    files = stored.runs(tmp_path / "results", {"a": [1e-3] * 3})
    taken_in(tmp_path / "index", files)
    store = sqlite3.connect(tmp_path / "index")
    store.execute("pragma user_version = 99")
    store.close()
    assert taken_in(tmp_path / "index", files)[0] == 3


def test_an_index_in_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match="file"):
        Archive(tmp_path / "file" / "index")


def test_files_of_pytest_benchmark_have_their_time_and_commit(tmp_path: Path) -> None:
    path = tmp_path / "0001.json"
    benchmark = {
        "fullname": "t.py::test_a",
        "stats": {"mean": 1.0, "median": 1.0, "stddev": 0.1, "rounds": 9},
    }
    path.write_text(
        json.dumps(
            {
                "benchmarks": [benchmark],
                "datetime": "2026-03-01T12:00:00.5+00:00",
                "commit_info": {"id": "ab12", "dirty": True},
                "machine_info": {"machine": "x86"},
            }
        )
    )
    taken_in(tmp_path / "index", [path])
    store = Archive(tmp_path / "index")
    (point,) = store.points([path])
    store.close()
    assert (point.case, point.revision, point.value) == ("t.py::test_a", "ab12+", 1.0)
    assert point.measured == archive.moment("2026-03-01T12:00:00.5+00:00")
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T00:00:00Z", 86400),
        ("1970-01-02T00:00:00", 86400),
        ("1970-01-02T01:00:00+01:00", 86400),
        ("soon", None),
        ("", None),
    ],
)
def test_moments(text: str, seconds: float | None) -> None:
    assert archive.moment(text) == seconds


def test_one_odd_file_costs_no_other(stored: Any, tmp_path: Path) -> None:
    """A counter beyond 64 bits, a ratio beyond a double, a name that is no text: each is that
    file's problem.
    """
    good = stored.run(tmp_path / "good.json", 0, {"a": 1e-3})
    huge = stored.run(tmp_path / "huge.json", 1, {"a": 1e-3}, operators=1 << 80)
    content = json.loads(good.read_bytes())
    content["results"][0]["metrics"]["latency"]["values"] = [[1e-320] * 3] * 3
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.json"))
    odd.write_bytes(good.read_bytes())
    store = archive.Archive(tmp_path / "index")
    files = [good, huge, tmp_path / "tiny.json", odd]
    _, problems = store.take_in(files, lambda text: None)
    assert any("no text" in why for why in problems.values())
    assert {Path(point.path).name for point in store.points(files)} >= {"good.json"}
    store.close()


def test_what_was_no_results_file_is_tried_again(
    stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that failed once, a schema that this hotlap reads and the last one did not: neither
    the size nor the time of the file changes.
    """
    path = stored.run(tmp_path / "a.json", 0, {"a": 1e-3})
    store = archive.Archive(tmp_path / "index")
    with monkeypatch.context() as broken:
        broken.setattr(
            archive.reading, "read", lambda file: (_ for _ in ()).throw(archive.Misuse("input/output error"))
        )
        assert store.take_in([path], lambda text: None)[1]
    assert store.take_in([path], lambda text: None) == (1, {})
    assert len(store.points([path])) >= 1
    store.close()


def databases(path: Path) -> dict[str, object]:
    """All that a database holds, and its bytes."""
    store = sqlite3.connect(path)
    tables = [name for (name,) in store.execute("select name from sqlite_master where type = 'table'")]
    rows: dict[str, object] = {name: store.execute(f'select * from "{name}"').fetchall() for name in tables}
    store.close()
    return rows


@pytest.mark.parametrize(
    "tables",
    [
        "create table bookmark (url text)",
        "create table file (path text primary key, content blob)",
        f"pragma application_id = 252006674; {archive.TABLES}",
        f"{archive.TABLES}; create table bookmark (url text)",
        "create view file as select 1",
    ],
    ids=["others", "our names", "our tables, their mark", "ours and more", "a view"],
)
@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_of_something_else_is_left_as_it_is(
    tables: str, journal: str, stored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "places.sqlite"
    store = sqlite3.connect(index)
    store.execute(f"pragma journal_mode = {journal}")
    store.executescript(tables)
    for name in ("bookmark", "file"):
        with contextlib.suppress(sqlite3.OperationalError):
            store.execute(f"insert into {name} default values")
    store.commit()
    store.close()
    before, content = databases(index), index.read_bytes()
    stored.runs(tmp_path / "results", {"a": [1e-3] * 3})
    assert cli.status(["history", str(tmp_path / "results"), "--index", str(index)]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and "a database of something else; choose another" in printed.err
    assert databases(index) == before and index.read_bytes() == content


def test_an_index_without_a_mark_is_taken_over_and_marked(stored: Any, tmp_path: Path) -> None:
    """Those of earlier versions had none."""
    files, index = stored.runs(tmp_path / "results", {"a": [1e-3] * 5}), tmp_path / "index"
    store = sqlite3.connect(index)
    archive.create(store, archive.UNMARKED)
    store.execute("pragma user_version = 7")
    store.close()
    assert taken_in(index, files) == (5, {})
    assert taken_in(index, files) == (0, {})
    store = sqlite3.connect(index)
    assert store.execute("pragma application_id").fetchone() == (archive.APPLICATION,)
    store.close()


def test_an_empty_file_may_become_an_index(stored: Any, tmp_path: Path) -> None:
    (tmp_path / "index").touch()
    assert taken_in(tmp_path / "index", stored.runs(tmp_path / "results", {"a": [1e-3] * 3}))[0] == 3


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero", "pipe", "."])
def test_an_index_is_a_regular_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would wait for a pipe for ever."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(Misuse, match="no regular file; choose another --index"):
        Archive(Path(name))
