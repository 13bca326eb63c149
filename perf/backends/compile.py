"""torch.compile with Inductor: traced by dynamo, lowered to C++ on the CPU and to Triton on CUDA.

`build` compiles once, cold, into the case's folder; `load` in a later process finds the generated code there and pays for dynamo's
trace and the loading only. With freezing on the CPU, Inductor cannot store its graphs (its reason: "mkldnn tensors unpickleable"), so
a later process lowers again and only the C++ compiler's work is saved.

The cache's keys are pickles, and pickle names a dtype or a memory format after the first module in sys.modules that holds it: the order
of imports, different in the process that builds, would change every key (seen with torch 2.14.1). `_stable_keys` names them itself.

Shapes are static: another batch size than the case's is a recompilation, counted as such.
"""

from __future__ import annotations

import copyreg
import os
import shutil
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..case import Case, Workload
from ..reasons import Reason, Refusal
from ..result import Placement
from . import Artefact, Phase, Step, eager

if TYPE_CHECKING:
    import torch

SUMMARY = "torch.compile with Inductor"
OPTIONS = {
    "mode": ("default", "reduce-overhead", "max-autotune"),
    "freezing": ("off", "on"),
    "regional": ("off", "on"),
    **eager.OPTIONS,
}
PRELOAD = ("torch", f"{__package__}._inductor")
# What Inductor leaves is a cache; the module itself is traced again.
SELF_CONTAINED = False

supports = eager.supports
variables = eager.variables
profile = eager.profile


def available(target: str) -> Reason | None:
    compiler = os.environ.get("CXX", "g++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which(compiler) is None:
        return Reason("dep_missing", f"Inductor needs a C++ compiler and {compiler} is not on the PATH: apt-get install g++, or set CXX")
    if not header.is_file():
        return Reason("dep_missing", f"Inductor needs Python's headers and {header} is missing: apt-get install python3-dev")
    return eager.available(target)


def build(workload: Workload, case: Case, folder: Path, phase: Phase) -> None:
    """Raises Refusal: what eager.prepare raises; unsupported_op (nothing to compile regionally); build_failed."""
    import torch
    import torch._inductor.compile_fx

    step = _compiled(workload, case, folder)
    with phase("compile"):
        try:
            step.call(step.place(step.about.prepared.inputs))
        except torch._dynamo.exc.TorchDynamoException as error:
            raise Refusal("build_failed", _innermost(error)) from error
        step.synchronize()


def load(artefact: Artefact) -> Step:
    """The first call compiles: from the folder of the case, without a pool of compiler processes."""
    import torch
    import torch._inductor.config

    torch.set_num_threads(artefact.threads)
    torch._inductor.config.compile_threads = 1
    return _compiled(artefact.workload(), artefact.case, artefact.folder)


def placement(artefact: Artefact, step: Step) -> Placement:
    """What dynamo and Inductor did since `load`. Graphs from the cache count like fresh ones, their kernels too."""
    from torch._dynamo.utils import counters
    from torch._inductor import metrics

    case = artefact.case
    stats, breaks, inductor = counters["stats"], counters["graph_break"], counters["inductor"]
    counts = {
        "graphs": stats["unique_graphs"],
        "graph_breaks": sum(breaks.values()),
        "recompiles": sum(not name.endswith("/0") for name in step.about.compilations),
        "generated_kernels": metrics.generated_kernel_count,
    }
    evidence = [f"graph break, {count} x: {' '.join(reason.split())}" for reason, count in breaks.items()]
    evidence.append(f"Inductor's cache: {inductor['fxgraph_cache_hit']} hits, {inductor['fxgraph_cache_miss']} misses, "
                    f"{inductor['fxgraph_cache_bypass']} graphs it cannot store")  # fmt: skip
    wrong = None
    if case.option("mode", "default") == "reduce-overhead":
        skips = inductor["cudagraph_skips"]
        if case.target == "cpu":
            evidence.append("mode reduce-overhead is CUDA graphs; on cpu it does what mode default does")
        elif skips:
            wrong = Reason("unsupported_op", f"{skips} graphs ran without the CUDA graph that mode reduce-overhead asks for")
    if not counts["graphs"]:
        wrong = Reason("unsupported_op", f"dynamo compiled nothing of {case.workload}; all of it ran in eager")
    return Placement(f"inductor on {case.target}", {f"inductor on {case.target}": stats["calls_captured"]}, counts, tuple(evidence), wrong)


@dataclass(frozen=True)
class Compiled:
    """compilations: dynamo's ids (`frame/attempt`) since load, one for each compilation; attempt 0 is the first of its code."""

    prepared: eager.Prepared
    compilations: list[str] = field(default_factory=list)


def _compiled(workload: Workload, case: Case, folder: Path) -> Step:
    """Marks what is to be compiled. Environment variables, since Inductor reads its folders from there at the first compilation."""
    import torch
    import torch._dynamo.callback
    import torch._inductor.config
    import torch._inductor.metrics

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    os.environ["TRITON_CACHE_DIR"] = str(folder / "inductor" / "triton")
    torch._inductor.config.freezing = case.option("freezing", "off") == "on"
    _stable_keys()
    prepared = eager.prepare(workload, case)
    about = Compiled(prepared)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch._inductor.metrics.reset()
    torch._dynamo.callback.on_compile_end(lambda event: about.compilations.append(event.compile_id))
    mode = case.option("mode", "default")
    function: Callable[..., Any] = prepared.module
    if case.option("regional", "off") == "on":
        for block in _blocks(prepared.module, workload.name):
            block.compile(dynamic=False, mode=mode)
    else:
        function = torch.compile(prepared.module, dynamic=False, mode=mode)
    return eager.step(prepared, _new_step(function) if mode == "reduce-overhead" and case.target != "cpu" else function, about)


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


def _blocks(module: torch.nn.Module, name: str) -> list[torch.nn.Module]:
    """The repeated blocks, each of which dynamo compiles or finds compiled. Lifts dynamo's limit of 8 variants (recompile_limit)."""
    import torch

    found = _repeated(module)
    if not found:
        raise Refusal("unsupported_op", f"regional: {name} has no nn.ModuleList or nn.Sequential with repeated blocks; use [regional:off]")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, len(found))
    return found


def _repeated(module: torch.nn.Module) -> list[torch.nn.Module]:
    """Children of lists that occur there twice with the same class and parameter shapes, outermost first; failing that, with the same class.

    So a transformer gives its blocks, not the experts or heads inside; a Swin gives the blocks inside its four different stages.
    """
    import torch

    children = list(module.children())
    is_list = isinstance(module, (torch.nn.ModuleList, torch.nn.Sequential))
    blocks = [child for child in children if is_list and any(True for _ in child.children())]
    found: list[torch.nn.Module] = []
    for child in children:
        same_class = [other for other in blocks if type(other) is type(child)] if child in blocks else []
        if sum(_shapes(other) == _shapes(child) for other in same_class) > 1:
            found.append(child)
        elif inside := _repeated(child):
            found += inside
        elif len(same_class) > 1:
            found.append(child)
    return found


def _shapes(module: torch.nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, parameter.shape) for name, parameter in module.named_parameters()]


def _innermost(error: BaseException) -> str:
    while (inner := getattr(error, "inner_exception", None) or error.__cause__) is not None:
        error = inner
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"
