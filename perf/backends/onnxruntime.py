"""ONNX Runtime, on the CPU or on CUDA. Workers load an ONNX file and never import torch.

The list of providers says what was tried, not what runs: without a driver, onnxruntime-gpu computes
on the CPU and says nothing. So `placement` profiles one run and counts the nodes of each provider.

Threads are bound through the session, never through OMP_PROC_BIND, which narrows the mask that its
pool inherits. Its threads spin between operators, as by default: the harness stops the process
between turns, so this disturbs nobody. Without it a small transformer (6 blocks of width 128) took
1.9 ms instead of 1.4 ms on two cores of an EPYC; that is what option spinning:off measures.

int8 is static QDQ (quantise.py): unsigned activations, signed weights with a scale a channel, 7
bits where the CPU has no VNNI; with [int8:dynamic] weights alone, activations rounded in each call.
fp16 is for CUDA: the module cast as a whole, or with [fp16:blocked] the fp32 graph converted with
the operators of FP32_ONLY left in fp32. [fusion:transformer] runs ONNX Runtime's offline fusions
first.

Its TensorRT provider makes engines of what it takes, each one node of the graph: they are built
once, into the case's folder. It is linked with TensorRT 10, so an environment with torch-tensorrt,
which needs 11, has none for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import logging
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ..lowering import calibration, export, quantise
from ..machine import cpu, present
from ..oracle.arrays import comparable
from ..terms import contract
from ..terms.case import BATCH, Case, Workload
from ..terms.contract import Arrays, Artefact, Phase, Proven, Step
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement

SUMMARY = "ONNX Runtime, from an ONNX file"
# Providers, by ONNX Runtime's names.
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OPTIONS = {
    "provider": ("auto", CPU, CUDA, TENSORRT),
    "optimization": ("all", "extended", "basic", "disabled"),
    "spinning": ("on", "off"),
    "fp16": ("cast", "blocked"),
    "fusion": ("session", "transformer"),
    "int8": ("static", "dynamic"),
}
TAKES_FILES = True
PRELOAD = ("onnxruntime",)
# How a program without hotlap loads the folder as it was measured, and calls it (choose/ship.py).
SCRIPT = """\
options = onnxruntime.SessionOptions()
options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, launch["optimization"])
options.intra_op_num_threads, options.inter_op_num_threads = launch["threads"], 1
options.add_session_config_entry("session.intra_op.allow_spinning", launch["spinning"])
if launch["batch"]:  # drop it for batches of other sizes
    options.add_free_dimension_override_by_name("batch", launch["batch"])
if len(cpus) > 1:
    others = ";".join(str(cpu + 1) for cpu in cpus[1:])
    options.add_session_config_entry("session.intra_op_thread_affinities", others)
session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
if cpus:
    os.sched_setaffinity(0, cpus[:1])
names = [port.name for port in session.get_inputs()]  # asking in each call takes longer than a small model


def predict(*arrays):
    return session.run(None, dict(zip(names, arrays)))
"""
LOCATES = True


def LOADS(case: Case) -> tuple[str, ...]:
    """Returns the options of a session, except where its engines are built beforehand."""
    return () if _provider(case) == TENSORRT else ("threads", "optimization", "spinning")


# Option optimization -> ONNX Runtime's GraphOptimizationLevel.
LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
# What a case's folder holds: the graph, what its build noted, the example's sizes of free axes,
# TensorRT's engines and the number of nodes of the graph that they are made of.
MODEL = "model.onnx"
NOTES = "build.json"
SIZES = "sizes.json"
ENGINES = "engines"
NODES = "nodes.txt"
# What TensorRT's builder may use beside fp32
# (onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html). A quantised graph
# without the flag is refused (microsoft/onnxruntime#13381). Python's binding takes True and False
# here and refuses 1 and 0.
FLAGS = {"fp16": {"trt_fp16_enable": "True"}, "int8": {"trt_int8_enable": "True"}}
# What the TensorRT provider of onnxruntime-gpu is linked with.
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvonnxparser.so.10")
# Sums of many terms and steep functions: what fp16's 10 bits and largest number of 65504 bear
# worst.
FP32_ONLY = (
    "Softmax",
    "LayerNormalization",
    "SkipLayerNormalization",
    "ReduceMean",
    "ReduceSum",
    "ReduceL2",
    "Exp",
    "Pow",
    "Erf",
)
# Operators that compute in int8 after ONNX Runtime's QDQ fusion
# (its documentation of contrib operators).
INT8 = (
    "QLinearConv",
    "QGemm",
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "ConvInteger",
    "QAttention",
)
# Operators that compute in floating point what those of INT8 would compute.
FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "LSTM", "GRU")
# Operators that stand for several of the exported graph.
FUSED = (
    "Attention",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "LayerNormalization",
    "Gelu",
    "BiasGelu",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "QLinearConv",
    "QGemm",
)


def FIXED_BATCH(case: Case) -> bool:
    """Returns whether there are engines, which take the case's batch size only."""
    return _provider(case) == TENSORRT


def available(target: str) -> Reason | None:
    """Returns what is missing for it: the package or the device."""
    remedy = "pip install onnxruntime-gpu, or onnxruntime where there is no such wheel"
    return present.missing("onnxruntime", remedy) or present.no_device(target)


def supports(case: Case) -> Reason | None:
    """Returns what the case's precision and options rule out, None where nothing is.

    fp16 on the CPU was seen to run as fp32 between inserted casts, bf16 to have no kernels (ONNX
    Runtime 1.31.1).
    """
    on_cpu = case.target == "cpu"
    if case.mode != "inference":
        return Reason("unsupported_op", f"mode {case.mode}: this backend runs inference only")
    if on_cpu != (_provider(case) == CPU):
        return Reason("unsupported_target", f"{_provider(case)} does not run on {case.target}")
    if on_cpu and case.precision == "fp16":
        return Reason(
            "unsupported_precision", "ONNX Runtime's CPU provider computes fp16 in fp32 between casts"
        )
    if on_cpu and case.precision == "tf32":
        return Reason(
            "unsupported_precision", "tf32 is a mode of NVIDIA's matrix units from Ampere on; a CPU has none"
        )
    if case.precision == "bf16":
        detail = (
            "its CPU provider has no bf16 kernels"
            if on_cpu
            else "numpy, through which inputs go, has no bf16"
        )
        return Reason("unsupported_precision", f"ONNX Runtime: {detail}")
    if case.precision == "int8" and _provider(case) == CUDA:
        return Reason(
            "unsupported_precision",
            "ONNX Runtime's CUDA provider runs quantised graphs in fp32 between casts;"
            " [provider:TensorrtExecutionProvider] or backend tensorrt runs int8",
        )
    if case.option("int8", "static") == "dynamic" and (case.precision != "int8" or not on_cpu):
        return Reason(
            "unsupported_precision",
            "[int8:dynamic] is for --precisions int8 on the CPU; other providers have no such operators",
        )
    if case.option("fp16", "cast") == "blocked" and _provider(case) == TENSORRT:
        return Reason(
            "unsupported_op",
            "[fp16:blocked] keeps operators in fp32 by casts, which TensorRT's builder need not keep: drop"
            " one of the two",
        )
    if case.option("fp16", "cast") == "blocked" and case.precision != "fp16":
        return Reason(
            "unsupported_precision",
            f"[fp16:blocked] leaves operators of an fp16 graph in fp32; this case is in {case.precision}",
        )
    return None


def variables(case: Case, threads: int) -> dict[str, str]:
    """Returns what keeps fp32 from becoming tf32 in TensorRT.

    Its provider has no option for that; NVIDIA's libraries have this variable. Threads are set by
    the session.
    """
    if _provider(case) == TENSORRT and case.precision != "tf32":
        return {"NVIDIA_TF32_OVERRIDE": "0"}
    return {}


def build(workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
    """Writes the graph, and for TensorRT its engines.

    Raises Refusal: export_failed, unsupported_op where int8 finds nothing to quantise,
    build_failed.
    """
    spent, notes = written(workload, case, folder, phase)
    (folder / "ledger.json").write_text(json.dumps(spent))
    (folder / NOTES).write_text(json.dumps(notes))
    free = {
        name: value.shape[axis]
        for value, axes in zip(workload.inputs, workload.free, strict=True)
        for axis, name in axes.items()
        if name != BATCH
    }
    if free:
        (folder / SIZES).write_text(json.dumps(free))
    if _provider(case) == TENSORRT:
        shutil.rmtree(folder / ENGINES, ignore_errors=True)
        (folder / ENGINES).mkdir()
        (folder / NODES).write_text(str(export.nodes(folder / MODEL)))
        with phase("compile"):
            _session(Artefact(case, folder, 1, lambda: workload, folder))


def written(workload: Workload, case: Case, folder: Path, phase: Phase) -> tuple[dict[str, float], list[str]]:
    """Writes model.onnx into the folder.

    Returns the seconds of each step (the export's when it was made) and what each did, in words.
    """
    with phase("export"):
        converted = case.option("fp16", "cast") == "blocked"
        exported = export.export(
            workload, replace(case, precision="fp32") if converted else case, folder.parent
        )
    source = exported.folder / MODEL
    spent = {"export": exported.seconds}
    notes = [f"ONNX opset {export.opset(source)}", *exported.notes]
    start = time.perf_counter()
    if case.precision == "int8":
        here = _provider(case) == CPU
        reduced = here and not cpu.flags() & set(cpu.INT8_PRODUCTS)
        if case.option("int8", "static") == "dynamic":
            outcome = quantise.dynamically(source, folder / MODEL, reduced)
        else:
            style = quantise.Style(signed=not here, reduced=reduced, passing=True)
            ranges = calibration.calibration(workload)
            outcome = str(quantise.quantise(source, folder / MODEL, ranges, style))
        notes += [outcome, f"weights in {7 if reduced else 8} bits"]
        spent["quantise"] = time.perf_counter() - start
    elif converted:
        notes.append(_blocked(source, folder / MODEL))
        spent["convert"] = time.perf_counter() - start
    else:
        export.place(exported, folder)
    if case.option("fusion", "session") == "transformer":
        start = time.perf_counter()
        notes.append(_fused(folder / MODEL))
        spent["fuse"] = time.perf_counter() - start
    return spent, notes


def _blocked(source: Path, target: Path) -> str:
    """Converts a file from fp32 to fp16, and says what stays in fp32.

    That is the operators of FP32_ONLY, between casts; inputs and outputs become fp16.
    """
    import onnx
    from onnxruntime.transformers import float16

    model = float16.convert_float_to_float16(
        onnx.load(source), keep_io_types=False, op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *FP32_ONLY]
    )
    _renamed(model)
    onnx.save(model, target)
    kept = Counter(node.op_type for node in model.graph.node if node.op_type in FP32_ONLY)
    names = ", ".join(f"{count} {name}" for name, count in kept.most_common()) or "nothing"
    return f"fp16 but for {names}, which stay in fp32"


def _renamed(model: Any) -> None:
    """Gives each node a name of its own and drops casts that are there twice.

    A weight that two blocked nodes share gets the same cast twice, under one name (onnxruntime
    1.31.1).
    """
    once = {tuple(node.output): node for node in reversed(model.graph.node)}
    nodes = [node for node in model.graph.node if once[tuple(node.output)] is node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.name}:{index}"


def _fused(model: Path) -> str:
    """Replaces the file by one with ONNX Runtime's offline fusions, and says which were made.

    The patterns are those of BERT-like encoders; ONNX Runtime counts its matches.
    """
    from onnxruntime.transformers import optimizer

    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    fused = optimizer.optimize_model(str(model), model_type="bert", opt_level=0)
    model.unlink()  # it may be a hard link to the export that other cases share
    fused.save_model_to_file(str(model))
    counts = {name: count for name, count in fused.get_fused_operator_statistics().items() if count}
    return (
        f"offline fusions: {', '.join(f'{count} {name}' for name, count in counts.items()) or 'none matched'}"
    )


def launched(case: Case) -> dict[str, str]:
    """Returns what SCRIPT reads besides threads, batch and CPUs."""
    return {
        "optimization": LEVELS[case.option("optimization", "all")],
        "spinning": str(int(case.option("spinning", "on") == "on")),
    }


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """Proves the case to L1, with the exported graph held against the oracle on the CPU.

    The CUDA provider cannot be asked what it takes without a driver: it does not load.
    """
    import onnxruntime as ort

    yield Proven(
        "L0",
        f"onnxruntime {ort.__version__} lists {', '.join(ort.get_available_providers())}, which says what was"
        " built in and not what can run here",
    )
    _, notes = written(workload, case, folder, phase)
    words = "; ".join(["exported, and the graph's outputs on the CPU pass the oracle", *notes])
    yield Proven("L1", words, lowered=export.on_cpu(folder / MODEL))


def load(artefact: Artefact) -> Step:
    """Makes the session and binds the calling thread too, after the session's own.

    Raises Refusal(build_failed) if the file cannot be loaded.
    """
    case = artefact.case
    session = _session(artefact)
    if bound := present.cpus_to_bind(case, artefact.threads):
        os.sched_setaffinity(0, bound[:1])
    return _step(session, case)


def _step(session: Any, case: Case) -> Step:
    """Returns the step of a session; on CUDA inputs and outputs stay on the device."""
    if case.target != "cpu" and _provider(case) in session.get_providers():
        return _on_device(session, int(case.target[5:]))
    return Step(
        call=lambda feed: session.run(None, feed),
        place=lambda arrays: _feed(session, arrays),
        fetch=_fetch,
        about=session,
    )


def placement(artefact: Artefact, step: Step) -> Placement:
    """Profiles one run of a second session with the same options, on zeros.

    The profile stays in the folder as evidence.
    """
    case = artefact.case
    session = _session(artefact, profile=artefact.folder / "profile")
    session.run(None, _zeros(session, case.batch, artefact.folder))
    file = Path(session.end_profiling())
    events = [
        event
        for event in json.loads(file.read_bytes())
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    exported = int((artefact.folder / NODES).read_text()) if _provider(case) == TENSORRT else 0
    nodes = {event["name"].removesuffix("_kernel_time"): event["args"] for event in events}
    ran = placed(case, nodes, exported)
    file_of_notes = artefact.folder / NOTES
    notes = json.loads(file_of_notes.read_text()) if file_of_notes.exists() else []
    return msgspec.structs.replace(
        ran, evidence=(*notes, *ran.evidence, f"profile of one run: {file.name} in the case's folder")
    )


def placed(case: Case, ran: Mapping[str, Mapping[str, Any]], exported: int = 0) -> Placement:
    """Returns what a profile says of a case.

    ran: node -> its provider, operator and the types of its inputs. exported: for TensorRT, nodes
    of the file; an engine stands for many.
    """
    requested = _provider(case)
    # a copy counts as CUDA's and does none of the work
    nodes = {name: node for name, node in ran.items() if not node["op_name"].startswith("Memcpy")}
    copies = len(ran) - len(nodes)
    ran_on = Counter(node["provider"] for node in nodes.values())
    elsewhere = sum(count for provider, count in ran_on.items() if provider != requested)
    casts = [name for name, node in nodes.items() if node["op_name"] == "Cast"]
    counts = {
        "nodes": len(nodes),
        "nodes_elsewhere": elsewhere,
        "memcpy_nodes": copies,
        "casts_inserted": sum(name.startswith("Inserted") for name in casts),
    }
    evidence = []
    if fused := Counter(node["op_name"] for node in nodes.values() if node["op_name"] in FUSED):
        names = ", ".join(f"{count} {name}" for name, count in fused.most_common())
        evidence.append(f"fused by the session: {names}")
    wrong = None
    own = ran_on[requested]
    if requested == TENSORRT:
        counts["engines"] = own
        own = exported - elsewhere if own else 0
        evidence.append(f"{ran_on[requested]} engines stand for {own} of the file's {exported} nodes")
    if own <= elsewhere:
        where = ", ".join(f"{count} on {provider}" for provider, count in ran_on.items())
        wrong = Reason(
            "wrong_provider", f"requested {requested}, but of {len(nodes)} nodes there ran {where}"
        )
    elif case.precision == "int8" and requested == TENSORRT:
        evidence.append(
            "int8: TensorRT may use it (trt_int8_enable); which layers of its engines do, no profile of ONNX"
            " Runtime says: the backend tensorrt counts them"
        )
    elif case.precision == "int8":
        eight_bit, wrong = _eight_bit(nodes)
        counts |= eight_bit
    return Placement(
        requested, dict(ran_on), counts, tuple(evidence), wrong, strangers(nodes, requested, copies)
    )


def _eight_bit(nodes: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, int], Reason | None]:
    """Returns how many nodes computed in int8 and how many not, and the reason if none did."""
    eight = sum(
        bool(set(_types(node)) & {"uint8", "int8"}) for node in nodes.values() if node["op_name"] in INT8
    )
    others = Counter(node["op_name"] for node in nodes.values() if node["op_name"] in FLOAT)
    wrong = None
    if not eight:
        names = ", ".join(f"{count} {name}" for name, count in others.items())
        wrong = Reason(
            "unsupported_precision", f"requested int8, but no node computed in it; there ran {names}"
        )
    return {"int8_nodes": eight, "nodes_other_precision": others.total()}, wrong


def strangers(nodes: Mapping[str, Mapping[str, Any]], requested: str, copies: int) -> str:
    """Returns the operators that another provider ran than the one asked for, in words.

    Empty where there is none.
    """
    others = Counter(
        (node["op_name"], node["provider"]) for node in nodes.values() if node["provider"] != requested
    )
    if not others:
        return ""
    names = ", ".join(f"{count} {name} on {provider}" for (name, provider), count in others.most_common())
    between = f", with {copies} copies between the devices in every call" if copies else ""
    return f"{others.total()} of {len(nodes)} nodes did not run on {requested}: {names}{between}"


def _types(node: Mapping[str, Any]) -> list[str]:
    """Returns the types of a node's inputs; the profile has them as [{"uint8": [1, 3]}, ...]."""
    return [name for entry in node.get("input_type_shape", ()) for name in entry]


def profile(
    artefact: Artefact, step: Step, feed: Sequence[Arrays], schedule: contract.Schedule, path: Path
) -> list[float]:
    """Records the calls with the profiler of a second session with the same options.

    It records all runs; those before the active ones are left out.
    """
    session = _session(artefact, profile=path)
    profiled = _step(session, artefact.case)
    inputs_each = [profiled.place(arrays) for arrays in feed]
    seconds = [contract.timed(partial(profiled.call, inputs)) for inputs in inputs_each]
    file = Path(session.end_profiling())
    events = json.loads(file.read_bytes())
    runs = sorted(event["ts"] for event in events if event["name"] == "model_run")
    path.write_text(json.dumps([event for event in events if event["ts"] >= runs[-schedule.active]]))
    file.unlink()
    return seconds[-schedule.active :]


def _provider(case: Case) -> str:
    """Returns the provider that the case is for."""
    chosen = case.option("provider", "auto")
    if chosen != "auto":
        return chosen
    return CPU if case.target == "cpu" else CUDA


def _session(artefact: Artefact, profile: Path | None = None) -> Any:
    """Makes a session, with `profile` one whose runs are recorded into files of that prefix.

    Raises Refusal: build_failed, dep_missing where TensorRT's libraries are not here.
    """
    import onnxruntime as ort

    case, threads = artefact.case, artefact.threads
    options = _options(artefact)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    with contextlib.redirect_stdout(sys.stderr), _as_built(artefact):
        if case.target != "cpu":
            ort.preload_dlls()
        if _provider(case) == TENSORRT:
            _load_tensorrt()
            # the process that builds has the environment of eager
            os.environ.update(variables(case, threads))
        state = ort.capi.onnxruntime_pybind11_state  # its exceptions share no base class
        failures = (
            state.Fail,
            state.EPFail,
            state.InvalidGraph,
            state.InvalidProtobuf,
            state.NotImplemented,
            state.RuntimeException,
            RuntimeError,
            ValueError,
        )
        try:  # without Python's own fallback, which would try other providers and print that it did
            return ort.InferenceSession(
                artefact.folder / MODEL, options, providers(case, artefact.folder), enable_fallback=0
            )
        except failures as error:
            raise Refusal("build_failed", f"ONNX Runtime {ort.__version__}: {error}") from error


def _options(artefact: Artefact) -> Any:
    """Returns a session's options.

    Affinities number CPUs from 1, and the calling thread has none
    (onnxruntime_session_options_config_keys.h).
    """
    import onnxruntime as ort

    case, threads = artefact.case, artefact.threads
    options = ort.SessionOptions()
    level = LEVELS[case.option("optimization", "all")]
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not artefact.free:
        options.add_free_dimension_override_by_name(BATCH, case.batch)
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", str(int(case.option("spinning", "on") == "on"))
    )
    bound = present.cpus_to_bind(case, threads)
    if len(bound) > 1:
        options.add_session_config_entry(
            "session.intra_op_thread_affinities", ";".join(str(cpu + 1) for cpu in bound[1:])
        )
    return options


@contextlib.contextmanager
def _as_built(artefact: Artefact) -> Iterator[None]:
    """Keeps the engines that a folder has, and lets it get no more.

    Libraries of other versions than built them make engines of their own when they load.
    """
    folder = artefact.folder / ENGINES
    before = set(folder.glob("*"))
    try:
        yield
    finally:
        for file in (set(folder.glob("*")) - before) if before else ():
            file.unlink()


def providers(case: Case, folder: Path) -> list[Any]:
    """Returns the providers with their options, in the order in which they are offered a node."""
    if case.target == "cpu":
        return [CPU]
    device = {"device_id": case.target.removeprefix("cuda:")}
    cuda = CUDA, {**device, "use_tf32": str(int(case.precision == "tf32"))}
    if _provider(case) != TENSORRT:
        return [cuda, CPU]
    cache = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder / ENGINES)}
    return [(TENSORRT, {**device, **cache, **FLAGS.get(case.precision, {})}), cuda, CPU]


def _load_tensorrt() -> None:
    """Loads what the provider is linked with; pip puts it where the loader does not look.

    Raises Refusal(dep_missing).
    """
    wheel = importlib.util.find_spec("tensorrt_libs")
    folders = list(wheel.submodule_search_locations or ()) if wheel else []
    for name in TENSORRT_LIBRARIES:
        why = ""
        for place in (*(os.path.join(folder, name) for folder in folders), name):
            try:
                ctypes.CDLL(place)
            except OSError as error:
                why = str(error)
            else:
                break
        else:
            raise Refusal(
                "dep_missing",
                f"ONNX Runtime's TensorRT provider needs {name} ({why}): pip install 'tensorrt-cu13<11' in an"
                " environment without torch-tensorrt, which needs 11",
            )


def _feed(session: Any, arrays: Arrays) -> dict[str, Any]:
    """Returns arrays by the names of the session's inputs, in their dtypes."""
    import numpy as np

    return {
        node.name: np.asarray(array, _dtype(node), order="C")
        for node, array in zip(session.get_inputs(), arrays, strict=True)
    }


def _zeros(session: Any, batch: int, folder: Path) -> dict[str, Any]:
    """Returns a batch of zeros for the session's inputs, of the example's sizes."""
    import numpy as np

    file = folder / SIZES
    free = json.loads(file.read_bytes()) if file.exists() else {}
    inputs = [
        (node, [size if isinstance(size, int) else free.get(size, batch) for size in node.shape])
        for node in session.get_inputs()
    ]
    return {node.name: np.zeros(shape, _dtype(node)) for node, shape in inputs}


def _dtype(node: Any) -> str:
    """Returns numpy's name of an input's dtype, such as float32 for `tensor(float)`."""
    kind = str(node.type).removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def _fetch(outputs: list[Any]) -> Arrays:
    return tuple(comparable(array) for array in outputs)


def _on_device(session: Any, device: int) -> Step:
    """Returns a step whose inputs and outputs stay on the device (I/O binding).

    A call returns when the device has finished.
    """
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
