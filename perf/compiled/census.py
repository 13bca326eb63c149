"""The Triton kernels that Inductor's lowering makes of a workload, for a GPU that is not here: how
many, what is fused in each, what the compiler makes of them.

Not exactly what torch.compile generates: its joint and post-grad passes are left out and attention
is taken apart into products, so transformers get more kernels here (traced on a CPU and put through
those passes: resnet the same 20 kernels, vit 8 instead of 14, gpt 12 instead of 13).

A census, never a verdict: it stands on private parts of torch (GraphLowering, CudaInterface) in a
child process, and where one of them has moved it ends with that error. In the child torch.cuda is
answered for by what a part of the architecture says of itself (PARTS); nothing runs. `python -P -m
hotlap.perf.compiled.census WORKLOAD TARGET [PRECISION [BATCH [CHECKPOINT]]]` prints JSON; the batch
is the workload's own where none is given.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import msgspec

from ..lookup import workloads
from ..machine import cuda_devices
from ..terms import escape, printer
from ..terms.files import put
from ..terms.reasons import Misuse, Refusal
from . import aot


class Part(NamedTuple):
    """One part of an architecture as its driver describes it."""

    # The part's name as the driver has it.
    name: str
    # The architecture's compute capability.
    capability: tuple[int, int]
    # Multiprocessors of this part.
    processors: int
    # Its L2 cache.
    l2_bytes: int
    # Its memory.
    memory_bytes: int
    # Threads that a multiprocessor of the architecture holds.
    threads: int
    # Shared memory of a multiprocessor of the architecture.
    shared_bytes: int
    # Where the figures of the part are from.
    source: str

    @property
    def properties(self) -> SimpleNamespace:
        """What torch.cuda.get_device_properties would return.

        A block may have 1 KiB less of shared memory than the multiprocessor, and 48 KiB without
        asking (CUDA C++ Programming Guide, shared memory of 8.x, 9.0, 12.0).
        """
        major, minor = self.capability
        return SimpleNamespace(
            name=self.name,
            major=major,
            minor=minor,
            multi_processor_count=self.processors,
            warp_size=32,
            regs_per_multiprocessor=65536,
            L2_cache_size=self.l2_bytes,
            max_threads_per_multi_processor=self.threads,
            max_threads_per_block=1024,
            shared_memory_per_block=49152,
            shared_memory_per_block_optin=self.shared_bytes - 1024,
            shared_memory_per_multiprocessor=self.shared_bytes,
            total_memory=self.memory_bytes,
            gcnArchName="",
        )


KIB = 2**10
MIB = 2**20
GIB = 2**30
# Threads and shared memory of a multiprocessor: CUDA C++ Programming Guide, technical
# specifications per compute capability. The rest by the source of each.
PARTS = {
    "sm_80": Part(
        "NVIDIA A100-SXM4-80GB",
        (8, 0),
        108,
        40 * MIB,
        80 * GIB,
        2048,
        164 * KIB,
        "an A100 80GB by ekondis/mixbench issue 47; its multiprocessors by deviceQuery in"
        " bottlerocket-os/bottlerocket pull request 3873",
    ),
    "sm_86": Part(
        "NVIDIA A10",
        (8, 6),
        72,
        6 * MIB,
        24 * GIB,
        1536,
        100 * KIB,
        "NVIDIA A10 datasheet; Ampere GA102 architecture whitepaper, L2 of GA102",
    ),
    "sm_89": Part(
        "NVIDIA L4",
        (8, 9),
        58,
        48 * MIB,
        23_583_784_960,
        1536,
        100 * KIB,
        "deviceQuery of an L4 (bottlerocket-os/bottlerocket-kernel-kit pull request 139); L4 datasheet; Ada"
        " whitepaper, L2 of AD104",
    ),
    "sm_90": Part(
        "NVIDIA H100 80GB HBM3",
        (9, 0),
        132,
        50 * MIB,
        80 * GIB,
        2048,
        228 * KIB,
        "NVIDIA H100 architecture whitepaper, SXM5; H100 datasheet",
    ),
    "sm_120": Part(
        "NVIDIA GeForce RTX 5090",
        (12, 0),
        170,
        96 * MIB,
        33_677_180_928,
        1536,
        100 * KIB,
        "deviceQuery of an RTX 5090 (aikitoria/open-gpu-kernel-modules issue 1)",
    ),
}
# In the Python that Inductor generates: a launch of one of its kernels, a call of a library or of
# aten, and the source of a kernel.
LAUNCH = re.compile(r"^\s+(triton_\w+)\.run\(", re.MULTILINE)
EXTERN = re.compile(r"^\s+(?:\w+ = )?(?:extern_kernels|torch\.ops\.aten)\.(\w+)(?:\.\w+)?\(", re.MULTILINE)
KERNEL = re.compile(r"async_compile\.triton\('(\w+)', '''(.*?)'''", re.DOTALL)


class Kernel(msgspec.Struct, frozen=True):
    """A kernel that Inductor generates, and what its machine code says."""

    # Its name in the generated code.
    name: str
    # How often a call of the model runs it; layers of one shape share a kernel.
    launches: int
    # The operators in it, by Inductor's own name of the kernel.
    fused: str
    # Registers of a thread.
    registers: int
    # Instructions that load or store spilled registers.
    spills: int
    # Shared memory of a block.
    shared_bytes: int
    # Share of a multiprocessor's warps that fit, 0 to 1.
    occupancy: float
    # All instructions of the code.
    instructions: int


class Census(msgspec.Struct, frozen=True):
    """What Inductor generates of a workload for a target."""

    # The workload's reference, as on the command line.
    workload: str
    # The architecture, such as sm_90.
    target: str
    # Calls of cuBLAS, cuDNN and aten in the generated code, by name.
    extern: dict[str, int]
    # The kernels that compile.
    kernels: list[Kernel]
    # The precision of module and inputs.
    precision: str = "fp32"
    # Rows of a batch; 0 is the workload's own number.
    batch: int = 0
    # Kernels that do not compile, each with why.
    failed: list[str] = []


def census(workload: str, targets: list[str], json: Path | None) -> None:
    """Prints the census for each target, or writes it into a file.

    Raises Misuse for a wrong workload or target, where the child failed, and where a kernel does
    not compile.
    """
    workloads.check(workloads.Reference(workload))
    for target in targets:
        if target not in PARTS:
            raise Misuse(
                f"--inductor generates for parts that it knows the figures of: --target {', '.join(PARTS)},"
                f" not {target}"
            )
        done = subprocess.run(
            [sys.executable, "-P", "-m", "hotlap.perf.compiled.census", workload, target],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["the child process ended without a word"]
            why = lines[-1].removeprefix(f"{Refusal.__module__}.{Refusal.__name__}: ")
            raise Misuse(f"--inductor {workload}: {why[:300]}")
        counted = msgspec.json.decode(done.stdout.splitlines()[-1], type=Census)
        if counted.failed:
            raise Misuse(f"--inductor {workload} for {target}: {counted.failed[0]}")
        if json is not None:
            put(json, msgspec.json.format(msgspec.json.encode(counted), indent=1) + b"\n")
        if str(json) != "-":
            for row in markdown(counted).splitlines():
                printer.line(row)


def markdown(counted: Census) -> str:
    """Returns the census as a table with one line above it."""
    head = ("kernel", "launches", "fused", "registers", "spills", "shared", "occupancy", "instructions")
    launched = sum(kernel.launches for kernel in counted.kernels)
    others = ", ".join(f"{count} {name}" for name, count in counted.extern.items())
    summary = (
        f"{len(counted.kernels)} Triton kernels in {launched} launches, and"
        f" {sum(counted.extern.values())} calls of others ({others})"
    )
    title = f"{counted.workload} for {counted.target} by Inductor: {summary}; compiled, not run."
    lines = [escape.markdown(title), ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for kernel in counted.kernels:
        figures = (
            kernel.launches,
            kernel.fused,
            kernel.registers,
            kernel.spills,
            kernel.shared_bytes,
            f"{kernel.occupancy:.0%}",
            kernel.instructions,
        )
        lines.append("| " + " | ".join(escape.markdown(str(cell)) for cell in (kernel.name, *figures)) + " |")
    return "\n".join(lines) + "\n"


def generated(reference: workloads.Reference, part: Part, precision: str, batch: int) -> str:
    """Returns Inductor's code for the workload's module on a fake GPU.

    Tracing goes first: with the answers in place torch would look for the device itself.
    """
    import torch
    from torch._dynamo.device_interface import CudaInterface
    from torch._inductor import config
    from torch._inductor.debug import DebugContext
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    from ..oracle.reference import DTYPES

    workload = workloads.load(reference)
    workload = workloads.resized(workload, batch or len(workload.inputs[0]))
    dtype = DTYPES[precision]
    cuda_devices.faked("cuda:0")
    fake: Any = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, torch.no_grad(), torch.fx.traceback.preserve_node_meta():
        module = workload.module.to("cuda:0", dtype)
        inputs = [
            value.to("cuda:0", dtype if value.is_floating_point() else value.dtype)
            for value in workload.inputs
        ]
        named = dict(module.named_parameters()) | dict(module.named_buffers())

        def call(values: list[torch.Tensor], *arguments: torch.Tensor) -> Any:
            return torch.func.functional_call(module, dict(zip(named, values, strict=True)), arguments)

        graph = make_fx(call, decomposition_table=select_decomp_table())(list(named.values()), *inputs)
    for owner, name, answer in answers(torch.cuda, CudaInterface, part):
        mock.patch.object(owner, name, answer).start()
    flat = [*named.values(), *inputs]
    settings = {"triton.autotune_at_compile_time": False, "compile_threads": 1}
    tracing: Any = torch._guards.TracingContext(fake)
    with fake, torch._guards.tracing(tracing), V.set_fake_mode(fake), config.patch(settings):
        lowering: Any = GraphLowering(graph, example_inputs=flat)
        debug: Any = DebugContext()
        with V.set_graph_handler(lowering), V.set_extern_kernel_nodes([]), V.set_debug_handler(debug):
            lowering.run(*flat)
            code, _ = lowering.codegen()
    return str(getattr(code, "value", code))


def answers(cuda: Any, interface: Any, part: Part) -> list[tuple[Any, str, Any]]:
    """Returns (object, name, stand-in) for all that torch asks of the device.

    mock fails where one of the names is gone.
    """
    import triton
    from triton.backends.compiler import GPUTarget

    properties, capability = part.properties, 10 * part.capability[0] + part.capability[1]
    driver = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", capability, 32),
        get_current_device=lambda: 0,
        is_active=lambda: True,
        get_device_interface=lambda: cuda,
    )
    triton.runtime.driver.set_active(driver)
    common = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_properties": lambda device=None: properties,
        "synchronize": lambda device=None: None,
        "is_bf16_supported": lambda *_, **__: True,
    }
    module = {
        "get_device_capability": lambda device=None: part.capability,
        "get_device_name": lambda device=None: part.name,
        "_lazy_init": lambda: None,
        "is_initialized": lambda: True,
    }
    own = {
        "get_compute_capability": lambda device=None: capability,
        "get_raw_stream": lambda device=0: 0,
        "is_triton_capable": lambda device=None: True,
    }
    worker = {
        "get_device_properties": common["get_device_properties"],
        "current_device": common["current_device"],
    }
    parts: Any = (
        (cuda, {**common, **module}, False),
        (interface, {**common, **own}, True),
        (interface.Worker, worker, True),
    )
    return [
        (part, name, staticmethod(answer) if method else answer)
        for part, names, method in parts
        for name, answer in names.items()
    ]


def compiled(name: str, source: str, launches: int, target: str, folder: Path) -> Kernel:
    """Compiles a generated kernel in the first of the settings that Inductor would try."""
    file = folder / f"{name}.py"
    file.write_text(source.replace("triton_helpers.set_driver_to_gpu()", ""))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tuner = getattr(module, name)
    meta, setting = tuner.triton_meta, tuner.configs[0]
    types = dict(meta["signature"])
    arguments = list(types)
    divisible = tuple(
        arguments[path[0]]
        for path, properties in meta["configs"][0].items()
        if ["tt.divisibility", 16] in properties
    )
    figures = aot.compiled(
        tuner.fn,
        types,
        {**meta["constants"], **setting.kwargs},
        divisible,
        setting.num_warps,
        setting.num_stages,
        target,
    )
    fused = name.removeprefix("triton_").partition("_fused_")[2] or name
    return Kernel(
        name,
        launches,
        fused,
        figures.registers,
        figures.spill_loads + figures.spill_stores,
        figures.shared_bytes,
        figures.occupancy,
        figures.instructions,
    )


def main(
    reference: str, target: str, precision: str = "fp32", batch: str = "0", checkpoint: str = ""
) -> None:
    """Prints the census of a workload for a target as JSON; runs in a process of its own."""
    code = generated(workloads.Reference(reference, checkpoint), PARTS[target], precision, int(batch))
    launched = Counter(LAUNCH.findall(code))
    extern = Counter(EXTERN.findall(code))
    kernels, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, source in KERNEL.findall(code):
            try:
                kernels.append(compiled(name, source, launched[name], target, Path(folder)))
            except Exception as error:  # Triton's compiler and ptxas raise their own classes
                failed.append(f"{name}: {aot.why(error)}")
    counted = Census(reference, target, dict(extern.most_common()), kernels, precision, int(batch), failed)
    print(msgspec.json.encode(counted).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
