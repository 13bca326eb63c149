"""The protocol between parent and worker: the list of requests and nothing else."""

from __future__ import annotations

import math
import socket
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from hotlap.perf.lookup.workloads import Reference
from hotlap.perf.race import messages, tasks
from hotlap.perf.race.channel import Channel
from hotlap.perf.race.messages import AnyRequest, Done, Fork, LoadCase, Preload, Refused, Warm
from hotlap.perf.race.worker import answer
from hotlap.perf.terms.case import Case

REQUESTS = get_args(AnyRequest)


def test_every_request_but_a_fork_has_its_method_and_no_method_is_without_one() -> None:
    assert set(tasks.METHODS) == {*REQUESTS} - {Fork}


@pytest.mark.parametrize("request_type", [*tasks.METHODS], ids=lambda kind: kind.__name__)
def test_a_method_takes_its_request_and_returns_the_reply_that_it_names(request_type: Any) -> None:
    hints = get_type_hints(tasks.METHODS[request_type])
    assert hints["request"] is request_type
    assert hints["return"] == request_type.reply()


@pytest.mark.parametrize(
    "request_",
    [
        LoadCase(Reference("w"), Case("w", "eager", options=(("layout", "channels-last"),)), "a", "b", "", 2),
        Warm(0.005, 0.05, math.inf),
        Preload(["torch"]),
    ],
    ids=lambda request: request.name,
)
def test_a_request_arrives_as_it_was_sent(request_: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours).send(request_)
        assert Channel(theirs).receive(AnyRequest, 1) == request_


@pytest.mark.parametrize("sent", [{"type": "do"}, {"type": "Preload"}, {"type": "Warm", "sample_s": "1"}])
def test_what_is_no_request_is_not_taken_for_one(sent: dict[str, str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=AnyRequest)


def test_a_reply_is_decoded_by_the_type_that_its_request_names() -> None:
    done = answer(tasks.Tasks(print), Preload([]))
    assert isinstance(done, Done)
    assert msgspec.msgpack.decode(done.reply, type=Preload.reply()).threads >= 1


def test_a_task_that_fails_is_a_reason_with_the_requests_name() -> None:
    refused = answer(tasks.Tasks(print), Preload(["no_such_module_anywhere"]))
    assert isinstance(refused, Refused)
    assert refused.reason.code == "crashed" and "in preload" in refused.reason.detail
    assert messages.TakeTurn(True).name == "take turn"
