"""What `hotlap run` does with small models of the kinds that people have (bench/ordinary.py), and
with those that people publish (bench/published.py).

    python -m bench.models_tried [--of bench.published] [NAME ...]
        20 s to 5 min a model; writes its file of FILES after each, and keeps the others'
    python -m bench.models_tried [--of bench.published] --table docs/results/published.json
        the table of docs/models-tried.md

Each model is a run of its own with the backends below, in which every answer is checked against the
oracle; times are left out, since one second of measuring shows none.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hotlap.perf.terms import escape

ROOT = Path(__file__).resolve().parent.parent
# Module of models -> its results.
FILES = {"bench.ordinary": "models_tried.json", "bench.published": "published.json"}
BACKENDS = ("eager", "compile", "onnxruntime", "openvino")
# 1 (0.1.0): first version.
SCHEMA = 1
# Longest wait for one model, s.
PATIENCE_S = 1200.0
# The folder of installed packages, of which a stored reason holds no path.
INSTALLED = re.compile(r"/[^\s\"']*?/site-packages/")
# A reason in a cell of the table, in characters; the file has all of it.
SHORT = 90


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--of", choices=FILES, default="bench.ordinary")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    module = importlib.import_module(arguments.of)
    if arguments.table:
        print(table(json.loads(arguments.table.read_text()), module), end="")
        return
    out = arguments.out or ROOT / "docs" / "results" / FILES[arguments.of]
    stored = json.loads(out.read_text()) if out.exists() else {"models": {}}
    for name in arguments.names or names(module):
        stored["models"][name] = tried(f"{arguments.of}:{name}")
        print(name, json.dumps(stored["models"][name])[:300], flush=True)
        stored = {
            "schema": SCHEMA,
            "models": {each: stored["models"][each] for each in names(module) if each in stored["models"]},
        }
        out.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


def names(module: ModuleType) -> list[str]:
    """Returns the models of a module, in the order of its file: its public functions."""
    return [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]


def tried(reference: str) -> dict[str, Any]:
    """Returns what one run answers: of each backend its status and reason, and how its file came
    about.
    """
    with tempfile.TemporaryDirectory(prefix="tried-") as folder:
        command = [
            sys.executable,
            "-m",
            "hotlap.perf.cli",
            "run",
            reference,
            "--target",
            "cpu",
        ]
        options = ["--backends", ",".join(BACKENDS), "--budget", "1s", "--out", folder]
        try:
            done = subprocess.run(
                [*command, *options],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"answers": {}, "failed": f"not finished after {PATIENCE_S:.0f} s"}
        file = Path(folder) / "results.json"
        if not file.exists():
            return {"answers": {}, "failed": done.stderr.strip()[-500:]}
        results = json.loads(file.read_text())["results"]
    answers = {}
    for result in results:
        backend = result["case"]["backend"]
        if backend not in BACKENDS or result["case"].get("options"):
            continue
        notes = [
            note for note in (result.get("placement") or {}).get("evidence", ()) if note.startswith(WAYS)
        ]
        reason = result.get("reason") or {}
        answers[backend] = {
            "status": result["status"],
            "code": reason.get("code", ""),
            "detail": INSTALLED.sub("", reason.get("detail", "")),
            "notes": notes,
        }
    return {"answers": answers, "warnings": results[0].get("warnings", []) if results else []}


# How the evidence of a placement begins where a file did not come about in the usual way.
WAYS = ("recorded from one call", "read from torch's module")


def table(stored: dict[str, Any], module: ModuleType) -> str:
    """Returns the table in Markdown."""
    lines = [
        "| kind | what its user expects | " + " | ".join(BACKENDS) + " |",
        "|---|---|" + "---|" * len(BACKENDS),
    ]
    for name, model in stored["models"].items():
        cells = [cell(model["answers"].get(backend), model.get("failed", "")) for backend in BACKENDS]
        expected = inspect.getdoc(getattr(module, name)) or ""
        lines.append(f"| {name.replace('_', ' ')} | {expected} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(answer: dict[str, Any] | None, failed: str) -> str:
    """Returns what became of one backend, or why the run as a whole has no results."""
    if answer is None:
        return escape.markdown(f"no result: {failed}") if failed else "not run"
    if answer["status"] in ("ok", "noisy"):
        return "right" + (", recorded" if answer["notes"] else "")
    detail = re.sub(r"^bench\.\w+:\w+: ", "", answer["detail"])
    short = detail if len(detail) <= SHORT else detail[: SHORT - 1].rstrip() + "…"
    return escape.markdown(f"{answer['code']}: {short}")


if __name__ == "__main__":
    main()
