"""The export holds every event of the trace, shows what overlaps, and says why the GPU was idle."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from hotlap.perf import cli
from hotlap.profiles.pages.perfetto import TRACK
from hotlap.profiles.tables import kineto

from .. import real, synthetic


def exported(trace: Path, tmp_path: Path) -> dict:
    out = tmp_path / "out.json"
    assert cli.status(["review", str(trace), "--perfetto", str(out)]) == 0
    assert list(tmp_path.glob("*.part")) == []
    return json.loads(out.read_bytes())


def test_overlaps_get_lanes_and_gaps_a_track(tmp_path: Path) -> None:
    events = [
        synthetic.kernel("a", 1712195495519689.0, 10),
        synthetic.kernel("b", 1712195495519694.0, 10),
        synthetic.kernel("c", 1712195495519705.0, 5),
        {"ph": "s", "id": 1, "odd": [1]},
        *synthetic.launched("d", 0, 1, 1, 1),
    ]
    trace = synthetic.written(tmp_path / "t.json", events)
    text = trace.read_text().replace("1712195495519689.0", "1712195495519689.047")
    trace.write_text(text)
    copy = exported(trace, tmp_path)
    lanes = {event["name"]: event["tid"] for event in copy["traceEvents"] if event.get("cat") == "kernel"}
    assert lanes == {"a": 7, "b": "7 overlap 1", "c": 7, "d": 7}
    assert '"ts": 1712195495519689.047' in (tmp_path / "out.json").read_text()
    assert {"ph": "s", "id": 1, "odd": [1]} in copy["traceEvents"]
    gaps = [event for event in copy["traceEvents"] if event.get("pid") == TRACK and event["ph"] == "X"]
    assert len(gaps) == 2 and copy["traceName"] == "made"


@pytest.mark.parametrize(
    "name", ["b200_vllm_eager.json.gz", "mi250_toy_train.json.gz", "a100_event_sync.json.gz"]
)
def test_real_traces_come_out_whole_and_without_overlap(name: str, tmp_path: Path) -> None:
    trace = real.trace(name)
    copy = exported(trace, tmp_path)
    before, after = kineto.read(trace), kineto.read(tmp_path / "out.json")
    assert (
        sorted(before.gpu.start.tolist()) == sorted(after.gpu.start.tolist())
        and before.gpu.dur.sum() == after.gpu.dur.sum()
    )
    assert (
        before.operators.start.tolist() == after.operators.start.tolist()
        and before.phases["X"] < after.phases["X"]
    )
    lanes = defaultdict(list)
    for event in copy["traceEvents"]:
        if event.get("cat") in kineto.GPU:
            start = kineto.nanoseconds(json.dumps(event["ts"]).encode())
            lanes[event["pid"], event["tid"]].append((event["ts"], event["dur"], start))
    assert all(
        a[0] + a[1] <= b[0] + 1e-2
        for lane in lanes.values()
        for a, b in zip(sorted(lane), sorted(lane)[1:], strict=False)
    )


def test_events_that_had_to_be_mended_come_out_too(tmp_path: Path) -> None:
    odd = (
        '{"ph": "X", "cat": "kernel", "name": 7, "ts": 3, "dur": 1, "args": [1]}, {"ph": "X", "cat":'
        ' "kernel", "name": "a\x01", "ts": NaN, "dur": 1}'
    )
    trace = tmp_path / "t.json"
    trace.write_text('{"traceEvents": [' + json.dumps(synthetic.kernel("a", 0, 4)) + ", " + odd + "]}")
    copy = exported(trace, tmp_path)
    assert [
        event["tid"] for event in copy["traceEvents"] if event.get("cat") == "kernel" and "tid" in event
    ] == [7]
    assert {str(event["name"]) for event in copy["traceEvents"] if event.get("cat") == "kernel"} == {
        "a",
        "7",
        "a\x01",
    }


def test_the_trace_itself_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = synthetic.written(tmp_path / "t.json", [synthetic.kernel("a", 0, 1)])
    before = trace.read_bytes()
    assert cli.status(["review", str(trace), "--perfetto", str(trace)]) == 2
    assert cli.status(["review", str(trace), "--perfetto", str(tmp_path / "absent" / "x.json")]) == 2
    assert cli.status(["review", str(trace), "--perfetto", "-"]) == 2
    assert trace.read_bytes() == before and len(capsys.readouterr().err.splitlines()) == 3
