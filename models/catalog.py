"""The names of the networks, which are the files of nets/, and the way from a name to its class.

Imports no torch by itself.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import nets

if TYPE_CHECKING:
    from .trainable import Trainable


def names() -> list[str]:
    """The networks' names, sorted: the files of nets/ but those that begin with an underscore."""
    return sorted(
        module.name for module in pkgutil.iter_modules(nets.__path__) if not module.name.startswith("_")
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint for someone who wrote `word`: the names that look like it, else all known names."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"known names: {', '.join(known) or 'none'}"


def network(name: str) -> type[Trainable]:
    """The class in nets/NAME.py.

    Raises ValueError, with the nearest names where there is no such file, and where the file does
    not hold exactly one Trainable.
    """
    if name not in names():
        raise ValueError(f"no network is called {name!r}; {nearest(name, names())}")
    module = importlib.import_module(f"{nets.__name__}.{name}")
    from .trainable import Trainable  # torch is needed only from here on

    own = [member for member in vars(module).values() if getattr(member, "__module__", "") == module.__name__]
    classes = [member for member in own if isinstance(member, type) and issubclass(member, Trainable)]
    if len(classes) != 1:
        raise ValueError(f"{module.__file__} must hold exactly one Trainable, not {len(classes)}")
    return classes[0]
