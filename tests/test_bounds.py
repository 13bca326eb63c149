"""Files and options that ask for more than there is: each ends in one line, exit 4 for a file and 2
for what was typed, within a few seconds of CPU time and little memory.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parent / "perf" / "terms" / "results-0.1.0.json"
CPU_S, MEMORY_BYTES = 20, 3 << 30
LIMITED = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S}))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
from hotlap.perf.cli import main
main(sys.argv[1:])
"""


def limited(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of hotlap that may have so much CPU time and memory and no more."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def results(**latency: Any) -> bytes:
    """A results file, with something else in every latency."""
    stored = json.loads(RESULTS.read_bytes())
    for result in stored["results"]:
        if "latency" in result["metrics"]:
            result["metrics"]["latency"] |= latency
    return json.dumps(stored).encode()


def trace(event: str, around: str = "") -> bytes:
    """A trace of one good event and one more."""
    good = '{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": 2, "pid": 0, "tid": 7, "args": {}}'
    return f'{{{around}"traceEvents": [{good}, {event}]}}'.encode()


def gzip_bomb(head: bytes, filling: bytes, gigabytes: int) -> bytes:
    """After a full flush a block stands for itself, so that it can be repeated."""
    pack = zlib.compressobj(9, wbits=31)
    start = pack.compress(head) + pack.flush(zlib.Z_FULL_FLUSH)
    megabyte = pack.compress(filling * ((1 << 20) // len(filling))) + pack.flush(zlib.Z_FULL_FLUSH)
    return start + megabyte * (gigabytes << 10) + pack.flush()


DEEP = "[" * 200_000
NESTED = "[" * 5000 + "]" * 5000
BEYOND = '{"ph": "X", "cat": "kernel", "name": "k", "ts": %s, "dur": %s, "pid": 0, "tid": 7}'
CSV = ("history", "--csv", "FILE", "--column", "s", "--json", "-")
# What is planted -> content, command, words of the refusal.
FILES: dict[str, tuple[Callable[[], bytes], tuple[str, ...], str]] = {
    "no values": (lambda: results(values=[]), ("report", "FILE"), "latency has no values"),
    "empty blocks": (lambda: results(values=[[], []]), ("report", "FILE"), "latency has no values"),
    "1e308": (lambda: results(values=[[1e308] * 3] * 3), ("report", "FILE"), "no measurement"),
    "1e308 in a gate": (lambda: results(values=[[1e308] * 3] * 3), ("gate", "FILE", "FILE"), "measurement"),
    "below 0": (lambda: results(values=[[-1.0]]), ("report", "FILE"), "no measurement"),
    "0": (lambda: results(values=[[0.0]]), ("report", "FILE"), "no measurement"),
    "NaN": (lambda: results(values=[[float("nan")]]), ("report", "FILE"), "not a results file"),
    "null": (lambda: results(values=[[None]]), ("report", "FILE"), "Expected `float`, got `null`"),
    "deep results": (lambda: b'{"schema": 1, "run": ' + DEEP.encode(), ("report", "FILE"), "recursion"),
    "huge integer": (lambda: b'{"schema": ' + b"9" * 10**6 + b"}", ("report", "FILE"), "out of range"),
    "integer beyond 64 bits": (
        lambda: RESULTS.read_bytes().replace(b'"memory_bytes":', b'"memory_bytes":1' + b"0" * 400 + b',"x":'),
        ("report", "FILE"),
        "memory_bytes",
    ),
    "deep pytest-benchmark": (
        lambda: f'{{"benchmarks": [], "machine_info": {{"a": {NESTED}}}}}'.encode(),
        ("gate", "FILE", "FILE"),
        "damaged results of pytest-benchmark",
    ),
    "huge number of rounds": (
        lambda: b'{"benchmarks": [{"fullname": "a", "stats": {"mean": 1, "rounds": 1e999990}}]}',
        ("gate", "FILE", "FILE"),
        "pytest-benchmark: a: ",
    ),
    "deep verdict": (
        lambda: DEEP.encode(),
        ("gate", str(RESULTS), str(RESULTS), "--with", "FILE"),
        "not a verdict",
    ),
    "deep policy": (
        lambda: f"a = {NESTED}".encode(),
        ("gate", str(RESULTS), str(RESULTS), "--policy", "FILE"),
        "not a policy",
    ),
    "large policy": (
        lambda: b"[[case]]\nmatch = 'a'\n" * 100_000,
        ("gate", str(RESULTS), str(RESULTS), "--policy", "FILE"),
        "more than 1 MiB",
    ),
    "endless device": (lambda: b"", ("report", "/dev/zero"), "more than 256 MiB"),
    "endless device in a gate": (lambda: b"", ("gate", "/dev/zero", "FILE"), "more than 256 MiB"),
    "endless CSV": (lambda: b"", ("history", "--csv", "/dev/zero", "--column", "s"), "more than 64 MiB"),
    "infinity in a CSV": (lambda: b"s\n1e999990\n", CSV, "row 2 has no measurement"),
    "NaN in a CSV": (lambda: b"s\nnan\n", CSV, "row 2 has no measurement"),
    "below 0 in a CSV": (lambda: b"s\n-1\n", CSV, "row 2 has no measurement"),
    "large field of a CSV": (lambda: b"s\n" + b"1" * 10**6, CSV, "field larger than field limit"),
    "deep trace": (lambda: DEEP.encode(), ("review", "FILE"), ""),
    "bomb of one name": (
        lambda: gzip_bomb(b'[{"ph": "X", "name": "', b"a", 4), ("review", "FILE"), "no trace"),
    "bomb of events": (lambda: gzip_bomb(b"[", b'{"ph":"i"}, ', 4), ("review", "FILE"), "times its size"),
    "bomb of blanks": (lambda: gzip_bomb(b"", b" ", 4), ("review", "FILE"), ""),
    "bomb behind the events": (lambda: gzip_bomb(b"[{}]", b" ", 4), ("review", "FILE"), "times its size"),
    "duration of 1e999990": (lambda: trace(BEYOND % (5, "1e999990")), ("review", "FILE"), ""),
    "quoted duration of 1e999990": (lambda: trace(BEYOND % (5, '"1e999990"')), ("review", "FILE"), ""),
    "start of -1e999990": (lambda: trace(BEYOND % ("-1e999990", 1)), ("review", "FILE"), ""),
    "end beyond the clock": (lambda: trace(BEYOND % (4 * 10**15, 4 * 10**15)), ("review", "FILE"), ""),
    "baseline that is deep": (
        lambda: b'{"a/b": ' + DEEP.encode(), ("kernels", "--stored", "FILE"), "not what hotlap kernels"),
}  # fmt: skip
OPTIONS: dict[str, tuple[str, ...]] = {
    "1e999990": ("run", "mlp", "--budget", "1e999990"),
    "400 digits": ("run", "mlp", "--budget", "9" * 400),
    "many digits": ("ab", "HEAD", "HEAD", "a:b", "--timeout", "9" * 100_000),
    "two years": ("run", "mlp", "--timeout", "20000h"),
    "batch": ("run", "mlp", "--batch", "9" * 5000),
    "threads": ("run", "mlp", "--threads", "9" * 30),
    "calls": ("profile", "mlp", "--wait", "9" * 30),
}


def one_line(text: str) -> None:
    assert text.count("\n") == 1 and text.startswith("hotlap: ") and len(text) < 700, text[:2000]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_asks_for_too_much_is_one_line(name: str, tmp_path: Path) -> None:
    content, command, words = FILES[name]
    (tmp_path / "FILE").write_bytes(content())
    done = limited(*command, cwd=tmp_path)
    assert done.returncode == 4, (done.returncode, done.stderr[-2000:])
    if done.stderr or words:  # a trace that is damaged in part is reviewed, and says so
        one_line(done.stderr)
    assert words in done.stderr


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_asks_for_too_much_is_one_line(name: str, tmp_path: Path) -> None:
    done = limited(*OPTIONS[name], cwd=tmp_path)
    assert done.returncode == 2, (done.returncode, done.stderr[-2000:])
    one_line(done.stderr)


def test_the_limits_are_limits(tmp_path: Path) -> None:
    """A process that takes the memory, or the time, does not get away with it."""
    for waste in ("bytes(4 << 30)", "[None for _ in iter(int, 1)]"):
        script = LIMITED.replace("from hotlap.perf.cli import main", waste).replace(
            f"({CPU_S}, {CPU_S})", "(1, 1)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=120, check=False)
        assert done.returncode != 0


def test_many_members_of_gzip_are_read_in_time(tmp_path: Path) -> None:
    """Each empty member is a few bytes; what follows it is not copied again for each."""
    content = gzip.compress(b"") * 50_000 + gzip.compress(trace('{"ph": "i"}'))
    (tmp_path / "FILE").write_bytes(content)
    done = limited("review", "FILE", cwd=tmp_path)
    assert done.returncode in (0, 4), done.stderr
