"""Names a run as the one to go on with, by an evaluation of its checkpoint that is kept beside it.

An evaluation is a results file of `hotlap run`: there the checkpoint's outputs were checked and its
task metric measured. Who promotes is git's user, which is a name and no signature. Imports no
torch.
"""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..perf.terms import files, result, stored
from ..perf.terms.reasons import Misuse
from . import runs

# In a run's folder: on what it was promoted, and the evaluation itself.
PROMOTED, EVALUATION = "promoted.json", "evaluation.json"
# 1: the first version of promoted.json.
SCHEMA = 1
# Digits of a checkpoint's hash in the words of a result.
DIGITS = 8


def promote(folder: Path, evaluation: Path) -> dict[str, Any]:
    """Promotes a run by this evaluation, which is copied into its folder, and returns what is
    written of it.

    Raises Misuse for a run that is not finished and for an evaluation that says nothing good of one
    of its checkpoints, Unreadable for a file that is no results file.
    """
    if not (folder / runs.METRICS).exists():
        raise Misuse(f"{folder.name} is not finished; hotlap train --resume {folder.name} goes on")
    results = result.read(evaluation)
    good = [each for each in results.results if each.status in ("ok", "noisy")]
    for checkpoint in checkpoints(folder):
        sha = runs.digest(checkpoint)
        standing = [each for each in good if f"sha256:{sha[:DIGITS]}" in each.weights]
        if standing:
            break
    else:
        known = sorted({each.weights for each in good if each.weights})
        raise Misuse(
            f"{evaluation} evaluates no checkpoint of {folder.name}, but {'; '.join(known) or 'nothing'}; run"
            f" hotlap run with --checkpoint {folder / runs.CHECKPOINT}"
        )
    content = {
        "schema": SCHEMA,
        "run": folder.name,
        "checkpoint": str(checkpoint.relative_to(folder)),
        "sha256": sha,
        "evaluation": EVALUATION,
        "evaluation_sha256": runs.digest(evaluation),
        "stands_on": [
            {
                "case": each.case.id,
                "status": each.status,
                "task": task_of(each),
            }
            for each in standing
        ],
        "by": who(),
        "by_is": "what git is configured to say, no signature",
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    files.write(folder / EVALUATION, stored.content(evaluation))
    runs.write_json(folder / PROMOTED, content)
    return content


def checkpoints(folder: Path) -> list[Path]:
    """Returns a run's checkpoints, the last one first."""
    return [
        *filter(Path.is_file, [folder / runs.CHECKPOINT]),
        *sorted((folder / runs.CHECKPOINTS).glob("*.ckpt")),
    ]


def task_of(each: result.Result) -> dict[str, float] | None:
    """Returns what a case's task metric is; None where it has none."""
    task = each.deviation.task if each.deviation is not None else None
    return None if task is None else {task.metric: task.value}


def who() -> str:
    """Returns git's user. Raises Misuse where git does not know one."""
    parts = []
    for key in ("user.name", "user.email"):
        done = subprocess.run(["git", "config", key], capture_output=True, text=True, check=False)
        parts.append(done.stdout.strip())
    if not all(parts):
        raise Misuse("git knows no user; git config user.name NAME and user.email MAIL")
    return f"{parts[0]} <{parts[1]}>"
