"""Shares of the roofline: known work on a known part, an independent program's figures for real
traces, and everything that must have no share.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hotlap.perf.lowering import torch_step
from hotlap.perf.machine import peaks
from hotlap.perf.terms import contract
from hotlap.profiles.facts import roofline
from hotlap.profiles.facts.facts import Facts
from hotlap.profiles.findings import review
from hotlap.profiles.tables import kineto

from .. import real, synthetic


def of(path: Path) -> list[roofline.Attained]:
    return Facts(kineto.read(path)).attained


def product(
    tmp_path: Path,
    length_us: float,
    name: str = "NVIDIA A100-SXM4-40GB",
    kernel: str = "ampere_sgemm",
    kind: str = "float",
    dims: Any = ((512, 1024), (1024, 256)),
) -> Path:
    events = [
        {**synthetic.operator("aten::mm", 8, 6), "args": {"Input Dims": dims, "Input type": [kind, kind]}},
        *synthetic.launched(kernel, 10, 20, length_us, 1),
    ]
    return synthetic.written(tmp_path / "trace.json", events, name=name)


FLOPS = 2 * 512 * 1024 * 256


@pytest.mark.parametrize(
    ("kernel", "kind", "precision", "rate"),
    [
        ("ampere_sgemm_128x64_nn", "float", "fp32", 19.5e12),
        ("cutlass_80_tensorop_s1688gemm_128x128_nn", "float", "tf32", 156e12),
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_nn", "float", "tf32", 156e12),
        ("cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16", "c10::BFloat16", "bf16", 312e12),
        ("turing_fp16_s1688gemm_fp16_128x128", "c10::Half", "fp16", 312e12),
    ],
)
def test_known_work_on_a_known_part(
    kernel: str, kind: str, precision: str, rate: float, tmp_path: Path
) -> None:
    (row,) = of(product(tmp_path, 100, kernel=kernel, kind=kind))
    size = 4 if kind == "float" else 2
    assert row.flops == FLOPS and row.precision == precision and row.length == 100_000
    assert row.moved_bytes == size * (512 * 1024 + 1024 * 256 + 512 * 256)
    assert row.share == pytest.approx(max(FLOPS / rate, row.moved_bytes / 1555e9) / 100e-6)


def test_above_the_roof_there_is_no_share(tmp_path: Path) -> None:
    (row,) = of(product(tmp_path, 5))
    assert row.share is None and row.why.startswith("above 100 %")
    assert roofline.by_operator([row]) == {}


def test_an_unknown_part_has_no_share(tmp_path: Path) -> None:
    (row,) = of(product(tmp_path, 100, name="NVIDIA Imaginary 9000"))
    assert row.share is None and row.why == "no peak of this device is known" and row.flops == FLOPS
    assert peaks.datasheet("NVIDIA Imaginary 9000") is None


def test_a_precision_that_the_part_lacks_has_no_share(tmp_path: Path) -> None:
    (row,) = of(product(tmp_path, 100, name="Tesla V100-SXM2-16GB", kind="c10::BFloat16"))
    assert row.share is None and row.why == "no peak is known for bf16"


@pytest.mark.parametrize(
    ("device", "half", "byte_rate"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 2039e9), ("NVIDIA A100 80GB PCIe", 312e12, 1935e9),
        ("NVIDIA A100-PG509-200", 312e12, 1555e9), ("NVIDIA H100 PCIe", 756.5e12, 2000e9),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 3350e9), ("NVIDIA H200", 989.4e12, 4800e9),
        ("NVIDIA L4", 121e12, 300e9), ("NVIDIA L40S", 362e12, 864e9), ("Tesla V100-DGXS-32GB", 125e12, 900e9),
        ("Tesla V100-PCIE-16GB", 112e12, 900e9), ("AMD Instinct MI250X / MI250", 191.5e12, 1638.4e9),
        ("Tesla T4", 65e12, 320e9),
    ],
)  # fmt: skip
def test_a_device_gets_its_own_datasheet(device: str, half: float, byte_rate: float) -> None:
    peak = peaks.datasheet(device)
    assert (
        peak is not None
        and peak.flop_rates["fp16"] == half
        and peak.byte_rate == byte_rate
        and "datasheet" in peak.source
    )


@pytest.mark.parametrize("trace", ["bert_small", "vit_nsfw", "qwen05b"])
def test_real_traces_as_another_program_has_them(trace: str) -> None:
    """TraceLens's figures for GEMM, convolution and attention, to a tenth of a per cent; it counts
    the bias of addmm as work and we do not.
    """
    attained = {(row.name, row.dims): row for row in of(real.trace(f"h100_{trace}_infer.json.gz"))}
    seen = 0
    for line in table(trace, "GEMM"):
        own = attained[line["name"], roofline.shapes_text(json.loads(line["Input Dims_first"]))]
        m, n, k, batch = (int(float(line[f"param: {name}"])) for name in "MNKB")
        extra = batch * m * n if line["param: bias"] == "True" else 0
        assert own.calls == int(line["name_count"])
        assert own.length == pytest.approx(1000 * float(line["Kernel Time (µs)_sum"]), rel=1e-5, abs=1)
        assert own.flops / own.calls + extra == pytest.approx(1e9 * float(line["GFLOPS_first"]), rel=1e-6)
        assert own.flops / own.calls == 2 * batch * m * n * k
        if own.precision == "bf16":
            assert own.moved_bytes / own.calls == pytest.approx(
                2**20 * float(line["Data Moved (MB)_first"]), rel=0.001
            )
        seen += 1
    for line in table(trace, "SDPA_fwd"):
        flash = next(
            row
            for row in attained.values()
            if row.name == "aten::_flash_attention_forward" and row.calls == int(line["name_count"])
        )
        assert flash.flops / flash.calls == pytest.approx(1e9 * float(line["GFLOPS_first"]), rel=1e-6)
        seen += 1
    assert seen >= 4
    for row in attained.values():
        assert row.share is None or 0 < row.share <= 1


def table(trace: str, name: str) -> list[dict[str, str]]:
    path = real.trace(f"expected/tracelens_h100_{trace}/{name}.csv")
    return list(csv.DictReader(path.read_text().splitlines()))


def test_work_of_a_cpu_profile_is_what_torch_counts(tmp_path: Path) -> None:
    """Products, convolutions (strided, padded, dilated, grouped), their gradients and attention,
    against torch's own counter.
    """
    net = torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3, stride=2, padding=1),
        torch.nn.Conv2d(8, 8, 3, padding="same", dilation=2),
        torch.nn.Conv2d(8, 16, 1, groups=2),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * 64, 32),
    )
    images, query = torch.randn(2, 4, 16, 16, requires_grad=True), torch.randn(2, 3, 17, 8)

    def work() -> None:
        net(images).square().mean().backward()
        torch.nn.functional.scaled_dot_product_attention(query, query, query)
        torch.bmm(query[0], query[1].mT)

    with FlopCounterMode(display=False) as counter:
        work()
    profiler = torch_step.torch_profiler(contract.Schedule(warmup=1, active=1), False)
    with profiler:
        for _ in range(2):
            work()
            profiler.step()
    torch_step.export_torch(profiler, tmp_path / "trace.json")
    rows = of(tmp_path / "trace.json")
    assert {row.name for row in rows} >= {
        "aten::mkldnn_convolution",
        "aten::convolution_backward",
        "aten::addmm",
        "aten::mm",
        "aten::bmm",
    }
    attention = 2 * 2 * 3 * 17 * 17 * (8 + 8)  # torch 2.14's counter does not know the CPU's kernel
    # and takes three instead of two times the forward for the gradients of the grouped convolution
    grouped = 2 * 16 * 64 * 2 * 4
    assert sum(row.flops for row in rows) == counter.get_total_flops() + attention - grouped
    assert all(row.share is None and row.why == "no peak of this device is known" for row in rows)


shapes = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@given(name=st.sampled_from(sorted(roofline.WORK)), dims=shapes, types=shapes, values=shapes)
def test_any_shapes_are_survived(name: str, dims: Any, types: Any, values: Any) -> None:
    text = (
        json.dumps([dims, types, values])
        .replace("NaN", "null")
        .replace("-Infinity", "null")
        .replace("Infinity", "null")
        .encode()
    )
    row = roofline.against_peak(name, text, 1, 1000, False, peaks.datasheet("A100"))
    assert row.share is None or 0 < row.share <= 1
    assert (row.share is None) == bool(row.why)


def test_operators_say_their_share_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hotlap.perf.cli import status
    from hotlap.profiles.pages.page import page

    path = product(tmp_path, 50)
    share = FLOPS / 19.5e12 / 50e-6
    assert status(["review", str(path)]) == 0
    assert f"aten::mm  ({share:.0%} of the roofline)" in capsys.readouterr().out
    shown = page(review.review(path))
    assert f"{share:.0%}" in shown and "NVIDIA A100 datasheet, 40 GB" in shown


TRUE = "True"


@pytest.mark.parametrize(
    ("name", "dims", "values", "why"),
    [
        ("aten::mm", [[4, 8], [9, 4]], [], "its shapes do not fit together"),
        ("aten::bmm", [[2, 4, 8], [2, 9, 4]], [], "its shapes do not fit together"),
        (
            "aten::convolution",
            [[1, 8, 9, 9], [8, 4, 3, 3], []],
            ["", "", "", "[2, 2]", "[0, 0]", "[1, 1]", TRUE],
            "a transposed convolution",
        ),
        (
            "aten::convolution_backward",
            [[1, 4, 9, 9], [1, 8, 9, 9], [8, 4, 3, 3]],
            ["", "", "", "", "[2]", "[0]", "[1]", TRUE, "[0]", "1", "[True, True]"],
            "a transposed convolution",
        ),
        (
            "mkldnn::_linear_pointwise",
            [[17, 192], [17, 192], [64, 192], [], []],
            [],
            "its shapes do not tell",
        ),
        (
            "aten::_flash_attention_forward",
            [[1, 5, 2, 8]] * 3 + [[3]],
            [""] * 9,
            "whether it is causal is not recorded",
        ),
    ],
)
def test_what_the_formula_does_not_fit_has_no_share(name: str, dims: Any, values: Any, why: str) -> None:
    row = roofline.against_peak(
        name, json.dumps([dims, ["float"], values]).encode(), 1, 10**9, False, peaks.datasheet("A100")
    )
    assert (row.share, row.why) == (None, why)


@pytest.mark.parametrize(
    "dims",
    [
        [["a", 10**16], [3, 10**16]],
        [[-1, 2], [2, 3]],
        [[True, 2], [2, 3]],
        [[1 << 50, 2], [2, 3]],
        [[1] * 1000, [2]],
        "ab",
        [[1.5, 2], [2, 2]],
    ],
)
def test_shapes_that_are_none_cost_nothing(dims: Any) -> None:
    row = roofline.against_peak(
        "aten::mm", json.dumps([dims, ["float"], []]).encode(), 1, 1000, False, peaks.datasheet("A100")
    )
    assert row.share is None and row.why == "its shapes are no shapes"


def test_arguments_nested_a_hundred_thousand_deep_cost_their_event_at_most(tmp_path: Path) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    event = (
        '{"ph": "X", "cat": "cpu_op", "name": "aten::mm", "ts": 1, "dur": 1, "pid": 1, "tid": 1, "args":'
        ' {"Input Dims": %s, "Input type": ["float"]}}'
    )
    path = tmp_path / "deep.json"
    path.write_text('{"traceEvents": [' + event % deep + ", " + event % "[[1, 2], [2, 3]]" + "]}")
    assert 1 <= kineto.read(path).events <= 2


@pytest.mark.parametrize(
    "device",
    [
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3090 Ti",
        "Tesla V100S-PCIE-32GB",
        "NVIDIA RTX 6000 Ada Generation",
        "Intel(R) Data Center GPU Max 1550",
    ],
)
def test_a_part_that_is_another_has_no_datasheet(device: str) -> None:
    assert peaks.datasheet(device) is None


@pytest.mark.parametrize(
    ("device", "half", "byte_rate"),
    [
        ("NVIDIA GB200", 2500, 8000),
        ("NVIDIA B200", 2250, 8000),
        ("NVIDIA GH200 480GB", 989.4, 4000),
        ("NVIDIA GH200 144G HBM3e", 989.4, 4900),
        ("NVIDIA H200", 989.4, 4800),
        ("NVIDIA L40", 181.05, 864),
        ("NVIDIA L40S", 362, 864),
        ("NVIDIA A40", 149.7, 696),
        ("NVIDIA RTX A6000", 154.8, 768),
        ("AMD Instinct MI355X", 2516.6, 8000),
        ("AMD Instinct MI325X", 1307.4, 6000),
        ("AMD Instinct MI210", 181, 1638.4),
    ],
)
def test_a_part_has_its_own_datasheet_and_no_others(device: str, half: float, byte_rate: float) -> None:
    peak = peaks.datasheet(device)
    assert peak is not None
    assert peak.flop_rates["fp16"] == half * 1e12 and peak.byte_rate == byte_rate * 1e9
