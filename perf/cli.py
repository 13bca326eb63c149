"""The command `hotlap`: how it ends.

Exit: 0 fine, 1 regression, 2 usage, 3 inconclusive, 4 nothing measured or unreadable, 70 our own
fault, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP. A verdict's status is known before it is printed, and
stays, whatever becomes of the printing (terms/printer.py).

All else is imported inside: Ctrl-C and an import that fails have a status too, and 1 is a
regression and nothing else.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from typing import NoReturn

from .race.interrupts import Stopped, listen
from .terms import printer

# What a command shows and nothing else could not be shown: as for a file that cannot be written.
UNWRITABLE = 2
# EX_SOFTWARE of sysexits.h: an internal error.
OUR_FAULT = 70
# Numbers of the signals so far that asked the command to end.
received: list[int] = []


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command line and exits the process with its status."""
    printer.stand()
    listen(received)
    code = status(sys.argv[1:] if arguments is None else arguments)
    if received:
        # A second Ctrl-C ends the process at once. Where the first came during the exec of a text,
        # Python would end by the signal, whatever the status; it forgets that at the next exec.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        exec("")
    code = 128 + received[0] if received else code  # as a shell has it
    if sys.flags.inspect:
        # PYTHONINSPECT or -i: a prompt would follow, and its end is always 1, or 0.
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def status(arguments: list[str]) -> int:
    """Runs the command line and returns what the process exits with.

    Every error is one line; a traceback is shown only for our own faults.
    """
    code: int | None
    try:
        code = outcome(arguments)
    except (KeyboardInterrupt, SystemExit, Exception) as error:
        code = ended_by(error)
    lost = printer.failure()
    if lost is None or isinstance(lost, BrokenPipeError):  # `| head` has seen enough
        return code or 0
    printer.note(f"hotlap: cannot write to stdout: {lost.strerror}")
    return UNWRITABLE if code is None else code


def ended_by(error: BaseException) -> int:
    """Says what ended a command that did not end by itself, and returns the exit status."""
    if received or isinstance(error, KeyboardInterrupt):
        printer.note("")
        kept = str(error) if isinstance(error, Stopped) else "interrupted; what was measured is kept"
        printer.note(f"hotlap: {kept}")
        return 128 + (received[0] if received else signal.SIGINT)
    import traceback

    for text in "".join(traceback.format_exception(error)).splitlines():
        printer.note(text)
    printer.note("hotlap: this is our own fault, please report it with the lines above")
    return OUR_FAULT


def outcome(arguments: list[str]) -> int | None:
    """Runs the command line and returns the command's exit status; None where it only shows
    something, and has.
    """
    import typer

    from .commands.application import app
    from .terms.reasons import Misuse

    try:
        with typer.main.get_command(app()).make_context("hotlap", with_latest(arguments)) as context:
            code = context.command.invoke(context)
            return None if code is None else int(code)
    except Misuse as error:
        printer.note(f"hotlap: {error}")
        return error.exit_code
    except typer.Exit as asked:
        return asked.exit_code or None
    except typer.TyperException as error:
        printer.note(f"hotlap: {error.format_message()}; see hotlap --help")
        return 2
    except typer.Abort:
        raise KeyboardInterrupt from None


def with_latest(arguments: list[str]) -> list[str]:
    """Returns the arguments with `latest` behind a --resume that stands without an ID, of commands
    where it may have one.
    """
    if arguments[:1] == ["experiment"]:
        return arguments
    words = []
    for index, word in enumerate(arguments):
        words.append(word)
        if word == "--resume" and (index + 1 == len(arguments) or arguments[index + 1].startswith("-")):
            words.append("latest")
    return words


if __name__ == "__main__":
    main()
