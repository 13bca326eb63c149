"""`hotlap doctor`: what this machine has, what can run on it and what not and why, how fast it can
be, and how noisy it is right now.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..terms.reasons import Misuse

# The two generations of data-centre GPUs that most clouds rent out.
LADDER_TARGETS = "sm_80,sm_89"


def doctor(
    workload: Annotated[
        list[str] | None,
        typer.Argument(help="With --ladder: model names or package.module:function. Default: every model."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long to listen to the machine's noise.", min=1.0)] = 5.0,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "--device",
            help=(
                f"cpu or cuda:N; with --ladder comma-separated, such as {LADDER_TARGETS}, the default there."
            ),
        ),
    ] = "",
    ladder: Annotated[
        bool,
        typer.Option(
            "--ladder",
            help=(
                "How far each model gets with each backend and precision on GPUs that are not here, and by"
                " what proof."
            ),
        ),
    ] = False,
    backends: Annotated[str, typer.Option(help="With --ladder: comma-separated. Default: all.")] = "",
    precisions: Annotated[str, typer.Option(help="With --ladder: comma-separated.")] = "fp32,fp16,bf16,int8",
    json: Annotated[
        Path | None, typer.Option(help="With --ladder: write it as JSON to this file; - is stdout.")
    ] = None,
) -> None:
    """Check the machine: devices, libraries, backends, peaks, noise.

    With --ladder: what can be proven here of GPUs that are not.
    """
    from .lists import split

    if ladder:
        from .ladder import climb

        climb(workload or [], split(backends), split(precisions), split(target or LADDER_TARGETS), json)
        return
    if workload or backends or json is not None:
        raise Misuse("models, --backends and --json go with hotlap doctor --ladder")
    from .machine_tables import show_machine

    show_machine(seconds, target or "cpu")
