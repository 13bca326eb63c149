"""`hotlap kernels`: Triton kernels compiled for every architecture and judged, with no GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..compiled.entries import Entry, Failed

    Levels = dict[str, dict[str, int]]


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
    warps: Annotated[int, typer.Option(help="num_warps of your own kernel.", min=1, max=32)] = 4,
    stages: Annotated[int, typer.Option(help="num_stages of your own kernel.", min=1, max=8)] = 2,
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
) -> int:
    """Compile kernels for named architectures and judge what the machine code says: registers,
    spills, tensor cores, width of loads. Nothing runs, no time is claimed.

    Exit: 0 pass, 1 a rule is broken or a kernel got worse, 2 usage, 3 nothing judged, 4 unreadable
    baseline.
    """
    import sys
    from importlib import metadata

    import msgspec

    from ..compiled import builds, custom, rules, table
    from ..reports.output import show
    from ..terms.files import put
    from ..terms.reasons import Misuse
    from ..terms.verdict import read as judged

    version = metadata.version("triton")
    ours = {
        "--op": op != "*",
        "--all-settings": all_settings,
        "--baseline": baseline is not None,
        "--accept": accept,
    }
    alone(
        {
            "a kernel of your own": bool(own),
            "--inductor": bool(inductor),
            "--stored": stored is not None,
            **ours,
        }
    )
    if not own and (signature or warps != 4 or stages != 2):
        raise Misuse(
            "--signature, --warps and --stages go with a kernel of your own: hotlap kernels"
            " package.module:kernel --signature ..."
        )
    if stored is not None:
        if json is not None or target:
            raise Misuse("--stored compiles nothing: it goes with --markdown and --html")
        earlier = table.read(stored)
        if markdown is not None or html is None:
            put(markdown or Path("-"), table.markdown(earlier.kernels, earlier.triton).encode())
        if html is not None:
            put(html, table.page(earlier.kernels, earlier.triton, judged(stored)).encode())
        return earlier.exit_status
    targets = builds.checked(target or [])
    if inductor:
        from ..compiled.census import census

        if markdown is not None or html is not None:
            raise Misuse("--inductor prints a table and goes with --json")
        return census(inductor, targets if target else ["sm_90"], json)
    found: Sequence[Entry | Failed]
    if own:
        before, file, found = None, None, custom.build(own, signature, targets, warps, stages)
    else:
        file = baseline or table.BASELINES / f"triton-{version}.json"
        before = levels(file, required=baseline is not None and not accept)
        ops = builds.operations(op)

        def report(done: int, total: int) -> None:
            if sys.stderr.isatty():
                print(
                    f"\r{done} of {total} compiled",
                    end="" if done < total else "\n",
                    file=sys.stderr,
                    flush=True,
                )

        found = builds.build(ops, targets, report, all_settings)
    chosen = None if before is None else asked_for(before, ops, targets, all_settings)
    verdict = rules.judge(found, chosen, version, ours=not own)
    if json is not None:
        document = {
            **msgspec.to_builtins(verdict),
            "triton": version,
            "kernels": msgspec.to_builtins([entry for entry in found if hasattr(entry, "violations")]),
        }
        put(json, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    if markdown is not None:
        put(markdown, table.markdown(found, version).encode())
    if html is not None:
        put(html, table.page(found, version, verdict).encode())
    if not any(str(path) == "-" for path in (json, markdown, html)):
        print(table.markdown(found, version), end="")
        show(verdict, sys.stdout)
    if not accept or file is None:
        return verdict.exit_status
    if any(finding.kind != "counter" and finding.verdict == "regression" for finding in verdict.findings):
        raise Misuse("not accepted: hard rules are broken")
    store(
        file,
        {
            **{key: value for key, value in (before or {}).items() if key not in (chosen or {})},
            **rules.accepted(found),
        },
    )
    return 0


def alone(given: Mapping[str, bool]) -> None:
    """The first three each stand alone; the others are about our own operations. Raises Misuse."""
    from ..terms.reasons import Misuse

    names = [name for name, there in given.items() if there]
    if len(names) > 1 and names[0] in list(given)[:3]:
        raise Misuse(f"{names[0]} does not go with {', '.join(names[1:])}")


def levels(file: Path, required: bool) -> Levels | None:
    """A baseline, or None where there is none. Raises Unreadable."""
    import msgspec

    from ..terms.reasons import Unreadable

    if not file.exists():
        if required:
            raise Unreadable(f"{file}: there is no such baseline; --accept makes it")
        return None
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, int]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreadable(f"{file}: not a baseline of hotlap kernels: {error}") from None


def asked_for(
    before: Mapping[str, dict[str, int]], ops: Sequence[str], targets: Sequence[str], all_settings: bool
) -> Levels:
    """What of a baseline this run builds again."""
    return {
        key: value
        for key, value in before.items()
        if key.split("/")[1] in ops and key.rpartition("/")[2] in targets and (all_settings or "[" not in key)
    }


def store(file: Path, content: Levels) -> None:
    import msgspec

    from ..terms.files import write

    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, msgspec.json.format(msgspec.json.encode(content, order="deterministic"), indent=1) + b"\n")
