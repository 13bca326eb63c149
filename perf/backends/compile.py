"""torch.compile with Inductor: traced by dynamo, lowered to C++ on the CPU and to Triton on CUDA.

`build` compiles once, cold, into the case's folder; `load` in a later process finds the generated
code there and pays for dynamo's trace and the loading only. With freezing on the CPU, Inductor
cannot store its graphs (its reason: "mkldnn tensors unpickleable"), so a later process lowers again
and only the C++ compiler's work is saved. package:aoti is the way out of both: one file, no trace
(aoti.py).

The cache's keys are pickles, and pickle names a dtype or a memory format after the first module in
sys.modules that holds it: the order of imports, different in the process that builds, would change
every key (seen with torch 2.14.1). `_stable_keys` names them itself.

Shapes are static: another batch size than the case's is a recompilation, counted as such. With
dynamic:on the batch is a symbol, and two other batch sizes must find the code of the first. int8
(on the CPU) is quantised by PT2E (pt2e.py).
"""

from __future__ import annotations

import copyreg
import os
import shutil
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..lowering import aoti, generated, pt2e, regional, torch_step
from ..lowering.calibration import calibration
from ..terms.case import Case, Workload
from ..terms.contract import Arrays, Artefact, Phase, Proven, Step
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement
from . import eager

if TYPE_CHECKING:
    import torch

SUMMARY = "torch.compile with Inductor, or AOTInductor's package"
OPTIONS = {
    "mode": ("default", "reduce-overhead", "max-autotune"),
    "package": ("off", "aoti"),
    "freezing": ("off", "on"),
    "dynamic": ("off", "on"),
    "regional": ("off", "on"),
    **eager.OPTIONS,
}
# How many rows more than the case's batch the two calls have that prove a dynamic batch.
OTHER_BATCHES = (1, 3)
SOURCE, CACHE = "calibration.txt", "inductor"


def SELF_CONTAINED(case: Case) -> bool:
    """A package runs without the model; what torch.compile leaves is a cache, and the module is
    traced again.
    """
    return case.option("package", "off") == "aoti"


def PRELOAD(case: Case) -> tuple[str, ...]:
    return ("torch",) if SELF_CONTAINED(case) else ("torch", "hotlap.perf.lowering.inductor")


def FIXED_BATCH(case: Case) -> bool:
    return SELF_CONTAINED(case) and case.option("dynamic", "off") == "off"


variables = eager.variables
profile = eager.profile


def available(target: str) -> Reason | None:
    compiler = os.environ.get("CXX", "g++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which(compiler) is None:
        return Reason(
            "dep_missing",
            f"Inductor needs a C++ compiler and {compiler} is not on the PATH: apt-get install g++, or"
            " set CXX",
        )
    if not header.is_file():
        return Reason(
            "dep_missing",
            f"Inductor needs Python's headers and {header} is missing: apt-get install python3-dev",
        )
    return eager.available(target)


def supports(case: Case) -> Reason | None:
    if case.option("dynamic", "off") == "on" and case.option("regional", "off") == "on":
        return Reason(
            "unsupported_op",
            "dynamic:on marks the batch of the model's inputs and regional compiles blocks inside: drop one"
            " of the two",
        )
    if case.precision == "int8":
        return pt2e.supports(case) or aoti.supports(case) or eager.supports(replace(case, precision="fp32"))
    return aoti.supports(case) or eager.supports(case)


def build(workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
    """Raises Refusal: what torch_step.prepare raises; unsupported_op (nothing to compile
    regionally, or no dynamic batch); export_failed; build_failed.
    """
    import torch
    import torch._inductor.compile_fx

    if case.option("dynamic", "off") == "on" and not workload.dynamic:
        raise Refusal(
            "unsupported_op",
            f"dynamic:on: {workload.name} has a fixed batch of {len(workload.inputs[0])}; use [dynamic:off]",
        )
    _folders(folder)
    source = ""
    if case.precision == "int8":
        with phase("calibrate"):
            found = calibration(workload)
            source = found.source
            pt2e.calibrate(
                _exported(workload, case),
                (torch_step.tensors(case).place(arrays) for arrays in found.batches),
                folder,
            )
    if case.option("package", "off") == "aoti":
        with phase("export"):
            program = _exported(workload, case, folder)
        with phase("compile"):
            aoti.build(program, workload, case, folder, source)
        shutil.rmtree(folder / CACHE, ignore_errors=True)  # the package holds what is needed of it
        return
    (folder / SOURCE).write_text(source)
    step = _compiled(workload, case, folder)
    with phase("compile"):
        try:
            step.call(step.place(step.about.inputs))
        except torch._dynamo.exc.TorchDynamoException as error:
            raise Refusal("build_failed", pt2e.innermost(error)) from error
        step.synchronize()


def load(artefact: Artefact) -> Step:
    """The first call compiles: from the folder of the case, without a pool of compiler processes.

    A package is loaded as it is. Raises Refusal(build_failed).
    """
    import torch

    torch.set_num_threads(artefact.threads)
    if artefact.case.option("package", "off") == "aoti":
        return _loaded(artefact.case, artefact.folder)
    import torch._inductor.config

    torch._inductor.config.compile_threads = 1
    return _compiled(artefact.workload(), artefact.case, artefact.folder)


def placement(artefact: Artefact, step: Step) -> Placement:
    """What dynamo and Inductor did since `load`.

    Graphs from the cache count like fresh ones, their kernels too.
    """
    case, about = artefact.case, step.about
    if about.package is not None:
        return _resized(aoti.placement(case, artefact.folder, about.package), case, step)
    from torch._dynamo.utils import counters
    from torch._inductor import metrics

    stats, breaks, inductor = counters["stats"], counters["graph_break"], counters["inductor"]
    counts = {
        "graphs": stats["unique_graphs"],
        "graph_breaks": sum(breaks.values()),
        "generated_kernels": metrics.generated_kernel_count,
    }
    evidence = [f"graph break, {count} x: {' '.join(reason.split())}" for reason, count in breaks.items()]
    partial = (
        f"what lies between {stats['unique_graphs']} graphs ran in eager: {evidence[0][:300]}"
        if evidence
        else ""
    )
    evidence.append(
        f"Inductor's cache: {inductor['fxgraph_cache_hit']} hits, {inductor['fxgraph_cache_miss']} misses, "
        f"{inductor['fxgraph_cache_bypass']} graphs it cannot store"
    )
    wrong, code = None, generated.here()
    if aoti.frozen(case):
        evidence.append(generated.frozen(code, about.parameters))
        wrong = None if code.constants else Reason("unsupported_op", evidence[-1])
    mode = case.option("mode", "default")
    if mode == "max-autotune" and case.target == "cpu":
        evidence.append(generated.chosen(code, aoti.frozen(case)))
    if mode == "reduce-overhead" and case.target == "cpu":
        evidence.append("mode reduce-overhead is CUDA graphs; on cpu it does what mode default does")
    elif mode != "default" and case.target != "cpu":
        skips, captured = inductor["cudagraph_skips"], _captured(case)
        counts |= {"cuda_graphs": captured, "cuda_graphs_skipped": skips}
        evidence.append(f"CUDA graphs: {captured} captured, {skips} skipped")
        if mode == "reduce-overhead" and (skips or not captured):
            wrong = Reason(
                "unsupported_op",
                f"{skips} graphs ran without the CUDA graph that mode reduce-overhead asks for, {captured}"
                " were captured",
            )
    if about.dtypes:
        evidence.append(torch_step.by_dtype(case, about.dtypes))
    if not counts["graphs"]:
        wrong = Reason(
            "unsupported_op", f"dynamo compiled nothing of {case.workload}; all of it ran in eager"
        )
    where = f"inductor on {case.target}"
    found = Placement(where, {where: stats["calls_captured"]}, counts, tuple(evidence), wrong, partial)
    if case.precision == "int8":
        found = pt2e.judged(code, about.layers, found, (artefact.folder / SOURCE).read_text())
    return _resized(found, case, step)


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    from ..lowering.proofs import compiled

    yield from compiled(workload, case, folder, phase)


@dataclass(frozen=True)
class Compiled:
    """inputs: a batch as the case has it.

    compilations: dynamo's ids (`frame/attempt`) since load, one for each compilation; attempt 0 is
    the first of its code.

    parameters: of the module, with buffers. layers: of int8. dtypes: operators of dynamo's graphs
    by dtype, under autocast.
    """

    inputs: Arrays
    compilations: list[str] = field(default_factory=list)
    parameters: int = 0
    layers: int = 0
    dtypes: Counter[str] = field(default_factory=Counter)
    package: aoti.Package | None = None

    @property
    def recompiles(self) -> int:
        return sum(not name.endswith("/0") for name in self.compilations)


def _resized(found: Placement, case: Case, step: Step) -> Placement:
    """With the recompilations until now; of a dynamic batch also those for two other sizes, of
    which there must be none.
    """
    about, wrong, evidence = step.about, found.wrong, found.evidence
    if case.option("dynamic", "off") == "on":
        sizes = [case.batch + more for more in OTHER_BATCHES]
        for size in sizes:
            step.call(step.place(tuple(value.take(range(size), 0, mode="wrap") for value in about.inputs)))
            step.synchronize()
        evidence = (
            *evidence,
            (
                f"dynamic batch: called with {' and '.join(map(str, sizes))} rows too, {about.recompiles}"
                " recompilations"
            ),
        )
        if about.recompiles and wrong is None:
            wrong = Reason(
                "unsupported_op",
                f"dynamic:on: {case.workload} was compiled again {about.recompiles} times for"
                f" {' and '.join(map(str, sizes))} rows: it is made for one batch size",
            )
    return msgspec.structs.replace(
        found, counters={**found.counters, "recompiles": about.recompiles}, evidence=evidence, wrong=wrong
    )


def _captured(case: Case) -> int:
    """CUDA graphs that Inductor holds for the device: its trees of them, node by node."""
    from torch._inductor import cudagraph_trees

    manager: Any = cudagraph_trees.get_manager(int(case.target[5:]), create_if_none_exists=False)
    left = [] if manager is None else [node for nodes in manager.roots.values() for node in nodes]
    count = 0
    while left:
        count += 1
        left += [node for nodes in left.pop().children.values() for node in nodes]
    return count


def _loaded(case: Case, folder: Path) -> Step:
    """A package: no workload, no dynamo."""
    made = torch_step.tensors(case)
    function, package = aoti.load(folder, case.target)
    about = Compiled(aoti.inputs(folder), package=package)
    step = torch_step.step(made, function, about)
    if case.option("dynamic", "off") == "on":
        return step

    def place(arrays: Arrays) -> Any:
        if len(arrays[0]) != case.batch:
            raise Refusal(
                "invalid_input",
                f"the package was made for a batch of {case.batch}, not {len(arrays[0])}; use [dynamic:on]",
            )
        return made.place(arrays)

    return replace(step, place=place)


def _folders(folder: Path) -> None:
    """Environment variables: Inductor reads its folders there at the first compilation."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / CACHE)
    os.environ["TRITON_CACHE_DIR"] = str(folder / CACHE / "triton")


def _exported(workload: Workload, case: Case, folder: Path | None = None) -> torch.export.ExportedProgram:
    """The program of a case; of int8 the quantised one once its ranges are in the folder."""
    prepared, dynamic = torch_step.prepare(workload, case), case.option("dynamic", "off") == "on"
    inputs = prepared.place(prepared.inputs)
    program = aoti.exported(prepared.module, inputs, dynamic)
    if case.precision == "int8" and folder is not None:
        return aoti.exported(pt2e.converted(program, folder), inputs, dynamic)
    return program


def _compiled(workload: Workload, case: Case, folder: Path) -> Step:
    """Marks what is to be compiled."""
    import torch
    import torch._dynamo.callback
    import torch._inductor.config
    import torch._inductor.metrics
    import torch.fx.experimental._config as shapes

    _folders(folder)
    torch._inductor.config.freezing = aoti.frozen(case)
    dynamic = case.option("dynamic", "off") == "on"
    shapes.backed_size_oblivious = dynamic  # else a batch of 1 would be a constant
    _stable_keys()
    prepared = torch_step.prepare(workload, case)
    function: Callable[..., Any] = prepared.module
    parameters, layers = sum(1 for _ in (*prepared.module.parameters(), *prepared.module.buffers())), 0
    if case.precision == "int8":
        graph = pt2e.converted(_exported(workload, case), folder)
        function, layers = graph, pt2e.layers(graph)
    about = Compiled(prepared.inputs, parameters=parameters, layers=layers)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch._inductor.metrics.reset()
    generated.forget()
    torch._dynamo.callback.on_compile_end(lambda event: about.compilations.append(event.compile_id))
    mode = case.option("mode", "default")
    how: dict[str, Any] = {"mode": mode}
    if case.option("autocast", "off") == "on":
        how = {"backend": _counting(about.dtypes, mode)}
    if case.option("regional", "off") == "on":
        for block in regional.blocks(prepared.module, workload.name):
            block.compile(dynamic=False, **how)
    else:
        function = torch.compile(function, dynamic=None if dynamic else False, **how)
    step = torch_step.step(
        prepared,
        _new_step(function) if mode == "reduce-overhead" and case.target != "cpu" else function,
        about,
    )
    return replace(step, place=_marked(step.place)) if dynamic else step


def _marked(place: Callable[[Arrays], Any]) -> Callable[[Arrays], Any]:
    """Inputs whose batch is a symbol if it can be one; where it cannot, other sizes are compiled
    again, and counted.
    """
    import torch

    def marked(arrays: Arrays) -> Any:
        placed = place(arrays)
        for value in placed:
            torch._dynamo.maybe_mark_dynamic(value, 0)
        return placed

    return marked


def _counting(dtypes: Counter[str], mode: str) -> Any:
    """Inductor, which first counts what the operators of each of dynamo's graphs return."""
    import torch

    class Counting(torch._TorchCompileInductorWrapper):
        def __call__(self, model_: Any, inputs_: Any, *, config_patches: dict[str, Any] | None = None) -> Any:
            values = [
                node.meta.get("example_value")
                for node in model_.graph.nodes
                if node.op in ("call_function", "call_method", "call_module")
            ]
            dtypes.update(torch_step.name_of(value) for value in values if isinstance(value, torch.Tensor))
            return super().__call__(model_, inputs_, config_patches=config_patches)

    return Counting(mode, None, False)


def _stable_keys() -> None:
    import torch

    for kind in (torch.dtype, torch.memory_format):
        copyreg.pickle(kind, lambda value: (_named, (str(value).removeprefix("torch."),)))


def _named(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _new_step(function: Callable[..., Any]) -> Callable[..., Any]:
    """CUDA graphs may then reuse the memory of the outputs of the call before."""
    import torch

    def call(*inputs: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return function(*inputs)

    return call
