"""From a file's bytes to its events, a piece at a time: gzip or not by content, with what stands
around the array of events, and with what is damaged.

A piece ends at a border between events, which is found by trying: the parser accepts only what is
whole. Where it accepts nothing, events are cut out by their braces and read one by one, so that one
bad number costs one event at most.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ...perf.terms.reasons import Unreadable
from .trace import Damage

PIECE = 4 << 20
READ = 1 << 20
TRIES = 32
HEAD = 64 << 20
START = re.compile(rb'"traceEvents"\s*:\s*\[')
OFFSET = re.compile(r"byte (\d+)")
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[{}\[\]]', re.DOTALL)
# What other writers put into JSON and JSON has no word for.
FOREIGN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[-+]?\b(?:nan|inf(?:inity)?)\b', re.DOTALL | re.IGNORECASE)
CONTROL = re.compile(rb"[\x00-\x1f]")
ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})?')


NOTHING = msgspec.Raw(b"null")


class Arguments(msgspec.Struct, gc=False):
    """What of an event's args is read: values of whatever type the file has, or their text where
    only the text counts.
    """

    correlation: Any = None
    stream: Any = None
    device: Any = None
    bytes: Any = None
    external: Any = msgspec.field(name="External id", default=None)
    external_old: Any = msgspec.field(name="external id", default=None)
    node: Any = msgspec.field(name="graph node id", default=None)
    collective: Any = msgspec.field(name="Collective name", default=None)
    elements: Any = msgspec.field(name="In msg nelems", default=None)
    group: msgspec.Raw = msgspec.field(name="Process Group Ranks", default=NOTHING)
    group_name: msgspec.Raw = msgspec.field(name="Process Group Name", default=NOTHING)
    blocks: msgspec.Raw = msgspec.field(name="blocks per SM", default=NOTHING)
    warps: msgspec.Raw = msgspec.field(name="warps per SM", default=NOTHING)
    occupancy: msgspec.Raw = msgspec.field(name="est. achieved occupancy %", default=NOTHING)
    grid: msgspec.Raw = NOTHING
    block: msgspec.Raw = NOTHING
    dims: msgspec.Raw = msgspec.field(name="Input Dims", default=NOTHING)
    types: msgspec.Raw = msgspec.field(name="Input type", default=NOTHING)
    concrete: msgspec.Raw = msgspec.field(name="Concrete Inputs", default=NOTHING)
    allocated: Any = msgspec.field(name="Bytes", default=None)
    total: Any = msgspec.field(name="Total Allocated", default=None)
    device_type: Any = msgspec.field(name="Device Type", default=None)
    device_id: Any = msgspec.field(name="Device Id", default=None)
    name: Any = None
    labels: Any = None
    provider: Any = None
    op_name: Any = None


class Event(msgspec.Struct, gc=False):
    """ts, dur: as their text, since a double cannot hold them."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")
    pid: Any = None
    tid: Any = None
    args: Arguments | None = None


class Loose(msgspec.Struct):
    """An event as others may write it."""

    ph: Any = ""
    cat: Any = ""
    name: Any = ""
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")
    pid: Any = None
    tid: Any = None
    args: msgspec.Raw = NOTHING


One = TypeVar("One")
MANY = msgspec.json.Decoder(list[Event])
TEXTS = msgspec.json.Decoder(list[msgspec.Raw])
ONE = msgspec.json.Decoder(Event)
LOOSE = msgspec.json.Decoder(Loose)
ARGUMENTS = msgspec.json.Decoder(Arguments)


class Events:
    """Iterate once for lists of events; `header` and `damage` are whole afterwards.

    bare: the file is the list alone. Raises Unreadable where there is no array of events.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.damage, self.bare = path, Damage(), False
        self.header: dict[str, Any] = {}

    def __iter__(self) -> Iterator[list[Event]]:
        return self.read(MANY, self.alone)

    def texts(self) -> Iterator[list[msgspec.Raw]]:
        """The events as their text, mended where they must be, instead."""
        return self.read(TEXTS, self.text_alone)

    def read(
        self, many: msgspec.json.Decoder[list[One]], alone: Callable[[bytes], One | None]
    ) -> Iterator[list[One]]:
        source = self.text()
        buffer = bytearray()
        head = self.skip_head(source, buffer)
        ended, enough = False, PIECE
        for more in source:
            buffer += more
            if len(buffer) >= enough:
                events, used, ended = some(buffer, False, many) or self.slowly(buffer, alone)
                del buffer[:used]
                enough = (
                    PIECE if used else 2 * len(buffer)
                )  # one event larger than a piece: not tried again with each megabyte
                yield events
                if ended:
                    break
        if not ended:
            events, used, ended = some(buffer, True, many) or self.slowly(buffer, alone)
            del buffer[:used]
            yield events
        if not ended:
            self.damage.cut = True
        for more in source:
            buffer += more[: max(0, HEAD - len(buffer))]
        self.read_header(head, bytes(buffer))

    def text(self) -> Iterator[bytes]:
        """The file's bytes, unpacked if they are gzip's."""
        with self.path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            if start != b"\x1f\x8b":
                while piece := file.read(READ):
                    yield piece
                return
            unpack = zlib.decompressobj(wbits=31)
            while piece := file.read(READ):
                while piece:
                    before = unpack.copy()
                    try:
                        yield unpack.decompress(piece, READ)
                    except zlib.error as error:
                        self.damage.cut = True
                        self.damage.notes[f"the gzip stream is damaged: {error}"] = None
                        yield from up_to_the_damage(before, piece)
                        return
                    piece = unpack.unconsumed_tail
                    if unpack.eof:
                        piece = unpack.unused_data
                        if piece:
                            unpack = zlib.decompressobj(wbits=31)
            if not unpack.eof:
                self.damage.cut = True
                self.damage.notes["the gzip stream ends too early"] = None
                yield unpack.flush()

    def skip_head(self, source: Iterator[bytes], buffer: bytearray) -> bytes:
        """Everything before the first event; the buffer begins with what comes after."""
        for more in source:
            buffer += more
            if (start := buffer.lstrip()[:1]) == b"[":
                self.bare, skipped = True, buffer.index(b"[") + 1
                del buffer[:skipped]
                return b""
            if found := START.search(buffer):
                head = bytes(buffer[: found.end()])
                del buffer[: found.end()]
                return head
            if start and start != b"{":
                break
            if len(buffer) > HEAD:
                break
        raise Unreadable(refusal(self.path, bytes(buffer[:4096])))

    def slowly(self, buffer: bytearray, alone: Callable[[bytes], One | None]) -> tuple[list[One], int, bool]:
        """Events cut out by their braces, each read alone."""
        events: list[One] = []
        depth = start = used = 0
        for token in TOKEN.finditer(buffer):
            text = token[0]
            if text in (b"{", b"["):
                if depth == 0:
                    start = token.start()
                depth += 1
            elif text in (b"}", b"]"):
                if depth == 0:
                    if text == b"]":
                        self.note_trailing_comma(buffer, token.start())
                        return events, token.end(), True
                    continue
                depth -= 1
                if depth == 0:
                    used = token.end()
                    if (event := alone(bytes(buffer[start:used]))) is not None:
                        events.append(event)
        return events, used, False

    def note_trailing_comma(self, buffer: bytearray, end: int) -> None:
        if bytes(buffer[max(0, end - 256) : end]).rstrip().endswith(b","):
            self.damage.notes["a comma stands after the last event"] = None

    def alone(self, text: bytes) -> Event | None:
        """One event, repaired if it must be; None and counted if nothing helps."""
        try:
            return ONE.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        if (loose := self.mended(text)) is None:
            return None
        try:
            arguments = ARGUMENTS.decode(loose.args)
        except msgspec.ValidationError:
            arguments = None
        return Event(
            str(loose.ph),
            str(loose.cat),
            str(loose.name),
            loose.ts,
            loose.dur,
            loose.pid,
            loose.tid,
            arguments,
        )

    def text_alone(self, text: bytes) -> msgspec.Raw | None:
        try:
            ONE.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None if self.mended(text) is None else msgspec.Raw(mended(text))
        return msgspec.Raw(text)

    def mended(self, text: bytes) -> Loose | None:
        if (better := mended(text)) != text:
            self.damage.notes[
                "some events hold what JSON has no word for (NaN, raw control characters, bad escapes):"
                " mended"
            ] = None
        try:
            return LOOSE.decode(better)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.damage.lost[re.sub(r" \(byte \d+\)", "", str(error))] += 1
            return None

    def read_header(self, head: bytes, tail: bytes) -> None:
        """What stood before and after the array."""
        if not head:
            return
        for text in (head + b"]" + tail, head + b"]" + tail.rstrip().rstrip(b",") + b"}", head + b"]}"):
            try:
                found = msgspec.json.decode(mended(text))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(found, dict):
                found.pop("traceEvents", None)
                self.header = found
                return
        self.damage.notes["what stands around the events cannot be read: the device is unknown"] = None


def some(
    buffer: bytearray, last: bool, many: msgspec.json.Decoder[list[One]]
) -> tuple[list[One], int, bool] | None:
    """Events from the front of the buffer, how many bytes they took, and whether the array ended
    there; None where they cannot be read together.
    """
    end = len(buffer)
    for _ in range(TRIES):
        if last:
            text, used = b"[" + buffer, len(buffer)
        else:
            end = buffer.rfind(b"}", 0, end)
            if end < 0:
                return None
            follows = buffer[end + 1 : end + 64]
            if not follows.lstrip().startswith(b","):
                continue
            text, used = b"[" + buffer[: end + 1] + b"]", end + 2 + follows.index(b",")
        try:
            return many.decode(text), used, last
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = str(error)
        if "trailing characters" in why and (found := OFFSET.search(why)):
            used = int(found[1]) - 1
            try:
                return many.decode(b"[" + buffer[:used]), used, True
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None
        if last or not why.startswith("JSON is malformed"):
            return None
    return None


def mended(text: bytes) -> bytes:
    """As JSON has it:

    NaN and infinity are null, control characters and bad escapes within strings are escaped, bytes
    that are no UTF-8 replaced.
    """

    def better(token: re.Match[bytes]) -> bytes:
        if token[0][:1] != b'"':
            return b"null"
        escaped = ESCAPE.sub(lambda one: one[0] if len(one[0]) > 1 else b"\\\\", token[0])
        return CONTROL.sub(lambda bad: b"\\u%04x" % bad[0][0], escaped)

    return FOREIGN.sub(better, text).decode(errors="replace").encode()


def up_to_the_damage(unpack: Any, piece: bytes) -> Iterator[bytes]:
    """What a decompressor gives of a damaged piece, byte by byte: an error takes all that its call
    had unpacked.
    """
    try:
        for at in range(len(piece)):
            yield unpack.decompress(piece[at : at + 1])
    except zlib.error:
        return


def refusal(path: Path, start: bytes) -> str:
    """Why this is no trace, by what it begins with."""
    if not start.strip():
        return f"{path}: the file is empty"
    if start[:1] == b"\x0a" and b"\x00" in start[:64]:
        return (
            f"{path}: a Perfetto protobuf trace; export it as JSON (traceconv json {path.name} out.json), or"
            " have torch write .json"
        )
    if start.lstrip()[:1] == b"{":
        return f"{path}: JSON without traceEvents: no trace of torch's profiler"
    return f"{path}: not a trace (JSON with traceEvents, or a list of events)"
