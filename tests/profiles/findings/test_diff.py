"""What changed between two traces, above what repeated runs differ by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.perf.terms import verdict
from hotlap.profiles.facts import kinds
from hotlap.profiles.findings import diff

from .. import synthetic


def trained(
    path: Path,
    *,
    compute: float = 60,
    launch_gap: float = 0,
    extra: int = 0,
    steps: int = 4,
    wall: float = 100,
    **more: Any,
) -> Path:
    """Steps of 100 us with a product of 60 us in each, launched ahead."""
    events = []
    for number in range(steps):
        start, key = wall * number, 10 * number + 1
        events += [synthetic.step(number, start, wall), synthetic.operator("aten::mm", start + 1, 5)]
        events += synthetic.launched("gemm", start + 2, start + 10 + launch_gap, compute, key)
        for copy in range(extra):
            events += [
                synthetic.operator("aten::copy_", start + 20 + copy, 1),
                *synthetic.launched(
                    "copy_kernel", start + 20.2 + copy, start + 80 + 2 * copy, 2, key + 1 + copy, call_dur=0.5
                ),
            ]
    return synthetic.written(path, events, **more)


@pytest.mark.parametrize(
    ("changed", "status", "metric"),
    [
        ({}, 0, None),
        ({"compute": 60.3}, 0, None),
        ({"compute": 62}, 1, "compute"),
        ({"extra": 2}, 1, "compute"),
        ({"compute": 50}, 0, None),
        ({"wall": 120}, 1, "step_time"),
        ({"wall": 108}, 3, "step_time"),
        ({"steps": 8}, 0, None),
    ],
)
def test_what_counts_and_what_does_not(
    changed: dict[str, float],
    status: int,
    metric: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    base = trained(tmp_path / "base.json")
    head = trained(tmp_path / "head.json", **changed)
    out = tmp_path / "out.json"
    assert cli.status(["review", str(head), str(base), "--json", str(out)]) == status, capsys.readouterr().out
    judged = verdict.read(out)
    assert [finding.metric for finding in judged.findings if finding.verdict != "pass"] == (
        [metric] if metric else []
    )


def test_the_operator_that_grew_is_named_in_the_finding(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    cli.status(
        [
            "review",
            str(trained(tmp_path / "head.json", extra=2)),
            str(trained(tmp_path / "base.json")),
            "--json",
            str(out),
        ]
    )
    (worse,) = verdict.read(out).having("regression")
    assert worse.evidence[0] == "aten::copy_: +4.00 us a step (0 ns -> 4.00 us, 0 -> 2 times)"
    moved = json.loads(out.read_bytes())["baseline"]
    assert moved["kernels"][0]["name"] == "copy_kernel" and moved["kernels"][0]["within"] == "aten::copy_"


def test_a_new_kernel_of_the_same_operator_is_no_change_of_the_operator(tmp_path: Path) -> None:
    base = trained(tmp_path / "base.json")
    head = tmp_path / "head.json"
    head.write_text(trained(tmp_path / "same.json").read_text().replace('"gemm"', '"gemm_other_tile"'))
    out = tmp_path / "out.json"
    assert cli.status(["review", str(head), str(base), "--json", str(out)]) == 0
    moved = json.loads(out.read_bytes())["baseline"]
    assert moved["operators"] == [] and {row["name"] for row in moved["kernels"]} == {
        "gemm",
        "gemm_other_tile",
    }


@pytest.mark.parametrize("broken", ["device", "cut", "no GPU"])
def test_what_cannot_be_compared_is_shown_and_never_green(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = trained(tmp_path / "base.json")
    head = trained(tmp_path / "head.json", name="NVIDIA H100" if broken == "device" else "NVIDIA A100")
    if broken == "cut":
        head.write_bytes(head.read_bytes()[:-300])
    elif broken == "no GPU":
        synthetic.written(head, [synthetic.operator("aten::mm", 0, 1)])
    assert cli.status(["review", str(head), str(base)]) == 4
    output = capsys.readouterr().out
    assert {
        "device": "different devices, NVIDIA A100 and NVIDIA H100",
        "cut": "HEAD is damaged",
        "no GPU": "HEAD is without GPU events",
    }[broken] in output


def test_the_gate_takes_it_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "review.json"
    cli.status(
        [
            "review",
            str(trained(tmp_path / "head.json", compute=70)),
            str(trained(tmp_path / "base.json")),
            "--json",
            str(out),
        ]
    )
    plain = tmp_path / "plain.json"
    stats = {
        "mean": 1.0,
        "stddev": 0.001,
        "median": 1.0,
        "iqr": 0.001,
        "rounds": 50,
        "min": 1.0,
        "max": 1.0,
        "data": [1.0 + 0.0001 * (index % 7) for index in range(50)],
    }
    plain.write_text(
        json.dumps(
            {
                "version": "5.0.0",
                "machine_info": {},
                "benchmarks": [{"name": "t", "fullname": "t", "stats": stats}],
            }
        )
    )
    copy = tmp_path / "copy.json"
    copy.write_bytes(plain.read_bytes() + b"\n")
    assert cli.status(["gate", str(plain), str(copy), "--with", str(out)]) == 1
    assert "compute" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matrix product"), ("aten::mm", "matrix product"), ("Gemm on CPU", "matrix product"),
        ("FullyConnected on brgconv_avx512_1x1_f32", "matrix product"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16>", "matrix product"),
        ("aten::mkldnn_convolution", "convolution"), ("CaskConvolution", "convolution"),
        ("aten::convolution_backward", "convolution"), ("aten::native_layer_norm", "normalization"),
        ("MVN on jit_avx512_f32", "normalization"), ("aten::mul_", "elementwise"),
        ("aten::add", "elementwise"), ("Gelu on CPU", "elementwise"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"), ("aten::_softmax", "softmax"),
        ("aten::copy_", "layout and copies"), ("Reformat", "layout and copies"),
        ("aten::_to_copy", "layout and copies"), ("aten::convert_element_type", "layout and copies"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "communication"),
        ("triton_poi_fused_add_0", "fused kernel"), ("Subgraph on jit_avx512_f32", "fused kernel"),
        ("Optimizer.step#AdamW.step", "optimizer"),
        ("enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", "data loading"),
        ("aten::max_pool2d_with_indices", "pooling"),
        ("Python between operators (no stacks recorded)", "framework and Python"),
        ("TorchDynamo Cache Lookup", "framework and Python"), ("vllm::moe_forward", "other"),
    ],
)  # fmt: skip
def test_an_operator_is_for_the_same_under_every_name(name: str, kind: str) -> None:
    assert kinds.of(name) == kind


def captured_on(
    path: Path, backend: str, plain_s: float, hardware: str = "a machine", operators: int = 3
) -> Path:
    """A profile of a CPU as `hotlap profile` writes it: three steps of 100 us with operators of 10
    us.
    """
    events = []
    for number in range(3):
        events.append(
            synthetic.step(number, 1000 * number, 100)
            if backend == "eager"
            else synthetic.event("Session", "model_run", 1000 * number, 100)
        )
        for index in range(operators):
            where = 1000 * number + 10 * index
            events.append(
                synthetic.operator("aten::addmm", where, 10)
                if backend == "eager"
                else synthetic.event("Node", "n", where, 10, op_name="Gemm", provider="CPUExecutionProvider")
            )
    for event in events:
        event["args"] = {
            key.replace(" ", "_") if key == "op name" else key: value for key, value in event["args"].items()
        }
    about = {
        "case": f"net/{backend}/fp32/b1/cpu/inference",
        "backend": backend,
        "hardware": hardware,
        "overhead": {"plain_s": plain_s, "profiled_s": 1e-4, "calls": [20, 3]},
    }
    path.write_text(json.dumps({"hotlap": about, "traceEvents": events}))
    return path


@pytest.mark.parametrize(("plain_s", "verdict"), [(90e-6, 0), (102e-6, 0), (130e-6, 3), (210e-6, 1)])
def test_captured_on_a_cpu_the_calls_without_the_profiler_are_judged(
    plain_s: float, verdict: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = captured_on(tmp_path / "base.json", "eager", 100e-6)
    head = captured_on(tmp_path / "head.json", "onnxruntime", plain_s, operators=1)
    assert cli.status(["review", str(head), str(base)]) == verdict
    output = capsys.readouterr().out
    assert "step_time 100 us ->" in output
    assert ("so " in output) == (plain_s != 102e-6)
    assert "matrix product, 3 -> 1 times" in output and (
        "because: outside operators +" in output or verdict != 1
    )


def test_a_profiler_that_costs_much_is_said_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = captured_on(tmp_path / "base.json", "eager", 100e-6)
    head = captured_on(tmp_path / "head.json", "onnxruntime", 50e-6, operators=1)
    assert cli.status(["review", str(head), str(base)]) == 0
    assert (
        "HEAD's profiler makes calls 2.0 times as long, so its parts are upper bounds"
        in capsys.readouterr().out
    )


def test_other_hardware_is_shown_and_not_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = captured_on(tmp_path / "base.json", "eager", 1e-4)
    head = captured_on(tmp_path / "head.json", "eager", 2e-4, hardware="another")
    assert cli.status(["review", str(head), str(base)]) == 4
    assert "different devices, a machine and another" in capsys.readouterr().out


def test_different_tools_without_plain_times_are_shown_and_not_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = []
    for backend in ("eager", "onnxruntime"):
        path = captured_on(tmp_path / f"{backend}.json", backend, 1e-4)
        content = json.loads(path.read_text())
        del content["hotlap"]
        path.write_text(json.dumps(content))
        sides.append(str(path))
    assert cli.status(["review", *sides]) == 4
    assert "which CPU a file is of is not recorded: shown, not judged" in capsys.readouterr().out


def test_a_base_that_has_none_of_it_is_no_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies = synthetic.written(
        tmp_path / "copies.json",
        [
            event
            for start in (0, 50)
            for event in (
                synthetic.call("cudaMemcpyAsync", start, 2, start + 1),
                synthetic.kernel("Memcpy HtoD", start + 5, 30, start + 1, cat="gpu_memcpy"),
            )
        ],
    )
    kernels = synthetic.written(
        tmp_path / "kernels.json",
        [event for start in (0, 50) for event in synthetic.launched("gemm", start, start + 5, 30, start + 1)],
    )
    assert cli.status(["review", str(kernels), str(copies)]) == 3
    assert "compute   0 ns -> 60.0 us" in capsys.readouterr().out


def recorded(path: Path, **changed: Any) -> Path:
    """A capture whose section says something else."""
    content = json.loads(captured_on(path, "eager", 1e-4).read_text())
    content["hotlap"] |= changed
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "case",
    ["other/eager/fp32/b1/cpu/inference", "net/eager/fp32/b8/cpu/inference", "net/eager/fp32/b1/cpu/train"],
)
def test_different_work_is_shown_and_not_judged(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        cli.status(
            [
                "review",
                str(recorded(tmp_path / "head.json", case=case)),
                str(recorded(tmp_path / "base.json")),
            ]
        )
        == 4
    )
    assert "different work" in capsys.readouterr().out
    precise = recorded(tmp_path / "bf16.json", case="net/compile/bf16/b1/cpu/inference[mode:max-autotune]")
    assert cli.status(["review", str(precise), str(recorded(tmp_path / "base.json"))]) == 0


@pytest.mark.parametrize(
    "overhead",
    [
        {"plain_s": 0, "profiled_s": 1, "calls": [1, 1]},
        {"plain_s": 1e300, "profiled_s": 1, "calls": [1, 1]},
        {"plain_s": 1, "profiled_s": -1, "calls": [1, 1]},
        5,
    ],
)
def test_a_section_that_cannot_be_hotlap_s_is_said_and_not_judged(
    overhead: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd, good = recorded(tmp_path / "odd.json", overhead=overhead), recorded(tmp_path / "good.json")
    for pair in ((odd, good), (good, odd), (odd, odd)):
        assert cli.status(["review", *map(str, pair)]) == 4
        output = capsys.readouterr().out
        assert "is not what hotlap writes" in output and "which CPU a file is of is not recorded" in output


def test_an_operator_is_behind_a_slower_head_only_where_every_pair_shows_it(tmp_path: Path) -> None:
    """The product takes 30 us longer in both pairs, the addition in one."""

    def written(name: str, **ns: int) -> Path:
        events, start = [], 0
        for operator, length in ns.items():
            events.append(synthetic.operator(f"aten::{operator}", start, length))
            start += length
        path = tmp_path / name
        path.write_text(json.dumps({"traceEvents": [synthetic.step(1, 0, start), *events]}))
        return path

    pairs = [
        [written("a.json", mm=100, add=10), written("b.json", mm=130, add=40)],
        [written("c.json", mm=102, add=11), written("d.json", mm=131, add=11)],
    ]
    words = diff.behind(pairs, 32e-6)
    assert "2 profiles a side" in words and "aten::mm: +30.0 us" in words and "add" not in words
    assert "no operator takes a quarter of 1.00 ms longer" in diff.behind(pairs, 1e-3)
