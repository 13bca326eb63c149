"""From names on a command line to cases, and from cases to races."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from ..terms.case import ARCHITECTURES, PRECISIONS, Case
from ..terms.reasons import Misuse
from . import plugins

# Options of the harness itself; all others are the backend's own. Those of library defaults run an
# entrant as its user would find it.
COMMON_OPTIONS = {"allocator": ("keep", "default"), "binding": ("cores", "none")}
LIBRARY_DEFAULTS = (("allocator", "default"), ("binding", "none"))
BASELINE, PACE = "eager", "pace"

_SPEC = re.compile(r"([^\[\]]+)((?:\[[^\[\]:]+:[^\[\]:]+\])*)")


def parse_backend(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """`compile[mode:max-autotune][freezing:on]` -> name and options, each checked.

    Raises Misuse with the nearest names.
    """
    found = _SPEC.fullmatch(text.strip())
    if not found:
        raise Misuse(f"backend {text!r}: expected name or name[option:value]...")
    module = plugins.backend(found[1])
    known = {**COMMON_OPTIONS, **module.OPTIONS}
    given: dict[str, str] = {}
    for name, value in re.findall(r"\[([^:]+):([^\]]+)\]", found[2]):
        if name not in known:
            raise plugins.Unknown(f"option of {found[1]}", name, known)
        if value not in known[name]:
            raise plugins.Unknown(f"value of {found[1]}[{name}]", value, known[name])
        if name in given:
            raise Misuse(f"backend {text!r}: option {name} is given twice")
        given[name] = value
    return found[1], tuple((name, value) for name, value in given.items() if value != known[name][0])


def default_backends(target: str = "cpu") -> list[str]:
    """Every backend for this kind of target but those that only test the harness, the baseline
    first, and the baseline under library defaults.
    """
    names = [name for name in plugins.modules("hotlap.backends") if name not in (BASELINE, PACE, "null")]
    names = [name for name in names if target.startswith(getattr(plugins.backend(name), "TARGETS", ("",)))]
    defaults = "".join(f"[{name}:{value}]" for name, value in LIBRARY_DEFAULTS)
    return [BASELINE, f"{BASELINE}{defaults}", *names]


def expand(
    workloads: Iterable[str],
    backends: Iterable[str],
    precisions: Iterable[str] = ("fp32",),
    batches: Iterable[int] = (1,),
    target: str = "cpu",
    pace: bool = True,
) -> list[Case]:
    """All combinations, in the order of races; the pace joins each race, the baseline under library
    defaults in the first precision. Raises Misuse.
    """
    specs = list(dict.fromkeys(parse_backend(text) for text in backends))
    precisions = list(dict.fromkeys(precisions))
    for precision in precisions:
        if precision not in PRECISIONS:
            raise plugins.Unknown("precision", precision, PRECISIONS)
    if pace and (PACE, ()) not in specs and not target.startswith(ARCHITECTURES):
        specs.append((PACE, ()))
    batches = list(batches)
    return [
        Case(workload, backend, precision, batch, target, "inference", options)
        for workload in dict.fromkeys(workloads)
        for batch in dict.fromkeys(batches)
        for precision in precisions
        for backend, options in specs
        if precision == precisions[0] or (backend != PACE and options != LIBRARY_DEFAULTS)
    ]


def matching(cases: Sequence[Case], globs: Sequence[str]) -> list[Case]:
    """Those whose id matches one of the globs, in which [ means itself.

    Raises Misuse if none does.
    """
    found = [
        case
        for case in cases
        if any(fnmatch.fnmatchcase(case.id, glob.replace("[", "[[]")) for glob in globs)
    ]
    if not found:
        raise Misuse(f"no case matches {', '.join(globs)}; there are {', '.join(case.id for case in cases)}")
    return found


def races(cases: Sequence[Case]) -> list[tuple[str, list[Case]]]:
    """Group name -> its cases, the baseline first (eager in the finest precision asked for): what
    is measured together.
    """
    order = {name: at for at, name in enumerate(dict.fromkeys(case.group for case in cases))}
    ranked = sorted(
        cases,
        key=lambda case: (
            order[case.group],
            case.backend != BASELINE or bool(case.options),
            PRECISIONS.index(case.precision),
        ),
    )
    return [
        (name, list(dict.fromkeys(members))) for name, members in groupby(ranked, key=lambda case: case.group)
    ]
