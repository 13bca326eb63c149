"""Attention by blocks, without ever storing the matrix of all queries and keys.

y = softmax(q k^T / sqrt(D) + mask) v; with `causal` query i sees keys 0 to i. q (B, H, S, D), k and
v (B, H, T, D); fp32, fp16, bf16; y as q; D up to 128; S and T at run time. Raises Unsupported for
other forms. Dao, Fu, Ermon, Rudra and Re, FlashAttention, https://arxiv.org/abs/2205.14135; the
running maximum and sum of Milakov and Gimelshein, https://arxiv.org/abs/1805.02867, in powers of
two. SDPA stays the default of torch; this one is for where it is not there.

With p = softmax and d = rowsum(dy y): dv = p^T dy, ds = p (dy v^T - d), dq = ds k / sqrt(D), dk =
ds^T q / sqrt(D); p is computed again from the log of each row's sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from ..contract import DTYPES, POINTER, Build, Cost, Unsupported, architecture, needs_launch
from ..patterns import Pattern

# Largest depth for which there is a tile below.
LARGEST = 128
# Stages of the pipeline of the loop over keys in the forward kernel.
STAGES = 3
# The same in the backward kernels, whose products leave no registers for a pipeline: in fp32
# keys_kernel has 170 with Triton 3.8, from 3.9 on so many that they spill, 56 without one (sm_90).
BACKWARD_STAGES = 1
RETURNS = ("y", "logs")
GRADIENTS = ("q", "k", "v")
AUTOCAST = "lower"
SETTINGS = ({"depth": 128}, {"causal": False}, {"depth": 128, "causal": False})
# (queries, keys, warps) of a program by the padded depth: as large as nothing spills (`hotlap
# kernels`). This is for products on tensor cores; 64 keys instead of 32, with these stages, took
# 0.89 (forward) and 0.90 (backward) of the time in bf16 on an H200 (docs/results/h200.md).
TENSOR_CORES = {64: (64, 64, 4), 128: (64, 32, 8)}
# The same in fp32, without tensor cores: a product needs several times the registers.
ORDINARY = {64: (32, 16, 8), 128: (16, 16, 8)}
# The same in fp16 and bf16 on sm_75, for which Triton 3.8 emits no tensor cores.
HALF_ORDINARY = {64: (32, 32, 8), 128: (16, 16, 8)}
# log2(e): exp(x) is 2^(x log2(e)), and powers of two are one instruction.
LOG2E = 1.4426950408889634


def reference(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)


def results(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    score = q.float() @ k.float().mT * (LOG2E / math.sqrt(q.shape[3]))  # (B, H, S, T)
    if causal:
        seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        score = score.masked_fill(~seen, float("-inf"))
    return reference(q, k, v, causal), torch.logsumexp(score / LOG2E, -1) * LOG2E


def whole(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def causal_only(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


PATTERNS = (Pattern(whole), Pattern(causal_only, lambda q, k, v: (q, k, v, True)))
ASKED_FOR = True


@triton.jit(do_not_specialize=["queries", "keys"])
def forward_kernel(
    q,
    k,
    v,
    y,
    logs,
    queries,
    keys,
    depth,
    factor,
    CAUSAL: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Each program takes one block of queries, over all keys that it sees.

    factor: log2(e) / sqrt(D). logs: log2 of each row's sum of powers of two.
    """
    head = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)  # (QUERIES,)
    d = tl.arange(0, DEPTH)  # (DEPTH,)
    rows = (m < queries)[:, None] & (d < depth)[None, :]
    query_at = head * queries * depth + m[:, None] * depth + d[None, :]
    query = tl.load(q + query_at, mask=rows, other=0.0)  # (QUERIES, DEPTH)
    most = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    weighted = tl.zeros((QUERIES, DEPTH), tl.float32)
    last = keys
    if CAUSAL:
        last = tl.minimum(keys, (tl.program_id(0) + 1) * QUERIES)
    for start in range(0, last, KEYS):
        n = start + tl.arange(0, KEYS)  # (KEYS,)
        columns = (n < keys)[:, None] & (d < depth)[None, :]
        key_at = head * keys * depth + n[:, None] * depth + d[None, :]
        key = tl.load(k + key_at, mask=columns, other=0.0)  # (KEYS, DEPTH)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * factor  # (QUERIES, KEYS)
        seen = (n < keys)[None, :]
        if CAUSAL:
            seen = seen & (n[None, :] <= m[:, None])
        score = tl.where(seen, score, float("-inf"))
        higher = tl.maximum(most, tl.max(score, 1))
        power = tl.exp2(score - higher[:, None])
        rescaled = tl.exp2(most - higher)
        total = total * rescaled + tl.sum(power, 1)
        value = tl.load(v + key_at, mask=columns, other=0.0)
        weighted = weighted * rescaled[:, None] + tl.dot(power.to(value.dtype), value, input_precision="ieee")
        most = higher
    tl.store(y + query_at, weighted / total[:, None], mask=rows)
    tl.store(logs + head * queries + m, most + tl.log2(total), mask=m < queries)


@triton.jit(do_not_specialize=["queries", "keys"])
def keys_kernel(
    dy,
    q,
    k,
    v,
    logs,
    dots,
    dk,
    dv,
    queries,
    keys,
    depth,
    factor,
    scale,
    CAUSAL: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Each program makes dk and dv of one block of keys, over all queries that see it."""
    head = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * KEYS + tl.arange(0, KEYS)
    d = tl.arange(0, DEPTH)
    columns = (n < keys)[:, None] & (d < depth)[None, :]
    key_at = head * keys * depth + n[:, None] * depth + d[None, :]
    key = tl.load(k + key_at, mask=columns, other=0.0)
    value = tl.load(v + key_at, mask=columns, other=0.0)
    of_key = tl.zeros((KEYS, DEPTH), tl.float32)
    of_value = tl.zeros((KEYS, DEPTH), tl.float32)
    first = 0
    if CAUSAL:
        first = tl.program_id(0) * KEYS // QUERIES * QUERIES
    for start in range(first, queries, QUERIES):
        m = start + tl.arange(0, QUERIES)
        rows = (m < queries)[:, None] & (d < depth)[None, :]
        query_at = head * queries * depth + m[:, None] * depth + d[None, :]
        query = tl.load(q + query_at, mask=rows, other=0.0)
        slope = tl.load(dy + query_at, mask=rows, other=0.0)
        log = tl.load(logs + head * queries + m, mask=m < queries, other=float("inf"))
        dot = tl.load(dots + head * queries + m, mask=m < queries, other=0.0)
        seen = (n < keys)[None, :] & (m < queries)[:, None]
        if CAUSAL:
            seen = seen & (n[None, :] <= m[:, None])
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * factor
        p = tl.where(seen, tl.exp2(score - log[:, None]), 0.0)  # (QUERIES, KEYS)
        of_value += tl.dot(tl.trans(p.to(slope.dtype)), slope, input_precision="ieee")
        ds = p * (tl.dot(slope, tl.trans(value), input_precision="ieee") - dot[:, None])
        of_key += tl.dot(tl.trans(ds.to(query.dtype)), query, input_precision="ieee")
    tl.store(dk + key_at, of_key * scale, mask=columns)
    tl.store(dv + key_at, of_value, mask=columns)


@triton.jit(do_not_specialize=["queries", "keys"])
def queries_kernel(
    dy,
    q,
    k,
    v,
    logs,
    dots,
    dq,
    queries,
    keys,
    depth,
    factor,
    scale,
    CAUSAL: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Each program makes dq of one block of queries, over all keys that it sees."""
    head = tl.program_id(1).to(tl.int64)
    m = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    d = tl.arange(0, DEPTH)
    rows = (m < queries)[:, None] & (d < depth)[None, :]
    query_at = head * queries * depth + m[:, None] * depth + d[None, :]
    query = tl.load(q + query_at, mask=rows, other=0.0)
    slope = tl.load(dy + query_at, mask=rows, other=0.0)
    log = tl.load(logs + head * queries + m, mask=m < queries, other=float("inf"))
    dot = tl.load(dots + head * queries + m, mask=m < queries, other=0.0)
    of_query = tl.zeros((QUERIES, DEPTH), tl.float32)
    last = keys
    if CAUSAL:
        last = tl.minimum(keys, (tl.program_id(0) + 1) * QUERIES)
    for start in range(0, last, KEYS):
        n = start + tl.arange(0, KEYS)
        columns = (n < keys)[:, None] & (d < depth)[None, :]
        key_at = head * keys * depth + n[:, None] * depth + d[None, :]
        key = tl.load(k + key_at, mask=columns, other=0.0)
        value = tl.load(v + key_at, mask=columns, other=0.0)
        seen = (n < keys)[None, :] & (m < queries)[:, None]
        if CAUSAL:
            seen = seen & (n[None, :] <= m[:, None])
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * factor
        p = tl.where(seen, tl.exp2(score - log[:, None]), 0.0)
        ds = p * (tl.dot(slope, tl.trans(value), input_precision="ieee") - dot[:, None])
        of_query += tl.dot(ds.to(key.dtype), key, input_precision="ieee")
    tl.store(dq + query_at, of_query * scale, mask=rows)


def padded(depth: int) -> int:
    """Returns the power of two, of at least 16, to which products ask a depth to be padded."""
    return max(16, 1 << (depth - 1).bit_length())


def tile(item: int, depth: int, target: str) -> tuple[int, int, int]:
    """Returns queries, keys and warps of a program for elements of `item` bytes."""
    if item == 4:
        tiles = ORDINARY
    elif target == "sm_75":
        tiles = HALF_ORDINARY
    else:
        tiles = TENSOR_CORES
    return tiles[64 if depth <= 64 else 128]


def check(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    same = (
        q.ndim == k.ndim == 4
        and k.shape == v.shape
        and q.shape[:2] == k.shape[:2]
        and q.shape[3] == k.shape[3]
        and q.dtype == k.dtype == v.dtype
    )
    if not same or not 1 <= q.shape[3] <= LARGEST or not k.shape[2]:
        raise Unsupported(
            f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}; expected (B, H, S, D), twice (B, H,"
            f" T, D) with T at least 1, one dtype, D up to {LARGEST}"
        )


def forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns y and the log2 of each row's sum (B, H, S)."""
    check(q, k, v)
    query, key, value = q.contiguous(), k.contiguous(), v.contiguous()
    batch, heads, queries, depth = q.shape
    y = torch.empty_like(query)
    logs = torch.empty(batch, heads, queries, dtype=torch.float32, device=q.device)
    if needs_launch(y):
        rows, columns, warps = tile(q.element_size(), depth, architecture(q.device))
        grid = (triton.cdiv(queries, rows), batch * heads)
        tensors = (query, key, value, y, logs)
        sizes = (queries, k.shape[2], depth, LOG2E / math.sqrt(depth))
        tiles = (causal, rows, columns, padded(depth))
        forward_kernel[grid](*tensors, *sizes, *tiles, num_warps=warps, num_stages=STAGES)
    return y, logs


def backward(
    dy: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    causal: bool,
    y: torch.Tensor,
    logs: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns dq, dk and dv."""
    slope, query, key, value = dy.contiguous(), q.contiguous(), k.contiguous(), v.contiguous()
    batch, heads, queries, depth = q.shape
    dots = (slope.float() * y.float()).sum(-1)  # (B, H, S)
    dq, dk, dv = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
    if needs_launch(q):
        rows, columns, warps = tile(q.element_size(), depth, architecture(q.device))
        tensors = (slope, query, key, value, logs, dots)
        scale = 1 / math.sqrt(depth)
        sizes = (queries, k.shape[2], depth, LOG2E / math.sqrt(depth), scale)
        last = (*sizes, causal, rows, columns, padded(depth))
        keys_kernel[(triton.cdiv(k.shape[2], columns), batch * heads)](
            *tensors, dk, dv, *last, num_warps=warps, num_stages=BACKWARD_STAGES
        )
        queries_kernel[(triton.cdiv(queries, rows), batch * heads)](
            *tensors, dq, *last, num_warps=warps, num_stages=BACKWARD_STAGES
        )
    return dq, dk, dv


def examples(dtype: str) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]]:
    kind = getattr(torch, DTYPES[dtype])
    for (batch, heads, queries, keys, depth), causal in (
        ((1, 1, 1, 1, 16), False),
        ((1, 2, 5, 7, 8), False),
        ((2, 1, 64, 32, 32), False),
        ((1, 1, 65, 33, 64), True),
        ((1, 2, 130, 70, 24), False),
        ((1, 1, 70, 130, 128), True),
        ((1, 2, 64, 64, 64), True),
        ((0, 2, 4, 4, 16), False),
    ):
        q = torch.randn(batch, heads, queries, depth, dtype=kind)
        k, v = (torch.randn(batch, heads, keys, depth, dtype=kind) for _ in range(2))
        yield q, k, v, causal
    swapped = torch.randn(1, 40, 2, 32, dtype=kind).transpose(1, 2)  # as (B, S, H, D) lies
    k, v = (torch.randn(1, 2, 40, 32, dtype=kind) for _ in range(2))
    yield swapped, k, v, True


def typical(
    dtype: str, count: int = 1024, device: str = "meta", depth: int = 64, causal: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]:
    q, k, v = (
        torch.empty(16, 12, count, depth, dtype=getattr(torch, DTYPES[dtype]), device=device)
        for _ in range(3)
    )
    return q, k, v, causal


def cost(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> tuple[Cost, Cost, Cost]:
    """Returns what must move at least, of the forward kernel and of the two backward ones.

    Blocks are read again by the programs that need them, from the cache where it holds them. Keys
    that no query sees are not read.
    """
    batch, heads, queries, depth = q.shape
    keys, item = k.shape[2], q.element_size()
    rows = tile(item, depth, architecture(q.device))[0]
    seen = min(keys, -(-queries // rows) * rows) if causal else keys
    of_rows, of_keys, of_seen = (batch * heads * count for count in (queries, keys, seen))
    product = 2 * batch * heads * queries * seen * depth // (2 if causal else 1)
    read = 2 * of_rows * depth * item + 8 * of_rows
    return (
        Cost((2 * of_rows + 2 * of_seen) * depth * item + 4 * of_rows, 2 * product),
        Cost(read + 4 * of_keys * depth * item, 4 * product),
        Cost(read + (2 * of_seen + of_rows) * depth * item, 3 * product),
    )


def builds(dtype: str, target: str = "sm_80", depth: int = 64, causal: bool = True) -> list[Build]:
    item = 4 if dtype == "fp32" else 2
    queries, keys, warps = tile(item, depth, target)
    pointer = POINTER[dtype]
    last = {"CAUSAL": causal, "QUERIES": queries, "KEYS": keys, "DEPTH": padded(depth)}
    sizes = {"queries": "i32", "keys": "i32", "depth": "i32", "factor": "fp32"}
    beside = {**dict.fromkeys(("dy", "q", "k", "v"), pointer), "logs": "*fp32", "dots": "*fp32"}

    def build(
        name: str, kernel: object, tensors: dict[str, str], more: dict[str, str], stages: int = STAGES
    ) -> Build:
        signature = {**tensors, **sizes, **more, **dict.fromkeys(last, "constexpr")}
        return Build(name, kernel, signature, last, warps, stages, divisible=(*tensors, "depth"), dot=True)

    inputs = {**dict.fromkeys(("q", "k", "v", "y"), pointer), "logs": "*fp32"}
    gradients, scale = {**beside, "dk": pointer, "dv": pointer}, {"scale": "fp32"}
    return [
        build("forward", forward_kernel, inputs, {}),
        build("backward_keys", keys_kernel, gradients, scale, BACKWARD_STAGES),
        build("backward_queries", queries_kernel, {**beside, "dq": pointer}, scale, BACKWARD_STAGES),
    ]
