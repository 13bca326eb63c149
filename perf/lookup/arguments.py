"""What a user's forward takes and returns, as the flat tuples of tensors that all backends take.

Keywords, dicts, None, numbers, nested tuples and dataclasses go in; dataclasses, caches and numbers
come out. Around such a forward stands a module that is called with the tensors alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import (
    MappingKey,
    TreeSpec,
    register_pytree_node,
    tree_flatten,
    tree_flatten_with_path,
    tree_is_leaf,
    tree_leaves,
    tree_unflatten,
)

from ..terms.reasons import Refusal

# What may stand among the tensors of an argument and is the same in every call.
CONSTANTS = (bool, int, float, str, type(None))
# Leading dimension and least size of an image, by which a list of them is told from one of
# features.
CHANNELS = (1, 3)
LEAST_IMAGE = 16


class Signed(NamedTuple):
    """A module and its example inputs as the harness calls it."""

    module: torch.nn.Module
    inputs: tuple[torch.Tensor, ...]
    # What forward calls each input: x, batch.features, states.0.
    names: tuple[str, ...]


class OfClass:
    """The fields of a dataclass, as a tree that pytree can take apart and put together again."""

    def __init__(self, kind: type, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields


def of_class(kind: type, fields: dict[str, Any]) -> Any:
    """Returns an object of a dataclass with these fields, also those that its maker does not
    take.
    """
    value: Any = object.__new__(kind)
    for name, part in fields.items():
        object.__setattr__(value, name, part)
    return value


register_pytree_node(
    OfClass,
    lambda value: (list(value.fields.values()), (value.kind, tuple(value.fields))),
    lambda children, context: of_class(context[0], dict(zip(context[1], children, strict=True))),
    flatten_with_keys_fn=lambda value: (
        [(MappingKey(name), part) for name, part in value.fields.items()],
        (value.kind, tuple(value.fields)),
    ),
)


class Flat(torch.nn.Module):
    """A module that is called with the tensors among another's arguments, and returns the tensors
    among what that returns, in dicts and tuples.
    """

    def __init__(self, module: torch.nn.Module, structure: TreeSpec | None, leaves: list[Any]) -> None:
        """structure: of (arguments, keywords), None where all are tensors. leaves: its constants,
        and a Tensor type where a tensor goes.
        """
        super().__init__()
        self.module = module
        self.structure = structure
        self.leaves = leaves
        self.training = module.training

    @classmethod
    def around(cls, module: torch.nn.Module) -> Flat:
        """Returns the module with its outputs taken apart, once."""
        return module if isinstance(module, cls) else cls(module, None, [])

    def forward(self, *inputs: torch.Tensor) -> Any:
        return plain(self.whole(*inputs))

    def whole(self, *inputs: torch.Tensor) -> Any:
        """Returns all that the other module returns."""
        if self.structure is None:
            return self.module(*inputs)
        tensors = iter(inputs)
        leaves = [next(tensors) if leaf is torch.Tensor else leaf for leaf in self.leaves]
        arguments, keywords = tree_unflatten(leaves, self.structure)
        return self.module(*arguments, **keywords)


def bound(module: torch.nn.Module, example: Any, text: str) -> Signed:
    """Returns a module and its example inputs as the harness calls it.

    example: a tensor, a tuple of the arguments, or a dict: keywords where all of its keys are
    parameters of forward, else the one argument. text: what messages call the model. Raises
    Refusal(invalid_input).
    """
    arguments, keywords = called_with(module, example)
    values = opened(named(module, arguments, keywords, text))
    for name, value in values.items():
        check(value, name, text)
    names, tensors, constants = [], [], False
    for path, leaf in tree_flatten_with_path(values)[0]:
        if isinstance(leaf, torch.Tensor):
            names.append(".".join(word_of(part) for part in path))
            tensors.append(leaf)
        else:
            constants = True
    if not tensors:
        raise Refusal("invalid_input", f"{text}: no example input is a tensor; give at least one")
    if not keywords and not constants and all(isinstance(value, torch.Tensor) for value in arguments):
        return Signed(module, each_its_own(tensors), distinct(names))
    leaves, structure = tree_flatten((opened(arguments), opened(keywords)))
    places = [torch.Tensor if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    inputs = each_its_own([leaf for leaf in leaves if isinstance(leaf, torch.Tensor)])
    return Signed(Flat(module, structure, places), inputs, distinct(names))


def each_its_own(tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Returns tensors of which none is another: exporters take one that is there twice for one
    input.
    """
    return tuple(
        value.clone() if any(value is other for other in tensors[:index]) else value
        for index, value in enumerate(tensors)
    )


def called_with(module: torch.nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Returns the arguments and keywords that example inputs stand for."""
    if isinstance(example, Mapping):
        keywords = {str(key): value for key, value in example.items()}
        try:
            inspect.signature(module.forward).bind(**keywords)
        except (TypeError, ValueError):
            return (dict(example),), {}
        return (), keywords
    if isinstance(example, (tuple, list)) and not hasattr(example, "_fields"):
        return tuple(example), {}
    return (example,), {}


def named(
    module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], text: str
) -> dict[str, Any]:
    """Returns forward's parameters, in the order of the call -> their values. Raises
    Refusal(invalid_input) where forward does not take so many.
    """
    try:
        signature = inspect.signature(module.forward)
    except ValueError:  # compiled code has none
        return {f"in{index}": value for index, value in enumerate(arguments)} | keywords
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as error:
        raise Refusal(
            "invalid_input",
            f"{text}: forward{signature} does not take the example inputs: {error}; give (module, (one,"
            " two)) for two arguments, (module, {'name': value}) for keywords",
        ) from error
    values: dict[str, Any] = {}
    positional = [*arguments]
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            values |= {f"{parameter.name}{index}": value for index, value in enumerate(positional)}
            positional = []
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) and positional:
            values[parameter.name] = positional.pop(0)
    return values | keywords


def check(value: Any, name: str, text: str) -> None:
    """Raises Refusal(invalid_input) for an argument that cannot be handed to every backend."""
    if isinstance(value, list) and value and all(is_image(item) for item in value):
        raise Refusal(
            "invalid_input",
            f"{text}: {name} is a list of images, and a file takes tensors: write a module around it whose"
            f" forward(self, images) returns self.model(list(images)), and give (wrapper,"
            " torch.stack(images)) of images of one size",
        )
    for leaf in tree_leaves(value):
        if not isinstance(leaf, (torch.Tensor, *CONSTANTS)):
            raise Refusal(
                "invalid_input",
                f"{text}: {name} holds a {type(leaf).__name__}; give tensors, numbers, text and None, in"
                " tuples, lists, dicts or dataclasses: write a module around it whose forward takes the"
                f" tensors and makes the {type(leaf).__name__}",
            )


def is_image(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.ndim == 3
        and value.shape[0] in CHANNELS
        and min(value.shape[1:]) >= LEAST_IMAGE
    )


def opened(value: Any) -> Any:
    """Returns arguments with dataclasses in a form that pytree takes apart."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return OfClass(type(value), {name: opened(part) for name, part in fields(value).items()})
    if isinstance(value, dict):
        return {key: opened(part) for key, part in value.items()}
    if type(value) in (tuple, list):
        return type(value)(opened(part) for part in value)
    return value


def fields(value: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass by their names."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def returns_tensors(outputs: Any) -> bool:
    """Whether all that forward returns is tensors and None, in what pytree takes apart."""
    return all(isinstance(leaf, (torch.Tensor, type(None))) for leaf in tree_leaves(outputs))


def plain(value: Any) -> Any:
    """Returns the tensors of what forward returned, in dicts and tuples; None for anything else.

    A class that is registered with pytree is a tuple of its leaves.
    """
    if value is None or isinstance(value, torch.Tensor):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: plain(part) for name, part in fields(value).items()}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(part) for name, part in zip(value._fields, value, strict=True)}
    if isinstance(value, (tuple, list)):
        return tuple(plain(part) for part in value)
    return None if tree_is_leaf(value) else plain(tuple(tree_leaves(value)))


def left_out(value: Any, name: str = "") -> list[str]:
    """Returns what `plain` leaves out, each with its class."""
    if value is None or isinstance(value, torch.Tensor):
        return []
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts: Mapping[Any, Any] = fields(value)
    elif isinstance(value, Mapping):
        parts = value
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = dict(zip(value._fields, value, strict=True))
    elif isinstance(value, (tuple, list)):
        parts = dict(enumerate(value))
    elif not tree_is_leaf(value):
        parts = dict(enumerate(tree_leaves(value)))
    else:
        return [f"{name or 'the output'} ({type(value).__name__})"]
    return [text for key, part in parts.items() for text in left_out(part, f"{name}.{key}".strip("."))]


def word_of(part: Any) -> str:
    """Returns a step of a path into arguments as a word of a name."""
    for attribute in ("key", "idx", "name"):
        if hasattr(part, attribute):
            return str(getattr(part, attribute))
    return str(part)


def distinct(names: list[str]) -> tuple[str, ...]:
    """Returns names of letters, digits, dots and underscores, each different."""
    kept: list[str] = []
    for name in names:
        word = re.sub(r"[^\w.]+", "_", name) or "in"
        while word in kept:
            word += "_"
        kept.append(word)
    return tuple(kept)
