"""fp32 products on the ordinary cores of a GPU that has tensor cores.

Tensor cores do about 8 times as many products: V100 15.7 to 125 TFLOP/s (fp16), A100 19.5 to 156
(TF32), H100 SXM 67 to 495 (TF32), NVIDIA's datasheets.
"""

import re

import numpy as np

from ...facts.facts import Facts
from ...facts.figures import summed
from ...tables.trace import Kind
from ..fix import Fix

# Kernels that multiply in fp32, and those among them that do it on tensor cores.
PRODUCT = re.compile(
    r"sgemm|scudnn|gemmSN|simt_s|(?:dgrad|wgrad)\w*_engine<float|implicit_convolve|gemv\w*<[^>]*float"
    r"|f32f32_\w*ffma"
)
ALREADY = re.compile(r"tensorop|tf32|1688|16816|884|hmma|_bf16|_h\d+gemm|f16")
# How many times as many products (above), and the first architectures with tensor cores and TF32.
RATIO = 8
FIRST_TENSOR = 7
FIRST_TF32 = 8


def look(facts: Facts) -> Fix | None:
    line, trace = facts.line, facts.trace
    major = trace.device.get("computeMajor")
    if not isinstance(major, int) or major < FIRST_TENSOR or "AMD" in trace.gpu_name:
        return None
    which = trace.named(PRODUCT) & ~trace.named(ALREADY)
    own = line.gpu.rows((line.gpu.kind == Kind.KERNEL) & which[line.gpu.name])
    if not len(own):
        return None
    total = int(np.sum(own.dur))
    advice = (
        "torch.set_float32_matmul_precision('high') (TF32), or bf16 by autocast"
        if major >= FIRST_TF32
        else "autocast to fp16 with a GradScaler"
    )
    return Fix(
        "tensor_cores",
        "Multiply matrices on tensor cores",
        total - total // RATIO,
        (
            (
                f"{len(own):,} fp32 products without tensor cores take {total / 1e6:.2f} ms on"
                f" {trace.gpu_name}; tensor cores do about {RATIO} times as many"
            ),
        ),
        f"{advice}; check the task metric",
        tuple(trace.names[code][:100] for code, _, _ in summed(own.name, own.dur)[:3]),
    )
