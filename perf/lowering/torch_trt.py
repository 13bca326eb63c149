"""TensorRT by torch_tensorrt.dynamo: the exported module is cut into engines and parts that stay
with PyTorch.

torch_tensorrt cannot be imported without a driver; where none is, a case of this route ends at L1.
On a machine with one (in tests: with torch.cuda answered for, in a child process) its dry run says
what of the graph goes into engines, and the lowered module that it returns is run on the CPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from ..terms.case import Case, Workload
from ..terms.contract import Arrays, Artefact, Phase, Proven, Step
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement
from . import torch_step

# Precisions that are another dtype than fp32 in the graph -> torch's names.
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}


class Cut(NamedTuple):
    """How a dry run cuts a graph.

    inside: operators that go into engines. operators: all. engines: their number. outside:
    operators that stay with PyTorch, by name.
    """

    inside: int
    operators: int
    engines: int
    outside: tuple[str, ...]

    def __str__(self) -> str:
        stays = f"; with PyTorch stay {', '.join(self.outside)}" if self.outside else ""
        return f"{self.inside} of {self.operators} operators in {self.engines} engine(s){stays}"


def verify(workload: Workload, case: Case, phase: Phase) -> Iterator[Proven]:
    """Yields L1 to L3 of this route, as far as the machine has a driver. Raises Refusal."""
    import torch

    module, inputs = cast(workload, case)
    with phase("export"):
        program = exported(module, inputs, workload)
    yield Proven("L1", f"torch.export: {len(program.graph.nodes)} nodes in {case.precision}")
    library = imported()
    report = io.StringIO()
    with phase("partition"), contextlib.redirect_stdout(report), torch.inference_mode():
        lowered = compiled(library, program, inputs, case, dryrun=True)
    cut = parse(report.getvalue())
    elsewhere = cut.operators - cut.inside
    counts = {"engines": cut.engines, "nodes": cut.operators, "nodes_elsewhere": elsewhere}
    cut_up = Placement("tensorrt", {"tensorrt": cut.inside, "pytorch": elsewhere}, counts, (str(cut),))
    yield Proven("L2", f"dry run of torch_tensorrt {library.__version__}: {cut}", cut_up)
    yield Proven("L3", "the lowered module of the dry run on the CPU", lowered=on_cpu(lowered, case))


def cast(workload: Workload, case: Case) -> tuple[Any, tuple[Any, ...]]:
    """Returns module and inputs in the case's precision."""
    import torch

    dtype = getattr(torch, DTYPES.get(case.precision, "float32"))
    return workload.module.to(dtype), tuple(
        value.to(dtype) if value.is_floating_point() else value for value in workload.inputs
    )


def exported(module: Any, inputs: tuple[Any, ...], workload: Workload) -> Any:
    """Exports a module with its inputs as they are. Raises Refusal(export_failed)."""
    import torch

    try:
        with torch.inference_mode():
            return torch.export.export(module, inputs)
    except Exception as error:  # torch.export raises many kinds, all meaning the same here
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Refusal("export_failed", f"{workload.name}: torch.export: {line}") from error


def imported() -> Any:
    """Imports torch_tensorrt.

    Raises Refusal: dep_missing, no_device where there is no driver to import it with.
    """
    if importlib.util.find_spec("torch_tensorrt") is None:
        raise Refusal("dep_missing", "torch_tensorrt is not installed: pip install 'hotlap[tensorrt-rtx]'")
    try:
        import torch_tensorrt
    except (RuntimeError, AssertionError, ImportError, OSError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Refusal(
            "no_device",
            f"torch_tensorrt cannot be imported without an NVIDIA driver ({line}); route onnx goes further"
            " here",
        ) from error
    return torch_tensorrt


def compiled(library: Any, program: Any, inputs: tuple[Any, ...], case: Case, dryrun: bool = False) -> Any:
    """Compiles a program; with `dryrun` it prints what would become of it, too.

    Precision is in the graph, but for tf32: engines use it for fp32 products unless it is disabled.
    Raises Refusal(build_failed).
    """
    try:
        return library.dynamo.compile(
            program,
            arg_inputs=list(inputs),
            min_block_size=1,
            disable_tf32=case.precision != "tf32",
            dryrun=dryrun,
        )
    except (RuntimeError, ValueError, AssertionError, AttributeError) as error:  # what its partitioner raises
        raise Refusal(
            "build_failed", f"torch_tensorrt {library.__version__}: {' '.join(str(error).split())[:300]}"
        ) from error


def parse(text: str) -> Cut:
    """Reads the dry run's report. Raises Refusal(build_failed) where it has another form."""
    match = re.search(
        r"graph consists of (\d+) Total Operators, of which (\d+) operators are supported", text
    )
    if match is None:
        raise Refusal(
            "build_failed", "torch_tensorrt's dry run has no line that is known here; its report has changed"
        )
    outside = re.findall(r"^Node: torch\.ops\.([\w.]+)", text, re.MULTILINE)
    inside = sum(int(count) for count in re.findall(r"Number of Operators in Engine: (\d+)", text))
    engines = len(re.findall(r"TRT Engine #\d+", text))
    return Cut(inside, int(match[1]), engines, tuple(dict.fromkeys(outside)))


def on_cpu(lowered: Any, case: Case) -> Callable[[Arrays], Arrays]:
    """Returns a function that runs the lowered module on the CPU."""
    host = torch_step.tensors(replace(case, target="cpu"))
    step = torch_step.step(host, lowered, None)
    return lambda arrays: step.fetch(step.call(step.place(arrays)))


def load(artefact: Artefact) -> Step:
    """Compiles the module; what TensorRT refuses is left to PyTorch.

    Raises Refusal: dep_missing, no_device, build_failed.
    """
    import torch

    library = imported()
    workload = artefact.workload()
    prepared = torch_step.prepare(workload, artefact.case)
    inputs = prepared.place(prepared.inputs)
    module = compiled(library, exported(prepared.module, inputs, workload), inputs, artefact.case)
    with torch.inference_mode():
        return torch_step.step(prepared, module, module)


def placement(artefact: Artefact, step: Step) -> Placement:
    """Returns the engines and what runs beside them, by the submodules of the compiled module."""
    names = [name for name, _ in step.about.named_children()]
    engines = sum("_run_on_acc" in name for name in names)
    beside = sum("_run_on_gpu" in name for name in names)
    wrong = None
    if not engines:
        wrong = Reason(
            "unsupported_op",
            f"torch_tensorrt made no engine of {artefact.case.workload}; all of it would run in PyTorch",
        )
    partial = f"{beside} parts of it run in PyTorch, between {engines} engines" if engines and beside else ""
    evidence = (*names, "no CUDA graph: torch_tensorrt starts each part by itself")
    return Placement(
        "tensorrt",
        {"tensorrt": engines, "pytorch": beside},
        {"engines": engines, "nodes_elsewhere": beside},
        evidence,
        wrong,
        partial,
    )
