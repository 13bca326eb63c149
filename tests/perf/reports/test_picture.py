"""The picture of a results file, and the table of one row a model."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from hotlap.perf.lookup.cases import LIBRARY_DEFAULTS
from hotlap.perf.reports import brief, picture
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Result, Results, Samples

SVG = "{http://www.w3.org/2000/svg}"


def timed(backend: str, latency_s: list[float], workload: str = "net", **more: Any) -> Result:
    """One sample a block; results of one workload share a race."""
    latency = Samples("s", "lower", tuple((value,) for value in latency_s))
    case = Case(workload, backend, options=more.pop("options", ()))
    return Result(case, workload, Plan(), **{"status": "ok", "metrics": {"latency": latency}, **more})


def drawn(*results: Result) -> ElementTree.Element:
    return ElementTree.fromstring(picture.svg(Results("r", "", {}, results=results)))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def centres(root: ElementTree.Element) -> list[float]:
    return [float(element.attrib["cx"]) for element in root.iter(f"{SVG}circle")]


def test_the_axis_is_logarithmic_about_eager() -> None:
    """Twice as fast and half as fast are equally far from 1."""
    root = drawn(timed("eager", [1.0] * 3), timed("null", [0.5, 0.5, 0.5]), timed("compile", [2.0, 2.0, 2.0]))
    parity = next(
        float(line.attrib["x1"]) for line in root.iter(f"{SVG}line") if line.attrib["class"] == "one"
    )
    fast, slow = centres(root)
    assert fast - parity > 50
    assert abs((fast - parity) - (parity - slow)) <= 0.11
    assert {"2.00x ±0.0%", "0.50x ±0.0%"} <= {*texts(root)}


def test_an_interval_ends_where_its_figures_say() -> None:
    """Block ratios of 2, 2.2 and 1.8: Student's t over three logs."""
    root = drawn(timed("eager", [0.02, 0.044, 0.072]), timed("null", [0.01, 0.02, 0.04]))
    bar = next(line.attrib for line in root.iter(f"{SVG}line") if line.attrib["class"] == "interval")
    marks = picture.grouped([timed("eager", [0.02, 0.044, 0.072]), timed("null", [0.01, 0.02, 0.04])])
    ((mark,),) = marks.values()
    assert mark.speedup is not None
    axis = picture.axis_of([mark])
    assert [float(bar["x1"]), float(bar["x2"])] == [
        round(axis.x(value), 1) for value in (mark.speedup.low, mark.speedup.high)
    ]
    assert float(bar["x1"]) < centres(root)[0] < float(bar["x2"])


def test_a_case_without_a_time_has_its_reason_and_no_mark() -> None:
    wrong = timed("null", [], status="failed", reason=Reason("accuracy", "because"), metrics={})
    root = drawn(timed("eager", [1.0] * 3), wrong)
    assert centres(root) == []
    assert {"null", "failed: accuracy"} <= {*texts(root)}


def test_one_block_has_a_mark_and_no_interval() -> None:
    root = drawn(timed("eager", [1.0]), timed("null", [0.5]))
    assert len(centres(root)) == 1
    assert [line for line in root.iter(f"{SVG}line") if line.attrib["class"] == "interval"] == []


def test_names_cannot_break_the_picture() -> None:
    mark = picture.Mark('<b>&"', None, "</svg>")
    root = ElementTree.fromstring("".join(["<g>", *picture.drawn(mark, picture.axis_of([mark]), 0), "</g>"]))
    assert [element.text for element in root.iter("text")] == ['<b>&"', "</svg>"]


def test_the_pace_and_the_library_defaults_are_not_drawn() -> None:
    root = drawn(
        timed("eager", [1.0] * 3),
        timed("eager", [1.0] * 3, options=LIBRARY_DEFAULTS),
        timed("pace", [1.0] * 3),
    )
    assert centres(root) == []


def test_the_brief_table_has_the_fastest_of_each_model() -> None:
    results = Results(
        "r",
        "",
        {},
        results=(
            timed("eager", [1.0] * 3),
            timed("null", [0.5] * 3),
            timed("compile", [0.8] * 3),
            timed("eager", [1.0] * 3, "other"),
            timed("compile", [], "other", status="failed", reason=Reason("accuracy", "because"), metrics={}),
        ),
    )
    lines = [line for line in brief.markdown(results).splitlines() if line.startswith("|")]
    assert lines[2:] == ["| net | null, 500 ms | 2.00x ±0.0% |  |  |", "| other | eager, 1.00 s |  |  |  |"]


@pytest.mark.parametrize(("code", "words"), [("wide_interval", "wide interval"), ("not_steady", "noisy")])
def test_the_brief_table_says_what_is_noisy(code: Any, words: str) -> None:
    noisy = timed("null", [0.5] * 3, status="noisy", reason=Reason(code, "because"))
    assert brief.cells([timed("eager", [1.0] * 3), noisy], noisy)[1] == f"null, 500 ms ({words})"
