"""Every kernel of kernels/ops/ compiled for every architecture, in processes side by side; nothing
runs.
"""

from __future__ import annotations

import fnmatch
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import msgspec

from ..lookup.plugins import Unknown
from ..machine.peaks import datasheet
from ..terms.reasons import Misuse
from . import aot, rules
from .entries import Entry, Failed
from .variants import Variants, of_operation

PACKAGE = "hotlap.kernels.ops"
Progress = Callable[[int, int], None]


def operations(glob: str = "*") -> list[str]:
    """Names of files, without importing them. Raises Misuse where none matches."""
    spec = importlib.util.find_spec(PACKAGE)
    names = [
        info.name
        for info in pkgutil.iter_modules(list(spec.submodule_search_locations or ()) if spec else [])
    ]
    if not (found := [name for name in names if fnmatch.fnmatchcase(name, glob)]):
        raise Misuse(f"--op {glob!r} matches no operation; there are {', '.join(names)}")
    return found


def checked(targets: Sequence[str]) -> list[str]:
    for target in targets:
        if target not in aot.ARCHITECTURES:
            raise Unknown("target", target, aot.ARCHITECTURES)
    return list(dict.fromkeys(targets)) or list(aot.ARCHITECTURES)


def build(
    ops: Sequence[str], targets: Sequence[str], report: Progress, all_settings: bool = False
) -> list[Entry | Failed]:
    """Sorted by key. report: done and all tasks, after each."""
    variants = [(of_operation, op) for op in ops]
    tasks = [
        (one, op, dtype, target, all_settings)
        for op in ops
        for target in targets
        for dtype in ("fp32", "fp16", "bf16")
    ]
    found = side_by_side([*variants, *tasks], report)
    counted = dict(zip(ops, found, strict=False))
    return sorted(
        (with_variants(name, entry, counted) for group in found[len(ops) :] for name, entry in group),
        key=lambda entry: entry.key,
    )


def side_by_side(tasks: Sequence[tuple[Any, ...]], report: Progress) -> list[Any]:
    """Results of (function, argument, ...) in the order of the tasks, each in some process of a
    pool.
    """
    with ProcessPoolExecutor(min(len(tasks), len(os.sched_getaffinity(0))), get_context("spawn")) as pool:
        futures = [pool.submit(*task) for task in tasks]
        for done, _ in enumerate(as_completed(futures), 1):
            report(done, len(tasks))
        return [future.result() for future in futures]


def with_variants(
    kernel: str, entry: Entry | Failed, counted: dict[str, dict[str, Variants]]
) -> Entry | Failed:
    variants = counted[entry.op.partition("/")[0]].get(kernel)
    if variants is None or isinstance(entry, Failed):
        return entry
    return msgspec.structs.replace(
        entry, variants=variants.number, violations=entry.violations + rules.too_many(variants)
    )


def one(op: str, dtype: str, target: str, all_settings: bool) -> list[tuple[str, Entry | Failed]]:
    """All kernels of an operation, each with the name of its function."""
    module = importlib.import_module(f"{PACKAGE}.{op}")
    settings: Iterable[dict[str, Any]] = ({}, *(getattr(module, "SETTINGS", ()) if all_settings else ()))
    return [found for setting in settings for found in entries(module, op, dtype, target, setting)]


def entries(
    module: Any, op: str, dtype: str, target: str, setting: dict[str, Any]
) -> Iterator[tuple[str, Entry | Failed]]:
    peak = datasheet(aot.ARCHITECTURES[target].part)
    suffix = "".join(f"[{key}:{setting[key]}]" for key in sorted(setting))
    for made, cost in zip(
        module.builds(dtype, target, **setting), module.cost(*module.typical(dtype, **setting)), strict=True
    ):
        name, kernel = f"{op}/{made.name}{suffix}", str(made.kernel.fn.__name__)
        try:
            figures = aot.compiled(
                made.kernel, made.signature, made.constexprs, made.divisible, made.warps, made.stages, target
            )
        except (
            Exception
        ) as error:  # the compiler raises many kinds, all meaning that this kernel cannot be had
            yield kernel, Failed(name, dtype, target, aot.why(error))
            continue
        config = {
            **{key: plain(value) for key, value in made.constexprs.items()},
            "num_warps": made.warps,
            "num_stages": made.stages,
        }
        least_s = (
            peak.roofline_s(cost.flops, cost.moved_bytes, "fp32" if not made.dot else dtype) if peak else None
        )
        broken = rules.broken(figures, target, dtype, made.dot, made.single_loads)
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
    """A constexpr as JSON has it: Triton's dtypes by name."""
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
