"""Makes cases of names on a command line, and races of cases."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from ..terms.case import ARCHITECTURES, ONNX, PRECISIONS, Case
from ..terms.reasons import Misuse
from . import plugins

# Options of the harness itself, the default first; all others are the backend's own.
COMMON_OPTIONS = {
    "allocator": ("keep", "default"),
    "binding": ("cores", "none"),
    "threads": ("all", "1", "2", "4", "8", "16", "32", "64"),
}
# Those with which an entrant runs as its user would find it.
LIBRARY_DEFAULTS = (("allocator", "default"), ("binding", "none"))
# The backend that all others of a race are compared with: eager, or of an ONNX file, which has
# none, what most people run it by.
BASELINE = "eager"
FILE_BASELINE = "onnxruntime"
# The backend that does a fixed work of its own, by which races of different machines are compared.
PACE = "pace"

_SPEC = re.compile(r"([^\[\]]+)((?:\[[^\[\]:]+:[^\[\]:]+\])*)")


def parse_backend(text: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Reads `compile[mode:max-autotune][freezing:on]` as a backend's name and its options; those at
    their default are left out.

    Raises Misuse with the nearest names for what there is not.
    """
    match = _SPEC.fullmatch(text.strip())
    if not match:
        raise Misuse(f"backend {text!r}: expected name or name[option:value]...")
    backend = match[1]
    known = {**COMMON_OPTIONS, **plugins.backend(backend).OPTIONS}
    chosen: dict[str, str] = {}
    for name, value in re.findall(r"\[([^:]+):([^\]]+)\]", match[2]):
        if name not in known:
            raise plugins.Unknown(f"option of {backend}", name, known)
        if value not in known[name]:
            raise plugins.Unknown(f"value of {backend}[{name}]", value, known[name])
        if name in chosen:
            raise Misuse(f"backend {text!r}: option {name} is given twice")
        chosen[name] = value
    return backend, tuple((name, value) for name, value in chosen.items() if value != known[name][0])


def baseline_of(workload: str) -> str:
    """Returns the baseline of a workload's races."""
    return FILE_BASELINE if workload.endswith(ONNX) else BASELINE


def by_default(case: Case) -> bool:
    """Returns whether a case runs as its library's users start it."""
    return dict(LIBRARY_DEFAULTS).items() <= dict(case.options).items()


def takes(backend: str, workload: str) -> bool:
    """Returns whether the backend takes such a workload: an ONNX file is for those that load
    files.
    """
    return not workload.endswith(ONNX) or getattr(plugins.backend(backend), "TAKES_FILES", False)


def default_backends(target: str = "cpu", workload: str = "") -> list[str]:
    """Returns every backend for this kind of target and workload, as parse_backend reads it: the
    baseline first, then the baseline under library defaults; those that only test the harness are
    left out.
    """
    first = baseline_of(workload)
    names = [name for name in plugins.modules("hotlap.backends") if name not in (first, PACE, "null")]
    names = [
        name
        for name in names
        if takes(name, workload) and target.startswith(getattr(plugins.backend(name), "TARGETS", ("",)))
    ]
    defaults = "".join(f"[{name}:{value}]" for name, value in LIBRARY_DEFAULTS)
    return [first, f"{first}{defaults}", *names]


def expand(
    workloads: Iterable[str],
    backends: Iterable[str],
    precisions: Iterable[str] = ("fp32",),
    batches: Iterable[int] = (1,),
    target: str = "cpu",
    pace: bool = True,
) -> list[Case]:
    """Returns the cases of all combinations, in the order of races. Raises Misuse.

    The pace joins each race; it and the baseline under library defaults run in the first precision
    only.
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
    """Returns the cases whose id matches one of the globs, in which [ means itself.

    Raises Misuse if none does.
    """
    patterns = [glob.replace("[", "[[]") for glob in globs]
    matches = [case for case in cases if any(fnmatch.fnmatchcase(case.id, glob) for glob in patterns)]
    if not matches:
        raise Misuse(f"no case matches {', '.join(globs)}; there are {', '.join(case.id for case in cases)}")
    return matches


def races(cases: Sequence[Case]) -> list[tuple[str, list[Case]]]:
    """Returns what is measured together: name of the group, and its cases, the baseline first
    (in the finest precision asked for).
    """
    order = {name: index for index, name in enumerate(dict.fromkeys(case.group for case in cases))}
    ranked = sorted(
        cases,
        key=lambda case: (
            order[case.group],
            case.backend != baseline_of(case.workload) or bool(case.options),
            PRECISIONS.index(case.precision),
        ),
    )
    return [
        (name, list(dict.fromkeys(members))) for name, members in groupby(ranked, key=lambda case: case.group)
    ]
