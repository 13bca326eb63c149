"""From a Workload to an ONNX file. onnxruntime and openvino share it: a workload is exported once for each precision.

The export lies in one folder beside the cases' own, so that folder must belong to one run: it is found by the workload's name.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .case import Case, Workload
from .reasons import Refusal

# torch.onnx's own default (torch 2.14); the first with Gelu as one operator. ONNX Runtime 1.31 and OpenVINO 2026 read it.
OPSET = 20
BATCH = "batch"
# protobuf refuses messages of 2 GiB (protobuf.dev/programming-guides/encoding, "Message Structure"); the graph needs some room.
LARGEST_FILE_BYTES = 1_900_000_000


class Exported(NamedTuple):
    """folder holds model.onnx and, above 2 GB, its weights beside it; seconds: what the export took when it was made."""

    folder: Path
    seconds: float


def export(workload: Workload, case: Case, root: Path) -> Exported:
    """Exports into root, or finds what another case of the same workload and precision left there.

    Raises Refusal(export_failed) with the operator's name where it is known.
    """
    precision = "fp32" if case.precision == "tf32" else case.precision
    folder = root / f"onnx-{case.workload}-{precision}"
    if not folder.exists():
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root))
        try:
            start = time.perf_counter()
            _write(workload, precision, part / "model.onnx")
            (part / "export.json").write_text(json.dumps({"export": time.perf_counter() - start}))
            with contextlib.suppress(FileExistsError):  # another process was faster; its export is as good
                _rename(part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Exported(folder, json.loads((folder / "export.json").read_bytes())["export"])


def place(exported: Exported, folder: Path) -> None:
    """Puts the exported files into a case's folder: hard links where the file system can."""
    for file in exported.folder.glob("model.onnx*"):
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copy2(file, folder / file.name)


def write_ledger(exported: Exported, folder: Path) -> None:
    """What the export took when it was made, for a case that found it made: the harness prefers ledger.json to the phases it timed."""
    (folder / "ledger.json").write_text(json.dumps({"export": exported.seconds}))


def _rename(part: Path, folder: Path) -> None:
    try:
        part.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        raise FileExistsError(folder) from None


def _write(workload: Workload, precision: str, path: Path) -> None:
    """Where the batch may have any size the example has 2 rows at least: torch.export takes a dimension of size 1 for a constant."""
    import onnx
    import torch

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
    module = workload.module.to(dtype)
    inputs = tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in workload.inputs)
    if workload.dynamic and len(inputs[0]) == 1:
        inputs = tuple(torch.cat((tensor, tensor)) for tensor in inputs)
    shapes = tuple({0: torch.export.Dim(BATCH)} for _ in inputs) if workload.dynamic else None
    leaves = torch.utils._pytree.tree_leaves
    with torch.inference_mode():
        outputs = sum(isinstance(leaf, torch.Tensor) for leaf in leaves(module(*inputs)))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                module, inputs, dynamo=True, dynamic_shapes=shapes, opset_version=OPSET, optimize=True, verbose=False,
                input_names=[f"in{i}" for i in range(len(inputs))], output_names=[f"out{i}" for i in range(outputs)],
            )  # fmt: skip
        assert program is not None
        weights = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
        program.save(str(path), external_data=weights > LARGEST_FILE_BYTES)
        onnx.checker.check_model(str(path), full_check=True)
    except (torch.onnx.OnnxExporterError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Refusal("export_failed", _explain(error)) from error


def _explain(error: BaseException) -> str:
    """The operator, where one is named, and the first line of the innermost message."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    texts = [str(link) for link in chain]
    named = [found[1] for text in texts if (found := re.search(r"(?:OpOverload\(op='|torch\.ops\.)(\w+\.\w+)", text))]
    line = next((line for line in texts[-1].splitlines() if line.strip()), type(chain[-1]).__name__)
    return (f"operator {named[-1]}: " if named else "") + line
