"""One step of AdamW for all parameters in one launch, in place: with g = factor * gradient,

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

import torch
import triton
import triton.language as tl

from .. import chunks as many
from ..chunks import CHUNK, KINDS, place, pointer
from ..contract import DTYPES, Build, Cost, Unsupported, launches
from . import total_norm

RETURNS = ()
GRADIENTS = ()
MUTATES = ("params", "exp_avgs", "exp_avg_sqs")
WARPS = 8
Tensors = list[torch.Tensor]


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
def update(p, g, m, v, at, inside, scalars, rest1, rest2, eps, weight_decay, MASKED: tl.constexpr):
    lr = tl.load(scalars)
    first = tl.load(scalars + 1)
    second = tl.load(scalars + 2)
    factor = tl.load(scalars + 3)
    mask = inside if MASKED else None
    slope = tl.load(g + at, mask=mask).to(tl.float32) * factor
    mean = tl.load(m + at, mask=mask)
    mean += (slope - mean) * rest1
    square = tl.load(v + at, mask=mask) * (1.0 - rest2) + slope * slope * rest2
    value = tl.load(p + at, mask=mask).to(tl.float32)
    value = value * (1.0 - lr * weight_decay) - lr / first * (mean / (tl.sqrt(square / second) + eps))
    tl.store(p + at, value, mask=mask)
    tl.store(m + at, mean, mask=mask)
    tl.store(v + at, square, mask=mask)


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
    """scalars: lr, 1 - beta1^step, 1 - beta2^step, factor.

    addresses: of params, grads, exp_avgs, exp_avg_sqs, `tensors` each.

    rest1, rest2: 1 - beta, which would lose digits in fp32.
    """
    tensor, first, count = place(chunks, CHUNK)
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
    many.check([params, grads, exp_avgs, exp_avg_sqs])
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
    filled = [at for at, one in enumerate(params) if launches(one)]
    if not filled:
        return
    lists = [[tensors[at] for at in filled] for tensors in (params, grads, exp_avgs, exp_avg_sqs)]
    addresses, chunks, aligned = many.tables(lists)
    corrections = [
        1 - beta ** step.double() for beta in (beta1, beta2)
    ]  # fp32 would lose half the digits of 1 - beta2 at the first steps
    scalars = torch.stack([one.to(params[0].device, torch.float32) for one in (lr, *corrections, factor)])
    numbers = (len(filled), 1 - beta1, 1 - beta2, eps, weight_decay)
    update_kernel[(len(chunks),)](
        addresses, chunks, scalars, *numbers, KINDS[params[0].dtype], aligned, CHUNK, num_warps=WARPS
    )


def made(
    params: Tensors, step: float, lr: float, factor: float, weight_decay: float
) -> tuple[
    Tensors, Tensors, Tensors, Tensors, torch.Tensor, torch.Tensor, torch.Tensor, float, float, float, float
]:
    grads = [torch.randn_like(one) for one in params]
    means, squares = ([torch.zeros_like(one, dtype=torch.float32) for one in params] for _ in range(2))
    if step > 1:
        means = [torch.randn_like(one) * 0.1 for one in means]
        squares = [torch.rand_like(one) * 0.1 for one in squares]
    return (
        params,
        grads,
        means,
        squares,
        *(torch.tensor(value) for value in (step, lr, factor)),
        0.9,
        0.999,
        1e-8,
        weight_decay,
    )


def examples(
    dtype: str,
) -> Iterator[
    tuple[
        Tensors,
        Tensors,
        Tensors,
        Tensors,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        float,
        float,
        float,
        float,
    ]
]:
    settings = cycle(
        ((1.0, 1e-2, 1.0, 0.0), (2.0, 0.1, 0.3, 0.1), (1000.0, 1e-3, 1.0, 0.01), (7.0, 0.5, 0.01, 0.1))
    )
    for (step, lr, factor, decay), params in zip(settings, total_norm.sizes(dtype), strict=False):
        yield made(params, step, lr, factor, decay)


def typical(
    dtype: str, count: int = 12, device: str = "meta"
) -> tuple[
    Tensors, Tensors, Tensors, Tensors, torch.Tensor, torch.Tensor, torch.Tensor, float, float, float, float
]:
    (params,) = total_norm.typical(dtype, count, device)
    grads, means, squares = (
        [torch.empty_like(one, dtype=kind) for one in params]
        for kind in (params[0].dtype, torch.float32, torch.float32)
    )
    return (
        params,
        grads,
        means,
        squares,
        *(torch.ones((), device=device) for _ in range(3)),
        0.9,
        0.999,
        1e-8,
        0.1,
    )


def cost(params: Tensors, *rest: object) -> tuple[Cost]:
    n, (read, _) = sum(one.numel() for one in params), many.table_bytes(params, 4)
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
