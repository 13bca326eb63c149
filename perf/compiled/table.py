"""What was compiled, as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ..stats.compare import Outcome
from ..terms import stored
from ..terms.units import scaled
from ..terms.verdict import EXIT, Verdict
from .entries import Entry, Failed

# The baselines of our kernels, one file a version of Triton.
BASELINES = Path(sys.modules["hotlap"].__path__[0]) / "kernels" / "baselines"
# The columns of the table.
HEAD = (
    "kernel",
    "dtype",
    "target",
    "registers",
    "spills",
    "shared",
    "occupancy",
    "instructions",
    "128-bit loads",
    "tensor cores",
    "variants",
    "bytes",
    "roofline",
)


class Stored(msgspec.Struct):
    """What `hotlap kernels --json` wrote, as far as the table needs it."""

    triton: str
    verdict: Outcome
    kernels: list[Entry]

    @property
    def exit_status(self) -> int:
        """The status with which hotlap kernels ended."""
        return EXIT[self.verdict]


def read(path: Path) -> Stored:
    """Reads what `hotlap kernels --json` wrote. Raises Misuse, Unreadable."""
    return stored.decode(path, stored.content(path), Stored, "not what hotlap kernels --json writes")


def cells(entry: Entry | Failed) -> list[str]:
    """Returns the cells of a kernel's row, in the order of HEAD.

    The roofline is the least time of the typical size on the target's named part, by its datasheet;
    nothing was run.
    """
    named = [entry.op, entry.dtype, entry.target]
    if isinstance(entry, Failed):
        return [*named, f"failed: {entry.why}", *[""] * (len(HEAD) - 4)]
    wide = entry.sass.get("load_128", 0)
    all_loads = sum(count for name, count in entry.sass.items() if name.startswith("load_"))
    return [
        *named,
        str(entry.registers),
        str(entry.spill_loads + entry.spill_stores),
        str(entry.shared_bytes),
        f"{entry.occupancy:.0%}",
        str(entry.instructions),
        f"{wide} of {all_loads}",
        str(entry.sass.get("tensor_core", 0) or ""),
        "" if entry.variants is None else str(entry.variants),
        "" if entry.bytes is None else scaled(entry.bytes, "B"),
        "" if entry.roofline_s is None else scaled(entry.roofline_s, "s"),
    ]


def markdown(entries: Sequence[Entry | Failed], version: str) -> str:
    """Returns the table in Markdown, below a line that names the version of Triton."""
    lines = [f"Triton {version}; compiled, not run.", "", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    return "\n".join([*lines, *(f"| {' | '.join(cells(entry))} |" for entry in entries)]) + "\n"


def page(entries: Sequence[Entry | Failed], version: str, verdict: Verdict) -> str:
    """Returns the table as an HTML page by itself; every name is escaped."""
    from jinja2 import Environment, PackageLoader

    template = Environment(loader=PackageLoader(__package__, ""), autoescape=True).get_template(
        "kernels.html"
    )
    broken = [
        (entry.key, line)
        for entry in entries
        for line in ([entry.why] if isinstance(entry, Failed) else entry.violations)
    ]
    worse = [
        (finding.case, f"{finding.metric} {finding.base:g} -> {finding.head:g}")
        for finding in verdict.findings
        if finding.kind == "counter" and finding.verdict == "regression"
        if finding.base is not None and finding.head is not None
    ]
    rows = [(cells(entry), isinstance(entry, Failed) or bool(entry.violations)) for entry in entries]
    return template.render(
        version=version,
        verdict=verdict.verdict,
        reasons=verdict.reasons,
        broken=[*broken, *worse],
        head=HEAD,
        rows=rows,
    )
