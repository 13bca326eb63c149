"""ONNX files whose weights lie beside them, as those above 2 GB do; here of small ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import openvino
import pytest
import torch
from torch import nn

from hotlap.perf.lookup import onnx_graph
from hotlap.perf.lowering import export, exporters, ov_model, quantise
from hotlap.perf.terms.case import Case, Workload
from hotlap.perf.terms.reasons import Refusal

CASE = Case("w", "onnxruntime", batch=2)


@pytest.fixture
def workload() -> Workload:
    module = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)).eval()
    return Workload("w", module, (torch.randn(2, 64),), names=("x",))


def scatter(*arguments: Any, **keywords: Any) -> None:
    """Exports as torch's older exporter does above 2 GB: each weight in a file of its own."""
    path = arguments[2]
    EXPORT(*arguments, **keywords)
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0
    )


EXPORT = torch.onnx.export


@pytest.mark.parametrize("exporter", exporters.EXPORTERS)
def test_weights_beside_a_file_go_where_it_goes(
    exporter: str, workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "LARGEST_FILE_BYTES", 0)
    if exporter == "traced":
        monkeypatch.setattr(torch.onnx, "export", scatter)
    exported = export.export(workload, CASE, tmp_path, exporter)
    names = {"model.onnx", "model.onnx.data"}
    assert {file.name for file in exported.folder.iterdir()} == {*names, "export.json"}
    place = tmp_path / "case"
    place.mkdir()
    export.place(exported, place)
    assert {file.name for file in place.iterdir()} == names
    export.agrees(export.on_cpu(place / "model.onnx"), workload)
    opened = ov_model.opened(openvino, exported.folder / "model.onnx", workload)
    export.agrees(ov_model.runner(openvino, opened), workload)
    with pytest.raises(Refusal, match="at most 2 GiB, and the weights of this one lie beside it"):
        quantise.dynamically(exported.folder / "model.onnx", tmp_path / "int8.onnx", False)
