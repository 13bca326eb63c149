"""All commands of hotlap as one command line."""

from __future__ import annotations

from importlib import metadata

import typer

import hotlap

from ..terms import printer
from .ab import ab
from .bench_artefact import bench_artefact
from .doctor import doctor
from .gate import gate
from .history import history
from .kernels import kernels
from .noise import noise
from .optimize import optimize
from .report import report
from .run import run
from .upgrade import upgrade
from .verdict import verdict


def app() -> typer.Typer:
    """Returns the command line: the commands of perf, and those that other packages add through the
    entry point group `hotlap.commands`.

    A command returns its exit status, or None where it only shows something.
    """
    application = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=hotlap.__doc__,
    )
    for command in (
        optimize,
        run,
        ab,
        upgrade,
        gate,
        history,
        noise,
        kernels,
        doctor,
        report,
        verdict,
        bench_artefact,
    ):
        application.command()(command)
    for point in metadata.entry_points(group="hotlap.commands"):
        try:
            command = point.load()
        except Exception as error:  # another package's fault must not take our own commands away
            printer.note(
                f"hotlap: command {point.name} ({point.value}) cannot be loaded: {type(error).__name__}:"
                f" {error}"
            )
        else:
            application.command(point.name)(command)
    application.callback(invoke_without_command=True)(version)
    return application


def version(
    context: typer.Context, show: bool = typer.Option(False, "--version", help="Print the version and exit.")
) -> None:
    if show:
        printer.line(metadata.version("hotlap"))
    elif context.invoked_subcommand is None:
        for text in context.get_help().split("\n"):
            printer.line(text)
