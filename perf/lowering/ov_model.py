"""From a Workload to OpenVINO's model: from the ONNX file of each exporter, then by OpenVINO's own
reader of torch's modules, until one is right.

The sizes are fixed before OpenVINO reads them: several of its translations, as of the STFT, need
them, and others were seen to be wrong without (packed sequences; OpenVINO 2026.4.1).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..machine import signal_stack
from ..machine.memory import exhausted
from ..oracle.arrays import comparable
from ..terms.case import BATCH
from ..terms.contract import Phase
from ..terms.reasons import Refusal, full
from . import export

if TYPE_CHECKING:
    from ..terms.case import Case, Workload
    from ..terms.contract import Arrays


class Read(NamedTuple):
    """OpenVINO's model, what the export took when it was made, s, and how it came about where that
    is not the usual way.
    """

    model: Any
    seconds: float
    notes: tuple[str, ...]


def read(ov: Any, workload: Workload, case: Case, root: Path, phase: Phase) -> Read:
    """Returns the workload as OpenVINO's model. Raises Refusal: export_failed, build_failed."""
    from ..lookup.onnx_file import OnnxFile  # imports torch, which those who load the IR do without

    def of_file(exporter: str) -> Read:
        with phase("export"):
            exported = export.export(workload, case, root, exporter)
        model = opened(ov, exported.folder / "model.onnx", workload)
        return Read(model, exported.seconds, exported.notes)

    def of_module() -> Read:
        notes = ("read from torch's module, recording one call (openvino.convert_model)",)
        start = time.perf_counter()
        return Read(converted(ov, workload), time.perf_counter() - start, notes)

    refused: list[Refusal] = []
    ways: list[Callable[[], Read]] = [partial(of_file, ""), partial(of_file, "traced"), of_module]
    for way in ways[:1] if isinstance(workload.module, OnnxFile) else ways:
        if way is not of_module and any(why.reason.code == "export_failed" for why in refused):
            continue
        try:
            result = way()
            export.agrees(runner(ov, result.model), workload)
        except Refusal as refusal:
            refused.append(refusal)
        else:
            failed = [f"before that: {why.reason.detail}" for why in refused]
            return result._replace(notes=(*result.notes, *failed))
    first, *others = dict.fromkeys(refusal.reason.detail for refusal in refused)
    raise Refusal(refused[0].reason.code, "; then ".join([first, *others]))


def opened(ov: Any, path: Path, workload: Workload) -> Any:
    """Returns the model of an ONNX file with the workload's sizes. Raises Refusal(build_failed)."""
    import onnx

    graph = onnx.load(path, load_external_data=False)
    for port, value, free in zip(graph.graph.input, workload.inputs, workload.free, strict=True):
        for axis, (dimension, size) in enumerate(
            zip(port.type.tensor_type.shape.dim, value.shape, strict=True)
        ):
            if free.get(axis, BATCH) == BATCH:
                dimension.Clear()
                dimension.dim_value = size
    del graph.graph.value_info[:]
    fixed = path.with_name(f"fixed-{workload.batch}.onnx")
    beside = any(path.parent.glob(f"{path.name}.*"))
    try:
        if beside:  # weights are found from the file's folder
            onnx.save(graph, fixed)
        return ov.Core().read_model(fixed if beside else graph.SerializeToString())
    except RuntimeError as error:
        if full(error) is not None:
            raise
        raise Refusal("build_failed", f"{library(ov)}: {cause(error)}") from error
    finally:
        fixed.unlink(missing_ok=True)


def converted(ov: Any, workload: Workload) -> Any:
    """Returns the model by OpenVINO's own reader of torch's modules, which records one call. Raises
    Refusal: build_failed, exporters.Decides.
    """
    import torch

    from . import branches, exporters

    module, inputs = exporters.TensorsAlone(workload.module.float()), workload.inputs
    if ways := [each for each in branches.decisions(module, inputs) if not each.harmless]:
        raise exporters.Decides(ways)
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # of tracing, as `decisions` tells
            model = ov.convert_model(
                module, example_input=inputs, input=[list(value.shape) for value in inputs]
            )
    except Exception as error:  # it raises classes of its own and whatever forward raises
        if exhausted(error):
            raise
        raise Refusal("build_failed", f"{library(ov)}: {cause(error)}") from error
    names = exporters.input_names(workload), exporters.output_names(workload)
    for ports, called in zip((model.inputs, model.outputs), names, strict=True):
        for port, name in zip(ports, called, strict=True):
            port.get_tensor().set_names({name})
    return model


def compiled_by(ov: Any, model: Any, options: dict[str, Any]) -> Any:
    """Returns a model, or the file of one, compiled for the CPU; the calling thread keeps the stack
    that it handles signals on. Raises RuntimeError.
    """
    with signal_stack.kept():
        return ov.Core().compile_model(model, "CPU", options)


def runner(ov: Any, model: Any) -> Any:
    """Returns a function that runs a model once, in fp32."""
    import numpy as np

    def run(inputs: Arrays) -> Arrays:
        try:
            compiled = compiled_by(ov, model, {"INFERENCE_PRECISION_HINT": "f32"})
            kinds = [port.element_type.to_dtype() for port in compiled.inputs]
            feed = {
                index: np.asarray(value, kind, order="C")
                for index, (value, kind) in enumerate(zip(inputs, kinds, strict=True))
            }
            outputs = compiled.create_infer_request().infer(feed)
        except (RuntimeError, ValueError) as error:
            raise Refusal("build_failed", f"{library(ov)}: {cause(error)}") from error
        return tuple(comparable(np.array(value)) for value in outputs.to_tuple())

    return run


def library(ov: Any) -> str:
    """Returns the name and version of OpenVINO without those of its build."""
    return f"OpenVINO {ov.__version__.partition('-')[0]}"


def cause(error: BaseException) -> str:
    """Returns what OpenVINO says is wrong, without the places in its own source: the last lines of
    its message, which name operators.
    """
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    words = [
        line for line in lines if not line.startswith(("Exception from ", "Check '", "FrontEnd API failed"))
    ]
    return " ".join(dict.fromkeys(words or lines))[:600]
