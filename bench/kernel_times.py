"""Times every operation on this GPU in bf16, forward and backward, beside eager and torch.compile.

    python bench/kernel_times.py OUT.jsonl [--seconds 240] [OPERATION ...]
    python bench/kernel_times.py --table docs/results/h200.jsonl

A line of JSON as soon as it is known. The first says what the machine is, and how many bytes it
copies and how many FLOP of a bf16 product it makes in a second, measured here. Then a line for each
implementation of each direction, at the typical size of `hotlap kernels`, after the L2 cache was
overwritten:

    call_us    median time between two CUDA events around a call (triton.testing.do_bench): what a
               caller waits where the host is slower than the device
    device_us  time in kernels and copies alone, a mean over calls seen by torch's profiler
    bound_us   the longest of bytes over the copy rate and FLOP over the product rate that our
               kernels need at least; of an operation whose products are torch's it is not known

--dry launches nothing and needs no GPU: each call is made once, by tests. --table prints a stored
file as Markdown.
"""

from __future__ import annotations

import argparse
import inspect
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hotlap.kernels import library
from hotlap.perf.terms import escape

PRECISION = "bf16"
# Rows of a vocabulary of GPT-2, which targets are drawn from.
VOCABULARY = 50304
# Calls of which the profiler's times are a mean.
CALLS = 10
# Bytes that push everything else out of an L2 cache: twice the largest, 126 MB (B200).
FLUSH = 2**28
# Bytes of the copy that is timed, and the side of the square matrices.
COPIED, SIDE = 2**31, 8192
# Operations whose own kernels are only a part of what they do.
WITH_PRODUCTS = ("fused_linear_cross_entropy",)


class Clocks(NamedTuple):
    """Seconds of a call: between events, and in kernels."""

    call_s: float
    device_s: float


Clock = Callable[[Callable[[], Any]], Clocks]


def clocks(call: Callable[[], Any]) -> Clocks:
    """Times a call on the GPU."""
    import triton.testing

    call_s = triton.testing.do_bench(call, warmup=20, rep=60, return_mode="median") / 1e3
    return Clocks(call_s, in_kernels(call))


def in_kernels(call: Callable[[], Any]) -> float:
    """Seconds of a call that was made before that kernels take, without the gaps between them."""
    there, back = (torch.empty(FLUSH, dtype=torch.uint8, device="cuda") for _ in range(2))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(CALLS):
            there.copy_(back)
            call()
        torch.cuda.synchronize()
    return without_flushes([(event.name, event.self_device_time_total) for event in profile.events()])


def without_flushes(events: list[tuple[str, float]]) -> float:
    """Returns seconds of a call from the names and microseconds of what ran on the device in CALLS
    of them: all but the copies that overwrote the cache, which are the CALLS longest. An
    operation's own copies, such as of a gradient that is returned twice, count.
    """
    copies = sorted(spent for name, spent in events if name.startswith("Memcpy DtoD"))
    return (sum(spent for _, spent in events) - sum(copies[-CALLS:])) / 1e6 / CALLS


def rates(clock: Clock) -> tuple[float, float]:
    """Returns bytes a second of a copy, read and written, and FLOP a second of a bf16 product."""
    source, copy = (torch.empty(COPIED, dtype=torch.uint8, device="cuda") for _ in range(2))
    copied_s = clock(lambda: copy.copy_(source)).call_s
    a, b = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    return 2 * COPIED / copied_s, 2 * SIDE**3 / clock(lambda: a @ b).call_s


def filled(value: Any, device: str) -> Any:
    """Random numbers in the layout of a tensor of the device meta, or of a list of them."""
    if isinstance(value, list):
        return [filled(tensor, device) for tensor in value]
    if not isinstance(value, torch.Tensor):
        return value
    if not value.is_floating_point():
        return torch.randint(VOCABULARY, value.shape, device=device)
    empty = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
    return empty.normal_() if value.ndim else empty.fill_(1.0)


class Timed(NamedTuple):
    """One implementation of one direction of an operation, ready to be called."""

    direction: str
    implementation: str
    call: Callable[[], Any]


def implementations(module: Any, arguments: tuple[Any, ...], compiles: bool) -> Iterator[Timed]:
    """Yields ours, eager's and torch.compile's forward, and of an operation with a gradient their
    backward.
    """
    names = inspect.signature(module.forward).parameters
    inputs = dict(zip(names, arguments, strict=False))
    references = {"eager": module.reference}
    if compiles and not hasattr(module, "MUTATES"):  # what changes in place is compiled otherwise
        references["compile"] = torch.compile(module.reference, dynamic=False)
    with torch.no_grad():
        yield Timed("forward", "ours", lambda: module.forward(**inputs))
        for name, reference in references.items():
            yield Timed("forward", name, lambda reference=reference: reference(*arguments))
    if not module.GRADIENTS:
        return
    results = dict(zip(module.RETURNS, module.forward(**inputs), strict=True))
    outputs = module.RETURNS[: getattr(module, "OUTPUTS", 1)]
    slopes = {f"d{name}": torch.randn_like(results[name]) for name in outputs}
    known = inputs | results | slopes
    needed = {name: known[name] for name in inspect.signature(module.backward).parameters if name in known}
    yield Timed("backward", "ours", lambda: module.backward(**needed))
    for name, reference in references.items():
        yield Timed("backward", name, by_autograd(reference, module.GRADIENTS, inputs, slopes))


def by_autograd(
    reference: Callable[..., Any],
    gradients: tuple[str, ...],
    inputs: dict[str, Any],
    slopes: dict[str, torch.Tensor],
) -> Callable[[], Any]:
    """Runs forward once and returns the call of its backward."""
    leaves = {
        name: value.detach().requires_grad_(name in gradients) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
    outputs = reference(*leaves.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sought = [leaves[name] for name in gradients if isinstance(leaves[name], torch.Tensor)]
    return lambda: torch.autograd.grad(outputs, sought, list(slopes.values()), retain_graph=True)


def bounds(
    name: str, module: Any, arguments: tuple[Any, ...], copied: float, flops: float
) -> dict[str, float]:
    """Returns the least seconds of our kernels by direction; empty where they are not all."""
    if name in WITH_PRODUCTS:
        return {}
    least = {"forward": 0.0, "backward": 0.0}
    for build, cost in zip(module.builds(PRECISION, "sm_90"), module.cost(*arguments), strict=True):
        direction = "backward" if build.name.startswith("backward") else "forward"
        rate = flops if build.dot else float("inf")
        least[direction] += max(cost.moved_bytes / copied, cost.flops / rate)
    return least


def rows(names: list[str], clock: Clock, device: str, until: float) -> Iterator[dict[str, Any]]:
    """Yields the lines of the file."""
    on_gpu = device == "cuda"
    copied, flops = rates(clock) if on_gpu else (1.0, 1.0)
    import triton

    yield {
        "device": torch.cuda.get_device_name() if on_gpu else "none: launches nothing",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "copied_bytes_s": copied,
        "product_flops_s": flops,
    }
    for name in names:
        if time.monotonic() > until:
            yield {"operation": name, "error": "timeout: not begun"}
            continue
        try:
            module: Any = library.operation(name).module
            empty = module.typical(PRECISION, **small(name, on_gpu))
            arguments = tuple(filled(value, device) for value in empty)
            least = bounds(name, module, arguments, copied, flops) if on_gpu else {}
            for timed in implementations(module, arguments, on_gpu):
                spent = clock(timed.call)
                yield {
                    "operation": name,
                    "direction": timed.direction,
                    "implementation": timed.implementation,
                    "call_us": round(spent.call_s * 1e6, 2),
                    "device_us": round(spent.device_s * 1e6, 2),
                    "bound_us": round(least[timed.direction] * 1e6, 2) if least else None,
                }
        except Exception as error:  # one operation that falls leaves the others
            yield {"operation": name, "error": f"{type(error).__name__}: {error}"[:300]}


def small(name: str, on_gpu: bool) -> dict[str, int]:
    """Returns arguments of `typical` that make it small where nothing is timed."""
    return {} if on_gpu else {"count": 1 if name in ("adamw", "total_norm") else 32}


def table(stored: list[dict[str, Any]]) -> Iterator[str]:
    """Yields the lines of a stored file's table: times in kernels, and of calls in brackets."""
    machine, *times = stored
    yield (
        f"{machine['device']}, torch {machine['torch']}, Triton {machine['triton']}; {PRECISION}, typical"
        f" sizes. A copy moved {machine['copied_bytes_s'] / 1e12:.2f} TB/s, a product made"
        f" {machine['product_flops_s'] / 1e12:.0f} TFLOP/s."
    )
    yield ""
    yield "| operation | direction | bound | ours | eager | torch.compile | eager / ours | compile / ours |"
    yield "|---|---|---|---|---|---|---|---|"
    cells: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    failed = [row for row in times if "error" in row]
    for row in times:
        if row not in failed:
            cells.setdefault((row["operation"], row["direction"]), {})[row["implementation"]] = row
    for (name, direction), by in sorted(cells.items()):
        ours = by["ours"]
        columns = [f"{ours['bound_us']:.0f}" if ours["bound_us"] else ""]
        columns += [
            f"{by[whose]['device_us']:.0f} ({by[whose]['call_us']:.0f})" if whose in by else ""
            for whose in ("ours", "eager", "compile")
        ]
        columns += [
            f"{by[whose]['device_us'] / ours['device_us']:.2f}" if whose in by else ""
            for whose in ("eager", "compile")
        ]
        yield f"| {name} | {direction} | {' | '.join(columns)} |"
    if failed:
        yield ""
        yield from (f"- {row['operation']}: {escape.markdown(row['error'])}" for row in failed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("operations", nargs="*", default=list(library.NAMES))
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_intermixed_args()
    if arguments.table:
        print(*table([json.loads(line) for line in arguments.table.read_text().splitlines()]), sep="\n")
        return
    if arguments.out is None:
        parser.error("no file to write to: name one, such as kernels.jsonl")
    until = time.monotonic() + arguments.seconds
    clock: Clock = clocks
    if arguments.dry:
        from triton.runtime.jit import JITFunction

        JITFunction.run = lambda *_, **__: None

        def clock(call: Callable[[], Any]) -> Clocks:
            call()
            return Clocks(0.0, 0.0)

    with arguments.out.open("a") as file:
        for row in rows(arguments.operations, clock, "cpu" if arguments.dry else "cuda", until):
            line = json.dumps(row)
            print(line, file=file, flush=True)
            print(line, flush=True)


if __name__ == "__main__":
    main()
