"""A node at fault: the line that says so, and a folder with the part of the file alone, its inputs
and outputs, and a program that shows the fault.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .model_file import FileNode, ModelFile, OnnxModel

VALUES, RUN = "values.npz", "run.py"
# Longest that the saved program may take, s.
RUN_S = 120.0
# Precision -> OpenVINO's name of it; what is not quantised of int8 runs in fp32.
HINTS = {"bf16": "bf16", "fp16": "f16"}
# Nodes and operators that the line names at most.
NAMED = 4
# Within this share of the fault's error a second reading of the file counts as one of the two.
ALIKE = 0.1
PROGRAM = '''\
"""Shows the fault: exit status 1 if the output is further from fp64 than is allowed."""

from pathlib import Path

import numpy as np
{imports}

here = Path(__file__).parent
stored = np.load(here / "values.npz", allow_pickle=False)
inputs = [stored[f"in{{index}}"] for index in range({inputs})]
{call}
expected = stored["expected"]
assert output.shape == expected.shape, f"shape {{output.shape}} where {{expected.shape}} is right"
off = np.sqrt(np.mean((output - expected.astype(float)) ** 2) / (np.mean(expected.astype(float) ** 2) or 1))
print(f"off by {{off:.3g}} of its RMS; {allowed:.3g} is allowed")
raise SystemExit(not off <= {allowed:.3g})
'''


class SubGraph(NamedTuple):
    """Nodes of a file alone. name: of their output. produced, expected: it, and it in fp64."""

    name: str
    inputs: dict[str, np.ndarray]
    produced: np.ndarray
    expected: np.ndarray
    nodes: tuple[FileNode, ...]


class Fault(NamedTuple):
    """The first node at fault.

    before: nodes of floating point between it and the values that were compared. operators: what
    torch computes there. inputs_off: how far its inputs are from fp64. off: how far its own output
    is, given them; allowed: how far it may be; all as shares of the root mean square. fused: only
    where no value before it is an output.
    """

    node: FileNode
    before: tuple[FileNode, ...]
    operators: tuple[str, ...]
    inputs_off: float
    off: float
    allowed: float
    fused: bool
    part: SubGraph

    def line(self, folder: str, notes: str) -> str:
        """Returns the sentence for the result. folder: where the part was saved."""
        beside = f" with {_some([str(node) for node in self.before])} before it" if self.before else ""
        how = f"its output is off by {self.off:.2g} of its RMS, where {self.allowed:.2g} is allowed"
        if (shape := self.part.produced.shape) != (right := self.part.expected.shape):
            how = f"its output has shape {shape} where {right} is right"
        elif not np.isfinite(self.off):
            how = "its output is not finite where fp64 is"
        fused = "; alone each of its nodes is right, together they are not" if self.fused else ""
        return (
            f"first wrong node: {self.node} ({_some(self.operators) or 'passes a value on'}){beside}: its"
            f" inputs are right to {self.inputs_off:.1g}, {how}{fused}{notes}; sub-graph: {folder}"
        )


def save(fault: Fault, file: ModelFile, folder: Path, precision: str) -> str:
    """Writes the part's file, values.npz and run.py; returns what the line says of them. Raises
    OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = fault.part
    file.cut(folder, part.nodes, part.inputs, part.name)
    inputs = {f"in{index}": value for index, value in enumerate(part.inputs.values())}
    np.savez(folder / VALUES, allow_pickle=False, expected=part.expected, produced=part.produced, **inputs)
    program = PROGRAM.format(
        imports=file.IMPORTS,
        inputs=len(inputs),
        call=file.CALL.format(hint=HINTS.get(precision, "f32")),
        allowed=fault.allowed,
    )
    (folder / RUN).write_text(program)
    return whose(fault, file, folder) + shown(folder)


def whose(fault: Fault, file: ModelFile, folder: Path) -> str:
    """Returns whether the file says something else than torch, or the runtime computes something
    else than the file says, by onnx's reference implementation; empty where that cannot be told.
    """
    if not isinstance(file, OnnxModel):
        return ""
    from onnx.reference import ReferenceEvaluator

    part = fault.part
    try:
        read: np.ndarray = ReferenceEvaluator(str(folder / file.FILE)).run(None, dict(part.inputs))[0]  # type: ignore[index]
    except Exception:  # it lacks operators and types, and says so in many ways
        return ""
    if _near(read, part.expected, part):
        return f"; the file is right and {file.RUNTIME} computes it wrongly"
    if _near(read, part.produced, part):
        return "; the file itself says so (onnx.reference computes the same)"
    return ""


def shown(folder: Path) -> str:
    """Runs the saved program; returns what to say where it does not show the fault."""
    try:
        ended = subprocess.run(
            [sys.executable, "-P", str(folder / RUN)], capture_output=True, timeout=RUN_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"; {RUN} took longer than {RUN_S:.0f} s"
    return "" if ended.returncode == 1 else f"; {RUN} does not show it by itself"


def _near(read: np.ndarray, value: np.ndarray, part: SubGraph) -> bool:
    """Returns whether a reading of the file is one of the two outputs, not the other."""
    if read.shape != value.shape:
        return False
    if part.produced.shape != part.expected.shape:
        return True
    apart = np.abs(part.produced.astype(float) - part.expected)
    return bool(np.linalg.norm(read.astype(float) - value) <= ALIKE * np.linalg.norm(apart))


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(list(names)[:NAMED]) + (f" and {more} more" if more > 0 else "")
