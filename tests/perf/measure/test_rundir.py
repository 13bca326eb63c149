"""The folder of a run: one writer, whole files, and what --resume still has to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from hotlap.perf.measure import rundir
from hotlap.perf.measure.rundir import RunFolder, Unusable
from hotlap.perf.terms import files
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.environment import Environment
from hotlap.perf.terms.reasons import CODES, Misuse, Reason
from hotlap.perf.terms.result import Result, read

HERE = Environment("cpu", 2, 2**30, (), "Linux", "3.11", {}, (), "", 1, "keep", "madvise", "", "host")
EAGER, NULL, OTHER = Case("w", "eager"), Case("w", "null"), Case("other", "eager")

Opens = Callable[..., RunFolder]


@pytest.fixture
def opens(tmp_path: Path) -> Iterator[Opens]:
    """Opens run folders, by default the same one, and closes them at the end."""
    opened: list[RunFolder] = []

    def make(
        folder: Path | None = tmp_path / "run", asked: tuple[Case, ...] = (), environment: Environment = HERE
    ) -> RunFolder:
        opened.append(RunFolder(folder, "hotlap run w", environment, asked))
        return opened[-1]

    yield make
    for run in opened:
        run.close()


def answer(case: Case, code: str | None = None, warning: str = "") -> Result:
    reason = None if code is None else msgspec.convert({"code": code, "detail": "because"}, Reason)
    return Result(
        case, "run/group", Plan(), "ok" if reason is None else "failed", reason, warnings=(warning,)
    )


def test_the_file_is_whole_after_every_put(opens: Opens) -> None:
    run = opens(asked=(EAGER, NULL))
    assert read(run.file).asked == (EAGER, NULL)
    assert read(run.file).environment == {HERE.key: HERE}
    run.put([answer(EAGER, warning="first")])
    run.put([answer(NULL), answer(EAGER, warning="second")])
    assert [(result.case, result.warnings) for result in read(run.file).results] == [
        (EAGER, ("second",)),
        (NULL, ("",)),
    ]


def test_a_second_writer_is_refused_while_the_first_lives(opens: Opens) -> None:
    first = opens()
    with pytest.raises(
        Misuse, match=r"another run is writing to .*/run; wait for it or choose another --out"
    ):
        opens()
    first.close()
    assert opens().results.run == "run"


def test_the_lock_of_a_process_that_was_killed_is_free(opens: Opens, tmp_path: Path) -> None:
    code = (
        "import fcntl, time; lock = open('.lock', 'a+'); fcntl.flock(lock, fcntl.LOCK_EX); print(flush=True);"
        " time.sleep(60)"
    )
    (tmp_path / "run").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path / "run", stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            with pytest.raises(Unusable, match="another run is writing"):
                opens()
        finally:
            holder.kill()
    opens()


def test_a_run_goes_on_with_what_it_has(opens: Opens) -> None:
    run = opens(asked=(EAGER,))
    run.put([answer(EAGER)])
    run.close()
    moved = msgspec.structs.replace(HERE, host="elsewhere")
    again = opens(asked=(OTHER, EAGER), environment=moved)
    assert again.id == run.id
    assert again.results.results == (answer(EAGER),)
    assert again.results.asked == (EAGER, OTHER)
    assert again.results.environment == {HERE.key: HERE, moved.key: moved}


@pytest.mark.parametrize("code", [None, *CODES])
def test_what_resume_measures_again(opens: Opens, code: str | None) -> None:
    """A cause that may have gone is tried again; anything else is final."""
    run = opens(asked=(EAGER,))
    assert run.unfinished() == [EAGER]
    run.put([answer(EAGER, code)])
    assert run.unfinished() == (
        [EAGER] if code in ("interrupted", "crashed", "timeout", "out_of_space") else []
    )


def test_a_race_is_measured_again_as_a_whole_and_others_are_left(opens: Opens) -> None:
    run = opens(asked=(EAGER, NULL, OTHER))
    run.put([answer(EAGER), answer(OTHER)])
    assert run.unfinished() == [EAGER, NULL]
    run.put([answer(NULL, "crashed")])
    assert run.unfinished() == [EAGER, NULL]
    run.put([answer(NULL, "accuracy")])
    assert run.unfinished() == []


@pytest.mark.parametrize("parent", ["file", "/proc"])
def test_a_folder_that_cannot_be_made_is_refused(opens: Opens, tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match=r"cannot write to .*; choose another --out") as refused:
        opens(tmp_path / parent / "run")
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_said_and_what_was_written_stays(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = opens(asked=(EAGER, NULL))
    run.put([answer(EAGER)])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        Unusable,
        match=r"cannot write .*results.json: No space left on device; free space or choose another --out",
    ):
        run.put([answer(NULL)])
    assert [result.case for result in read(run.file).results] == [EAGER]


def test_a_damaged_file_is_neither_used_nor_overwritten_nor_left_locked(opens: Opens, tmp_path: Path) -> None:
    file = tmp_path / "run" / "results.json"
    file.parent.mkdir()
    file.write_text("{ half a fi")
    with pytest.raises(
        Unusable, match=r"not a results file of hotlap: .*; move it away or choose another --out"
    ) as refused:
        opens()
    assert file.read_text() == "{ half a fi"
    file.unlink()
    assert opens().results.results == (), refused


def test_runs_live_under_hotlap_runs(opens: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "mine"))
    run, other = opens(None), opens(None)
    assert run.folder == tmp_path / "mine" / "race" / run.id
    assert run.id != other.id
    assert read(run.file).run == run.id
    monkeypatch.delenv("HOTLAP_RUNS")
    assert files.runs_folder() == Path("runs")


def test_the_latest_run_is_the_one_written_last(
    opens: Opens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path))
    with pytest.raises(Unusable, match=r"no run to resume under .*/race; start one with: hotlap run"):
        rundir.latest()
    older, newer = opens(tmp_path / "race" / "z"), opens(tmp_path / "race" / "a")
    (tmp_path / "race" / "zz-without-results").mkdir()
    os.utime(older.file, (1, 1))
    assert rundir.latest() == newer.folder
    os.utime(newer.file, (0, 0))
    assert rundir.latest() == older.folder
