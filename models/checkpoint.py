"""Reads Lightning checkpoints without trusting them.

Damage is noticed, code in pickles is refused, and the class must fit. Every refusal is a ValueError
of one line that says what is wrong, with which file, and what to do.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import lightning.pytorch as L
import torch

from .trainable import Trainable, class_name

Module = TypeVar("Module", bound=L.LightningModule)


def read(path: Path) -> dict[str, Any]:
    """Reads a checkpoint's content, with its tensors on the CPU.

    Raises ValueError where the file is absent, damaged, holds code, or is no Lightning checkpoint.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError):  # the latter for a damaged version field
        damaged = "its table of contents"
    if damaged:
        raise ValueError(
            f"checkpoint {path} is damaged in {damaged}, or is none; restore it from a copy or train again"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path} holds more than tensors and plain values, and loading that could run foreign"
            " code; save it again without, or allow types you trust with"
            f" torch.serialization.add_safe_globals ({_first_line(error)})"
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"{path} is no file that torch.save wrote; give a Lightning checkpoint ({_first_line(error)})"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "pytorch-lightning_version"} <= content.keys():
        raise ValueError(
            f"{path} is no Lightning checkpoint, only something else torch.save wrote; use"
            " Trainer.save_checkpoint"
        )
    return content


def restore(cls: type[Module], path: Path) -> tuple[Module, dict[str, Any]]:
    """Returns the module of class `cls`, in eval mode on the CPU, and the checkpoint's content.

    Raises ValueError where `read` does, and where the class is not the one that was trained.
    """
    content = read(path)
    check_class(cls, path, content)
    try:
        with torch.random.fork_rng(devices=[]):
            module = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} do not fit {class_name(cls)}; give the trained class"
            f" ({_first_line(error)})"
        ) from error
    except TypeError as error:
        raise ValueError(
            f"{class_name(cls)} cannot be built from the hyperparameters in {path}; call"
            f" self.save_hyperparameters() in its constructor and save again ({_first_line(error)})"
        ) from error
    return module.eval(), content


def warm_start(module: L.LightningModule, path: Path) -> None:
    """Gives a module the weights of a checkpoint, of any class whose weights have the same names
    and shapes, and nothing else of it.

    Raises ValueError where `read` does, and for the names that one has and the other has not.
    """
    theirs, ours = read(path)["state_dict"], module.state_dict()
    shared = theirs.keys() & ours.keys()
    shapes = [name for name in sorted(shared) if theirs[name].shape != ours[name].shape]
    wrong = [
        *_listed("it lacks", sorted(ours.keys() - shared)),
        *_listed("it has in excess", sorted(theirs.keys() - shared)),
        *_listed("of another shape are", shapes),
    ]
    if wrong:
        raise ValueError(f"the weights in {path} do not fit {class_name(type(module))}: {'; '.join(wrong)}")
    module.load_state_dict(theirs)


def _listed(what: str, names: list[str]) -> list[str]:
    more = [f"and {len(names) - 3} more"] if len(names) > 3 else []
    return [f"{what} {', '.join([*names[:3], *more])}"] if names else []


def check_class(cls: type[L.LightningModule], path: Path, content: dict[str, Any]) -> None:
    """Raises ValueError where the checkpoint's content is known to be of another class than `cls`.

    Checkpoints of hotlap train name their class; of others it only shows later whether their
    weights fit.
    """
    written_by = content.get("hotlap", {}).get("class")
    if written_by not in (None, class_name(cls)):
        raise ValueError(
            f"checkpoint {path} is of {written_by}, not of {class_name(cls)}; give that class or another"
            " checkpoint"
        )
    if written_by is None and issubclass(cls, Trainable):
        raise ValueError(
            f"checkpoint {path} was not written by hotlap train, as those of {class_name(cls)} are; train one"
            " with it"
        )


def check_plain(part: Any) -> None:
    """Raises ValueError where a checkpoint with the hyperparameters of this module, or data module,
    could not be read again without running code.
    """
    file = io.BytesIO()
    try:
        torch.save(dict(part.hparams), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        raise ValueError(
            f"the hyperparameters of {class_name(type(part))} hold more than tensors and plain values, so its"
            " checkpoints could not be read safely; self.save_hyperparameters(ignore=[...]) leaves some out"
            f" ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
