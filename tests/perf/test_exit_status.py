"""The exit status, whatever becomes of the printing: real pipes, a full disk, a terminal that is
gone, closed streams, an encoding that lacks a character, Ctrl-C; each in a process of its own.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
# The same by the locale alone, which Python would otherwise take for UTF-8.
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
# Commands that another package adds: each prints what ASCII lacks, and more than a pipe holds.
PLANTED = '''
import os, signal, sys
from hotlap.perf.reports.console import console
from hotlap.perf.terms import printer

def speak():
    for number in range(2000):
        printer.line(f"\\u00b1 {number} " + "x" * 60)
    console().print("\\u2588", style="bold")
    print("\\udcff directly", flush=True)
    sys.stderr.write("\\u00b1\\n")

def worse() -> int:
    """A regression."""
    speak()
    return 1

def fine() -> int:
    """A pass."""
    speak()
    return 0

def shown() -> None:
    """No verdict."""
    speak()

def waits() -> int:
    """Prints before and after its terminal has gone."""
    print("here", flush=True)
    sys.stdin.read()
    speak()
    return 3

def noisy() -> int:
    """Has a library that writes to stdout and stderr by their numbers."""
    with open("kept.txt", "w") as file:
        os.write(1, b"library")
        os.write(2, b"library")
        file.write("kept")
    return 3

def leaves() -> None:
    """Ends as a library may."""
    sys.exit(1)

def breaks() -> None:
    """Raises what is no error of printing."""
    raise BrokenPipeError(32, "of a worker")

def stopped() -> None:
    """Hears Ctrl-C during an exec."""
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)")

def swallowed() -> None:
    """Hears Ctrl-C inside a library that makes another error of it."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
    raise ImportError("half of it")
'''
COMMANDS = ("worse", "fine", "shown", "waits", "noisy", "leaves", "breaks", "stopped", "swallowed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with two results files, and a distribution with the planted commands."""
    here = tmp_path_factory.mktemp("here")
    (here / "planted_commands.py").write_text(PLANTED)
    (here / "planted-1.dist-info").mkdir()
    (here / "planted-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: planted\nVersion: 1\n"
    )
    points = "".join(f"{name} = planted_commands:{name}\n" for name in COMMANDS)
    (here / "planted-1.dist-info" / "entry_points.txt").write_text(f"[hotlap.commands]\n{points}")
    for name, mean in (("base", 0.01), ("slow", 0.02)):
        rng = random.Random(name)
        data = [mean * math.exp(rng.gauss(0, 0.01)) for _ in range(64)]
        stats = {"mean": mean, "median": mean, "stddev": 0.01 * mean, "rounds": 64, "data": data}
        benchmark = {"name": "t", "fullname": "bench/t.py::t", "stats": stats}
        document = {"machine_info": {"node": "one"}, "benchmarks": [benchmark]}
        (here / f"{name}.json").write_text(json.dumps(document))
    return here


def start(folder: Path, *arguments: str, closed: str = "", **settings: object) -> subprocess.Popen[bytes]:
    """Starts hotlap in this folder; closed: what the shell closes before, such as 2>&-."""
    command = [sys.executable, "-m", "hotlap.perf.cli", *arguments]
    if closed:
        command = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **settings.pop("env", {})}  # type: ignore[dict-item]
    return subprocess.Popen(command, cwd=folder, env=environment, **settings)  # type: ignore[call-overload, no-any-return]


def ended(folder: Path, *arguments: str, **settings: object) -> tuple[int, str]:
    """The exit status and what came to stderr."""
    with start(folder, *arguments, **{"stderr": subprocess.PIPE, **settings}) as process:
        errors = process.communicate(timeout=60)[1]
    return process.returncode, (errors or b"").decode()


@contextmanager
def gone() -> Iterator[int]:
    """The writing end of a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


GATE = ("gate", "base.json", "slow.json")
# Commands, the status where all is well, and where what they show cannot be shown.
STATUSES = [
    (GATE, 1, 1),
    ((*GATE, "--json", "-"), 1, 1),
    (("worse",), 1, 1),
    (("fine",), 0, 0),
    (("shown",), 0, 2),
    (("--version",), 0, 2),
    (("gate", "--help"), 0, 2),
    (("gate", "base.json", "absent.json"), 2, 2),
]


@pytest.mark.parametrize(
    ("arguments", "well", "badly"),
    STATUSES,
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_status_stays_whatever_becomes_of_stdout(
    arguments: tuple[str, ...], well: int, badly: int, folder: Path
) -> None:
    with gone() as pipe:
        code, errors = ended(folder, *arguments, stdout=pipe)
        assert code == well and "write" not in errors, "a reader that has seen enough is no error"
    with Path("/dev/full").open("wb") as full:
        code, errors = ended(folder, *arguments, stdout=full)
        assert code == badly
        assert ("hotlap: cannot write to stdout: No space left on device\n" in errors) == (
            "absent.json" not in arguments
        )
        assert ended(folder, *arguments, stdout=full, closed="2>&-") == (badly, "")
        assert ended(folder, *arguments, stdout=full, stderr=full) == (badly, "")
    assert ended(folder, *arguments, closed=">&-")[0] == badly
    assert ended(folder, *arguments, stdout=subprocess.DEVNULL, env=ASCII)[0] == well


def test_a_terminal_that_has_gone_is_no_regression(folder: Path) -> None:
    terminal, inside = os.openpty()
    with start(folder, "waits", stdin=subprocess.PIPE, stdout=inside, stderr=inside) as process:
        os.close(inside)
        assert os.read(terminal, 100).startswith(b"here")
        os.close(terminal)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 3
    terminal, inside = os.openpty()
    os.close(terminal)
    assert [ended(folder, name, stdout=inside)[0] for name in ("worse", "fine", "shown")] == [1, 0, 2]
    os.close(inside)


@pytest.mark.parametrize("env", [ASCII, C_LOCALE], ids=["ascii", "c-locale"])
def test_what_an_encoding_lacks_is_written_by_its_code(env: dict[str, str], folder: Path) -> None:
    with start(folder, "worse", stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        out, errors = process.communicate(timeout=60)
    lines = out.decode("ascii").splitlines()
    assert lines[0].startswith("\\xb1 0 x") and "\\udcff directly" in lines and "\\u2588" in lines
    assert b"\\xb1" in errors and process.returncode == 1


def test_a_name_that_no_encoding_has_is_one_line(folder: Path) -> None:
    """A file name of bytes that are no text, on a terminal of any encoding."""
    for env in ({}, ASCII, C_LOCALE):
        code, errors = ended(folder, "report", os.fsdecode(b"\xff\xc3\xa9.json"), env=env)
        assert code == 2 and errors.count("\n") == 1 and errors.startswith("hotlap: ")


def test_a_document_is_utf_8_whatever_the_terminal_is(folder: Path) -> None:
    (folder / "note.json").write_text(
        json.dumps({"schema": 1, "tool": "kernels", "verdict": "pass", "reasons": ["±\x85"], "findings": []})
    )
    arguments = (*GATE, "--with", "note.json", "--json", "-")
    with start(folder, *arguments, stdout=subprocess.PIPE, env=ASCII) as process:
        out = process.communicate(timeout=60)[0]
    assert json.loads(out.decode())["reasons"][-1] == "kernels: ±\x85"
    assert "±" in out.decode() and "\x85" not in out.decode()


def test_a_file_of_ours_never_gets_the_number_of_a_closed_stream(folder: Path) -> None:
    assert ended(folder, "noisy", closed=">&- 2>&-")[0] == 3
    assert (folder / "kept.txt").read_text() == "kept"
    assert ended(folder, *GATE, "--json", "verdict.json", closed="<&- >&- 2>&-")[0] == 1
    assert json.loads((folder / "verdict.json").read_text())["verdict"] == "regression"


@pytest.mark.parametrize("command", ["leaves", "breaks"])
def test_1_is_a_regression_and_nothing_else(command: str, folder: Path) -> None:
    code, errors = ended(folder, command)
    assert code == 70 and errors.endswith("please report it with the lines above\n")


HEARD = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


@pytest.mark.parametrize(
    "text",
    [
        HEARD,
        f"exec({HEARD!r})\n",
        f"try:\n    exec({HEARD!r})\nexcept KeyboardInterrupt:\n    raise ImportError('half')\n",
    ],
)
def test_ctrl_c_during_imports_is_130_without_a_traceback(text: str, folder: Path, tmp_path: Path) -> None:
    """A planted typer: the first of what hotlap imports to know its own commands."""
    (tmp_path / "typer.py").write_text(text)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    code, errors = ended(folder, "--version", env={"PYTHONPATH": path})
    assert (code, errors) == (130, "\nhotlap: interrupted; what was measured is kept\n")


@pytest.mark.parametrize("command", ["stopped", "swallowed"])
def test_ctrl_c_is_130_whatever_a_library_makes_of_it(command: str, folder: Path) -> None:
    assert ended(folder, command) == (130, "\nhotlap: interrupted; what was measured is kept\n")


def test_ctrl_c_that_is_ignored_stays_ignored(folder: Path) -> None:
    """As below nohup, or of a job in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert ended(folder, "stopped") == (0, "")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_package_that_is_broken_is_no_regression(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise ImportError('planted')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    assert ended(folder, *GATE, env={"PYTHONPATH": path})[0] == 70


def test_a_prompt_after_the_end_changes_no_status(folder: Path) -> None:
    """Python's own status after PYTHONINSPECT is 1 for all but none."""
    inspected = {"env": {"PYTHONINSPECT": "1"}, "stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    assert ended(folder, *GATE, **inspected)[0] == 1
    assert ended(folder, "gate", "base.json", "absent.json", **inspected)[0] == 2
    assert ended(folder, "fine", **inspected)[0] == 0
