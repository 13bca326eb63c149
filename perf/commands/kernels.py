"""`hotlap kernels`: Triton kernels compiled for every architecture and judged, with no GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..terms.reasons import Misuse

# What num_warps and num_stages are where the command line does not say.
WARPS = 4
STAGES = 2
# The architecture that --inductor generates for where none is named.
CENSUS_TARGET = "sm_90"


def kernels(
    own: Annotated[
        str,
        typer.Argument(
            help="A kernel of your own, package.module:kernel, with --signature. Without it: all of ours."
        ),
    ] = "",
    signature: Annotated[
        str,
        typer.Option(
            help=(
                "Its arguments in order: 'x:*bf16, n:i32, BLOCK:constexpr=1024'. Pointers and integers are"
                " multiples of 16 but for n:i32!"
            )
        ),
    ] = "",
    warps: Annotated[int, typer.Option(help="num_warps of your own kernel.", min=1, max=32)] = WARPS,
    stages: Annotated[int, typer.Option(help="num_stages of your own kernel.", min=1, max=8)] = STAGES,
    inductor: Annotated[
        str,
        typer.Option(
            help=(
                "Instead: what Inductor lowers this workload to on a fake GPU, without torch.compile's passes"
                " over the graph. A census, never a verdict."
            )
        ),
    ] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(help="An architecture, may be given several times. Default: all that are known."),
    ] = None,
    op: Annotated[str, typer.Option(help="Operations whose name matches, such as '*norm'.")] = "*",
    all_settings: Annotated[
        bool, typer.Option("--all-settings", help="Beside the default settings the others of each operation.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(
            help=(
                "Registers and instructions to judge against. Default: kernels/baselines/ of this Triton"
                " version."
            )
        ),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Make what was built the baseline, if no hard rule is broken.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(help="Write the verdict and every figure; - is stdout.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table; - is stdout.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the table as a page; - is stdout.")] = None,
    stored: Annotated[
        Path | None,
        typer.Option(help="Compile nothing: the table and the verdict of what an earlier --json wrote."),
    ] = None,
) -> int | None:
    """Compile kernels for named architectures and judge what the machine code says: registers,
    spills, tensor cores, width of loads. Nothing runs, no time is claimed.

    Exit: 0 pass, 1 a rule is broken or a kernel got worse, 2 usage, 3 nothing judged, 4 unreadable
    baseline.
    """
    from ..compiled import builds
    from ..compiled.census import census
    from . import kernel_builds

    alone(
        {
            "a kernel of your own": bool(own),
            "--inductor": bool(inductor),
            "--stored": stored is not None,
            "--op": op != "*",
            "--all-settings": all_settings,
            "--baseline": baseline is not None,
            "--accept": accept,
        }
    )
    if not own and (signature or warps != WARPS or stages != STAGES):
        raise Misuse(
            "--signature, --warps and --stages go with a kernel of your own: hotlap kernels"
            " package.module:kernel --signature ..."
        )
    if stored is not None:
        if json is not None or target:
            raise Misuse("--stored compiles nothing: it goes with --markdown and --html")
        return kernel_builds.of_stored(stored, markdown, html)
    targets = builds.checked(target or [])
    if inductor:
        if markdown is not None or html is not None:
            raise Misuse("--inductor prints a table and goes with --json")
        census(inductor, targets if target else [CENSUS_TARGET], json)
        return None
    paths = kernel_builds.Paths(json, markdown, html)
    if own:
        return kernel_builds.of_own(own, signature, targets, warps, stages, paths)
    return kernel_builds.of_all(op, targets, all_settings, baseline, accept, paths)


def alone(arguments: Mapping[str, bool]) -> None:
    """Refuses what does not go together: the first three of these names each stand alone, the
    others are about our own operations. Raises Misuse.
    """
    names = [name for name, there in arguments.items() if there]
    if len(names) > 1 and names[0] in list(arguments)[:3]:
        raise Misuse(f"{names[0]} does not go with {', '.join(names[1:])}")
