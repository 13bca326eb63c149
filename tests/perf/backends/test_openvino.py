import contextlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hotlap.perf.backends import openvino as backend
from hotlap.perf.lowering import calibration, nncf
from hotlap.perf.machine import cpu, present
from hotlap.perf.machine.cpu import HALF_PRODUCTS
from hotlap.perf.oracle import reference
from hotlap.perf.oracle.check import distances
from hotlap.perf.terms.case import Case, Workload
from hotlap.perf.terms.reasons import Refusal

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

if backend.available("cpu") is not None:
    pytest.skip("openvino is not installed", allow_module_level=True)

needs_nncf = pytest.mark.skipif(
    backend.supports(Case("conv", "openvino", "int8")) is not None, reason="nncf is not installed"
)
has_bf16 = bool(cpu.onednn_products() & set(HALF_PRODUCTS["bf16"]))

CHILD = """
import pathlib, sys
import numpy as np
from hotlap.perf.backends import openvino as backend
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.case import Case
case = Case.parse(sys.argv[1])
artefact = Artefact(case, pathlib.Path(sys.argv[2]), 2, None, pathlib.Path())
step = backend.load(artefact)
step.fetch(step.call(step.place((np.zeros((2, 6), "int64"),))))
assert backend.placement(artefact, step).wrong is None
assert not {"torch", "nncf"} & set(sys.modules)
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
print(step.about.model.get_property("INFERENCE_NUM_THREADS"))
"""


QUANTISES = """
import contextlib, pathlib, sys
import torch
from hotlap.perf.backends import openvino as backend
from hotlap.perf.terms.case import Case, Workload
torch.manual_seed(0)
workload = Workload("linear", torch.nn.Linear(8, 8).eval().requires_grad_(False), (torch.randn(2, 8),))
case = Case("linear", "openvino", "int8", 2)
backend.build(workload, case, pathlib.Path(sys.argv[1]), lambda name: contextlib.nullcontext())
from nncf.telemetry.wrapper import NNCFTelemetryStub, telemetry
assert isinstance(telemetry, NNCFTelemetryStub) and "pytest" not in sys.modules
assert not [name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module]
"""


class Outlier(nn.Module):
    """Between b and c, one value in 32 is 3,000 times as large as the others and counts as much as
    each of them.
    """

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(32, 32) for _ in range(4))
        self.b.weight.data[0] *= 3000
        self.c.weight.data[:, 0] /= 3000

    def forward(self, x):  # (B, 32) -> (B, 32)
        return self.d(torch.relu(self.c(torch.relu(self.b(torch.relu(self.a(x)))))))


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return Workload("linear", nn.Linear(8, 8).eval().requires_grad_(False), (torch.randn(2, 8),))


@pytest.mark.numeric
@pytest.mark.parametrize("workload", ["conv", "mlp", "attention"])
def test_outputs_are_those_of_the_module_and_fp32_is_fp32(run, check, workload):
    ran = run(f"{workload}/openvino/fp32/b3/cpu/inference")
    check(ran)
    placement = ran.placement()
    assert ran.phases == ["export", "build"]
    assert placement.wrong is None and placement.counters["nodes_other_precision"] == 0
    assert placement.ran_on["f32"] > 0 and "bf16" not in placement.ran_on


@pytest.mark.numeric
@pytest.mark.skipif(not has_bf16, reason="this CPU has no bf16 instructions")
def test_bf16_where_fp32_was_asked_is_seen(run, check):
    ran = run("conv/openvino/bf16/b2/cpu/inference")
    check(ran)
    assert ran.placement().wrong is None and ran.placement().ran_on["bf16"] > 0
    other = replace(ran.artefact, case=Case("conv", "openvino", batch=2))
    wrong = backend.placement(other, ran.step).wrong
    assert wrong is not None and wrong.code == "unsupported_precision" and "requested f32" in wrong.detail


def test_outputs_survive_the_next_call(run, check):
    ran = run("mlp/openvino/fp32/b2/cpu/inference[hint:throughput]")
    inputs = ran.step.place(tuple(0 * array for array in _inputs(ran)))
    ran.step.call(inputs)
    check(ran)


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (Case("conv", "openvino", "tf32"), "unsupported_precision"),
        (Case("conv", "openvino", mode="train"), "unsupported_op"),
    ],
)
def test_what_it_does_not_do_has_a_reason(case, code):
    assert backend.supports(case).code == code


def test_precisions_follow_the_cpu(monkeypatch):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(cpu, "flags", lambda: frozenset({"avx2"}))
    assert backend.supports(Case("conv", "openvino", "bf16")).code == "unsupported_precision"
    monkeypatch.setattr(cpu, "flags", lambda: frozenset({"avx512_bf16"}))
    assert backend.supports(Case("conv", "openvino", "bf16")) is None
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI")
    assert backend.supports(Case("conv", "openvino", "bf16")).code == "unsupported_precision"
    assert backend.available("cuda:0").code == "unsupported_target"


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=needs_nncf)])
def test_a_worker_imports_neither_torch_nor_nncf_nor_telemetry(run, precision):
    artefact = run(f"attention/openvino/{precision}/b2/cpu/inference").artefact
    command = [sys.executable, "-P", "-c", CHILD, artefact.case.id, str(artefact.folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "2"


def test_it_is_no_default_for_a_gpu():
    assert backend.TARGETS == ("cpu",)


@pytest.mark.numeric
@needs_nncf
@pytest.mark.parametrize(("name", "elsewhere"), [("conv", 0), ("attention", 3)])
def test_int8_is_as_near_as_8_bits_can_be_and_runs_in_8_bits(run, workload, tmp_path, name, elsewhere):
    """Of the attention three products, of probabilities and values, stay in fp32."""
    case = Case(name, "openvino", "int8", 4)
    ran = run(case.id)
    assert ran.phases == ["export", "quantise", "build"]
    subject = reference.refer(workload(case), 4, ["int8"], "cpu", tmp_path, 2).subject
    outputs = {}
    for kind in ("random", "real"):
        with np.load(tmp_path / f"{kind}.npz") as stored:
            produced = [ran.step.fetch(ran.step.call(ran.step.place((batch,))))[0] for batch in stored["in0"]]
        outputs[kind] = tmp_path / f"out-{kind}.npz"
        np.savez(outputs[kind], out0=np.stack(produced))
    assert all(
        off.within and off.cosine > 0.999
        for off in distances(tmp_path, outputs, "int8", subject.work.terms).values()
    )
    placement = ran.placement()
    assert (
        placement.wrong is None
        and placement.requested == "i8"
        and placement.counters["nodes_other_precision"] == elsewhere
    )
    assert placement.ran_on.get("u8", 0) + placement.ran_on.get("i8", 0) >= 2
    words = "\n".join(placement.evidence)
    assert (
        "ranges from 4 of 5 batches of the example inputs" in words
        and "cosine to fp32 0.999" in words
        and nncf.instructions() in words
    )
    assert ("model type transformer" in words) == (name == "attention")


@needs_nncf
def test_a_model_that_was_never_quantised_is_not_int8(run):
    ran = run("conv/openvino/fp32/b2/cpu/inference")
    wrong = backend.placement(replace(ran.artefact, case=Case("conv", "openvino", "int8", 2)), ran.step).wrong
    assert (
        wrong.code == "unsupported_precision"
        and "of 2 convolutions and matrix products 0 run in 8 bits (2 in f32)" in wrong.detail
    )


@pytest.mark.numeric
@needs_nncf
def test_what_8_bits_would_ruin_stays_in_fp32(tmp_path):
    torch.manual_seed(0)
    outlier = Workload("outlier", Outlier().eval().requires_grad_(False), (torch.randn(4, 32),))
    step, placement = _built(outlier, Case("outlier", "openvino", "int8", 4), tmp_path)
    assert (
        "cosine to fp32 0.95" in placement.evidence[1]
        and "operations kept out: node_linear_2" in placement.evidence[2]
    )
    assert placement.wrong is None and placement.counters["nodes_other_precision"] == 1
    produced = step.fetch(step.call(step.place((outlier.inputs[0].numpy(),))))
    assert calibration.cosine([(outlier.module(*outlier.inputs).numpy(),)], [produced]) > 0.99


@needs_nncf
def test_where_nothing_helps_the_evidence_says_so(tmp_path, monkeypatch, linear):
    monkeypatch.setattr(nncf, "LIMIT", 1.1)
    _, placement = _built(linear, Case("linear", "openvino", "int8", 2), tmp_path)
    assert "best of 2 tries" in placement.evidence[2] and "stays below 1.1" in placement.evidence[3]


@needs_nncf
@pytest.mark.parametrize(("value", "says"), [(0.0, "one value only (0)"), (float("nan"), "NaN")])
def test_calibration_that_says_nothing_is_refused(tmp_path, linear, value, says):
    useless = replace(linear, calibration=(torch.full((8, 8), value),))
    with pytest.raises(Refusal) as refused:
        _built(useless, Case("linear", "openvino", "int8", 2), tmp_path)
    assert refused.value.reason.code == "invalid_input" and says in refused.value.reason.detail


@needs_nncf
def test_calibration_far_from_the_data_is_no_crash_but_wrong_outputs(tmp_path, linear):
    poor = replace(linear, calibration=(torch.randn(8, 8) * 1e-3,))
    step, _ = _built(poor, Case("linear", "openvino", "int8", 2), tmp_path)
    produced = step.fetch(step.call(step.place((linear.inputs[0].numpy(),))))[0]
    assert (
        np.isfinite(produced).all() and np.abs(produced - linear.module(*linear.inputs).numpy()).max() > 0.1
    )


@needs_nncf
def test_nncf_prints_nothing_and_sends_nothing(tmp_path):
    (tmp_path / "case").mkdir()
    ended = subprocess.run(
        [sys.executable, "-P", "-c", QUANTISES, str(tmp_path / "case")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout == "" and "nncf" not in ended.stderr.lower() and "Statistics" not in ended.stderr


def test_without_nncf_int8_has_a_remedy(monkeypatch):
    monkeypatch.setattr(present.importlib.util, "find_spec", lambda name: None)
    missing = backend.supports(Case("conv", "openvino", "int8"))
    assert missing.code == "dep_missing" and "pip install 'hotlap[openvino]'" in missing.detail
    assert backend.supports(Case("conv", "openvino")) is None


@pytest.mark.parametrize(
    ("flags", "limit", "says"),
    [
        ({"avx2", "avx_vnni"}, "", "by avx_vnni"),
        ({"avx2", "avx_vnni"}, "AVX2", "no faster than fp32"),
        ({"avx2"}, "", "no faster than fp32"),
    ],
)
def test_the_evidence_says_what_multiplies_bytes(monkeypatch, flags, limit, says):
    monkeypatch.setattr(cpu, "flags", lambda: frozenset(flags))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert says in nncf.instructions()


def test_a_call_occupies_one_stream_and_streams_need_threads(run):
    ran = run("mlp/openvino/fp32/b2/cpu/inference[streams:2]")
    assert (
        ran.placement().wrong is None
        and "2 stream(s) of 2 thread(s) in all; a call occupies one" in ran.placement().evidence
    )
    alone = replace(ran.artefact, threads=1)
    wrong = backend.placement(alone, backend.load(alone)).wrong
    assert "requested 2 streams, OpenVINO made 1" in wrong.detail


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=needs_nncf)])
def test_the_load_comes_from_the_cache_of_the_build(run, precision):
    ran = run(f"conv/openvino/{precision}/b2/cpu/inference[cache:on]")
    assert ran.phases[-1] == "cache" and ran.placement().wrong is None
    assert any("loaded from the cache" in line for line in ran.placement().evidence)


@pytest.mark.parametrize(
    "damage", [lambda blob: blob[: len(blob) // 2], lambda blob: b"", lambda blob: b"x" * len(blob)]
)
def test_a_damaged_cache_is_seen_and_outputs_are_right(run, check, damage):
    ran = run("conv/openvino/fp32/b2/cpu/inference[cache:on]")
    (blob,) = (ran.artefact.folder / backend.CACHE).iterdir()
    blob.write_bytes(damage(blob.read_bytes()))
    step = backend.load(ran.artefact)
    check(ran._replace(step=step, outputs=step.fetch(step.call(step.place(tuple(_inputs(ran)))))))
    placement = backend.placement(ran.artefact, step)
    assert placement.wrong.code == "build_failed" and "compiled anew" in placement.wrong.detail


def test_a_cache_that_cannot_be_written_is_refused_in_one_line(tmp_path, linear):
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / backend.CACHE).write_text("in the way")
    with pytest.raises(Refusal, match=r"left no cache in .* that it can load") as refused:
        _built(linear, Case("linear", "openvino", batch=2, options=(("cache", "on"),)), tmp_path)
    assert refused.value.reason.code == "out_of_space" and "\n" not in refused.value.reason.detail


def _built(workload, case, folder):
    """Built, loaded and called once: the step and where it ran."""
    (folder / "case").mkdir(exist_ok=True)
    backend.build(workload, case, folder / "case", lambda name: contextlib.nullcontext())
    artefact = backend.Artefact(case, folder / "case", 2, lambda: workload, folder)
    step = backend.load(artefact)
    step.call(step.place(tuple(value.numpy() for value in workload.inputs)))
    return step, backend.placement(artefact, step)


def _inputs(ran):
    return [tensor.numpy() for tensor in ran.artefact.workload().inputs]


@needs_nncf
def test_a_branch_that_calibration_never_takes_is_named():
    import onnx
    import openvino as ov

    weight = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    declared = onnx.helper.make_tensor_value_info
    branches = []
    for name in ("a", "b"):
        product = onnx.helper.make_node("MatMul", ["x", f"w{name}"], [f"y{name}"])
        output = declared(f"y{name}", onnx.TensorProto.FLOAT, [1, 8])
        held = [onnx.numpy_helper.from_array(weight, f"w{name}")]
        branches.append(onnx.helper.make_graph([product], name, [], [output], held))
    chosen = onnx.helper.make_node("If", ["flag"], ["y"], then_branch=branches[0], else_branch=branches[1])
    inputs = [declared("x", onnx.TensorProto.FLOAT, [1, 8]), declared("flag", onnx.TensorProto.BOOL, [])]
    graph = onnx.helper.make_graph([chosen], "g", inputs, [declared("y", onnx.TensorProto.FLOAT, [1, 8])])
    file = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    model = ov.Core().read_model(file.SerializeToString())
    batches = [(np.full((1, 8), number, np.float32), np.array(True)) for number in range(4)]
    with pytest.raises(Refusal, match="an If with a branch that no calibration input takes"):
        nncf.quantise(ov, model, calibration.Calibration(batches, "always true"))


@needs_nncf
def test_what_nncf_does_not_find_again_stays_in_fp32(monkeypatch):
    """As the table of positions of all-MiniLM-L6-v2 in NNCF 3.4."""
    import openvino as ov

    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    file = torch.onnx.export(module, (torch.ones(1, 8),), dynamo=True, verbose=False)
    model = ov.Core().read_model(file.model_proto.SerializeToString())
    table = next(node.get_friendly_name() for node in model.get_ops() if node.get_type_name() == "MatMul")
    whole = nncf._quantise

    def losing(model, batches, preset, kept):
        if table not in kept:
            raise KeyError(f"391 {table}")
        return whole(model, batches, preset, kept)

    monkeypatch.setattr(nncf, "_quantise", losing)
    batches = [(np.random.default_rng(seed).normal(size=(1, 8)).astype(np.float32),) for seed in range(8)]
    quantised = nncf.quantise(ov, model, calibration.Calibration(batches, "noise"))
    assert f"left in fp32, since NNCF does not find them again: {table}" in quantised.evidence
    monkeypatch.setattr(nncf, "_quantise", lambda *_: (_ for _ in ()).throw(KeyError("other")))
    with pytest.raises(Refusal, match="KeyError: 'other'"):
        nncf.quantise(ov, model, calibration.Calibration(batches, "noise"))


@needs_nncf
def test_masked_attention_is_seen():
    """all-MiniLM-L6-v2 lost half its cosine where it was not taken for a transformer."""
    import openvino as ov

    class Masked(nn.Module):
        def forward(self, x, mask):
            return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=mask)

    inputs = torch.randn(1, 2, 6, 8), torch.ones(1, 1, 6, 6, dtype=torch.bool)
    file = torch.onnx.export(Masked().eval(), inputs, dynamo=True, verbose=False).model_proto
    assert any(node.op_type == "IsNaN" for node in file.graph.node)
    assert nncf.attends(ov.Core().read_model(file.SerializeToString()))
