"""OpenVINO on the CPU, from an ONNX file. Workers load its IR and import neither torch nor NNCF.

The precision is always said: on a CPU with bf16 instructions OpenVINO's default for a fp32 model is
bf16. int8 is NNCF's (nncf.py), made in the build; what stays in floating point then runs in fp32.
`placement` reads the precision that each layer of the compiled graph runs in.

A call is one batch, run by one request and waited for. So it occupies one stream: with hint
throughput, or streams above 1, a call has its share of the threads and the other streams are idle.
What is measured is what one request costs then, never what several at once would bring.

With cache:on the build fills OpenVINO's cache of compiled models, and loads come from there; its
key has no threads and no hint in it (seen, 2026.4). OpenVINO compiles anew, without a word, where
the file is damaged or cannot be written: `placement` asks it.
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

from ..lowering import nncf, ov_model
from ..lowering.calibration import calibration
from ..machine import cpu, present
from ..oracle.arrays import comparable
from ..terms import contract
from ..terms.case import Case, Workload
from ..terms.contract import Arrays, Artefact, Phase, Step
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement

SUMMARY = "OpenVINO on the CPU, from an ONNX file"
OPTIONS = {"hint": ("latency", "throughput"), "streams": ("auto", "1", "2"), "cache": ("off", "on")}
TAKES_FILES = True
PRELOAD = ("numpy",)
# How a program without hotlap loads the folder as it was measured, and calls it (choose/ship.py).
SCRIPT = """\
options = launch["options"] | {"INFERENCE_NUM_THREADS": launch["threads"]}
compiled = openvino.Core().compile_model(folder / "model.xml", "CPU", options)
request = compiled.create_infer_request()


def predict(*arrays):
    results = request.infer(dict(enumerate(arrays)), share_inputs=True)
    return [results[port] for port in compiled.outputs]
"""
TARGETS = ("cpu",)
LOCATES = True


def LOADS(case: Case) -> tuple[str, ...]:
    """Returns the options of a compiled model, except where its cache is filled beforehand."""
    return () if case.option("cache", "off") == "on" else ("threads", "hint", "streams")


# Our precisions -> OpenVINO's element types.
NAMES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "i8"}
# OpenVINO's floating-point types.
FLOATS = ("f64", "f32", "f16", "bf16")
# What a case's folder holds: the IR, what the build noted, and OpenVINO's cache of compiled models.
MODEL = "model.xml"
NOTES = "build.json"
CACHE = "cache"


def available(target: str) -> Reason | None:
    """Returns what is missing for it: the package, or a target other than the CPU."""
    if target != "cpu":
        return Reason("unsupported_target", f"OpenVINO has no plug-in for {target}; it runs on cpu here")
    return present.missing("openvino", "pip install 'hotlap[openvino]'")


def supports(case: Case) -> Reason | None:
    """Returns what this CPU and the case's precision rule out, None where nothing is."""
    if case.mode != "inference":
        return Reason("unsupported_op", f"mode {case.mode}: this backend runs inference only")
    if case.precision not in NAMES:
        return Reason("unsupported_precision", f"OpenVINO on a CPU has no {case.precision}")
    if case.precision == "int8" and (missing := present.missing("nncf", nncf.REMEDY)):
        return missing
    needs = cpu.HALF_PRODUCTS.get(case.precision, ())
    if needs and not cpu.onednn_products() & set(needs):
        return Reason(
            "unsupported_precision", f"{case.precision} needs {' or '.join(needs)}, which this CPU has not"
        )
    return None


def variables(case: Case, threads: int) -> dict[str, str]:
    """Returns none: threads and binding are options of the compiled model."""
    return {}


def build(workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
    """Writes the IR, for int8 quantised, and fills the cache if the case has one.

    The export is fp32 whatever the precision: OpenVINO casts, NNCF quantises. Raises Refusal:
    export_failed, invalid_input, build_failed, out_of_space.
    """
    ov, fp32 = _library(), Case(case.workload, case.backend, batch=case.batch)
    read = ov_model.read(ov, workload, fp32, folder.parent, phase)
    (folder / "ledger.json").write_text(json.dumps({"export": read.seconds}))
    model, notes = read.model, [*read.notes]
    if case.precision == "int8":
        with phase("quantise"):
            quantised = nncf.quantise(ov, model, calibration(workload))
        model, notes = quantised.model, [*notes, *quantised.evidence]
    (folder / NOTES).write_text(json.dumps(notes))
    with phase("build"):
        ov.save_model(model, folder / MODEL, compress_to_fp16=False)
    if case.option("cache", "off") == "on":
        with phase("cache"):
            _fill(ov, folder, case)


class CompiledModel(NamedTuple):
    """OpenVINO's compiled model and its one request."""

    model: Any
    request: Any


def load(artefact: Artefact) -> Step:
    """Compiles the IR for the CPU. Raises Refusal(build_failed) with OpenVINO's message."""
    return _step(artefact)


def _step(artefact: Artefact, profiled: bool = False) -> Step:
    """Returns the step of one compiled model, with `profiled` one that counts what layers take."""
    import numpy as np

    ov = _library()
    case = artefact.case
    options = {
        **_options(case, artefact.folder),
        "INFERENCE_NUM_THREADS": artefact.threads,
        "PERF_COUNT": profiled,
    }
    compiled = _compile(ov, artefact.folder, options)
    request = compiled.create_infer_request()
    kinds = [port.element_type.to_dtype() for port in compiled.inputs]

    def place(arrays: Arrays) -> dict[int, Any]:
        return {
            i: ov.Tensor(np.array(array, kind, order="C"))
            for i, (array, kind) in enumerate(zip(arrays, kinds, strict=True))
        }

    def call(inputs: dict[int, Any]) -> Any:
        return request.infer(inputs, share_inputs=True, share_outputs=True)

    def fetch(outputs: Any) -> Arrays:
        """Copies, since the request owns the outputs and overwrites them at the next call."""
        return tuple(comparable(np.array(array)) for array in outputs.to_tuple())

    return Step(call, place, fetch, about=CompiledModel(compiled, request))


def placement(artefact: Artefact, step: Step) -> Placement:
    """Returns precision and kind of each layer of the compiled graph (its runtime model)."""
    case, compiled = artefact.case, step.about.model
    layers = nncf.layers(compiled)
    if case.precision == "int8":
        counted = _bytes(artefact.folder, layers)
    else:
        counted = _floats(NAMES[case.precision], layers)
    kinds = Counter(f"{layer.kind} {layer.precision}" for layer in layers)
    evidence = [f"{count} x {kind}" for kind, count in kinds.most_common()]
    if case.precision == "int8":
        evidence = [counted.evidence, nncf.instructions(), *evidence]
    if (artefact.folder / NOTES).exists():
        evidence = [*json.loads((artefact.folder / NOTES).read_bytes()), *evidence]
    streams, threads = (int(compiled.get_property(name)) for name in ("NUM_STREAMS", "INFERENCE_NUM_THREADS"))
    evidence.append(f"{streams} stream(s) of {threads} thread(s) in all; a call occupies one")
    if _cached(compiled):
        evidence.append("loaded from the cache that the build filled")
    return Placement(
        NAMES[case.precision],
        dict(Counter(layer.precision for layer in layers)),
        {"nodes": len(layers), "nodes_other_precision": counted.other},
        tuple(evidence),
        counted.wrong or _unlike(case, streams, _cached(compiled)),
    )


class Counted(NamedTuple):
    """How many layers run in another precision than was asked for.

    evidence: the same in words. wrong: the reason if they are too many.
    """

    other: int
    evidence: str
    wrong: Reason | None


def _floats(requested: str, layers: Sequence[nncf.Layer]) -> Counted:
    """Counts the floating-point layers in another precision than the one requested."""
    computing = Counter(
        layer.precision for layer in layers if layer.precision in FLOATS and layer.kind != "Reorder"
    )
    other = computing.total() - computing[requested]
    ran = f"of {computing.total()} floating-point layers there ran " + ", ".join(
        f"{count} in {precision}" for precision, count in computing.items()
    )
    wrong = (
        Reason("unsupported_precision", f"requested {requested}, but {ran}")
        if computing[requested] < other
        else None
    )
    return Counted(other, ran, wrong)


def _bytes(folder: Path, layers: Sequence[nncf.Layer]) -> Counted:
    """Counts what multiplies matrices and not in 8 bits; the rest may take floating point.

    Bytes for weights alone do not count: OpenVINO names the precision of the activations.
    """
    products = nncf.products(_library().Core().read_model(folder / MODEL), layers)
    computing = Counter(precision for _, precision in products)
    left = [name for name, precision in products if precision not in nncf.BYTES]
    eight = len(products) - len(left)
    ran = f"of {len(products)} convolutions and matrix products {eight} run in 8 bits"
    counts = ", ".join(f"{count} in {precision}" for precision, count in computing.most_common())
    wrong = None if eight else Reason("unsupported_precision", f"requested int8, but {ran} ({counts})")
    others = f"; not in 8 bits: {nncf.named(left)}" if left else ""
    return Counted(len(left), f"{ran} ({counts}){others}", wrong)


def _unlike(case: Case, streams: int, cached: bool) -> Reason | None:
    """Returns in what the compiled model is not what the case asked for, None if in nothing."""
    wanted = case.option("streams", "auto")
    if wanted not in ("auto", str(streams)):
        return Reason(
            "build_failed",
            f"requested {wanted} streams, OpenVINO made {streams}: each needs a thread of its own; raise"
            " --threads",
        )
    if case.option("cache", "off") == "on" and not cached:
        return Reason(
            "build_failed",
            "requested a load from the cache, but OpenVINO compiled anew: the file in the case's folder is"
            " missing or damaged; run again",
        )
    return None


def profile(
    artefact: Artefact, step: Step, feed: Sequence[Arrays], schedule: contract.Schedule, path: Path
) -> list[float]:
    """Records the calls with the performance counters of a second compiled model.

    They say what a layer took on average since the model was compiled, not when: each active call
    has the mean of all of them, its layers one after the other.
    """
    profiled = _step(artefact, profiled=True)
    request = profiled.about.request
    calls: list[tuple[float, float]] = []
    before: dict[str, float] = {}
    for number, arrays in enumerate(feed):
        inputs = profiled.place(arrays)
        if number == len(feed) - schedule.active and number:
            before = {
                layer.node_name: number * layer.real_time.total_seconds() for layer in request.profiling_info
            }
        start = time.perf_counter()
        calls.append((start, contract.timed(partial(profiled.call, inputs))))
    active = calls[-schedule.active :]
    layers = []
    for layer in request.profiling_info:
        mean_s = (len(feed) * layer.real_time.total_seconds() - before.get(layer.node_name, 0.0)) / len(
            active
        )
        if mean_s > 0:
            layers.append(
                (layer.node_name, mean_s, {"op_name": layer.node_type, "provider": layer.exec_type})
            )
    events: list[dict[str, Any]] = []
    for start, seconds in active:
        events.append(_event("Session", "model_run", start, seconds, {}))
        for name, mean_s, about in layers:
            events.append(_event("Node", name, start, mean_s, about))
            start += mean_s
    path.write_text(json.dumps(events))
    return [seconds for _, seconds in active]


def _event(
    category: str, name: str, start_s: float, length_s: float, about: dict[str, str]
) -> dict[str, Any]:
    """Returns an event of the trace; its times are in microseconds."""
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": 0,
        "tid": 0,
        "ts": round(start_s * 1e6, 3),
        "dur": round(length_s * 1e6, 3),
        "args": about,
    }


def _options(case: Case, folder: Path) -> dict[str, Any]:
    """Returns what a compiled model depends on; of int8 what is not quantised runs in fp32."""
    streams = case.option("streams", "auto")
    options = {
        "INFERENCE_PRECISION_HINT": "f32" if case.precision == "int8" else NAMES[case.precision],
        "PERFORMANCE_HINT": case.option("hint", "latency").upper(),
        "ENABLE_CPU_PINNING": case.option("binding", "cores") == "cores",
    }
    if streams != "auto":
        options["NUM_STREAMS"] = streams
    if case.option("cache", "off") == "on":
        options |= {"CACHE_DIR": str(folder / CACHE), "CACHE_MODE": "OPTIMIZE_SPEED"}
    return options


def launched(case: Case) -> dict[str, Any]:
    """Returns what SCRIPT reads besides threads."""
    return {"options": _options(case, Path())}


def _compile(ov: Any, folder: Path, options: dict[str, Any]) -> Any:
    """Compiles the IR of a folder. Raises Refusal(build_failed)."""
    try:
        return ov_model.compiled_by(ov, folder / MODEL, options)
    except RuntimeError as error:
        raise Refusal("build_failed", f"OpenVINO {ov.__version__}: {error}") from error


def _cached(compiled: Any) -> bool:
    """Returns whether a compiled model came from the cache, by OpenVINO's own word."""
    return bool(compiled.get_property("LOADED_FROM_CACHE"))


def _fill(ov: Any, folder: Path, case: Case) -> None:
    """Compiles twice: the second says whether the first one left what can be loaded.

    OpenVINO itself says nothing about a full disk. Raises Refusal: out_of_space, build_failed.
    """
    options = _options(case, folder)
    _compile(ov, folder, options)
    if not _cached(_compile(ov, folder, options)):
        raise Refusal(
            "out_of_space",
            f"OpenVINO left no cache in {folder / CACHE} that it can load; free space, choose another --out,"
            " or leave out cache:on",
        )


def _library() -> Any:
    """Imports OpenVINO without its telemetry.

    It sends an event over the network when it is imported, unless its telemetry package cannot be:
    then it uses its own stub.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
