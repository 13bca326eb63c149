"""Knows what a machine can do at most: a GPU by its maker's datasheet, this CPU measured in the
same minutes as what it is compared with. The roof over every operator.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

# Rows and columns of the product: 256 FLOP a byte in fp32, so that memory does not limit it.
SIZE = 1536
# Those of the first product, which says how long the larger ones would take, and seconds that one
# may. A CPU without a precision's instructions makes 1 GFLOP/s in it: there no memory limits any
# size, and a product of SIZE would take 8 s.
FIRST_SIZE, LONGEST_S = SIZE // 8, 0.2
# Bytes that are copied: more than the caches of a core hold.
COPY_BYTES = 64 * 2**20
# Timed tries, of which the best counts.
TRIES = 5
# Tera and giga, in which datasheets are written.
T = 1e12
G = 1e9


class Peak(NamedTuple):
    """The most that a device can do."""

    # FLOP/s by precision, dense, with fp32 accumulation.
    flop_rates: dict[str, float]
    # Of the device's memory, B/s.
    byte_rate: float
    # Where the figures are printed.
    source: str

    def roofline_s(self, flops: float, moved_bytes: float, precision: str) -> float | None:
        """Returns the least time for so much work, s (Williams, Waterman and Patterson, CACM 52,
        2009); None for a precision that the part has no figure for.
        """
        rate = self.flop_rates.get(precision)
        return None if not rate or not self.byte_rate else max(flops / rate, moved_bytes / self.byte_rate)


def part(
    fp32: float,
    tf32: float | None,
    half: float,
    int8: float | None,
    byte_rate: float,
    source: str,
    bf16: bool = True,
) -> Peak:
    """Returns the peak of a part from its datasheet's figures.

    Rates are in TFLOP/s (int8: TOP/s) and GB/s as they are printed there; where only figures with
    sparsity are printed, half of them. None: there is no figure. bf16: whether it has half's rate.
    """
    rates = {"fp32": fp32 * T, "fp16": half * T}
    if bf16:
        rates["bf16"] = half * T
    if tf32:
        rates["tf32"] = tf32 * T
    if int8:
        rates["int8"] = int8 * T
    return Peak(rates, byte_rate * G, source)


# Pattern -> peak; the first pattern that a device's name contains counts. Of a part with two dies
# that are two devices (MI250) the half.
DATASHEETS: tuple[tuple[str, Peak], ...] = (
    # Of a superchip with two GPUs, one.
    (r"GB200", part(80, 1250, 2500, 5000, 8000, "NVIDIA GB200 NVL72 specifications, one of the two GPUs")),
    (
        r"B200",
        part(
            75,
            1125,
            2250,
            4500,
            8000,
            "NVIDIA Blackwell architecture brief, HGX B200; memory of DGX B200's datasheet",
        ),
    ),
    (
        r"GH200.*144G",
        part(67, 494.7, 989.4, 1978.9, 4900, "NVIDIA GH200 datasheet, 144 GB HBM3e; its GPU is H100 SXM's"),
    ),
    (
        r"GH200",
        part(67, 494.7, 989.4, 1978.9, 4000, "NVIDIA GH200 datasheet, 96 GB HBM3; its GPU is H100 SXM's"),
    ),
    (r"H200 NVL", part(60, 417.5, 835.5, 1670.5, 4800, "NVIDIA H200 datasheet, NVL")),
    (r"H200", part(67, 494.7, 989.4, 1978.9, 4800, "NVIDIA H200 datasheet, SXM")),
    (r"H100 NVL", part(60, 417.5, 835.5, 1670.5, 3900, "NVIDIA H100 datasheet, NVL")),
    (r"H100 PCIe", part(51, 378, 756.5, 1513, 2000, "NVIDIA H100 datasheet, PCIe")),
    (r"H100", part(67, 494.7, 989.4, 1978.9, 3350, "NVIDIA H100 datasheet, SXM")),
    (
        r"A100.*PCIE?.*80GB|A100 80GB PCIe",
        part(19.5, 156, 312, 624, 1935, "NVIDIA A100 datasheet, 80 GB PCIe"),
    ),
    (r"A100.*80GB", part(19.5, 156, 312, 624, 2039, "NVIDIA A100 datasheet, 80 GB SXM")),
    (r"A100", part(19.5, 156, 312, 624, 1555, "NVIDIA A100 datasheet, 40 GB")),
    (r"L40S", part(91.6, 183, 362, 733, 864, "NVIDIA L40S datasheet")),
    (r"L40\b", part(90.5, 90.5, 181.05, 362, 864, "NVIDIA L40 datasheet")),
    (r"\bA40\b", part(37.4, 74.8, 149.7, 299.3, 696, "NVIDIA A40 datasheet")),
    (
        r"RTX A6000",
        part(38.7, 77.4, 154.8, 309.7, 768, "NVIDIA RTX A6000 datasheet; GA102 architecture whitepaper"),
    ),
    (r"L4\b", part(30.3, 60, 121, 242.5, 300, "NVIDIA L4 datasheet")),
    (r"\bA10\b", part(31.2, 62.5, 125, 250, 600, "NVIDIA A10 datasheet")),
    (r"V100.*PCIE", part(14, None, 112, None, 900, "NVIDIA V100 datasheet, PCIe", bf16=False)),
    (r"V100", part(15.7, None, 125, None, 900, "NVIDIA V100 datasheet, SXM2", bf16=False)),
    (r"\bT4\b", part(8.1, None, 65, 130, 320, "NVIDIA T4 datasheet", bf16=False)),
    (r"RTX 4090", part(82.6, 82.6, 165.2, 660.6, 1008, "NVIDIA Ada GPU architecture whitepaper, appendix A")),
    (
        r"RTX 3090",
        part(35.6, 35.6, 71, 284, 936, "NVIDIA Ampere GA102 GPU architecture whitepaper, appendix A"),
    ),
    (
        r"RTX 2080 Ti",
        part(
            13.4,
            None,
            53.8,
            215.2,
            616,
            "NVIDIA Turing GPU architecture whitepaper, appendix A; reference clock",
            bf16=False,
        ),
    ),
    (r"MI355X", part(157.3, None, 2516.6, 5033.2, 8000, "AMD Instinct MI355X datasheet")),
    (r"MI325X", part(163.4, 653.7, 1307.4, 2614.9, 6000, "AMD Instinct MI325X datasheet")),
    (r"MI300X", part(163.4, 653.7, 1307.4, 2614.9, 5300, "AMD Instinct MI300X datasheet")),
    (r"MI250X", part(47.9, None, 191.5, 191.5, 1638.4, "AMD Instinct MI250X datasheet, one of two dies")),
    (r"MI210", part(45.3, None, 181, 181, 1638.4, "AMD Instinct MI210 datasheet")),
    (r"MI250", part(45.3, None, 181, 181, 1638.4, "AMD Instinct MI250 datasheet, one of two dies")),
)

# Parts whose names contain another's: slices of a GPU, mobile and other variants.
OTHERS = re.compile(r"MIG|Laptop|Max-Q|Mobile|V100S|4090 D|3090 Ti|SXM-?64GB")


def datasheet(device: str) -> Peak | None:
    """Returns the peak of a device by the name that the driver gives it; None for what is not in
    the table: no figure is better than another part's.
    """
    if OTHERS.search(device):
        return None
    return next((peak for pattern, peak in DATASHEETS if re.search(pattern, device)), None)


def measure(precision: str, threads: int) -> dict[str, float]:
    """Measures this CPU's flop_rate, FLOP/s, and byte_rate, B/s; nothing in a precision that torch
    has no product for. A copy counts its bytes twice, read and written.

    The best try counts: a peak is the machine undisturbed.
    """
    import torch  # here, because a datasheet is read without torch

    torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if dtype is None:
        return {}

    def product_s(size: int, tries: int) -> float:
        """Returns the best time of a product; the first try warms up."""
        left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
        times = []
        for _ in range(tries + 1):
            start = time.perf_counter()
            left @ right
            times.append(time.perf_counter() - start)
        return min(times[1:])

    source, sink = torch.zeros(COPY_BYTES, dtype=torch.uint8), torch.empty(COPY_BYTES, dtype=torch.uint8)
    size = FIRST_SIZE
    while size < SIZE and 8 * product_s(size, 1) <= LONGEST_S:
        size *= 2
    copies = []
    for _ in range(TRIES + 1):
        start = time.perf_counter()
        sink.copy_(source)
        copies.append(time.perf_counter() - start)
    return {
        "flop_rate": 2 * size**3 / product_s(size, TRIES),
        "byte_rate": 2 * COPY_BYTES / min(copies[1:]),
    }
