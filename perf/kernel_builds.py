"""Every kernel of kernels/ops/ compiled for every architecture, in processes side by side; nothing runs."""

from __future__ import annotations

import fnmatch
import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import msgspec

from . import aot, kernel_rules
from .kernel_entries import Entry, Failed
from .peaks import datasheet
from .plugins import Unknown
from .reasons import Misuse

PACKAGE = "hotlap.kernels.ops"


def operations(glob: str = "*") -> list[str]:
    """Names of files, without importing them. Raises Misuse where none matches."""
    spec = importlib.util.find_spec(PACKAGE)
    names = [info.name for info in pkgutil.iter_modules(list(spec.submodule_search_locations or ()) if spec else [])]
    if not (found := [name for name in names if fnmatch.fnmatchcase(name, glob)]):
        raise Misuse(f"--op {glob!r} matches no operation; there are {', '.join(names)}")
    return found


def checked(targets: Sequence[str]) -> list[str]:
    for target in targets:
        if target not in aot.ARCHITECTURES:
            raise Unknown("target", target, aot.ARCHITECTURES)
    return list(dict.fromkeys(targets)) or list(aot.ARCHITECTURES)


def build(ops: Iterable[str], targets: Sequence[str], report: Callable[[int, int], None]) -> list[Entry | Failed]:
    """Sorted by key. report: done and all tasks, after each."""
    tasks = [(op, dtype, target) for op in ops for target in targets for dtype in ("fp32", "fp16", "bf16")]
    found: list[Entry | Failed] = []
    with ProcessPoolExecutor(min(len(tasks), len(os.sched_getaffinity(0))), get_context("spawn")) as pool:
        for done, future in enumerate(as_completed([pool.submit(one, *task) for task in tasks]), 1):
            found += future.result()
            report(done, len(tasks))
    return sorted(found, key=lambda entry: entry.key)


def one(op: str, dtype: str, target: str) -> list[Entry | Failed]:
    """All kernels of an operation."""
    return list(entries(op, dtype, target))


def entries(op: str, dtype: str, target: str) -> Iterator[Entry | Failed]:
    module = importlib.import_module(f"{PACKAGE}.{op}")
    peak = datasheet(aot.ARCHITECTURES[target].part)
    for made, cost in zip(module.builds(dtype, target), module.cost(*module.typical(dtype)), strict=True):
        name = f"{op}/{made.name}"
        try:
            figures = aot.compiled(made.kernel, made.signature, made.constexprs, made.divisible, made.warps, made.stages, target)
        except Exception as error:  # the compiler raises many kinds, all meaning that this kernel cannot be had
            yield Failed(name, dtype, target, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        config = {**made.constexprs, "num_warps": made.warps, "num_stages": made.stages}
        least_s = peak.roofline_s(cost.flops, cost.moved_bytes, "fp32" if not made.dot else dtype) if peak else None
        broken = kernel_rules.broken(figures, target, dtype, made.dot, made.single_loads)
        yield Entry(name, dtype, target, config, **msgspec.structs.asdict(figures), bytes=cost.moved_bytes, flops=cost.flops, roofline_s=least_s, violations=broken)
