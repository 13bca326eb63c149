"""`hotlap kernels`: what the compiler makes of our Triton kernels on every architecture, with no GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def kernels(
    target: Annotated[list[str] | None, typer.Option(help="An architecture, may be given several times. Default: all that are known.")] = None,
    op: Annotated[str, typer.Option(help="Operations whose name matches, such as '*norm'.")] = "*",
    baseline: Annotated[Path | None, typer.Option(help="Registers and instructions to judge against. Default: kernels/baselines/ of this Triton version.")] = None,
    accept: Annotated[bool, typer.Option("--accept", help="Make what was built the baseline, if no hard rule is broken.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the verdict and every figure; - is stdout.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table; - is stdout.")] = None,
    stored: Annotated[Path | None, typer.Option(help="Compile nothing: the table and the verdict of what an earlier --json wrote.")] = None,
) -> int:
    """Compile our kernels for named architectures and judge what the machine code says: registers, spills, tensor cores, width of loads. Nothing runs, no time is claimed.

    Exit: 0 pass, 1 a rule is broken or a kernel got worse, 2 usage, 3 nothing judged, 4 unreadable baseline.
    """
    import sys
    from importlib import metadata

    import msgspec

    from . import kernel_builds, kernel_rules, kernel_table
    from .reasons import Misuse
    from .result import write
    from .verdict import Unreadable
    from .verdict_output import put, show

    version = metadata.version("triton")
    if stored is not None:
        earlier = kernel_table.read(stored)
        put(markdown or Path("-"), kernel_table.markdown(earlier.kernels, earlier.triton).encode())
        return earlier.exit_status
    file = baseline or kernel_table.BASELINES / f"triton-{version}.json"
    before = None
    if file.exists():
        try:
            before = msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, int]])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreadable(f"{file}: not a baseline of hotlap kernels: {error}") from None
    elif baseline is not None and not accept:
        raise Unreadable(f"{file}: there is no such baseline; --accept makes it")
    ops, targets = kernel_builds.operations(op), kernel_builds.checked(target or [])

    def report(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} compiled", end="" if done < total else "\n", file=sys.stderr, flush=True)

    found = kernel_builds.build(ops, targets, report)
    chosen = None if before is None else {key: value for key, value in before.items() if key.split("/")[1] in ops and key.rpartition("/")[2] in targets}
    verdict = kernel_rules.judge(found, chosen, version)
    if json is not None:
        document = {**msgspec.to_builtins(verdict), "triton": version, "kernels": msgspec.to_builtins([entry for entry in found if hasattr(entry, "violations")])}
        put(json, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    if markdown is not None:
        put(markdown, kernel_table.markdown(found, version).encode())
    if not any(str(path) == "-" for path in (json, markdown)):
        print(kernel_table.markdown(found, version), end="")
        show(verdict, sys.stdout)
    if accept:
        if any(finding.kind != "counter" and finding.verdict == "regression" for finding in verdict.findings):
            raise Misuse("not accepted: hard rules are broken")
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file, msgspec.json.format(msgspec.json.encode({**(before or {}), **kernel_rules.accepted(found)}, order="deterministic"), indent=1) + b"\n")
        return 0
    return verdict.exit_status
