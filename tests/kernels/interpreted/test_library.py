"""The operations as operators of torch.library: checked by torch itself, compiled, exported and
under autocast; what falls back is counted.
"""

from __future__ import annotations

import importlib
import re
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode

from hotlap.kernels import dispatch, library
from hotlap.kernels.contract import Unsupported

DIFFERENTIABLE = [name for name in library.NAMES if library.operation(name).backward is not None]


def small(name: str, dtype: str = "fp32") -> list[tuple[Any, ...]]:
    """Up to four examples with few elements, none empty, each input a tensor of its own."""
    examples = [
        inputs
        for inputs in library.operation(name).module.examples(dtype)
        if all(not isinstance(value, torch.Tensor) or 0 < value.numel() < 5000 for value in inputs)
    ]
    return examples[:4]


def with_defaults(name: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """All inputs of forward."""
    return tuple(inputs) + library.operation(name).defaults[len(inputs) :]


def leaves(name: str, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """All inputs of forward as leaves, of which those with a gradient require one."""
    op = library.operation(name)
    return tuple(
        (
            value.detach().clone().requires_grad_(parameter in op.module.GRADIENTS)
            if isinstance(value, torch.Tensor)
            else value
        )
        for parameter, value in zip(op.inputs, with_defaults(name, inputs), strict=True)
    )


def total(outputs: Any) -> torch.Tensor:
    """The sum of squares of all outputs that have a gradient."""
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    return torch.stack([output.float().square().sum() for output in several if output.requires_grad]).sum()


@pytest.mark.parametrize("name", library.NAMES)
@pytest.mark.parametrize("mode", ["interpret", "reference"])
def test_opcheck_forward(name: str, mode: str) -> None:
    """Checks the schema, fake tensors and AOT dispatch, on a CPU of the code in aten too."""
    with dispatch.using(mode):
        for inputs in small(name):
            torch.library.opcheck(
                library.operation(name).forward,
                with_defaults(name, inputs),
                test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
            )


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_opcheck_backward(name: str, interpret: None) -> None:
    op = library.operation(name)
    for inputs in small(name):
        by_name = dict(zip(op.inputs, with_defaults(name, inputs), strict=True))
        values = library.as_tuple(op.forward(*by_name.values()))
        results = dict(zip(op.module.RETURNS, values, strict=True))
        outputs = list(results.items())[: op.outputs]
        known = {f"d{key}": torch.randn_like(value) for key, value in outputs} | by_name | results
        torch.library.opcheck(
            op.backward,
            tuple(known[wanted] for wanted in op.needed),
            test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
        )


def fp64_twin(name: str, folder: Path) -> Any:
    """Returns the same operation with fp64 in place of fp32, from a file in the folder."""
    source = Path(str(library.operation(name).module.__file__)).read_text()
    source = re.sub(r"\b(tl|torch)\.float32\b", r"\1.float64", source).replace(".float()", ".double()")
    for other in re.findall(r"^from \.(\w+) import .*_kernel", source, re.MULTILINE):
        fp64_twin(other, folder)
        source = source.replace(f"from .{other} import", f"from .fp64_{other} import")
    file = folder / f"{name}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(f"hotlap.kernels.ops.fp64_{name}", file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_by_differences_in_fp64(name: str, tmp_path: Path, interpret: None) -> None:
    """torch.autograd.gradcheck of the same kernels with fp64 in place of fp32."""
    module = fp64_twin(name, tmp_path)
    parameters = list(signature(module.forward).parameters)
    needed = list(signature(module.backward).parameters)

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            results = module.forward(*inputs)
            by_name = dict(zip(parameters, inputs, strict=True))
            ctx.known = by_name | dict(zip(module.RETURNS, results, strict=True))
            count = getattr(module, "OUTPUTS", 1)
            return results[0] if count == 1 else results[:count]

        @staticmethod
        def backward(ctx: Any, *slopes: Any) -> Any:
            known = ctx.known | {f"d{key}": value for key, value in zip(module.RETURNS, slopes, strict=False)}
            sought = [key for key in module.GRADIENTS if isinstance(known[key], torch.Tensor)]
            values = module.backward(*(known[key] for key in needed))
            gradients = dict(zip(sought, values, strict=True))
            return tuple(gradients.get(key) for key in parameters)

    for inputs in small(name)[:2]:
        wide = tuple(
            value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for value in with_defaults(name, inputs)
        )
        wide = tuple(
            (
                value.detach().clone().requires_grad_(key in module.GRADIENTS)
                if isinstance(value, torch.Tensor)
                else value
            )
            for key, value in zip(parameters, wide, strict=True)
        )
        assert torch.autograd.gradcheck(
            Function.apply, wide, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True, nondet_tol=0.0
        )


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_compiled_without_a_graph_break(name: str, interpret: None) -> None:
    function = library.function(name)
    compiled = torch.compile(lambda *inputs: total(function(*inputs)), fullgraph=True, backend="aot_eager")
    inputs = leaves(name, small(name)[-1])
    expected, result = total(function(*inputs)), compiled(*inputs)
    sought = [value for value in inputs if isinstance(value, torch.Tensor) and value.requires_grad]
    assert torch.equal(result, expected)
    gradients = torch.autograd.grad(result, sought)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, sought), strict=True):
        assert torch.equal(mine, theirs)
    assert dispatch.launched[name] >= 2 and dispatch.launched[f"{name}_backward"] >= 2


def test_one_graph_for_all_batches(interpret: None) -> None:
    from torch._dynamo.testing import CompileCounter

    counter, function = CompileCounter(), library.function("rms_norm")
    compiled = torch.compile(
        lambda x, weight: function(x, weight) + 1, fullgraph=True, backend=counter, dynamic=True
    )
    for rows in (2, 3, 17, 64):
        compiled(torch.randn(rows, 32), torch.randn(32))
    assert counter.frame_count == 1


class Norm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.silu(library.function("rms_norm")(x, self.weight))


def test_exported_and_taken_apart_for_onnx(tmp_path: Path) -> None:
    import onnxruntime

    module, x = Norm().eval(), torch.randn(4, 32)
    with dispatch.using("interpret"):
        program = torch.export.export(module, (x,))
    assert any(node.target is torch.ops.hotlap.rms_norm.default for node in program.graph.nodes)
    plain = program.run_decompositions(library.decompositions())
    assert not any("hotlap" in str(node.target) for node in plain.graph.nodes)
    expected = module(x)
    torch.testing.assert_close(plain.module()(x), expected)
    torch.onnx.export(plain, (x,), tmp_path / "norm.onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "norm.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), expected.detach())


def test_a_program_for_a_gpu_made_without_one() -> None:
    with FakeTensorMode():
        x, weight = torch.empty(8, 32, device="cuda", dtype=torch.bfloat16), torch.empty(32, device="cuda")
        y = library.function("rms_norm")(x, weight)
    assert y.shape == (8, 32) and y.device.type == "cuda" and y.dtype == torch.bfloat16
    assert dispatch.launched["rms_norm"] == 0, "shapes are asked of the fake, not of the kernel"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("layer_norm", torch.float32),
        ("softmax", torch.float32),
        ("swiglu", torch.bfloat16),
        ("attention", torch.bfloat16),
    ],
)
def test_autocast_gives_the_dtypes_that_it_gives_aten(
    name: str, expected: torch.dtype, interpret: None
) -> None:
    inputs = small(name, "bf16" if name != "attention" else "fp32")[1]
    with torch.autocast("cpu", torch.bfloat16):
        output = library.function(name)(*inputs)
    assert output.dtype == expected


def test_widest_is_that_of_the_inputs(interpret: None) -> None:
    x, weight = torch.randn(4, 32, dtype=torch.bfloat16), torch.randn(32)
    with torch.autocast("cpu", torch.bfloat16):
        assert library.function("rms_norm")(x, weight).dtype == torch.float32
    assert library.function("rms_norm")(x, weight).dtype == torch.bfloat16


def test_a_fallback_is_counted_with_its_reason_and_refused_where_triton_is_asked_for() -> None:
    x, weight = torch.randn(2, 9000), torch.randn(9000)
    with dispatch.using("interpret"):
        y = library.function("rms_norm")(x, weight)
    torch.testing.assert_close(y, torch.nn.functional.rms_norm(x, (9000,), weight, 1e-6))
    (operation, why), count = next(iter(dispatch.fallbacks.items()))
    assert operation == "rms_norm" and "9,000" in why and count == 1
    assert dispatch.launched["rms_norm"] == 0
    with dispatch.using("interpret"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "_mode", "triton")
        with pytest.raises(Unsupported, match="rms_norm: rows of 9,000"):
            dispatch.count_fallback("rms_norm", "rows of 9,000")


def test_mode_triton_never_takes_aten_on_a_cpu() -> None:
    with dispatch.using("triton"), pytest.raises(Unsupported, match="a tensor is on cpu"):
        library.function("softmax")(torch.randn(2, 4))


@pytest.mark.parametrize("wanted", [True, False])
def test_gradients_are_made_in_forward_only_where_they_are_wanted(wanted: bool, interpret: None) -> None:
    x, weight, target = torch.randn(6, 8, requires_grad=wanted), torch.randn(20, 8), torch.randint(20, (6,))
    op = library.operation("fused_linear_cross_entropy")
    assert library.prepare(op, (x, weight, target))[-1] is wanted
    with torch.no_grad():
        assert library.prepare(op, (x, weight, target))[-1] is False
        loss = library.function("fused_linear_cross_entropy")(x, weight, target)
    torch.testing.assert_close(loss, op.module.reference(x, weight, target, 1024))


def test_batch_norm_under_autocast_gives_the_dtype_of_its_input(interpret: None) -> None:
    x, ones = torch.randn(2, 8, 4, 4, dtype=torch.bfloat16), torch.ones(8)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = torch.nn.functional.batch_norm(x, None, None, ones, ones, training=True)
        assert library.function("batch_norm")(x, ones, ones).dtype == theirs.dtype == torch.bfloat16


def test_doubles_and_the_cpu_take_aten() -> None:
    x, weight = torch.randn(4, 32), torch.randn(32)
    library.function("rms_norm")(x, weight)
    with dispatch.using("reference"):
        library.function("rms_norm")(x, weight)
    assert not dispatch.launched and not dispatch.fallbacks
    with dispatch.using("interpret"):
        library.function("rms_norm")(x.double(), weight.double())
    assert list(dispatch.fallbacks) == [
        ("rms_norm", "x is torch.float64; expected float32, float16 or bfloat16")
    ]


def test_wrong_words() -> None:
    with pytest.raises(ValueError, match="mode 'fast' is none of auto, triton"), dispatch.using("fast"):  # type: ignore[arg-type]
        pass
    with pytest.raises(ValueError, match="no operation is called 'norm'; there are"):
        library.operation("norm")


def test_a_result_is_the_same_each_time_by_construction() -> None:
    """No operation sums by atomics: deterministic mode asks for nothing more."""
    folder = Path(str(library.ops.__file__)).parent
    assert [file.name for file in folder.glob("*.py") if "tl.atomic" in file.read_text()] == []
