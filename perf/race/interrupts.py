"""Signals that ask hotlap to end: what Ctrl-C keeps is kept by all of them.

`timeout 60 hotlap run` and a cancelled CI job send SIGTERM, a closed terminal SIGHUP; a process
that dies of them at once writes no result and ends no worker.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def status(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit status: 128 and the number of the signal that ended it,
    as a shell has it.

    The first signal is a KeyboardInterrupt in the command; while that puts all in order, only a
    second Ctrl-C is heard. A signal that is ignored (nohup) stays so.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in ASKING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        code = command()
    except (KeyboardInterrupt, SystemExit):
        if not received:
            raise
    return 128 + received[0] if received else code
