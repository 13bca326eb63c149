"""One step of AdamW for all parameters in one launch, in place.

With g = factor * gradient,

    p -= lr weight_decay p;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  p -= lr
                             (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

params and grads: lists of tensors of one dtype, each contiguous or channels_last; fp32, fp16, bf16;
exp_avgs (m) and exp_avg_sqs (v) fp32. step, lr and factor (of the gradients, for clipping) are
tensors (), on the device where nothing may wait for the host; none of them compiles anything again.
Arithmetic in fp32. Raises Unsupported for other forms. Loshchilov and Hutter, Decoupled Weight
Decay Regularization, https://arxiv.org/abs/1711.05101.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from ..chunks import KINDS, check_lists, locate_chunk, make_tables, pointer, table_bytes
from ..contract import DTYPES, Build, Cost, Unsupported, needs_launch
from . import total_norm

RETURNS = ()
GRADIENTS = ()
MUTATES = ("params", "exp_avgs", "exp_avg_sqs")
# Elements of a chunk, which one program takes.
CHUNK = 2048
# Eight elements of a chunk for each thread.
WARPS = 8
# As torch.optim.AdamW has them, for examples.
BETA1 = 0.9
BETA2 = 0.999
EPS = 1e-8


class AdamWInputs(NamedTuple):
    """What the operation takes, in the order of forward's parameters."""

    # Parameters, which are changed in place.
    params: list[torch.Tensor]
    # A gradient for each.
    grads: list[torch.Tensor]
    # Running means of the gradients, fp32, changed in place.
    exp_avgs: list[torch.Tensor]
    # Running means of their squares, fp32, changed in place.
    exp_avg_sqs: list[torch.Tensor]
    # Steps that were made, with this one (): from 1.
    step: torch.Tensor
    # Learning rate ().
    lr: torch.Tensor
    # What gradients are multiplied by before all else ().
    factor: torch.Tensor
    beta1: float
    beta2: float
    # Added to the root that is divided by.
    eps: float
    # Share of the learning rate by which a parameter shrinks.
    weight_decay: float


def reference(
    params: list[torch.Tensor],
    grads: list[torch.Tensor],
    exp_avgs: list[torch.Tensor],
    exp_avg_sqs: list[torch.Tensor],
    step: torch.Tensor,
    lr: torch.Tensor,
    factor: torch.Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    wide = exp_avgs[0].dtype
    first, second = 1 - beta1 ** step.double(), 1 - beta2 ** step.double()
    for p, gradient, m, v in zip(params, grads, exp_avgs, exp_avg_sqs, strict=True):
        g = gradient.to(wide) * factor
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        denominator = (v / second.to(wide)).sqrt_().add_(eps)
        p.copy_(p.to(wide) * (1 - lr * weight_decay) - lr / first.to(wide) * (m / denominator))


@triton.jit
def update(p, g, m, v, offset, inside, scalars, rest1, rest2, eps, weight_decay, MASKED: tl.constexpr):
    """One step of the elements at `offset` (CHUNK,), of those `inside` where MASKED."""
    lr = tl.load(scalars)
    first = tl.load(scalars + 1)
    second = tl.load(scalars + 2)
    factor = tl.load(scalars + 3)
    mask = inside if MASKED else None
    slope = tl.load(g + offset, mask=mask).to(tl.float32) * factor
    mean = tl.load(m + offset, mask=mask)
    mean += (slope - mean) * rest1
    square = tl.load(v + offset, mask=mask)
    square += (slope * slope - square) * rest2
    value = tl.load(p + offset, mask=mask).to(tl.float32)
    value = value * (1.0 - lr * weight_decay) - lr / first * (mean / (tl.sqrt(square / second) + eps))
    tl.store(p + offset, value, mask=mask)
    tl.store(m + offset, mean, mask=mask)
    tl.store(v + offset, square, mask=mask)


@triton.jit(do_not_specialize=["tensors"])
def update_kernel(
    addresses,
    chunks,
    scalars,
    tensors,
    rest1,
    rest2,
    eps,
    weight_decay,
    KIND: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Each program updates one chunk.

    addresses: of params, grads, exp_avgs, exp_avg_sqs, `tensors` each. scalars: lr, 1 -
    beta1^step, 1 - beta2^step, factor. rest1, rest2: 1 - beta, which would lose digits in fp32.
    """
    tensor, first, count = locate_chunk(chunks, CHUNK)
    p, g = pointer(addresses, tensor, KIND, ALIGNED), pointer(addresses, tensors + tensor, KIND, ALIGNED)
    m = pointer(addresses, 2 * tensors + tensor, tl.float32, ALIGNED)
    v = pointer(addresses, 3 * tensors + tensor, tl.float32, ALIGNED)
    within = tl.arange(0, CHUNK)  # (CHUNK,)
    if count == CHUNK:
        update(p, g, m, v, first + within, within < count, scalars, rest1, rest2, eps, weight_decay, False)
    else:
        update(p, g, m, v, first + within, within < count, scalars, rest1, rest2, eps, weight_decay, True)


def check(
    params: list[torch.Tensor],
    grads: list[torch.Tensor],
    exp_avgs: list[torch.Tensor],
    exp_avg_sqs: list[torch.Tensor],
) -> None:
    check_lists([params, grads, exp_avgs, exp_avg_sqs])
    kinds = [tensors[0].dtype for tensors in (params, grads, exp_avgs, exp_avg_sqs)]
    if kinds[0] not in KINDS or kinds[1] != kinds[0] or kinds[2:] != [torch.float32] * 2:
        raise Unsupported(
            f"params {kinds[0]}, grads {kinds[1]}, states {kinds[2]} and {kinds[3]}; expected params and"
            " grads of one of fp32, fp16, bf16, and states in fp32"
        )


def forward(
    params: list[torch.Tensor],
    grads: list[torch.Tensor],
    exp_avgs: list[torch.Tensor],
    exp_avg_sqs: list[torch.Tensor],
    step: torch.Tensor,
    lr: torch.Tensor,
    factor: torch.Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    check(params, grads, exp_avgs, exp_avg_sqs)
    filled = [index for index, param in enumerate(params) if needs_launch(param)]
    if not filled:
        return
    lists = [[tensors[index] for index in filled] for tensors in (params, grads, exp_avgs, exp_avg_sqs)]
    addresses, chunks, aligned = make_tables(lists, CHUNK)
    # In fp64: fp32 would lose half the digits of 1 - beta2 at the first steps.
    corrections = [1 - beta ** step.double() for beta in (beta1, beta2)]
    scalars = torch.stack([value.to(params[0].device, torch.float32) for value in (lr, *corrections, factor)])
    numbers = (len(filled), 1 - beta1, 1 - beta2, eps, weight_decay)
    update_kernel[(len(chunks),)](
        addresses, chunks, scalars, *numbers, KINDS[params[0].dtype], aligned, CHUNK, num_warps=WARPS
    )


def example(
    params: list[torch.Tensor], scalars: tuple[float, float, float], weight_decay: float
) -> AdamWInputs:
    """Inputs with random gradients, and with random states after the first step.

    The scalars are step, lr and factor.
    """
    step, lr, factor = (torch.tensor(value) for value in scalars)
    grads = [torch.randn_like(param) for param in params]
    means, squares = ([torch.zeros_like(param, dtype=torch.float32) for param in params] for _ in range(2))
    if step > 1:
        means = [torch.randn_like(mean) * 0.1 for mean in means]
        squares = [torch.rand_like(square) * 0.1 for square in squares]
    return AdamWInputs(params, grads, means, squares, step, lr, factor, BETA1, BETA2, EPS, weight_decay)


def examples(dtype: str) -> Iterator[AdamWInputs]:
    # (step, lr, factor) and weight_decay: early and late steps, with and without clipping.
    settings = cycle(
        (
            ((1.0, 1e-2, 1.0), 0.0),
            ((2.0, 0.1, 0.3), 0.1),
            ((1000.0, 1e-3, 1.0), 0.01),
            ((7.0, 0.5, 0.01), 0.1),
        )
    )
    for (scalars, decay), params in zip(settings, total_norm.example_lists(dtype), strict=False):
        yield example(params, scalars, decay)


def typical(dtype: str, count: int = 12, device: str = "meta") -> AdamWInputs:
    (params,) = total_norm.typical(dtype, count, device)
    grads = [torch.empty_like(param) for param in params]
    means, squares = ([torch.empty_like(param, dtype=torch.float32) for param in params] for _ in range(2))
    step, lr, factor = (torch.ones((), device=device) for _ in range(3))
    return AdamWInputs(params, grads, means, squares, step, lr, factor, BETA1, BETA2, EPS, weight_decay=0.1)


def cost(params: list[torch.Tensor], *rest: object) -> tuple[Cost]:
    n, (read, _) = sum(param.numel() for param in params), table_bytes(params, 4, CHUNK)
    return (Cost(n * (3 * params[0].element_size() + 16) + read + 16, 15 * n),)


def builds(dtype: str, target: str = "sm_80") -> list[Build]:
    last = {"KIND": getattr(tl, DTYPES[dtype]), "ALIGNED": True, "CHUNK": CHUNK}
    scalars = {"tensors": "i32", **dict.fromkeys(("rest1", "rest2", "eps", "weight_decay"), "fp32")}
    signature = {
        "addresses": "*i64",
        "chunks": "*i64",
        "scalars": "*fp32",
        **scalars,
        **dict.fromkeys(last, "constexpr"),
    }
    # The last chunk of a tensor is masked element by element, in a branch of its own: a parameter
    # and its gradient.
    tail = 2 * CHUNK // (32 * WARPS) if dtype != "fp32" else 0
    return [
        Build(
            "forward",
            update_kernel,
            signature,
            last,
            WARPS,
            divisible=("addresses", "chunks", "scalars"),
            single_loads=tail,
        )
    ]
