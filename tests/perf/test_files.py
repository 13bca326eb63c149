"""Files that other tools wrote, as workloads: an ONNX file and a saved program are answered right,
or refused in words that help.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hotlap.perf.lookup import onnx_file, onnx_graph, workloads
from hotlap.perf.lookup.cases import default_backends, expand, races, takes
from hotlap.perf.measure.measure import unsuitable
from hotlap.perf.oracle import onnx_rounding, truth
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Misuse, Refusal
from tests.perf import trying

RANDOM = np.random.default_rng(0)


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array((RANDOM.standard_normal(shape) / 4).astype(np.float32), name)


def declared(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def saved(path: Path, graph: onnx.GraphProto, opset: int = 17) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def convolutions(path: Path) -> Path:
    """An image network with free height and width."""
    nodes = [
        helper.make_node("Conv", ["image", "w0", "b0"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["scores"], transB=1),
    ]
    held = [weights("w0", 8, 3, 3, 3), weights("b0", 8), weights("w1", 5, 8), weights("b1", 5)]
    inputs = [declared("image", ["N", 3, "height", "width"])]
    graph = helper.make_graph(nodes, "net", inputs, [declared("scores", ["N", 5])], held)
    return saved(path, graph)


def tokens(path: Path) -> Path:
    """A text network: ids that index a table of 50 rows, a mask of ones, one output a token."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["m", "last"], ["u"]),
        helper.make_node("Mul", ["e", "u"], ["x"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Mul", ["y", "half"], ["out"]),
    ]
    held = [weights("table", 50, 16), weights("w", 16, 4), numpy_helper.from_array(np.array([2]), "last")]
    inputs = [declared(name, ["batch", "time"], TensorProto.INT64) for name in ("ids", "mask")]
    graph = helper.make_graph(nodes, "net", inputs, [declared("out", ["batch", "time", 4])], held)
    return saved(path, graph)


def fixed(path: Path) -> Path:
    """An old file: weights among the inputs, one batch size."""
    held = [weights("w", 6, 3)]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs = [declared("x", [4, 6]), declared("w", [6, 3])]
    return saved(path, helper.make_graph(nodes, "net", inputs, [declared("y", [4, 3])], held), 11)


def stateful(path: Path) -> Path:
    """A step of a recurrent network: the batch is axis 1 of its state, the rate is one number."""
    nodes = [
        helper.make_node("Squeeze", ["state", "zero"], ["s"]),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "s"], ["b"]),
        helper.make_node("Tanh", ["b"], ["t"]),
        helper.make_node("Cast", ["rate"], ["r"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["t", "r"], ["y"]),
    ]
    held = [weights("w", 6, 3), numpy_helper.from_array(np.array([0]), "zero")]
    inputs = [
        declared("x", ["rows", 6]),
        declared("state", [1, "rows", 3]),
        declared("rate", [], TensorProto.INT64),
    ]
    return saved(path, helper.make_graph(nodes, "net", inputs, [declared("y", ["rows", 3])], held))


MAKERS = {"convolutions": convolutions, "tokens": tokens, "fixed": fixed, "stateful": stateful}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_file_is_run_by_both_runtimes(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path / f"{kind}.onnx")
    sizes = {"height": "16", "width": "20"} if kind == "convolutions" else {}
    result = trying.tried(workloads.named(str(path), arguments=sizes), tmp_path)
    assert result.answers == dict.fromkeys(trying.BACKENDS, "ok")
    assert result.built["onnxruntime"][1] == "the file as it is"
    assert not [note for note in result.notes if "no fp64" in note]
    assert result.batch == {"fixed": 4}.get(kind, 1)
    free = {"convolutions": "height=25,width=31", "tokens": "time=97"}.get(kind)
    assert free is None or free in result.kinds


@pytest.mark.parametrize("kind", ["convolutions", "tokens"])
def test_int8_of_a_file_has_a_yardstick(kind: str, tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path / f"{kind}.onnx")
    result = trying.tried(workloads.named(str(path)), tmp_path, ("onnxruntime",), "int8")
    assert result.answers == {"onnxruntime": "ok"}
    module = onnx_file.OnnxFile(path)
    workload = workloads.load(workloads.named(str(path)))
    exact = module(*workload.inputs)
    with onnx_rounding.in_8_bits(module):
        rounded = module(*workload.inputs)
    (name,) = exact
    apart = float((exact[name] - rounded[name]).norm() / exact[name].norm())
    assert 1e-4 < apart < 0.05


def test_rounding_costs_a_file_what_it_costs_the_same_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 8)).eval()
    x = torch.randn(4, 64)
    torch.onnx.export(net, (x,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    file = workloads.load(workloads.named(str(tmp_path / "net.onnx")))
    of_module = workloads._as_workload((net, x), workloads.Reference("net"))
    costs = [truth.truth_of(each).costs((x,))[0].whole for each in (of_module, file)]
    assert 0.5 < costs[1] / costs[0] < 4  # a file is moved in fp32, by an ulp instead of half of one
    counts = onnx_rounding.counted(file.module, (x,))
    assert (counts.flops, counts.terms) == (2 * 4 * 64 * (64 + 8), 64)


def test_what_is_whole_stays_whole_when_moved(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sub", ["one", "mask"], ["y"]), helper.make_node("Sqrt", ["mask"], ["z"])]
    held = [numpy_helper.from_array(np.float32(1), "one")]
    outputs = [declared("y", [2, 8]), declared("z", [2, 8])]
    path = saved(
        tmp_path / "m.onnx", helper.make_graph(nodes, "net", [declared("mask", [2, 8])], outputs, held)
    )
    masked, root = onnx_rounding.costs(onnx_file.OnnxFile(path), (torch.ones(2, 8),))
    assert masked.whole == 0 and root.whole > 0


def test_a_wrong_evaluator_is_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tokens(tmp_path / "t.onnx")
    right = onnx_graph.evaluator

    def wrong(model: onnx.ModelProto) -> onnx_graph.Run:
        run = right(model)
        return lambda values: {name: value * 1.1 for name, value in run(values).items()}

    monkeypatch.setattr(onnx_graph, "evaluator", wrong)
    workload = workloads.load(workloads.named(str(path)))
    assert "differ by" in truth.truth_of(workload).no_fp64
    (note,) = truth.no_fp64(workload, truth.truth_of(workload))
    assert "held against ONNX Runtime in fp32" in note and "dtype of its inputs" not in note


def test_an_evaluator_that_is_wrong_for_several_rows_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One in onnx 1.23 was seen to be: a text recogniser's second row had other values."""
    path = convolutions(tmp_path / "c.onnx")
    images = RANDOM.standard_normal((1, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "one.npz", image=images)
    right = onnx_graph.evaluator

    def wrong(model: onnx.ModelProto) -> onnx_graph.Run:
        run = right(model)
        return lambda values: {
            name: value * (1 + 0.1 * (len(value) > 1)) for name, value in run(values).items()
        }

    arguments = {"inputs": str(tmp_path / "one.npz")}
    assert not truth.truth_of(workloads.load(workloads.named(str(path), arguments=arguments))).no_fp64
    monkeypatch.setattr(onnx_graph, "evaluator", wrong)
    workload = workloads.load(workloads.named(str(path), arguments=arguments))
    assert "differ by" in truth.truth_of(workload).no_fp64


def test_an_operator_that_no_evaluator_has_is_held_against_fp32(tmp_path: Path) -> None:
    nodes = [helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", alpha=2.0)]
    graph = helper.make_graph(
        nodes, "net", [declared("x", ["n", 6])], [declared("y", ["n", 3])], [weights("w", 6, 3)]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "own.onnx")
    result = trying.tried(workloads.named(str(tmp_path / "own.onnx")), tmp_path, ("onnxruntime",))
    assert result.answers == {"onnxruntime": "ok"}
    assert any("no fp64 reference" in note for note in result.notes)


def test_a_file_of_16_bits_is_run_in_fp32_and_as_it_is(tmp_path: Path) -> None:
    path = tokens(tmp_path / "t.onnx")
    model = onnx.load(path)
    onnx_graph.retype(model, TensorProto.FLOAT, TensorProto.FLOAT16)
    onnx.save(model, tmp_path / "half.onnx")
    whole = workloads.load(workloads.named(str(path)))
    half = workloads.load(workloads.named(str(tmp_path / "half.onnx")))
    exact = truth.truth_of(half).run(half.inputs)[0]
    assert exact.dtype == np.float64 and not np.array_equal(exact, exact.astype(np.float16))
    assert np.allclose(exact, truth.truth_of(whole).run(whole.inputs)[0], atol=0.01)
    result = trying.tried(workloads.named(str(tmp_path / "half.onnx")), tmp_path)
    assert result.answers == dict.fromkeys(trying.BACKENDS, "ok")
    assert any("the file is in float16: fp32 entrants run it in fp32" in note for note in result.notes)


def test_branches_and_loops_of_a_file_are_raised_too(tmp_path: Path) -> None:
    held = numpy_helper.from_array(np.float32(0.1), "held")
    bodies = [
        helper.make_graph(
            [helper.make_node(kind, ["x", f"{kind}_held"], [f"{kind}_out"])],
            kind,
            [],
            [declared(f"{kind}_out", ["n", 6])],
            [numpy_helper.from_array(numpy_helper.to_array(held), f"{kind}_held")],
        )
        for kind in ("Add", "Sub")
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "held"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=bodies[0], else_branch=bodies[1]),
    ]
    graph = helper.make_graph(nodes, "net", [declared("x", ["n", 6])], [declared("y", ["n", 6])], [held])
    path = saved(tmp_path / "branch.onnx", graph)
    result = trying.tried(workloads.named(str(path)), tmp_path, ("onnxruntime",))
    assert result.answers == {"onnxruntime": "ok"}
    assert not any("no fp64" in note for note in result.notes)


def test_wrong_weights_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is changed between reading and building is what the oracle is for."""
    from hotlap.perf.lowering import exporters

    right = exporters.as_given

    def wrong(workload: object, precision: str, path: Path) -> list[str]:
        notes = right(workload, precision, path)  # type: ignore[arg-type]
        model = onnx.load(path)
        values = numpy_helper.to_array(model.graph.initializer[0]).copy()
        values.flat[0] += 0.05
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, model.graph.initializer[0].name))
        onnx.save(model, path)
        return notes

    monkeypatch.setattr(exporters, "as_given", wrong)
    path = fixed(tmp_path / "fixed.onnx")
    answers = trying.tried(workloads.named(str(path)), tmp_path, ("onnxruntime",)).answers
    assert re.search("accuracy|export_failed", answers["onnxruntime"])


def test_weights_beside_the_file_go_along(tmp_path: Path) -> None:
    inner = convolutions(tmp_path / "inline.onnx")
    (tmp_path / "apart").mkdir()
    path = tmp_path / "apart" / "net.onnx"
    onnx.save(onnx.load(inner), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    sizes = {"height": "16", "width": "16"}
    result = trying.tried(workloads.named(str(path), arguments=sizes), tmp_path)
    assert result.answers == dict.fromkeys(trying.BACKENDS, "ok")


def test_weights_outside_the_files_folder_are_refused(tmp_path: Path) -> None:
    model = onnx.load(fixed(tmp_path / "fixed.onnx"))
    (tmp_path / "secret").write_bytes(bytes(72))
    (tmp_path / "model").mkdir()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    (tmp_path / "model" / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(Refusal, match=r"cannot be read|does not load|forward fails"):
        trying.tried(workloads.named(str(tmp_path / "model" / "net.onnx")), tmp_path)


def test_inputs_of_the_users_own(tmp_path: Path) -> None:
    path = tokens(tmp_path / "t.onnx")
    ids = np.arange(12).reshape(2, 6) % 50
    np.savez(tmp_path / "real.npz", ids=ids, mask=np.ones((2, 6), np.int32))
    loaded = workloads.load(workloads.named(str(path), arguments={"inputs": str(tmp_path / "real.npz")}))
    assert loaded.inputs[0].equal(torch.from_numpy(ids)) and loaded.inputs[1].dtype == torch.int64
    assert loaded.axes == {"ids": {1: "time"}, "mask": {1: "time"}} and not loaded.notes


def test_made_up_inputs_suit_the_file(tmp_path: Path) -> None:
    loaded = workloads.load(workloads.named(str(tokens(tmp_path / "t.onnx")), arguments={"time": "9"}))
    ids, mask = loaded.inputs
    assert ids.shape == (2, 9) and int(ids.max()) < 50 and len(set(ids.flatten().tolist())) > 5
    assert mask.eq(1).all()
    assert "ids of 50 numbers, mask ones" in loaded.notes[0]
    rate = workloads.load(workloads.named(str(stateful(tmp_path / "s.onnx")), arguments={"rate": "16000"}))
    assert rate.inputs[2].item() == 16000 and rate.inputs[0].shape == (2, 6)
    assert rate.inputs[1].shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hieght": "3"}, "has no hieght: --arg takes inputs, N, height, width"),
        ({"height": "tall"}, "expected a size or a number"),
        ({"inputs": "nowhere.npz"}, "is no npz file"),
    ],
)
def test_arguments_that_a_file_does_not_take(arguments: dict[str, str], words: str, tmp_path: Path) -> None:
    path = convolutions(tmp_path / "c.onnx")
    with pytest.raises(Refusal, match=re.escape(words)):
        workloads.load(workloads.named(str(path), arguments=arguments))


def test_arrays_that_do_not_fit(tmp_path: Path) -> None:
    path = convolutions(tmp_path / "c.onnx")
    np.savez(tmp_path / "a.npz", picture=np.zeros((1, 3, 8, 8)))
    np.savez(tmp_path / "b.npz", image=np.zeros((1, 4, 8, 8)))
    np.savez(tmp_path / "c.npz", image=np.array([{}], dtype=object))
    for name, words in (("a", "has no array image; it has picture"), ("b", "takes float32 (N, 3, height")):
        with pytest.raises(Refusal, match=re.escape(words)):
            workloads.load(workloads.named(str(path), arguments={"inputs": str(tmp_path / f"{name}.npz")}))
    with pytest.raises(Refusal, match="no npz file of plain arrays"):
        workloads.load(workloads.named(str(path), arguments={"inputs": str(tmp_path / "c.npz")}))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("abc")
    with pytest.raises(Refusal, match="cannot be read as an ONNX file"):
        workloads.load(workloads.named(str(tmp_path / "text.onnx")))
    with pytest.raises(Misuse, match="did you mean"):
        workloads.check(workloads.named(str(tmp_path / "test.onnx")))
    with pytest.raises(Misuse, match="--checkpoint goes with"):
        workloads.named("net.onnx", "weights.ckpt")


def test_a_file_has_a_baseline_of_its_own() -> None:
    backends = default_backends("cpu", "net.onnx")
    assert backends[:2] == ["onnxruntime", "onnxruntime[allocator:default][binding:none]"]
    assert "openvino" in backends and not {"eager", "compile", "triton"} & set(backends)
    ((_, members),) = races(expand(["net.onnx"], ["openvino", "onnxruntime"]))
    assert members[0].backend == "onnxruntime"
    assert default_backends("cpu", "net.pt2")[0] == "eager"
    assert not takes("compile", "net.onnx")
    reason = unsuitable(Case("net.onnx", "compile"))
    assert reason is not None and "is an ONNX file, and compile runs modules of torch" in reason.detail


class Free(torch.nn.Module):
    """A network of sequences of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = torch.tanh(self.layer(x))
        return {"steps": y * torch.ones(4), "last": y[:, -1]}


def program(path: Path, most: int | None = None) -> Path:
    torch.manual_seed(0)
    sizes = {"x": {0: torch.export.Dim("rows"), 1: torch.export.Dim("time", max=most)}}
    exported = torch.export.export(Free().eval(), (torch.randn(2, 6, 8),), dynamic_shapes=sizes)
    torch.export.save(exported, path)
    return path


def test_a_saved_program_is_run(tmp_path: Path) -> None:
    result = trying.tried(workloads.named(str(program(tmp_path / "free.pt2"))), tmp_path)
    assert result.inputs == ("x",) and result.outputs == ("steps", "last")
    assert result.answers == dict.fromkeys(trying.BACKENDS, "ok")
    loaded = workloads.load(workloads.named(str(tmp_path / "free.pt2")))
    assert loaded.dynamic and loaded.axes == {"x": {1: "x_1"}} and not loaded.notes


def test_a_programs_own_limit_leaves_that_axis_fixed(tmp_path: Path) -> None:
    result = trying.tried(workloads.named(str(program(tmp_path / "free.pt2", 1000))), tmp_path)
    assert result.answers == dict.fromkeys(trying.BACKENDS, "ok")
    assert any("axis 1 of x may have 0 to 1000" in note for note in result.notes)


class Planted:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("entry", ["data/constants/opaque_obj_0", "data/weights/weight_0"])
def test_nothing_of_a_program_is_unpickled(entry: str, tmp_path: Path) -> None:
    """Both ways in which an archive can hold a pickle, with torch's own reader in front."""
    path, hit = program(tmp_path / "p.pt2"), tmp_path / "hit"
    changed = tmp_path / "changed.pt2"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = source.read(name)
            inner = name.partition("/")[2]
            if inner == entry:
                content = pickle.dumps(Planted(hit))
            elif "weights_config" in name and "weight" in entry:
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            target.writestr(name, content)
        if "opaque" in entry:
            target.writestr(f"{source.namelist()[0].partition('/')[0]}/{entry}", pickle.dumps(Planted(hit)))
    with pytest.raises(Refusal, match=r"holds objects besides tensors|cannot be loaded"):
        workloads.load(workloads.named(str(changed)))
    assert not hit.exists()


def test_programs_that_are_none(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pt2")
    (tmp_path / "text.pt2").write_text("abc")
    for name, words in (("weights", "no program of torch"), ("text", "no archive of torch.export.save")):
        with pytest.raises(Refusal, match=words):
            workloads.load(workloads.named(str(tmp_path / f"{name}.pt2")))
    path = program(tmp_path / "p.pt2")
    with pytest.raises(Refusal, match="a saved program has its example inputs"):
        workloads.load(workloads.named(str(path), arguments={"time": "3"}))
