"""Messages between parent and worker: whole or not at all, and never later than asked."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotlap.perf.race.channel import Channel, Closed, Late
from hotlap.perf.race.handle import Worker
from hotlap.perf.race.messages import Done, Preload
from hotlap.perf.terms.reasons import Refusal

Pair = tuple[Channel, Channel]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
)
MESSAGES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=10
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), Channel(theirs)


def framed(message: Any) -> bytes:
    body = msgspec.msgpack.encode(message)
    return struct.pack("!I", len(body)) + body


@given(st.lists(MESSAGES, max_size=5))
@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_messages_arrive_whole_and_in_order(pair: Pair, messages: list[Any]) -> None:
    for message in messages:
        pair[0].send(message)
    assert [pair[1].receive(Any, 1) for _ in messages] == messages


def test_a_message_larger_than_the_sockets_buffer_arrives_whole(pair: Pair) -> None:
    large = {"text": "x" * 5_000_000}
    sender = threading.Thread(target=pair[0].send, args=(large,))
    sender.start()
    assert pair[1].receive(Any, 30) == large
    sender.join()


def test_a_message_that_comes_byte_by_byte_is_put_together(pair: Pair) -> None:
    def trickle() -> None:
        for byte in framed(["one", {"two": 2}]):
            pair[0].end.sendall(bytes([byte]))
            time.sleep(0.001)

    sender = threading.Thread(target=trickle)
    sender.start()
    assert pair[1].receive(Any, 30) == ["one", {"two": 2}]
    sender.join()


@pytest.mark.parametrize("sent", [0, 2, 4, 7])
def test_a_message_that_is_not_whole_in_time_is_late(pair: Pair, sent: int) -> None:
    pair[0].end.sendall(framed("a message")[:sent])
    start = time.monotonic()
    with pytest.raises(Late):
        pair[1].receive(Any, 0.05)
    assert 0.05 <= time.monotonic() - start < 5


def test_a_sender_that_trickles_does_not_put_off_the_deadline(pair: Pair) -> None:
    done = threading.Event()

    def trickle() -> None:
        for byte in framed("x" * 1000):
            pair[0].end.sendall(bytes([byte]))
            if done.wait(0.01):
                return

    sender = threading.Thread(target=trickle)
    sender.start()
    start = time.monotonic()
    try:
        with pytest.raises(Late):
            pair[1].receive(Any, 0.1)
        assert time.monotonic() - start < 5
    finally:
        done.set()
        sender.join()


@pytest.mark.parametrize("sent", [0, 2, 7])
@pytest.mark.parametrize("timeout_s", [None, 5.0])
def test_the_other_sides_end_is_noticed_at_once(pair: Pair, sent: int, timeout_s: float | None) -> None:
    pair[0].end.sendall(framed("a message")[:sent])
    pair[0].close()
    with pytest.raises(Closed):
        pair[1].receive(Any, timeout_s)


def test_what_was_sent_before_the_end_is_still_received(pair: Pair) -> None:
    pair[0].send("last words")
    pair[0].close()
    assert pair[1].receive(Any, 1) == "last words"


def test_an_end_that_left_messages_unread_is_an_end(pair: Pair) -> None:
    """The kernel then answers ECONNRESET instead of an end of file (unix(7))."""
    pair[1].send("never read")
    pair[0].close()
    with pytest.raises(Closed):
        pair[1].receive(Any, 1)


def test_sending_to_the_other_sides_end_is_closed(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(Closed):
        pair[0].send("hello")


def test_descriptors_are_passed_beside_messages(pair: Pair) -> None:
    read, write = os.pipe()
    other = os.open(os.devnull, os.O_RDONLY)
    pair[0].send({"do": "fork"})
    pair[0].send_descriptors([write, other])
    os.close(write)
    os.close(other)
    assert pair[1].receive(Any, 1) == {"do": "fork"}
    passed, null = pair[1].receive_descriptors(2)
    os.write(passed, b"through")
    os.close(passed)
    assert (os.read(read, 100), os.read(read, 100)) == (b"through", b"")
    assert os.fstat(null).st_rdev == os.stat(os.devnull).st_rdev
    os.close(null)
    os.close(read)


def test_the_death_of_the_peer_closes_the_channel_although_another_holds_its_end() -> None:
    ours, theirs = socket.socketpair()
    peer = subprocess.Popen(["sleep", "600"])
    channel = Channel(ours, peer.pid)
    with theirs:
        theirs.sendall(framed("before it died"))
        peer.kill()
        peer.wait()
        assert channel.receive(str, 30) == "before it died"
        with pytest.raises(Closed):
            channel.receive(str, 30)
    channel.close()


def test_descriptors_to_an_end_that_is_gone_close_the_channel(pair: Pair) -> None:
    pair[1].close()
    with pytest.raises(Closed):
        pair[0].send_descriptors([0])


@pytest.mark.parametrize("answer", [["nobody", 1], {"type": "Done"}, 7])
def test_an_answer_that_is_none_ends_the_worker_and_not_the_run(
    answer: Any, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a model forks, and both processes answer."""
    worker, ended = Worker.__new__(Worker), list[bool]()
    worker.channel, worker.log = pair[0], tmp_path / "log.txt"
    monkeypatch.setattr(Worker, "kill", lambda self: ended.append(True))
    pair[1].end.sendall(framed(answer))
    with pytest.raises(Refusal, match="crashed: the answer to preload is none"):
        worker._reply(Preload([]), 30)
    assert ended == [True]


def test_the_answer_to_something_else_is_none(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker.__new__(Worker)
    worker.channel, worker.log = pair[0], tmp_path / "log.txt"
    monkeypatch.setattr(Worker, "kill", lambda self: None)
    pair[1].send(Done(msgspec.msgpack.encode("twice")))
    with pytest.raises(Refusal, match="crashed: the answer to preload is none"):
        worker._reply(Preload([]), 30)
