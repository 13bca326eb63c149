"""Chrome traces, as torch's profiler (Kineto, in all its eras, ROCm included) and ONNX Runtime
write them, as tables.

Times are the decimal text of microseconds, turned into integer nanoseconds. What an event is, its
category says; a file of 1.9 says `Kernel` where one of 2.8 says `kernel`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...perf.terms.reasons import Unreadable
from . import labelled
from .events import NOTHING, Arguments, Event, Events, text_of
from .trace import NONE, Calls, Column, Gpu, Kind, Memory, Rows, Spans, Trace

# Categories of all eras: of GPU events, host calls, operators, annotations, Python frames.
GPU = {
    "kernel": Kind.KERNEL,
    "Kernel": Kind.KERNEL,
    "gpu_memcpy": Kind.MEMCPY,
    "Memcpy": Kind.MEMCPY,
    "gpu_memset": Kind.MEMSET,
    "Memset": Kind.MEMSET,
}
CALLS = {"Runtime", "Driver"}
# cuda_runtime, cuda_driver, hip_runtime, xpu_runtime, privateuse1_runtime, mtia_runtime ...
CALL = re.compile(r"\w+_(?:runtime|driver)")
OPERATORS = {"cpu_op", "Operator", "Node"}
NOTES = {"user_annotation", "Session"}
FRAMES = {"python_function", "Python"}
# Names of NVIDIA's, AMD's and Huawei's collectives.
COLLECTIVE = re.compile(r"nccl|rccl|hcom_|hccl", re.IGNORECASE)
# ns: sums and differences of two stay within 64 bits.
LONGEST = (1 << 62) - 1
BEYOND = Decimal(4 * LONGEST)
# Times as nearly all files have them: whole microseconds below LONGEST, with up to three places.
TIMES = re.compile(rb"(?:-?(?:[1-4]\d{15}|\d{1,15})(?:\.\d{1,3})?,)+")
# Those whose places are not three.
NO_PLACES, ONE_PLACE, TWO_PLACES = (
    re.compile(text) for text in (rb"(?<![.\d])(\d+),", rb"\.(\d),", rb"\.(\d\d),")
)
# ns: sums of a piece's durations that are shorter stay within 64 bits.
LONG = 10**15
# Of an event without args.
EMPTY = Arguments()
# JSON of Trace.launches and Trace.shapes.
LAUNCH = b"[%b,%b,%b,%b,%b]"
INPUTS = b"[%b,%b,%b]"
# Operators whose work follows from their shapes only with the values of their other arguments
# (stride, padding, causal).
VALUED = re.compile(r"conv|attention")


class Names(dict[Any, int]):
    """Gives values codes, in the order of first sight: names[value]."""

    def __missing__(self, value: Any) -> int:
        code = self[value] = len(self)
        return code


class Reading:
    """The tables of a trace while its file is read."""

    def __init__(self) -> None:
        self.names = Names()
        self.lanes = Names()
        self.shapes = Names()
        self.launches = Names()
        self.groups = Names()
        self.gpu = Rows(*Gpu.__dataclass_fields__)
        self.calls = Rows(*Calls.__dataclass_fields__)
        self.memory = Rows(*Memory.__dataclass_fields__)
        self.spans = {
            kind: Rows(*Spans.__dataclass_fields__) for kind in ("operators", "notes", "frames", "spans")
        }
        self.table: dict[str, Callable[..., None]] = {
            **dict.fromkeys(GPU, self.of_gpu),
            **dict.fromkeys(CALLS, self.call),
            **dict.fromkeys(OPERATORS, self.operator),
            **dict.fromkeys(NOTES, self.note),
            **dict.fromkeys(FRAMES, self.frame),
        }
        # ns of all events that were taken, and bytes: no sum over any of them can overflow.
        self.lasted = self.moved = 0
        self.phases = Counter[str]()
        self.categories = Counter[str]()
        self.others = Counter[str]()
        self.odd = Counter[str]()
        # Events whose numbers no profiler can have written, by which.
        self.lost = Counter[str]()
        self.labels: dict[tuple[Any, Any], str] = {}
        # Of ONNX Runtime's kernels, in the order of their rows: the operator's name, or none.
        self.kernel_operators: list[str] = []
        # Of each process and thread: events that have begun and not ended, the innermost last.
        self.begun: dict[tuple[Any, Any], list[Event]] = {}
        self.collectives: dict[int, bool] = {}
        self.valued: dict[int, bool] = {}

    def take(self, events: list[Event]) -> None:
        """Puts a piece of the file into the tables."""
        self.phases.update([event.ph for event in events])
        lasting = [event for event in events if event.ph == "X"]
        self.categories.update([event.cat for event in lasting])
        if (spans := self.spans_of(lasting)) is not None:
            for event, begins, length in zip(lasting, *spans, strict=True):
                self.adder(event.cat)(event, begins, length, event.args or EMPTY)
            events = [event for event in events if event.ph != "X"]
        for event in events:
            if event.ph == "B" and event.cat not in GPU:
                self.begun.setdefault(lane(event), []).append(event)
            elif event.ph == "E" and self.begun.get(lane(event)):
                self.pair(self.begun[lane(event)].pop(), event)
            elif event.ph == "X":
                start, dur = self.time(event.ts, "start"), self.time(event.dur, "duration")
                if start is None or dur is None:
                    continue
                if dur < 0:
                    self.odd["negative duration"] += 1
                    continue
                if start + dur > LONGEST or self.lasted + dur > LONGEST:
                    self.lost["end beyond the clock"] += 1
                    continue
                self.lasted += dur
                self.adder(event.cat)(event, start, dur, event.args or EMPTY)
            elif event.ph == "i" and event.name == "[memory]" and event.args is not None:
                self.allocation(event, event.args)
            elif event.ph == "M":
                args = event.args or EMPTY
                self.labels[lane(event)] = " ".join(
                    text_of(value) for value in (args.name, args.labels) if value
                )
            else:
                self.others[f"{event.ph} {event.cat}".strip()] += 1
        for rows in (self.gpu, self.calls, self.memory, *self.spans.values()):
            rows.flush()

    def spans_of(self, events: list[Event]) -> tuple[list[int], list[int]] | None:
        """Returns starts and durations of many events, ns, and counts what they lasted; None where
        some of them need a look of their own.
        """
        start = many_nanoseconds([event.ts for event in events])
        dur = many_nanoseconds([event.dur for event in events])
        if start is None or dur is None or not len(start):
            return None
        if int(dur.min()) < 0 or int(dur.max()) > LONG or int(start.max()) > LONGEST - LONG:
            return None
        if self.lasted + (lasted := int(np.sum(dur))) > LONGEST:
            return None
        self.lasted += lasted
        return start.tolist(), dur.tolist()

    def adder(self, category: str) -> Callable[..., None]:
        """Returns what puts an event of a category into its table."""
        if category not in self.table:
            self.table[category] = self.call if CALL.fullmatch(category) else self.span
        return self.table[category]

    def pair(self, begin: Event, end: Event) -> None:
        """Adds what one event begins and another ends."""
        start, until = self.time(begin.ts, "start"), self.time(end.ts, "end")
        if start is None or until is None:
            return
        if until < start:
            self.odd["end before the begin"] += 1
            return
        if self.lasted + until - start > LONGEST:
            self.lost["end beyond the clock"] += 1
            return
        self.lasted += until - start
        self.categories[begin.cat] += 1
        self.adder(begin.cat)(begin, start, until - start, begin.args or EMPTY)

    def allocation(self, event: Event, args: Arguments) -> None:
        moment = self.time(event.ts, "start")
        if moment is not None:
            device = number(args.device_type), number(args.device_id)
            self.memory.add((moment, *device, self.sized(number(args.allocated, 0), 0), number(args.total)))

    def sized(self, size: int, otherwise: int) -> int:
        """Returns bytes as they are, `otherwise` where all of the file would overflow with them."""
        if self.moved + abs(size) > LONGEST:
            self.lost["size beyond 64 bits"] += 1
            return otherwise
        self.moved += abs(size)
        return size

    def time(self, text: msgspec.Raw, what: str) -> int | None:
        """Returns nanoseconds; None, and counted, where there is no such number."""
        try:
            ns = nanoseconds(bytes(text))
        except (ValueError, ArithmeticError):
            self.odd[f"without a {what}"] += 1
            return None
        if not -LONGEST <= ns <= LONGEST:
            self.lost[f"{what} beyond the clock"] += 1
            return None
        return ns

    def of_gpu(self, event: Event, start: int, dur: int, args: Arguments) -> None:
        shape = group = NONE
        if args.grid is not NOTHING or args.blocks is not NOTHING:
            shape = self.launches[LAUNCH % (args.blocks, args.warps, args.occupancy, args.grid, args.block)]
        if args.group is not NOTHING or args.group_name is not NOTHING:
            group = self.groups[bytes(args.group if args.group is not NOTHING else args.group_name)]
        name = self.names[event.name]
        if name not in self.collectives:
            self.collectives[name] = COLLECTIVE.search(event.name) is not None
        collective = self.collectives[name] or args.collective is not None
        device = number(args.device, number(event.pid))
        stream = number(args.stream, number(args.queue, number(text_of(event.tid).rpartition(" ")[2])))
        links = number(args.correlation), external(args)
        size, node = self.sized(number(args.bytes), NONE), number(args.node)
        where = GPU[event.cat], device, stream
        self.gpu.add((start, dur, name, *where, *links, size, node, shape, collective, group))
        if args.op_name or self.kernel_operators:
            missing = self.gpu.filled + len(self.gpu.rows) - 1 - len(self.kernel_operators)
            self.kernel_operators += [""] * missing + [text_of(args.op_name or "")]

    def call(self, event: Event, start: int, dur: int, args: Arguments) -> None:
        name, thread = self.names[event.name], self.lanes[lane(event)]
        self.calls.add((start, dur, name, thread, number(args.correlation), external(args)))

    def row(self, event: Event, start: int, dur: int, args: Arguments) -> tuple[int, ...]:
        shape, name = NONE, self.names[event.name]
        if args.dims is not NOTHING:
            if name not in self.valued:
                self.valued[name] = VALUED.search(event.name) is not None
            shape = self.shapes[
                INPUTS % (args.dims, args.types, args.concrete if self.valued[name] else NOTHING)
            ]
        return start, dur, name, self.lanes[lane(event)], external(args), shape, self.names[event.cat]

    def operator(self, event: Event, start: int, dur: int, args: Arguments) -> None:
        """Adds an operator; a node of ONNX Runtime counts as its operator on its provider."""
        if event.cat == "Node" and args.op_name:
            provider = text_of(args.provider or "unknown").removesuffix("ExecutionProvider")
            event.name = f"{text_of(args.op_name)} on {provider}"
        self.spans["operators"].add(self.row(event, start, dur, args))

    def note(self, *event: Any) -> None:
        self.spans["notes"].add(self.row(*event))

    def frame(self, *event: Any) -> None:
        self.spans["frames"].add(self.row(*event))

    def span(self, *event: Any) -> None:
        self.spans["spans"].add(self.row(*event))


def read(path: Path) -> Trace:
    """Reads a trace of torch, ONNX Runtime or OpenVINO.

    What is damaged is kept as far as it is whole, and stands in `damage`. Raises Unreadable (not a
    trace) and OSError.
    """
    file, seen = Events(path), Reading()
    for events in file:
        seen.take(events)
    file.damage.lost.update(seen.lost)
    if unended := sum(map(len, seen.begun.values())):
        seen.odd["begin without an end"] += unended
    if file.bare and set(seen.phases) <= {""}:
        raise Unreadable(f"{path}: a list with no events of a trace in it")
    spans: dict[str, Any] = {kind: Spans(**rows.columns()) for kind, rows in seen.spans.items()}
    trace = Trace(
        path=str(path),
        source=source(seen, file.header),
        header=file.header,
        names=list(seen.names),
        lanes=list(seen.lanes),
        shapes=list(seen.shapes),
        launches=list(seen.launches),
        groups=list(seen.groups),
        gpu=Gpu(**seen.gpu.columns()),
        calls=Calls(**seen.calls.columns()),
        memory=Memory(**seen.memory.columns()),
        **spans,
        phases=dict(seen.phases),
        categories=dict(seen.categories),
        others=dict(seen.others),
        odd=dict(seen.odd),
        labels=seen.labels,
        damage=file.damage,
    )
    if seen.kernel_operators:
        return with_operators(trace, seen.kernel_operators)
    return labelled.sorted_out(trace)


def with_operators(trace: Trace, names: list[str]) -> Trace:
    """Returns the trace with a row of its operators as the link of each GPU event: the first of its
    name, wherever it ran.

    names: of the events' operators, in their order. ONNX Runtime writes a kernel's operator, and
    not which node of that kind it is of.
    """
    rows: dict[str, int] = {}
    for row, code in enumerate(trace.operators.name.tolist()):
        rows.setdefault(trace.names[code].partition(" on ")[0], row)
    links = [rows.get(name, NONE) for name in names] + [NONE] * (len(trace.gpu) - len(names))
    return replace(trace, gpu=replace(trace.gpu, external=np.array(links, dtype=np.int64)))


def source(seen: Reading, header: dict[str, Any]) -> str:
    """Returns whose profiler wrote the file; OpenVINO's is told by the section `hotlap`."""
    if not {"Node", "Session"} <= set(seen.categories):
        return "kineto"
    section = header.get("hotlap")
    return "openvino" if isinstance(section, dict) and section.get("backend") == "openvino" else "onnxruntime"


def nanoseconds(text: bytes) -> int:
    """Returns the nanoseconds of a text of microseconds, quoted or not.

    What is finer is rounded to even, what is far beyond LONGEST is just beyond it: written with an
    exponent, its digits could fill the memory. Raises ValueError, ArithmeticError.
    """
    whole, point, part = text.partition(b".")
    if not point and whole.lstrip(b"-").isdigit():
        return int(whole) * 1000
    if len(part) == 3 and part.isdigit():
        return int(whole + part)
    ns = Decimal(text.strip(b'"').decode()) * 1000
    return round(max(-BEYOND, min(ns, BEYOND)))


def many_nanoseconds(texts: list[msgspec.Raw]) -> Column | None:
    """Returns the nanoseconds of many texts; None where one of them is a case of its own (quoted,
    with an exponent, finer, beyond the clock).
    """
    joined = b",".join([*texts, b""])
    if not TIMES.fullmatch(joined):
        return None
    if b"." not in joined:
        return np.fromstring(joined[:-1].decode(), dtype=np.int64, sep=",") * 1000
    joined = NO_PLACES.sub(rb"\1.000,", joined)
    joined = TWO_PLACES.sub(rb".\g<1>0,", ONE_PLACE.sub(rb".\g<1>00,", joined))
    return np.fromstring(joined[:-1].replace(b".", b"").decode(), dtype=np.int64, sep=",")


def number(value: Any, otherwise: int = NONE) -> int:
    """Returns an integer of 64 bits, as the file may write it (7, "7", "0x0"); else `otherwise`."""
    if type(value) is int:
        return value if -LONGEST <= value <= LONGEST else otherwise
    if isinstance(value, str):
        try:
            value = int(value, 0)
        except ValueError:
            return otherwise
    return value if isinstance(value, int) and abs(value) <= LONGEST else otherwise


def external(args: Arguments) -> int:
    return number(args.external_old if args.external is None else args.external)


def lane(event: Event) -> tuple[int | str, int | str]:
    """Returns process and thread; a number written as text is the number (torch 1.9)."""
    if type(event.pid) is int and type(event.tid) is int:
        return event.pid, event.tid
    return plain(event.pid), plain(event.tid)


def plain(value: Any) -> int | str:
    if type(value) is int:
        return value
    text = text_of(value)
    return int(text) if text.isdecimal() and len(text) < 20 else text
