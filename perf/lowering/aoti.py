"""AOTInductor: the exported program compiled into one .pt2 file that runs without the model's
source and without dynamo.

A .pt2 file is a zip with a shared library, its C++ and JSON. torch._inductor.aoti_load_package also
loads exported programs from it, for which torch may unpickle, and imports dynamo and the symbolic
shapes for it. So `load` takes the loader that it would hand the file to in the end,
torch._C._aoti.AOTIModelPackageLoader, which unpacks the library, reads JSON and calls dlopen:
nothing is unpickled.

It checks nothing: a package with a byte flipped in its library was loaded and run in silence, and
so was one made for another batch (torch 2.14.1). So the file's SHA-256 lies beside it, and inputs
with another batch are refused. Whoever can write both files can run any code: a package is a
program.

Inductor compiles with -march=native beside the flags of the vector instructions that it chose, so
the library may hold whatever the CPU had that built it, and one that lacks some of it ends the
process by SIGILL. `instructions` tells, for the manifest.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..lookup.workloads import Reference
from ..machine import cpu
from ..machine.memory import exhausted
from ..terms.case import BATCH, Case, Workload
from ..terms.contract import Arrays
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement
from . import generated, pt2e, torch_step
from .free_axes import positional

if TYPE_CHECKING:
    import torch

# What a case's folder holds: the package, what is known of it (Package), a batch of inputs.
FILE = "model.pt2"
ABOUT = "package.json"
INPUTS = "inputs.npz"
# The name that aoti_compile_and_package gives a model inside of its package.
MODEL = "model"
# What C++ that uses AMX calls (GCC's amxtileintrin.h).
TILE = re.compile(r"\b_tile_(?:loadd|loadconfig|zero|dp\w+)\(")


class Package(msgspec.Struct, frozen=True):
    """What is known of a package."""

    # The hash of the file, in hexadecimal.
    sha256: str
    # Kernels that Inductor generated.
    kernels: int
    # Parameters and buffers of the module.
    parameters: int
    # Operators of the program by the dtype of what they return.
    dtypes: dict[str, int]
    # int8: linear and convolution layers that could run in it.
    layers: int = 0
    # int8: where the ranges come from.
    calibration: str = ""


def supports(case: Case) -> Reason | None:
    """Returns what a package rules out, None where nothing is."""
    if case.option("package", "off") == "off":
        return None
    if case.option("regional", "off") == "on":
        return Reason(
            "unsupported_op",
            "a package holds one program and regional compiles blocks one by one: drop one of the two",
        )
    if case.option("mode", "default") == "reduce-overhead":
        return Reason(
            "unsupported_op",
            "mode reduce-overhead is CUDA graphs in the runtime of torch.compile; a package has none: use"
            " mode default",
        )
    return None


def exported(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], dynamic: bool
) -> torch.export.ExportedProgram:
    """Exports a module, with `dynamic` for any batch size.

    Raises Refusal: unsupported_op where the batch is to vary and the model is made for one size;
    export_failed.
    """
    import torch

    shapes: Any = None
    if dynamic:
        if len(inputs[0]) == 1:  # torch.export takes a dimension of size 1 for a constant
            inputs = tuple(torch.cat((value, value)) for value in inputs)
        shapes = tuple({0: torch.export.Dim(BATCH)} for _ in inputs)
    try:
        with torch.no_grad():
            return torch.export.export(
                positional(module), inputs, dynamic_shapes=(shapes,) if shapes else None
            )
    except Exception as error:  # it runs the model's own forward, which may raise anything
        if exhausted(error):
            raise
        if isinstance(error, torch._dynamo.exc.UserError) and "specialized" in str(error):
            raise Refusal(
                "unsupported_op",
                f"dynamic:on: the model is made for one batch size: {_line(error, 'specialized')}",
            ) from error
        raise Refusal("export_failed", pt2e.innermost(error) + scripted(module)) from error


def scripted(module: torch.nn.Module) -> str:
    """Returns what to add to a refusal where TorchScript has compiled a part, which torch.export
    does not take.
    """
    import torch

    parts = (name for name, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule))
    name = next(parts, None)
    if name is None:
        return ""
    where = f"its part {name}" if name else "it"
    return f"; {where} is TorchScript, which torch.export does not take: write it as torch's own modules"


def _line(error: BaseException, word: str) -> str:
    return next(line.strip(" -") for line in str(error).splitlines() if word in line)


def build(
    program: torch.export.ExportedProgram, workload: Workload, case: Case, folder: Path, calibration: str
) -> None:
    """Compiles a program and writes the package into the folder. Raises Refusal(build_failed)."""
    import numpy as np
    import torch
    import torch._inductor.metrics

    graph = program.graph_module
    named = list(workload.module.parameters()) + list(workload.module.buffers())
    dtypes: Counter[str] = Counter()
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            values = [node.meta.get("val") for node in part.graph.nodes if node.op == "call_function"]
            dtypes.update(torch_step.name_of(value) for value in values if isinstance(value, torch.Tensor))
    settings = {"freezing": frozen(case), "max_autotune": case.option("mode", "default") == "max-autotune"}
    torch._inductor.metrics.reset()
    try:
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(folder / FILE), inductor_configs=settings
            )
    except Exception as error:  # Inductor's passes and the C++ compiler behind them
        if exhausted(error):
            raise
        raise Refusal("build_failed", pt2e.innermost(error)) from error
    about = Package(
        _digest(folder),
        torch._inductor.metrics.generated_kernel_count,
        len(named),
        dict(dtypes.most_common()),
        pt2e.layers(graph) if calibration else 0,
        calibration,
    )
    (folder / ABOUT).write_bytes(msgspec.json.encode(about))
    np.savez(
        folder / INPUTS,
        allow_pickle=False,
        **{f"in{index}": value.numpy() for index, value in enumerate(workload.inputs)},
    )


def frozen(case: Case) -> bool:
    """Returns whether Inductor takes the weights for constants."""
    return case.option("freezing", "off") == "on" or case.precision == "int8"


def load(folder: Path, target: str) -> tuple[Callable[..., Any], Package]:
    """Returns the package as a function of its inputs, and what is known of it.

    Raises Refusal(build_failed) for a file that is not the one that was built.
    """
    import torch
    from torch.utils import _pytree

    about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=Package)
    if _digest(folder) != about.sha256:
        raise Refusal(
            "build_failed",
            f"{folder / FILE} is not the file that was built (SHA-256 differs): build it again",
        )
    loader = torch._C._aoti.AOTIModelPackageLoader(
        str(folder / FILE), MODEL, False, 1, -1 if target == "cpu" else int(target[5:])
    )
    form = _pytree.treespec_loads(loader.get_call_spec()[1])

    def call(*inputs: torch.Tensor) -> Any:
        return _pytree.tree_unflatten(loader.boxed_run(list(inputs)), form)

    return call, about


def inputs(folder: Path) -> Arrays:
    """Returns the batch of inputs beside the package, each (B, ...)."""
    import numpy as np

    with np.load(folder / INPUTS, allow_pickle=False) as stored:
        return tuple(stored[f"in{index}"] for index in range(len(stored.files)))


def placement(case: Case, folder: Path, about: Package) -> Placement:
    """Returns what runs where by the package itself, and whether the model was imported."""
    code, libraries, cubins = contents(folder)
    module = Reference(case.workload).module
    imported = module in sys.modules
    source = f"{module} was {'imported, for which a package has no use' if imported else 'not imported'}"
    binaries = f", {cubins} cubins" if cubins else ""
    evidence = [
        f"AOTInductor's package: {libraries}, {about.kernels} generated kernels{binaries}; calls of"
        f" libraries: {code}",
        f"from the package: {source}",
    ]
    wrong = None
    if frozen(case):
        evidence.append(generated.frozen(code, about.parameters))
        wrong = None if code.constants else Reason("unsupported_op", evidence[-1])
    if case.option("mode", "default") == "max-autotune" and case.target == "cpu":
        evidence.append(generated.chosen(code, frozen(case)))
    if case.precision in torch_step.HALF:
        evidence.append(torch_step.by_dtype(case, Counter(about.dtypes)))
    where = f"inductor on {case.target}"
    ran = Placement(
        where,
        {where: about.kernels + sum(code.operators.values())},
        {"graphs": 1, "generated_kernels": about.kernels},
        tuple(evidence),
        wrong,
    )
    return pt2e.judged(code, about.layers, ran, about.calibration) if case.precision == "int8" else ran


def contents(folder: Path) -> tuple[generated.Code, str, int]:
    """Returns what the C++ in the package says, its libraries in words, and how many
    cubins there are.
    """
    sources = _sources(folder)
    with zipfile.ZipFile(folder / FILE) as archive:
        members = archive.infolist()
        libraries = ", ".join(
            f"{Path(member.filename).name[:12]}... of {member.file_size} bytes"
            for member in members
            if member.filename.endswith(".so")
        )
    cubins = sum(member.filename.endswith(".cubin") for member in members)
    return generated.package(sources), libraries, cubins


def instructions(folder: Path) -> tuple[str, ...]:
    """Returns the instruction sets that a package may use which was built on this machine; none
    where the folder has no package.
    """
    if not (folder / FILE).is_file():
        return ()
    return cpu.native(tiles=any(TILE.search(source) for source in _sources(folder)))


def _sources(folder: Path) -> list[str]:
    """Returns the C++ in the package."""
    with zipfile.ZipFile(folder / FILE) as archive:
        return [archive.read(name).decode() for name in archive.namelist() if name.endswith(".cpp")]


def _digest(folder: Path) -> str:
    with (folder / FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
