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
# What a case's folder holds: where int8's ranges come from, and the caches of Inductor and Triton.
SOURCE = "calibration.txt"
CACHE = "inductor"


def SELF_CONTAINED(case: Case) -> bool:
    """Returns whether the folder is enough: a package runs without the model.

    What torch.compile leaves is a cache, and the module is traced again.
    """
    return case.option("package", "off") == "aoti"


def PRELOAD(case: Case) -> tuple[str, ...]:
    """Returns the modules to import before anything is timed; a package needs no compiler."""
    return ("torch",) if SELF_CONTAINED(case) else ("torch", "hotlap.perf.lowering.inductor")


def FIXED_BATCH(case: Case) -> bool:
    """Returns whether what was built takes the case's batch size only."""
    return SELF_CONTAINED(case) and case.option("dynamic", "off") == "off"


def instructions(case: Case, folder: Path) -> tuple[str, ...]:
    """Returns the instruction sets that the package in a folder may use, none without one."""
    return aoti.instructions(folder) if SELF_CONTAINED(case) else ()


# How a program without hotlap loads a package as it was measured, and calls it (choose/ship.py).
SCRIPT = f"""\
torch.set_num_threads(launch["threads"])
package = torch._inductor.aoti_load_package(str(folder / {aoti.FILE!r}))


def placed(array):
    value = torch.from_numpy(array)
    if value.is_floating_point():
        value = value.to(getattr(torch, launch["dtype"]))
    channels_last = launch["channels_last"] and value.ndim == 4
    return value.contiguous(memory_format=torch.channels_last) if channels_last else value


def predict(*arrays):
    with torch.inference_mode():
        outputs = package(*map(placed, arrays))
    leaves = torch.utils._pytree.tree_leaves(outputs)
    return [(value.float() if value.is_floating_point() else value).numpy() for value in leaves]
"""


def launched(case: Case) -> dict[str, Any]:
    """Returns what SCRIPT reads besides threads."""
    dtypes = {"bf16": "bfloat16", "fp16": "float16"}
    return {
        "dtype": dtypes.get(case.precision, "float32"),
        "channels_last": case.option("layout", "contiguous") == "channels-last",
    }


variables = eager.variables
profile = eager.profile


def available(target: str) -> Reason | None:
    """Returns what is missing for it: a C++ compiler, Python's headers, torch or the device."""
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
    """Returns what the case's precision and options rule out, None where nothing is."""
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
    """Compiles into the folder: a package, or the cache that `load` starts from.

    Raises Refusal: what torch_step.prepare raises; unsupported_op (nothing to compile regionally,
    or no dynamic batch); export_failed; build_failed.
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
            ranges = calibration(workload)
            source = ranges.source
            batches = (torch_step.tensors(case).place(arrays) for arrays in ranges.batches)
            pt2e.calibrate(_exported(workload, case), batches, folder)
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
    """Loads what was built. The first call compiles, from the folder, without a pool of processes.

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
    """Returns what dynamo and Inductor did since `load`.

    Graphs from the cache count like fresh ones, their kernels too.
    """
    case, about = artefact.case, step.about
    if about.package is not None:
        ran = aoti.placement(case, artefact.folder, about.package)
    else:
        ran = _traced(case, about)
        if case.precision == "int8":
            source = (artefact.folder / SOURCE).read_text()
            ran = pt2e.judged(generated.here(), about.layers, ran, source)
    return _resized(ran, case, step)


def _traced(case: Case, about: Compiled) -> Placement:
    """Returns what dynamo's and Inductor's own counters say, and the generated code."""
    from torch._dynamo.utils import counters
    from torch._inductor import metrics

    stats, breaks, inductor = counters["stats"], counters["graph_break"], counters["inductor"]
    counts = {
        "graphs": stats["unique_graphs"],
        "graph_breaks": sum(breaks.values()),
        "generated_kernels": metrics.generated_kernel_count,
    }
    evidence = [f"graph break, {count} x: {' '.join(reason.split())}" for reason, count in breaks.items()]
    partial = ""
    if evidence:
        partial = f"what lies between {stats['unique_graphs']} graphs ran in eager: {evidence[0][:300]}"
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
        why = f"{next(iter(breaks)).splitlines()[0]}; " if breaks else ""
        wrong = Reason(
            "unsupported_op",
            f"dynamo compiled nothing of {case.workload}; all of it ran in eager: {why}"
            "TORCH_LOGS=graph_breaks shows the line",
        )
    where = f"inductor on {case.target}"
    return Placement(where, {where: stats["calls_captured"]}, counts, tuple(evidence), wrong, partial)


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """Proves the case for a GPU that is not here, up to L5 (proofs.py)."""
    from ..lowering import proofs

    yield from proofs.compiled(workload, case, folder, phase)


@dataclass(frozen=True)
class Compiled:
    """What `placement` needs to know of a step."""

    # A batch as the case has it.
    inputs: Arrays
    # dynamo's ids (`frame/attempt`) since load, one for each compilation; attempt 0 is the first of
    # its code.
    compilations: list[str] = field(default_factory=list)
    # Parameters and buffers of the module.
    parameters: int = 0
    # int8: linear and convolution layers that could run in it.
    layers: int = 0
    # Under autocast: operators of dynamo's graphs by dtype.
    dtypes: Counter[str] = field(default_factory=Counter)
    # What is known of the package; None without one.
    package: aoti.Package | None = None

    @property
    def recompiles(self) -> int:
        """How often code that was compiled before was compiled again."""
        return sum(not name.endswith("/0") for name in self.compilations)


def _resized(ran: Placement, case: Case, step: Step) -> Placement:
    """Returns a placement with how often code was compiled again.

    A step with a dynamic batch is called with two other sizes first, for which nothing may be
    compiled again.
    """
    about, wrong, evidence = step.about, ran.wrong, ran.evidence
    if case.option("dynamic", "off") == "on":
        sizes = [case.batch + more for more in OTHER_BATCHES]
        for size in sizes:
            step.call(step.place(tuple(value.take(range(size), 0, mode="wrap") for value in about.inputs)))
            step.synchronize()
        rows = " and ".join(map(str, sizes))
        called = f"dynamic batch: called with {rows} rows too, {about.recompiles} recompilations"
        evidence = (*evidence, called)
        if about.recompiles and wrong is None:
            wrong = Reason(
                "unsupported_op",
                f"dynamic:on: {case.workload} was compiled again {about.recompiles} times for {rows} rows:"
                " it is made for one batch size",
            )
    counters = {**ran.counters, "recompiles": about.recompiles}
    return msgspec.structs.replace(ran, counters=counters, evidence=evidence, wrong=wrong)


def _captured(case: Case) -> int:
    """Returns how many CUDA graphs Inductor holds for the device: the nodes of its trees."""
    from torch._inductor import cudagraph_trees

    manager: Any = cudagraph_trees.get_manager(int(case.target[5:]), create_if_none_exists=False)
    left = [] if manager is None else [node for nodes in manager.roots.values() for node in nodes]
    count = 0
    while left:
        count += 1
        left += [node for nodes in left.pop().children.values() for node in nodes]
    return count


def _loaded(case: Case, folder: Path) -> Step:
    """Returns the step of a package, without workload and dynamo."""
    form = torch_step.tensors(case)
    function, package = aoti.load(folder, case.target)
    about = Compiled(aoti.inputs(folder), package=package)
    step = torch_step.step(form, function, about)
    if case.option("dynamic", "off") == "on":
        return step

    def place(arrays: Arrays) -> Any:
        if len(arrays[0]) != case.batch:
            raise Refusal(
                "invalid_input",
                f"the package was made for a batch of {case.batch}, not {len(arrays[0])}; use [dynamic:on]",
            )
        return form.place(arrays)

    return replace(step, place=place)


def _folders(folder: Path) -> None:
    """Sets the folders of the caches, which Inductor takes from the environment.

    Absolute, as Inductor starts the C++ compiler in another directory (torch 2.9).
    """
    cache = folder.absolute() / CACHE
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    os.environ["TRITON_CACHE_DIR"] = str(cache / "triton")


def _exported(workload: Workload, case: Case, folder: Path | None = None) -> torch.export.ExportedProgram:
    """Returns the program of a case, of int8 the quantised one once the folder has its ranges."""
    prepared, dynamic = torch_step.prepare(workload, case), case.option("dynamic", "off") == "on"
    inputs = prepared.place(prepared.inputs)
    program = aoti.exported(prepared.module, inputs, dynamic)
    if case.precision == "int8" and folder is not None:
        return aoti.exported(pt2e.converted(program, folder), inputs, dynamic)
    return program


def _compiled(workload: Workload, case: Case, folder: Path) -> Step:
    """Returns a step whose module, or its blocks, compile at the first call."""
    import torch
    import torch._dynamo.callback
    import torch._inductor.config
    import torch._inductor.metrics
    import torch.fx.experimental._config

    _folders(folder)
    torch._inductor.config.freezing = aoti.frozen(case)
    dynamic = case.option("dynamic", "off") == "on"
    torch.fx.experimental._config.backed_size_oblivious = dynamic  # else a batch of 1 would be a constant
    _stable_keys()
    prepared = torch_step.prepare(workload, case)
    function: Callable[..., Any] = prepared.module
    parameters = sum(1 for _ in (*prepared.module.parameters(), *prepared.module.buffers()))
    layers = 0
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
    """Returns a `place` whose inputs have a symbol for the batch, if it can be one.

    Where it cannot, other sizes are compiled again, and counted.
    """
    import torch

    def marked(arrays: Arrays) -> Any:
        placed = place(arrays)
        for value in placed:
            torch._dynamo.maybe_mark_dynamic(value, 0)
        return placed

    return marked


def _counting(dtypes: Counter[str], mode: str) -> Any:
    """Returns Inductor as a backend that first counts the dtypes in each of dynamo's graphs."""
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
    """Makes pickles name dtypes and memory formats by torch alone (see above)."""
    import torch

    for kind in (torch.dtype, torch.memory_format):
        copyreg.pickle(kind, lambda value: (_named, (str(value).removeprefix("torch."),)))


def _named(name: str) -> Any:
    """Returns torch's own object of a name, for the pickles above."""
    import torch

    return getattr(torch, name)


def _new_step(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that says when a call begins.

    CUDA graphs may then reuse the memory of the outputs of the call before.
    """
    import torch

    def call(*inputs: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return function(*inputs)

    return call
