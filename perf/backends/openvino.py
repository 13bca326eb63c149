"""OpenVINO on the CPU, from an ONNX file. Workers load its IR and never import torch.

The precision is always said: on a CPU with bf16 instructions OpenVINO's default for a fp32 model is bf16. `placement` reads the
precision that each layer of the compiled graph runs in.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .. import export, profiling
from ..case import Case, Workload
from ..reasons import Reason, Refusal
from ..result import Placement
from . import Arrays, Artefact, Phase, Step, _machine

SUMMARY = "OpenVINO on the CPU, from an ONNX file"
OPTIONS = {"hint": ("latency", "throughput")}
PRELOAD = ("numpy",)

NAMES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
NEEDS = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}
FLOATS = ("f64", "f32", "f16", "bf16")


def available(target: str) -> Reason | None:
    if target != "cpu":
        return Reason("unsupported_target", f"OpenVINO has no plug-in for {target}; it runs on cpu here")
    return _machine.missing("openvino", "pip install 'hotlap[openvino]'")


def supports(case: Case) -> Reason | None:
    if case.mode != "inference":
        return Reason("unsupported_op", f"mode {case.mode}: this backend runs inference only")
    if case.precision not in NAMES:
        return Reason("unsupported_precision", f"OpenVINO on a CPU has no {case.precision} for a model that is not quantised")
    needs = NEEDS.get(case.precision, ())
    if needs and not _machine.cpu_flags() & set(needs):
        return Reason("unsupported_precision", f"{case.precision} needs {' or '.join(needs)}, which this CPU has not")
    return None


def variables(case: Case, threads: int) -> dict[str, str]:
    return {}


def build(workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
    """The export is fp32 whatever the precision: OpenVINO casts. Raises Refusal(export_failed)."""
    fp32 = Case(case.workload, case.backend)
    with phase("export"):
        exported = export.export(workload, fp32, folder.parent)
    export.write_ledger(exported, folder)
    with phase("build"):
        ov = _library()
        model = ov.Core().read_model(exported.folder / "model.onnx")
        if workload.dynamic:
            model.reshape({port: [case.batch, *list(port.partial_shape)[1:]] for port in model.inputs})
        ov.save_model(model, folder / "model.xml", compress_to_fp16=False)


class Compiled(NamedTuple):
    """OpenVINO's compiled model and its one request."""

    model: Any
    request: Any


def load(artefact: Artefact) -> Step:
    """Raises Refusal(build_failed) with OpenVINO's message."""
    return _step(artefact)


def _step(artefact: Artefact, profiled: bool = False) -> Step:
    import numpy as np

    ov = _library()
    case = artefact.case
    core = ov.Core()
    options = {
        "INFERENCE_PRECISION_HINT": NAMES[case.precision],
        "INFERENCE_NUM_THREADS": artefact.threads,
        "PERFORMANCE_HINT": case.option("hint", "latency").upper(),
        "ENABLE_CPU_PINNING": case.option("binding", "cores") == "cores",
        "PERF_COUNT": profiled,
    }
    try:
        compiled = core.compile_model(core.read_model(artefact.folder / "model.xml"), "CPU", options)
    except RuntimeError as error:
        raise Refusal("build_failed", f"OpenVINO {ov.__version__}: {error}") from error
    request = compiled.create_infer_request()
    kinds = [port.element_type.to_dtype() for port in compiled.inputs]

    def place(arrays: Arrays) -> dict[int, Any]:
        return {i: ov.Tensor(np.array(array, kind, order="C")) for i, (array, kind) in enumerate(zip(arrays, kinds, strict=True))}

    def call(inputs: dict[int, Any]) -> Any:
        return request.infer(inputs, share_inputs=True, share_outputs=True)

    def fetch(outputs: Any) -> Arrays:
        """Copies: the request owns the outputs and overwrites them at the next call."""
        return tuple(np.array(array, "float64" if array.dtype == "float64" else "float32") for array in outputs.to_tuple())

    return Step(call, place, fetch, about=Compiled(compiled, request))


def placement(artefact: Artefact, step: Step) -> Placement:
    """Precision and kind of each layer of the compiled graph (its runtime model)."""
    requested = NAMES[artefact.case.precision]
    layers = [(_info(node, "layerType"), _info(node, "runtimePrecision")) for node in step.about.model.get_runtime_model().get_ops()]
    layers = [(kind, precision) for kind, precision in layers if kind not in ("Input", "Output", "Const")]
    ran_on = Counter(precision for _, precision in layers)
    computing = Counter(precision for kind, precision in layers if precision in FLOATS and kind != "Reorder")
    other = sum(count for precision, count in computing.items() if precision != requested)
    counts = {"nodes": len(layers), "nodes_other_precision": other}
    wrong = None
    if computing[requested] < other:
        ran = ", ".join(f"{count} in {precision}" for precision, count in computing.items())
        wrong = Reason("unsupported_precision", f"requested {requested}, but of {computing.total()} floating-point layers there ran {ran}")
    kinds = Counter(f"{kind} {precision}" for kind, precision in layers)
    return Placement(requested, dict(ran_on), counts, tuple(f"{count} x {kind}" for kind, count in kinds.most_common()), wrong)


def profile(artefact: Artefact, step: Step, feed: Sequence[Arrays], schedule: profiling.Schedule, path: Path) -> list[float]:
    """Of a second compiled model whose performance counters are on.

    They say what a layer took on average since the model was compiled, not when: each active call has the mean of all of them, its layers one after the other.
    """
    profiled = _step(artefact, profiled=True)
    request = profiled.about.request
    calls: list[tuple[float, float]] = []
    before: dict[str, float] = {}
    for number, arrays in enumerate(feed):
        inputs = profiled.place(arrays)
        if number == len(feed) - schedule.active and number:
            before = {layer.node_name: number * layer.real_time.total_seconds() for layer in request.profiling_info}
        start = time.perf_counter()
        calls.append((start, profiling.timed(partial(profiled.call, inputs))))
    active = calls[-schedule.active :]
    layers = []
    for layer in request.profiling_info:
        mean_s = (len(feed) * layer.real_time.total_seconds() - before.get(layer.node_name, 0.0)) / len(active)
        if mean_s > 0:
            layers.append((layer.node_name, mean_s, {"op_name": layer.node_type, "provider": layer.exec_type}))
    events: list[dict[str, Any]] = []
    for start, seconds in active:
        events.append(_event("Session", "model_run", start, seconds, {}))
        for name, mean_s, about in layers:
            events.append(_event("Node", name, start, mean_s, about))
            start += mean_s
    path.write_text(json.dumps(events))
    return [seconds for _, seconds in active]


def _event(category: str, name: str, start_s: float, length_s: float, about: dict[str, str]) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "pid": 0, "tid": 0, "ts": round(start_s * 1e6, 3), "dur": round(length_s * 1e6, 3), "args": about}


def _info(node: Any, key: str) -> str:
    return str(node.get_rt_info()[key].astype(str))


def _library() -> Any:
    """OpenVINO sends an event over the network when it is imported, unless its telemetry package cannot be: then it uses its own stub."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
