"""A worker process.

`python -P -m hotlap.perf.race.worker DESCRIPTOR` runs one entrant of one block, or a fork server
for such.

It answers one message after another and is stopped by its parent whenever it is not its turn. It
dies with its parent, and adopts what its children leave (leavings.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import traceback
from typing import Any

import msgspec

from ..machine.memory import exhausted
from ..terms.reasons import Reason, Refusal, full
from . import layout, origin
from .channel import Channel, Closed
from .messages import Answer, AnyRequest, Done, Fork, Line, Refused
from .tasks import Tasks

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    settle(os.getppid())
    origin.enter()
    serve(Channel(socket.socket(fileno=int(sys.argv[1]))))


def settle(parent: int) -> None:
    """Has the kernel kill this process with its parent, which a stopped worker would outlive for
    ever, and give it the orphans of its children (prctl(2)).
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def serve(channel: Channel) -> None:
    """Answers until the parent is gone. A fork goes on with its own channel."""
    tasks = Tasks(report=lambda line: channel.send(Line(line)))
    while True:
        try:
            request: AnyRequest = channel.receive(AnyRequest)
        except Closed:
            return
        if not isinstance(request, Fork):
            channel.send(answer(tasks, request))
        elif (own := fork(channel)) is not None:
            serve(own)
            return


def answer(tasks: Tasks, request: AnyRequest) -> Answer:
    """The reply, or the reason why there is none: the parent learns it, the log keeps the
    traceback.
    """
    try:
        return done(tasks.do(request))
    except Refusal as refusal:
        log()
        return Refused(refusal.reason)
    except Exception as error:  # a library may raise anything; the case's result carries it
        log()
        if (reason := full(error)) is not None:
            return Refused(reason)
        text = " ".join(str(error).split())[:300]
        if exhausted(error):
            return Refused(Reason("oom", f"out of memory in {request.name}: {text}; use a smaller batch"))
        return Refused(Reason("crashed", f"{type(error).__name__} in {request.name}: {text}"))


def done(reply: Any) -> Done:
    return Done(msgspec.Raw(msgspec.msgpack.encode(reply)))


def log() -> None:
    """The traceback, where the disk has room for it: its reason must arrive without it too."""
    with contextlib.suppress(OSError):
        traceback.print_exc()


def fork(channel: Channel) -> Channel | None:
    """In the fork server: starts a worker whose channel and log come with the message.

    Returns the new channel in the child, None here.
    """
    end, log = channel.receive_descriptors(2)
    server = os.getpid()
    child = os.fork()
    if child == 0:
        channel.close()
        os.setsid()
        settle(server)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.close(log)
        layout.move()
        return Channel(socket.socket(fileno=end))
    os.close(end)
    os.close(log)
    channel.send(done(child))
    return None


if __name__ == "__main__":
    main()
