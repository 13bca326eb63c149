"""Every reader of the product against files that anybody may have written: what comes back is a
value, or a refusal in one line.

A reader is an entry of READERS: a valid file, and all that hotlap does with one. The file is
damaged in bytes, in values and in structure. To search for longer: HYPOTHESIS_EXAMPLES=5000.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotlap.models import runs as trained
from hotlap.perf.artefacts import manifest, npz, opening
from hotlap.perf.compiled import baseline, table
from hotlap.perf.gate import ledger, policy
from hotlap.perf.gate.judge import judge
from hotlap.perf.history import acknowledged, csv_column, document, page, reading, series
from hotlap.perf.history.acknowledged import Acknowledgements
from hotlap.perf.history.archive import Archive
from hotlap.perf.readers import runs
from hotlap.perf.reports import brief, formats, matrix, picture, report
from hotlap.perf.terms import result, verdict
from hotlap.perf.terms.reasons import Misuse
from hotlap.perf.terms.work import Work
from hotlap.profiles.findings import diff, ranks, review
from hotlap.profiles.pages import page as review_page
from hotlap.profiles.pages import perfetto, text

from .profiles import synthetic
from .profiles.tables.test_tensorrt import CONV, LAYERS

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "60"))
STORED = Path(__file__).parent / "perf" / "terms" / "results-0.1.0.json"


def small() -> dict[str, Any]:
    """What 0.1.0 wrote, with its first results and three short blocks of each list, so that few
    examples meet every kind of value.
    """

    def shortened(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shortened(item) for key, item in value.items()}
        return [shortened(item) for item in value[:3]] if isinstance(value, list) else value

    return shortened(json.loads(STORED.read_bytes()))  # type: ignore[no-any-return]


RESULTS = json.dumps(small()).encode()
BENCHMARK = {
    "datetime": "2026-03-01T12:00:00+00:00",
    "machine_info": {"machine": "x86", "cpu": {"count": 2, "brand_raw": "Xeon"}, "node": "here"},
    "commit_info": {"id": "ab12", "dirty": True},
    "benchmarks": [
        {
            "fullname": "t.py::test_a",
            "stats": {"mean": 1.0, "median": 1.0, "stddev": 0.1, "rounds": 40, "data": [1.0, 1.1] * 20},
            "extra_info": {},
        }
    ],
}
POLICY = b"""alpha = 0.05
budget = "10m"
tolerance = { latency = 0.05, deviation = 0.1, task = 0.1 }
slack = { graph_breaks = 1, artefact_bytes = "2%" }
limits = { memory = 1e9 }
[[case]]
match = "mlp/*"
ignore = false
"""
ACKNOWLEDGED = b"""[[acknowledged]]
case = "mlp/*"
metric = "latency"
commit = "0123abc"
reason = "meant"
[[acknowledged]]
case = "vit/*"
metric = "latency"
date = 2026-02-25
reason = "meant"
"""
EVENTS = [
    synthetic.step(1, 0, 50),
    synthetic.operator("aten::mm", 0, 9, Input_Dims=[[4, 5], [5, 6]], Input_type=["float", "float"]),
    *synthetic.launched("k", 1, 5, 3, 1, bytes=4096),
    *synthetic.launched("ncclKernel", 10, 20, 3, 2, Process_Group_Name="0"),
    synthetic.call("cudaDeviceSynchronize", 30, 2),
    {"ph": "i", "name": "[memory]", "ts": 4, "pid": 1, "tid": 1,
     "args": {"Bytes": 512, "Total Allocated": 512, "Device Type": 1, "Device Id": 0}},
    {"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "python", "labels": "CPU"}},
]  # fmt: skip
TRACE = {
    "hotlap": {"case": "mlp/eager/fp32/b1/cpu/inference", "flops": 9, "peaks": {"flop_rate": 1e12}},
    "deviceProperties": [{"id": 0, "name": "NVIDIA A100", "computeMajor": 8}],
    "distributedInfo": {"rank": 0, "world_size": 2},
    "traceEvents": EVENTS,
}
NODES = [
    synthetic.event("Session", "model_run", 0, 90),
    synthetic.event("Node", "MatMul_1", 5, 40, op_name="MatMul", provider="CPUExecutionProvider"),
]
ENTRY = {
    "op": "add", "dtype": "fp32", "target": "sm_90", "config": {"BLOCK": 1024}, "registers": 32,
    "spill_loads": 0, "spill_stores": 0, "stack_bytes": 0, "shared_bytes": 0, "occupancy": 1.0,
    "instructions": 90, "sass": {"load_128": 4}, "bytes": 4096, "flops": 9, "roofline_s": 1e-6,
    "violations": [],
}  # fmt: skip
VERDICT = {
    "tool": "kernels",
    "verdict": "regression",
    "reasons": ["a note"],
    "findings": [
        {"case": "a", "metric": "latency", "verdict": "regression", "base": 1.0, "head": 2.0, "ratio": 2.0,
         "low": 1.9, "high": 2.1, "tolerance": 0.05, "detectable": 0.01, "unit": "s", "evidence": ["slower"],
         "place": {"file": "a.py", "line": 3}},
        {"case": "a", "metric": "registers", "verdict": "regression", "base": 1.0, "head": 2.0,
         "kind": "counter"},
    ],
    "schema": 1,
}  # fmt: skip


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, in0=np.zeros((2, 1, 4), np.float32), ref0=np.zeros((2, 1)))
    return buffer.getvalue()


def artefact() -> dict[str, Any]:
    tensor = manifest.Tensor("in0", "float32", (1, 4), {"0": "batch"})
    return msgspec.to_builtins(  # type: ignore[no-any-return]
        manifest.Manifest(
            "mlp/onnxruntime/fp32/b1/cpu/inference", "onnxruntime", "fp32", 1, {}, "cpu", False,
            (tensor,), (tensor,), (manifest.File("model.onnx", "0" * 64, 4),), {"torch": "2.14.1"}, "3.11.7",
            "as given", Work(9, 1, 4, 1, "row", True), "2026-03-01T12:00:00Z",
        )
    )  # fmt: skip


def of_results(path: Path) -> None:
    results = result.read(path)
    for show in (report.markdown, matrix.markdown, brief.markdown, picture.svg):
        show(results)
    report.table(results.results, 200)
    report.reasons(results.results)
    result.encode(results)


def of_side(path: Path) -> None:
    side = runs.side([path])
    for rules in (policy.Policy(), policy.Policy(tolerance={"deviation": 0.1, "task": 0.1})):
        shown(judge(side, side, rules))


def shown(outcome: verdict.Verdict) -> None:
    for form in (formats.junit, formats.sarif, formats.markdown, formats.workflow_commands):
        form(outcome)
    msgspec.json.encode(outcome)


def of_verdict(path: Path) -> None:
    shown(verdict.join(verdict.Verdict("gate", "pass"), [verdict.read(path)]))


def of_policy(path: Path) -> None:
    rules = policy.read(path).of("mlp/eager/fp32/b1/cpu/inference")
    for value in rules.slack.values():
        policy.allowance(value, 10**9)


def of_history(path: Path) -> None:
    for index in path.parent.glob("index*"):
        index.unlink()
    stored = reading.read([path.parent / path.name], path.parent / "index", lambda line: None)
    found_series = series.series(stored.points, lambda line: None)
    borders = series.borders(stored.points, stored.settings)
    outcome = reading.noted(series.judge(found_series, Acknowledgements(), whole=True), stored)
    document.document(outcome, found_series, borders, stored.settings, stored.problems)
    page.page(outcome, found_series, borders, Acknowledgements())


def of_index(path: Path) -> None:
    """The index of the history, and a file that it says to have read."""
    file = path.with_name("results.json")
    file.write_bytes(RESULTS)
    for beside in path.parent.glob("index-*"):
        beside.unlink()
    archive = Archive(path)
    try:
        archive.take_in([file], lambda line: None)
        points, known = archive.points([file]), archive.settings()
    finally:
        archive.close()
    series.borders(points, known)
    series.judge(series.series(points, lambda line: None), Acknowledgements(), whole=True)


def index() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        of_index(Path(folder) / "index")
        return (Path(folder) / "index").read_bytes()


def of_kernels(path: Path) -> None:
    earlier = table.read(path)
    table.markdown(earlier.kernels, earlier.triton)
    table.page(earlier.kernels, earlier.triton, verdict.read(path))


def of_baseline(path: Path) -> None:
    levels = baseline.read(path, True)
    assert levels is not None
    baseline.built_again(levels, ["add"], ["sm_90"], False)
    [level[name] + 1 for level in levels.values() for name in ("registers", "instructions")]


def of_manifest(path: Path) -> None:
    built = manifest.read(path.parent)
    opening.doubts(built)
    manifest.encode(built)


def of_arrays(path: Path) -> None:
    npz.check(path)


def of_trace(path: Path) -> None:
    reviewed = review.review(path)
    list(text.lines(reviewed))
    review.document(reviewed, reviewed.verdict, {})
    review_page.page(reviewed, None)
    if reviewed.trace.source != "tensorrt":
        perfetto.write(reviewed, path.with_name("perfetto.out"))
    compared = diff.of(reviewed, reviewed)
    list(text.difference(compared))
    diff.document(compared)


def of_ranks(path: Path) -> None:
    folder = path.parent / "ranks"
    folder.mkdir(exist_ok=True)
    for rank in range(2):
        (folder / f"rank{rank}.json").write_bytes(
            path.read_bytes().replace(b'"rank": 0', f'"rank": {rank}'.encode())
        )
    together = ranks.read(folder)
    ranks.document(together)
    list(text.together(together))


def of_engine(path: Path) -> None:
    for name, content in {
        "graph": {"Layers": [CONV]}, "metadata": [{"Name": "NVIDIA A100"}],
        "profile.metadata": {"performance_summary": {"GPU Compute Time": [0.1, 0.3, 0.2, 0.18, 0.25]}},
    }.items():  # fmt: skip
        path.with_name(f"net.{name}.json").write_text(json.dumps(content))
    of_trace(path)


def of_graph(path: Path) -> None:
    path.with_name("net.profile.json").write_text(json.dumps(LAYERS))
    of_trace(path)


class Reader(NamedTuple):
    """A file's name, valid content, and what hotlap does with one."""

    file: str
    content: Any
    use: Callable[[Path], Any]


READERS = {
    "results": Reader("results.json", small(), of_results),
    "side": Reader("results.json", small(), of_side),
    "pytest-benchmark": Reader("bench.json", BENCHMARK, of_side),
    **{
        f"side of {file.name}": Reader(
            file.name, json.loads(file.read_bytes()) if file.suffix == ".json" else file.read_bytes(), of_side
        )
        for file in sorted((Path(__file__).parent / "perf" / "readers" / "files").iterdir())
        if file.is_file()
    },
    "verdict": Reader("verdict.json", VERDICT, of_verdict),
    "policy": Reader("gate.toml", POLICY, of_policy),
    "acknowledgements": Reader("history.toml", ACKNOWLEDGED, acknowledged.chosen),
    "history": Reader("results.json", small(), of_history),
    "history of pytest-benchmark": Reader("bench.json", BENCHMARK, of_history),
    "index": Reader("index", index(), of_index),
    "csv": Reader(
        "a.csv", b"when,s\n" + b"1,0.5\n" * 30, lambda path: csv_column.series_of(path, "s", "lower")
    ),
    "manifest": Reader("manifest.json", artefact(), of_manifest),
    "reference": Reader("reference.npz", arrays(), of_arrays),
    "baseline": Reader(
        "b.json", {"kernels/add/fp32/sm_90": {"registers": 9, "instructions": 90}}, of_baseline
    ),
    "kernels": Reader("k.json", {**VERDICT, "triton": "3.8.0", "kernels": [ENTRY]}, of_kernels),
    "ledger": Reader(
        "aa.jsonl",
        msgspec.json.encode(ledger.SelfRace("a", "ab12", 9, 1.01, False)) + b"\n",
        lambda path: ledger.distrusted(ledger.read(path), 0.05),
    ),
    "training": Reader(
        "settings.json",
        {"schema": 1, "name": "mlp", "seed": 0, "epochs": 2, "precision": "bf16"},
        lambda path: trained.Settings.read(path.parent),
    ),
    "trace": Reader("trace.json", TRACE, of_trace),
    "list of events": Reader("trace.json", EVENTS, of_trace),
    "packed trace": Reader("trace.json.gz", gzip.compress(json.dumps(TRACE).encode()), of_trace),
    "nodes": Reader("ort.json", NODES, of_trace),
    "ranks": Reader("rank.json", TRACE, of_ranks),
    "layers": Reader("net.profile.json", LAYERS, of_engine),
    "graph of layers": Reader("net.graph.json", {"Layers": [CONV]}, of_graph),
}
# What takes the place of a value: the ends of what can be written, and what is no value there.
RAW = ["1e999990", "-1e999990", "1e308", "-1e308", "5e-324", "9" * 400, "1e-999990", "NaN", "-Infinity"]
RAW += ["[" * depth + "]" * depth for depth in (50, 300, 940, 5000)] + [
    '"\\ud800"',
    '"\\u0000"',
    '"9e999990"',
]
VALUES = [None, True, "", "a\nb\x1b[31m|<&", [], {}, [[]], [None], -1, 0, 0.0, 2**31, 2**62, 2**63, -(2**63)]
VALUES += [10**30, 0.1, "0x" + "f" * 99, "2%", "1h", "9" * 30]
EDITS = st.lists(st.tuples(st.integers(0, 99_999), st.integers(0, 12), st.binary(max_size=8)), max_size=6)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value within a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def changed(document_: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a place; `...` takes it away."""
    if not place:
        return value
    copy, key = document_.copy(), place[0]
    if value is ... and len(place) == 1:
        del copy[key]
    else:
        copy[key] = changed(copy[key], place[1:], value)
    return copy


def corrupted(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for position, length, put in edits:
        position %= max(1, len(content))
        content = content[:position] + put + content[position + length :]
    return content


def survives(reader: Reader, folder: Path, content: bytes) -> None:
    """Uses the file; the only refusal is one line."""
    path = folder / reader.file
    path.write_bytes(content)
    refusal = ""
    try:
        reader.use(path)
    except Misuse as error:
        refusal = str(error)
    assert "\n" not in refusal and "\x1b" not in refusal, refusal


@pytest.mark.parametrize("name", READERS)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    whole = reader.content if isinstance(reader.content, bytes) else json.dumps(reader.content).encode()
    (tmp_path / reader.file).write_bytes(whole)
    reader.use(tmp_path / reader.file)


@pytest.mark.parametrize("name", READERS)
def test_damaged_bytes_are_a_value_or_one_line(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    whole = reader.content if isinstance(reader.content, bytes) else json.dumps(reader.content).encode()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(EDITS, st.none() | st.integers(0, len(whole)))
    def attempt(edits: list[tuple[int, int, bytes]], cut: int | None) -> None:
        survives(reader, tmp_path, corrupted(whole[:cut], edits))

    attempt()


@pytest.mark.parametrize("word", [b"index", b"table", b"CREATE", b"point", b"sqlite_autoindex"])
def test_text_of_an_index_that_is_no_utf8_is_one_line(word: bytes, tmp_path: Path) -> None:
    """What sqlite3 raises then has no error code, or is no error of SQLite's at all."""
    reader = READERS["index"]
    assert isinstance(reader.content, bytes)
    starts = [match.start() for match in re.finditer(word, reader.content)]
    assert starts
    for start in starts:
        for length in (0, 1):
            survives(reader, tmp_path, corrupted(reader.content, [(start, length, b"\x80")]))


@pytest.mark.parametrize("name", [name for name in READERS if not isinstance(READERS[name].content, bytes)])
def test_another_value_anywhere_is_a_value_or_one_line(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    everywhere = places(reader.content)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(everywhere), st.sampled_from([*RAW, None]), st.sampled_from([*VALUES, ...]))
    def attempt(place: tuple[Any, ...], raw: str | None, value: Any) -> None:
        mark = value if raw is None else "@"
        if mark is ... and not place:
            mark = None
        content = json.dumps(changed(reader.content, place, mark))
        survives(reader, tmp_path, content.replace('"@"', raw or '"@"').encode())

    attempt()
