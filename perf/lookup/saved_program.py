"""A program that torch.export.save wrote, as a workload: its module, the example inputs that were
saved with it, and the axes that it leaves free.

torch.export.load unpickles what an archive says is pickled. Here tensors are read with
weights_only, and an archive that holds other objects is refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from ..machine.memory import exhausted
from ..terms.case import Workload
from ..terms.reasons import Refusal
from . import arguments
from . import checkpoint as checkpoints

# How entries of an archive begin that are objects of a class and no tensors
# (torch/csrc/inductor/aoti_package/pt2_archive_constants.h).
OBJECTS = ("custom_obj_", "opaque_obj_")
# The variable with which torch.load has weights_only whatever its caller says.
TENSORS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class Program(torch.nn.Module):
    """A saved program as a module: it has one mode, and asking for another is no error."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = False

    def train(self, mode: bool = True) -> Program:
        return self

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.module(*inputs)


def workload(path: Path, options: Mapping[str, str]) -> Workload:
    """Returns the workload of a saved program. Raises Refusal(invalid_input)."""
    if options:
        raise Refusal(
            "invalid_input", f"--arg {next(iter(options))}: a saved program has its example inputs and sizes"
        )
    program = load(path)
    if program.example_inputs is None:
        raise Refusal(
            "invalid_input",
            f"{path.name} was saved without example inputs; export it with some, or write a function that"
            " returns (torch.export.load(path).module(), inputs)",
        )
    positional, keywords = program.example_inputs
    module = program.module()
    signed = arguments.bound(module, called(positional, keywords, path), path.name)
    axes, limits = free(program, signed.names)
    first = {words.get(0) for words in axes.values()}
    batch = len(axes) == len(signed.inputs) and len(first) == 1 and None not in first
    rows = {value.shape[0] if value.ndim else None for value in signed.inputs}
    alike = len(rows) == 1 and None not in rows
    return Workload(
        path.name,
        Program(signed.module),
        signed.inputs,
        dynamic=batch,
        batched=alike,
        weights=checkpoints.described(path).removeprefix("checkpoint "),
        names=signed.names,
        axes={
            name: others
            for name, words in axes.items()
            if (others := {axis: word for axis, word in words.items() if axis})
        },
        notes=tuple(f"{limit}, and is measured at its example's size" for limit in limits),
    )


def called(positional: tuple[Any, ...], keywords: Mapping[str, Any], path: Path) -> Any:
    """Returns example inputs as a function gives them beside a module. Raises
    Refusal(invalid_input).
    """
    if positional and keywords:
        raise Refusal(
            "invalid_input",
            f"{path.name} takes some inputs by place and others by keyword; export it with all of them by"
            " keyword",
        )
    return dict(keywords) or positional


def load(path: Path) -> torch.export.ExportedProgram:
    """Returns the program of an archive. Raises Refusal(invalid_input)."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
    except (OSError, zipfile.BadZipFile) as error:
        raise Refusal("invalid_input", f"{path} is no archive of torch.export.save: {error}") from error
    if objects := [name for name in entries if any(prefix in name for prefix in OBJECTS)]:
        raise Refusal(
            "invalid_input",
            f"{path} holds objects besides tensors ({Path(objects[0]).name}), which are not loaded from"
            " files: write a function that makes the model",
        )
    if not any("/models/" in name and name.endswith(".json") for name in entries):
        kind = (
            "a compiled package (AOTInductor)"
            if any("aotinductor" in name for name in entries)
            else ("no program of torch 2.8 or newer")
        )
        raise Refusal(
            "invalid_input",
            f"{path} is {kind}; expected what torch.export.save(torch.export.export(...)) wrote",
        )
    try:
        with tensors_only(), quiet():
            return torch.export.load(path)
    except Exception as error:  # torch raises many kinds here, all meaning the same to the user
        lines = [line for line in str(error).splitlines() if line.strip()]
        what = lines[0] if lines else type(error).__name__
        raise Refusal(
            "invalid_input", f"{path} cannot be loaded by torch {torch.__version__}: {what}"
        ) from error


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    before = os.environ.get(TENSORS_ONLY)
    os.environ[TENSORS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[TENSORS_ONLY]
        else:
            os.environ[TENSORS_ONLY] = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the traceback that torch logs of a damaged archive, whose cause is raised as well."""
    logger = logging.getLogger("torch.export")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(before)


def save(module: torch.nn.Module, example: Any, path: Path) -> None:
    """Writes a module with its example inputs, for any batch where torch.export can. Raises
    Refusal: invalid_input, export_failed.
    """
    example = example if example is not None else getattr(module, "example_input_array", None)
    if example is None:
        raise Refusal("invalid_input", f"{type(module).__name__} has no example inputs; give some")
    called_with = arguments.called_with(module, example)
    training = module.training
    try:
        program = exported(module.eval(), *called_with)
        torch.export.save(program, path)
    except Exception as error:  # torch raises many kinds here, all meaning the same to the user
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise Refusal(
            "export_failed",
            f"{type(module).__name__} cannot be exported by torch.export: {lines[0] if lines else error!r};"
            " write a function that makes it, and run hotlap optimize package.module:function",
        ) from error
    finally:
        module.train(training)


def exported(
    module: torch.nn.Module, positional: tuple[Any, ...], keywords: dict[str, Any]
) -> torch.export.ExportedProgram:
    """Returns the program with axis 0 of all tensors free; of a module that takes one size with all
    of them fixed.
    """
    tensors = [leaf for leaf in tree_leaves((positional, keywords)) if isinstance(leaf, torch.Tensor)]
    rows = {value.shape[0] if value.ndim else None for value in tensors}
    if len(rows) == 1 and None not in rows:
        twice = rows == {1}  # torch.export takes a dimension of size 1 for a constant
        inputs = tree_map_only(torch.Tensor, lambda value: torch.cat((value, value)), (positional, keywords))
        args, kwargs = inputs if twice else (positional, keywords)
        sizes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor):
                sizes[value] = {0: torch.export.Dim("rows")}
        try:
            return torch.export.export(module, args, kwargs, dynamic_shapes=sizes, strict=False)
        except Exception as error:  # it raises many kinds for a size that forward needs
            if exhausted(error):
                raise
    return torch.export.export(module, positional, keywords, strict=False)


def free(
    program: torch.export.ExportedProgram, names: tuple[str, ...]
) -> tuple[dict[str, dict[int, str]], list[str]]:
    """Returns input -> axis -> word of the axes that may have any size, where axes of one size have
    one word, and in words the axes that have a largest size.
    """
    words: dict[str, str] = {}
    axes: dict[str, dict[int, str]] = {}
    limited: list[str] = []
    users = [
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder"
        and node.name in program.graph_signature.user_inputs
        and isinstance(node.meta.get("val"), torch.Tensor)
    ]
    for name, value in zip(names, users, strict=True):
        for axis, size in enumerate(value.shape):
            if not isinstance(size, torch.SymInt):
                continue
            limits = program.range_constraints.get(size.node.expr)
            if limits is not None and limits.upper.is_Integer:  # infinity is a number of another kind
                limited.append(f"axis {axis} of {name} may have {limits.lower} to {limits.upper}")
            else:
                word = words.setdefault(str(size), f"{name}_{axis}".replace(".", "_"))
                axes.setdefault(name, {})[axis] = word
    return axes, limited
