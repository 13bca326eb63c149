"""The page of the history in a real browser: what a person reads with a pointer, with the keyboard,
on a phone, in the dark and on paper; and its file.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.perf.history import page
from hotlap.perf.history.acknowledged import Acknowledgements
from hotlap.perf.history.archive import Point
from hotlap.perf.history.series import Series
from hotlap.perf.stats.changes import ChangePoint
from hotlap.perf.terms import units
from hotlap.perf.terms.verdict import Verdict

HOSTILE = "</title><script>document.title='owned'</script>"
COUNT = 40
PHONE, DESK = (400, 800), (1400, 900)


class Browser:
    """Chromium, told what to do over a pipe (its DevTools protocol, NUL after each message)."""

    def __init__(self, folder: Path) -> None:
        """Starts it with one empty page."""
        theirs, self.commands = os.pipe()
        self.answers, ours = os.pipe()
        asked = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{ours}', "bash", *asked, "--remote-debugging-pipe"],
            pass_fds=(theirs, ours),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self.number, self.rest, self.session = 0, b"", ""
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Returns the answer to a command; keeps what the page complains of on the way."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (heard := self.hear()).get("id") != self.number:
            pass
        assert "error" not in heard, heard
        return dict(heard["result"])

    def hear(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            read = os.read(self.answers, 1 << 20)
            assert read, "chromium has ended"
            self.rest += read
        text, _, self.rest = self.rest.partition(b"\0")
        heard = dict(json.loads(text))
        if heard.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.complaints.append(text.decode())
        return heard

    def open(self, path: Path, size: tuple[int, int] = DESK, **media: str) -> None:
        """Shows a page, in a window of this size, with these media features."""
        self.complaints.clear()
        width, height = size
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == PHONE,
        )
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self.ask("Page.navigate", url=path.as_uri())
        while self.hear().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """Returns what an expression is in the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press(self, key: str) -> None:
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=key)

    def close(self) -> None:
        os.close(self.commands)
        self.process.wait(60)
        os.close(self.answers)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two series, one with a hostile name and one with an alarm, and its JSON."""
    folder, rng = tmp_path_factory.mktemp("history"), random.Random(1)
    (folder / "results").mkdir()
    for day in range(COUNT):
        value = 1e-3 * math.exp(rng.gauss(0, 0.01))
        stats = {"mean": value, "median": value, "stddev": value / 100, "rounds": 9}
        slower = {**stats, "median": value * (1.2 if day > 32 else 1)}
        content = {
            "benchmarks": [
                {"fullname": f"{HOSTILE}|", "stats": stats},
                {"fullname": "t.py::test_b", "stats": slower},
            ],
            "datetime": f"2026-0{2 + day // 28}-{1 + day % 28:02}T06:00:00",
            "machine_info": {"machine": "x86"},
            "commit_info": {"id": f"<b>|{day}"},
        }
        (folder / "results" / f"{day}.json").write_text(json.dumps(content))
    arguments = [str(folder / "results"), "--index", str(folder / "index")]
    arguments += ["--json", str(folder / "out.json"), "--html", str(folder / "page.html")]
    assert cli.status(["history", *arguments]) == 1
    return folder


@pytest.fixture
def series(folder: Path) -> dict[str, Any]:
    """The series with an alarm, as the JSON has it."""
    every = json.loads((folder / "out.json").read_bytes())["series"]
    return next(each for each in every if each["case"] == "t.py::test_b")


def texts(series: dict[str, Any]) -> list[str]:
    """What is to be read of each point: value, date, commit."""
    return [
        f"{units.scaled(point['centre'], 's')}, 2026-0{2 + day // 28}-{1 + day % 28:02} 06:00 UTC <b> {day}"
        for day, point in enumerate(series["points"])
    ]


def test_nothing_of_a_name_runs_and_nothing_is_fetched(folder: Path, browser: Browser) -> None:
    text = (folder / "page.html").read_text()
    assert text.count("<script") == 1 and HOSTILE not in text and "http" not in text.replace("http-equiv", "")
    browser.open(folder / "page.html")
    assert browser.value("document.title") == "hotlap history: regression"
    assert browser.value("document.querySelectorAll('.plot').length") == 2
    assert browser.value("performance.getEntriesByType('resource').length") == 0
    assert "confirmed alarm" in browser.value("document.body.innerText")
    assert browser.complaints == []


@pytest.mark.parametrize("planted", ["/**/</script>", "</script><script>document.title='owned'</script>"])
def test_the_policy_lets_no_other_script_run(planted: str, folder: Path, browser: Browser) -> None:
    changed = folder / "changed.html"
    changed.write_text((folder / "page.html").read_text().replace("</script>", planted))
    browser.open(changed)
    assert browser.value("document.title") == "hotlap history: regression"
    assert browser.value("document.querySelectorAll('[role=slider]').length") == 2 * planted.count("<script>")
    assert "Content Security Policy" in str(browser.complaints)


def test_without_the_script_the_chart_and_its_words_are_there(folder: Path, browser: Browser) -> None:
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(folder / "page.html")
    browser.ask("Emulation.setScriptExecutionDisabled", value=False)
    label = browser.value("document.querySelector('.plot[role=img]').ariaLabel")
    assert label.startswith("t.py::test_b latency: 40 points, latest ")
    assert browser.value("document.querySelectorAll('.plot [hidden]').length") == 4


def test_the_keyboard_reads_every_point(folder: Path, browser: Browser, series: dict[str, Any]) -> None:
    browser.open(folder / "page.html")
    browser.value("document.querySelector('.plot').focus()")
    read = []
    for key in ("Home", *["ArrowRight"] * (COUNT - 1)):
        browser.press(key)
        read.append(browser.value("document.activeElement.ariaValueText"))
    assert read == texts(series)
    browser.press("ArrowRight")
    assert browser.value("document.activeElement.ariaValueNow") == str(COUNT)
    assert browser.value("document.querySelector('.tip').innerText") == texts(series)[-1].replace(", ", "\n")
    browser.press("Escape")
    assert browser.value("document.querySelector('.tip').hidden")


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_the_pointer_reads_every_point(
    size: tuple[int, int], folder: Path, browser: Browser, series: dict[str, Any]
) -> None:
    browser.open(folder / "page.html", size)
    browser.value("document.querySelector('.plot').scrollIntoView({block: 'center'})")
    left, top, width, height = browser.value(
        "(box => [box.left, box.top, box.width, box.height])"
        "(document.querySelector('.plot').getBoundingClientRect())"
    )
    path = browser.value("document.querySelector('.plot .dots').getAttribute('d')")
    read = []
    for x, y in re.findall(r"M(\d+) (\d+)", path):
        at = {"x": left + width * int(x) / page.WIDTH, "y": top + height * int(y) / page.HEIGHT}
        browser.ask("Input.dispatchMouseEvent", type="mouseMoved", **at)
        read.append(browser.value("document.querySelector('.tip').innerText").replace("\n", ", "))
        inside = browser.value(
            "(box => box.left >= 0 && box.right <= innerWidth)"
            "(document.querySelector('.tip').getBoundingClientRect())"
        )
        assert inside, read[-1]
    assert read == texts(series)


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_nothing_is_wider_than_the_window_and_no_labels_overlap(
    size: tuple[int, int], folder: Path, browser: Browser
) -> None:
    browser.open(folder / "page.html", size)
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    boxes = browser.value(
        "[...document.querySelector('.plot').querySelectorAll('.value, .date, .step')].map(label =>"
        " label.getBoundingClientRect()).filter(box => box.width).map(box =>"
        " [box.left, box.right, box.top, box.bottom])"
    )
    assert len(boxes) >= 3 + 3 + 1
    for number, (left, right, top, bottom) in enumerate(boxes):
        assert left >= 0 and right <= size[0]
        for other in boxes[:number]:
            apart = right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top
            assert apart, (boxes[number], other)


def test_it_is_dark_where_the_reader_has_it_dark_and_white_on_paper(folder: Path, browser: Browser) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open(folder / "page.html", prefers_color_scheme="light")
    light = browser.value(ground)
    browser.open(folder / "page.html", prefers_color_scheme="dark")
    dark = browser.value(ground)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert light == browser.value(ground) == "rgb(255, 255, 255)" != dark


def test_paper_shows_the_quiet_series_too(folder: Path, browser: Browser) -> None:
    browser.open(folder / "page.html")
    seen = "document.querySelector('details.many .plot').checkVisibility()"
    assert not browser.value(seen)
    browser.ask("Emulation.setEmulatedMedia", media="print")
    assert browser.value(seen)


def of(values: list[float], **fields: Any) -> Series:
    """A series of an hour between two points."""
    point = Point("x", 1.77e9, "net", "latency", "time", "k", "", 0.0, 0.0, "s", "lower")._replace(**fields)
    return Series(
        tuple(
            point._replace(
                measured=point.measured + 3600 * number, value=value, centre=value, revision=f"{number:040x}"
            )
            for number, value in enumerate(values)
        )
    )


def drawn(series: Series) -> dict[str, Any]:
    return page.chart(series, [], Acknowledgements(), {})


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_labels_of_many_changes_leave_each_other_room(
    size: tuple[int, int], browser: Browser, tmp_path: Path
) -> None:
    """The newest change has its label on every screen; a wide one has room for more."""
    counts = {"kind": "counter", "metric": "operators", "unit": ""}
    numbered = of([float(200 + 3 * (number // 3)) for number in range(60)], **counts)
    stairs = numbered._replace(changes=tuple(ChangePoint(index, 0.01, 0.0) for index in range(3, 60, 3)))
    file = tmp_path / "page.html"
    file.write_text(page.page(Verdict("history", "pass"), [stairs], [], Acknowledgements()))
    browser.open(file, size)
    boxes = browser.value(
        "[...document.querySelectorAll('.step')]"
        ".map(label => [label.getBoundingClientRect(), label.innerText])"
        ".filter(([box]) => box.width).map(([box, text]) => [box.left, box.right, text])"
    )
    assert boxes[-1][2] == "254 to 257" and len(boxes) >= (2 if size == PHONE else 6)
    assert all(before[1] < after[0] for before, after in pairwise(boxes))
    assert [*page.with_room({0: (100, "+1.0%"), 1: (4000, "+2.0%")}, 10)] == [1]


def test_thousands_of_points_cost_less_than_a_title_for_each() -> None:
    def size(count: int) -> int:
        rng = random.Random(1)
        series = of([1e-3 * math.exp(rng.gauss(0, 0.01)) for _ in range(count)])
        return len(page.page(Verdict("history", "pass"), [series], [], Acknowledgements()))

    title = (
        '<circle cx="399.9" cy="99.9" r="2"><title>1.23 ms 2026-02-27 10:00 UTC 0123456789ab</title></circle>'
    )
    assert (size(4000) - size(1000)) / 3000 < 0.7 * len(title)


@pytest.mark.parametrize(
    ("values", "fields", "labels"),
    [
        ([1.0e-3, 1.1e-3], {}, ["1.00 ms", "1.05 ms", "1.10 ms"]),
        ([30.0, 31.0], {"kind": "counter", "metric": "operators", "unit": ""}, ["29", "30", "31", "32"]),
        ([0.0, 0.0], {"kind": "counter", "metric": "graph_breaks", "unit": ""}, ["0", "1", "2"]),
        ([0.98, 1.12], {"kind": "paced"}, ["1.00", "1.05", "1.10"]),
        ([3 * 2**20, 4 * 2**20], {"metric": "memory", "unit": "B"}, ["3.0 MiB", "3.5 MiB", "4.0 MiB"]),
    ],
)
def test_the_values_beside_a_chart_are_round(
    values: list[float], fields: dict[str, str], labels: list[str]
) -> None:
    assert [tick["text"] for tick in drawn(of(values, **fields))["ticks"]] == labels


def test_a_level_that_holds_still_looks_like_one() -> None:
    """A ten-thousandth from top to bottom would look like trouble."""
    heights = [int(y) for y in re.findall(r"M\d+ (\d+)", drawn(of([1.0, 1.0001] * 20))["dots"])]
    assert max(heights) - min(heights) < page.HEIGHT / 20


@pytest.mark.parametrize(
    ("count", "labels"),
    [
        (1, ["02:40"]),
        (3, ["02:40", "03:40", "04:40"]),
        (24 * 9, ["2026-02-02", "2026-02-04", "2026-02-06", "2026-02-08", "2026-02-11"]),
        # A day is not named twice.
        (30, ["2026-02-02", "2026-02-03"]),
    ],
)
def test_the_dates_below_a_chart(count: int, labels: list[str]) -> None:
    assert [date["text"] for date in drawn(of([1.0] * count))["dates"]] == labels
