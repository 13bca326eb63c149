"""The reader: exact times, every era's names, and files that are not as they should be."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotlap.perf.terms.reasons import Unreadable
from hotlap.profiles.facts.launches import SYNCHRONISE
from hotlap.profiles.findings import review
from hotlap.profiles.pages import perfetto
from hotlap.profiles.tables import events, kineto
from hotlap.profiles.tables.trace import Kind

from .. import synthetic


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1712195495519689.047", 1712195495519689047),  # a double has ...689.0
        ("5", 5000),
        ("0.5", 500),
        ("-0.5", -500),
        ("-3.001", -3001),
        ("12.3456", 12346),
        ("1e3", 1000000),
        ('"7.25"', 7250),
    ],
)
def test_decimal_text_becomes_whole_nanoseconds(text: str, ns: int) -> None:
    assert kineto.nanoseconds(text.encode()) == ns


@pytest.mark.parametrize("text", ["", "null", '"soon"', "[]", "1e9999999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        kineto.nanoseconds(text.encode())


def test_every_era_has_its_names(tmp_path: Path) -> None:
    old = [
        synthetic.event("Operator", "aten::mm", 0, 9, tid="100", **{"external id": 3}),
        synthetic.event("Runtime", "cudaLaunchKernel", 1, 2, tid="100", correlation=5),
        synthetic.event("Kernel", "sgemm", 4, 3, pid=0, tid="stream 7", device=0, stream=7, correlation=5),
        synthetic.event("Memcpy", "Memcpy HtoD", 8, 1, pid=0, tid="stream 20", correlation=6, bytes=64),
        synthetic.event("Memset", "Memset (Device)", 9, 1, pid=0, tid="stream 7", device=0, stream=7),
    ]
    trace = kineto.read(synthetic.written(tmp_path / "old.json", old))
    assert trace.gpu.kind.tolist() == [Kind.KERNEL, Kind.MEMCPY, Kind.MEMSET]
    assert (
        trace.gpu.stream.tolist() == [7, 20, 7]
        and trace.gpu.bytes.tolist() == [-1, 64, -1]
        and trace.gpu.correlation.tolist() == [5, 6, -1]
    )
    assert trace.lanes == [(100, 100)]  # "100" and 100 are one thread
    rocm = kineto.read(
        synthetic.written(
            tmp_path / "rocm.json",
            [
                synthetic.call("hipModuleLaunchKernel", 0, 1, 3),
                synthetic.kernel("Cijk", 2, 1, 3, cat="kernel"),
            ],
        )
    )
    assert len(rocm.calls) == 1 and len(rocm.gpu) == 1


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    for name, packed in (("a.json", True), ("b.json.gz", False)):
        assert (
            kineto.read(
                synthetic.written(tmp_path / name, [synthetic.kernel("k", 0, 1)], packed=packed)
            ).events
            == 1
        )


def test_pieces_meet_between_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects in arguments, braces in names and events that are written in many ways: no piece
    loses one.
    """
    many = [
        synthetic.operator('a },{ "b', index, 1, deep=[{"a": 1}, {"b": [{}, {}]}], text="}, {")
        for index in range(300)
    ]
    path = synthetic.written(tmp_path / "t.json", many)
    whole = kineto.read(path)
    for piece in (200, 500, 5000):
        monkeypatch.setattr(events, "PIECE", piece)
        monkeypatch.setattr(events, "READ", 64)
        trace = kineto.read(path)
        assert trace.events == whole.events == 300 and trace.damage.whole and not trace.damage.notes
        assert (
            trace.operators.start.tolist() == whole.operators.start.tolist()
            and trace.header["traceName"] == "made"
        )


def test_an_event_larger_than_a_piece_is_not_read_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    slowly = events.Events.slowly
    monkeypatch.setattr(events, "PIECE", 1000)
    monkeypatch.setattr(events, "READ", 100)
    monkeypatch.setattr(
        events.Events,
        "slowly",
        lambda self, buffer, alone: tried.append(len(buffer)) or slowly(self, buffer, alone),
    )
    path = synthetic.written(
        tmp_path / "t.json",
        [synthetic.kernel("a", 0, 1), synthetic.kernel("x" * 200_000, 1, 1), synthetic.kernel("b", 2, 1)],
    )
    assert kineto.read(path).events == 3 and len(tried) < 15


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"hello", "not a trace"),
        (b'{"a": 1}', "without traceEvents"),
        (b"\x0a\x1f\x00\x00\x00perfetto", "traceconv"),
        (b"\x1f\x8bnot gzip", "empty"),
        (b"[1, 2, 3]", "no events"),
    ],
)
def test_what_is_no_trace_is_refused_by_name(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=words):
        kineto.read(path)


def text_of(*lines: str) -> bytes:
    return ('{"traceEvents": [' + ",".join(lines) + "]}").encode()


GOOD = json.dumps(synthetic.kernel("k", 1, 1))


@pytest.mark.parametrize(
    ("bad", "kept", "note"),
    [
        ('{"ph": "X", "cat": "kernel", "name": "n", "ts": NaN, "dur": 1}', 2, "without a start"),
        ('{"ph": "X", "cat": "kernel", "name": "n", "ts": 1, "dur": -Infinity}', 2, "without a duration"),
        ('{"ph": "X", "cat": "kernel", "name": "n", "ts": 1, "dur": -5}', 2, "negative duration"),
        ('{"ph": "X", "cat": "kernel", "name": "n", "ts": 1, "dur": 9e30}', 2, "beyond the clock"),
        ('{"ph": "X", "cat": "kernel", "name": "a\x01b\\q", "ts": 1, "dur": 1}', 3, "control characters"),
        ('{"ph": "X", "cat": "kernel", "name": 7, "ts": 1, "dur": 1}', 3, None),
        ('{"ph": "X", "cat": "kernel", "name": "n", "ts": "1.5", "dur": "2"}', 3, None),
        ('{"ph": "X", "cat": "kernel", "name": "n", "ts": 1, "dur": 1, "args": [1]}', 3, None),
        (
            (
                '{"ph": "X", "cat": "kernel", "name": "n", "ts": 1, "dur": 1, "args": {"stream": {},'
                ' "correlation": 1e99}}'
            ),
            3,
            None,
        ),
        ('{"ph": "X", "cat": "kernel" "name": "n"}', 2, "cannot be read"),
        ('{"ph": "X", "cat": "kernel", "name": "<script>alert(1)</script>", "ts": 1, "dur": 1}', 3, None),
    ],
)
def test_one_bad_event_costs_at_most_itself_and_is_said(
    bad: str, kept: int, note: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(text_of(GOOD, bad, GOOD))
    result = review.review(path)
    assert len(result.facts.as_read.gpu) == kept
    assert note is None or note in " ".join(result.trust.notes)


def test_long_names_and_many_streams(tmp_path: Path) -> None:
    path = synthetic.written(
        tmp_path / "t.json",
        [
            synthetic.kernel("x" * 10_000_000, 0, 1),
            *(synthetic.kernel("k", index, 1, stream=index) for index in range(20_000)),
        ],
    )
    result = review.review(path)
    assert len(result.trace.gpu) == 20_001 and {len(row.name) for row in result.kernels} == {1, 10_000_000}


def test_years_long_kernels_are_named(tmp_path: Path) -> None:
    result = review.review(
        synthetic.written(
            tmp_path / "t.json", [synthetic.kernel("k", 0, 1), synthetic.kernel("k", 5, 2 * 365 * 86400e6)]
        )
    )
    assert "a clock overflowed: left out" in " ".join(result.trust.notes)
    assert result.trust.grades["busy"] == "lower bound" and result.facts.line.window == 1000


@pytest.mark.parametrize("packed", [False, True])
def test_cut_anywhere_the_whole_events_are_kept(packed: bool, tmp_path: Path) -> None:
    rows = [synthetic.operator(f"op {index}", index, 1, dims=[[index], []]) for index in range(40)]
    text = json.dumps({"traceEvents": rows}).encode()
    path = tmp_path / "t.json"
    for cut in range(30, len(text) - 2, 97):
        path.write_bytes(gzip.compress(text[:cut]) if packed else text[:cut])
        trace = kineto.read(path)
        assert trace.damage.cut
        assert trace.events == text[:cut].count(b"}}")


def corrupt(text: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for position, length, put in edits:
        position %= len(text)
        text = text[:position] + put + text[position + length :]
    return text


SMALL = json.dumps(
    {
        "schemaVersion": 1,
        "deviceProperties": [{"name": "A100", "computeMajor": 8}],
        "traceEvents": [
            synthetic.step(1, 0, 50),
            synthetic.operator("aten::mm", 0, 9),
            *synthetic.launched("k", 1, 5, 3, 1),
            *synthetic.launched("nccl", 10, 20, 3, 2),
            synthetic.call("cudaDeviceSynchronize", 30, 2),
        ],
        "traceName": "t",
    }
).encode()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 12), st.binary(max_size=8)), max_size=6),
    st.booleans(),
)
def test_no_damage_ends_in_anything_but_a_trace_or_a_refusal(
    tmp_path: Path, edits: list[tuple[int, int, bytes]], packed: bool
) -> None:
    path = tmp_path / "fuzz.json"
    content = corrupt(gzip.compress(SMALL) if packed else SMALL, edits)
    path.write_bytes(content)
    try:
        result = review.review(path)
    except Unreadable:
        return
    assert result.trace.events >= len(result.trace.gpu)
    if not edits:
        assert result.trust.whole


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
ODD = st.fixed_dictionaries(
    {},
    optional={
        "ph": st.sampled_from(["X", "B", "E", "i", "M", "s", ""]) | JSON,
        "cat": st.sampled_from(
            [*kineto.GPU, *kineto.OPERATORS, "cuda_runtime", "mtia_driver", "overhead", ""]
        )
        | JSON,
        "name": st.sampled_from(["[memory]", "ProfilerStep#1", "cudaGraphLaunch", "cudaMemcpyAsync"]) | JSON,
        "ts": st.integers(-9, 99) | JSON,
        "dur": st.integers(-2, 30) | JSON,
        "pid": st.integers(0, 1) | JSON,
        "tid": st.integers(0, 1) | JSON,
        "args": (
            st.dictionaries(
                st.sampled_from(["correlation", "stream", "device", "Device Type", "blocks per SM", "name"]),
                st.sampled_from(["/device:GPU:0", "Stream #7"]) | st.integers(0, 3) | JSON,
            )
            | JSON
        ),
    },
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ODD, max_size=12))
def test_events_of_any_shape_are_read_or_counted(tmp_path: Path, odd: list[dict[str, Any]]) -> None:
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"traceEvents": [json.loads(GOOD), *odd]}))
    result = review.review(path)
    assert result.trace.events == 1 + len(odd)
    if result.bound:
        assert result.bound.whole == result.facts.span >= result.facts.line.window
    assert isinstance(result.trace.gpu.start, np.ndarray)


def of_other_runtimes(category: str, launch: str, wait: str) -> list[dict[str, Any]]:
    """A kernel on each of two queues, and a wait, by another runtime's names."""
    recorded = []
    for index in range(2):
        recorded += [
            synthetic.operator("aten::addmm", 50 * index, 45),
            synthetic.event(category, launch, 50 * index + 10, 12, correlation=index + 1),
            synthetic.event(
                "kernel", "gemm", 50 * index + 30, 9, pid=0, tid=0, device=0, correlation=index + 1
            ),
        ]
        recorded[-1]["args"]["sycl queue"] = 64 + index
    return [*recorded, synthetic.event(category, wait, 120, 500, correlation=9)]


@pytest.mark.parametrize(
    ("category", "launch", "wait"),
    [
        ("xpu_runtime", "urEnqueueKernelLaunch", "urQueueFinish"),
        ("privateuse1_runtime", "LaunchKernel", "DeviceSynchronize"),
        ("mtia_runtime", "LaunchKernel", "StreamSynchronize"),
    ],
)
def test_launches_waits_and_streams_of_other_runtimes(
    category: str, launch: str, wait: str, tmp_path: Path
) -> None:
    path = synthetic.written(tmp_path / "t.json", of_other_runtimes(category, launch, wait), name="a device")
    result = review.review(path)
    assert result.trace.gpu.stream.tolist() == [64, 65] and result.trust.grades["launches"] == "exact"
    assert [row.name for row in result.operators] == ["aten::addmm"]
    assert result.trace.named(SYNCHRONISE)[result.trace.calls.name].sum() == 1


def test_pairs_of_begin_and_end_are_spans(tmp_path: Path) -> None:
    """Nested, on two threads, one without an end."""
    pairs = [
        ("B", "outer", 0, 1),
        ("B", "inner", 10, 1),
        ("B", "alone", 20, 2),
        ("E", "", 30, 1),
        ("E", "", 50, 1),
    ]
    recorded = [
        {"ph": ph, "cat": "cpu_op" if ph == "B" else "", "name": name, "pid": 1, "tid": tid, "ts": ts}
        for ph, name, ts, tid in pairs
    ]
    trace = kineto.read(synthetic.written(tmp_path / "t.json", recorded))
    spans = {
        trace.names[code]: (start, dur)
        for code, start, dur in zip(
            trace.operators.name.tolist(),
            trace.operators.start.tolist(),
            trace.operators.dur.tolist(),
            strict=True,
        )
    }
    assert spans == {"outer": (0, 50_000), "inner": (10_000, 20_000)}
    assert trace.odd == {"begin without an end": 1}


def named(pid: int, name: str, tid: int = 0, thread: str = "") -> list[dict[str, Any]]:
    """What a process, and one of its threads, is called."""
    process = {"ph": "M", "pid": pid, "tid": 0, "name": "process_name", "args": {"name": name}}
    return [process, {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": thread}}]


@pytest.mark.parametrize(
    ("device", "thread", "stream"),
    [("/device:GPU:1 NVIDIA H100", "Stream #13(Compute)", 13), ("Ascend Hardware", "Stream 2", 2)],
)
@pytest.mark.parametrize("names_last", [False, True])
def test_events_without_a_category_are_told_by_their_process(
    device: str, thread: str, stream: int, names_last: bool, tmp_path: Path
) -> None:
    names = [*named(1, device, 5, thread), *named(2, "/host:CPU", 9, "python"), *named(3, "Communication", 1)]
    recorded = [
        {"ph": "X", "pid": 1, "tid": 5, "name": "fusion_0", "ts": 10, "dur": 30},
        {"ph": "X", "pid": 2, "tid": 9, "name": "PjitFunction(step)", "ts": 0, "dur": 20},
        {"ph": "X", "pid": 3, "tid": 1, "name": "allReduce", "ts": 50, "dur": 10},
    ]
    path = synthetic.written(tmp_path / "t.json", [*recorded, *names] if names_last else [*names, *recorded])
    trace = kineto.read(path)
    assert [trace.names[code] for code in trace.gpu.name] == ["fusion_0", "allReduce"]
    assert trace.gpu.stream.tolist()[0] == stream and trace.gpu.collective.tolist() == [0, 1]
    assert trace.gpu.device.tolist()[0] == int("GPU:1" in device)
    assert [trace.names[code] for code in trace.frames.name] == ["PjitFunction(step)"] and not len(
        trace.spans
    )
    # The export has them all.
    counts = perfetto.write(review.of(trace), tmp_path / "out.json")
    assert counts["copied"] == trace.events


def test_the_end_of_the_array_is_found_whatever_follows() -> None:
    """Read event by event, the last piece of a file would take several times as long."""
    many = msgspec.json.Decoder(list[dict[str, int]])
    for rest in (b"", b" ", b"\n"):
        text = bytearray(b'{"a":1},{"a":2}]' + rest + b',"b":[{"c":3},{"d":4}]}')
        assert events.some(text, False, many) == ([{"a": 1}, {"a": 2}], 16 + len(rest), True)


def test_onnx_runtimes_kernels_have_their_operators(tmp_path: Path) -> None:
    """As its CUDA provider writes them: a kernel names its operator, and nothing launched it."""
    nodes: list[dict[str, Any]] = [
        {"cat": "Session", "ph": "X", "name": "model_run", "pid": 1, "tid": 1, "ts": 0, "dur": 500},
        {"cat": "Node", "ph": "X", "name": "conv_1_kernel_time", "pid": 1, "tid": 1, "ts": 10, "dur": 20},
    ]
    nodes[1]["args"] = {"op_name": "Conv", "provider": "CUDAExecutionProvider"}
    kernels = [
        {"cat": "Kernel", "ph": "X", "name": "k", "pid": -1, "tid": -1, "ts": 60 + 95 * index, "dur": 90}
        for index in range(3)
    ]
    kernels[1]["args"] = kernels[2]["args"] = {"stream": "7", "op_name": "Conv"}
    path = tmp_path / "t.json"
    path.write_text(json.dumps([*nodes, *kernels]))
    result = review.review(path)
    assert [(row.name, row.events) for row in result.operators] == [
        ("Conv on CUDA", 2),
        (review.NO_OPERATOR, 1),
    ]
    assert result.trust.grades["launches"] == "unknown"
    assert any("does not record what launched a kernel" in note for note in result.trust.notes)


def test_bytes_that_are_in_no_event_are_counted(tmp_path: Path) -> None:
    """Two processes wrote one file: one event is cut by the other's."""
    path = tmp_path / "t.json"
    cut = '{"ph": "X", "cat": "kernel" "name": "n"}'
    path.write_bytes(text_of(GOOD, cut, GOOD))
    (note,) = [note for note in review.review(path).trust.notes if "cannot be read" in note]
    assert note.endswith(f"; {len(cut)} bytes of the file are in no event")


def test_a_trace_in_a_zip_archive_is_read_and_others_are_refused(tmp_path: Path) -> None:
    plain = synthetic.written(tmp_path / "t.json", [synthetic.kernel("k", 0, 1)])
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    for path, names in ((one, ["a/t.json", "notes.txt"]), (two, ["a.json", "b.json"])):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, plain.read_bytes())
    assert len(kineto.read(one).gpu) == 1
    with pytest.raises(Unreadable, match=r"a ZIP archive with 2 \.json files; unpack one"):
        kineto.read(two)
    cut = tmp_path / "cut.zip"
    cut.write_bytes(one.read_bytes()[:200])
    with pytest.raises(Unreadable):
        kineto.read(cut)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\x28\xb5\x2f\xfd\x00", "zstd -d t.bin"),
        (b"SQLite format 3\x00", "a database (Nsight Systems, rocprof)"),
    ],
)
def test_what_is_not_read_is_refused_by_its_name(start: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.bin"
    path.write_bytes(start + bytes(100))
    with pytest.raises(Unreadable) as refused:
        review.review(path)
    assert words in str(refused.value)
