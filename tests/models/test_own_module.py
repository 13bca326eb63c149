"""docs/training.md as a stranger follows it: a repository with net.py alone, and its commands."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "training.md"
# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "net.py").write_text(code)
    (folder / "net.yaml").write_text("trainer:\n  max_epochs: 2\ncheckpoint_every: 5\n")
    return folder


def hotlap(folder: Path, *words: str, largest_file: int = -1) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "HOTLAP_RUNS"}
    command = [sys.executable, "-m", "hotlap.perf.cli", *words]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, -1)),
        capture_output=True,
        text=True,
        timeout=280,
    )


def commands() -> list[list[str]]:
    """Returns the page's commands that train anew, as it prints them."""
    (block,) = re.findall(r"```\n(hotlap train gpt.*?)```", PAGE.read_text(), re.DOTALL)
    lines = [line.partition("#")[0].split()[1:] for line in block.splitlines()]
    return [words for words in lines if words[:2] == ["train", "net:Net"]]


def test_the_pages_commands_train_and_the_checkpoint_is_raced(repository: Path) -> None:
    assert len(commands()) == 2
    for words in commands():
        done = hotlap(repository, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "net:Net: epoch 2 of" in done.stdout and "val accuracy" in done.stdout
    (last,) = re.findall(r"checkpoint: (.*)", done.stdout)
    folder = repository / Path(last).parent
    assert "width: 32" in (folder / "config.yaml").read_text()
    raced = hotlap(
        repository, "run", "net:Net", "--checkpoint", last, "--backends", "eager", "--budget", "5s"
    )
    assert raced.returncode == 0, raced.stdout + raced.stderr
    assert "net:Net" in raced.stdout and "eager" in raced.stdout
    # Its own configuration starts the same training again.
    again = hotlap(repository, "train", "--config", str(folder / "config.yaml"))
    assert again.returncode == 0 and again.stdout.splitlines()[:2] == done.stdout.splitlines()[:2]


def test_two_runs_are_compared_and_two_arms_answered(repository: Path) -> None:
    """Two arms and three seeds, as the page on experiments has them."""
    listed = hotlap(repository, "runs", "list").stdout
    first, second, *_ = dict.fromkeys(re.findall(r"Net-\d{8}-\d{6}-[0-9a-f]{4}", listed))
    compared = hotlap(repository, "runs", "compare", first, second)
    assert compared.returncode == 0 and "model.init_args.width" in compared.stdout, compared.stderr
    (design,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "experiments" / "README.md").read_text(), re.DOTALL)
    (repository / "width.yaml").write_text(design)
    asked = hotlap(repository, "experiment", "width.yaml")
    assert asked.returncode in (0, 3), asked.stdout + asked.stderr
    assert re.search(r"^wide: .*accuracy 0\.\d+ against 0\.\d+ of narrow", asked.stdout, re.MULTILINE)
    page = (repository / "width.md").read_text()
    assert page.startswith("# Is a wider layer better?") and "| 3 of 3 |" in page
    assert (repository / "width.png").exists() and (repository / "width.json").exists()


def test_an_exception_is_shown_whole_and_the_run_goes_on_after_the_mend(repository: Path) -> None:
    code = (repository / "net.py").read_text()
    cut = "        rows = rows[:, : 4 - self.current_epoch]\n        loss = nn"
    broken = code.replace("        loss = nn", cut)
    (repository / "net.py").write_text(broken)
    try:
        failed = hotlap(repository, "train", "net:Net", "--data", "net:Rows", "--config", "net.yaml")
    finally:
        (repository / "net.py").write_text(code)
    assert failed.returncode == 4
    *_, line = failed.stderr.splitlines()
    assert "in training_step" in failed.stderr and line.startswith("hotlap: RuntimeError: mat1 and mat2")
    (ID,) = re.findall(r"--resume (\S+) goes on", line)
    (repository / "net.py").write_text("raise KeyError('their own import')\n")
    try:
        unimportable = hotlap(repository, "train", "--resume", ID)
    finally:
        (repository / "net.py").write_text(code)
    assert unimportable.returncode == 4 and "KeyError: 'their own import'" in unimportable.stderr
    assert f"--resume {ID} goes on" in unimportable.stderr
    resumed = hotlap(repository, "train", "--resume", ID)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.startswith("net:Net: epoch 2 of 2")


def test_mistakes_are_one_line_and_exit_2(repository: Path) -> None:
    for words, message in (
        (("net:Net",), "how long is not said: trainer.max_epochs=N"),
        (("net:Net", "--epochs", "1"), "no data: --data package.module:Class"),
        (("net:Net", "--data", "net:Rows", "model.widht=3"), "net.Net takes no 'widht'; did you mean width?"),
    ):
        done = hotlap(repository, "train", *words)
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_full_disk_stops_with_one_line_and_leaves_the_checkpoint_before(repository: Path) -> None:
    """A checkpoint of the wider network is larger than a file may be: every write of it fails."""
    asked = ("train", "net:Net", "--data", "net:Rows", "--config", "net.yaml", "model.width=4096")
    done = hotlap(repository, *asked, largest_file=60_000)
    assert done.returncode == 4, done.stderr
    (line,) = done.stderr.splitlines()
    assert "last.ckpt cannot be written: File too large; hotlap train net:Net --resume Net-" in line
    (ID,) = re.findall(r"--resume (\S+) goes on", line)
    left = {path.name for path in (repository / "runs" / "train" / ID).iterdir() if path.is_file()}
    assert left <= {".lock", "config.yaml", "settings.json", "environment.json", "uncommitted.diff"}
