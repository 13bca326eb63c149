"""What `hotlap ab` says of ten commits that a maintainer meets: its exit status, and its words.

    python -m bench.ten_commits [NAME ...] [--budget 2m]
        writes docs/results/ten_commits.json after each commit and leaves out those that are in it;
        with names it asks these anew
    python -m bench.ten_commits --table docs/results/ten_commits.json
        the table of docs/gate.md

Each is one commit on top of a package with a network of 30 layers of 256 features over 64 rows, in
a repository of its own. A slow-down is more rows in six layers whose outputs nobody uses: the same
operators and the same answer. tests/perf/gate/test_ten_commits.py asks those that are not raced.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench import stored
from hotlap.perf.machine import survey
from hotlap.perf.terms import escape

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "ten_commits.json"
# 1 (0.1.0): first version.
SCHEMA = 1
# Longest wait for one commit, s.
PATIENCE_S = 1800.0
WORKLOAD = "tuned.models:make"
MODELS = """import torch
from torch import nn

import hotlap

ROWS = 16


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(30))

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            if number % 5 == 0:
                layer(x[:ROWS])
            x = x + torch.relu(layer(x))
        return x


def make():
    net = Net().eval()
    x = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    labels = net(x).argmax(1).numpy()

    def score(outputs):
        return {"accuracy": float((outputs[0].argmax(1) == labels).mean())}

    evaluation = hotlap.Evaluation((x,), score, "accuracy", "higher", budget=0.005)
    return hotlap.Workload("net", net, (x,), batched=False, dynamic=False, evaluate=evaluation)
"""
RIGHT = "labels = net(x).argmax(1).numpy()"


class Commit(NamedTuple):
    """A change of the package, and what is to become of it."""

    # What stands in models.py -> what stands there afterwards.
    change: dict[str, str]
    exit_status: int
    # A pattern that what is printed has to match.
    words: str
    # Whether both sides are raced.
    raced: bool = True
    backends: str = "eager"
    # What stands in README.md afterwards.
    readme: str = ""


COMMITS = {
    "9 % slower": Commit({"ROWS = 16": "ROWS = 54"}, 1, r"latency .* regression .*confirmed"),
    "3 % slower": Commit({"ROWS = 16": "ROWS = 26"}, 3, r"latency .* detectable .* could not tell"),
    "comments only": Commit(
        {"ROWS = 16": "# Rows of what nobody uses.\nROWS = 16"}, 0, r"nothing measured changed", raced=False
    ),
    "README only": Commit({}, 0, r"nothing measured changed", raced=False, readme="Faster than ever.\n"),
    "the answer changed": Commit(
        {"torch.relu": "torch.nn.functional.softplus"}, 1, r"outputs differ: rmse .* gate\.toml"
    ),
    "accuracy lost": Commit(
        {"return x\n\n\ndef": "return x.flip(1)\n\n\ndef", RIGHT: RIGHT.replace("net(x)", "net(x).flip(1)")},
        1,
        r"accuracy 1 -> 0",
    ),
    "a graph break": Commit(
        {"        return x\n": "        torch._dynamo.graph_break()\n        return x + 0\n"},
        1,
        r"graph_breaks 0 -> \d",
        backends="compile",
    ),
    "a third more memory": Commit(
        {
            "for _ in range(30))\n": "for _ in range(30))\n"
            '        self.register_buffer("table", torch.ones(46_000_000))\n'
        },
        1,
        r"memory .* regression",
    ),
    "faster with more operators": Commit(
        {"layer(x[:ROWS])": "layer(x[:1]).abs().abs()"}, 0, r"latency .* a gain"
    ),
    "a syntax error": Commit({"def make():": "def make()"}, 1, r"SyntaxError", raced=False),
}


def main() -> None:
    arguments = stored.arguments(__doc__, FILE, budget="2m")
    if arguments.table:
        print(*table(json.loads(arguments.table.read_text())), sep="\n")
        return

    def measure(name: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="ten-commits-") as folder:
            return asked(Path(folder), COMMITS[name], "--threads", "1", "--budget", arguments.budget)

    stored.fill(arguments.out, "commits", SCHEMA, [*COMMITS], arguments.names, measure)


def asked(folder: Path, commit: Commit, *options: str) -> dict[str, Any]:
    """Returns what `hotlap ab` says of one commit in a repository that it makes in the folder."""
    models = folder / "tuned" / "models.py"
    models.parent.mkdir()
    (folder / "tuned" / "__init__.py").touch()
    (folder / "README.md").write_text("A network.\n")
    (folder / ".gitignore").write_text("runs/\n__pycache__/\n")
    models.write_text(MODELS)
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@t")
    environment = {name: value for name, value in os.environ.items() if name != "HOTLAP_RUNS"}
    for arguments in (("init", "-q", "."), ("add", "-A"), ("commit", "-q", "-m", "first")):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    text = MODELS
    for old, new in commit.change.items():
        if old not in text:
            raise ValueError(f"nothing to change: {old!r}")
        text = text.replace(old, new)
    models.write_text(text)
    if commit.readme:
        (folder / "README.md").write_text(commit.readme)
    subprocess.run([*git, "commit", "-q", "-a", "-m", "second"], cwd=folder, check=True)
    command = [sys.executable, "-m", "hotlap.perf.cli", "ab", "HEAD~1", "HEAD", WORKLOAD, "--target", "cpu"]
    command += ["--backends", commit.backends, *options]
    start = time.monotonic()
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip() and not line.startswith("results:")]
    words = next((line for line in lines if re.search(commit.words, line)), "")
    return {
        "exit_status": done.returncode,
        "seconds": round(time.monotonic() - start),
        "words": words.lstrip("-+ ").removeprefix("note: "),
        "lines": lines,
        "stderr": "" if words else done.stderr[-2000:],
        "hardware": survey.collect(1, "keep").hardware,
        "as_expected": done.returncode == commit.exit_status and bool(words),
    }


def table(content: dict[str, Any]) -> list[str]:
    """Returns the table in Markdown."""
    commits = content["commits"]
    hardware = dict.fromkeys(each["hardware"] for each in commits.values())
    right = sum(each["as_expected"] for each in commits.values())
    lines = [
        f"{'; '.join(hardware)}. `--threads 1`; {right} of {len(COMMITS)} as they should be.",
        "",
        "| commit | exit | should be | s | in its words |",
        "|---|---|---|---|---|",
    ]
    for name, each in commits.items():
        words = re.sub(r"tuned\.models:make/|\w+\.py, ", "", each["words"] or each["lines"][-1])
        cells = (name, each["exit_status"], COMMITS[name].exit_status, each["seconds"], words)
        lines.append("| " + " | ".join(escape.markdown(str(cell)) for cell in cells) + " |")
    return lines


if __name__ == "__main__":
    main()
