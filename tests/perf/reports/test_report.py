"""Tables: the arithmetic of their cells, and what stands in none."""

from __future__ import annotations

import hashlib
import io
import math
import re
from typing import Any

import msgspec
import pytest

from hotlap.perf.lookup.cases import LIBRARY_DEFAULTS
from hotlap.perf.reports import report
from hotlap.perf.reports.console import console
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.environment import Environment
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Deviation, Distance, Result, Results, Samples, Task

HERE = Environment(
    "Xeon",
    2,
    2**30,
    (),
    "Linux",
    "3.11.7",
    {"torch": "2.14.1", "triton": "3"},
    (),
    "",
    2,
    "keep",
    "madvise",
    "",
    "host",
)


def result(
    backend: str = "eager",
    latency_s: float | list[float] = 0.02,
    cold_s: float = 1.0,
    race: str = "r",
    **more: Any,
) -> Result:
    """Three blocks of samples, of one latency or one each."""
    lengths = latency_s if isinstance(latency_s, list) else [latency_s] * 3
    metrics = {
        "latency": Samples("s", "lower", tuple((length, length) for length in lengths)),
        "throughput": Samples(
            "1/s", "higher", tuple((8 / length,) for length in lengths), details={"item": "image"}
        ),
        "memory": Samples("B", "lower", ((300 * 2**20,),), details={"growth_bytes": 100 * 2**20}),
        "cold_start": Samples("s", "lower", ((cold_s,),)),
    }
    options = more.pop("options", ())
    return Result(
        Case("net", backend, options=options), race, Plan(), **{"status": "ok", "metrics": metrics, **more}
    )


def cells(last: Result, *others: Result) -> dict[str, str]:
    """The row of one result among others, by column."""
    return dict(zip(report.HEAD, report.rows([*others, last])[-1], strict=True))


def failed(backend: str, code: Any, **more: Any) -> Result:
    return result(backend, status="failed", reason=Reason(code, "because"), metrics={}, **more)


def test_a_case_half_as_slow_shows_twice_the_speed() -> None:
    row = cells(result("null", 0.01), result(latency_s=0.02))
    assert row["speed-up"] == "2.00x ±0.0%"
    assert cells(result("null", 0.04), result(latency_s=0.02))["speed-up"] == "0.50x ±0.0%"


def test_the_interval_of_a_speed_up_is_over_the_blocks_of_the_race() -> None:
    """Both drift by a factor of four; block ratios are 2, 2.2 and 1.8."""
    row = cells(result("null", [0.01, 0.02, 0.04]), result(latency_s=[0.02, 0.044, 0.072]))
    logs = [math.log(value) for value in (2, 2.2, 1.8)]
    mean = sum(logs) / 3
    half = 4.302653 * math.sqrt(sum((value - mean) ** 2 for value in logs) / 2 / 3)
    assert row["speed-up"] == f"{math.exp(mean):.2f}x ±{math.expm1(half):.1%}"


def test_a_case_has_its_measured_quantities_with_units() -> None:
    row = cells(result("null", 0.01, cold_s=2.5))
    assert row["case"] == "net null"
    assert row["latency"] == "10.0 ms ±0.0%"
    assert row["throughput"] == "800 images/s"
    assert row["memory"] == "300 MiB +100 MiB"
    assert row["cold start"] == "2.50 s"
    assert row["status"] == "ok"


def test_the_baseline_is_not_compared_with_itself() -> None:
    row = cells(result())
    assert (row["speed-up"], row["pays after"]) == ("", "")


def test_a_case_is_compared_within_its_race_only() -> None:
    elsewhere, own = result(latency_s=0.08, race="other"), result(latency_s=0.02)
    assert cells(result("null", 0.01), elsewhere)["speed-up"] == ""
    assert cells(result("null", 0.01), elsewhere, own)["speed-up"] == "2.00x ±0.0%"


def test_eager_under_library_defaults_is_a_second_baseline() -> None:
    defaults = result(latency_s=0.06, options=LIBRARY_DEFAULTS)
    row = cells(result("null", 0.01), result(latency_s=0.02), defaults)
    assert (row["speed-up"], row["over defaults"]) == ("2.00x ±0.0%", "6.00x ±0.0%")
    assert cells(defaults, result(latency_s=0.02))["case"] == "net eager (library defaults)"


@pytest.mark.parametrize(
    ("cold_s", "latency_s", "text"),
    [
        (11.0, 0.01, "1000 calls"),
        (1.5, 0.01, "50.0 calls"),
        (11.0, 0.02, "never"),
        (11.0, 0.03, "never"),
        (1.0, 0.01, "at once"),
        (0.5, 0.02, "at once"),
        (0.5, 0.03, "until 50.0 calls"),
    ],
)
def test_break_even_with_an_eager_that_starts_in_1_s_and_takes_20_ms(
    cold_s: float, latency_s: float, text: str
) -> None:
    assert cells(result("null", latency_s, cold_s), result(latency_s=0.02, cold_s=1.0))["pays after"] == text


def test_a_case_without_a_time_shows_its_reason_and_no_number() -> None:
    distance = Distance(0.3, 0.01, 0.1, 2.0, 0.0, 0.9, 0, 10)
    row = cells(
        failed(
            "null",
            "accuracy",
            deviation=Deviation({"real": distance}, Task("top-1", "higher", 0.5, 0.9, 0.01)),
        ),
        result(),
    )
    shown = {
        "case": "net null",
        "deviation": "3.0 of allowed",
        "task metric": "top-1 0.5000",
        "status": "failed: accuracy",
    }
    assert row == {**dict.fromkeys(report.HEAD, ""), **shown}


def test_the_deviation_is_the_worst_share_of_what_is_allowed() -> None:
    def distance(rmse: float, tolerance: float) -> Distance:
        return Distance(rmse, 0.0, tolerance, 2.0, 0.0, 1.0, 0, 10)

    both = Deviation({"random": distance(1.0, 10.0), "real": distance(0.5, 1.0)})
    assert cells(result(deviation=both))["deviation"] == "0.50 of allowed"
    assert cells(result(deviation=Deviation({"real": distance(0.0, 0.0)})))["deviation"] == "0 of allowed"
    assert cells(result(deviation=Deviation({"real": distance(0.1, 0.0)})))["deviation"] == "inf of allowed"


def test_the_case_is_named_by_what_is_not_usual() -> None:
    case = Case("net", "compile", "bf16", 8, options=(("mode", "max-autotune"),))
    row = report.row(Result(case, "r", Plan(), "ok"), None, None)
    assert row[0] == "net compile[mode:max-autotune] bf16 b8"


def test_reasons_and_warnings_of_several_cases_share_a_line() -> None:
    three = [failed(backend, "timeout") for backend in ("a", "b", "c")]
    assert report.reasons([*three, result(warnings=("mind",))]) == [
        (
            "net/a/fp32/b1/cpu/inference, net/b/fp32/b1/cpu/inference, net/c/fp32/b1/cpu/inference: failed:"
            " timeout: because"
        ),
        "net/eager/fp32/b1/cpu/inference: mind",
    ]
    assert report.reasons([*three, failed("d", "timeout")]) == ["4 cases: failed: timeout: because"]


def test_a_wide_interval_is_not_called_by_the_word_of_a_failure() -> None:
    """The file keeps its status; what is shown has the interval beside it."""
    wide = result(
        "null", [0.01, 0.012, 0.014], status="noisy", reason=Reason("wide_interval", "known to 14%")
    )
    unsteady = result("null", status="noisy", reason=Reason("not_steady", "warm-up"))
    assert cells(wide, result())["status"] == "ok, wide interval"
    assert "±" in cells(wide, result())["speed-up"]
    assert report.reasons([wide]) == ["net/null/fp32/b1/cpu/inference: ok, wide interval: known to 14%"]
    assert cells(unsteady)["status"] == "noisy: not_steady"
    assert cells(failed("null", "wide_interval"))["status"] == "failed: wide_interval"


def test_the_pace_has_neither_a_row_nor_a_reason() -> None:
    pace = result("pace", status="noisy", reason=Reason("not_steady", "warm-up"))
    assert [str(cell) for cell in report.table([result(), pace], 200).columns[0].cells] == ["net eager"]
    assert report.reasons([pace]) == []


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_markdown_has_the_setting_the_used_columns_and_no_pace() -> None:
    text = report.markdown(
        Results("r", "", {HERE.key: HERE}, results=(result(), result("null", 0.01), result("pace", 0.001)))
    )
    assert text.startswith(
        "Xeon, 2 of 2 cores (baseline), 1 GiB, no GPU; torch 2.14.1; Python 3.11.7; allocator keep.\n"
    )
    assert "fp32, batch 1, cpu. Baseline: eager of the same race." in text
    head, rule, *rows = lines(text)
    assert head == "| case | latency | speed-up | throughput | memory | cold start | pays after | status |"
    assert rule == "|" + "---|" * 8
    assert [row.split(" | ")[0] for row in rows] == ["| net eager", "| net null"]
    assert report.LEGEND in text


def test_results_of_two_commits_name_both() -> None:
    first, second = (msgspec.structs.replace(HERE, commit=name * 40) for name in "ab")
    setting = report.setting(
        Results("r", "hotlap run", {environment.key: environment for environment in (first, second)})
    )
    assert len(setting) == 2 and setting[1] == "Measured at commits aaaaaaa, bbbbbbb"
    assert len(report.setting(Results("r", "hotlap run", {first.key: first}))) == 1


def test_markdown_escapes_pipes() -> None:
    task = Task("top|1", "higher", 0.5, 0.5, 0.0)
    head, rule, row = lines(
        report.markdown(Results("r", "", {}, results=(result(deviation=Deviation({}, task)),)))
    )
    assert "top\\|1 0.5000" in row
    assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", head)) == rule.count("|")


def columns(width: int, *results: Result) -> list[object]:
    return [column.header for column in report.table(results, width).columns]


def test_a_table_leaves_out_columns_that_are_empty_everywhere() -> None:
    used = ["case", "latency", "speed-up", "throughput", "memory", "cold start", "pays after", "status"]
    assert columns(200, failed("null", "timeout")) == ["case", "status"]
    assert columns(200, result(), result("null", 0.01)) == used
    speedups = report.table([result(), result("null", 0.01)], 200).columns[2]
    assert [str(cell) for cell in speedups.cells] == ["", "2.00x ±0.0%"]


def test_a_narrow_table_leaves_out_the_least_important_columns_instead_of_folding() -> None:
    both = result(), result("null", 0.01)
    everything = columns(200, *both)
    for width in range(40, 120):
        used = columns(width, *both)
        gone = [name for name in report.FIRST_TO_GO if name in everything and name not in used]
        assert gone == [name for name in report.FIRST_TO_GO if name in everything][: len(gone)]
        printed = console(width=width, file=io.StringIO())
        printed.print(report.table(both, width))
        assert isinstance(printed.file, io.StringIO)
        assert len(printed.file.getvalue().splitlines()) == 3 or len(gone) == len(
            set(everything) & set(report.FIRST_TO_GO)
        )


def test_a_table_prints_names_with_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(report.table([result("compile", options=(("mode", "max-autotune"),))], 200))
    assert "net compile[mode:max-autotune]" in capsys.readouterr().out


def test_the_digest_is_the_beginning_of_sha256() -> None:
    assert report.digest(b"content") == hashlib.sha256(b"content").hexdigest()[:16]
