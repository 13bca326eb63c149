"""The parent's side of a worker process: start or fork it, ask it something, stop and continue it,
say how it died, and end all that it left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

from ..machine.box import Box, Hold
from ..terms.reasons import Refusal, room
from . import installed, leavings
from .channel import Channel, Closed, Late
from .leavings import OwnerMark
from .messages import Answer, Done, Fork, Reap, Refused, Reply, Request

# This folder through its import name: three folders above it lie the other packages too
# (hotlap/perf/race, not the perf/race of the repository).
HERE = Path(sys.modules["hotlap"].__path__[0]) / "perf" / "race"


class Worker:
    """One worker process.

    Every request has a deadline; a worker that misses it or dies raises Refusal and is gone.
    """

    def __init__(
        self,
        pid: int,
        channel: Channel,
        log: Path,
        process: subprocess.Popen[bytes] | None = None,
        mark: OwnerMark | None = None,
        server: Worker | None = None,
    ) -> None:
        self.pid, self.channel, self.log = pid, channel, log
        # A process that was started has a mark; one that was forked has its server's.
        self.process, self.mark, self.server = process, mark, server
        self.started = time.time()
        self.gone = False
        # Process ids of the workers that were forked from it and are not gone.
        self.forks: set[int] = set()
        # Names of processes outside its session that ended with it.
        self.strays: list[str] = []
        # What holds it to the size of a box; None without one.
        self.held: Hold | None = None

    @classmethod
    def start(cls, environment: Mapping[str, str], log: Path) -> Worker:
        """A fresh Python in exactly this environment, of another installation if it names one
        (bootstrap.py). Raises Refusal.

        The user's directory is appended to its path by the code that needs it, never prepended
        (-P).
        """
        mark = OwnerMark.new()
        with room():
            mark.folder.mkdir(mode=0o700)
        ours, theirs = socket.socketpair()
        other = environment.get(installed.VARIABLE)
        program = (
            [other, "-P", str(HERE / "bootstrap.py")]
            if other
            else [sys.executable, "-P", "-m", "hotlap.perf.race.worker"]
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output, theirs, closed_unless_used(ours, mark):
            process = subprocess.Popen(
                [*program, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**environment, **mark.variables()},
                start_new_session=True,
            )
        return cls(process.pid, Channel(ours, process.pid), log, process, mark)

    def fork(self, log: Path, timeout_s: float) -> Worker:
        """A worker forked from this one, which has done nothing but imports. Raises Refusal."""
        ours, theirs = socket.socketpair()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output, theirs, closed_unless_used(ours):
            self._send(request := Fork(), [theirs.fileno(), output.fileno()])
            pid = self._reply(request, timeout_s)
        self.forks.add(pid)
        forked = Worker(pid, Channel(ours, pid), log, server=self)
        forked.strays += self.strays
        return forked

    def ask(
        self, request: Request[Reply], timeout_s: float, report: Callable[[str], None] | None = None
    ) -> Reply:
        """The worker's reply; `report` gets the lines that it tells meanwhile.

        Raises Refusal: its own reason, timeout, or crashed with how it ended.
        """
        self._send(request)
        return self._reply(request, timeout_s, report)

    def hold(self, box: Box) -> None:
        """Holds it, and all that it starts, to the box's size. Raises Refusal."""
        try:
            self.held = box.put(self.pid)
        except ProcessLookupError:
            raise self._death("its start") from None
        except OSError as error:
            raise Refusal("crashed", f"the worker cannot be put into the box: {error}") from error

    def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def go(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> int | None:
        """Ends the worker and all that it left; returns how it ended, where that can be known.

        Where a Ctrl-C cuts it short, the next call does it again.
        """
        if self.gone:
            return None
        self.stop()
        family = self._family()
        pids = [self.pid, *(process.pid for process in family)]
        segments = leavings.shared_memory(pids, self.started)
        if leavings.outside(self.pid, family):
            self.strays += leavings.end(lambda: leavings.outside(self.pid, self._family()))
        self._signal(signal.SIGKILL)
        self.channel.close()
        ended = self._reaped()
        leavings.release(segments)
        if self.held is not None:
            self.held.close()
        if self.mark is not None:
            shutil.rmtree(self.mark.folder, ignore_errors=True)
        self.gone = True
        return ended

    def note_strays(self) -> None:
        """Notes what its imports started outside its session, which its forks run beside."""
        self.strays = leavings.names(leavings.outside(self.pid, leavings.below(self.pid)))

    def sweep(self) -> None:
        """Ends what this server adopted: what a fork that died by itself had left."""
        leavings.end(lambda: leavings.outside(self.pid, self._adopted()))

    def _family(self) -> list[psutil.Process]:
        """All that descends from the worker, and what is known by its mark."""
        return [*leavings.below(self.pid), *(self.mark.processes() if self.mark is not None else [])]

    def _adopted(self) -> list[psutil.Process]:
        """All that descends from this server but its forks and what is theirs."""
        theirs = {process.pid for fork in self.forks for process in leavings.below(fork)} | self.forks
        return [process for process in leavings.below(self.pid) if process.pid not in theirs]

    def _reaped(self) -> int | None:
        """Waits for the killed process; returns how it ended, where that can be known."""
        if self.process is not None:
            return self.process.wait()
        assert self.server is not None
        self.server.forks.discard(self.pid)
        if self.server.gone:
            return None
        try:
            return self.server.ask(Reap(self.pid), 10)
        except Refusal:
            return None

    def _send(self, request: Request[Any], descriptors: list[int] | None = None) -> None:
        try:
            self.channel.send(request)
            if descriptors is not None:
                self.channel.send_descriptors(descriptors)
        except Closed:
            raise self._death(request.name) from None

    def _reply(
        self, request: Request[Reply], timeout_s: float, report: Callable[[str], None] | None = None
    ) -> Reply:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                answer: Answer = self.channel.receive(Answer, max(0.0, deadline - time.monotonic()))
            except Late:
                self.kill()
                raise Refusal(
                    "timeout",
                    f"no answer from {request.name} within {timeout_s:.0f} s; the worker was ended; raise"
                    f" --timeout or look at {self.log.name}",
                ) from None
            except Closed:
                raise self._death(request.name) from None
            except msgspec.DecodeError:
                raise self._babble(request.name) from None
            if isinstance(answer, Refused):
                raise Refusal(answer.reason.code, answer.reason.detail)
            if isinstance(answer, Done):
                try:
                    reply: Reply = msgspec.msgpack.decode(answer.reply, type=request.reply())
                except msgspec.DecodeError:
                    raise self._babble(request.name) from None
                return reply
            if report is not None:
                report(answer.line)

    def _babble(self, task: str) -> Refusal:
        """Ends a worker whose answer is none to what was asked."""
        self.kill()
        return Refusal(
            "crashed",
            f"the answer to {task} is none: a process that the model forked may write to this channel;"
            f" see {self.log.name}",
        )

    def _death(self, task: str) -> Refusal:
        """Waits briefly for the end of a worker that closed its channel, and names the signal."""
        ended: int | None = None
        if self.process is not None:
            try:
                ended = self.process.wait(5)
            except subprocess.TimeoutExpired:
                ended = None
        overfull = self.held is not None and self.held.ended_it()
        killed = self.kill()
        ended = killed if ended is None else ended
        if self.server is not None and not self.server.gone:
            self.server.sweep()
        last = self._last_line()
        if overfull and self.held is not None:
            return Refusal(
                "oom", f"{task} needs more memory than the box has ({self.held.size.words}); enlarge --box"
            )
        if ended is None and self.server is not None and self.server.gone:
            return Refusal(
                "crashed",
                f"the worker died in {task}, since the process that it was forked from was ended (by hand, or"
                " by the kernel out of memory); run again with --resume",
            )
        if ended == -signal.SIGKILL:
            return Refusal(
                "crashed",
                f"the worker was killed in {task} (SIGKILL: by hand, or by the kernel out of memory); run"
                " again with --resume",
            )
        how = (
            f"signal {signal.Signals(-ended).name}"
            if ended is not None and -64 < ended < 0
            else f"exit status {ended}"
            if ended is not None
            else "unknown end"
        )
        return Refusal(
            "crashed", f"the worker died in {task} ({how}){': ' + last if last else ''}; see {self.log.name}"
        )

    def _last_line(self) -> str:
        try:
            lines = self.log.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1][:200] if lines else ""

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


@contextlib.contextmanager
def closed_unless_used(end: socket.socket, mark: OwnerMark | None = None) -> Iterator[None]:
    """Closes our end of a worker's socket pair where there will be no worker, also for a Ctrl-C,
    and ends what has its mark.
    """
    try:
        yield
    except BaseException:
        end.close()
        if mark is not None:
            leavings.end(mark.processes)
            shutil.rmtree(mark.folder, ignore_errors=True)
        raise
