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
    return sorted(
        module.name for module in pkgutil.iter_modules(nets.__path__) if not module.name.startswith("_")
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """What to tell someone who wrote `word`: the names that look like it, or all names."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"known names: {', '.join(known)}"


def network(name: str) -> type[Trainable]:
    """The class in nets/NAME.py.

    Raises ValueError with the nearest names where there is no such file.
    """
    if name not in names():
        raise ValueError(f"no network is called {name!r}; {nearest(name, names())}")
    module = importlib.import_module(f"{nets.__name__}.{name}")
    from .trainable import Trainable

    found = [
        member
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Trainable) and member.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"{module.__file__} must hold exactly one Trainable, not {len(found)}")
    return found[0]
