"""Signals that ask hotlap to end: what Ctrl-C keeps is kept by all of them.

`timeout 60 hotlap run` and a cancelled CI job send SIGTERM, a closed terminal SIGHUP; a process
that dies of them at once writes no result and ends no worker.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """Raised in place of a KeyboardInterrupt by a command that can say what it keeps and how to go
    on: the message is one line.
    """


def listen(received: list[int]) -> None:
    """Turns these signals into a KeyboardInterrupt and adds their numbers to `received`, since a
    library may turn the exception into another of its own.

    After the first, while all is put in order, only a second Ctrl-C is heard. A signal that is
    ignored (nohup) stays so.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        for other in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in ASKING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
