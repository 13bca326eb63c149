"""ONNX Runtime, on the CPU or on CUDA. Workers load an ONNX file and never import torch.

The list of providers says what was tried, not what runs: without a driver, onnxruntime-gpu computes on the CPU and says nothing. So
`placement` profiles one run and counts the nodes of each provider.

Threads are bound through the session, never through OMP_PROC_BIND, which narrows the mask that its pool inherits. Its threads spin
between operators, as by default: the harness stops the process between turns, so this disturbs nobody. Without it a small transformer
(6 blocks of width 128) took 1.9 ms instead of 1.4 ms on two cores of an EPYC; that is what option spinning:off measures.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .. import export, profiling
from ..case import Case, Workload
from ..reasons import Reason, Refusal
from ..result import Placement
from . import Arrays, Artefact, Phase, Step, _machine

SUMMARY = "ONNX Runtime, from an ONNX file"
OPTIONS = {
    "provider": ("auto", "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"),
    "optimization": ("all", "extended", "basic", "disabled"),
    "spinning": ("on", "off"),
}
PRELOAD = ("onnxruntime",)


def available(target: str) -> Reason | None:
    remedy = "pip install onnxruntime-gpu, or onnxruntime where there is no such wheel"
    return _machine.missing("onnxruntime", remedy) or _machine.no_device(target)


def supports(case: Case) -> Reason | None:
    """fp16 on the CPU was seen to run as fp32 between inserted casts, bf16 to have no kernels (ONNX Runtime 1.31.1)."""
    on_cpu = case.target == "cpu"
    if case.mode != "inference":
        return Reason("unsupported_op", f"mode {case.mode}: this backend runs inference only")
    if on_cpu != (_provider(case) == "CPUExecutionProvider"):
        return Reason("unsupported_target", f"{_provider(case)} does not run on {case.target}")
    if on_cpu and case.precision == "fp16":
        return Reason("unsupported_precision", "ONNX Runtime's CPU provider computes fp16 in fp32 between casts")
    if on_cpu and case.precision == "tf32":
        return Reason("unsupported_precision", "tf32 is a mode of NVIDIA's matrix units from Ampere on; a CPU has none")
    if case.precision == "bf16":
        detail = "its CPU provider has no bf16 kernels" if on_cpu else "numpy, through which inputs go, has no bf16"
        return Reason("unsupported_precision", f"ONNX Runtime: {detail}")
    if case.precision == "int8":
        return Reason("unsupported_precision", "int8 needs a quantised ONNX file, which is not made yet")
    return None


def variables(case: Case, threads: int) -> dict[str, str]:
    return {}


def build(workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
    """Raises Refusal(export_failed)."""
    with phase("export"):
        exported = export.export(workload, case, folder.parent)
        export.place(exported, folder)
    export.write_ledger(exported, folder)


def load(artefact: Artefact) -> Step:
    """Binds the calling thread too, after the session's own. Raises Refusal(build_failed) if the file cannot be loaded."""
    case = artefact.case
    session = _session(artefact)
    if bound := _machine.places(case, artefact.threads):
        os.sched_setaffinity(0, bound[:1])
    return _step(session, case)


def _step(session: Any, case: Case) -> Step:
    if case.target != "cpu" and _provider(case) in session.get_providers():
        return _on_device(session, int(case.target[5:]))
    return Step(
        call=lambda feed: session.run(None, feed),
        place=lambda arrays: _feed(session, arrays),
        fetch=_fetch,
        about=session,
    )


def placement(artefact: Artefact, step: Step) -> Placement:
    """Profiles one run of a second session with the same options, on zeros. The profile stays in the folder as evidence."""
    case, requested = artefact.case, _provider(artefact.case)
    session = _session(artefact, profile=artefact.folder / "profile")
    session.run(None, _zeros(session, case.batch))
    file = Path(session.end_profiling())
    events = [event for event in json.loads(file.read_bytes()) if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    nodes = {event["name"].removesuffix("_kernel_time"): event["args"] for event in events}
    ran_on = Counter(node["provider"] for node in nodes.values())
    elsewhere = sum(count for provider, count in ran_on.items() if provider != requested)
    counts = {
        "nodes": len(nodes),
        "nodes_elsewhere": elsewhere,
        "memcpy_nodes": sum(node["op_name"].startswith("Memcpy") for node in nodes.values()),
        "casts_inserted": sum(name.startswith("Inserted") and node["op_name"] == "Cast" for name, node in nodes.items()),
    }
    wrong = None
    if ran_on[requested] <= elsewhere:
        where = ", ".join(f"{count} on {provider}" for provider, count in ran_on.items())
        wrong = Reason("wrong_provider", f"requested {requested}, but of {len(nodes)} nodes there ran {where}")
    return Placement(requested, dict(ran_on), counts, (f"profile of one run: {file.name} in the case's folder",), wrong)


def profile(artefact: Artefact, step: Step, feed: Sequence[Arrays], schedule: profiling.Schedule, path: Path) -> list[float]:
    """Of a second session with the same options. Its profiler records all runs; those before the active ones are left out."""
    session = _session(artefact, profile=path)
    profiled = _step(session, artefact.case)
    placed = [profiled.place(arrays) for arrays in feed]
    seconds = [profiling.timed(partial(profiled.call, inputs)) for inputs in placed]
    file = Path(session.end_profiling())
    events = json.loads(file.read_bytes())
    runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
    path.write_text(json.dumps([event for event in events if event["ts"] >= runs[-schedule.active]]))
    file.unlink()
    return seconds[-schedule.active :]


def _provider(case: Case) -> str:
    chosen = case.option("provider", "auto")
    return chosen if chosen != "auto" else "CPUExecutionProvider" if case.target == "cpu" else "CUDAExecutionProvider"


def _session(artefact: Artefact, profile: Path | None = None) -> Any:
    """Numbers of CPUs count from 1, and the calling thread has none (onnxruntime_session_options_config_keys.h)."""
    import onnxruntime as ort

    case, threads = artefact.case, artefact.threads
    levels = {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC", "disabled": "ORT_DISABLE_ALL"}
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, levels[case.option("optimization", "all")])
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_free_dimension_override_by_name(export.BATCH, case.batch)
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(case.option("spinning", "on") == "on")))
    bound = _machine.places(case, threads)
    if len(bound) > 1:
        options.add_session_config_entry("session.intra_op_thread_affinities", ";".join(str(cpu + 1) for cpu in bound[1:]))
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    providers: list[Any] = ["CPUExecutionProvider"]
    if case.target != "cpu":
        device = {"device_id": case.target[5:]}
        cuda = {**device, "use_tf32": str(int(case.precision == "tf32"))}
        providers = [("CUDAExecutionProvider", cuda), *providers]
        if _provider(case) == "TensorrtExecutionProvider":
            providers = [("TensorrtExecutionProvider", device), *providers]
    with contextlib.redirect_stdout(sys.stderr):
        if case.target != "cpu":
            ort.preload_dlls()
        state = ort.capi.onnxruntime_pybind11_state  # its exceptions share no base class
        try:
            return ort.InferenceSession(artefact.folder / "model.onnx", options, providers)
        except (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented, state.RuntimeException) as error:
            raise Refusal("build_failed", f"ONNX Runtime {ort.__version__}: {error}") from error


def _feed(session: Any, arrays: Arrays) -> dict[str, Any]:
    import numpy as np

    return {node.name: np.ascontiguousarray(array, _dtype(node)) for node, array in zip(session.get_inputs(), arrays, strict=True)}


def _zeros(session: Any, batch: int) -> dict[str, Any]:
    import numpy as np

    inputs = [(node, [size if isinstance(size, int) else batch for size in node.shape]) for node in session.get_inputs()]
    return {node.name: np.zeros(shape, _dtype(node)) for node, shape in inputs}


def _dtype(node: Any) -> str:
    """`tensor(float)` -> float32; the other names are numpy's own."""
    kind = str(node.type).removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def _fetch(outputs: list[Any]) -> Arrays:
    return tuple(array.astype("float64" if array.dtype == "float64" else "float32") for array in outputs)


def _on_device(session: Any, device: int) -> Step:
    """Inputs and outputs stay on the device (I/O binding); a call returns when the device has finished."""
    import onnxruntime as ort

    def place(arrays: Arrays) -> Any:
        binding = session.io_binding()
        for name, array in _feed(session, arrays).items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", device))
        for output in session.get_outputs():
            binding.bind_output(output.name, "cuda", device)
        return binding

    def call(binding: Any) -> Any:
        session.run_with_iobinding(binding)
        return binding

    return Step(call, place, lambda binding: _fetch(binding.copy_outputs_to_cpu()), about=session)
