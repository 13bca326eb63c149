"""Layer profiles of TensorRT: real ones, made ones, and every way in which a file beside them may
lack or lie.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotlap.perf.cli import status
from hotlap.perf.terms.reasons import Unreadable
from hotlap.profiles.findings import review
from hotlap.profiles.tables import files, tensorrt

from .. import real

CONV = {
    "Name": "conv1 + relu",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Dimensions": [8, 3, 32, 32], "Format/Datatype": "Row major Half"}],
    "Outputs": [{"Dimensions": [8, 16, 16, 16], "Format/Datatype": "Row major Half"}],
    "Kernel": [3, 3],
    "OutMaps": 16,
    "Groups": 1,
    "Stride": [2, 2],
    "PrePadding": [1, 1],
    "Dilation": [1, 1],
    "TacticName": "sm80_xmma_fprop_half",
}
REFORMAT = "Reformatting CopyNode for Input Tensor 0"
LAYERS = [
    {"count": 1},
    {"name": "conv1 + relu", "timeMs": 0.5, "averageMs": 0.123456, "percentage": 60.0},
    {"name": "Reformatting CopyNode for Input Tensor 0", "averageMs": 0.0765},
]


def engine(
    folder: Path,
    listed: Any = LAYERS,
    graph: Any = None,
    device: str = "NVIDIA A100 80GB PCIe",
    median_ms: float = 0.18,
) -> Path:
    path = folder / "net.engine.profile.json"
    path.write_text(json.dumps(listed))
    (folder / "net.engine.graph.json").write_text(json.dumps(graph or {"Layers": [CONV], "Bindings": []}))
    (folder / "net.engine.metadata.json").write_text(json.dumps([{"Name": device}]))
    (folder / "net.engine.profile.metadata.json").write_text(
        json.dumps({"performance_summary": {"GPU Compute Time": [0.1, 0.3, 0.2, median_ms, 0.25]}})
    )
    return path


def test_layers_are_kernels_with_their_types_behind_them(tmp_path: Path) -> None:
    result = review.review(engine(tmp_path))
    assert result.trace.source == "tensorrt" and result.trace.gpu_name == "NVIDIA A100 80GB PCIe"
    assert [(row.name, row.length, row.events) for row in result.operators] == [
        ("CaskConvolution", 123456, 1),
        ("Reformat", 76500, 1),
    ]
    assert [row.name for row in result.kernels] == ["sm80_xmma_fprop_half", REFORMAT]
    assert [step.dur for step in result.facts.steps] == [180_000]
    (conv,) = result.attained
    assert conv.flops == 2 * 8 * 16 * 16 * 16 * 3 * 9 and conv.precision == "fp16"
    assert conv.share is not None and 0 < conv.share < 1
    assert result.trust.grades["window"] == "unknown" and any(
        "1.11 times the engine's 0.180 ms" in note for note in result.trust.notes
    )
    assert result.fixes and result.fixes[0].rule == "layout_conversions"


@pytest.mark.parametrize("name", ["net.engine.profile.json", "net.engine.graph.json"])
def test_either_file_may_be_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine(tmp_path)
    assert status(["review", str(tmp_path / name)]) == 0
    output = capsys.readouterr().out
    assert (
        "180 us (of the engine, the median of its runs)" in output
        and "CaskConvolution" in output
        and "bound" not in output
    )


def test_without_the_files_beside_it_times_remain(tmp_path: Path) -> None:
    path = engine(tmp_path)
    for suffix in ("graph.json", "metadata.json", "profile.metadata.json"):
        (tmp_path / f"net.engine.{suffix}").unlink()
    result = review.review(path)
    assert (
        [row.name for row in result.operators] == ["layer", "Reformat"]
        and not result.facts.steps
        and not result.attained
    )
    assert sum("is not there" in note for note in result.trust.notes) == 3 and result.trust.whole


def test_a_graph_without_times_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine(tmp_path).unlink()
    assert status(["review", str(tmp_path / "net.engine.graph.json")]) == 4
    assert "net.engine.profile.json (trtexec --exportProfile) must lie beside it" in capsys.readouterr().err


def test_layers_with_names_only(tmp_path: Path) -> None:
    result = review.review(engine(tmp_path, graph={"Layers": ["conv1 + relu", "other"]}))
    assert [row.name for row in result.operators] == ["layer", "Reformat"]


def test_a_layer_without_a_time_is_counted(tmp_path: Path) -> None:
    result = review.review(
        engine(tmp_path, [*LAYERS, {"name": "lost", "averageMs": "x"}, {"name": "negative", "averageMs": -1}])
    )
    assert not result.trust.whole and result.trace.damage.lost["a layer without a time"] == 2


@pytest.mark.parametrize("listed", [[{"count": 1, "averageMs": 0}], [{"averageMs": 1}, 5]])
def test_what_is_no_profile_is_refused(
    listed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(["review", str(engine(tmp_path, listed))]) == 4
    assert "TensorRT" in capsys.readouterr().err


KEYS = [
    "Layers",
    "Name",
    "Inputs",
    "Outputs",
    "Dimensions",
    "Kernel",
    "OutMaps",
    "Groups",
    "Stride",
    "performance_summary",
    "GPU Compute Time",
    "averageMs",
    "name",
    "count",
]
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@given(graph=anything, times=anything, device=anything, summary=anything)
def test_whatever_lies_beside_it_is_survived(
    graph: Any, times: Any, device: Any, summary: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("trt", numbered=True)
    path = engine(folder)
    for suffix, content in (
        ("graph.json", graph),
        ("metadata.json", device),
        ("profile.metadata.json", summary),
    ):
        (folder / f"net.engine.{suffix}").write_text(json.dumps(content))
    assert review.review(path).trace.events == 2
    path.write_text(json.dumps(times))
    with contextlib.suppress(Unreadable):
        tensorrt.read(path)


@pytest.mark.parametrize(
    ("name", "layers", "total_ns"),
    [
        ("a100_resnet_fp16/resnet", 36, 1_016_832),
        ("a100_resnet_fp32/resnet", 32, 2_123_776),
        ("a100_resnet_qat/resnet-qat", 37, 1_095_680),
    ],
)
def test_real_profiles(name: str, layers: int, total_ns: int) -> None:
    """Sums of the files' own decimals, and percentages that the files state themselves."""
    path = real.trace(f"trt/{name}.onnx.engine.profile.json")
    trace = files.read(path)
    assert len(trace.gpu) == layers and int(trace.gpu.dur.sum()) == total_ns
    stated = [layer["percentage"] for layer in json.loads(path.read_text())[1:]]
    assert [100 * dur / total_ns for dur in trace.gpu.dur.tolist()] == pytest.approx(
        stated, rel=1e-3, abs=1e-6
    )
    shares = [row.share for row in review.review(path).attained]
    assert shares and all(share is not None and 0 < share < 1 for share in shares)


def test_int8_against_fp32_says_why_it_is_faster(capsys: pytest.CaptureFixture[str]) -> None:
    sides = [
        str(real.trace(f"trt/{name}"))
        for name in (
            "a100_resnet_qat/resnet-qat.onnx.engine.profile.json",
            "a100_resnet_fp32/resnet.onnx.engine.profile.json",
        )
    ]
    assert status(["review", *sides]) == 0
    output = capsys.readouterr().out
    assert "faster by 1.11 ms a step (2.26 times as fast), because: convolution -1.26 ms" in output
    assert status(["review", *reversed(sides)]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "{ForeignNode[a.weight...b]}",
        "Reformatting CopyNode for Input Tensor 0 to {ForeignNode[x...y]}",
        'a "quoted" {',
        "x" * 50_000,
    ],
)
@pytest.mark.parametrize("counted", [True, False])
def test_layers_may_be_called_anything(name: str, counted: bool, tmp_path: Path) -> None:
    listed = [
        *([{"count": 1}] if counted else []),
        {"name": name, "timeMs": 0.2, "averageMs": 0.1},
        {"name": name + "2", "timeMs": 0.2, "averageMs": 0.1},
    ]
    assert files.read(engine(tmp_path, listed)).events == 2


@pytest.mark.parametrize("median_ms", [1e-9, True, "1", -1, 1e300])
def test_an_engine_s_time_that_is_none_is_not_used(
    median_ms: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = engine(tmp_path, median_ms=median_ms)
    assert status(["review", str(path)]) == 0 and status(["review", str(path), str(path)]) in (0, 4)
    assert "the engine's own time is not known" in capsys.readouterr().out


def test_layers_that_last_for_years_are_no_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        status(
            [
                "review",
                str(
                    engine(
                        tmp_path,
                        [{"count": 1}, *({"name": str(index), "averageMs": 1.1e12} for index in range(12))],
                    )
                ),
            ]
        )
        == 4
    )
    assert "last for years" in capsys.readouterr().err


def test_a_deeply_nested_graph_is_unknown_and_said(tmp_path: Path) -> None:
    path = engine(tmp_path)
    (tmp_path / "net.engine.graph.json").write_text('{"Layers": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert any(
        "types and shapes of the layers are unknown" in note for note in review.review(path).trust.notes
    )


def test_two_engines_of_one_gpu_are_judged_as_a_gpu_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    fast, slow = engine(tmp_path / "a", median_ms=2.5), engine(tmp_path / "b", median_ms=4.8)
    assert status(["review", str(slow), str(fast)]) == 1 and status(["review", str(fast), str(slow)]) == 0
