"""What compiled kernels must not do, and what they must not do worse than before.

Hard: no spills; tensor cores where there is a dot (fp16 and bf16, from sm_80 on and on gfx942;
Triton 3.8 emits none on sm_75); loads of 16 bytes where everything is aligned; at most 4 variants
over 40 sizes. Ratchets, against a baseline of the same Triton version and architecture: 8 more
registers, a tenth more instructions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..terms.verdict import Finding, Verdict, worst
from .aot import Figures
from .entries import Failed
from .variants import SIZES, Variants

if TYPE_CHECKING:
    from .entries import Entry

# Registers that a thread may have more than before: the unit that ptxas allocates them in.
MORE_REGISTERS = 8
# Instructions in multiples of those before.
MORE_INSTRUCTIONS = 1.10
# Kernels over 40 sizes, each with seconds of compiling in the middle of a run.
MOST_VARIANTS = 4
# The figures that a baseline holds.
RATCHETS = ("registers", "instructions")


def broken(
    figures: Figures, target: str, dtype: str, dot: bool, single_loads: int = 0, aligned: bool = True
) -> tuple[str, ...]:
    """Returns the hard rules that these figures break, one line each.

    single_loads: of one narrow element, which are meant. aligned: whether wide loads are possible.
    """
    broken_rules = []
    if figures.spill_loads or figures.spill_stores:
        broken_rules.append(
            f"spills registers: {figures.spill_loads} loads and {figures.spill_stores} stores of local"
            " memory; take a smaller tile or more warps"
        )
    if dot and dtype != "fp32" and target != "sm_75" and not figures.sass.get("tensor_core"):
        broken_rules.append("multiplies matrices without tensor cores")
    narrow = figures.sass.get("load_16", 0) + figures.sass.get("load_8", 0)
    if not aligned or not any(name.startswith(("load_", "async_copy")) for name in figures.sass):
        return tuple(broken_rules)
    if not figures.sass.get("load_128") and not figures.sass.get("async_copy"):
        broken_rules.append("no load of 16 bytes although everything is aligned")
    elif narrow > single_loads:
        broken_rules.append(f"{narrow} loads of two bytes or less although everything is aligned")
    return tuple(broken_rules)


def too_many(variants: Variants) -> tuple[str, ...]:
    """Returns the rule about variants where it is broken, else nothing."""
    if variants.number <= MOST_VARIANTS:
        return ()
    return (
        (
            f"{variants.number} variants over {len(SIZES)} sizes, by {', '.join(variants.differing)}; pass it"
            " at run time, with do_not_specialize where it need not be aligned"
        ),
    )


def judge(
    entries: Sequence[Entry | Failed],
    baseline: Mapping[str, Mapping[str, int]] | None,
    version: str,
    ours: bool = True,
) -> Verdict:
    """Judges kernels: by the hard rules all, by the ratchets those that the baseline has.

    ours: whether they are kernels of this package, of which a baseline is expected.
    """
    findings, reasons, new = [], [], []
    if baseline is None and ours:
        reasons.append(f"no baseline for Triton {version}: hard rules only; --accept makes one")
    for entry in entries:
        if isinstance(entry, Failed):
            findings.append(
                Finding(entry.key, "builds", "regression", kind="presence", evidence=(entry.why,))
            )
            continue
        findings.append(
            Finding(
                entry.key,
                "hard_rules",
                "regression" if entry.violations else "pass",
                head=float(len(entry.violations)),
                kind="limit",
                evidence=entry.violations,
            )
        )
        before = (baseline or {}).get(entry.key)
        if before is None:
            new.append(entry.key)
            continue
        findings += [ratchet(entry, name, before[name]) for name in RATCHETS]
    if baseline is not None:
        if new:
            reasons.append(
                f"{len(new)} kernels are not in the baseline, so nothing is compared for them:"
                f" {new[0]}{' and others' if len(new) > 1 else ''}; --accept takes them in"
            )
        gone = sorted(set(baseline) - {entry.key for entry in entries})
        reasons += [f"{key} is in the baseline and was not built" for key in gone]
    return Verdict(
        "kernels", worst([finding.verdict for finding in findings]), tuple(reasons), tuple(findings)
    )


def ratchet(entry: Entry, name: str, before: int) -> Finding:
    """Compares one figure of a kernel with the baseline's."""
    now = int(getattr(entry, name))
    most = before + MORE_REGISTERS if name == "registers" else before * MORE_INSTRUCTIONS
    return Finding(
        entry.key,
        name,
        "regression" if now > most else "pass",
        float(before),
        float(now),
        now / before if before else None,
        kind="counter",
    )


def accepted(entries: Sequence[Any]) -> dict[str, dict[str, int]]:
    """Returns a baseline of what was built: key -> figure -> value."""
    return {
        entry.key: {name: getattr(entry, name) for name in RATCHETS}
        for entry in entries
        if hasattr(entry, "violations")
    }
