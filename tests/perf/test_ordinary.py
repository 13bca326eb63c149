"""Models as people have them (bench/ordinary.py): each kind is answered right, or refused in words
that help. Here through the oracle, ONNX Runtime and OpenVINO in one process; bench/models_tried.py
runs the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from bench import ordinary
from hotlap.perf.lookup.workloads import Reference
from hotlap.perf.terms.reasons import Refusal
from tests.perf import trying


def tried(name: str, folder: Path, backends: tuple[str, ...] = trying.BACKENDS) -> trying.Tried:
    return trying.tried(Reference(f"bench.ordinary:{name}"), folder, backends)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize(
    "name",
    [
        "states_made_in_forward",
        "sines_of_an_integer",
        "cast_to_float",
        "padding_mask",
        "mask_of_infinities",
        "asserted_values",
        "bag_with_offsets",
        "dict_argument",
        "keywords",
        "none_and_number",
        "nested_states",
        "dataclass_argument",
        "pixels",
        "number_of_no_axis",
        "same_tensor_twice",
        "mask_of_large_numbers",
        "table_kept_by_the_module",
        "weights_of_64_bits",
        "booleans_beside",
        "dict_returned",
        "dataclass_returned",
        "named_tuple_returned",
        "cache_returned",
        "cache_registered_with_pytree",
        "time_first",
        "fixed_view",
        "free_time",
        "free_image",
        "weight_norm_by_hook",
        "lock_held",
        "weights_of_16_bits",
        "constant_in_fp32",
        "rows_by_a_mask",
        "spectrogram",
        "fake_quantised",
        "packed_steps",
        "grid_sampled",
        "smaller_without_aliasing",
    ],
)
def test_right_in_every_file(name: str, tmp_path: Path) -> None:
    result = tried(name, tmp_path)
    assert result.answers == dict.fromkeys(trying.BACKENDS, "ok")


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_part_that_torchscript_compiled_goes_into_a_file(tmp_path: Path) -> None:
    result = tried("scripted_part", tmp_path)
    assert result.answers == dict.fromkeys(trying.BACKENDS, "ok")
    assert "recorded from one call (torch.onnx.export" in " ".join(result.built["onnxruntime"])


def test_inputs_and_outputs_have_the_names_that_their_author_knows(tmp_path: Path) -> None:
    names = {
        "dict_argument": (("batch.user", "batch.item"), ("output 0",)),
        "keywords": (("input_ids", "attention_mask"), ("last", "pooled")),
        "none_and_number": (("input_ids",), ("last", "pooled")),
        "dataclass_argument": (("inputs0.left", "inputs0.right"), ("output 0",)),
        "named_tuple_returned": (("x",), ("boxes", "scores")),
        "dict_returned": (("x",), ("z_boxes", "a_scores")),
        "nested_states": (("input", "hx.0", "hx.1"), ("output 0", "output 1", "output 2")),
        "cache_registered_with_pytree": (("x", "cache.keys"), ("mean", "cache.0")),
    }
    for name, expected in names.items():
        (tmp_path / name).mkdir()
        result = tried(name, tmp_path / name, ())
        assert (result.inputs, result.outputs) == expected, name


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("constant_in_fp32", "there is no fp64 reference"),
        ("weights_of_16_bits", "its weights are bfloat16: fp32 entrants run them in fp32; --precisions bf16"),
        ("cache_returned", "forward returns cache (Cache) besides, which is left out"),
        ("dataclass_returned", "forward returns note (str) besides, which is left out"),
        ("padding_mask", "our random inputs do not suit the model"),
        ("time_first", "inputs inputs0 float32 (30, 1, 8): dimension 0 is no batch"),
        ("fixed_view", "dimension 0 is a batch of 4 and of no other size"),
    ],
)
def test_what_is_done_with_it_is_said(name: str, note: str, tmp_path: Path) -> None:
    assert any(note in line for line in tried(name, tmp_path, ()).notes)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("noise_in_forward", "nondeterministic", "take random numbers as an input, forward(x, noise)"),
        ("dropout_left_on", "nondeterministic", "F.dropout(x, p, self.training)"),
        ("list_of_images", "invalid_input", "forward(self, images) returns self.model(list(images))"),
        (
            "NeedsWidth",
            "invalid_input",
            "needs width: give plain values with --arg width=VALUE, or write a function",
        ),
        ("AsksItsTrainer", "invalid_input", "forward uses self.trainer, which there is only while it trains"),
    ],
)
def test_what_is_no_model_to_compare_is_refused_with_the_remedy(
    name: str, code: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(Refusal) as refused:
        tried(name, tmp_path, ())
    assert refused.value.reason.code == code
    assert words in refused.value.reason.detail


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("branch_on_values", ("ordinary.py:", "`if x.sum() > 0:`", "torch.where or torch.cond")),
        ("branch_on_how_many", ("ordinary.py:", "`if picked.numel() == 0:`", "torch.where or torch.cond")),
        ("packed_last", ("ordinary.py:", "`return self.lstm(packed)[1][0][0]`", "pad_packed_sequence")),
    ],
)
def test_what_no_file_can_hold_is_refused_with_the_line_of_the_model(
    name: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    """The older exporter writes a file of `branch_on_values` that goes one way for ever."""
    answers = tried(name, tmp_path).answers
    for backend, answer in answers.items():
        assert answer.startswith("export_failed: "), backend
        assert all(word in answer for word in words), answer
        assert "\x1b" not in answer and "Torch IR" not in answer


def test_a_file_that_records_one_call_says_so(tmp_path: Path) -> None:
    built = tried("asserted_values", tmp_path).built
    for notes in built.values():
        assert any(
            "recorded from one call (torch.onnx.export, dynamo=False), for shares (1, 8)" in n for n in notes
        )
        assert any(
            "`assert torch.allclose" in note and "reads values of the inputs" in note for note in notes
        )


def test_free_axes_are_checked_at_two_other_sizes(tmp_path: Path) -> None:
    assert tried("free_time", tmp_path, ()).kinds == ("random", "real", "time=31", "time=10")


def test_a_file_for_one_size_is_refused_where_the_workload_says_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: an exporter that fixes the time, right at the example's."""
    from hotlap.perf.lowering import exporters

    monkeypatch.setattr(exporters, "EXPORTERS", {"traced": exporters.traced})
    with pytest.raises(Exception, match="Got invalid dimensions"):
        tried("free_time", tmp_path, ("onnxruntime",))


def test_a_branch_on_a_free_size_is_refused_where_it_bounds_the_size(tmp_path: Path) -> None:
    """The file was right at the two sizes that are tried, and wrong beyond 40."""
    from hotlap.perf.lowering import exporters
    from hotlap.perf.terms.case import Workload

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return (x[:, :40] if x.shape[1] > 40 else x).mean(1)

    axes = {"x": {1: "time"}}
    workload = Workload("w", ordinary.Does(forward), (torch.randn(2, 20, 4),), names=("x",), dynamic=axes)
    with pytest.raises(Refusal, match="time is free, and forward does otherwise where it is above 40"):
        exporters.dynamo(workload, "fp32", tmp_path / "model.onnx")
    fixed = Workload("w", workload.module, workload.inputs, names=("x",))
    assert exporters.dynamo(fixed, "fp32", tmp_path / "model.onnx") == []


def test_a_branch_is_seen_and_a_shape_is_none() -> None:
    from hotlap.perf.lowering import branches

    def reads(function: Any, *inputs: torch.Tensor) -> list[str]:
        return [
            each.line for each in branches.decisions(ordinary.Does(function), inputs) if not each.harmless
        ]

    x = torch.randn(4, 8)
    shape = reads(lambda self, x: x * 2 if x.shape[0] > 2 else x, x)
    constant = reads(lambda self, x: x * 2 if torch.ones(1).item() > 0 else x, x)
    number = reads(lambda self, x: x * float((x + 1).sin().max()), x)
    size = reads(lambda self, x: x[: int(x.argmax())], x)
    listed = reads(lambda self, x: x * len(x.mean(1).tolist()), x)
    picked = reads(lambda self, x: x * x[x.argmax(0)].shape[0] + x.topk(2).indices.numel(), x)
    assert [len(lines) for lines in (shape, constant, picked)] == [0, 0, 0]
    assert [len(lines) for lines in (number, size, listed)] == [1, 1, 1]


def write(self: Any, x: torch.Tensor) -> torch.Tensor:
    kept = torch.zeros(1)
    kept[0] = x.mean()
    return x * 2 if kept[0] < 2 else x


def write_into_a_view(self: Any, x: torch.Tensor) -> torch.Tensor:
    kept = torch.zeros(2)
    kept[0:1].copy_(x.mean())
    return x * 2 if kept.sum() < 2 else x


def positive(x: torch.Tensor) -> torch.Tensor:
    return x.relu()


def call_compiled_code(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Calls operators where no function of torch's is seen."""
    return x * 0 if torch.jit.script(positive)(x).sum() > 3 else x


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(
    "function",
    [
        write,
        write_into_a_view,
        call_compiled_code,
        lambda self, x: x * 0 if 9 in x else x,
        lambda self, x: x * 0 if np.asarray(x).mean() > 2 else x,
        lambda self, x: getattr(x, {"1": "sin"}.get(f"{x.max()}", "cos"))(),
        lambda self, x: x * 0 if x[x > 1].numel() == 0 else x,
        lambda self, x: x * 0 if len((x > 1).nonzero()) else x,
        lambda self, x: x * 0 if torch.unique(x).shape[0] > 3 else x,
        lambda self, x: x * sum(value.sin() for value in x[x > 1]),
        lambda self, x: x * sum(x[x > 1].unbind()),
        lambda self, x: x * sum(part.sum() for part in torch.split(x[x > 1], 2)),
        lambda self, x: x * 0 if torch.masked_select(x, x > 1).sum().item() > 3 else x,
        lambda self, x: x * 0 if len(nms(x[:, :4].cumsum(1), x[:, 0], 0.5)) > 3 else x,
        lambda self, x: x * 0 if torch.ops.aten.nonzero(x > 1).shape[0] > 3 else x,
    ],
)
def test_no_way_to_read_a_value_escapes(function: Any) -> None:
    """The older exporter follows each, and writes a file of one way."""
    from hotlap.perf.lowering import branches

    read = branches.decisions(ordinary.Does(function), (torch.randn(4, 8),))
    assert [each for each in read if not each.harmless]


def test_lines_of_a_package_are_shown_with_their_folders_and_few_of_them(tmp_path: Path) -> None:
    from hotlap.perf.lowering import branches, exporters

    file = tmp_path / "site-packages" / "theirs" / "boxes.py"
    file.parent.mkdir(parents=True)
    file.write_text("if boxes.numel() == 0:\n    pass\n")
    text = str(exporters.Decides([branches.decision(str(file), 1)] * 5))
    assert "values of its inputs at theirs/boxes.py:1 `if boxes.numel() == 0:`, theirs" in text
    assert text.count("boxes.py") == 3 and "and 2 lines more" in text
    assert "installed package are its authors' to change" in text
    assert "installed" not in str(exporters.Decides([branches.decision(__file__, 1)]))


def test_the_line_of_an_error_is_one_that_can_be_read() -> None:
    from hotlap.perf.lowering import branches

    generated: dict[str, Any] = {}
    exec("def call(function): return function(1)", generated)
    with pytest.raises(TypeError) as raised:
        generated["call"](lambda: None)
    assert "test_ordinary.py:" in branches.place_of(raised.value)
    assert '`generated["call"](lambda: None)`' in branches.place_of(raised.value)


def test_an_output_of_a_class_without_names_of_its_parts_has_numbers() -> None:
    from torch.utils import _pytree

    from hotlap.perf.oracle import leaves

    class Kept:
        def __init__(self, keys: torch.Tensor) -> None:
            self.keys = keys

    _pytree.register_pytree_node(Kept, lambda kept: ([kept.keys], None), lambda parts, _: Kept(*parts))
    assert leaves.names({"mean": torch.ones(1), "cache": Kept(torch.ones(2))}) == ["output 0", "output 1"]


def test_what_shows_that_there_is_no_batch_is_its_authors_word_only_where_he_said_so() -> None:
    from hotlap.perf.oracle.reference import axis_of, described, truth_of
    from hotlap.perf.terms.case import Workload

    def words(workload: Workload) -> str:
        return described(workload, axis_of(workload, truth_of(workload)))

    module = ordinary.Does(lambda self, x, edges: x[edges[0]] - x[edges[1]])
    x, edges = torch.randn(5, 3), torch.tensor([[0, 1, 4], [2, 3, 0]])
    unlike = words(Workload("w", module, (x, edges), dynamic=False, batched=False))
    said = words(Workload("w", ordinary.Does(lambda self, x: x * 2), (x,), dynamic=False, batched=False))
    assert "no batch (it is not of one size in all inputs)" in unlike
    assert "no batch (as its author says)" in said and "To say so in the code" not in said


def test_an_installed_package_may_be_a_model_and_the_standard_library_is_none() -> None:
    import sysconfig

    from hotlap.perf.lowering import branches

    standard = sysconfig.get_paths()["stdlib"]
    assert branches.is_models(f"{standard}/site-packages/torchvision/ops/boxes.py")
    assert not branches.is_models(f"{standard}/contextlib.py")
    assert not branches.is_models(torch.nn.functional.__file__)


def test_complex_weights_keep_their_imaginary_part(tmp_path: Path) -> None:
    answers = tried("complex_weights", tmp_path).answers
    assert all("accuracy" not in answer for answer in answers.values()), answers
