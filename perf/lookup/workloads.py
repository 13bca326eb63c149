"""Makes a Workload of a reference: a model file's name, `package.module:function`, a Lightning
module class with its checkpoint, or a file that another tool wrote (model.onnx, program.pt2).

torch is imported where a workload is made: the commands that only check references start without.

A reference is text, so that every worker process can make the same workload anew; nothing is
pickled between processes.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..machine.memory import exhausted
from ..terms.case import BATCH, ONNX, Evaluation, Workload, is_file
from ..terms.reasons import Misuse, Refusal
from . import checkpoint as checkpoints
from . import plugins

if TYPE_CHECKING:
    import torch

# What dimension 0 of the inputs is: a batch of any size, a batch of one size, or no batch; empty
# where nobody has looked yet.
Axis = Literal["", "free", "fixed", "whole"]
# What forward returns: tensors alone, or other objects besides; empty where nobody has looked yet.
Returns = Literal["", "tensors", "objects"]
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

    # `resnet`, `resnet:full`, `package.module:attribute` or the name of a file, `model.onnx`.
    text: str
    # Path of a checkpoint for what it makes, or of the file; else empty.
    checkpoint: str = ""
    # Which rows.axis says that dimension 0 is.
    axis: Axis = ""
    # Whether forward returns what has to be taken apart.
    returns: Returns = ""
    # Name and value, as text, of each argument for what makes it.
    arguments: tuple[tuple[str, str], ...] = ()

    @property
    def module(self) -> str:
        """The module that making this workload imports; empty for a file, which needs none."""
        name = self.text.partition(":")[0]
        return "" if is_file(self.text) else plugins.modules("hotlap.workloads").get(name, name)

    @property
    def path(self) -> Path:
        """The path of the file that this names."""
        return Path(self.checkpoint or self.text)


def named(text: str, checkpoint: str = "", arguments: Mapping[str, str] | None = None) -> Reference:
    """Returns the reference to what a user names on a command line; a path is called by the file's
    name. Raises Misuse for a file with a checkpoint.
    """
    pairs = tuple((arguments or {}).items())
    if not is_file(text):
        return Reference(text, checkpoint, arguments=pairs)
    if checkpoint:
        raise Misuse(f"--checkpoint goes with package.module:Class or :function; {text} has its weights")
    return Reference(re.sub(r"[^A-Za-z0-9._+-]", "_", Path(text).name), text, arguments=pairs)


def check(reference: Reference) -> None:
    """Raises Misuse if the reference is seen to be wrong without importing a model."""
    if is_file(reference.text):
        if not reference.path.is_file():
            beside = [str(path) for path in reference.path.parent.glob("*") if is_file(path.name)]
            raise plugins.Unknown("file", str(reference.path), beside)
        return
    name, colon, attribute = reference.text.partition(":")
    if name in plugins.modules("hotlap.workloads"):
        if reference.checkpoint or reference.arguments:
            option = "--checkpoint" if reference.checkpoint else "--arg"
            raise Misuse(
                f"{option} goes with package.module:Class or package.module:function; {reference.text}"
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

    seed()  # for what a module makes when it is imported, if that happens only now
    name, _, attribute = reference.text.partition(":")
    try:
        if is_file(reference.text):
            loaded: Any = _of_file(reference.path, dict(reference.arguments))
        elif name in plugins.modules("hotlap.workloads"):
            source = plugins.load("hotlap.workloads", name)
            seed()
            loaded = source.load(attribute)
        else:
            add_user_folder()
            source = importlib.import_module(name)
            seed()
            loaded = _make(getattr(source, attribute), reference)
        workload = _in_fp32(_as_workload(loaded, reference))
    except Refusal:
        raise
    except Exception as error:  # a user's function may raise anything; it becomes the case's reason
        if exhausted(error):
            raise
        raise Refusal("invalid_input", f"{reference.text}: {type(error).__name__}: {error}") from error
    for value in workload.inputs:
        if value.layout != torch.strided:
            raise Refusal(
                "invalid_input",
                f"{reference.text}: an example input is {value.layout}, unknown to numpy; give dense ones",
            )
    if workload.batched and workload.batch == 0:
        raise Refusal(
            "invalid_input", f"{reference.text}: its example inputs have no rows; give at least one"
        )
    workload = _with_names(workload)
    if not is_file(reference.text) and holds_file(workload.module):
        from .onnx_file import EAGER

        workload = replace(workload, notes=(*workload.notes, EAGER))
    with contextlib.suppress(NotImplementedError):  # of an exported program, which has one mode
        workload.module.eval()
    for value in workload.module.parameters():
        value.requires_grad_(False)
    if reference.axis:
        free, whole = reference.axis == "free", reference.axis == "whole"
        workload = replace(workload, dynamic=free, batched=not whole)
    if reference.returns == "objects":
        workload = taken_apart(workload)
    return replace(workload, name=reference.text, checkpoint=reference.checkpoint)


def holds_file(module: torch.nn.Module) -> bool:
    """Returns whether a workload's module is an ONNX file; what reads files is imported only where
    one was made.
    """
    name = f"{__package__}.onnx_file"
    return name in sys.modules and isinstance(module, sys.modules[name].OnnxFile)


def _of_file(path: Path, arguments: Mapping[str, str]) -> Workload:
    """Makes a workload of a model file.

    arguments: `evaluate` names a function, `package.module:function`, that returns an Evaluation;
    the others are the file's. Raises Refusal(invalid_input).
    """
    others = {name: text for name, text in arguments.items() if name != "evaluate"}
    if path.suffix == ONNX:
        from . import onnx_file

        workload = onnx_file.workload(path, others)
    else:
        from . import saved_program

        workload = saved_program.workload(path, others)
    if "evaluate" not in arguments:
        return workload
    return replace(workload, evaluate=_evaluation(arguments["evaluate"]))


def _evaluation(text: str) -> Evaluation:
    """Returns what the function returns that a text names. Raises Refusal(invalid_input)."""
    module, colon, name = text.partition(":")
    if not colon or not name:
        raise Refusal("invalid_input", f"--arg evaluate={text}: expected package.module:function")
    add_user_folder()
    evaluation = getattr(importlib.import_module(module), name)()
    if not isinstance(evaluation, Evaluation):
        raise Refusal(
            "invalid_input", f"{text} returned a {type(evaluation).__name__}; expected a hotlap.Evaluation"
        )
    return evaluation


def seed() -> None:
    """Makes every process draw the same weights, whoever draws them."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def _in_fp32(workload: Workload) -> Workload:
    """Returns the workload with weights and inputs of 16 and 64 bits in fp32: the precision of each
    case says what it runs in.
    """
    import torch

    others = (torch.bfloat16, torch.float16, torch.float64)
    parts = [*workload.module.parameters(), *workload.module.buffers()]
    dtypes = sorted({str(value.dtype).removeprefix("torch.") for value in parts if value.dtype in others})
    inputs = tuple(value.float() if value.dtype in others else value for value in workload.inputs)
    if not dtypes:
        return replace(workload, inputs=inputs)
    note = f"its weights are {' and '.join(dtypes)}: fp32 entrants run them in fp32"
    if half := {"bfloat16": "bf16", "float16": "fp16"}.get(dtypes[0]):
        note += f"; --precisions {half} runs them as they are"
    for value in parts:
        if value.dtype in others:
            value.data = value.data.float()
    return replace(workload, inputs=inputs, notes=(*workload.notes, note))


def _with_names(workload: Workload) -> Workload:
    """Returns the workload with a name for each input. Raises Refusal(invalid_input) where a free
    axis is one of an input that there is not.
    """
    from . import arguments

    names = workload.names or arguments.bound(workload.module, workload.inputs, workload.name).names
    if len(names) != len(workload.inputs) or len(set(names)) != len(names):
        raise Refusal(
            "invalid_input",
            f"{workload.name}: names are {', '.join(names)}; give each of its {len(workload.inputs)} inputs"
            " one of its own",
        )
    sizes = dict(zip(names, (value.ndim for value in workload.inputs), strict=True))
    for name, axes in workload.axes.items():
        if name not in sizes:
            raise Refusal(
                "invalid_input",
                f"{workload.name}: dynamic names {name!r}, and its inputs are {', '.join(names)}",
            )
        expected = f"dynamic={{{name!r}: {{1: 'time'}}}}, axis -> a word for it"
        if not isinstance(axes, Mapping) or not all(
            isinstance(word, str) and word.isidentifier() and word != BATCH for word in axes.values()
        ):
            raise Refusal(
                "invalid_input", f"{workload.name}: dynamic says {axes!r} of {name}; expected {expected}"
            )
        if wrong := [axis for axis in axes if not 0 < axis < sizes[name]]:
            raise Refusal(
                "invalid_input",
                f"{workload.name}: dynamic names axis {wrong[0]} of {name}, which has axes 1 to"
                f" {sizes[name] - 1} besides the batch (axis 0: dynamic=True or False)",
            )
    return replace(workload, names=names)


def taken_apart(workload: Workload) -> Workload:
    """Returns the workload with a module that returns the tensors among what its own returns."""
    from . import arguments

    return replace(workload, module=arguments.Flat.around(workload.module))


def _make(attribute: Any, reference: Reference) -> Any:
    """Returns what a user's attribute stands for: a class or function is called, a module is
    itself. A checkpoint's weights replace those that it came with.
    """
    path = Path(reference.checkpoint)
    if inspect.isclass(attribute) and hasattr(attribute, "load_from_checkpoint") and reference.checkpoint:
        return _from_checkpoint(attribute, path, dict(reference.arguments))
    is_maker = inspect.isclass(attribute) or (callable(attribute) and not hasattr(attribute, "state_dict"))
    loaded = _called(attribute, reference) if is_maker else attribute
    if not reference.checkpoint:
        return loaded
    module, example = _parts(loaded, reference)
    weights = checkpoints.fill(module, path)
    if isinstance(loaded, Workload):
        return replace(loaded, weights=weights)
    return replace(_as_workload((module, example), reference), weights=weights)


def _called(maker: Callable[..., Any], reference: Reference) -> Any:
    """Returns what a user's class or function makes of the arguments. Raises Refusal(invalid_input)
    where it needs others.
    """
    values = {name: value_of(text) for name, text in reference.arguments}
    with contextlib.suppress(ValueError):  # of what is compiled nothing is known
        needed = [
            parameter.name
            for parameter in inspect.signature(maker).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and parameter.name not in values
        ]
        if needed:
            raise Refusal(
                "invalid_input",
                f"{reference.text} needs {', '.join(needed)}: give plain values with"
                f" {' '.join(f'--arg {name}=VALUE' for name in needed)}, or write a function that takes"
                f" nothing, def make(): return {maker.__name__}(...), and give"
                f" {reference.text.partition(':')[0]}:make",
            )
        try:
            inspect.signature(maker).bind_partial(**values)
        except TypeError as error:
            known = ", ".join(inspect.signature(maker).parameters) or "nothing"
            raise Refusal("invalid_input", f"{reference.text}: --arg: {error}; it takes {known}") from error
    return maker(**values)


def value_of(text: str) -> Any:
    """Returns what a value on the command line means: a literal of Python's, else itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _from_checkpoint(module_class: Any, path: Path, arguments: Mapping[str, str]) -> Workload:
    """Loads a Lightning checkpoint with its module class; inputs are its `example_input_array`.
    arguments: besides the hyperparameters in the file, or in their place.

    Where the names of the weights are not the module's own, they are brought together as for any
    other module (checkpoint.py). Raises Refusal(invalid_input).
    """
    state = checkpoints.weights(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # of names that differ, which `fill` looks at
            module = module_class.load_from_checkpoint(
                path,
                map_location="cpu",
                weights_only=True,
                strict=False,
                **{name: value_of(text) for name, text in arguments.items()},
            )
    except TypeError as error:
        raise Refusal(
            "invalid_input",
            f"{module_class.__name__} cannot be made from the hyperparameters in {path}: {error}; write a"
            f" function that makes it, def make(): return {module_class.__name__}(...), and give"
            f" {module_class.__module__}:make with --checkpoint",
        ) from error
    except Exception as error:  # Lightning and torch raise many kinds here, all meaning the same to the user
        raise Refusal(
            "invalid_input",
            f"{path} cannot be loaded as {module_class.__name__} with weights_only: {error}",
        ) from error
    if state.keys() == module.state_dict().keys():
        weights = checkpoints.described(path)
    else:
        weights = checkpoints.fill(module, path)
    return replace(_as_workload(module, Reference(module_class.__name__)), weights=weights)


def _parts(loaded: Any, reference: Reference) -> tuple[torch.nn.Module, Any]:
    """Returns the module and the example inputs of what a user's function gave. Raises
    Refusal(invalid_input).
    """
    import torch

    if isinstance(loaded, Workload):
        return loaded.module, loaded.inputs
    if isinstance(loaded, tuple) and len(loaded) == 2:
        module, example = loaded
    else:
        module, example = loaded, getattr(loaded, "example_input_array", None)
    if not isinstance(module, torch.nn.Module):
        raise Refusal(
            "invalid_input",
            f"{reference.text} gave a {type(loaded).__name__}; expected a Workload, (module, inputs) or a"
            " LightningModule with example_input_array",
        )
    if example is None:
        raise Refusal(
            "invalid_input",
            f"{reference.text}: no example inputs; return (module, inputs) or set example_input_array",
        )
    return module, example


def _as_workload(loaded: Any, reference: Reference) -> Workload:
    """Makes a workload of what a user's function gave. Raises Refusal(invalid_input)."""
    if isinstance(loaded, Workload):
        return loaded
    from . import arguments

    signed = arguments.bound(*_parts(loaded, reference), reference.text)
    sizes = {value.shape[0] if value.ndim else None for value in signed.inputs}
    alike = len(sizes) == 1 and None not in sizes
    return Workload(
        reference.text, signed.module, signed.inputs, dynamic=alike, batched=alike, names=signed.names
    )


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
