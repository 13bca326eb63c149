"""The commit that made a case slower: git bisect over the commits of a change of level, each step
judged by `hotlap ab` against the last good one.

A step asks whether a commit lies on the far side of the middle of the change, so the tolerance is
half of it. What cannot be judged is skipped, as git bisect does it. All happens in a worktree of
its own: the user's is not touched.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from ..gate.revisions import UNCHANGED, check_out, commit, git, ran_git, remove
from ..race import leavings
from ..reports.formats import interval, percent
from ..stats.compare import Outcome
from ..terms.case import Case
from ..terms.reasons import Misuse
from ..terms.units import scaled
from ..terms.verdict import EXIT, read
from .series import Series

# The words of git bisect.
Term = Literal["good", "bad", "skip"]
# What git bisect is told for each outcome of hotlap ab.
TERM: dict[Outcome, Term] = {
    "pass": "good",
    "regression": "bad",
    "inconclusive": "skip",
    "not_comparable": "skip",
}
# How git bisect ends the line that names the commit it found.
FIRST_BAD = " is the first bad commit"


def hunt(all_series: Sequence[Series], case: str, budget_s: float, report: Callable[[str], None]) -> int:
    """Looks for the commit of the latest worsening of this case's latency.

    all_series: of this case. budget_s: of each step. Returns the exit status: 1 where the commit is
    found, 3 where the worsening is not reproduced or not told apart. Raises Misuse.
    """
    if not all_series:
        raise Misuse(f"no case {case!r} in these results")
    changes = [
        (series, change)
        for series in all_series
        for change in [*series.changes, *([series.young] if series.young else [])]
        if series.metric == "latency" and series.worse(change)
    ]
    if not changes:
        raise Misuse(f"{case}: its latency has no worsening in these results; there is nothing to look for")
    series, change = max(changes, key=lambda pair: pair[0].points[pair[1].index].measured)
    before, after = series.between(change)
    commits = [measured_commit(point.revision, point.path) for point in (before, after)]
    report(f"{case}: latency {percent(1 + change.effect)} between {commits[0][:12]} and {commits[1][:12]}")
    return bisect(Case.parse(case), commits[0], commits[1], change.effect, budget_s, report)


def measured_commit(revision: str, path: str) -> str:
    """Returns the whole hash of the commit that a result was measured at.

    Raises Misuse where the results were not made by a commit of this repository.
    """
    if not revision or revision.endswith("+"):
        state = "uncommitted changes" if revision else "no commit"
        raise Misuse(
            f"{Path(path).name} was measured with {state}, so git cannot go there; bisect needs results of"
            " commits"
        )
    wrong = f"{revision} is no commit of this repository; start --bisect inside it, with its history"
    return commit(Path(), revision, wrong)


def bisect(
    case: Case, good: str, bad: str, effect: float, budget_s: float, report: Callable[[str], None]
) -> int:
    """Bisects between two commits in a worktree of its own. Returns the exit status, as `hunt`.

    effect: how much slower `bad` was in the history, as a share.
    """
    tolerance = math.sqrt(1 + effect) - 1
    with leavings.temporary_folder() as folder:
        tree = folder / "tree"
        check_out(Path(), tree, bad)
        try:
            again = judge(tree, case, good, bad, tolerance, budget_s, report)
            if again == "skip":
                report(
                    f"{case.id}: whether {bad[:12]} is slower than {good[:12]} could not be told: a larger"
                    " --budget may"
                )
                return 3
            if again != "bad":
                report(
                    f"{case.id}: the slow-down does not come back when {bad[:12]} is measured beside"
                    f" {good[:12]}: look at the environment, not at the commits"
                )
                return 3
            output = git(tree, "bisect", "start", bad, good, "--")
            while FIRST_BAD not in output:
                candidate = git(tree, "rev-parse", "HEAD")
                term = judge(tree, case, good, candidate, tolerance, budget_s, report)
                done = ran_git(tree, "bisect", term)
                output = done.stdout
                if done.returncode:  # only skipped commits are left: git names them
                    for line in filter(None, map(str.strip, output.splitlines())):
                        report(line)
                    return 3
            culprit = next(line for line in output.splitlines() if FIRST_BAD in line).removesuffix(FIRST_BAD)
            described = git(tree, "log", "-1", "--format=%h %an, %as: %s", "--end-of-options", culprit)
            report(f"{case.id}: slower since {described}")
            return 1
        finally:
            remove(Path(), tree)


def judge(
    tree: Path,
    case: Case,
    good: str,
    candidate: str,
    tolerance: float,
    budget_s: float,
    report: Callable[[str], None],
) -> Term:
    """Returns what ab says of the candidate's latency, whatever else it finds.

    tree: the worktree; ab's files go beside it. Raises Misuse where ab cannot be asked at all.
    """
    out = tree.parent / candidate[:12]
    out.mkdir(exist_ok=True)
    policy, file = out / "gate.toml", out / "verdict.json"
    policy.write_text(f"[tolerance]\nlatency = {tolerance!r}\n")
    command = [sys.executable, "-m", "hotlap.perf.cli", "ab"]
    command += ["--backends", case.spec, "--precisions", case.precision, "--batch", str(case.batch)]
    command += ["--device", case.target, "--budget", f"{budget_s:g}s"]
    command += ["--policy", str(policy), "--out", str(out), "--json", str(file)]
    command += ["--", good, candidate, case.workload]
    done = subprocess.run(command, cwd=Path(), capture_output=True, text=True, check=False)
    if done.returncode not in EXIT.values():
        raise Misuse(
            f"hotlap ab {good[:12]} {candidate[:12]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}"
        )
    verdict = read(file)
    if any(reason.startswith(UNCHANGED) for reason in verdict.reasons):
        report(f"  {candidate[:12]}: loads the same files as {good[:12]}: good")
        return "good"
    latencies = (each for each in verdict.findings if each.case == case.id and each.metric == "latency")
    finding = next(latencies, None)
    if finding is None:
        report(f"  {candidate[:12]}: could not be measured: skip")
        return "skip"
    term = TERM[finding.verdict]
    moved = f"{percent(finding.ratio)}{interval(finding)}" if finding.ratio else "not measured"
    latency = scaled(finding.head, "s") if finding.head else "no time"
    why = f" ({'; '.join(finding.evidence)})" if term == "skip" else ""
    report(f"  {candidate[:12]}: {moved} against {good[:12]} ({latency}): {term}{why}")
    return term
