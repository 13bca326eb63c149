"""OpenVINO on the CPU, from an ONNX file. Workers load its IR and never import torch.

The precision is always said: on a CPU with bf16 instructions OpenVINO's default for a fp32 model is bf16. `placement` reads the
precision that each layer of the compiled graph runs in.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from .. import export
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


def load(artefact: Artefact) -> Step:
    """Raises Refusal(build_failed) with OpenVINO's message."""
    import numpy as np

    ov = _library()
    case = artefact.case
    core = ov.Core()
    options = {
        "INFERENCE_PRECISION_HINT": NAMES[case.precision],
        "INFERENCE_NUM_THREADS": artefact.threads,
        "PERFORMANCE_HINT": case.option("hint", "latency").upper(),
        "ENABLE_CPU_PINNING": case.option("binding", "cores") == "cores",
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

    return Step(call, place, fetch, about=compiled)


def placement(artefact: Artefact, step: Step) -> Placement:
    """Precision and kind of each layer of the compiled graph (its runtime model)."""
    requested = NAMES[artefact.case.precision]
    layers = [(_info(node, "layerType"), _info(node, "runtimePrecision")) for node in step.about.get_runtime_model().get_ops()]
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


def _info(node: Any, key: str) -> str:
    return str(node.get_rt_info()[key].astype(str))


def _library() -> Any:
    """OpenVINO sends an event over the network when it is imported, unless its telemetry package cannot be: then it uses its own stub."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
