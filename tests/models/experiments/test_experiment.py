"""`hotlap experiment` on a user's own module: real trainings in processes of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hotlap.models.experiments import record
from hotlap.perf.terms import verdict

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow
COMMAND = (sys.executable, "-P", "-m", "hotlap.perf.cli", "experiment")


def experiment(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=280)


def changed(repository: Path, name: str, *pairs: tuple[str, str]) -> str:
    """Writes the design with other words under another name, and returns its file's name."""
    text = (repository / "rate.yaml").read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    (repository / f"{name}.yaml").write_text(text)
    return f"{name}.yaml"


def test_two_arms_and_three_seeds_are_answered_and_not_trained_twice(repository: Path) -> None:
    done = experiment("rate.yaml", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "high: better. loss 0." in done.stdout and "from 3 pairs" in done.stdout
    assert "6 of 6" in done.stdout and "Traceback" not in done.stderr
    kept = record.read(repository / "rate.json")
    assert [each.status for each in kept.outcomes] == ["finished"] * 6
    assert {each.steps for each in kept.outcomes} == {8}
    # A seed's trainings stand beside each other, and differ in the arm alone.
    runs = repository / "runs" / "experiments" / "rate"
    assert sorted(path.name for path in runs.iterdir()) == [".lock", "0", "1", "2", "design.json"]
    # What was asked is one verdict for a gate too.
    assert verdict.read(repository / "rate.json").verdict == "pass"
    assert "# Is a high learning rate better?" in (repository / "rate.md").read_text()
    assert (repository / "rate.png").read_bytes().startswith(b"\x89PNG")
    # It has begun: without a word it is not begun again, and nothing is trained twice.
    again = experiment("rate.yaml")
    assert again.returncode == 2 and "rate has begun already; --resume goes on with it" in again.stderr
    before = (repository / "rate.md").read_text()
    resumed = experiment("rate.yaml", "--resume")
    assert resumed.returncode == 0 and "seed" not in resumed.stdout
    assert (repository / "rate.md").read_text() == before and "One file" not in before
    # Code that was changed between two trainings is said.
    shutil.rmtree(runs / "2" / "high")
    (repository / "net.py").write_text((repository / "net.py").read_text() + "# changed\n")
    mixed = experiment("rate.yaml", "--resume")
    assert mixed.returncode == 0 and "high, seed 2: " in mixed.stdout
    assert "- One file net.py: it was " in (repository / "rate.md").read_text()
    # A design that was changed once its answer is known is another experiment.
    (repository / "rate.yaml").write_text((repository / "rate.yaml").read_text() + "alpha: 0.2\n")
    moved = experiment("rate.yaml", "--resume")
    assert moved.returncode == 2 and "was changed after it had begun" in moved.stderr


def test_what_fails_is_counted_and_what_is_killed_goes_on(repository: Path) -> None:
    harm = changed(
        repository,
        "harm",
        ("high: {", "odd: {model.harm: odd, "),
        ("low: {}", 'low: {model.harm: "die once"}'),
        ("model.rate: 0.5}", "model.rate: 0.5}, left: {model.harm: thread}"),
    )
    done = experiment(harm, "--jobs", "1")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "its process was ended by signal 9; it goes on" in done.stdout
    assert "odd, seed 1: " in done.stdout and "the loss is nan" in done.stdout
    assert "odd: could not tell (1 of its trainings failed). loss" in done.stdout
    kept = record.read(repository / "harm.json")
    assert [each.seed for each in kept.outcomes if each.status == "failed"] == [1]
    page = (repository / "harm.md").read_text()
    assert "| odd | 2 of 3 |" in page and "odd with seeds 1: " in page


def test_a_process_that_dies_each_time_is_a_failed_training(repository: Path) -> None:
    name = changed(repository, "dies", ("high: {", "dead: {model.harm: die, "), ("seeds: 3", "seeds: 2"))
    done = experiment(name)
    assert done.returncode == 3
    assert "dead: could not tell (0 seeds have a value of both, and two are needed)" in done.stdout
    assert "its process was ended by signal 9, 2 times; see" in (repository / "dies.md").read_text()
    # What killed it, such as a machine without memory, may be gone.
    (repository / "mended").touch()
    again = experiment(name, "--resume")
    assert (
        "dead, seed 0: loss " in again.stdout and "| dead | 2 of 2 |" in (repository / "dies.md").read_text()
    )


def test_a_killed_experiment_leaves_no_process_and_goes_on_to_the_same_values(repository: Path) -> None:
    name = changed(repository, "slow", ("low: {}", "low: {model.harm: slow}"), ("seeds: 3", "seeds: 2"))
    resumed = experiment(name, "--resume")
    assert resumed.returncode == 2 and "nothing has begun; leave --resume out" in resumed.stderr
    for ending, how in ((signal.SIGINT, ()), (signal.SIGKILL, ("--resume",))):
        process = subprocess.Popen(
            [*COMMAND, name, "--jobs", "1", *how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        start, limit = time.time(), time.monotonic() + 120
        while not newest_checkpoint(repository) > start and time.monotonic() < limit:
            time.sleep(0.05)
        if ending == signal.SIGINT:
            second = experiment(name, "--resume")
            assert second.returncode == 2 and "slow is being trained by another process" in second.stderr
        os.kill(process.pid, ending)
        printed, said = process.communicate(timeout=60)
        if ending == signal.SIGINT:
            assert process.returncode == 130, printed + said
            assert "hotlap experiment slow.yaml --resume --jobs 1 goes on" in said
        limit = time.monotonic() + 20
        while trainings(process.pid) and time.monotonic() < limit:
            time.sleep(0.05)
        assert not trainings(process.pid)
    assert not (repository / "slow.json").exists()
    resumed = experiment(name, "--resume")
    assert resumed.returncode in (0, 3), resumed.stdout + resumed.stderr
    fresh = experiment(changed(repository, "fresh", ("seeds: 3", "seeds: 2")))
    assert fresh.returncode in (0, 3)
    values = [
        {(each.arm, each.seed): each.value for each in record.read(repository / f"{each}.json").outcomes}
        for each in ("slow", "fresh")
    ]
    assert values[0] == values[1]


def newest_checkpoint(folder: Path) -> float:
    """Returns when the latest checkpoint was written; 0 where there is none."""
    return max((path.stat().st_mtime for path in (folder / "runs").rglob("last.ckpt")), default=0.0)


def trainings(session: int) -> list[str]:
    """Returns the processes of a session that are not the experiment itself."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z" and path.parent.name != str(session):
            pids.append(path.parent.name)
    return pids


def test_a_plan_says_what_it_would_find_and_not_who_is_ahead(repository: Path) -> None:
    done = experiment("rate.yaml", "--plan")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "high: finds" in done.stdout and "hours, " in done.stdout
    assert "the smallest effect of interest, 0.01, takes " in done.stdout
    assert "loss 0." not in done.stdout
    assert not (repository / "runs" / "experiments" / "rate" / "design.json").exists()
    # The pilot's trainings are there for the next question of the same arms, and not in its answer.
    trained = sorted(repository.rglob("metrics.json"))
    more = changed(repository, "rate", ("seeds: 3", "seeds: 4"))
    again = experiment(more, "--plan")
    assert again.returncode == 0 and "the design has 4" in again.stdout
    assert sorted(repository.rglob("metrics.json")) == trained and len(trained) == 10


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "metric: loss",
            "metric: accuracy",
            "metric: net:Net logs no 'accuracy' of the validation split, but loss",
        ),
        ("model.rate", "model.rat", "high: net.Net takes no 'rat'; did you mean rate?"),
        ("data: net:Rows", "config: none.yaml", "rate.yaml: config: there is no none.yaml"),
        ("train: net:Net", "train: broken:Net", "low: AssertionError: as it stands"),
    ],
)
def test_a_mistake_is_one_line(repository: Path, old: str, new: str, words: str) -> None:
    done = experiment(changed(repository, "rate", (old, new)), "--jobs", "2")
    assert done.returncode == 2 and words in done.stderr.splitlines()[-1], done.stdout + done.stderr
    assert "Traceback" not in done.stderr
