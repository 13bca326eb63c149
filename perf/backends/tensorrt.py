"""TensorRT, on an NVIDIA GPU or, without one, as far as an engine for a named architecture:

`hotlap run MODEL --backends tensorrt --target sm_89`.

Two routes. onnx: an ONNX file becomes one engine, or is refused with the operator. torch:
torch_tensorrt.dynamo cuts the exported module into engines and parts that stay with PyTorch.
Precision is in the graph: fp16 and bf16 by its dtypes, int8 by quantise and dequantise around its
layers (quantise.py).

Not run on a GPU yet: `load` and what it returns are written after TensorRT's documentation and have
no time to show; that the library has what they ask for is tested.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..lowering import calibration, engine_cache, export, quantise, torch_trt, trt_engine
from ..machine import present
from ..terms.case import Case, Workload
from ..terms.contract import Arrays, Artefact, Phase, Proven, Step
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement

if TYPE_CHECKING:
    import torch

SUMMARY = "TensorRT engines, from an ONNX file or by torch_tensorrt"
OPTIONS = {
    "route": ("onnx", "torch"),
    "shapes": ("fixed", "dynamic"),
    "cudagraph": ("on", "off"),
    "cache": ("on", "off"),
}
TAKES_FILES = True
PRELOAD = ("torch",)
TARGETS = ("cuda", "sm_")

# What a case's folder holds: the graph, its engine, and what the builder said of the engine.
MODEL = "model.onnx"
ENGINE = "engine.plan"
ABOUT = "engine.json"


def SELF_CONTAINED(case: Case) -> bool:
    """Returns whether the folder is enough: torch_tensorrt compiles the module anew."""
    return case.option("route", "onnx") == "onnx"


def FIXED_BATCH(case: Case) -> bool:
    """Returns whether the engine takes the case's batch size only."""
    return case.option("shapes", "fixed") == "fixed"


def available(target: str) -> Reason | None:
    """Returns what is missing for it: one of the two libraries, or the GPU."""
    if target == "cpu":
        return Reason(
            "unsupported_target",
            "TensorRT runs on NVIDIA GPUs; --target sm_89 builds an engine for one that is not here",
        )
    if not trt_engine.installed():
        return Reason("dep_missing", f"neither tensorrt nor tensorrt_rtx is installed: {trt_engine.REMEDY}")
    return present.no_device(target)


def supports(case: Case) -> Reason | None:
    """Returns what the case's target, precision and options rule out, None where nothing is."""
    if case.mode != "inference":
        return Reason("unsupported_op", f"mode {case.mode}: this backend runs inference only")
    if case.target.startswith("gfx"):
        return Reason("unsupported_target", f"{case.target} is AMD's; TensorRT builds for NVIDIA's")
    if case.option("route", "onnx") == "torch" and case.precision == "int8":
        return Reason(
            "unsupported_precision",
            "route torch takes int8 from NVIDIA's modelopt, which is not used here; route onnx quantises by"
            " itself",
        )
    if case.option("route", "onnx") == "torch" and (
        others := [
            f"{name}:{value}" for name, value in case.options if name in ("shapes", "cudagraph", "cache")
        ]
    ):
        return Reason(
            "unsupported_op", f"route torch knows no {' '.join(others)}: drop it, or take route onnx"
        )
    return None


def variables(case: Case, threads: int) -> dict[str, str]:
    """Returns none: an engine computes on the GPU."""
    return {}


def build(workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
    """Writes graph and engine for the GPU that is here.

    Raises Refusal: export_failed, unsupported_op, unsupported_precision, build_failed.
    """
    trt = trt_engine.library()
    if case.option("route", "onnx") == "torch":
        return  # compiled by load, in the process that runs it
    with phase("export"):
        exported = export.export(workload, case, folder.parent)
    notes = ready(workload, case, exported, folder, trt, phase)
    built = engine(trt, case, folder, "", phase)
    about = {"layers": built.layers, "nodes": built.nodes, "said": [*notes, *built.notes]}
    (folder / ABOUT).write_text(json.dumps(about))
    (folder / "ledger.json").write_text(json.dumps({"export": exported.seconds, "build": built.seconds}))


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """Proves the case to L5 for an architecture that the library builds for by name.

    For cuda:N, whose architecture nobody knows, it ends at L3. Raises Refusal where it goes no
    further.
    """
    trt = trt_engine.library()
    able = ", ".join(trt_engine.architectures(trt)) or "the GPU in the machine only"
    yield Proven("L0", f"{trt_engine.version(trt)} imports; it builds for {able}")
    if case.option("route", "onnx") == "torch":
        yield from torch_trt.verify(workload, case, phase)
        return
    with phase("export"):
        exported = export.export(workload, case, folder.parent)
    notes = ready(workload, case, exported, folder, trt, phase)
    model = folder / MODEL
    about = f"ONNX file, opset {export.opset(model)}, {model.stat().st_size:,} bytes"
    yield Proven("L1", "; ".join([about, *notes]))
    parts, refused = trt_engine.coverage(trt, folder / MODEL)
    if refused:
        raise Refusal(
            "unsupported_op",
            f"{trt_engine.version(trt)} takes not all of the graph ({parts} parts): operator"
            f" {', '.join(refused[:3])}",
        )
    yield Proven("L2", f"the parser takes the whole graph: {parts} part, so one engine and nothing beside it")
    yield Proven(
        "L3",
        "the ONNX file that the engine is built from, run on the CPU by ONNX Runtime" + _on_cpu_words(case),
        lowered=export.on_cpu(folder / MODEL),
    )
    if case.target.startswith("sm_"):
        yield _engine_proven(trt, case, folder, exported, phase)


def _engine_proven(trt: Any, case: Case, folder: Path, exported: export.Exported, phase: Phase) -> Proven:
    """Returns L5, an engine for the architecture that multiplies in the case's precision.

    Raises Refusal: what `engine` raises, and where most layers have another precision.
    """
    built = engine(trt, case, folder, case.target, phase)
    (folder / "ledger.json").write_text(json.dumps({"export": exported.seconds, "build": built.seconds}))
    placement = trt_engine.placement(case.precision, built.layers, built.nodes)
    if placement.wrong is not None:
        raise Refusal(placement.wrong.code, placement.wrong.detail)
    when = "" if built.fresh else ", earlier; from the cache"
    size = (folder / ENGINE).stat().st_size
    notes = [
        f"engine for {case.target} by {trt_engine.version(trt)}: {size:,} bytes, built in"
        f" {built.seconds:.2f} s on this machine's CPU{when}",
        f"shapes {shapes(built.profile)}",
        *built.notes,
    ]
    return Proven("L5", "; ".join(notes), completed(placement, notes, size))


def ready(
    workload: Workload, case: Case, exported: export.Exported, folder: Path, trt: Any, phase: Phase
) -> list[str]:
    """Puts the ONNX file into the case's folder, for int8 quantised; says what was done.

    tensorrt_rtx 1.6 has int8 products and no int8 convolutions (its compiler fails on them).
    """
    if case.precision != "int8":
        export.place(exported, folder)
        return []
    style = quantise.Style(
        signed=True, reduced=False, passing=False, convolutions=not trt.__name__.endswith("_rtx")
    )
    notes = []
    if not style.convolutions:
        notes.append(f"convolutions stay in fp32: {trt_engine.version(trt)} has none in int8")
    with phase("quantise"):
        ranges = calibration.calibration(workload)
        outcome = quantise.quantise(exported.folder / MODEL, folder / MODEL, ranges, style)
    return [*notes, str(outcome)]


@dataclass(frozen=True)
class Engine:
    """What is known of the engine in a case's folder."""

    # The builder's listing of its layers.
    layers: str
    # Nodes of the graph that it was made of.
    nodes: int
    # Input -> smallest, best and largest shape.
    profile: dict[str, tuple[tuple[int, ...], ...]]
    # What its build took when it was made.
    seconds: float
    # Whether that was now, not in an earlier build.
    fresh: bool
    # Why the cache was not used, where it might have been.
    notes: list[str]


def engine(trt: Any, case: Case, folder: Path, architecture: str, phase: Phase) -> Engine:
    """Puts an engine into the case's folder, out of the cache if it has the same.

    Raises Refusal: unsupported_op, unsupported_target, unsupported_precision, build_failed.
    """
    with phase("parse"):
        parsed = trt_engine.parse(trt, folder / MODEL, case.precision)
    profile = trt_engine.profile(parsed, case.batch, case.option("shapes", "fixed") == "dynamic")
    tf32 = case.precision == "tf32"
    key = engine_cache.Key(
        engine_cache.graph_digest(sorted(folder.glob(f"{MODEL}*"))),
        profile,
        case.precision,
        {"tf32": str(tf32)},
        trt_engine.version(trt),
        architecture or _device(case),
    )
    caching = case.option("cache", "on") == "on"
    cached, unused = engine_cache.get(key) if caching else (None, "")
    if cached is not None:
        (folder / ENGINE).write_bytes(cached.engine)
        return Engine(cached.entry.layers, parsed.nodes, profile, cached.entry.seconds, False, [])
    start = time.perf_counter()
    with phase("build"):
        plan = trt_engine.build(trt, parsed, architecture, profile, tf32)
    seconds, layers = time.perf_counter() - start, parsed.log.layers()
    (folder / ENGINE).write_bytes(plan)
    unstored = engine_cache.put(key, plan, seconds, layers) if caching else ""
    return Engine(
        layers, parsed.nodes, profile, seconds, True, [words for words in (unused, unstored) if words]
    )


def _device(case: Case) -> str:
    """Makes the case's GPU the current one, for which the library builds, and returns its name.

    An engine is tuned for the device it was built on.
    """
    import torch

    torch.cuda.set_device(case.target)
    major, minor = torch.cuda.get_device_capability(case.target)
    return f"sm_{major}{minor} {torch.cuda.get_device_name(case.target)}"


def shapes(profile: dict[str, tuple[tuple[int, ...], ...]]) -> str:
    """Returns smallest and largest shape of each input, in words."""
    limits = {
        name: dict.fromkeys("x".join(map(str, shape)) for shape in (smallest, largest))
        for name, (smallest, _, largest) in profile.items()
    }
    return ", ".join(f"{name} {' to '.join(names)}" for name, names in limits.items())


def completed(placement: Placement, notes: Sequence[str], size: int) -> Placement:
    """Returns a placement with the engine's size in bytes and what was noted on the way to it."""
    return msgspec.structs.replace(
        placement,
        evidence=(*notes, *placement.evidence),
        counters={**placement.counters, "engine_bytes": size},
    )


def _on_cpu_words(case: Case) -> str:
    """Returns in what ONNX Runtime's CPU provider computes otherwise, in words."""
    return {
        "fp16": ", which computes fp16 in fp32 between casts",
        "bf16": ", raised from bf16 to fp32 (weights stay rounded)",
    }.get(case.precision, "")


@dataclass(frozen=True)
class BoundArrays:
    """Inputs and outputs on the device, and the CUDA graph that was captured over them."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    graph: Any = None


@dataclass(frozen=True)
class Loaded:
    """What `placement` needs of an engine that was loaded.

    captured: one True for each CUDA graph.
    """

    engine: Any
    context: Any
    captured: list[bool]


def load(artefact: Artefact) -> Step:
    """Loads the engine, or compiles the module by torch_tensorrt.

    Raises Refusal: no_device, build_failed where the engine is not for this GPU or library.
    """
    import torch

    case = artefact.case
    if not torch.cuda.is_available():
        raise Refusal("no_device", f"{case.target}: torch {torch.__version__} sees no CUDA device")
    torch.cuda.set_device(case.target)
    stream = torch.cuda.Stream(case.target)  # type: ignore[no-untyped-call]
    torch.cuda.set_stream(stream)  # on the default one TensorRT synchronises more than once a call
    if case.option("route", "onnx") == "torch":
        return torch_trt.load(artefact)
    trt = trt_engine.library()
    log = trt_engine.Log(trt)
    about = _opened(trt, log, artefact.folder / ENGINE)
    engine, context = about.engine, about.context
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    ins = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outs = [name for name in names if name not in ins]
    dtypes = {name: _dtype(engine.get_tensor_dtype(name)) for name in names}
    graphs = case.option("cudagraph", "on") == "on"

    def launch(bound: BoundArrays) -> None:
        for name, tensor in zip([*ins, *outs], [*bound.inputs, *bound.outputs], strict=True):
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise Refusal("crashed", f"{trt_engine.version(trt)}: execute_async_v3 failed: {log.error()}")

    def place(arrays: Arrays) -> BoundArrays:
        """Copies through pinned memory and captures a CUDA graph.

        Each set of inputs has outputs and a CUDA graph of its own, so that inputs can rotate
        without copies.
        """
        pinned = [
            torch.tensor(array).to(dtypes[name]).pin_memory() for name, array in zip(ins, arrays, strict=True)
        ]
        inputs = tuple(tensor.to(case.target, non_blocking=True) for tensor in pinned)
        for name, tensor in zip(ins, inputs, strict=True):
            if not context.set_input_shape(name, tuple(tensor.shape)):
                raise Refusal(
                    "invalid_input",
                    f"the engine was not built for {name} of shape {tuple(tensor.shape)}; [shapes:dynamic]"
                    " builds for a range",
                )
        outputs = tuple(
            torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtypes[name], device=case.target)
            for name in outs
        )
        bound = BoundArrays(inputs, outputs)
        launch(bound)  # what is made lazily must not be made during the capture
        torch.cuda.synchronize(case.target)
        if not graphs:
            return bound
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(
            torch.cuda.current_stream().cuda_stream
        ):
            raise Refusal(
                "unsupported_op",
                f"{trt_engine.version(trt)} cannot put this engine's work into a CUDA graph;"
                " use [cudagraph:off]",
            )
        graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            launch(bound)
        about.captured.append(True)
        return replace(bound, graph=graph)

    def call(bound: BoundArrays) -> BoundArrays:
        if bound.graph is not None:
            bound.graph.replay()
        else:
            launch(bound)
        return bound

    def fetch(bound: BoundArrays) -> Arrays:
        from ..oracle import leaves

        pinned = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
            for tensor in bound.outputs
        ]
        torch.cuda.synchronize(case.target)
        return tuple(leaves.array(tensor) for tensor in pinned)

    return Step(call, place, fetch, lambda: torch.cuda.synchronize(case.target), about)


def _opened(trt: Any, log: trt_engine.Log, file: Path) -> Loaded:
    """Returns an engine with its execution context. Raises Refusal(build_failed)."""
    runtime = trt.Runtime(log.logger)
    engine = runtime.deserialize_cuda_engine(file.read_bytes())
    if engine is None:
        raise Refusal("build_failed", f"{trt_engine.version(trt)} does not load the engine: {log.error()}")
    context = _context(trt, engine)
    if context is None:
        raise Refusal(
            "build_failed",
            f"{trt_engine.version(trt)} makes no execution context of the engine: {log.error()}",
        )
    return Loaded(engine, context, [])


def _context(trt: Any, engine: Any) -> Any:
    """Returns an execution context that compiles for a new shape first, None where that fails.

    tensorrt_rtx would meet the shape with a fallback kernel and compile beside the calls; a CUDA
    graph would keep the fallback.
    """
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return engine.create_execution_context(config)


def _dtype(kind: Any) -> Any:
    """Returns torch's dtype for one of TensorRT's."""
    import torch

    kinds = {
        "FLOAT": torch.float32,
        "HALF": torch.float16,
        "BF16": torch.bfloat16,
        "INT64": torch.int64,
        "INT32": torch.int32,
        "INT8": torch.int8,
        "BOOL": torch.bool,
    }
    return kinds[kind.name]


def placement(artefact: Artefact, step: Step) -> Placement:
    """Returns the layers by kind and precision as the engine's own inspector lists them.

    And whether a CUDA graph was captured.
    """
    if artefact.case.option("route", "onnx") == "torch":
        return torch_trt.placement(artefact, step)
    trt = trt_engine.library()
    about = json.loads((artefact.folder / ABOUT).read_text())
    inspector = step.about.engine.create_engine_inspector()
    layers = "Layers:\n" + inspector.get_engine_information(trt.LayerInformationFormat.ONELINE)
    captured = f"CUDA graphs captured: {len(step.about.captured)}" if step.about.captured else "no CUDA graph"
    if not trt_engine.LAYER.search(layers):
        layers = about["layers"]
    ran = trt_engine.placement(artefact.case.precision, layers, about["nodes"])
    return completed(ran, [captured, *about["said"]], (artefact.folder / ENGINE).stat().st_size)
