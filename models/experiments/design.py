"""What an experiment asks and how, stated before it is run: a YAML file.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ...perf.stats.arms import ALPHA
from ...perf.terms import stored
from ...perf.terms.case import Better
from ...perf.terms.reasons import Misuse
from ..catalog import nearest

# A name is a folder and a line of a table.
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,40}")
# Settings that say how much is spent on a training, and its seed: alike for all arms.
SHARED = re.compile(
    r"seed_everything|threads|spike|trainer\.(max_\w+|min_\w+|limit_\w+|overfit_batches|fast_dev_run"
    r"|accumulate_grad_batches|devices|num_nodes)"
)
# Names of whole files of settings, which could say anything: `config` of the design is for those.
WHOLE = re.compile(r"config|trainer|print_config|help")
FILE = re.compile(r".*\.(ya?ml|json)", re.IGNORECASE)
# What an experiment is written in.
SUFFIXES = (".yaml", ".yml")
# Seeds of a pilot are counted from here, so that no experiment's are among them.
PILOT = 1 << 20
# Fewest seeds that say how much a difference varies, and most, against a typing error.
FEWEST, MOST = 2, 1000


class Design(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An experiment's question and everything that decides its answer."""

    question: str
    # One of our networks, or package.module:Class.
    train: str
    # One name -> its settings.
    control: dict[str, dict[str, Any]]
    # The same of each arm.
    arms: dict[str, dict[str, Any]]
    # Of the validation split, as the module logs it without the split's name.
    metric: str
    better: Better
    # In the metric's unit, or a share of the control's mean ("1%").
    smallest_effect: float | str
    # How many, or which.
    seeds: int | list[int]
    # package.module:Class of the data; "" where the network or the configuration has them.
    data: str = ""
    # A YAML file of LightningCLI, seen from the design's folder.
    config: str = ""
    # Settings of control and arms alike.
    settings: dict[str, Any] = {}
    alpha: float = ALPHA

    @property
    def every_seed(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def control_name(self) -> str:
        (name,) = self.control
        return name

    @property
    def every_arm(self) -> dict[str, dict[str, Any]]:
        """The control first."""
        return {**self.control, **self.arms}

    def overrides(self, arm: str, seed: int) -> list[str]:
        """Returns the settings of one training as `hotlap train` takes them."""
        merged = {**self.settings, **self.every_arm[arm], "seed_everything": seed}
        return [f"{key}={value_text(value)}" for key, value in merged.items()]

    def smallest(self, control_mean: float) -> float:
        """Returns the smallest effect of interest in the metric's unit."""
        size, share = effect_size(self.smallest_effect)
        return size * abs(control_mean) if share else size


def value_text(value: Any) -> str:
    """Returns a setting as a command line has it. Raises ValueError or TypeError for what none
    has: dates, infinity.
    """
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), allow_nan=False)


def effect_size(text: float | str) -> tuple[float, bool]:
    """Returns a number, and whether it is a share of the control's mean (1%). Raises ValueError."""
    if not isinstance(text, str):
        return float(text), False
    share = text.strip().endswith("%")
    return (float(text.strip()[:-1]) / 100, True) if share else (float(text), False)


class OnceOnly(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Refuses a mapping that has a key twice: YAML's reader would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is no name", node.start_mark)
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is there twice", node.start_mark
                )
        content: dict[Any, Any] = super().construct_mapping(node, deep)
        return content


def read(path: Path) -> Design:
    """Reads a design. Raises Misuse, in one line, for what is none."""
    try:
        content = yaml.load(path.read_bytes(), OnceOnly)
    except OSError as error:
        raise Misuse(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Misuse(f"{path}: no YAML: {stored.line(error)}") from None
    if not isinstance(content, dict):
        raise Misuse(f"{path}: an experiment is a mapping with question, train, control, arms and so on")
    known = [field.name for field in msgspec.structs.fields(Design)]
    for key in content:
        if key not in known:
            raise Misuse(f"{path}: nothing is called {key!r} in an experiment; {nearest(str(key), known)}")
    try:
        design = msgspec.convert(content, Design)
    except (msgspec.ValidationError, OverflowError, RecursionError) as error:
        raise Misuse(f"{path}: {error}") from None
    for problem in problems(design, path):
        raise Misuse(f"{path}: {problem}")
    return design


def problems(design: Design, path: Path) -> Sequence[str]:
    """Returns what keeps an experiment from being run, one line each."""
    lines = []
    if len(design.control) != 1:
        lines.append("control: one name with its settings, such as control: {plain: {}}")
    if not design.arms:
        lines.append("arms: name at least one")
    for name, settings in [*design.control.items(), *design.arms.items()]:
        if not NAME.fullmatch(name):
            lines.append(f"{name!r} is no name of an arm; use small letters, digits and . _ -")
        lines += [
            f"{name}: {key} is the same for all arms, or their budgets differ; put it under settings"
            for key in settings
            if SHARED.fullmatch(key)
        ]
        if "trainer.max_steps" in design.settings:
            lines += [
                f"{name}: with trainer.max_steps another {key} is another budget; use trainer.max_epochs"
                for key in settings
                if key.endswith("batch_size")
            ]
    for settings in (design.settings, *design.control.values(), *design.arms.values()):
        lines += [
            f"{key}: a file of settings goes under config, for all arms; else name each setting"
            for key, value in settings.items()
            if WHOLE.fullmatch(key) or (isinstance(value, str) and FILE.fullmatch(value))
        ]
        for key, value in settings.items():
            try:
                value_text(value)
            except (ValueError, TypeError, RecursionError):
                lines.append(f"{key}: {value} is no setting as it stands; write it as text, in quotes")
    if shared := sorted(design.control.keys() & design.arms.keys()):
        lines.append(f"{shared[0]} is both control and arm")
    if "seed_everything" in design.settings:
        lines.append("settings: seeds say what seed_everything is; leave it out")
    count = design.seeds if isinstance(design.seeds, int) else len(set(design.seeds))
    if not FEWEST <= count <= MOST or count < len(design.every_seed):
        lines.append(f"seeds: {FEWEST} to {MOST} different ones, or how many")
    elif not all(0 <= seed < PILOT for seed in design.every_seed):
        lines.append(f"seeds: from 0 to {PILOT - 1}; those above are a pilot's")
    effect = design.smallest_effect
    try:
        known = 0 < effect_size(effect)[0] < math.inf
    except ValueError:
        known = False
    if not known:
        lines.append(f"smallest_effect: a number above 0 in the metric's unit, or such as 1%; not {effect!r}")
    if not 0 < design.alpha < 0.5:
        lines.append(f"alpha: between 0 and 0.5, not {design.alpha:g}")
    if path.suffix not in SUFFIXES:
        lines.append(f"an experiment is written in a .yaml file, not {path.suffix or 'one without ending'}")
    if not NAME.fullmatch(path.stem):
        lines.append(f"{path.stem!r} is the experiment's name; use small letters, digits and . _ -")
    return lines


def fingerprint(content: Mapping[str, Any], config: bytes = b"") -> str:
    """Returns a hash of what a design says, and of the file that it names."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted") + config).hexdigest()
