"""A fix that a trace suggests: what to change, what it can bring at most, and the evidence without
which it is never suggested.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import NamedTuple

from ..facts.facts import Facts

# Of the window, on a CPU of the steps: below this nothing is suggested.
WORTH = 0.02


class Fix(NamedTuple):
    """ceiling: ns of Facts.span that it can save at most, if all that it removes was in the way.

    code: who is responsible, the most first.
    """

    rule: str
    title: str
    ceiling: int
    evidence: tuple[str, ...]
    advice: str
    code: tuple[str, ...] = ()


def suggested(facts: Facts) -> list[Fix]:
    """Of all rules (one a file in rules/; those with ON_CPU for traces without a GPU), what is
    worth saying, the largest ceiling first.

    They overlap: ceilings do not add up.
    """
    from . import rules

    modules = [
        importlib.import_module(f"{rules.__name__}.{module.name}")
        for module in pkgutil.iter_modules(rules.__path__)
    ]
    found = [
        module.look(facts)
        for module in modules
        if getattr(module, "ON_CPU", False) == (not len(facts.trace.gpu))
    ]
    return sorted(
        (one for one in found if one is not None and one.ceiling >= WORTH * facts.span),
        key=lambda one: -one.ceiling,
    )
