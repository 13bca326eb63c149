"""Each rule fires on its planted evidence, with the ceiling that the evidence bears, and on nothing
else.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from hotlap.profiles.facts.facts import Facts
from hotlap.profiles.findings import bound, fix, rules
from hotlap.profiles.tables import kineto

from .. import synthetic

Events = list[dict[str, Any]]
RULES = {module.name for module in pkgutil.iter_modules(rules.__path__)}


def steady() -> Events:
    """A GPU that computes without a break: launches run ahead."""
    return [
        event
        for index in range(10)
        for event in synthetic.launched("ampere_tf32_s1688gemm", index, 100 + 50 * index, 50, index + 1)
    ]


def input_bound() -> Events:
    loading = synthetic.event(
        "user_annotation", "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 12, 80
    )
    return [*synthetic.launched("k", 0, 5, 5, 1), loading, *synthetic.launched("k", 95, 100, 5, 2)]


def synchronisation() -> Events:
    item = [
        synthetic.operator("aten::_local_scalar_dense", 3, 9),
        synthetic.call("cudaStreamSynchronize", 4, 7),
    ]
    return [*synthetic.launched("k", 0, 5, 5, 1), *item, *synthetic.launched("k", 25, 30, 5, 2)]


def launch_bound() -> Events:
    return [
        event
        for index in range(10)
        for event in synthetic.launched("k", 20 * index, 20 * index + 10, 2, index + 1, call_dur=8)
    ]


def first_calls() -> Events:
    return [
        *synthetic.launched("k", 0, 5, 5, 1),
        synthetic.call("cudaMalloc", 12, 80),
        *synthetic.launched("k", 95, 100, 5, 2),
    ]


def pageable_copies() -> Events:
    copy = [
        synthetic.call("cudaMemcpyAsync", 0, 50, 1),
        synthetic.kernel("Memcpy HtoD (Pageable -> Device)", 1, 49, 1, cat="gpu_memcpy", bytes=49_000),
    ]
    return [*copy, *synthetic.launched("k", 40, 50, 50, 2)]


def exposed_communication() -> Events:
    return [
        *synthetic.launched("k", 0, 5, 45, 1),
        *synthetic.launched("ncclDevKernel_AllReduce", 10, 40, 60, 2, stream=20),
    ]


def elementwise_chains() -> Events:
    names = ["gemm", *["void at::native::vectorized_elementwise_kernel<4>"] * 3]
    return [
        event
        for index, name in enumerate(names)
        for event in synthetic.launched(name, index, 100 + 20 * index, 20, index + 1)
    ]


def tensor_cores() -> Events:
    return [
        *synthetic.launched("ampere_sgemm_128x64_nn", 0, 5, 80, 1),
        *synthetic.launched("cutlass_80_tensorop_s1688gemm", 1, 85, 20, 2),
    ]


def layout_conversions() -> Events:
    return [
        *synthetic.launched("void cudnn::ops::nchwToNhwcKernel<float>", 0, 5, 30, 1),
        *synthetic.launched("conv", 1, 35, 70, 2),
    ]


def recompilation() -> Events:
    compiling = synthetic.event("python_function", "torch/_dynamo/convert_frame.py(1): _compile", 12, 80)
    return [*synthetic.launched("k", 0, 5, 5, 1), compiling, *synthetic.launched("k", 95, 100, 5, 2)]


def computing() -> Events:
    """A CPU without a GPU: two steps of 100 us, each one product of 99 us."""
    return [
        event
        for start in (0, 1000)
        for event in (synthetic.step(start, start, 100), synthetic.operator("aten::mm", start + 1, 99))
    ]


def framework_bound() -> Events:
    return [
        event
        for start in (0, 1000)
        for event in (
            synthetic.step(start, start, 100),
            synthetic.operator("aten::mm", start + 10, 30),
            synthetic.operator("aten::empty", start + 50, 10),
        )
    ]


def loading() -> Events:
    return [
        *computing(),
        synthetic.step(7, 2000, 100),
        synthetic.event(
            "user_annotation", "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__", 2000, 100
        ),
    ]


def slow_convolution() -> Events:
    unfolded = synthetic.operator("aten::_slow_conv2d_forward", 2000, 100)
    unfolded["args"] = {
        "Input Dims": [[1, 16, 32, 32], [16, 16, 3, 3]],
        "Input type": ["float", "float"],
        "Concrete Inputs": ["", "", "", "", "[1, 1]", "[1, 1]"],
    }
    return [*computing(), synthetic.step(7, 2000, 100), unfolded]


def host_work() -> Events:
    """A tensor made on the host, between two kernels."""
    return [
        *synthetic.launched("k", 0, 5, 5, 1),
        synthetic.operator("aten::normal_", 12, 180),
        *synthetic.launched("k", 195, 200, 5, 2),
    ]


def unfused_attention() -> Events:
    """Twice: products of 30 us, a softmax of 30 us and a mask of 10 us between them."""
    parts = (("aten::bmm", 30), ("aten::masked_fill_", 10), ("aten::_softmax", 30), ("aten::bmm", 30))
    events: Events = []
    start = 100
    for index, (name, length) in enumerate(parts * 2):
        called = 4 * index
        events += [
            synthetic.operator(name, called, 3),
            *synthetic.launched("k", called + 1, start, length, index + 1, call_dur=1),
        ]
        start += length
    return events


# Rule -> what it may say beside itself, and its ceiling in us.
PLANTED: dict[str, tuple[Any, set[str], float]] = {
    "host_work": (host_work, set(), 190),
    "unfused_attention": (unfused_attention, set(), 2 * 40),
    "input_bound": (input_bound, set(), 90),
    "synchronisation": (synchronisation, set(), 20),
    "launch_bound": (launch_bound, set(), 9 * 18),
    "first_calls": (first_calls, set(), 90),
    "pageable_copies": (pageable_copies, set(), 49),
    "exposed_communication": (exposed_communication, set(), 50),
    "elementwise_chains": (elementwise_chains, set(), 40),
    "tensor_cores": (tensor_cores, set(), 70),
    "layout_conversions": (layout_conversions, set(), 30),
    "recompilation": (recompilation, {"launch_bound"}, 80),
    "framework_bound": (framework_bound, set(), 2 * 70),
    "loading": (loading, set(), 100),
    "slow_convolution": (slow_convolution, set(), 100),
}


def facts(events: Events, folder: Path, major: int = 8) -> Facts:
    return Facts(kineto.read(synthetic.written(folder / "t.json", events, major)))


def test_every_rule_is_planted() -> None:
    assert set(PLANTED) == RULES


@pytest.mark.parametrize("rule", sorted(PLANTED))
def test_a_rule_finds_its_evidence(rule: str, tmp_path: Path) -> None:
    make, others, ceiling_us = PLANTED[rule]
    fixes = {suggestion.rule: suggestion for suggestion in fix.suggested(facts(make(), tmp_path))}
    assert set(fixes) == {rule, *others}
    assert fixes[rule].ceiling == ceiling_us * 1000
    assert fixes[rule].evidence and fixes[rule].advice


def test_without_evidence_no_rule_fires(tmp_path: Path) -> None:
    quiet = facts(steady(), tmp_path)
    assert fix.suggested(quiet) == []
    assert [importlib.import_module(f"{rules.__name__}.{name}").look(quiet) for name in sorted(RULES)] == [
        None
    ] * len(RULES)
    assert bound.of(quiet).word == "compute" and bound.of(quiet).share == 1
    assert fix.suggested(facts(computing(), tmp_path)) == []


def test_the_responsible_code_is_named(tmp_path: Path) -> None:
    (suggestion,) = fix.suggested(facts(synchronisation(), tmp_path))
    assert suggestion.code[0] == "cudaStreamSynchronize in aten::_local_scalar_dense"


def test_fp32_is_no_fault_where_there_are_no_tensor_cores(tmp_path: Path) -> None:
    assert [suggestion.rule for suggestion in fix.suggested(facts(tensor_cores(), tmp_path, major=6))] == []


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (steady, "compute"),
        (input_bound, "input"),
        (synchronisation, "sync"),
        (launch_bound, "launch"),
        (first_calls, "setup"),
        (host_work, "host work"),
        (exposed_communication, "communication"),
    ],
)
def test_the_bound_in_one_word(make: Any, word: str, tmp_path: Path) -> None:
    known = facts(make(), tmp_path)
    seen = bound.of(known)
    assert seen.word == word
    assert seen.whole == known.span == known.line.window
    assert (
        sum(ns for ns, _ in known.culprits.blamed.values())
        == known.line.idle
        == sum(culprit.length for culprit in known.culprits.ranked)
    )


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (computing, "compute"),
        (framework_bound, "framework"),
        (loading, "compute"),
        (slow_convolution, "compute"),
    ],
)
def test_the_bound_of_a_cpu_in_one_word(make: Any, word: str, tmp_path: Path) -> None:
    known = facts(make(), tmp_path)
    seen = bound.on_cpu(known)
    assert seen is not None and seen.word == word
    assert sum(seen.parts.values()) == known.span == sum(step.dur for step in known.steps)


def test_two_bounds_that_are_near_are_both_named() -> None:
    near = bound.named({}, {"compute": 51, "input": 46, "sync": 3}, bound.MEANING)
    assert (near.word, near.second) == ("compute", "input") and near.second_share == 0.46
    assert not bound.named({}, {"compute": 60, "input": 40}, bound.MEANING).second


@pytest.mark.parametrize(
    ("name", "compiled", "words"),
    [
        ("NVIDIA A100", False, ("CUDA graph", "torch.compile alone")),
        ("NVIDIA A100", True, ("CUDA graph", "larger batch")),
        ("Intel(R) Data Center GPU Max 1550", False, ("torch.compile alone", "larger batch")),
        ("Intel(R) Data Center GPU Max 1550", True, ("larger batch",)),
    ],
)
def test_nobody_is_told_what_cannot_be_or_is_done_already(
    name: str, compiled: bool, words: tuple[str, ...], tmp_path: Path
) -> None:
    events = launch_bound()
    if compiled:
        events.append(synthetic.event("user_annotation", "Torch-Compiled Region: 0/0", 0, 190))
    known = Facts(kineto.read(synthetic.written(tmp_path / "t.json", events, name=name)))
    (suggestion,) = [each for each in fix.suggested(known) if each.rule == "launch_bound"]
    every = {"CUDA graph", "torch.compile alone", "larger batch"}
    text = suggestion.title + suggestion.advice
    assert {word for word in every if word in text} == {*words, "larger batch"}


def test_cublas_names_its_fp32_products_by_their_types(tmp_path: Path) -> None:
    name = "cublasLt_sm80_f32f32_f32f32_f32_ffma_tn_n"
    fixes = fix.suggested(facts(synthetic.launched(name, 0, 5, 80, 1), tmp_path))
    assert "tensor_cores" in [each.rule for each in fixes]


def test_a_file_without_operators_has_no_bound(tmp_path: Path) -> None:
    assert bound.on_cpu(facts([], tmp_path)) is None and fix.suggested(facts([], tmp_path)) == []
