"""The Triton kernels that Inductor's lowering makes of a workload, for a GPU that is not here: how
many, what is fused in each, what the compiler makes of them.

Not exactly what torch.compile generates: its joint and post-grad passes are left out and attention
is taken apart into products, so transformers get more kernels here (traced on a CPU and put through
those passes: resnet the same 20 kernels, vit 8 instead of 14, gpt 12 instead of 13).

A census, never a verdict: it stands on private parts of torch 2.14 (GraphLowering, CudaInterface)
in a child process, and where one of them has moved it ends with that error. In the child torch.cuda
is answered for by what a part of the architecture says of itself (PARTS); nothing runs. `python -P
-m hotlap.perf.compiled.census WORKLOAD TARGET [PRECISION [BATCH [CHECKPOINT]]]` prints JSON; the
batch is the workload's own where none is given.
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
from ..terms.reasons import Misuse


class Part(NamedTuple):
    """One part of an architecture as its driver describes it.

    capability: of CUDA. l2_bytes, memory_bytes, processors: the part's own; the other figures are
    the architecture's.
    """

    name: str
    capability: tuple[int, int]
    processors: int
    l2_bytes: int
    memory_bytes: int
    threads: int
    shared_bytes: int
    source: str

    @property
    def properties(self) -> SimpleNamespace:
        """A block may have 1 KiB less of shared memory than the multiprocessor, and 48 KiB without
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


KIB, MIB, GIB = 2**10, 2**20, 2**30
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
LAUNCH = re.compile(r"^\s+(triton_\w+)\.run\(", re.MULTILINE)
EXTERN = re.compile(r"^\s+(?:\w+ = )?(?:extern_kernels|torch\.ops\.aten)\.(\w+)(?:\.\w+)?\(", re.MULTILINE)
KERNEL = re.compile(r"async_compile\.triton\('(\w+)', '''(.*?)'''", re.DOTALL)


class Kernel(msgspec.Struct, frozen=True):
    """launches: how often a call of the model runs it; layers of one shape share a kernel."""

    name: str
    launches: int
    fused: str
    registers: int
    spills: int
    shared_bytes: int
    occupancy: float
    instructions: int


class Census(msgspec.Struct, frozen=True):
    """extern: by name, calls of cuBLAS, cuDNN and aten in the generated code.

    failed: kernels that do not compile, and why. batch: 0 is the workload's own.
    """

    workload: str
    target: str
    extern: dict[str, int]
    kernels: list[Kernel]
    precision: str = "fp32"
    batch: int = 0
    failed: list[str] = []


def census(workload: str, targets: list[str], json: Path | None) -> int:
    """Prints it; 0 whatever it says.

    Raises Misuse for a wrong workload, and where the child failed.
    """
    from ..terms.files import put

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
            raise Misuse(f"--inductor {workload}: {lines[-1][:300]}")
        found = msgspec.json.decode(done.stdout.splitlines()[-1], type=Census)
        if found.failed:
            raise Misuse(f"--inductor {workload} for {target}: {found.failed[0]}")
        if json is not None:
            put(json, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        if str(json) != "-":
            print(markdown(found), end="")
    return 0


def markdown(found: Census) -> str:
    head = ("kernel", "launches", "fused", "registers", "spills", "shared", "occupancy", "instructions")
    launched = sum(one.launches for one in found.kernels)
    others = ", ".join(f"{count} {name}" for name, count in found.extern.items())
    told = (
        f"{len(found.kernels)} Triton kernels in {launched} launches, and {sum(found.extern.values())} calls"
        f" of others ({others})"
    )
    lines = [f"{found.workload} for {found.target} by Inductor: {told}; compiled, not run.", ""]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for one in found.kernels:
        figures = (
            one.launches,
            one.fused,
            one.registers,
            one.spills,
            one.shared_bytes,
            f"{one.occupancy:.0%}",
            one.instructions,
        )
        lines.append(f"| {one.name} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines) + "\n"


def generated(reference: workloads.Reference, part: Part, precision: str, batch: int) -> str:
    """Inductor's code for the workload's module on a fake GPU.

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

    from ..lookup.workloads import resized
    from ..oracle.reference import DTYPES

    workload = workloads.load(reference)
    workload = resized(workload, batch or len(workload.inputs[0]))
    dtype = DTYPES[precision]
    fake: Any = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, torch.no_grad(), torch.fx.traceback.preserve_node_meta():
        module = workload.module.to("cuda:0", dtype)
        inputs = [
            value.to("cuda:0", dtype if value.is_floating_point() else value.dtype)
            for value in workload.inputs
        ]
        named = dict(module.named_parameters()) | dict(module.named_buffers())

        def call(values: list[torch.Tensor], *given: torch.Tensor) -> Any:
            return torch.func.functional_call(module, dict(zip(named, values, strict=True)), given)

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
    """(object, name, stand-in) for what is asked of the device; mock fails where a name is gone."""
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
    """The kernel in the first of the settings that Inductor would try."""
    from . import aot

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
        arguments[place[0]] for place, said in meta["configs"][0].items() if ["tt.divisibility", 16] in said
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
    from . import aot

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
    print(
        msgspec.json.encode(
            Census(reference, target, dict(extern.most_common()), kernels, precision, int(batch), failed)
        ).decode()
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
