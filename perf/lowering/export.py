"""From a Workload to an ONNX file, by the first exporter whose file is right (exporters.py).
onnxruntime, openvino and tensorrt share it: a workload is exported once for each precision (int8
starts from fp32's).

The export lies in one folder beside the cases' own, so that folder must belong to one run: it is
found by the workload's name.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..oracle import arrays, check
from ..terms import files
from ..terms.case import Case, Workload
from ..terms.reasons import Refusal

if TYPE_CHECKING:
    from ..terms.contract import Arrays


class Exported(NamedTuple):
    """An ONNX file.

    folder: holds model.onnx and, above 2 GB, its weights beside it. seconds: what the export took
    when it was made. notes: how it was made where that is not the usual way, in words.
    """

    folder: Path
    seconds: float
    notes: tuple[str, ...]


def export(workload: Workload, case: Case, root: Path, exporter: str = "") -> Exported:
    """Exports into root, or takes what another case of the same workload and precision left.

    exporter: of exporters.EXPORTERS; empty for the first that works. Raises Refusal(export_failed)
    with the operator's name where it is known.
    """
    precision = "fp32" if case.precision in ("tf32", "int8") else case.precision
    folder = root / "-".join(filter(None, ["onnx", case.workload, precision, exporter]))
    if not folder.exists():
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
        try:
            notes, seconds = _write(workload, precision, part / "model.onnx", exporter)
            about = {"export": seconds, "notes": notes}
            (part / "export.json").write_text(json.dumps(about))
            with contextlib.suppress(FileExistsError):  # another process was faster; its export is as good
                files.appear(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    about = json.loads((folder / "export.json").read_bytes())
    return Exported(folder, about["export"], tuple(about["notes"]))


def place(exported: Exported, folder: Path) -> None:
    """Puts the exported files into a case's folder: hard links where the file system can."""
    for file in exported.folder.glob("model.onnx*"):
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copy2(file, folder / file.name)


def opset(model: Path) -> int:
    """Returns the version of the standard operators that a file has."""
    import onnx

    return next(
        int(entry.version)
        for entry in onnx.load(model, load_external_data=False).opset_import
        if entry.domain in ("", "ai.onnx")
    )


def nodes(model: Path) -> int:
    """Returns how many nodes the graph of a file has."""
    import onnx

    return len(onnx.load(model, load_external_data=False).graph.node)


def on_cpu(model: Path) -> Callable[[Arrays], Arrays]:
    """Returns a function that runs the file by ONNX Runtime's CPU provider, unoptimised.

    The provider has no bf16: such a graph is raised to fp32, the same function but for roundings
    between its nodes; its weights stay rounded. Raises Refusal(build_failed).
    """
    import onnx

    from ..lookup import onnx_graph

    source: Path | onnx.ModelProto = model
    if "bfloat16" in onnx_graph.halves(onnx_graph.read(model, weights=False)):
        source = onnx_graph.read(model)
        onnx_graph.retype(source, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT)
    try:
        session = onnx_graph.session(source)
    except Refusal as refusal:
        raise Refusal("build_failed", refusal.reason.detail) from refusal

    def run(inputs: Arrays) -> Arrays:
        try:
            outputs = session(inputs)
        except RuntimeError as error:
            raise Refusal("build_failed", str(error)) from error
        return tuple(arrays.comparable(output) for output in outputs.values())

    return run


def _write(workload: Workload, precision: str, path: Path, exporter: str) -> tuple[list[str], float]:
    """Exports a workload into a file by the first exporter whose file is right, and returns what to
    note and the seconds that exporters took. Raises Refusal(export_failed) with what stood in the
    way of each.
    """
    from . import exporters  # imports torch, which those who load the file do without

    refused: dict[str, Refusal] = {}
    ways = exporters.exporters_of(workload, precision)
    seconds = 0.0
    for name in [exporter] if exporter else ways:
        start = time.perf_counter()
        try:
            try:
                notes = ways[name](workload, precision, path)
            finally:
                seconds += time.perf_counter() - start
            if precision == "fp32":
                agrees(on_cpu(path), workload)
        except exporters.Decides:
            raise
        except Refusal as refusal:
            refused[name] = refusal
        else:
            failed = [f"{other} failed: {why.reason.detail}" for other, why in refused.items()]
            return [*notes, *failed], seconds
    first, *others = dict.fromkeys(refusal.reason.detail for refusal in refused.values())
    raise Refusal("export_failed", "; and recorded from one call: ".join([first, *others]))


def agrees(run: Callable[[Arrays], Arrays], workload: Workload) -> None:
    """Raises Refusal(accuracy) where a function is no likeness of the module: its outputs on the
    example inputs have other shapes than eager's, or are further from them than any tolerance of
    the oracle could be.
    """
    import torch

    from ..oracle import leaves

    with torch.inference_mode():
        expected = [leaves.array(leaf) for leaf in leaves.tensors(workload.module(*workload.inputs))]
    outputs = run(tuple(value.numpy() for value in workload.inputs))
    shapes = [value.shape for value in outputs], [value.shape for value in expected]
    if shapes[0] != shapes[1]:
        raise Refusal("accuracy", f"its outputs have shapes {shapes[0]} where eager's have {shapes[1]}")
    for index, (output, true) in enumerate(zip(outputs, expected, strict=True)):
        apart, limit = arrays.rmse([output], [true]), check.most(true, "fp32")
        if not apart <= limit:
            raise Refusal(
                "accuracy",
                f"its output {index} is {apart:.3g} RMSE from eager's, and more than"
                f" {limit:.3g} cannot be rounding",
            )
