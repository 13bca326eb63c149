"""Where outputs go: a path that the user typed is written as other tools do it, a link that was
planted in a folder of ours is not followed.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hotlap.perf import cli
from hotlap.perf.terms import files
from hotlap.perf.terms.reasons import Misuse

NEW = b"new\n" * 1000


def child(script: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs a script with the functions of files.py."""
    program = f"import sys; from pathlib import Path; from hotlap.perf.terms import files\n{script}"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path: Path) -> None:
    path, received = tmp_path / "pipe", list[bytes]()
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()))
    reader.start()
    files.put(path, NEW)
    reader.join(timeout=30)
    assert received == [NEW] and stat.S_ISFIFO(path.stat().st_mode)


def test_null_stays_a_device(tmp_path: Path) -> None:
    before = os.stat("/dev/null")
    (tmp_path / "out.json").symlink_to("/dev/null")
    files.put(Path("/dev/null"), NEW)
    files.put(tmp_path / "out.json", NEW)
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode) and (before.st_ino, before.st_rdev) == (after.st_ino, after.st_rdev)
    assert (tmp_path / "out.json").is_symlink()


NAMESPACE = r"""
set -e
mount -t tmpfs tmpfs "$1"
cd "$1"
mknod null c 1 3
mknod full c 1 7
chmod 666 null full
shift
set +e
"$@"
status=$?
test -c null || { echo "null was replaced" >&2; exit 99; }
test -c full || { echo "full was replaced" >&2; exit 99; }
ls -A | grep -v -x -e null -e full && exit 98
exit $status
"""


@pytest.mark.parametrize(("name", "status"), [("null", 0), ("full", 1)])
def test_devices_of_root_outlive_the_command(name: str, status: int, tmp_path: Path) -> None:
    """In mounts of its own, so that no defect takes the machine's devices."""
    alone = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace of its own: that takes root")
    script = (
        "import sys; from pathlib import Path; from hotlap.perf.terms import files; "
        f"files.put(Path({name!r}), b'x' * 100_000)"
    )
    done = subprocess.run(
        [*alone, "sh", "-c", NAMESPACE, "sh", str(tmp_path), sys.executable, "-c", script],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "mknod" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no devices can be made here: {done.stderr.strip()}")
    assert done.returncode == status, done.stderr
    assert name == "null" or f"cannot write {name}: No space left on device" in done.stderr


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_stdout_by_its_path_is_stdout(name: str, tmp_path: Path) -> None:
    """A shell that appends to a file keeps what was there, and what is printed around it."""
    log = tmp_path / "log.txt"
    log.write_text("earlier\n")
    inode = log.stat().st_ino
    script = "print('before'); files.put(Path(sys.argv[1]), b'middle\\n'); print('after')"
    command = [sys.executable, "-c", f"import sys; from pathlib import Path; from hotlap.perf.terms import files; {script}"]  # noqa: E501  # fmt: skip
    with log.open("ab") as stdout:
        subprocess.run([*command, name], stdout=stdout, check=True, timeout=60)
    assert log.read_text() == "earlier\nbefore\nmiddle\nafter\n" and log.stat().st_ino == inode


def test_a_link_that_the_user_typed_stays_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "out.json", tmp_path / "out.json"
    link.symlink_to("elsewhere/out.json")
    for content in (b"first", b"second"):  # the first time the link leads to nothing yet
        files.put(link, content)
        assert link.is_symlink() and target.read_bytes() == content and not target.is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "out.json", "out.json"]


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    with server:
        for path in (tmp_path, tmp_path / "loop", tmp_path / "no" / "file", tmp_path / "socket", Path("a\0")):
            with pytest.raises(Misuse, match=r"cannot write [^\n]*: [^\n]+$"):
                files.put(path, NEW)
    assert (tmp_path / "loop").is_symlink() and stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)


def test_a_file_keeps_the_permissions_that_everything_new_has(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        files.put(tmp_path / "out.json", NEW)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "out.json").stat().st_mode) == 0o640


def test_a_part_has_a_name_that_nobody_can_plant(tmp_path: Path) -> None:
    """A link under the part's name would be written through: the name is new each time, and what
    stands there already is never opened.
    """
    names = set()
    for _ in range(3):
        with files.replacing(tmp_path / "results.json") as part:
            names.add(part.name)
            assert part.parent == tmp_path and stat.S_ISREG(part.lstat().st_mode)
    assert len(names) == 3


def test_a_part_that_stands_there_already_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "known")
    (tmp_path / "known".join(files.PART)).symlink_to(victim)
    with pytest.raises(FileExistsError):
        files.write(tmp_path / "results.json", NEW)
    assert victim.read_text() == "kept" and not (tmp_path / "results.json").exists()


def test_a_link_in_a_folder_of_ours_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "results.json").symlink_to(victim)
    files.write(tmp_path / "results.json", NEW)
    assert victim.read_text() == "kept"
    assert not (tmp_path / "results.json").is_symlink() and (tmp_path / "results.json").read_bytes() == NEW


def test_nothing_is_appended_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "aa.jsonl").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        files.appended(tmp_path / "aa.jsonl")
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("where", ["work", "work/mlp", "work/mlp/b1", "work/mlp/b1/cpu"])
def test_a_folder_is_not_emptied_through_a_link(where: str, tmp_path: Path) -> None:
    victim, run = tmp_path / "victim", tmp_path / "run"
    (victim / "mlp" / "b1" / "cpu").mkdir(parents=True)
    (victim / "b1" / "cpu").mkdir(parents=True)
    (victim / "cpu").mkdir()
    (victim / "cpu" / "kept").touch()
    before = sorted(victim.rglob("*"))
    (run / where).parent.mkdir(parents=True)
    (run / where).symlink_to(victim)
    with pytest.raises(Misuse, match=f"{where} is a symbolic link, .*; remove it"):
        files.clear(run / "work" / "mlp" / "b1" / "cpu", below=run)
    assert sorted(victim.rglob("*")) == before


def test_a_link_within_what_is_emptied_goes_and_its_target_stays(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run" / "work"
    victim.mkdir()
    (victim / "kept").touch()
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(victim)
    files.clear(folder, below=tmp_path / "run")
    assert (victim / "kept").exists() and not folder.exists()
    files.clear(folder, below=tmp_path / "run")


@pytest.mark.parametrize("name", ["work", "log", ".lock", "results.json", "work/mlp", "log/server-0.txt"])
@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_a_run_is_refused_whose_folder_leads_elsewhere(
    name: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim, run = tmp_path / "victim", tmp_path / "run"
    (victim / "b1").mkdir(parents=True)
    (victim / "b1" / "kept").write_text("kept")
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(tmp_path / target)
    before = sorted(tmp_path.rglob("*"))
    assert cli.status(["run", "mlp", "--backends", "null", "--out", str(run)]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and f"{name} is a symbolic link" in printed.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_the_user_linked_is_a_folder(tmp_path: Path) -> None:
    """--out may name a link to a larger disk."""
    from hotlap.perf.machine import survey
    from hotlap.perf.measure.rundir import RunFolder

    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    RunFolder(tmp_path / "out", "test", survey.collect(1, "keep")).close()
    assert (tmp_path / "disk" / "results.json").is_file() and (tmp_path / "out").is_symlink()


def test_what_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale file would be taken for what this run built; an empty folder is no matter."""
    (tmp_path / "work" / "mount").mkdir(parents=True)
    monkeypatch.setattr(files.shutil, "rmtree", lambda *args, **options: None)
    files.clear(tmp_path / "work", below=tmp_path)
    (tmp_path / "work" / "mount" / "stale.onnx").touch()
    with pytest.raises(Misuse, match=r"cannot remove .*stale\.onnx, which an earlier run left"):
        files.clear(tmp_path / "work", below=tmp_path)


@pytest.mark.parametrize("name", ["base", "head", "trees", "log", "verdict.json"])
def test_a_comparison_is_refused_whose_folder_leads_elsewhere(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to(tmp_path / "victim")
    assert cli.status(["ab", "HEAD", "HEAD", "mlp", "--out", str(tmp_path / "out")]) == 2
    assert f"{name} is a symbolic link" in capsys.readouterr().err
    assert not list((tmp_path / "victim").iterdir())


def test_a_profile_touches_nothing_beside_its_file(tmp_path: Path) -> None:
    from hotlap.profiles.commands import profile

    kept = [tmp_path / f"trace.json{suffix}" for suffix in (".part", ".raw.json", ".work")]
    for path in kept:
        path.write_text("kept")
    profile.writable(tmp_path / "trace.json")
    assert [path.read_text() for path in kept] == ["kept"] * 3 and len(list(tmp_path.iterdir())) == 3
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(Misuse, match="no regular file"):
        profile.destination(tmp_path / "pipe.json")
