"""What Triton would compile again and again, a user's own kernel, further settings, the page and
the census of hotlap kernels.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hotlap.kernels.library import NAMES
from hotlap.perf.cli import status
from hotlap.perf.compiled import builds, custom, rules, variants
from hotlap.perf.compiled.entries import Entry
from hotlap.perf.compiled.launches import recorded
from hotlap.perf.compiled.table import page
from hotlap.perf.terms.reasons import Misuse

TOY = """
import triton
import triton.language as tl


@triton.jit
def baked(x, batch: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, mask=at < batch) + 1, mask=at < batch)


@triton.jit
def free(x, batch, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, mask=at < batch) + 1, mask=at < batch)


@triton.jit(do_not_specialize=["batch"])
def general(x, batch, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, mask=at < batch) + 1, mask=at < batch)


@triton.jit
def cast(x, y, TO: tl.constexpr):
    at = tl.arange(0, 4096)
    tl.store(y + at, tl.load(x + at).to(TO))


@triton.jit
def fill(y, batch, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 1.0, mask=at < batch)


@triton.jit
def product(index, a, b, y):
    at = tl.arange(0, 32)
    row = tl.load(index + at)
    left = tl.load(a + row[:, None] * 32 + at[None, :])
    right = tl.load(b + at[:, None] * 32 + at[None, :])
    p = tl.dot(left, right, input_precision="ieee")
    tl.store(y + at[:, None] * 32 + at[None, :], p)


@triton.jit
def lost(x, batch, BLOCK: tl.constexpr):
    \"\"\"Of some length, so that what Triton quotes of a kernel it refuses is longer than a line:
    first its source down to the fault, then a mark below it.
    \"\"\"
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, mask=at < batch) + nowhere, mask=at < batch)


number = 3
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"toy_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_a_batch_that_is_a_constexpr_is_caught(toy: str) -> None:
    """Planted: one variant for each of 40 sizes; at run time it is three (1, a multiple of 16,
    others).
    """
    x = torch.empty(4096)
    results = {}
    for name in ("baked", "free"):
        kernel = custom.kernel(f"{toy}:{name}")
        launches = [
            record
            for count in variants.SIZES
            for record in recorded(lambda kernel=kernel, count=count: kernel[(1,)](x, count, 1024))
        ]
        results |= variants.counted(launches)
    assert len(variants.SIZES) == 40
    assert results["baked"] == (40, ("batch",)) and results["free"].number == 3
    (message,) = rules.too_many(results["baked"])
    assert message.startswith("40 variants over 40 sizes, by batch") and rules.too_many(results["free"]) == ()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "fused_linear_cross_entropy"])
def test_ours_have_few(name: str) -> None:
    """fused_linear_cross_entropy launches cross_entropy's kernels; hotlap kernels counts it too."""
    results = variants.of_operation(name, sizes=(1, 2, 16, 33))
    assert results and all(each.number <= 4 for each in results.values())


def test_a_kernel_of_a_user_s_own(toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["kernels", f"{toy}:free", "--target", "sm_80", "--signature"]
    assert status([*command, "x:*bf16, batch:i32, BLOCK:constexpr=1024"]) == 0
    assert f"| {toy}:free | bf16 | sm_80 |" in capsys.readouterr().out
    assert status([*command, "x:*bf16, batch:i32!, BLOCK:constexpr=1024"]) == 0, (
        "what is not aligned cannot be loaded wide"
    )
    capsys.readouterr()
    assert status([*command, "x:*fp32, batch:i32, BLOCK:constexpr=1000"]) == 1
    assert "must be a power of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "signature", "expected", "words"),
    [
        ("fill", "y:*bf16, batch:i32, BLOCK:constexpr=1024", 0, "| 0 of 0 |"),
        ("general", "x:*bf16, batch:i32, BLOCK:constexpr=1024", 0, "| 0 of 8 |"),
        ("cast", "x:*bf16, y:*fp32, TO:constexpr=tl.float32", 0, "kernels: pass"),
        ("product", "index:*i32, a:*fp32, b:*fp32, y:*fp32", 0, "kernels: pass"),
        ("product", "index:*i32, a:*bf16, b:*bf16, y:*fp32", 0, "| 4 |"),
        ("lost", "x:*bf16, batch:i32, BLOCK:constexpr=1024", 1, "nowhere is not defined"),
    ],
)
def test_what_the_kernel_itself_says_is_believed(
    toy: str, name: str, signature: str, expected: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No load to be wide; an argument that the JIT never specialises; a type as a constexpr; a
    product of fp32 beside integers; the message of the compiler.
    """
    returned = status(["kernels", f"{toy}:{name}", "--target", "sm_80", "--signature", signature])
    message = capsys.readouterr().out
    assert returned == expected and words in message, message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a:b", "--signature", "x:i32", "--op", "softmax"], "a kernel of your own does not go with --op"),
        (["--inductor", "mlp", "--html", "x.html"], "goes with --json"),
        (["--stored", "x.json", "--accept"], "--stored does not go with --accept"),
        (["--stored", "x.json", "--target", "sm_90"], "compiles nothing"),
        (["--signature", "x:i32", "--op", "softmax"], "go with a kernel of your own"),
    ],
)
def test_options_that_would_be_ignored_are_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["kernels", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reference", "signature", "words"),
    [
        ("{toy}:fre", "x:*bf16", "did you mean free"),
        ("{toy}:number", "x:*bf16", "is int, not a function under @triton.jit"),
        (
            "{toy}:free",
            "x:*bf16, n:i32, BLOCK:constexpr=8",
            "the kernel takes x, batch, BLOCK:constexpr=..., in this order",
        ),
        ("{toy}:free", "x", "expected name:type"),
        ("{toy}:free", "x:*foo, batch:i32, BLOCK:constexpr=8", "*foo is no type; there are i1"),
        ("{toy}:free", "x:*bf16, batch:i32, BLOCK:i32", "write BLOCK:constexpr=VALUE"),
        ("{toy}:free", "", "the kernel takes x, batch, BLOCK:constexpr=..."),
        ("nowhere_at_all:free", "x:i32", "importing nowhere_at_all fails"),
        ("free", "x:i32", "expected package.module:kernel"),
    ],
)
def test_wrong_words_for_it(
    toy: str, reference: str, signature: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["kernels", reference.format(toy=toy), "--signature", signature]) == 2
    message = capsys.readouterr().err
    assert words in message and len(message.strip().splitlines()) == 1


def test_all_settings_are_entries_by_themselves() -> None:
    results = builds.kernels("rotary", "bf16", "sm_90", all_settings=True)
    assert {entry.op for _, entry in results} == {
        f"rotary/{kernel}{setting}"
        for kernel in ("forward", "backward")
        for setting in ("", "[half:64]", "[half:256]")
    }
    assert all(isinstance(entry, Entry) and entry.violations == () for _, entry in results)


def test_the_page_escapes_every_name() -> None:
    bad = Entry(
        "<script>alert(1)</script>",
        "bf16",
        "sm_90",
        {},
        32,
        1,
        0,
        0,
        0,
        1.0,
        10,
        {},
        None,
        None,
        None,
        ("spills <b>",),
    )
    text = page([bad], "3.8.0", rules.judge([bad], None, "3.8.0"))
    assert (
        "<script>" not in text
        and "spills <b>" not in text
        and "&lt;script&gt;" in text
        and 'class="regression"' in text
    )


def test_a_census_of_what_inductor_generates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "census.json"
    assert status(["kernels", "--inductor", "mlp", "--json", str(out)]) == 0
    results = json.loads(out.read_text())
    assert results["target"] == "sm_90" and sum(results["extern"].values()) >= 1
    assert results["kernels"] and all(
        record["registers"] >= 8 and record["launches"] >= 1 for record in results["kernels"]
    )
    assert "by Inductor:" in capsys.readouterr().out
    assert status(["kernels", "--inductor", "mlp", "--target", "sm_75"]) == 2
    assert "sm_120, not sm_75" in capsys.readouterr().err


def test_a_reference_that_is_no_kernel() -> None:
    with pytest.raises(Misuse, match="is no kernel"):
        custom.kernel("module:")
