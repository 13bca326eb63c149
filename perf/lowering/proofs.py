"""Eager and compile proven for a GPU that is not here, rung by rung (ladder.py), on fake tensors
and in a child process that answers for the device.

L1 runs and exports the module on fake tensors of cuda:0: what makes a tensor on the CPU is named by
its operator, and so is an operator of which torch's dispatcher has no kernel for CUDA (a wheel
built for CUDA has registered them all, with or without a device). L3 runs the graph, taken apart by
Inductor's decompositions, on this CPU. L4 and L5 are Inductor's lowering and Triton's compiler for
a named architecture (census.py), which knows the default settings only: with options that
change the code, and for a target without figures, the proof ends at L3 and says so.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..compiled.census import PARTS, Census
from ..machine import cuda_devices
from ..machine.memory import exhausted
from ..terms.case import Case, Workload
from ..terms.contract import Phase, Proven
from ..terms.reasons import Refusal
from ..terms.result import Placement
from . import aoti, pt2e, torch_step

# The device that fake tensors are on, whichever architecture is meant.
DEVICE = "cuda:0"
# Options under which Inductor generates what the census knows.
SAME_CODE = (("mode", "reduce-overhead"), ("l2", "cold"))


class DeviceExport(NamedTuple):
    """A program exported for the device, and what that proves."""

    program: torch.export.ExportedProgram
    proven: Proven


def configured(workload: Workload, case: Case) -> Iterator[Proven]:
    """Yields L0: what is configured, and why it ends there if it does."""
    options = " ".join(f"{name}:{value}" for name, value in case.options) or "default options"
    evidence = (
        f"torch {torch.__version__}; {workload.name} in {case.precision}, batch {case.batch}, {options}"
    )
    if case.option("autocast", "off") == "on":
        evidence += (
            "; it ends here: torch.autocast switches itself off for CUDA where there is no device"
            " (torch/amp/autocast_mode.py), so nothing can be traced"
        )
    yield Proven("L0", evidence)


def exported(workload: Workload, case: Case, phase: Phase) -> DeviceExport:
    """Exports the module for the device, which is L1.

    Raises Refusal: unsupported_op with the operator that makes or meets a tensor on the CPU, or has
    a kernel for the CPU only; export_failed; dep_missing where torch asks for the driver.
    """
    cuda_devices.faked(DEVICE)
    form = _tensors(case, DEVICE)
    arrays = tuple(value.numpy() for value in workload.inputs)
    fake: Any = FakeTensorMode(allow_non_fake_inputs=True)
    module = copy.deepcopy(workload.module)
    with phase("export"), fake, torch.no_grad():
        module = module.to(device=DEVICE, dtype=form.dtype, memory_format=form.layout)  # type: ignore[call-overload]  # one call: fake parameters cannot be swapped twice
        inputs = form.place(arrays)
        _run(module, inputs, workload.name)
        program = aoti.exported(module, inputs, case.option("dynamic", "off") == "on")
    nodes = [node for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    here = [node for node in nodes if node.meta["val"].device.type != "cuda" and node.meta["val"].dim()]
    if here:
        name = here[0].target if here[0].op == "call_function" else f"constant {here[0].name}"
        raise Refusal(
            "unsupported_op",
            f"{name} leaves a tensor on the CPU in {workload.name}: make it a buffer, or on the device of the"
            " inputs",
        )
    kernels = _kernels(program, case, workload.name)
    numbers = sum(node.meta["val"].device.type != "cuda" for node in nodes)
    beside = (
        f"; {numbers} numbers without dimensions stay on the CPU, which kernels take as arguments"
        if numbers
        else ""
    )
    evidence = (
        f"torch.export on {DEVICE} in {case.precision}: {len(_operators(program))} operators, every tensor on"
        f" {DEVICE}{beside}; {kernels}"
    )
    return DeviceExport(program, Proven("L1", evidence))


def _kernels(program: torch.export.ExportedProgram, case: Case, name: str) -> str:
    """Returns whether each operator of a program has a kernel for the GPU, in words.

    name: of the workload. Raises Refusal(unsupported_op) with those that have none.
    """
    maker = "ROCm" if case.target.startswith("gfx") else "CUDA"
    if (torch.version.hip if maker == "ROCm" else torch.version.cuda) is None:
        return f"torch here was built without {maker}, so which operators have kernels for it is not known"
    if without := without_kernel(program):
        remedy = (
            f"register one (torch.library), install its library's build for {maker}, or take it out of"
            " the model"
        )
        raise Refusal(
            "unsupported_op",
            f"{', '.join(without)} in {name}: no kernel for {maker} is registered here; {remedy}",
        )
    return f"torch has a kernel of each for {maker}"


def without_kernel(program: torch.export.ExportedProgram) -> list[str]:
    """Returns the operators for which torch's dispatcher would find no kernel on a CUDA tensor.

    Those of subgraphs are included. torch calls a tensor of ROCm a CUDA tensor too.
    """
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    targets: list[Any] = [
        node.target
        for graph in graphs
        for node in graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
    ]
    return sorted(
        {
            name
            for target in targets
            if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(name := target.name(), "CUDA")
        }
    )


def _run(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], name: str) -> None:
    """Calls a module on fake tensors, to name the operator that fails: torch's message does not.

    Raises Refusal: unsupported_op where a tensor is on the CPU, export_failed.
    """
    called, on_cpu = [""], []

    class Named(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its metaclass has no types
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(str(func))
            result = func(*args, **(kwargs or {}))
            if any(
                isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" and leaf.dim()
                for leaf in tree_leaves(result)
            ):
                on_cpu.append(str(func))
            return result

    try:
        with Named():  # type: ignore[no-untyped-call]
            module(*inputs)
    except Exception as error:  # the model's own forward may raise anything
        if exhausted(error):
            raise
        if "same device" in str(error):
            source = (
                f"{on_cpu[-1]} makes one on the CPU"
                if on_cpu
                else "one of them is an attribute of a module: make it a buffer"
            )
            raise Refusal(
                "unsupported_op", f"{called[-1]} in {name} meets tensors of two devices; {source}"
            ) from error
        raise Refusal("export_failed", f"operator {called[-1]}: {pt2e.innermost(error)}") from error
    if on_cpu:
        raise Refusal(
            "unsupported_op",
            f"{on_cpu[0]} makes a tensor on the CPU in forward of {name}: make it on the device of the"
            " inputs, or a buffer",
        )


def compiled(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """Yields L0 to L5 of torch.compile. Raises Refusal where it goes no further."""
    yield from configured(workload, case)
    if case.option("autocast", "off") == "on":
        return
    there = exported(workload, case, phase)
    yield there.proven
    form = _tensors(case, "cpu")
    module = workload.module.to(dtype=form.dtype).to(memory_format=form.layout)
    inputs = form.place(tuple(value.numpy() for value in workload.inputs))
    partitioned, placement = _partitioned(module, inputs, workload, case, phase)
    yield partitioned
    with phase("lower"):
        step, same = _lowered(module, inputs, there.program, form, case)
    ends = _ends(case)
    yield Proven(
        "L3",
        f"{same}{f'; it ends here: {ends}' if ends else ''}",
        placement,
        lambda arrays: step.fetch(step.call(step.place(arrays))),
    )
    if not ends:
        yield from _generated(workload, case, folder, phase, placement)


def _partitioned(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    workload: Workload,
    case: Case,
    phase: Phase,
) -> tuple[Proven, Placement]:
    """Returns L2, the graphs that dynamo makes of the module, and the placement that says so.

    Raises Refusal(unsupported_op) where there is none.
    """
    torch._dynamo.reset()
    with phase("trace"), torch.no_grad():
        traced: Any = torch._dynamo.explain(module)(*inputs)
    graphs, breaks = int(traced.graph_count), int(traced.graph_break_count)
    if not graphs:
        raise Refusal(
            "unsupported_op", f"dynamo compiles nothing of {workload.name}; all of it would run in eager"
        )
    held = "fullgraph holds"
    if graphs > 1 or breaks:
        reasons = "; ".join(" ".join(str(entry.reason).split()) for entry in traced.break_reasons)
        held = f"no fullgraph: {reasons}"[:600]
    placement = Placement(f"inductor on {case.target}", {}, {"graphs": graphs, "graph_breaks": breaks})
    return Proven("L2", f"dynamo: {graphs} graphs, {breaks} graph breaks; {held}", placement), placement


def _generated(
    workload: Workload, case: Case, folder: Path, phase: Phase, placement: Placement
) -> Iterator[Proven]:
    """Yields L4 and L5: the kernels that Inductor generates, then that each of them compiles.

    Raises Refusal(build_failed).
    """
    with phase("compile"):
        census = _census(workload, case, folder)
    kernels = len(census.kernels) + len(census.failed)
    launched = sum(kernel.launches for kernel in census.kernels)
    called = ", ".join(f"{count} {name}" for name, count in census.extern.items()) or "none"
    placement = msgspec.structs.replace(
        placement, counters={**placement.counters, "generated_kernels": kernels}
    )
    summary = f"{kernels} Triton kernels, in {launched} launches; calls of libraries: {called}"
    yield Proven(
        "L4",
        f"Inductor's lowering, without its joint and post-grad passes, for {PARTS[case.target].name}:"
        f" {summary}",
        placement,
    )
    if census.failed:
        raise Refusal(
            "build_failed",
            f"{len(census.failed)} kernels do not compile for {case.target}: {census.failed[0]}",
        )
    registers = max((kernel.registers for kernel in census.kernels), default=0)
    shared_bytes = max((kernel.shared_bytes for kernel in census.kernels), default=0)
    spills = sum(kernel.spills for kernel in census.kernels)
    yield Proven(
        "L5",
        f"{len(census.kernels)} kernels compiled to cubin for {case.target}: at most {registers}"
        f" registers and {shared_bytes} bytes of shared memory, {spills} spilled loads and stores",
        placement,
    )


def _tensors(case: Case, target: str) -> torch_step.Tensors:
    """Returns how arrays become inputs on a target that need not be here."""
    layout = (
        torch.channels_last
        if case.option("layout", "contiguous") == "channels-last"
        else torch.contiguous_format
    )
    return torch_step.Tensors(target=target, dtype=torch_step.dtype(case), layout=layout)


def _operators(program: torch.export.ExportedProgram) -> list[str]:
    """Returns the operators of a program, in order."""
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


def _lowered(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    there: torch.export.ExportedProgram,
    form: torch_step.Tensors,
    case: Case,
) -> tuple[Any, str]:
    """Returns the step of the decomposed graph on this CPU, and what graph that is, in words.

    there: the program exported for the device, with which it is compared.
    """
    import torch._inductor.lowering  # noqa: F401  # the decomposition of max_pool2d takes it for imported (torch 2.14.1)
    from torch._inductor.decomposition import select_decomp_table

    program = aoti.exported(module, inputs, case.option("dynamic", "off") == "on")
    mine, theirs = _operators(program), _operators(there)
    same = (
        "operator by operator the one exported for the device"
        if mine == theirs
        else f"{len(mine)} operators where the one for the device has {len(theirs)}"
    )
    graph = program.run_decompositions(select_decomp_table()).module()
    operators = sum(node.op == "call_function" for node in graph.graph.nodes)
    evidence = (
        f"{operators} operators by Inductor's decompositions, run on this CPU in {case.precision};"
        f" exported here it is {same}"
    )
    return torch_step.step(form, graph, None), evidence


def _ends(case: Case) -> str:
    """Returns why L3 is the end, empty where the census can go on."""
    if case.target not in PARTS:
        return f"{case.target} names no architecture with figures here ({', '.join(PARTS)})"
    others = [
        f"{name}:{value}"
        for name, value in case.options
        if name not in ("allocator", "binding") and (name, value) not in SAME_CODE
    ]
    return f"the code for {' '.join(others)} is another than what the census generates" if others else ""


def _census(workload: Workload, case: Case, folder: Path) -> Census:
    """Returns the census of a child process. Raises Refusal(build_failed)."""
    arguments = [workload.name, case.target, case.precision, str(case.batch), workload.checkpoint]
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hotlap.perf.compiled.census", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = next(
            iter(reversed(done.stderr.strip().splitlines())), "the child process ended without a word"
        )
        raise Refusal("build_failed", f"Inductor's lowering for {case.target}: {last[:300]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Census)
