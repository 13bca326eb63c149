"""What this machine can do at most, measured in the same minutes: FLOP/s of a large matrix product, bytes/s of a large copy."""

from __future__ import annotations

import time

SIZE = 1536
COPY_BYTES = 64 * 2**20
TRIES = 5


def measure(precision: str, threads: int) -> dict[str, float]:
    """Best of five: a peak is the machine undisturbed. A copy counts its bytes twice, read and written."""
    import torch

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if dtype is None:
        return {}
    left, right = torch.randn(SIZE, SIZE).to(dtype), torch.randn(SIZE, SIZE).to(dtype)
    source, sink = torch.zeros(COPY_BYTES, dtype=torch.uint8), torch.empty(COPY_BYTES, dtype=torch.uint8)
    products, copies = [], []
    for _ in range(TRIES + 1):
        start = time.perf_counter()
        left @ right
        middle = time.perf_counter()
        sink.copy_(source)
        products.append(middle - start)
        copies.append(time.perf_counter() - middle)
    return {"flop_rate": 2 * SIZE**3 / min(products[1:]), "byte_rate": 2 * COPY_BYTES / min(copies[1:])}
