"""Some eighty ways to get a wrong `ok`, a green exit or a file where none belongs.

    python bench/attacks.py [NAMES] [--json docs/results/attacks.json]
        about 8 minutes; runs all attacks or those whose name holds one of the words
    python bench/attacks.py --table docs/results/attacks.json
        the table of docs/attacks.md

Each runs the product in a process of its own in a temporary folder. One of tests/ plants a defect
where a guard is known; these were thought up afterwards, from the outside. What is `broken` stays
in the table with its reason.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.environment import Environment
from hotlap.perf.terms.result import Placement, Result, Results, Samples, encode

ROOT = Path(__file__).resolve().parent.parent
# 1 (0.1.0): first version.
SCHEMA = 1
OK, GREEN, OUTSIDE = "wrong ok", "green exit", "outside"
HOTLAP = (sys.executable, "-m", "hotlap.perf.cli")
# Stands in the environment of all that an attack starts.
VARIABLE = "HOTLAP_ATTACK"
LIMIT_S = 120


class Outcome(msgspec.Struct, frozen=True):
    """What came of an attack, and the line that shows it."""

    held: bool
    evidence: str


class Attack(NamedTuple):
    """A name, what it is after, what should happen, and the function that tries it in a folder."""

    name: str
    kind: str
    expected: str
    tried: Callable[[Path], Outcome]
    # Why it is not mended, where it is known to be broken.
    why: str = ""


def child(
    here: Path, *command: str, shell: str = "", stdin: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command in the folder. shell: what a shell does before, such as ulimit."""
    if shell:
        command = ("bash", "-c", f'{shell}\nexec "$@"', "bash", *command)
    path = os.pathsep.join(filter(None, [env.pop("PYTHONPATH", ""), str(ROOT)]))
    return subprocess.run(
        command, cwd=here, env={**os.environ, "PYTHONPATH": path, VARIABLE: str(here), **env},
        capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False,
        input=stdin or "",
    )  # fmt: skip


def line(text: str) -> str:
    """Returns the last line of a text, in letters that a table holds."""
    last = ([""] + [row for row in text.splitlines() if row.strip()])[-1]
    last = re.sub(r"(?<![\w.:])/\S*/(?=[\w.-]+)", "", last.strip())
    return "".join(letter if letter.isprintable() else " " for letter in last)[:160]


def ended(done: subprocess.CompletedProcess[str], *expected: int, words: str = "") -> Outcome:
    """Held where the exit status is one of these, and the words were said."""
    both = done.stderr + done.stdout
    return Outcome(
        done.returncode in expected and words in both,
        f"exit {done.returncode}: {line(done.stderr) or line(done.stdout)}",
    )


# Models ------------------------------------------------------------------------------------------

# Makes the reference as a run does, lets `wrong` answer in the place of a backend, and prints what
# became of it: refused, caught or passed.
REFEREE = """
import json, sys
from pathlib import Path
import numpy as np, torch
import planted
from hotlap.perf.lookup import workloads
from hotlap.perf.oracle import check, leaves, reference
from hotlap.perf.oracle.arrays import named
from hotlap.perf.terms.reasons import Refusal
from hotlap.perf.terms.result import Deviation
folder = Path("oracle"); folder.mkdir()
try:
    workload = workloads.load(workloads.Reference("planted:make"))
    batch = reference.own_batch(workload)
    seen = reference.refer(workload, batch, ["fp32"], "cpu", folder, 1)
    outputs = {}
    for kind in seen.kinds:
        with np.load(folder / f"{kind}.npz") as stored:
            inputs = named(stored, "in")
        with torch.inference_mode():
            answers = [
                leaves.tensors(planted.wrong(workload.module, *map(torch.from_numpy, batch)))
                for batch in zip(*inputs, strict=True)
            ]
        outputs[kind] = folder / f"out-{kind}.npz"
        np.savez(outputs[kind], **{
            f"out{i}": np.stack([leaves.array(value) for value in some])
            for i, some in enumerate(zip(*answers, strict=True))
        })
    distances = check.distances(folder, outputs, "fp32", seen.subject.work.terms, seen.subject.outputs)
    check.judge(Deviation(distances), "fp32", False)
    print(json.dumps(["passed", f"axis {seen.axis}; " + " ".join(seen.notes)[-120:]]))
except Refusal as refusal:
    print(json.dumps(["refused", str(refusal)]))
"""
MODEL = """
import torch, time
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x):
        return answer(self, x)

def make():
    return Net(), torch.randn(4, 16)

"""


def model(here: Path, source: str, words: str = "", passes: bool = False) -> Outcome:
    """Held where wrong outputs are refused, in these words; or, where it `passes`, right ones are
    not.

    source: defines answer(net, x), the forward, and wrong(net, x), what a backend answers.
    """
    (here / "planted.py").write_text(MODEL + source)
    done = child(here, sys.executable, "-W", "ignore", "-c", REFEREE)
    try:
        state, detail = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return Outcome(not passes and done.returncode != 0 and not words, f"no result: {line(done.stderr)}")
    held = state == "passed" if passes else state == "refused" and words in detail
    return Outcome(held, f"{state}: {line(detail)}")


# Runs --------------------------------------------------------------------------------------------


def run(here: Path, source: str, *more: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Runs eager on a module of one's own, and returns what was stored by backend."""
    (here / "planted.py").write_text(MODEL + source)
    done = child(
        here, *HOTLAP, "run", "planted:make", "--backends", "eager", "--batch", "4", "--budget", "1s",
        "--out", "out", "--timeout", "60s", *more,
    )  # fmt: skip
    file = here / "out" / "results.json"
    stored = json.loads(file.read_bytes()) if file.exists() else {"results": []}
    return done, {result["case"]["backend"]: result for result in stored["results"]}


def failed(here: Path, source: str) -> Outcome:
    """Held where the model's case fails with a reason, exit 4, and no process stays."""
    done, results = run(here, source)
    reason = (results.get("eager") or {}).get("reason") or {}
    left, words = running(here), line(reason.get("detail", done.stderr))
    return Outcome(
        done.returncode == 4 and reason.get("code") is not None and not left,
        f"exit {done.returncode}, {reason.get('code')}: {words}; {left} left",
    )


def running(here: Path) -> int:
    """Returns how many processes that an attack started still run."""
    time.sleep(0.5)
    return sum(
        (process.info["environ"] or {}).get(VARIABLE) == str(here)
        and process.info["status"] != psutil.STATUS_ZOMBIE
        for process in psutil.process_iter(["environ", "status"])
    )


def changes_folder(here: Path) -> Outcome:
    before = sorted(Path("/").iterdir())
    done, _ = run(here, "import os; os.chdir('/')\ndef answer(net, x): return net.layer(x)\n")
    planted = sorted({*Path("/").iterdir()} - {*before})
    return Outcome(done.returncode in (0, 4) and not planted, f"exit {done.returncode}, new in /: {planted}")


def hostile_error(here: Path) -> Outcome:
    evil = "\\x1b[31m::error::x\\n::set-output name=a::b\\n| [a](http://e) @all"
    done, _ = run(here, f'def answer(net, x): raise ValueError("{evil}")\n')
    shown = done.stdout + done.stderr
    obeyed = [row for row in shown.splitlines() if row.lstrip().startswith("::") or "\x1b" in row]
    return Outcome(
        done.returncode == 4 and not obeyed, f"exit {done.returncode}, obeyed lines: {len(obeyed)}"
    )


def speaks(here: Path) -> Outcome:
    source = "import os; os.write(1, b'::error::planted\\n')\ndef answer(net, x): return net.layer(x)\n"
    done, results = run(here, source)
    status = (results.get("eager") or {}).get("status")
    return Outcome(
        "::error::planted" not in done.stdout + done.stderr and status in ("ok", "noisy", "failed"),
        f"exit {done.returncode}, eager {status}, spoken: {'::error::planted' in done.stdout + done.stderr}",
    )


def umasked(here: Path) -> Outcome:
    _, results = run(here, "import os; os.umask(0o777)\ndef answer(net, x): return net.layer(x)\n")
    closed = [
        path.relative_to(here).as_posix()
        for path in (here / "out").rglob("*")
        if not path.stat().st_mode & 0o400
    ]
    status = (results.get("eager") or {}).get("status")
    return Outcome(
        status in ("ok", "noisy", "failed") and not closed,
        f"eager {status}; {len(closed)} files and folders that nobody may read",
    )


def cached_by_content(here: Path) -> Outcome:
    source = (
        "memory = {}\n"
        "class Wide(Net):\n"
        "    def __init__(self):\n"
        "        super().__init__(); self.layer = nn.Sequential(*[nn.Linear(1024, 1024) for _ in range(4)])\n"
        "def make(): return Wide(), torch.randn(4, 1024)\n"
        "def answer(net, x):\n"
        "    key = (x.dtype, x.numpy().tobytes())\n"
        "    if key not in memory: memory[key] = net.layer(x)\n"
        "    return memory[key].clone()\n"
    )
    done, results = run(here, source)
    eager = results.get("eager") or {}
    reason = (eager.get("reason") or {}).get("code")
    return Outcome(
        eager.get("status") == "failed",
        f"exit {done.returncode}, eager {eager.get('status')}: {reason or done.stdout[-80:].strip()}",
    )


def changes_later(here: Path) -> Outcome:
    """Answers otherwise from the hundredth call on."""
    source = (
        "def answer(net, x):\n"
        "    net.calls = getattr(net, 'calls', 0) + 1\n"
        "    return net.layer(x) * (2 if net.calls > 100 else 1)\n"
    )
    _, results = run(here, source)
    eager = results.get("eager") or {}
    return Outcome(eager.get("status") == "failed", f"eager {eager.get('status')}: {eager.get('reason')}")


def baked_state(here: Path) -> Outcome:
    """An export keeps the state of its own first calls."""
    source = (
        "def make():\n    net = Net(); net.register_buffer('calls', torch.zeros(()))\n"
        "    return net, torch.randn(4, 16)\n"
        "def answer(net, x):\n    net.calls += 1\n    return net.layer(x) * (net.calls < 30)\n"
    )
    _, results = run(here, source, "--backends", "eager,onnxruntime")
    states = {name: result["status"] for name, result in results.items() if name != "pace"}
    return Outcome(not {*states.values()} & {"ok", "noisy"}, f"{states}")


def resumes_elsewhere(here: Path) -> Outcome:
    """An ID that leads out of the folder of runs."""
    (here / "runs" / "race").mkdir(parents=True)
    (here / "victim").mkdir()
    (here / "victim" / "results.json").write_bytes(measured())
    done = child(here, *HOTLAP, "run", "--resume", "../../victim", "--budget", "1s")
    files = sorted(path.name for path in (here / "victim").iterdir())
    return Outcome(files == ["results.json"], f"exit {done.returncode}, in the other folder: {files}")


# Results files -----------------------------------------------------------------------------------

HERE = Environment(
    "Xeon", 2, 2**30, (), "Linux 6", "3.11.7", {"torch": "2.14.1"}, (), "", 2, "keep", "madvise", "", "one"
)


def samples(centre: float, seed: int) -> Samples:
    """Returns twelve blocks around a drift that all seeds share."""
    own, drift = random.Random(seed), random.Random(99)
    levels = [centre * math.exp(drift.gauss(0, 0.3)) for _ in range(12)]
    return Samples(
        "s",
        "lower",
        tuple(tuple(level * math.exp(own.gauss(0, 0.005)) for _ in range(3)) for level in levels),
    )


def measured(slower: float = 1.0, seed: int = 1) -> bytes:
    """Returns a results file of one case and its pace."""
    metrics = {
        "latency": samples(0.01 * slower, seed),
        "memory": Samples("B", "lower", ((3e8,), (3.01e8,), (2.99e8,))),
    }
    placement = Placement("cpu", {"cpu": 9}, {"operators": 40})
    shared: dict[str, Any] = {"environment": HERE.key}
    results = (
        Result(Case("net", "eager"), "race", Plan(), "ok", metrics=metrics, placement=placement, **shared),
        Result(Case("net", "pace"), "race", Plan(), "ok", metrics={"latency": samples(0.001, 7)}, **shared),
    )
    return encode(Results(f"run{seed}", "test", {HERE.key: HERE}, results=results))


def sides(here: Path) -> None:
    """Writes base.json, and slow.json, which is 30 % slower."""
    (here / "base.json").write_bytes(measured())
    (here / "slow.json").write_bytes(measured(1.3, 2))


def edited(here: Path, edit: Callable[[Any], Any], *expected: int, slower: float = 1.3) -> Outcome:
    """Held where a gate of a file that was edited ends with one of these."""
    sides(here)
    stored = json.loads(measured(slower, 2))
    edit(stored)
    (here / "head.json").write_text(json.dumps(stored))
    return ended(child(here, *HOTLAP, "gate", "base.json", "head.json"), *(expected or (1, 3, 4)))


def of_case(field: str, value: Any) -> Callable[[Any], Any]:
    """Returns an edit that sets a field of the first result; a dot leads into it."""

    def edit(stored: Any) -> None:
        *way, last = field.split(".")
        place = stored["results"][0]
        for key in way:
            place = place[key]
        place[last] = value

    return edit


def scaled(index: int, factor: float) -> Callable[[Any], Any]:
    """Returns an edit that multiplies the latencies of a result."""

    def edit(stored: Any) -> None:
        latency = stored["results"][index]["metrics"]["latency"]
        latency["values"] = [[value * factor for value in block] for block in latency["values"]]

    return edit


def twice(stored: Any) -> None:
    stored["results"].append(copy.deepcopy(json.loads(measured())["results"][0]))


def repeated_key(here: Path) -> Outcome:
    sides(here)
    fast = json.dumps(json.loads(measured(1, 3))["results"])
    (here / "head.json").write_text((here / "slow.json").read_text().rstrip()[:-1] + f', "results": {fast}}}')
    return ended(child(here, *HOTLAP, "gate", "base.json", "head.json"), 1, 3, 4)


def linked(here: Path) -> Outcome:
    sides(here)
    (here / "head.json").symlink_to("base.json")
    return ended(child(here, *HOTLAP, "gate", "base.json", "head.json"), 2, 3, 4)


def policy(here: Path, text: str, *expected: int) -> Outcome:
    """Held where a gate with this policy in the working directory ends with one of these."""
    sides(here)
    (here / "gate.toml").write_text(text)
    return ended(child(here, *HOTLAP, "gate", "base.json", "slow.json"), *expected)


def lost_policy(here: Path, folder: bool) -> Outcome:
    sides(here)
    if folder:
        (here / "gate.toml").mkdir()
    else:
        (here / "gate.toml").symlink_to("moved.toml")
    return ended(child(here, *HOTLAP, "gate", "base.json", "slow.json"), 2, 3, 4)


def joined(here: Path) -> Outcome:
    sides(here)
    finding = {"case": "a", "metric": "latency", "verdict": "regression", "base": 1.0, "head": 2.0}
    document = {"schema": 1, "tool": "kernels", "verdict": "pass", "reasons": [], "findings": [finding]}
    (here / "kernels.json").write_text(json.dumps(document))
    (here / "same.json").write_bytes(measured(1, 3))
    return ended(child(here, *HOTLAP, "gate", "base.json", "same.json", "--with", "kernels.json"), 1, 3, 4)


# Exit statuses -----------------------------------------------------------------------------------


def gate(here: Path, *expected: int, more: Iterable[str] = (), shell: str = "", **env: str) -> Outcome:
    """Held where the gate of a regression ends with one of these."""
    sides(here)
    done = child(here, *HOTLAP, "gate", "base.json", "slow.json", *more, shell=shell, **env)
    parts = sorted(path.name for path in here.rglob("*.part"))
    outcome = ended(done, *expected)
    return Outcome(outcome.held and not parts, outcome.evidence + (f", left {parts}" if parts else ""))


def inspected(here: Path) -> Outcome:
    sides(here)
    (here / "same.json").write_bytes(measured(1, 3))
    codes = [
        child(here, *HOTLAP, "gate", "base.json", name, PYTHONINSPECT="1").returncode
        for name in ("slow.json", "absent.json", "same.json")
    ]
    return Outcome(codes == [1, 2, 0], f"exits {codes}")


def pipes(here: Path) -> Outcome:
    sides(here)
    piped = f"{' '.join(HOTLAP)} gate <(cat base.json) <(cat slow.json) | head -c 1 >/dev/null"
    return ended(child(here, "bash", "-c", f"{piped}; exit ${{PIPESTATUS[0]}}"), 1)


def folder_that_went(here: Path) -> Outcome:
    sides(here)
    script = (
        f"mkdir gone && cd gone && rmdir ../gone && exec {' '.join(HOTLAP)} gate ../base.json ../slow.json"
    )
    return ended(child(here, "bash", "-c", script), 1, 2, 3, 4)


def history(here: Path) -> Outcome:
    """Files that are none, and the index and verdict of an earlier look beside them."""
    (here / "stored").mkdir()
    (here / "stored" / "a.json").write_text("{}")
    (here / "stored" / "b.json").write_text('{"schema": 1, "results": []}')
    return ended(child(here, *HOTLAP, "history", "stored"), 2, 3, 4)


def own_verdict(here: Path) -> Outcome:
    (here / "stored").mkdir()
    (here / "stored" / "a.json").write_bytes(measured())
    command = (*HOTLAP, "history", "stored", "--json", "stored/history.json")
    child(here, *command)
    return ended(child(here, *command), 3)


# CI ----------------------------------------------------------------------------------------------


def clone(here: Path, stub: str) -> Path:
    """Returns a clone with one commit and a hotlap that does what the stub says; empty: the real
    one.
    """
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t")
    body = stub or f'exec {" ".join(HOTLAP)} "$@"'
    (here / "bin").mkdir()
    (here / "bin" / "hotlap").write_text(f"#!/bin/sh\n{body}\n")
    (here / "bin" / "hotlap").chmod(0o755)
    child(here, "git", "init", "-q", "--bare", "-b", "main", "origin.git")
    child(here, "git", "clone", "-q", "origin.git", "clone")
    for command in (("commit", "-q", "--allow-empty", "-m", "first"), ("push", "-q", "origin", "HEAD:main")):
        child(here / "clone", *git, *command)
    return here / "clone"


def script(here: Path, stub: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(here / "bin"), os.environ["PATH"]])
    home = {"HOME": str(here), "GITHUB_ACTIONS": ""}
    return child(
        clone(here, stub), str(ROOT / "ci" / "hotlap.sh"), *arguments, **{"PATH": path, **home, **env}
    )


COMPARE = ("compare", "main", "HEAD", "planted:make")
RECORD = ("record", "planted:make")
MEASURES = 'for a; do [ "$p" = --out ] && mkdir -p "$a" && echo "{}" >"$a/results.json"; p=$a; done'


def ci(here: Path, stub: str, arguments: tuple[str, ...], *expected: int, **env: str) -> Outcome:
    return ended(script(here, stub, *arguments, **env), *expected)


def killed_script(here: Path) -> Outcome:
    """SIGTERM while results are stored: the worktree beside the clone must go."""
    (here / "tmp").mkdir()
    script(
        here,
        f"{MEASURES}\n[ $1 = history ] && kill -TERM $PPID && sleep 1",
        *RECORD,
        TMPDIR=str(here / "tmp"),
    )
    time.sleep(1.5)
    left = sorted(path.name for path in (here / "tmp").iterdir())
    trees = child(here / "clone", "git", "worktree", "list").stdout.count("\n")
    return Outcome(not left and trees == 1, f"left {left}, {trees} worktree")


def linked_outputs(here: Path) -> Outcome:
    """The output folder and its files lead elsewhere, as a pull request may commit them."""
    work = clone(here, f"{MEASURES}; exit 4")
    victim = here / "victim"
    victim.mkdir()
    for name in ("comment.md", "results.json"):
        (victim / name).write_text("kept")
    (work / "hotlap-out").mkdir()
    (work / "hotlap-out" / "comment.md").symlink_to(victim / "comment.md")
    (work / "hotlap-out" / "run").symlink_to(victim)
    path = os.pathsep.join([str(here / "bin"), os.environ["PATH"]])
    for arguments in (COMPARE, RECORD):
        child(work, str(ROOT / "ci" / "hotlap.sh"), *arguments, PATH=path, HOME=str(here))
    contents = sorted((file.name, file.read_text()) for file in victim.iterdir())
    return Outcome(
        contents == [("comment.md", "kept"), ("results.json", "kept")], f"in the other folder: {contents}"
    )


def step(name: str) -> str:
    """Returns the script of a step of action.yml."""
    text = (ROOT / "action.yml").read_text().split(f"- name: {name}\n")[1]
    block = text.split("run: |\n")[1]
    rows = []
    for row in block.splitlines():
        if row.strip() and not row.startswith(" " * 8):
            break
        rows.append(row[8:])
    return "\n".join(rows)


def action(here: Path, stub: str, name: str, *expected: int) -> Outcome:
    """Runs a step of the action and then its verdict, with GITHUB_ENV as GitHub reads it."""
    work = clone(here, stub)
    (work / "action" / "ci").mkdir(parents=True)
    (work / "action" / "ci" / "hotlap.sh").symlink_to(ROOT / "ci" / "hotlap.sh")
    noted = here / "env"
    noted.touch()
    env = {
        "PATH": os.pathsep.join([str(here / "bin"), os.environ["PATH"]]),
        "HOME": str(here),
        "GITHUB_ENV": str(noted),
        "GITHUB_PATH": str(here / "path"),
        "GITHUB_STEP_SUMMARY": str(here / "summary"),
        "GITHUB_ACTION_PATH": str(work / "action"),
        "WORKLOAD": "planted:make",
        "BASE": "main",
        "HEAD": "HEAD",
    }
    shell = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c")
    child(work, *shell, step(name), **env)
    later = dict(row.split("=", 1) for row in noted.read_text().splitlines() if "=" in row)
    known = (here / "path").read_text().splitlines() if (here / "path").exists() else []
    later["PATH"] = os.pathsep.join([*reversed(known), env["PATH"]])
    done = child(work, *shell, step("Verdict"), **later)
    return Outcome(done.returncode in expected, f"exit {done.returncode}; later steps get {sorted(later)}")


# Files -------------------------------------------------------------------------------------------


def output(here: Path, name: str) -> Outcome:
    """Held where a gate writes to this path and to no other, and leaves no part."""
    sides(here)
    (here / "inner").mkdir()
    before = {*here.rglob("*")}
    files = ("../base.json", "../slow.json")
    done = child(here / "inner", *HOTLAP, "gate", *files, f"--json={name}")
    new = sorted(path.relative_to(here).as_posix() for path in {*here.rglob("*")} - before)
    parts = [path for path in new if path.endswith(".part")]
    return Outcome(
        done.returncode == 1 and not parts and all(path.startswith("inner/") for path in new),
        f"exit {done.returncode}, new: {[line(path)[:40] for path in new]}",
    )


def refused(here: Path, arguments: tuple[str, ...], **env: str) -> Outcome:
    """Held where the command is refused in one line and nothing new stands in the folder."""
    (here / "inner").mkdir()
    done = child(here / "inner", *HOTLAP, *arguments, **env)
    new = sorted(path.relative_to(here).as_posix() for path in here.rglob("*"))
    one_line = done.stderr.count("\n") == 1
    return Outcome(
        done.returncode in (2, 4) and one_line and new == ["inner"],
        f"exit {done.returncode}: {line(done.stderr)}" + (f", new: {new}" if new != ["inner"] else ""),
    )


ATTACKS = [
    Attack(
        "clamp in place",
        OK,
        "a forward that changes its inputs is refused",
        partial(
            model,
            source="def answer(n, x): return n.layer(x.clamp_(min=0))\ndef wrong(n, x): return n.layer(x)\n",
            words="in place",
        ),
    ),
    Attack(
        "huge column",
        OK,
        "a column of 1e9 hides no zeros in the others",
        partial(
            model,
            source="def big(x): return torch.full((len(x), 1), 1e9, dtype=x.dtype)\n"
            "def answer(n, x): return torch.cat([n.layer(x), big(x)], 1)\n"
            "def wrong(n, x): return torch.cat([0 * n.layer(x), big(x)], 1)\n",
        ),
    ),
    Attack(
        "masked scores",
        OK,
        "half of the scores at -1e9 hide no bf16 in the others",
        partial(
            model,
            source="def far(y): return torch.full_like(y[:, :8], -1e9)\n"
            "def answer(n, x): y = n.layer(x); return torch.cat([y[:, 8:], far(y)], 1)\n"
            "def wrong(n, x): y = n.layer(x); return torch.cat([y[:, 8:].bfloat16().float(), far(y)], 1)\n",
        ),
    ),
    Attack(
        "right small numbers",
        OK,
        "probabilities over ten decades, computed in another order, are right",
        partial(
            model,
            passes=True,
            source="def answer(n, x): return (30 * n.layer(x)).softmax(-1)\n"
            "def wrong(n, x): return (30 * n.layer(x)).log_softmax(-1).exp()\n",
        ),
    ),
    Attack(
        "cancellation",
        OK,
        "where fp32 eager is noise, zeros are not right",
        partial(
            model,
            source="def answer(n, x): return (n.layer(x) + 1e9) - 1e9\n"
            "def wrong(n, x): return 0 * n.layer(x)\n",
        ),
    ),
    Attack(
        "integers of noise",
        OK,
        "where eager's integers are all wrong, others are not right",
        partial(
            model,
            source="def answer(n, x): return (n.layer(x) * 1e9).long()\n"
            "def wrong(n, x): return (n.layer(x) * 1e9).long() + 77\n",
        ),
    ),
    Attack(
        "cache by shape",
        OK,
        "a forward that answers by the shape of its inputs is no reference",
        partial(
            model,
            source="memory = {}\ndef answer(n, x): return memory.setdefault((x.dtype, x.shape), n.layer(x))\n"
            "def wrong(n, x): return n.layer(x)\n",
        ),
    ),
    Attack(
        "rows counted",
        OK,
        "a model that adds the number of rows has a batch of one size",
        partial(
            model,
            source="def answer(n, x): return n.layer(x) + len(x)\ndef wrong(n, x): return n.layer(x) + 1\n",
        ),
    ),
    Attack(
        "ends of int64",
        OK,
        "the largest integers are drawn and compared, not a crash",
        partial(
            model,
            passes=True,
            source="def make(): return Net(), torch.tensor([[2**63 - 1, -2**63, 3, 4]])\n"
            "def answer(n, x): return x * 2\ndef wrong(n, x): return x + x\n",
        ),
    ),
    Attack(
        "int64 through float",
        OK,
        "integers that went through fp32 are wrong",
        partial(
            model,
            source="def make(): return Net(), torch.tensor([[2**62 + 1, 2**40 + 1, 3, 4]])\n"
            "def answer(n, x): return x + 1\ndef wrong(n, x): return (x.double() + 1).long()\n",
        ),
    ),
    Attack(
        "no rows",
        OK,
        "example inputs of 0 rows are refused",
        partial(
            model,
            words="no rows",
            source="def make(): return Net(), torch.randn(0, 16)\n"
            "def answer(n, x): return n.layer(x)\ndef wrong(n, x): return n.layer(x)\n",
        ),
    ),
    Attack(
        "NaN in an unused output",
        OK,
        "a reference that is no number is refused",
        partial(
            model,
            words="NaN",
            source="def answer(n, x): return n.layer(x), x[:, :3] * float('nan')\n"
            "def wrong(n, x): return n.layer(x), x[:, :3]\n",
        ),
    ),
    Attack(
        "dict in another order",
        OK,
        "outputs that swap places between calls are refused",
        partial(
            model,
            words="otherwise",
            source="import itertools\nturn = itertools.count()\n"
            "def answer(n, x):\n    y = n.layer(x); a, b = ('a', y), ('b', 2 * y)\n"
            "    return dict([a, b] if next(turn) % 2 else [b, a])\n"
            "def wrong(n, x): y = n.layer(x); return y, 2 * y\n",
        ),
    ),
    Attack(
        "keys 1 and '1'",
        OK,
        "two outputs of one name that are swapped are wrong",
        partial(
            model,
            source="def answer(n, x): return {1: n.layer(x), '1': 2 * n.layer(x)}\n"
            "def wrong(n, x): return 2 * n.layer(x), n.layer(x)\n",
        ),
    ),
    Attack(
        "copy is another",
        OK,
        "a module whose copy is another network is not judged by the copy",
        partial(
            model,
            source="class Two(Net):\n    def __deepcopy__(self, memo):\n"
            "        other = Net(); other.layer.weight.requires_grad_(False).zero_(); return other\n"
            "def make(): return Two(), torch.randn(4, 16)\ndef answer(n, x): return n.layer(x)\n"
            "def wrong(n, x): return n.layer(x)\n",
        ),
    ),
    Attack(
        "inference mode",
        OK,
        "an export without it, which answers otherwise, is wrong",
        partial(
            model,
            source="def answer(n, x): return n.layer(x) * (2 if torch.is_inference_mode_enabled() else 1)\n"
            "def wrong(n, x):\n    with torch.inference_mode(False): return n.layer(x.clone())\n",
        ),
    ),
    Attack(
        "threads",
        OK,
        "an answer for another number of threads is wrong",
        partial(
            model,
            source="def answer(n, x): return n.layer(x) * torch.get_num_threads()\n"
            "def wrong(n, x): return n.layer(x) * 2\n",
        ),
    ),
    Attack(
        "a hook lost",
        OK,
        "a backend that leaves a forward hook out is wrong",
        partial(
            model,
            source="def make():\n    net = Net()\n"
            "    net.layer.register_forward_hook(lambda m, i, o: o * 1.001)\n"
            "    return net, torch.randn(4, 16)\ndef answer(n, x): return n.layer(x)\n"
            "def wrong(n, x): return nn.functional.linear(x, n.layer.weight, n.layer.bias)\n",
        ),
    ),
    Attack(
        "strides of 0",
        OK,
        "an expanded input is stored as what it holds",
        partial(
            model,
            passes=True,
            source="def make(): return Net(), torch.randn(1, 16).expand(4, 16)\n"
            "def answer(n, x): return n.layer(x)\ndef wrong(n, x): return n.layer(x)\n",
        ),
    ),
    Attack(
        "transposed input",
        OK,
        "a backend that reads memory in order is wrong",
        partial(
            model,
            source="import hotlap\n"
            "def make(): return hotlap.Workload('w', Net(), (torch.randn(16, 16).t(),), dynamic=False)\n"
            "def answer(n, x): return n.layer(x)\ndef wrong(n, x): return n.layer(x.t())\n",
        ),
    ),
    Attack(
        "output is the input",
        OK,
        "zeros in the place of an output that is the input are wrong",
        partial(
            model,
            source="def answer(n, x): return x, n.layer(x)\ndef wrong(n, x): return 0 * x, n.layer(x)\n",
        ),
    ),
    Attack(
        "bits of conjugation",
        OK,
        "an output that is conjugated late is compared as it is read",
        partial(
            model,
            source="def answer(n, x): y = n.layer(x); return torch.complex(y, 2 * y).conj()\n"
            "def wrong(n, x): y = n.layer(x); return torch.complex(y, 2 * y)\n",
        ),
    ),
    Attack(
        "float inside",
        OK,
        "a forward that casts to fp32 itself lets no bf16 pass",
        partial(
            model,
            source="def answer(n, x): return nn.functional.linear(x.float(), n.layer.weight.float())\n"
            "def wrong(n, x): return answer(n, x).bfloat16().float()\n",
        ),
    ),
    Attack(
        "empty output beside",
        OK,
        "an output without elements hides no other",
        partial(
            model,
            source="def answer(n, x): return x[:, :0], n.layer(x)\n"
            "def wrong(n, x): return x[:, :0], 0 * n.layer(x)\n",
        ),
    ),
    Attack(
        "sparse output",
        OK,
        "what cannot be compared is no ok",
        partial(
            model,
            source="def answer(n, x): return n.layer(x).to_sparse()\ndef wrong(n, x): return n.layer(x)\n",
        ),
    ),
    Attack(
        "bf16 weights",
        OK,
        "a module in bf16 is no ok before it is compared",
        partial(
            model,
            source="def make(): return Net().bfloat16(), torch.randn(4, 16).bfloat16()\n"
            "def answer(n, x): return n.layer(x)\ndef wrong(n, x): return 0 * n.layer(x)\n",
        ),
    ),
    Attack(
        "another answer tomorrow",
        OK,
        "a forward that depends on the time of day is not ok",
        partial(
            model,
            source="start = time.time()\n"
            "def answer(n, x): return n.layer(x) * (2 if time.time() > start + 3600 else 1)\n"
            "def wrong(n, x): return n.layer(x)\n",
        ),
        "no number of calls shows what a later one answers; what was checked and timed was right",
    ),
    Attack("another answer later", OK, "a forward that changes while it is timed is no ok", changes_later),
    Attack(
        "state that an export keeps",
        OK,
        "where eager answers otherwise later, a backend that does not is no ok",
        baked_state,
        "eager fails at its timed calls; the export, right on all that was asked before, stays ok beside it",
    ),
    Attack("keeps its answers", OK, "a model that looks its answers up has no time", cached_by_content),
    Attack(
        "ok beside outputs too far off",
        OK,
        "a results file that contradicts itself is refused",
        partial(
            edited,
            edit=of_case(
                "deviation",
                {
                    "distances": {
                        "real": {
                            "rmse": 5.0,
                            "eager_rmse": 1e-7,
                            "tolerance": 3e-7,
                            "k": 3.0,
                            "floor": 1e-7,
                            "cosine": 0.1,
                            "top1_flips": 9,
                            "elements": 10,
                        }
                    }
                },
            ),
            slower=1.0,
        ),
    ),
    Attack(
        "ok with the reason accuracy",
        OK,
        "a results file that contradicts itself is refused",
        partial(edited, edit=of_case("reason", {"code": "accuracy", "detail": "wrong"}), slower=1.0),
    ),
    Attack(
        "ok that ran elsewhere",
        OK,
        "a results file that contradicts itself is refused",
        partial(
            edited, edit=of_case("placement.wrong", {"code": "wrong_provider", "detail": "cpu"}), slower=1.0
        ),
    ),
    # Judged
    Attack(
        "a file against itself",
        GREEN,
        "naming one file twice is no pass",
        lambda here: (sides(here), ended(child(here, *HOTLAP, "gate", "slow.json", "slow.json"), 2, 3, 4))[1],
    ),
    Attack("a link to BASE as HEAD", GREEN, "naming one file twice is no pass", linked),
    Attack("a case twice", GREEN, "a second, faster result hides no first", partial(edited, edit=twice)),
    Attack(
        "better: higher",
        GREEN,
        "a file cannot turn the direction of latency",
        partial(edited, edit=of_case("metrics.latency.better", "higher")),
    ),
    Attack(
        "milliseconds",
        GREEN,
        "another unit is not compared",
        lambda here: edited(
            here, lambda d: (of_case("metrics.latency.unit", "ms")(d), scaled(0, 0.5)(d)), 3, 4
        ),
    ),
    Attack(
        "pace lost",
        GREEN,
        "a latency without its pace is not compared with one that has it",
        partial(edited, edit=of_case("race_id", "another")),
    ),
    Attack(
        "latency lost",
        GREEN,
        "a metric that only BASE has is no pass",
        partial(edited, edit=lambda d: d["results"][0]["metrics"].pop("latency")),
    ),
    Attack(
        "one block left",
        GREEN,
        "one block is no evidence",
        partial(
            edited, edit=lambda d: d["results"][0]["metrics"]["latency"]["values"].__delitem__(slice(1, None))
        ),
    ),
    Attack(
        "a schema of tomorrow",
        GREEN,
        "a file that cannot be understood is no pass",
        partial(edited, edit=lambda d: d.update(schema=99)),
    ),
    Attack(
        "latencies edited",
        GREEN,
        "a file whose numbers were lowered is no pass",
        partial(edited, edit=scaled(0, 0.75)),
        "results are not signed: who may write HEAD's file may write a fast one; hotlap ab measures both",
    ),
    Attack(
        "pace edited",
        GREEN,
        "a file whose pace was slowed is no pass",
        partial(edited, edit=scaled(1, 1.3)),
        "results are not signed: who may write HEAD's file may write a slow pace; hotlap ab measures both",
    ),
    Attack(
        "results twice in one object",
        GREEN,
        "of two keys of one name none hides the other",
        repeated_key,
        "JSON allows it and the decoder takes the last; every command of hotlap reads the same one",
    ),
    Attack(
        "all cases ignored",
        GREEN,
        "a policy that judges nothing is no pass",
        lambda here: policy(here, '[[case]]\nmatch = "*"\nignore = true\n', 1, 2, 3),
    ),
    Attack(
        "alpha of 1e-300",
        GREEN,
        "evidence that nothing can give is no pass",
        lambda here: policy(here, "alpha = 1e-300\n", 1, 2, 3),
    ),
    Attack(
        "gate.toml leads nowhere",
        GREEN,
        "a policy that is lost is not the default",
        partial(lost_policy, folder=False),
    ),
    Attack(
        "gate.toml is a folder",
        GREEN,
        "a policy that is lost is not the default",
        partial(lost_policy, folder=True),
    ),
    Attack("a pass with a regression in it", GREEN, "a verdict that contradicts itself is refused", joined),
    Attack("history of nothing", GREEN, "a folder without one readable result is no pass", history),
    Attack(
        "history reads its own verdict",
        GREEN,
        "an output among the results is no point of a series",
        own_verdict,
    ),
    # Exits
    Attack("PYTHONINSPECT", GREEN, "1, 2 and 0 stay what they are before a prompt", inspected),
    Attack(
        "Python cannot start",
        GREEN,
        "1 is a regression and nothing else",
        lambda here: gate(here, 2, 3, 4, 70, PYTHONHASHSEED="bad"),
        "Python itself ends with 1 before any of our code runs; ci/hotlap.sh tells it from a verdict",
    ),
    Attack(
        "warnings are errors",
        GREEN,
        "a regression stays 1",
        lambda here: gate(here, 1, PYTHONWARNINGS="error", PYTHONDEVMODE="1"),
    ),
    Attack("asserts are off", GREEN, "a regression stays 1", lambda here: gate(here, 1, PYTHONOPTIMIZE="2")),
    Attack(
        "no room for memory",
        GREEN,
        "a fault is neither 0 nor 1",
        lambda here: gate(here, 2, 3, 4, 70, shell="ulimit -v 200000"),
    ),
    Attack(
        "no file may grow",
        GREEN,
        "a regression stays 1, and no part of a file stays",
        lambda here: gate(here, 1, more=("--json", "verdict.json"), shell="ulimit -f 0"),
    ),
    Attack(
        "five open files",
        GREEN,
        "a regression is never 0",
        lambda here: gate(here, 1, 2, 3, 4, 70, shell="ulimit -n 5"),
    ),
    Attack("pipes in, head out", GREEN, "a regression from pipes stays 1", pipes),
    Attack("the folder has gone", GREEN, "a regression is never 0", folder_that_went),
    # CI
    Attack(
        "CI: Python cannot start",
        GREEN,
        "an installation that is broken is no regression",
        lambda here: ci(here, "", COMPARE, 2, PYTHONHASHSEED="bad"),
    ),
    Attack(
        "CI: --help among the options",
        GREEN,
        "a help text is no verdict",
        lambda here: ci(here, "", COMPARE, 2, HOTLAP_OPTIONS="--help"),
    ),
    Attack(
        "CI: --help while recording",
        GREEN,
        "a help text is no measurement",
        lambda here: ci(here, "", RECORD, 2, HOTLAP_OPTIONS="--help"),
    ),
    Attack(
        "CI: killed for memory",
        GREEN,
        "a kill is neither 0 nor 1",
        lambda here: ci(here, "kill -9 $$", COMPARE, 2, 137),
    ),
    Attack(
        "CI: no hotlap",
        GREEN,
        "a missing program is neither 0 nor 1",
        lambda here: ci(here, "exec /nonexistent", COMPARE, 2, 126, 127),
    ),
    Attack(
        "CI: BASE is HEAD",
        GREEN,
        "code raced against itself is no pass",
        lambda here: ci(here, "", COMPARE, 2, 3),
    ),
    Attack(
        "action: a model notes a status",
        GREEN,
        "what a pull request writes to GITHUB_ENV reaches no verdict",
        lambda here: action(
            here,
            'if [ -n "$GITHUB_ENV" ]; then echo "exit 0" >$HOME/evil\n'
            'echo HOTLAP_STATUS=0 >>"$GITHUB_ENV"; echo BASH_ENV=$HOME/evil >>"$GITHUB_ENV"; fi\n'
            "echo {} >hotlap-out/verdict.json; exit 1",
            "Race the pull request against its base",
            1,
        ),
    ),
    # Files
    Attack("resume leads out", OUTSIDE, "an ID of a run names no other folder", resumes_elsewhere),
    Attack(
        "a model changes the folder",
        OUTSIDE,
        "what is written with a relative --out stays in it",
        changes_folder,
    ),
    Attack("a model's umask", OUTSIDE, "files and folders of a run can be read by who started it", umasked),
    Attack(
        "a model forks",
        OUTSIDE,
        "two processes on one channel: a reason, exit 4, none stays",
        partial(
            failed,
            source="import os\ndef make():\n    os.fork()\n    return Net(), torch.randn(4, 16)\n"
            "def answer(n, x): return n.layer(x)\n",
        ),
    ),
    Attack(
        "a model ends the process with 0",
        GREEN,
        "a reason, exit 4, none stays",
        partial(failed, source="import os\ndef make(): os._exit(0)\n"),
    ),
    Attack(
        "a model closes all files",
        GREEN,
        "a reason, exit 4, none stays",
        partial(
            failed,
            source="import os\ndef make():\n    os.closerange(0, 256)\n"
            "    return Net(), torch.randn(4, 16)\ndef answer(n, x): return n.layer(x)\n",
        ),
    ),
    Attack(
        "an error full of commands", OUTSIDE, "no line that a terminal or a CI system obeys", hostile_error
    ),
    Attack("a model speaks on stdout", OUTSIDE, "what a model prints is no line of ours", speaks),
    Attack(
        "a name that begins with a dash", OUTSIDE, "written beside, exit 1", partial(output, name="-x.json")
    ),
    Attack("a name of 300 letters", OUTSIDE, "one line, exit 1, no part", partial(output, name="x" * 300)),
    Attack(
        "a name with a newline", OUTSIDE, "written beside, exit 1", partial(output, name="a\n::error::b.json")
    ),
    Attack(
        "a workload in another folder",
        OUTSIDE,
        "refused in one line",
        partial(refused, arguments=("run", "../../etc/passwd:make")),
    ),
    Attack(
        "HOTLAP_RUNS is a device",
        OUTSIDE,
        "refused in one line",
        partial(refused, arguments=("run", "mlp", "--backends", "null"), HOTLAP_RUNS="/dev/null"),
    ),
    Attack(
        "HOTLAP_RUNS below a process",
        OUTSIDE,
        "refused in one line",
        partial(refused, arguments=("run", "mlp", "--backends", "null"), HOTLAP_RUNS="/proc/self"),
    ),
    Attack(
        "CI: outputs lead elsewhere",
        OUTSIDE,
        "links that a pull request commits are not followed",
        linked_outputs,
    ),
    Attack("CI: ended while storing", OUTSIDE, "no worktree stays beside the clone", killed_script),
]


def attempted(attack: Attack) -> dict[str, Any]:
    """Tries one attack in a folder of its own; what it could not be told is broken."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            outcome = attack.tried(Path(folder))
        except subprocess.TimeoutExpired as error:
            outcome = Outcome(False, f"no end within {error.timeout:.0f} s")
        end(folder)
    return {
        "name": attack.name, "kind": attack.kind, "expected": attack.expected, "held": outcome.held,
        "evidence": outcome.evidence.replace(folder, "."), "why": "" if outcome.held else attack.why,
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def end(folder: str) -> None:
    """Ends what an attack left running."""
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get(VARIABLE, "").startswith(folder):
            process.send_signal(signal.SIGKILL)


def table(document: dict[str, Any]) -> str:
    """Returns the outcomes as Markdown, what is broken first."""
    rows = sorted(document["attacks"], key=lambda row: row["held"])
    broken = sum(not row["held"] for row in rows)
    lines = [
        f"{len(rows)} attacks, {len(rows) - broken} held, {broken} broken.",
        "",
        "| attack | after | should | outcome |",
        "|---|---|---|---|",
    ]
    for row in rows:
        outcome = "held" if row["held"] else f"**broken**: {row['why'] or row['evidence']}"
        cells = (row["name"], row["kind"], row["expected"], outcome)
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="words of the names of attacks")
    parser.add_argument("--json", type=Path, help="write the outcomes")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the table of outcomes in a file")
    asked = parser.parse_args()
    if asked.table:
        print(table(json.loads(asked.table.read_bytes())))
        return
    rows = []
    for attack in ATTACKS:
        if asked.names and not any(word in attack.name for word in asked.names):
            continue
        rows.append(attempted(attack))
        row = rows[-1]
        print(
            f"{'held' if row['held'] else 'BROKEN':6} {row['seconds']:5} s  {row['name']}: {row['evidence']}",
            flush=True,
        )
    if asked.names and asked.json and asked.json.exists():
        # The others' outcomes stay.
        again = {row["name"]: row for row in rows}
        stored = json.loads(asked.json.read_bytes())["attacks"]
        rows = [again.pop(row["name"], row) for row in stored]
        rows += again.values()
    document = {"schema": SCHEMA, "attacks": rows}
    print(table(document))
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
