"""int8 on x86: torchao's PT2E (export, observe, convert) with its quantiser for Inductor, whose
pattern matcher makes oneDNN's qconv and qlinear of the result.

Activations: one scale and zero point a tensor, 8 bits, or 7 where a CPU's 8-bit products saturate,
from a histogram of the calibration rows; weights: symmetric, one scale an output channel
(torchao.quantization.pt2e.quantizer.x86_inductor_quantizer). Inductor packs quantised weights only
when it freezes, so int8 always freezes.

What calibration found is stored as plain arrays (ranges.npz), and a later process converts with
them again, to the same graph. torch.export.save is no way to store the converted program:
torch.export.load calls torch.load with weights_only=False for what needs it
(torch/export/pt2_archive/_package.py), and nothing is unpickled from an artefact.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..machine import cpu, present
from ..terms.case import Case
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement
from . import generated

if TYPE_CHECKING:
    import torch

# The file of a case's folder that holds the ranges of activations.
RANGES = "ranges.npz"
# In the names of torchao's observers of activations.
OBSERVER = "activation_post_process"
# Operators that torchao's quantiser for x86 takes.
LAYERS = (
    "aten.linear.default",
    "aten.conv1d.default",
    "aten.conv2d.default",
    "aten.conv3d.default",
    "aten.conv2d.padding",
)


def supports(case: Case) -> Reason | None:
    """Returns what only int8 rules out, None where nothing is."""
    if case.target != "cpu":
        return Reason(
            "unsupported_precision",
            f"int8 goes through torchao's quantiser for x86, so it is for cpu, not {case.target}; TensorRT"
            " has int8 on NVIDIA GPUs",
        )
    if case.option("autocast", "off") == "on":
        return Reason(
            "unsupported_precision",
            "autocast:on runs operators in bf16 or fp16; int8 has its own graph: drop one of the two",
        )
    if case.option("regional", "off") == "on":
        return Reason(
            "unsupported_op",
            "regional compiles the model's modules and int8 has one quantised graph without them: drop one of"
            " the two",
        )
    if case.option("mode", "default") == "max-autotune":
        return Reason(
            "unsupported_op",
            "with mode max-autotune int8 layers become C++ templates that cannot be told from fp32 ones"
            " afterwards; use mode default",
        )
    return present.missing("torchao", "pip install 'hotlap[int8]'")


def calibrate(
    program: torch.export.ExportedProgram, batches: Iterable[tuple[torch.Tensor, ...]], folder: Path
) -> None:
    """Runs the batches and writes the ranges of activations. Raises Refusal(export_failed)."""
    import numpy as np

    observed = _observed(program)
    for inputs in batches:
        observed(*inputs)
    ranges = {name: value.numpy() for name, value in observed.state_dict().items() if OBSERVER in name}
    np.savez(folder / RANGES, allow_pickle=False, **ranges)


def converted(program: torch.export.ExportedProgram, folder: Path) -> torch.fx.GraphModule:
    """Returns the quantised graph, from the stored ranges. Raises Refusal(export_failed)."""
    import numpy as np
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    observed = _observed(program)
    with np.load(folder / RANGES, allow_pickle=False) as stored:
        observed.load_state_dict({name: torch.tensor(stored[name]) for name in stored.files}, strict=False)
    try:
        graph: torch.fx.GraphModule = convert_pt2e(observed)
    except Exception as error:  # a pass of torchao may raise anything; the case has that as its reason
        raise Refusal("export_failed", f"PT2E cannot quantise it: {innermost(error)}") from error
    return graph


def _observed(program: torch.export.ExportedProgram) -> Any:
    """Returns the program with observers of its activations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchao's own imports warn
        import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
        from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e
    config = x86.get_default_x86_inductor_quantization_config(reduce_range=not cpu.eight_bit_products())
    quantiser = x86.X86InductorQuantizer().set_global(config)
    try:
        return prepare_pt2e(program.module(), quantiser)
    except Exception as error:  # as above
        raise Refusal("export_failed", f"PT2E cannot quantise it: {innermost(error)}") from error


def layers(graph: torch.fx.GraphModule) -> int:
    """Returns how many linear and convolution operators a graph has: what int8 is for."""
    return sum(str(node.target) in LAYERS for node in graph.graph.nodes if node.op == "call_function")


def judged(code: generated.Code, total: int, placement: Placement, source: str) -> Placement:
    """Returns the placement with what runs in int8 and what does not.

    total: layers that int8 is for. source: where the ranges come from.
    """
    int8, wrong = min(code.int8, total), placement.wrong
    if wrong is None and not int8:
        wrong = Reason(
            "unsupported_precision",
            f"none of {total} linear and convolution layers runs in int8; Inductor called {code}",
        )
    evidence = (
        f"int8: {int8} of {total} linear and convolution layers, by the names of the operators called: {code}"
    )
    counts = {"nodes": total, "nodes_other_precision": total - int8}
    ran_on = {"onednn int8 on cpu": int8, "layers in fp32 on cpu": total - int8}
    bits = 8 if cpu.eight_bit_products() else 7
    evidences = (*placement.evidence, evidence, f"ranges from {source}, activations in {bits} bits")
    return msgspec.structs.replace(
        placement,
        ran_on={**placement.ran_on, **ran_on},
        counters={**placement.counters, **counts},
        evidence=evidences,
        wrong=wrong,
    )


def innermost(error: BaseException) -> str:
    """Returns class and first line of the exception that caused all others."""
    while (inner := getattr(error, "inner_exception", None) or error.__cause__) is not None:
        error = inner
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"
