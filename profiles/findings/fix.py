"""A fix that a trace suggests: what to change, what it can bring at most, and the evidence without
which it is never suggested.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import NamedTuple

from ..facts.facts import Facts
from . import rules

# Of the window, on a CPU of the steps: below this nothing is suggested.
WORTH = 0.02


class Fix(NamedTuple):
    """What to change."""

    # Name of the rule.
    rule: str
    # What to do, in short.
    title: str
    # ns of Facts.span that it can save at most, if all that it removes was in the way.
    ceiling: int
    # What in the trace makes it worth saying.
    evidence: tuple[str, ...]
    # How to do it.
    advice: str
    # Who is responsible, the most first.
    code: tuple[str, ...] = ()


def suggested(facts: Facts) -> list[Fix]:
    """Returns what is worth saying of all rules, the largest ceiling first.

    A rule is a file in rules/; those with ON_CPU are for traces without a GPU. They overlap:
    ceilings do not add up.
    """
    modules = [
        importlib.import_module(f"{rules.__name__}.{module.name}")
        for module in pkgutil.iter_modules(rules.__path__)
    ]
    fixes = [
        module.look(facts)
        for module in modules
        if getattr(module, "ON_CPU", False) == (not len(facts.trace.gpu))
    ]
    return sorted(
        (fix for fix in fixes if fix is not None and fix.ceiling >= WORTH * facts.span),
        key=lambda fix: -fix.ceiling,
    )
