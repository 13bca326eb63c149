"""Makes a Workload of a reference: a model file's name, `package.module:function`, or a Lightning
module class with its checkpoint.

torch is imported where a workload is made: the commands that only check references start without.

A reference is text, so that every worker process can make the same workload anew; nothing is
pickled between processes.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..machine.memory import exhausted
from ..terms.case import Workload
from ..terms.reasons import Misuse, Refusal
from . import checkpoint as checkpoints
from . import plugins

# What dimension 0 of the inputs is: a batch of any size, a batch of one size, or no batch; empty
# where nobody has looked yet.
Axis = Literal["", "free", "fixed", "whole"]
# Asks for a module in a process of its own: that imports the packages around it, which may set what
# they like in a process whose environment every worker inherits. Exits with MISSING without it.
MISSING = 3
PROBE = f"""
import importlib.util, json, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    spec = importlib.util.find_spec(sys.argv[2])
except (ImportError, ValueError):
    spec = None
sys.exit(0 if spec is not None else {MISSING})
"""


class Reference(NamedTuple):
    """How a user names a workload, and what was seen of it."""

    # `resnet`, `resnet:full` or `package.module:attribute`.
    text: str
    # Path of a checkpoint for what it makes, or empty.
    checkpoint: str = ""
    # Which rows.axis says that dimension 0 is.
    axis: Axis = ""

    @property
    def module(self) -> str:
        """The module that making this workload imports."""
        name = self.text.partition(":")[0]
        return plugins.modules("hotlap.workloads").get(name, name)


def check(reference: Reference) -> None:
    """Raises Misuse if the reference is seen to be wrong without importing a model."""
    name, colon, attribute = reference.text.partition(":")
    if name in plugins.modules("hotlap.workloads"):
        if reference.checkpoint:
            raise Misuse(
                f"--checkpoint goes with package.module:Class or package.module:function; {reference.text}"
                " finds its own checkpoint"
            )
        return
    if not colon or not attribute:
        raise plugins.Unknown("workload", reference.text, plugins.modules("hotlap.workloads"))
    if reference.checkpoint and not Path(reference.checkpoint).is_file():
        raise Misuse(f"checkpoint {reference.checkpoint} does not exist")
    add_user_folder()
    done = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", PROBE, json.dumps(sys.path), name],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, MISSING):
        *_, last = [f"exit status {done.returncode}", *done.stderr.strip().splitlines()]
        raise Misuse(f"workload {reference.text!r}: importing {name.rpartition('.')[0]} fails: {last}")
    if done.returncode == MISSING:
        raise Misuse(
            f"workload {reference.text!r}: no module named {name!r} here or among the installed packages, and"
            f" no model file {name!r}"
        )


def ready(reference: Reference, report: Callable[[str], None]) -> None:
    """Trains the model if it is one of the model files and has no checkpoint yet.

    report: takes a line about the progress.
    """
    name, _, preset = reference.text.partition(":")
    if name in plugins.modules("hotlap.workloads") and not preset:
        prepare = getattr(plugins.load("hotlap.workloads", name), "ready", None)
        if prepare is not None:
            prepare(report)


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """Undoes what a user's code inside does to the working directory and the umask: what is
    written later belongs where the run is, and must be readable.
    """
    here, mask = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), os.umask(0o077)
    os.umask(mask)
    try:
        yield
    finally:
        os.umask(mask)
        with contextlib.suppress(OSError):  # user code may close any file
            os.fchdir(here)
            os.close(here)


@in_place()
def load(reference: Reference) -> Workload:
    """Makes the workload, with torch's seed at 0.

    Raises Refusal(invalid_input) naming what is wrong.
    """
    import torch

    torch.manual_seed(0)  # for what a module makes when it is imported, if that happens only now
    name, _, attribute = reference.text.partition(":")
    try:
        if name in plugins.modules("hotlap.workloads"):
            source = plugins.load("hotlap.workloads", name)
            torch.manual_seed(0)
            loaded = source.load(attribute)
        else:
            add_user_folder()
            source = importlib.import_module(name)
            torch.manual_seed(0)
            loaded = _make(getattr(source, attribute), reference)
        workload = _as_workload(loaded, reference)
    except Refusal:
        raise
    except Exception as error:  # a user's function may raise anything; it becomes the case's reason
        if exhausted(error):
            raise
        raise Refusal("invalid_input", f"{reference.text}: {type(error).__name__}: {error}") from error
    for value in workload.inputs:
        if value.layout != torch.strided or value.dtype == torch.bfloat16:
            raise Refusal(
                "invalid_input",
                f"{reference.text}: an example input is {value.dtype} and {value.layout}, unknown to numpy;"
                " give dense ones in fp32 (--precisions casts them)",
            )
    if workload.batched and workload.batch == 0:
        raise Refusal(
            "invalid_input", f"{reference.text}: its example inputs have no rows; give at least one"
        )
    workload.module.eval().requires_grad_(False)
    if reference.axis:
        free, whole = reference.axis == "free", reference.axis == "whole"
        workload = replace(workload, dynamic=free, batched=not whole)
    return replace(workload, name=reference.text, checkpoint=reference.checkpoint)


def _make(attribute: Any, reference: Reference) -> Any:
    """Returns what a user's attribute stands for: a class or function is called, a module is
    itself. A checkpoint's weights replace those that it came with.
    """
    path = Path(reference.checkpoint)
    if inspect.isclass(attribute) and hasattr(attribute, "load_from_checkpoint") and reference.checkpoint:
        return _from_checkpoint(attribute, path)
    is_maker = inspect.isclass(attribute) or (callable(attribute) and not hasattr(attribute, "state_dict"))
    loaded = attribute() if is_maker else attribute
    if not reference.checkpoint:
        return loaded
    workload = _as_workload(loaded, reference)
    return replace(workload, weights=checkpoints.fill(workload.module, path))


def _from_checkpoint(module_class: Any, path: Path) -> Workload:
    """Loads a Lightning checkpoint with its module class; inputs are its `example_input_array`.

    Raises Refusal(invalid_input).
    """
    try:
        module = module_class.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Lightning and torch raise many kinds here, all meaning the same to the user
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Refusal(
            "invalid_input", f"{path} cannot be loaded as {module_class.__name__} with weights_only: {first}"
        ) from error
    return replace(
        _as_workload(module, Reference(module_class.__name__)), weights=checkpoints.described(path)
    )


def _as_workload(loaded: Any, reference: Reference) -> Workload:
    """Makes a workload of what a user's function gave. Raises Refusal(invalid_input)."""
    import torch

    if isinstance(loaded, Workload):
        return loaded
    if isinstance(loaded, tuple) and len(loaded) == 2:
        module, inputs = loaded
    else:
        module, inputs = loaded, getattr(loaded, "example_input_array", None)
    if not isinstance(module, torch.nn.Module):
        raise Refusal(
            "invalid_input",
            f"{reference.text} gave a {type(loaded).__name__}; expected a Workload, (module, inputs) or a"
            " LightningModule with example_input_array",
        )
    if inputs is None:
        raise Refusal(
            "invalid_input",
            f"{reference.text}: no example inputs; return (module, inputs) or set example_input_array",
        )
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if not all(isinstance(value, torch.Tensor) for value in inputs):
        types = ", ".join(type(value).__name__ for value in inputs)
        raise Refusal("invalid_input", f"{reference.text}: example inputs must be tensors, got {types}")
    sizes = {value.shape[0] if value.ndim else None for value in inputs}
    alike = len(sizes) == 1 and None not in sizes
    return Workload(reference.text, module, inputs, dynamic=alike, batched=alike)


def add_user_folder() -> None:
    """Appends the current folder to sys.path, never prepends it, so that it shadows nothing:
    workers start with -P, which leaves it out.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def resized(workload: Workload, batch: int) -> Workload:
    """Returns the workload with its example inputs, repeated or cut, at the case's batch.

    Raises Refusal(invalid_input) where the batch is fixed.
    """
    import torch

    if workload.batch == batch:
        return workload
    if not workload.batched:
        raise Refusal(
            "invalid_input",
            f"{workload.name}: dimension 0 of its inputs is no batch, so a call takes"
            " them as they are: --batch 1",
        )
    if not workload.dynamic:
        raise Refusal(
            "invalid_input",
            f"{workload.name} was made for a batch of {workload.batch}: --batch {workload.batch}",
        )
    rows = torch.arange(batch) % workload.batch
    return replace(workload, inputs=tuple(value[rows] for value in workload.inputs))
