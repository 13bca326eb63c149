"""An index of stored results: one SQLite file beside them, so that a folder of thousands is read
once and then only what is new.

It holds nothing of its own: what it says comes from the files, and it is made anew if it is
deleted. Two processes may write at once; a file's points are replaced in one transaction.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple, TypeVar
from zlib import crc32

import msgspec

from ..readers import reading
from ..readers.side import Known, moment
from ..stats import estimates
from ..terms import result
from ..terms.case import Better
from ..terms.counters import COUNTERS
from ..terms.reasons import Misuse

# 1 (0.2.0): first version. 2: a file may hold several runs. Another version is dropped and read
# anew.
SCHEMA = 2
# What a file's points depend on beside the file: read anew where any of it is another.
CONTENT = crc32(repr((SCHEMA, result.SCHEMA, sorted(COUNTERS))).encode()) & 0x7FFFFFFF
# How long to wait for another process that writes, s: one that takes in a large file needs seconds.
BUSY_S = 30.0
TABLES = """
create table file (path text primary key, size integer, changed integer, problem text);
create table setting (key text primary key, fields text);
create table point (
  path text, measured real, "case" text, metric text, kind text, setting text, revision text,
  value real, centre real, unit text, better text
);
create index of_path on point (path);
create index of_case on point ("case", metric, kind);
"""
# The tables of an index that has no mark.
UNMARKED = TABLES.replace("changed integer, problem", "changed integer, measured real, problem").replace(
    "path text, measured real,", "path text,"
)


# What tells an index from the databases of other programs (sqlite.org/fileformat.html: offset 68).
APPLICATION = int.from_bytes(b"hotl")
SCHEMAS = "select type, name, tbl_name, sql from sqlite_master order by type, name"
Value = TypeVar("Value")


class Point(NamedTuple):
    """One value of one case in one file."""

    # Of the results file, resolved.
    path: str
    # Seconds since 1970.
    measured: float
    # The case's id.
    case: str
    # Of the metric or counter.
    metric: str
    # time, paced, or counter.
    kind: str
    # Key of what two results must share to be compared.
    setting: str
    # The commit, with a + where there were uncommitted changes; empty if not known.
    revision: str
    # What is compared: a ratio to the pace where there was one, else as centre.
    value: float
    # In the unit.
    centre: float
    unit: str
    better: Better


class Archive:
    """The index in one SQLite file. Raises Misuse, in one line, where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._told():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise Misuse(f"index {path}: no regular file; choose another --index")
            self.store = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            try:
                self._open()
            except BaseException:
                self.store.close()
                raise

    def _open(self) -> None:
        """Makes the tables where there are none. Raises Misuse for another program's database."""
        if not self._patiently(self._ours):
            raise Misuse(f"index {self.path}: a database of something else; choose another --index")
        self._patiently(lambda: self.store.execute("pragma journal_mode = wal"))
        self.store.execute("pragma synchronous = normal")
        with self._writing():
            if self.store.execute("pragma user_version").fetchone()[0] != CONTENT:
                for name in ("file", "setting", "point"):
                    self.store.execute(f"drop table if exists {name}")
                create(self.store)
                self.store.execute(f"pragma user_version = {CONTENT}")
            self.store.execute(f"pragma application_id = {APPLICATION}")

    def take_in(self, files: Iterable[Path], tell: Callable[[str], None]) -> tuple[int, dict[str, str]]:
        """Reads what is new or has changed.

        Returns how many files that were, and of all of them those that are no results: path -> why.
        """
        read, problems = 0, dict[str, str]()
        with self._told():
            known = {
                path: (size, changed, problem)
                for path, size, changed, problem in self.store.execute(
                    "select path, size, changed, problem from file"
                )
            }
            for file in files:
                name = str(file.resolve())
                if not printable(name):
                    problems[ascii(name)] = "its name is no text"
                    continue
                state = file.stat()
                if (stored := known.get(name)) is None or stored != (
                    state.st_size,
                    state.st_mtime_ns,
                    "",
                ):  # what was no results file may be one now
                    problem = self._take(file, name, state.st_size, state.st_mtime_ns)
                    read += 1
                    if read % 100 == 0:
                        tell(f"{read} files read")
                else:
                    problem = ""
                if problem:
                    problems[name] = problem
        return read, problems

    def points(self, files: Iterable[Path]) -> list[Point]:
        """Returns the points of these files by case and metric, oldest first."""
        wanted = {name for file in files if printable(name := str(file.resolve()))}
        with self._told():
            rows = self.store.execute(
                'select path, measured, "case", metric, kind, setting, revision, value, centre, unit, better'
                ' from point order by "case", metric, kind, measured, path'
            )
            return [point for point in map(Point._make, rows) if point.path in wanted]

    def settings(self) -> dict[str, dict[str, str]]:
        """Returns what two results must share to be compared, by its key."""
        with self._told():
            return {
                key: msgspec.json.decode(fields)
                for key, fields in self.store.execute("select key, fields from setting")
            }

    def close(self) -> None:
        self.store.close()

    def _ours(self) -> bool:
        """Whether the database is an index of hotlap, or empty; those of before 0.2.0 had no mark,
        and are known by their tables.
        """
        with self._reading():
            mark = self.store.execute("pragma application_id").fetchone()[0]
            tables = self.store.execute(SCHEMAS).fetchall()
        return mark == APPLICATION or (mark == 0 and (not tables or tables == unmarked()))

    def _patiently(self, step: Callable[[], Value]) -> Value:
        """Returns what a step gives that SQLite's own timeout does not cover.

        Of two that open a new index at once, one is told at once that it is locked.
        """
        until = monotonic() + BUSY_S
        while True:
            try:
                return step()
            except sqlite3.OperationalError as error:
                # One that Python's own reader raises, of text that is no UTF-8, has no code.
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
                if code & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > until:
                    raise
                sleep(0.01)

    def _take(self, file: Path, name: str, size: int, changed: int) -> str:
        """Takes in one file, whole or not at all.

        Returns why it is no results file; empty if it is one.
        """
        problem, rows, settings = "", list[tuple[object, ...]](), dict[str, str]()
        try:
            for side in reading.read(file):
                when = moment(side.measured)
                measured = changed / 1e9 if when is None else when
                for known in side.cases.values():
                    fields = msgspec.json.encode(known.setting, order="deterministic").decode()
                    key = sha256(fields.encode()).hexdigest()[:12]
                    settings[key] = fields
                    rows += [
                        (name, measured, known.case, *row[:2], key, known.commit, *row[2:])
                        for row in values(known)
                    ]
        except (ValueError, OverflowError) as error:
            problem, rows = str(error).removeprefix(f"{file}: "), []
        with self._writing():
            self.store.execute("delete from point where path = ?", (name,))
            self.store.execute(
                "insert or replace into file values (?, ?, ?, ?)", (name, size, changed, problem)
            )
            self.store.executemany("insert or ignore into setting values (?, ?)", settings.items())
            self.store.executemany("insert into point values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return problem

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Sees one state of the database, whatever others write meanwhile."""
        self.store.execute("begin")
        try:
            yield
        finally:
            self.store.execute("rollback")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.store.execute("begin immediate")
        try:
            yield
        except BaseException:
            self.store.execute("rollback")
            raise
        self.store.execute("commit")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise Misuse(f"index {self.path}: {error}; choose another --index") from None
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise Misuse(
                f"index {self.path}: {error}; choose another --index, or delete it if it is"
                " hotlap's own: it is made anew from the results"
            ) from None
        except OSError as error:
            raise Misuse(f"{error.filename or self.path}: {error.strerror}") from None


def create(store: sqlite3.Connection, tables: str = TABLES) -> None:
    """Makes the tables."""
    for statement in filter(str.strip, tables.split(";")):
        store.execute(statement)


def unmarked() -> list[tuple[str, str, str, str]]:
    """Returns the schema of an index that an earlier version made without a mark."""
    store = sqlite3.connect(":memory:")
    create(store, UNMARKED)
    tables = store.execute(SCHEMAS).fetchall()
    store.close()
    return tables


def values(known: Known) -> Iterator[tuple[str, str, float, float, str, Better]]:
    """Yields metric, kind, value, centre, unit and direction of all that a case has; a case without
    a good result has nothing to compare.
    """
    if not known.good:
        return
    for name, sample in known.metrics.items():
        value = math.exp(min(estimates.fmean(sample.logs), 1000.0)) if sample.paced else sample.centre
        if not (0 < value < math.inf):
            raise ValueError(f"{known.case}: {name} is {value:g}, no measurement")
        yield name, "paced" if sample.paced else "time", value, sample.centre, sample.unit, sample.better
    for name, count in known.counters.items():
        if name in COUNTERS:
            yield name, "counter", float(count), float(count), COUNTERS[name].unit, COUNTERS[name].better


def printable(name: str) -> bool:
    """Whether a file's name can be stored: one that is not UTF-8 cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
