"""Structs between the parent and a worker: length-prefixed MessagePack over a socket pair, which
keeps NaN and infinity, and file descriptors for a fork.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from typing import Any

import msgspec


class Closed(Exception):
    """The other side is gone."""


class Late(Exception):
    """No whole message before the deadline."""


class Channel:
    """One end of the socket pair.

    peer: the process at the other end, whose death closes the channel even where a child of its
    has inherited that end.
    """

    def __init__(self, end: socket.socket, peer: int | None = None) -> None:
        self.end = end
        self.peer = None if peer is None else _descriptor(peer)

    def send(self, message: msgspec.Struct) -> None:
        """Raises Closed."""
        body = msgspec.msgpack.encode(message)
        try:
            self.end.sendall(struct.pack("!I", len(body)) + body)
        except OSError as error:
            raise Closed from error

    def receive(self, kind: Any, timeout_s: float | None = None) -> Any:
        """The next message, a struct of this kind; blocks without spinning.

        Raises Closed, or Late after timeout_s.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        (length,) = struct.unpack("!I", self._exactly(4, deadline))
        return msgspec.msgpack.decode(self._exactly(length, deadline), type=kind)

    def send_descriptors(self, descriptors: list[int]) -> None:
        """Raises Closed."""
        try:
            socket.send_fds(self.end, [b"."], descriptors)
        except OSError as error:
            raise Closed from error

    def receive_descriptors(self, most: int) -> list[int]:
        return list(socket.recv_fds(self.end, 1, most)[1])

    def close(self) -> None:
        self.end.close()
        if self.peer is not None:
            os.close(self.peer)
            self.peer = None

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        chunks = b""
        while len(chunks) < count:
            if deadline is not None:
                self._wait(deadline)
            try:
                chunk = self.end.recv(min(count - len(chunks), 1 << 20))
            except OSError as error:
                raise Closed from error
            if not chunk:
                raise Closed
            chunks += chunk
        return chunks

    def _wait(self, deadline: float) -> None:
        """Returns when there is something to receive. Raises Late, or Closed without the peer."""
        ends: list[socket.socket | int] = [self.end, *([] if self.peer is None else [self.peer])]
        try:
            ready = select.select(ends, [], [], max(0.0, deadline - time.monotonic()))[0]
        except (OSError, ValueError) as error:
            raise Closed from error
        if not ready:
            raise Late
        # What a process sent before it died is received first.
        if self.end not in ready and not select.select([self.end], [], [], 0)[0]:
            raise Closed


def _descriptor(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends (pidfd_open(2), Linux 5.3)."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
