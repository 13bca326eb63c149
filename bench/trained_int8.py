"""What int8 costs trained networks, and what it gives: our own four and those of bench/real.

    python -m bench.trained_int8 [NAME ...] [--budget 20s] [--priority normal]
        writes docs/results/real.json after each model and leaves out those that are in it; with
        names it measures these anew. With --budget 5s and other work on two cores (load average 5)
        a model took 2 (silero) to 14 minutes (minilm)
    python -m bench.trained_int8 --table docs/results/real.json
        the table of docs/matrix.md

Each model is one race of `hotlap run`, of fp32 eager with every route in fp32 and int8, checked by
the oracle like any other. Those of bench/real need the extra [real].
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hotlap
from bench import real, stored
from hotlap.perf.reports import matrix, report
from hotlap.perf.stats import estimates
from hotlap.perf.terms import escape, units

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "results" / "real.json"
OWN = ("mlp", "resnet", "vit", "gpt")
# Backend with options -> what the table calls its int8.
ROUTES = {
    "onnxruntime": "ONNX Runtime, static",
    "onnxruntime[int8:dynamic]": "ONNX Runtime, dynamic",
    "openvino": "OpenVINO",
    "compile[package:aoti]": "compile (AOTInductor)",
}
# 1 (0.1.0): first version.
SCHEMA = 1
# Longest wait for one model, s.
PATIENCE_S = 3600.0
# A reason in a note of the table, in characters; the file has all of it.
SHORT = 300


def main() -> None:
    arguments = stored.arguments(__doc__, FILE, budget="20s", priority="raised")
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())), end="")
        return
    stored.fill(
        arguments.out,
        "models",
        SCHEMA,
        names(),
        arguments.names,
        lambda name: measured(name, arguments.budget, arguments.priority),
    )


def names() -> list[str]:
    """Returns the models, our own first."""
    return [*OWN, *real.__all__]


def measured(name: str, budget: str, priority: str) -> dict[str, Any]:
    """Returns what one race answers, or why there was none."""
    workload = name if name in OWN else f"bench.real:{name}"
    with tempfile.TemporaryDirectory(prefix="int8-") as folder:
        command = [sys.executable, "-m", "hotlap.perf.cli", "run", workload, "--target", "cpu"]
        backends = ",".join(("eager", *ROUTES))
        settings = ["--backends", backends, "--precisions", "fp32,int8", "--out", folder]
        settings += ["--budget", budget, "--priority", priority]
        done = subprocess.run(
            [*command, *settings], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        file = Path(folder) / "results.json"
        if not file.exists():
            return {"failed": done.stderr.strip()[-500:]}
        results = hotlap.read(file)
    shown = report.shown(results.results)
    return {
        "setting": report.setting(results),
        "budget": budget,
        "weights": next((result.weights for result in shown if result.weights), ""),
        "answers": {
            f"{result.case.spec} {result.case.precision}": answer(result, shown)
            for result in shown
            if result.case.backend != "eager" or result.case.precision == "fp32"
        },
    }


def answer(result: hotlap.Result, everything: Sequence[hotlap.Result]) -> dict[str, Any]:
    """Returns what the table needs of a result: status, reason, task metric, size and times."""
    entry: dict[str, Any] = {"status": result.status}
    if result.reason is not None:
        entry |= {"code": result.reason.code, "detail": matrix.normal(result)}
    if result.deviation is not None and (task := result.deviation.task) is not None:
        entry["task"] = {
            "metric": task.metric,
            "value": task.value,
            "reference": task.reference,
            "loss": task.loss,
            "budget": task.budget,
        }
    if result.placement is not None:
        counters = result.placement.counters
        entry["bytes"] = counters.get("artefact_bytes", 0)
        entry["left"] = counters.get("nodes_other_precision", 0)
        entry["how"] = [line for line in result.placement.evidence if re.search(r"\bint8\b|\b8 bits\b", line)]
    if (latency := result.metrics.get("latency")) is not None:
        entry["latency_s"] = latency.centre
        if (base := report.baseline(everything, result)) not in (None, result) and "latency" in base.metrics:
            ratio = estimates.inverse(estimates.ratio(matrix.latencies(base), matrix.latencies(result)))
            entry["speed_up"] = [ratio.centre, ratio.low, ratio.high]
    return entry


def table(content: dict[str, Any]) -> str:
    """Returns the table in Markdown, with every reason once below."""
    models = {name: model for name, model in content["models"].items() if "answers" in model}
    settings = dict.fromkeys(line for model in models.values() for line in model["setting"])
    lines = [f"{escape.markdown(line)}." for line in settings]
    lines += ["", "| model | fp32 | " + " | ".join(f"int8: {title}" for title in ROUTES.values()) + " |"]
    lines.append("|---|---|" + "---|" * len(ROUTES))
    notes: dict[str, int] = {}
    for name, model in models.items():
        answers = model["answers"]
        cells = [cell(answers.get(f"{route} int8"), fp32_bytes(answers, route), notes) for route in ROUTES]
        lines.append(f"| {name} | {reached(answers)} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {escape.markdown(text)}" for text, number in notes.items())]
    failed = {name: model["failed"] for name, model in content["models"].items() if "failed" in model}
    lines += [f"- {name}: {escape.markdown(short(text))}" for name, text in failed.items()]
    return "\n".join(lines).rstrip() + "\n"


def reached(answers: dict[str, Any]) -> str:
    """Returns the task metric of the fp32 reference and the latency of fp32 eager, where each was
    measured.
    """
    task = next((entry["task"] for entry in answers.values() if "task" in entry), None)
    eager = answers.get("eager fp32", {})
    parts = [f"{task['metric']} {task['reference']:.4f}"] if task else []
    parts.append(units.scaled(eager["latency_s"], "s") if "latency_s" in eager else "eager not timed")
    return "; ".join(parts)


def fp32_bytes(answers: dict[str, Any], route: str) -> int:
    """Returns the size of what the same backend leaves in fp32."""
    backend = route.partition("[int8")[0]
    return int(answers.get(f"{backend} fp32", {}).get("bytes", 0))


def cell(entry: dict[str, Any] | None, whole: int, notes: dict[str, int]) -> str:
    """Returns what the metric lost, of how much it may; the size, as a share of fp32's; the layers
    that stayed in fp32; and the speed-up over fp32 eager, if an interval is known. Or the reason,
    as a number.
    """
    if entry is None:
        return "not run"
    parts = []
    if "detail" in entry:
        number = notes.setdefault(short(entry["detail"]), len(notes) + 1)
        wide = entry["code"] == "wide_interval"
        parts.append(("wide interval" if wide else f"{entry['status']}: {entry['code']}") + f" ({number})")
    if "task" in entry:
        task = entry["task"]
        parts.append(f"lost {task['loss']:.4f} of {task['budget']:g}")
    if entry.get("bytes"):
        share = f" ({entry['bytes'] / whole:.2f} of fp32)" if whole else ""
        parts.append(units.scaled(entry["bytes"], "B") + share)
    if entry.get("left"):
        parts.append(f"{entry['left']} layers in fp32")
    if "speed_up" in entry:
        centre, low, high = entry["speed_up"]
        known = low > 0 and math.isfinite(high)  # one or two blocks give no interval
        parts += [f"{centre:.2f}x ±{math.expm1(math.log(high / low) / 2):.1%}"] if known else []
    return escape.markdown("; ".join(parts))


def short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHORT else line[: SHORT - 1].rstrip() + "…"


if __name__ == "__main__":
    main()
