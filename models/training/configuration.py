"""What a training is made of: the YAML of LightningCLI, from our own networks' files in configs/,
from the user's, and from the words of a command line.

What a class takes jsonargparse knows; a mistake is one line with the nearest name. What comes of it
all is text again, and starts the same training once more.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import callbacks, loggers
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins.precision import Precision

from ...perf.lookup.workloads import add_user_folder
from ...perf.machine import cores
from ...perf.terms.reasons import Misuse
from .. import mixed
from ..catalog import names, nearest
from ..trainable import Trainable, device
from .budget import size_bytes

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
# Optimizer steps between two checkpoints within an epoch.
CHECKPOINT_EVERY = 50
# A loss so many times the median of the latest is a spike.
SPIKE = 100.0


class Configuration(LightningCLI):
    """A training's settings, checked; `build` makes the parts of it."""

    def __init__(self, words: Sequence[str]) -> None:
        """words: as LightningCLI takes them on a command line, --config FILE among them. Raises
        Misuse, in one line.
        """
        self.words = list(words)
        self.more: dict[str, Any] = {}
        add_user_folder()
        try:
            super().__init__(
                run=False,
                args=list(words),
                save_config_callback=None,
                seed_everything_default=0,
                load_from_checkpoint_support=False,
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
            )
        except ArgumentError as error:
            import_named(str(error))
            raise Misuse(explained(str(error), self.parser)) from None
        except ValueError as error:  # a seed below 0
            raise Misuse(" ".join(str(error).split())) from None
        if self.config.model is None:
            raise Misuse("no model: name a class (package.module:Net), or model: class_path in --config")
        trainer = self.config.trainer
        if trainer.max_epochs is None and trainer.max_steps == -1 and trainer.max_time is None:
            raise Misuse("how long is not said: trainer.max_epochs=N, max_steps or max_time")
        if trainer.max_epochs is not None and trainer.max_epochs < 1:
            raise Misuse(f"trainer.max_epochs must be at least 1, not {trainer.max_epochs}")
        for key in ("threads", "checkpoint_every"):
            if self.config[key] is not None and self.config[key] < 1:
                raise Misuse(f"{key} must be at least 1, not {self.config[key]}")
        self.disk_budget = size_bytes(self.config.disk_budget) if self.config.disk_budget else None
        arguments = self.config.data.get("init_args") if self.config.data is not None else None
        if arguments is not None and arguments.get("seed", 0) is None:
            arguments.seed = self.seed

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--threads", type=int | None, default=None)
        parser.add_argument("--checkpoint_every", type=int, default=CHECKPOINT_EVERY)
        parser.add_argument("--spike", type=float | None, default=SPIKE)
        parser.add_argument("--disk_budget", type=str | None, default=None)
        parser.add_argument("--warm_start", type=str | None, default=None)
        parser.add_argument("--compile", type=bool | dict[str, Any], default=False)
        parser.set_defaults({"trainer.devices": 1})

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_args(args)  # type: ignore[arg-type]  # ours are words

    def instantiate_classes(self) -> None:
        """Waits for `build`."""

    def build(self, **trainer: Any) -> tuple[L.Trainer, L.LightningModule, L.LightningDataModule | None]:
        """Returns the trainer, the module and the data, all random numbers from the seed.

        trainer: arguments that go before the configuration's; callbacks and plugins are added to
        its own.
        """
        self.more = trainer
        L.seed_everything(self.seed)
        torch.set_num_threads(self.threads)
        super().instantiate_classes()
        if isinstance(self.model, Trainable):
            self.model.to(memory_format=self.model.layout)
        return self.trainer, self.model, self.datamodule

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        own = self.config_init.trainer
        more = {"num_sanity_val_steps": own.num_sanity_val_steps or 0, **self.more}
        for name in ("callbacks", "plugins"):
            mine = own[name] if isinstance(own[name], list) else [own[name]] if own[name] else []
            more[name] = [*mine, *more.get(name, [])]
        if (plugin := self.precision_plugin()) is not None:
            more |= {"plugins": [*more["plugins"], plugin], "precision": None}
        if own.deterministic is None:
            more["deterministic"] = "warn"
        if own.enable_progress_bar is None:
            more["enable_progress_bar"] = any(isinstance(each, ProgressBar) for each in more["callbacks"])
        try:
            return super().instantiate_trainer(**more)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise Misuse("trainer: " + " ".join(str(error).split())) from error

    def compiled(self, module: L.LightningModule) -> Any:
        """Returns what the trainer is to fit: the module, or where `compile` says so what
        torch.compile makes of it, whose checkpoints are the module's. Raises Misuse.
        """
        if self.config.compile is False:
            return module
        for name in ("log", "log_dict"):  # nothing in them is worth tracing, and it warns
            setattr(module, name, torch.compiler.disable(getattr(module, name)))  # type: ignore[no-untyped-call]
        try:
            return torch.compile(module, **(self.config.compile if self.config.compile is not True else {}))
        except (TypeError, RuntimeError, ValueError) as error:
            raise Misuse(f"compile: {' '.join(str(error).split())}") from error

    def precision_plugin(self) -> Precision | None:
        """Returns our plug-in for a precision that hotlap has a name for; None for another."""
        where = "cpu" if self.config_init.trainer.accelerator == "cpu" else device()
        return mixed.plugin(self.precision, where) if self.precision in mixed.NAMES else None

    @property
    def seed(self) -> int:
        return int(self.config.seed_everything)

    @property
    def threads(self) -> int:
        """How many a step computes with on the CPU, in each of several processes."""
        devices = str(self.config.trainer.devices)
        processes = int(devices) if devices.isdecimal() else 1
        return int(self.config.threads or max(1, cores.count() // max(1, processes)))

    @property
    def epochs(self) -> int:
        """The epochs at most; -1 where steps or time end it."""
        epochs = self.config.trainer.max_epochs
        return -1 if epochs is None else int(epochs)

    @property
    def precision(self) -> str:
        """What the training computes in, by hotlap's name where it has one."""
        asked = str(self.config.trainer.precision or mixed.NAMES["fp32"])
        return next((name for name, theirs in mixed.NAMES.items() if theirs == asked), asked)

    def class_path(self, part: str) -> str:
        """Returns the class of the model or the data, package.module:Class; empty where there is
        none.
        """
        chosen = self.config[part]
        return "" if chosen is None else ":".join(chosen.class_path.rsplit(".", 1))

    def text(self) -> str:
        """Returns it all as YAML, which `Configuration(["--config", FILE])` reads."""
        return str(self.parser.dump(self.config, skip_unset=False))


def words(
    workload: str,
    data: str = "",
    config: Path | None = None,
    overrides: Iterable[str] = (),
) -> list[str]:
    """Returns the words of LightningCLI's command line.

    workload: one of our networks, `package.module:Class`, or empty where a configuration names it.
    data: `package.module:Class`. overrides: key.sub=value. Raises Misuse.
    """
    parts: list[str] = []
    if workload in names():
        parts += ["--config", str(CONFIGS / f"{workload}.yaml")]
    if config is not None:
        if not config.is_file():
            raise Misuse(f"--config {config}: there is no such file")
        parts += ["--config", str(config)]
    if workload and workload not in names():
        parts += ["--model", dotted(workload, L.LightningModule)]
    if data:
        parts += ["--data", dotted(data, L.LightningDataModule)]
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not re.fullmatch(r"\w+(\.\w+)*", key):
            raise Misuse(f"{override!r} is no setting; write key.sub=value, such as trainer.max_epochs=3")
        parts.append(f"--{key}={value}")
    return parts


def dotted(text: str, kind: type) -> str:
    """Returns package.module.Class of `package.module:Class`. Raises Misuse where that is no
    class of the kind.
    """
    module, colon, name = text.partition(":")
    if not colon or not name or not all(module.split(".")):
        raise Misuse(f"no network is called {text!r}; {nearest(text, names())}, or package.module:Class")
    add_user_folder()
    try:
        parts = vars(importlib.import_module(module))
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise Misuse(f"{text}: no module named {error.name!r} here or among the installed packages") from None
    if name not in parts:
        raise Misuse(f"{text}: {module} has no {name!r}; {nearest(name, classes(parts, kind))}")
    if not (isinstance(parts[name], type) and issubclass(parts[name], kind)):
        raise Misuse(f"{text} is no {kind.__name__}; {nearest(name, classes(parts, kind))}")
    return f"{module}.{name}"


def classes(parts: dict[str, Any], kind: type) -> list[str]:
    """Returns the names among these of classes of a kind."""
    return [name for name, part in parts.items() if isinstance(part, type) and issubclass(part, kind)]


def import_named(text: str) -> None:
    """Imports the modules of the classes that jsonargparse names in its error, for what they raise:
    it leaves that out.
    """
    for path in re.findall(r"class_path'?:? '([\w.]+)\.\w+'", text):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(path)


def explained(text: str, parser: LightningArgumentParser) -> str:
    """Returns jsonargparse's many lines as one: what is wrong, and the nearest name where a name
    is.
    """
    keys = re.findall(r'Parser key "([\w.]+)"', text)
    key = ".".join(keys[:2])
    if unknown := re.search(r"Option '([\w.]+)' is not accepted|unrecognized arguments: --([\w.]+)", text):
        name = unknown[1] or unknown[2]
        if of_class := re.findall(r"given class_path '([\w.]+)'", text):
            module, _, attribute = of_class[-1].rpartition(".")
            takes = inspect.signature(vars(importlib.import_module(module))[attribute]).parameters
            return f"{of_class[-1]} takes no {name!r}; {nearest(name, takes)}"
        known = [action.dest for action in parser._actions if action.dest not in ("help", "print_config")]
        return f"no setting is called {name!r}; {nearest(name, known)}"
    if wrong := re.search(r"Expected a <class '(\w+)'>. Got value: (.*)", text):
        return f"{key}: {wrong[2]!r} is no {wrong[1]}"
    if path := re.search(r"Expected a dot import path string: (\S+)", text):
        theirs = [*callbacks.__all__, *loggers.__all__]
        return f"{key}: no class is called {path[1]!r}; {nearest(path[1], theirs)}, or package.module.Class"
    value, types = re.search(r"Given value: (.*)", text), re.search(r"Subtypes: \[(.*?)\]\n", text)
    if key and value:
        takes_types = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", types[1]) if types else ""
        reason = re.findall(r"^\s+((?:module|No module|Problem with).*)", text, re.MULTILINE)
        why = reason[-1] if reason else f"it takes {takes_types}" if takes_types else "see its type"
        return f"{key}: {value[1]} does not fit: {why}"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
