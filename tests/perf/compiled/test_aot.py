"""Kernels compiled for machines that are not here: what is read from the machine code, the rules on
it, and the command.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotlap.kernels.ops import add_layer_norm, attention, layer_norm, rms_norm, softmax, swiglu
from hotlap.perf.cli import status
from hotlap.perf.compiled import aot, builds, rules
from hotlap.perf.compiled.aot import Figures
from hotlap.perf.compiled.entries import Entry, Failed


def compiled(build: Any, target: str, **changed: Any) -> Figures:
    settings = {"constexprs": build.constexprs, "divisible": build.divisible, "warps": build.warps, **changed}
    return aot.compiled(build.kernel, build.signature, stages=build.stages, target=target, **settings)


def broken(build: Any, target: str, **changed: Any) -> tuple[str, ...]:
    return rules.broken(compiled(build, target, **changed), target, "bf16", build.dot)


def test_aligned_rows_are_loaded_in_16_bytes_and_others_are_not() -> None:
    forward, _ = softmax.builds("bf16")
    assert broken(forward, "sm_90") == ()
    assert compiled(forward, "sm_90").sass["load_128"] >= 1
    (message,) = broken(forward, "sm_90", divisible=())
    assert message == "no load of 16 bytes although everything is aligned"


def test_a_count_that_is_not_specialised_cuts_loads_up() -> None:
    forward, _ = swiglu.builds("fp32")
    assert broken(forward, "sm_80") == ()
    assert broken(forward, "sm_80", divisible=("a", "b", "y")) == (
        "no load of 16 bytes although everything is aligned",
    )


def test_a_block_that_spills_is_seen() -> None:
    _, backward = rms_norm.builds("bf16")
    assert broken(backward, "sm_90") == ()
    (message,) = broken(backward, "sm_90", constexprs={"ROWS": 1, "BLOCK": 32768}, warps=32)
    assert message.startswith("spills registers: ") and "smaller tile" in message


@pytest.mark.parametrize("operation", [layer_norm, add_layer_norm])
def test_a_product_that_must_be_rounded_is_not_fused(operation: Any) -> None:
    _, backward = operation.builds("fp32")

    def fused(allowed: bool) -> bool:
        kernel = aot.compile_kernel(
            backward.kernel,
            backward.signature,
            backward.constexprs,
            backward.divisible,
            backward.warps,
            backward.stages,
            "sm_90",
            allowed,
        )
        return "fma.rn.f32" in kernel.asm["ptx"]

    assert not backward.fused and not fused(backward.fused)
    assert fused(True)


@pytest.mark.parametrize("target", ["sm_75", "sm_120", "gfx942"])
def test_every_architecture_is_read(target: str) -> None:
    for build in softmax.builds("fp16"):
        figures = compiled(build, target)
        assert 8 <= figures.registers <= 128 and 0 < figures.occupancy <= 1 and figures.spill_loads == 0
        assert (
            figures.instructions == sum(figures.sass.values()) > 50
            and figures.sass["load_128"] >= 1
            and figures.sass["store_128"] >= 1
        )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("LDG.E.128.SYS", "load_128"), ("LDG.E.U16.CONSTANT", "load_16"), ("LDG.E", "load_32"),
        ("LDG.E.64", "load_64"), ("LDG.E.S8", "load_8"), ("STG.E.128", "store_128"), ("LDL.LU", "local_load"),
        ("STL.64", "local_store"), ("HMMA.16816.F32.BF16", "tensor_core"),
        ("HGMMA.64x128x16.F32", "tensor_core"), ("UTCHMMA", "tensor_core"),
        ("IMMA.16832.S8.S8", "tensor_core"), ("LDGSTS.E.BYPASS.128", "async_copy"), ("LDS.128", "shared"),
        ("FFMA", "other"), ("IMAD.MOV.U32", "other"),
    ],
)  # fmt: skip
def test_instructions_have_their_class(name: str, kind: str) -> None:
    assert aot.of_nvidia(name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("global_load_dwordx4", "load_128"), ("global_load_ushort", "load_16"),
        ("buffer_load_dword", "load_32"), ("global_store_dwordx2", "store_64"),
        ("global_load_sbyte", "load_8"), ("v_mfma_f32_32x32x8_bf16_1k", "tensor_core"),
        ("scratch_load_dword", "local_load"), ("ds_read_b128", "shared"), ("v_add_f32", "other"),
    ],
)  # fmt: skip
def test_instructions_of_amd_have_their_class(name: str, kind: str) -> None:
    assert aot.of_gfx(name) == kind


@pytest.mark.parametrize(
    ("registers", "warps", "shared", "target", "expected"),
    [
        (32, 4, 0, "sm_80", 1.0),
        (64, 4, 0, "sm_80", 0.5),
        (255, 8, 0, "sm_90", 8 / 64),
        (32, 4, 100_000, "sm_80", 4 / 64),
        (32, 1, 0, "sm_75", 16 / 32),
        (32, 32, 0, "sm_89", 32 / 48),
    ],
)
def test_occupancy_by_hand(registers: int, warps: int, shared: int, target: str, expected: float) -> None:
    assert aot.occupancy(registers, warps, shared, aot.ARCHITECTURES[target]) == pytest.approx(expected)


def test_a_dot_without_tensor_cores_is_seen() -> None:
    bare = Figures(32, 0, 0, 0, 0, 1.0, 100, {"load_128": 4, "other": 96})
    message = ("multiplies matrices without tensor cores",)
    assert (
        rules.broken(bare, "sm_90", "bf16", dot=True)
        == message
        == rules.broken(bare, "gfx942", "fp16", dot=True)
    )
    assert (
        rules.broken(bare, "sm_75", "fp16", dot=True)
        == ()
        == rules.broken(bare, "sm_90", "fp32", dot=True)
        == rules.broken(bare, "sm_90", "bf16", dot=False)
    )


def entry(registers: int = 32, instructions: int = 100, violations: tuple[str, ...] = ()) -> Entry:
    return Entry(
        "norm/forward",
        "bf16",
        "sm_90",
        {},
        registers,
        0,
        0,
        0,
        0,
        1.0,
        instructions,
        {},
        1,
        1,
        None,
        violations,
    )


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (entry(), "pass"),
        (entry(40, 110), "pass"),
        (entry(41), "regression"),
        (entry(32, 111), "regression"),
        (entry(violations=("spills",)), "regression"),
        (entry(20, 50), "pass"),
    ],
)
def test_ratchets_and_hard_rules(now: Entry, verdict: str) -> None:
    assert rules.judge([now], {now.key: {"registers": 32, "instructions": 100}}, "3.8.0").verdict == verdict


def test_what_cannot_be_compiled_and_what_is_gone_is_said() -> None:
    failed = Failed("norm/forward", "bf16", "sm_90", "CompilationError: no")
    judged = rules.judge([failed], {"kernels/other/bf16/sm_90": {"registers": 1, "instructions": 1}}, "3.8.0")
    assert judged.verdict == "regression" and judged.findings[0].evidence == ("CompilationError: no",)
    assert judged.reasons == ("kernels/other/bf16/sm_90 is in the baseline and was not built",)


@pytest.mark.slow
def test_the_command_judges_accepts_and_ratchets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline, out = tmp_path / "baseline.json", tmp_path / "kernels.json"
    command = ["kernels", "--op", "softmax", "--target", "sm_90", "--baseline", str(baseline)]
    assert status(command) == 4 and "--accept makes it" in capsys.readouterr().err
    assert status([*command, "--accept"]) == 0
    stored = json.loads(baseline.read_text())
    assert len(stored) == 6 and stored["kernels/softmax/forward/bf16/sm_90"]["registers"] > 8
    assert status([*command, "--json", str(out)]) == 0
    assert "| softmax/forward | bf16 | sm_90 |" in capsys.readouterr().out
    document = json.loads(out.read_text())
    assert (
        document["tool"] == "kernels"
        and document["verdict"] == "pass"
        and len(document["kernels"]) == 6
        and len(document["findings"]) == 18
    )
    assert {
        "op",
        "dtype",
        "target",
        "config",
        "registers",
        "spill_loads",
        "stack_bytes",
        "shared_bytes",
        "occupancy",
        "sass",
        "bytes",
        "flops",
        "roofline_s",
        "violations",
    } <= set(document["kernels"][0])
    # Only the baseline differs from here on: what the second build gave is judged again.
    kernels = [msgspec.convert(kernel, Entry) for kernel in document["kernels"]]
    monkeypatch.setattr(builds, "build", lambda *arguments: kernels)
    stored["kernels/softmax/forward/bf16/sm_90"]["registers"] = 2
    baseline.write_text(json.dumps(stored))
    assert status(command) == 1
    assert "softmax/forward/bf16/sm_90: registers 2 ->" in capsys.readouterr().out
    baseline.write_text("[]")
    assert status(command) == 4 and "not a baseline" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--op", "nothing*"], "matches no operation; there are"),
        (["--target", "sm_91"], "did you mean sm_90"),
    ],
)
def test_wrong_names(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["kernels", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_single_narrow_loads_must_be_meant() -> None:
    figures = Figures(32, 0, 0, 0, 0, 1.0, 100, {"load_128": 4, "load_16": 1, "other": 95})
    assert rules.broken(figures, "sm_90", "bf16", dot=False, single_loads=1) == ()
    assert rules.broken(figures, "sm_90", "bf16", dot=False) == (
        "1 loads of two bytes or less although everything is aligned",
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("depth", [64, 128])
def test_attention_is_on_tensor_cores_and_spills_nothing(dtype: str, depth: int) -> None:
    for build in attention.builds(dtype, depth=depth):
        figures = compiled(build, "sm_90")
        assert rules.broken(figures, "sm_90", dtype, build.dot) == ()
        assert ("tensor_core" in figures.sass) == (dtype == "bf16")
