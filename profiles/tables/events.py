"""From a file's bytes to its events, a piece at a time: gzip or not by content, with what stands
around the array of events, and with what is damaged.

A piece ends at a border between events, which is found by trying: the parser accepts only what is
whole. Where it accepts nothing, events are cut out by their braces and read one by one, so that one
bad number costs one event at most.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from ...perf.terms.reasons import Unreadable
from ...perf.terms.stored import shallow
from .trace import Damage

# Bytes of events that are parsed together: memory follows it, and larger ones are no faster.
PIECE = 4 << 20
# Bytes read from the file at a time.
READ = 1 << 20
# Closing braces that are tried as the end of an event before events are cut out one by one.
TRIES = 32
# Bytes that may stand before or after the events.
HEAD = 64 << 20
# Bytes that are looked through for the end of one event.
LARGEST = 64 << 20
# How much larger than its file a trace of more than so many bytes may be: gzip reaches 1,000 times
# with a file that is one letter, 10 to 60 with traces.
RATIO = 200
ENOUGH = 64 << 20
# Where the array of events begins.
START = re.compile(rb'"traceEvents"\s*:\s*\[')
# Where msgspec's message says that the text went on.
OFFSET = re.compile(r"byte (\d+)")
# Strings, whose braces do not count, and braces.
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[{}\[\]]', re.DOTALL)
# What other writers put into JSON and JSON has no word for.
FOREIGN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[-+]?\b(?:nan|inf(?:inity)?)\b', re.DOTALL | re.IGNORECASE)
# Characters that JSON wants escaped within a string.
CONTROL = re.compile(rb"[\x00-\x1f]")
# Backslashes with what JSON allows after them, or without.
ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})?')
# What is not in an event.
NOTHING = msgspec.Raw(b"null")


class Arguments(msgspec.Struct, gc=False):
    """What of an event's args is read: values of whatever type the file has, or their text where
    only the text counts.
    """

    # Of GPU events and host calls: what belongs together has the same.
    correlation: Any = None
    # Of GPU events: number of the stream, of the device, bytes copied.
    stream: Any = None
    queue: Any = msgspec.field(name="sycl queue", default=None)
    device: Any = None
    bytes: Any = None
    # Link to an operator, in the spelling of two eras.
    external: Any = msgspec.field(name="External id", default=None)
    external_old: Any = msgspec.field(name="external id", default=None)
    # Of GPU events under a CUDA graph: its node.
    node: Any = msgspec.field(name="graph node id", default=None)
    # Of NCCL's kernels: what they do, elements that go in, ranks and name of the process group.
    collective: Any = msgspec.field(name="Collective name", default=None)
    elements: Any = msgspec.field(name="In msg nelems", default=None)
    group: msgspec.Raw = msgspec.field(name="Process Group Ranks", default=NOTHING)
    group_name: msgspec.Raw = msgspec.field(name="Process Group Name", default=NOTHING)
    # Of kernels: what describes the launch.
    blocks: msgspec.Raw = msgspec.field(name="blocks per SM", default=NOTHING)
    warps: msgspec.Raw = msgspec.field(name="warps per SM", default=NOTHING)
    occupancy: msgspec.Raw = msgspec.field(name="est. achieved occupancy %", default=NOTHING)
    grid: msgspec.Raw = NOTHING
    block: msgspec.Raw = NOTHING
    # Of operators: dimensions, types and values of the inputs.
    dims: msgspec.Raw = msgspec.field(name="Input Dims", default=NOTHING)
    types: msgspec.Raw = msgspec.field(name="Input type", default=NOTHING)
    concrete: msgspec.Raw = msgspec.field(name="Concrete Inputs", default=NOTHING)
    # Of `[memory]`: bytes allocated, the allocator's total in bytes, type and number of the device.
    allocated: Any = msgspec.field(name="Bytes", default=None)
    total: Any = msgspec.field(name="Total Allocated", default=None)
    device_type: Any = msgspec.field(name="Device Type", default=None)
    device_id: Any = msgspec.field(name="Device Id", default=None)
    # Of metadata: what a process or thread is called.
    name: Any = None
    labels: Any = None
    # Of ONNX Runtime's nodes: the execution provider and the operator.
    provider: Any = None
    op_name: Any = None


class Event(msgspec.Struct, gc=False):
    """An event in the form of Chrome's traces."""

    # Phase: "X" lasts, "i" is an instant, "M" metadata.
    ph: str = ""
    # Category.
    cat: str = ""
    # What ran.
    name: str = ""
    # Start and length in us, as their text, since a double cannot hold them.
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")
    # Process and thread.
    pid: Any = None
    tid: Any = None
    # All else that is read of it.
    args: Arguments | None = None


class Loose(msgspec.Struct):
    """An event as others may write it: the fields of Event, of any type."""

    ph: Any = ""
    cat: Any = ""
    name: Any = ""
    ts: msgspec.Raw = msgspec.Raw(b"")
    dur: msgspec.Raw = msgspec.Raw(b"")
    pid: Any = None
    tid: Any = None
    args: msgspec.Raw = NOTHING


# Event, or its text.
Item = TypeVar("Item")
# Built once, since a decoder is costly to build: lists of events, of their texts, one event alone.
MANY = msgspec.json.Decoder(list[Event])
TEXTS = msgspec.json.Decoder(list[msgspec.Raw])
ONE = msgspec.json.Decoder(Event)
LOOSE = msgspec.json.Decoder(Loose)
ARGUMENTS = msgspec.json.Decoder(Arguments)


class Events:
    """The events of a file, to be iterated over once, a list a piece.

    `header`, `damage` and `bare` (whether the file is the list alone) are whole afterwards. Raises
    Unreadable where there is no array of events.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.damage, self.bare = path, Damage(), False
        self.header: dict[str, Any] = {}

    def __iter__(self) -> Iterator[list[Event]]:
        return self.read(MANY, self.alone)

    def texts(self) -> Iterator[list[msgspec.Raw]]:
        """Yields the texts of the events instead, mended where they must be."""
        return self.read(TEXTS, self.text_alone)

    def read(
        self, many: msgspec.json.Decoder[list[Item]], alone: Callable[[bytes], Item | None]
    ) -> Iterator[list[Item]]:
        """Yields the events of each piece, decoded together with `many` or, where that fails, each
        with `alone`.
        """
        source = self.text()
        buffer = bytearray()
        head = self.skip_head(source, buffer)
        ended, enough = False, PIECE
        for more in source:
            buffer += more
            if len(buffer) >= enough:
                events, used, ended = some(buffer, False, many) or self.slowly(buffer, alone)
                del buffer[:used]
                # An event larger than a piece is not tried again with each megabyte.
                enough = PIECE if used else 2 * len(buffer)
                if enough > LARGEST:
                    raise Unreadable(f"{self.path}: an event of more than {LARGEST >> 21} MiB: no trace")
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
        """Yields the file's bytes, unpacked if they are gzip's, or those of a ZIP archive's only
        trace.
        """
        with self.path.open("rb") as file:
            start = file.read(2)
            file.seek(0)
            if start == b"PK":
                yield from self.archived(file)
                return
            if start != b"\x1f\x8b":
                while piece := file.read(READ):
                    yield piece
                return
            unpack, unpacked = zlib.decompressobj(wbits=31), 0
            while piece := file.read(READ):
                while piece:
                    before = unpack.copy()
                    try:
                        text = unpack.decompress(piece, READ)
                    except zlib.error as error:
                        self.damage.cut = True
                        self.damage.notes[f"the gzip stream is damaged: {error}"] = None
                        yield from up_to_the_damage(before, piece)
                        return
                    yield text
                    unpacked += len(text)
                    if unpacked > max(ENOUGH, RATIO * file.tell()):
                        raise Unreadable(
                            f"{self.path}: unpacks to more than {RATIO} times its size, which no trace does"
                        )
                    piece = unpack.unconsumed_tail
                    if unpack.eof:
                        piece = unpack.unused_data
                        if piece:
                            unpack = zlib.decompressobj(wbits=31)
            if not unpack.eof:
                self.damage.cut = True
                self.damage.notes["the gzip stream ends too early"] = None
                yield unpack.flush()

    def archived(self, file: BinaryIO) -> Iterator[bytes]:
        """Yields the bytes of the only member of a ZIP archive that may be a trace."""
        try:
            with zipfile.ZipFile(file) as archive:
                members = [member for member in archive.infolist() if member.filename.endswith(".json")]
                if len(members) != 1:
                    raise Unreadable(
                        f"{self.path}: a ZIP archive with {len(members)} .json files; unpack one"
                    )
                if members[0].file_size > max(ENOUGH, RATIO * self.path.stat().st_size):
                    raise Unreadable(
                        f"{self.path}: unpacks to more than {RATIO} times its size, which no trace does"
                    )
                with archive.open(members[0]) as member:
                    while piece := member.read(READ):
                        yield piece
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error) as error:
            self.damage.cut = True
            self.damage.notes[f"the ZIP archive is damaged: {error}"] = None

    def skip_head(self, source: Iterator[bytes], buffer: bytearray) -> bytes:
        """Returns what stands before the first event; the buffer begins with what comes after."""
        for more in source:
            buffer += more
            if (start := buffer.lstrip()[:1]) == b"[":
                self.bare, skipped = True, buffer.index(b"[") + 1
                del buffer[:skipped]
                return b""
            if match := START.search(buffer):
                head = bytes(buffer[: match.end()])
                del buffer[: match.end()]
                return head
            if start and start != b"{":
                break
            if len(buffer) > HEAD:
                break
        raise Unreadable(refusal(self.path, bytes(buffer[:4096])))

    def slowly(
        self, buffer: bytearray, alone: Callable[[bytes], Item | None]
    ) -> tuple[list[Item], int, bool]:
        """Returns what `some` does, from events cut out by their braces and each read alone."""
        events: list[Item] = []
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
        """Returns one event, repaired if it must be; None, and counted, if nothing helps."""
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
            text_of(loose.ph),
            text_of(loose.cat),
            text_of(loose.name),
            loose.ts,
            loose.dur,
            loose.pid,
            loose.tid,
            arguments,
        )

    def text_alone(self, text: bytes) -> msgspec.Raw | None:
        """Returns one event's text, repaired if it must be; None, and counted, if nothing helps."""
        try:
            ONE.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None if self.mended(text) is None else msgspec.Raw(mended(text))
        return msgspec.Raw(text)

    def mended(self, text: bytes) -> Loose | None:
        """Returns an event of any form that is JSON at last; None, and counted, if it is none."""
        if (better := mended(text)) != text:
            self.damage.notes[
                "some events hold what JSON has no word for (NaN, raw control characters, bad escapes):"
                " mended"
            ] = None
        try:
            return LOOSE.decode(better)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.damage.lost[re.sub(r" \(byte \d+\)", "", str(error))] += 1
            self.damage.lost_bytes += len(text)
            return None

    def read_header(self, head: bytes, tail: bytes) -> None:
        """Sets `header` to what stood before and after the array of events."""
        if not head:
            return
        for text in (head + b"]" + tail, head + b"]" + tail.rstrip().rstrip(b",") + b"}", head + b"]}"):
            try:
                header = msgspec.json.decode(mended(text))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if isinstance(header, dict) and shallow(header):
                header.pop("traceEvents", None)
                self.header = header
                return
        self.damage.notes["what stands around the events cannot be read: the device is unknown"] = None


def some(
    buffer: bytearray, last: bool, many: msgspec.json.Decoder[list[Item]]
) -> tuple[list[Item], int, bool] | None:
    """Returns events from the front of the buffer, how many bytes they took, and whether the array
    ended there; None where they cannot be read together.
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
        if "trailing characters" in why and (match := OFFSET.search(why)):
            # It counts the character after the array from 1, and ours begin after the bracket.
            used = int(match[1]) - 2
            try:
                return many.decode(b"[" + buffer[:used]), used, True
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None
        if last or not why.startswith("JSON is malformed"):
            return None
    return None


def text_of(value: Any) -> str:
    """Returns a value as text; of lists and objects, however deep, only that they are."""
    return type(value).__name__ if isinstance(value, (list, dict)) else str(value)


def mended(text: bytes) -> bytes:
    """Returns the text as JSON has it.

    NaN and infinity become null, control characters and bad escapes within strings are escaped,
    bytes that are no UTF-8 are replaced.
    """

    def better(token: re.Match[bytes]) -> bytes:
        if token[0][:1] != b'"':
            return b"null"
        escaped = ESCAPE.sub(lambda escape: escape[0] if len(escape[0]) > 1 else b"\\\\", token[0])
        return CONTROL.sub(lambda bad: b"\\u%04x" % bad[0][0], escaped)

    return FOREIGN.sub(better, text).decode(errors="replace").encode()


def up_to_the_damage(unpack: Any, piece: bytes) -> Iterator[bytes]:
    """Yields what a decompressor gives of a damaged piece, byte by byte: an error would take all
    that its call had unpacked.
    """
    try:
        for index in range(len(piece)):
            yield unpack.decompress(piece[index : index + 1])
    except zlib.error:
        return


def refusal(path: Path, start: bytes) -> str:
    """Returns why this is no trace, by what it begins with."""
    if not start.strip():
        return f"{path}: the file is empty"
    if start[:4] == b"\x28\xb5\x2f\xfd":
        return f"{path}: packed by Zstandard; unpack it first: zstd -d {path.name}"
    if start[:15] == b"SQLite format 3":
        return (
            f"{path}: a database (Nsight Systems, rocprof), which is not read; record the program with"
            " torch.profiler (hotlap profile does)"
        )
    if start[:1] == b"\x0a" and b"\x00" in start[:64]:
        return (
            f"{path}: a Perfetto protobuf trace; export it as JSON (traceconv json {path.name} out.json), or"
            " have torch write .json"
        )
    if start.lstrip()[:1] == b"{":
        return f"{path}: JSON without traceEvents: no trace of torch's profiler"
    return f"{path}: not a trace (JSON with traceEvents, or a list of events)"
