"""Where a forward decides by the values of its inputs: an exporter that follows one call records
what was decided in it, and the file is wrong for inputs that decide otherwise.
"""

from __future__ import annotations

import ast
import linecache
import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

# What takes numbers out of a tensor.
READS = {
    torch.Tensor.__bool__,
    torch.Tensor.__int__,
    torch.Tensor.__float__,
    torch.Tensor.__index__,
    torch.Tensor.__complex__,
    torch.Tensor.__contains__,
    torch.Tensor.__array__,
    torch.Tensor.__format__,
    torch.Tensor.__repr__,
    torch.Tensor.item,
    torch.Tensor.tolist,
    torch.Tensor.numpy,
    torch.Tensor.equal,
    torch.Tensor.allclose,
    torch.Tensor.is_nonzero,
    torch.equal,
    torch.allclose,
    torch.is_nonzero,
}
# What returns as many values as its argument says.
SIZED = {
    torch.nonzero,
    torch.Tensor.nonzero,
    torch.argwhere,
    torch.Tensor.argwhere,
    torch.masked_select,
    torch.Tensor.masked_select,
    torch.unique,
    torch.Tensor.unique,
    torch.unique_consecutive,
    torch.Tensor.unique_consecutive,
}
# The same of operators that do not say so of themselves.
SIZED_OPERATORS = {"torchvision::nms"}
# Kinds of an index that keeps as many rows as it has ones.
MASKS = (torch.bool, torch.uint8)
# What reads a size, or returns as many tensors as it is.
SIZES = {
    torch.Tensor.shape.__get__,  # type: ignore[attr-defined]
    torch.Tensor.size,
    torch.Tensor.stride,
    torch.Tensor.numel,
    torch.numel,
    torch.Tensor.__len__,
    torch.Tensor.__iter__,
    torch.Tensor.unbind,
    torch.unbind,
    torch.Tensor.split,
    torch.split,
    torch.Tensor.chunk,
    torch.chunk,
    torch.Tensor.tensor_split,
    torch.tensor_split,
}
# torch's own steps between a line of the model and what it calls.
STEPS = tuple(
    str(Path(torch.__file__).parent / name) for name in ("_tensor.py", "functional.py", "overrides.py")
)
# Folders whose lines are no model's: of the libraries that run or export it, and ours.
INSTALLED = Path(torch.__file__).parents[1]
LIBRARIES = (
    *(f"{INSTALLED / name}/" for name in ("torch", "onnx", "onnx_ir", "onnxscript", "openvino", "sympy")),
    *(f"{folder}/" for folder in (Path(__file__).parents[1], Path(__file__).resolve().parents[1])),
)


# How the folder of installed packages ends, which lies below the standard library's where there is
# no virtual environment.
PACKAGES = "-packages/"
STANDARD = (sysconfig.get_paths()["stdlib"] + "/", "<frozen ")


class Decision(NamedTuple):
    """A line that reads values of the inputs."""

    # file.py:12, of an installed package with its folders, and its text.
    place: str
    line: str
    # Whether it decides nothing that the model's author wrote: it asserts something, or torch's own
    # code reads them in what it calls.
    harmless: bool
    # Whether it is an installed package's.
    installed: bool

    def __str__(self) -> str:
        return f"{self.place} `{self.line}`"


class Watch(TorchFunctionMode):
    """Follows what is computed from some tensors, and notes where numbers are taken out of it, or
    sizes that depend on numbers.
    """

    def __init__(self, inputs: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.derived, self.sized = WeakIdKeyDictionary(), WeakIdKeyDictionary()
        self.decisions: list[Decision] = []
        for value in inputs:
            self.derived[value] = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tensors = tensors_in((args, kwargs))
        if any(value in self.derived for value in tensors):
            sized = any(value in self.sized for value in tensors)
            if func in READS or (sized and func in SIZES):
                self.note(sys._getframe(1))
            results = tensors_in(output)
            if func.__name__ == "__setitem__" or func.__name__.rstrip("_") + "_" == func.__name__:
                results += [
                    value for each in tensors[:1] for value in (each, each._base) if value is not None
                ]
            self.follow(results, sized or sizes_by_values(func, args))
        return output

    def follow(self, values: list[torch.Tensor], sized: bool) -> None:
        """Notes that values are computed from the inputs, and whether their sizes are too."""
        for value in values:
            self.derived[value] = True
            if sized:
                self.sized[value] = True

    def note(self, frame: FrameType | None) -> None:
        if (read := here(frame)) not in self.decisions:
            self.decisions.append(read)


class Beneath(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows for a Watch what it cannot see: operators that a package registers, such as
    torchvision's nms, and those that compiled code calls.
    """

    def __init__(self, watch: Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tensors = tensors_in((args, kwargs))
        if any(value in self.watch.derived for value in tensors):
            sized = any(value in self.watch.sized for value in tensors)
            self.watch.follow(tensors_in(output), sized or has_sizes_by_values(func, args))
        return output


def tensors_in(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def sizes_by_values(func: Any, args: Any) -> bool:
    """Whether a call returns as many values as others say."""
    if func is torch.Tensor.__getitem__:
        return any(index.dtype in MASKS for index in tensors_in(args[1]))
    return func in SIZED or (func in (torch.where, torch.Tensor.where) and len(args) == 1)


def has_sizes_by_values(operator: Any, args: Any) -> bool:
    """Whether an operator returns as many values as others say, by its own word; an index, only
    where it is a mask.
    """
    if operator is torch.ops.aten.index.Tensor:
        return any(index.dtype in MASKS for index in tensors_in(args[1]))
    return torch.Tag.dynamic_output_shape in operator.tags or operator.name() in SIZED_OPERATORS


def decisions(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[Decision]:
    """Returns the lines of forward that read values of its inputs in one call."""
    watch = Watch(inputs)
    with torch.no_grad(), watch, Beneath(watch):
        module(*inputs)
    return watch.decisions


def here(frame: FrameType | None) -> Decision:
    """Returns the innermost line that is neither torch's nor ours."""
    while frame is not None and frame.f_code.co_filename in STEPS:
        frame = frame.f_back
    innermost = frame
    assert innermost is not None
    by_torch = not is_models(innermost.f_code.co_filename)
    while frame is not None and not is_models(frame.f_code.co_filename):
        frame = frame.f_back
    frame = frame or innermost
    read = decision(frame.f_code.co_filename, frame.f_lineno)
    return read._replace(harmless=read.harmless or by_torch)


def is_models(file: str) -> bool:
    """Whether a file may be a model's: no library's that runs it, and none of ours."""
    if file.startswith(LIBRARIES):
        return False
    return not file.startswith(STANDARD) or PACKAGES in file


def decision(file: str, number: int) -> Decision:
    line = linecache.getline(file, number).strip()
    _, installed, inside = file.rpartition(PACKAGES)
    place = inside if installed else Path(file).name
    return Decision(f"{place}:{number}", line, asserted(file, number), bool(installed))


def asserted(file: str, number: int) -> bool:
    """Whether a line is part of an assert statement."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return False
    return any(
        isinstance(node, ast.Assert) and node.lineno <= number <= (node.end_lineno or node.lineno)
        for node in ast.walk(tree)
    )


def place_of(error: BaseException) -> str:
    """Returns the line of the model that an error comes from, in words; empty where there is
    none.
    """
    place = ""
    seen: BaseException | None = error
    while seen is not None:
        trace = seen.__traceback__
        while trace is not None:
            file = trace.tb_frame.f_code.co_filename
            if is_models(file) and linecache.getline(file, trace.tb_lineno):  # generated code has none
                place = str(decision(file, trace.tb_lineno))
            trace = trace.tb_next
        if place:
            return place
        seen = seen.__cause__ or seen.__context__
    return place
