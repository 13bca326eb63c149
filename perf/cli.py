"""The command `hotlap`.

Commands import what they need when they run, so that help is there at once.

Exit: 0 fine, 1 regression, 2 usage, 3 inconclusive, 4 nothing measured or unreadable, 70 our own
fault, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

from __future__ import annotations

import os
import sys
import traceback
from importlib import metadata

import typer

import hotlap

from .commands.ab import ab
from .commands.bench_artefact import bench_artefact
from .commands.doctor import doctor
from .commands.gate import gate
from .commands.history import history
from .commands.kernels import kernels
from .commands.noise import noise
from .commands.report import report
from .commands.run import run
from .race.interrupts import listen
from .terms.reasons import Misuse

# EX_SOFTWARE of sysexits.h: an internal error.
OUR_FAULT = 70


def app() -> typer.Typer:
    """Returns the command line: the commands of perf, and those that other packages add through the
    entry point group `hotlap.commands`.
    """
    application = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=hotlap.__doc__,
    )
    for command in (run, ab, gate, history, noise, kernels, doctor, report, bench_artefact):
        application.command()(command)
    for point in metadata.entry_points(group="hotlap.commands"):
        try:
            command = point.load()
        except Exception as error:  # another package's fault must not take our own commands away
            print(
                f"hotlap: command {point.name} ({point.value}) cannot be loaded: {type(error).__name__}:"
                f" {error}",
                file=sys.stderr,
            )
        else:
            application.command(point.name)(command)
    application.callback(invoke_without_command=True)(version)
    return application


def version(
    context: typer.Context, show: bool = typer.Option(False, "--version", help="Print the version and exit.")
) -> None:
    if show:
        print(metadata.version("hotlap"))
    elif context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits the process with its status."""
    received: list[int] = []
    listen(received)
    try:
        code = status(sys.argv[1:] if arguments is None else arguments)
    except (KeyboardInterrupt, SystemExit):
        if not received:
            raise
    # As a shell has it.
    sys.exit(128 + received[0] if received else code)


def status(arguments: list[str]) -> int:
    """Runs the command line and returns what the process exits with.

    Every error is one line; a traceback is shown only for our own faults.
    """
    try:
        return int(app()(with_latest(arguments), standalone_mode=False) or 0)
    except Misuse as error:
        print(f"hotlap: {error}", file=sys.stderr)
        return error.exit_code
    except typer.Exit as asked:
        return asked.exit_code
    except typer.TyperException as error:
        print(f"hotlap: {error.format_message()}; see hotlap --help", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        print("\nhotlap: interrupted; what was measured is kept", file=sys.stderr)
        return 130
    except (BrokenPipeError, SystemExit) as error:
        # Typer turns EPIPE into SystemExit(1), which would be a regression. What is left in the
        # buffer goes nowhere, or Python exits with 120.
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        traceback.print_exc()
        print("hotlap: this is our own fault, please report it with the lines above", file=sys.stderr)
        return OUR_FAULT


def with_latest(arguments: list[str]) -> list[str]:
    """Returns the arguments with `latest` behind a --resume that stands without an ID."""
    words = []
    for index, word in enumerate(arguments):
        words.append(word)
        if word == "--resume" and (index + 1 == len(arguments) or arguments[index + 1].startswith("-")):
            words.append("latest")
    return words


if __name__ == "__main__":
    main()
