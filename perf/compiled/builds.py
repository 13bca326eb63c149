"""Every kernel of kernels/ops/ compiled for every architecture, in processes side by side; nothing
runs.
"""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import msgspec

from ..lookup.plugins import Unknown
from ..machine import cores
from ..machine.peaks import datasheet
from ..terms.reasons import Misuse
from . import aot, rules
from .entries import Entry, Failed
from .variants import Variants, of_operation

# Where our operations are, one a file.
PACKAGE = "hotlap.kernels.ops"
Progress = Callable[[int, int], None]


def operations(glob: str = "*") -> list[str]:
    """Returns the names of the operations that match, without importing them.

    Raises Misuse where none matches.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    names = [info.name for info in pkgutil.iter_modules(folders)]
    if not (matches := [name for name in names if fnmatch.fnmatchcase(name, glob)]):
        raise Misuse(f"--op {glob!r} matches no operation; there are {', '.join(names)}")
    return matches


def checked(targets: Sequence[str]) -> list[str]:
    """Returns the targets, each once, or all there are if none is named. Raises Unknown."""
    for target in targets:
        if target not in aot.ARCHITECTURES:
            raise Unknown("target", target, aot.ARCHITECTURES)
    return list(dict.fromkeys(targets)) or list(aot.ARCHITECTURES)


def build(
    ops: Sequence[str], targets: Sequence[str], report: Progress, all_settings: bool = False
) -> list[Entry | Failed]:
    """Compiles operations for targets in every dtype; returns the kernels sorted by key.

    report: is called after each task with how many are done and how many there are.
    """
    variants = [(of_operation, op) for op in ops]
    tasks = [
        (kernels, op, dtype, target, all_settings)
        for op in ops
        for target in targets
        for dtype in ("fp32", "fp16", "bf16")
    ]
    results = side_by_side([*variants, *tasks], report)
    counted = dict(zip(ops, results, strict=False))
    return sorted(
        (with_variants(name, entry, counted) for group in results[len(ops) :] for name, entry in group),
        key=lambda entry: entry.key,
    )


def side_by_side(tasks: Sequence[tuple[Any, ...]], report: Progress) -> list[Any]:
    """Runs tasks (function, argument, ...) in a pool; returns their results in the same order."""
    with ProcessPoolExecutor(min(len(tasks), cores.count()), get_context("spawn")) as pool:
        futures = [pool.submit(*task) for task in tasks]
        for done, _ in enumerate(as_completed(futures), 1):
            report(done, len(tasks))
        return [future.result() for future in futures]


def with_variants(
    kernel: str, entry: Entry | Failed, counted: dict[str, dict[str, Variants]]
) -> Entry | Failed:
    """Returns an entry with how many variants its kernel has, and the rule that they may break."""
    variants = counted[entry.op.partition("/")[0]].get(kernel)
    if variants is None or isinstance(entry, Failed):
        return entry
    return msgspec.structs.replace(
        entry, variants=variants.number, violations=entry.violations + rules.too_many(variants)
    )


def kernels(op: str, dtype: str, target: str, all_settings: bool) -> list[tuple[str, Entry | Failed]]:
    """Compiles an operation; returns its kernels, each with the name of its function.

    all_settings: in every setting of the operation's module, not the default alone.
    """
    module = importlib.import_module(f"{PACKAGE}.{op}")
    settings: Iterable[dict[str, Any]] = ({}, *(getattr(module, "SETTINGS", ()) if all_settings else ()))
    return [entry for setting in settings for entry in entries(module, op, dtype, target, setting)]


def entries(
    module: Any, op: str, dtype: str, target: str, setting: dict[str, Any]
) -> Iterator[tuple[str, Entry | Failed]]:
    """Compiles an operation in one setting; yields (name of the function, entry) of each kernel."""
    peak = datasheet(aot.ARCHITECTURES[target].part)
    suffix = "".join(f"[{key}:{setting[key]}]" for key in sorted(setting))
    for build, cost in zip(
        module.builds(dtype, target, **setting), module.cost(*module.typical(dtype, **setting)), strict=True
    ):
        name, kernel = f"{op}/{build.name}{suffix}", str(build.kernel.fn.__name__)
        try:
            figures = aot.compiled(
                build.kernel,
                build.signature,
                build.constexprs,
                build.divisible,
                build.warps,
                build.stages,
                target,
                build.fused,
            )
        except Exception as error:  # the compiler raises many kinds: this kernel cannot be had
            yield kernel, Failed(name, dtype, target, aot.why(error))
            continue
        config = {
            **{key: plain(value) for key, value in build.constexprs.items()},
            "num_warps": build.warps,
            "num_stages": build.stages,
        }
        units = dtype if build.dot else "fp32"  # only products have units of narrower types
        least_s = peak.roofline_s(cost.flops, cost.moved_bytes, units) if peak else None
        broken = rules.broken(figures, target, dtype, build.dot, build.single_loads)
        yield (
            kernel,
            Entry(
                name,
                dtype,
                target,
                config,
                **msgspec.structs.asdict(figures),
                bytes=cost.moved_bytes,
                flops=cost.flops,
                roofline_s=least_s,
                violations=broken,
            ),
        )


def plain(value: Any) -> Any:
    """Returns a constexpr as JSON has it: Triton's dtypes by name."""
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
