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
PRELOAD = ("torch",)
TARGETS = ("cuda", "sm_")

MODEL, ENGINE, ABOUT = "model.onnx", "engine.plan", "engine.json"


def SELF_CONTAINED(case: Case) -> bool:
    """An engine runs by itself; torch_tensorrt compiles the module anew."""
    return case.option("route", "onnx") == "onnx"


def FIXED_BATCH(case: Case) -> bool:
    return case.option("shapes", "fixed") == "fixed"


def available(target: str) -> Reason | None:
    if target == "cpu":
        return Reason(
            "unsupported_target",
            "TensorRT runs on NVIDIA GPUs; --target sm_89 builds an engine for one that is not here",
        )
    if not trt_engine.installed():
        return Reason("dep_missing", f"neither tensorrt nor tensorrt_rtx is installed: {trt_engine.REMEDY}")
    return present.no_device(target)


def supports(case: Case) -> Reason | None:
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
    return {}


def build(workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
    """Raises Refusal: export_failed, unsupported_op, unsupported_precision, build_failed."""
    trt = trt_engine.library()
    if case.option("route", "onnx") == "torch":
        return  # compiled by load, in the process that runs it
    with phase("export"):
        exported = export.export(workload, case, folder.parent)
    said = ready(workload, case, exported, folder, trt, phase)
    made = engine(trt, case, folder, "", phase)
    (folder / ABOUT).write_text(
        json.dumps({"layers": made.layers, "nodes": made.nodes, "said": [*said, *made.said]})
    )
    (folder / "ledger.json").write_text(json.dumps({"export": exported.seconds, "build": made.seconds}))


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """To L5 for an architecture that the library builds for by name; for cuda:N, whose architecture
    nobody knows, to L3.
    """
    trt = trt_engine.library()
    yield Proven(
        "L0",
        f"{trt_engine.version(trt)} imports; it builds for"
        f" {', '.join(trt_engine.architectures(trt)) or 'the GPU in the machine only'}",
    )
    if case.option("route", "onnx") == "torch":
        yield from torch_trt.verify(workload, case, phase)
        return
    with phase("export"):
        exported = export.export(workload, case, folder.parent)
    said = ready(workload, case, exported, folder, trt, phase)
    yield Proven(
        "L1",
        "; ".join(
            [
                f"ONNX file, opset {export.opset(folder / MODEL)}, {(folder / MODEL).stat().st_size:,} bytes",
                *said,
            ]
        ),
    )
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
        lowered=export.on_cpu(folder / MODEL, case.batch),
    )
    if not case.target.startswith("sm_"):
        return
    made = engine(trt, case, folder, case.target, phase)
    (folder / "ledger.json").write_text(json.dumps({"export": exported.seconds, "build": made.seconds}))
    placement = trt_engine.placement(case.precision, made.layers, made.nodes)
    took = f"{made.seconds:.2f} s on this machine's CPU" + ("" if made.fresh else ", earlier; from the cache")
    size = (folder / ENGINE).stat().st_size
    said = [
        f"engine for {case.target} by {trt_engine.version(trt)}: {size:,} bytes, built in {took}",
        f"shapes {shapes(made.profile)}",
        *made.said,
    ]
    if placement.wrong is not None:
        raise Refusal(placement.wrong.code, placement.wrong.detail)
    yield Proven("L5", "; ".join(said), completed(placement, said, (folder / ENGINE).stat().st_size))


def ready(
    workload: Workload, case: Case, exported: export.Exported, folder: Path, trt: Any, phase: Phase
) -> list[str]:
    """Puts the ONNX file into the case's folder, for int8 quantised. tensorrt_rtx 1.6 has int8
    products and no int8 convolutions (its compiler fails on them).
    """
    if case.precision != "int8":
        export.place(exported, folder)
        return []
    style = quantise.Style(
        signed=True, reduced=False, passing=False, convolutions=not trt.__name__.endswith("_rtx")
    )
    beside = (
        []
        if style.convolutions
        else [f"convolutions stay in fp32: {trt_engine.version(trt)} has none in int8"]
    )
    with phase("quantise"):
        return [
            *beside,
            str(
                quantise.quantise(
                    exported.folder / MODEL, folder / MODEL, calibration.calibration(workload), style
                )
            ),
        ]


@dataclass(frozen=True)
class Engine:
    """In the case's folder.

    seconds: what its build took when it was made; fresh: that was now. said: what the cache has to
    say.
    """

    layers: str
    nodes: int
    profile: dict[str, tuple[tuple[int, ...], ...]]
    seconds: float
    fresh: bool
    said: list[str]


def engine(trt: Any, case: Case, folder: Path, architecture: str, phase: Phase) -> Engine:
    """Raises Refusal: unsupported_op, unsupported_target, unsupported_precision, build_failed."""
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
    cached, said = engine_cache.get(key) if case.option("cache", "on") == "on" else (None, "")
    if cached is not None:
        (folder / ENGINE).write_bytes(cached.engine)
        return Engine(cached.entry.layers, parsed.nodes, profile, cached.entry.seconds, False, [])
    start = time.perf_counter()
    with phase("build"):
        made = trt_engine.build(trt, parsed, architecture, profile, tf32)
    seconds, layers = time.perf_counter() - start, parsed.log.layers()
    (folder / ENGINE).write_bytes(made)
    stored = engine_cache.put(key, made, seconds, layers) if case.option("cache", "on") == "on" else ""
    return Engine(layers, parsed.nodes, profile, seconds, True, [words for words in (said, stored) if words])


def _device(case: Case) -> str:
    """The GPU that is here, from now on the current one, for which the library builds: an engine is
    tuned for the device it was built on.
    """
    import torch

    torch.cuda.set_device(case.target)
    major, minor = torch.cuda.get_device_capability(case.target)
    return f"sm_{major}{minor} {torch.cuda.get_device_name(case.target)}"


def shapes(profile: dict[str, tuple[tuple[int, ...], ...]]) -> str:
    return ", ".join(
        f"{name} {' to '.join(dict.fromkeys('x'.join(map(str, shape)) for shape in (sizes[0], sizes[2])))}"
        for name, sizes in profile.items()
    )


def completed(placement: Placement, said: Sequence[str], size: int) -> Placement:
    """With the size of the engine in bytes, and what was said on the way to it."""
    import msgspec

    return msgspec.structs.replace(
        placement,
        evidence=(*said, *placement.evidence),
        counters={**placement.counters, "engine_bytes": size},
    )


def _on_cpu_words(case: Case) -> str:
    return {
        "fp16": ", which computes fp16 in fp32 between casts",
        "bf16": ", raised from bf16 to fp32 (weights stay rounded)",
    }.get(case.precision, "")


@dataclass(frozen=True)
class Bound:
    """Inputs and outputs on the device, and the CUDA graph that was captured over them."""

    inputs: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    graph: Any = None


@dataclass(frozen=True)
class Loaded:
    """What `placement` needs."""

    engine: Any
    context: Any
    captured: list[bool]
    inputs: Any = None


def load(artefact: Artefact) -> Step:
    """Raises Refusal: no_device, build_failed where the engine is not for this GPU or library."""
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
    runtime = trt.Runtime(log.logger)
    found = runtime.deserialize_cuda_engine((artefact.folder / ENGINE).read_bytes())
    if found is None:
        raise Refusal("build_failed", f"{trt_engine.version(trt)} does not load the engine: {log.error()}")
    context = _context(trt, found)
    if context is None:
        raise Refusal(
            "build_failed",
            f"{trt_engine.version(trt)} makes no execution context of the engine: {log.error()}",
        )
    about = Loaded(found, context, [])
    names = [found.get_tensor_name(at) for at in range(found.num_io_tensors)]
    ins = [name for name in names if found.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outs = [name for name in names if name not in ins]
    dtypes = {name: _dtype(trt, found.get_tensor_dtype(name)) for name in names}
    graphs = case.option("cudagraph", "on") == "on"

    def launch(bound: Bound) -> None:
        for name, tensor in zip([*ins, *outs], [*bound.inputs, *bound.outputs], strict=True):
            context.set_tensor_address(name, tensor.data_ptr())
        if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise Refusal("crashed", f"{trt_engine.version(trt)}: execute_async_v3 failed: {log.error()}")

    def place(arrays: Arrays) -> Bound:
        """Through pinned memory.

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
        bound = Bound(inputs, outputs)
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

    def call(bound: Bound) -> Bound:
        if bound.graph is not None:
            bound.graph.replay()
        else:
            launch(bound)
        return bound

    def fetch(bound: Bound) -> Arrays:
        pinned = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
            for tensor in bound.outputs
        ]
        torch.cuda.synchronize(case.target)
        return tuple(tensor.float().numpy().copy() for tensor in pinned)

    return Step(call, place, fetch, lambda: torch.cuda.synchronize(case.target), about)


def _context(trt: Any, engine: Any) -> Any:
    """tensorrt_rtx meets a new shape with a fallback kernel and compiles beside the calls; a CUDA
    graph would keep the fallback. Here it compiles first. None where it fails.
    """
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        return engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return engine.create_execution_context(config)


def _dtype(trt: Any, kind: Any) -> Any:
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
    """Layers by kind and precision as the engine's own inspector lists them, and whether a CUDA
    graph was captured.
    """
    if artefact.case.option("route", "onnx") == "torch":
        return torch_trt.placement(artefact, step)
    trt = trt_engine.library()
    about = json.loads((artefact.folder / ABOUT).read_text())
    inspector = step.about.engine.create_engine_inspector()
    layers = "Layers:\n" + inspector.get_engine_information(trt.LayerInformationFormat.ONELINE)
    captured = f"CUDA graphs captured: {len(step.about.captured)}" if step.about.captured else "no CUDA graph"
    found = trt_engine.placement(
        artefact.case.precision,
        layers if trt_engine.LAYER.search(layers) else about["layers"],
        about["nodes"],
    )
    return completed(found, [captured, *about["said"]], (artefact.folder / ENGINE).stat().st_size)
