"""Pictures of runs, read back: what is drawn, in which colours, of which size."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from hotlap.models import pictures
from hotlap.models.class_report import ClassReport, ConfidenceBin
from hotlap.models.curves import Curve

FALLING = Curve(0, "train", [(step, 100 / step) for step in range(1, 60)])
RISING = Curve(1, "validation", [(step, float(step)) for step in range(1, 60)])
BINS = [ConfidenceBin(0.0, 0.5, 0, None, None), ConfidenceBin(0.5, 1.0, 3, 0.8, 2 / 3)]
REPORT = ClassReport([[2, 1], [0, 0]], [1.0, 0.0], [2 / 3, None], [0.8, 0.0], BINS)


def pixels(panels: Sequence[pictures.Panel], labels: Sequence[str] = ("a",)) -> np.ndarray:
    """Returns the picture (height, width, 3)."""
    picture = imread(io.BytesIO(pictures.png(panels, labels)), format="png")
    return np.asarray(picture)[..., :3]


def holds(picture: np.ndarray, color: str) -> bool:
    return bool((np.abs(picture - to_rgb(color)).max(-1) < 0.02).any())


def test_each_run_has_a_colour_and_panels_stand_two_in_a_row() -> None:
    blue, orange, green, *_ = pictures.LIGHT.lines
    picture = pixels([pictures.over_steps("loss", [FALLING, RISING])] * 3, ["first", "second"])
    assert [holds(picture, color) for color in (blue, orange, green)] == [True, True, False]
    height, width, _ = picture.shape
    assert width == 1440 and height == pytest.approx(
        (2 * pictures.HEIGHT + pictures.LABEL_HEIGHT) * pictures.DPI, abs=1
    )


def test_runs_differ_in_colour_and_mark() -> None:
    marks = {(pictures.color(run, pictures.LIGHT), pictures.mark(run)) for run in range(42)}
    assert len(marks) == 42
    assert len(pictures.LIGHT.lines) == len(pictures.DARK.lines)


def test_a_metric_over_decades_has_a_logarithmic_axis() -> None:
    def scale(curve: Curve) -> str:
        figure = pictures.Figure()
        axes = figure.subplots()
        pictures.over_steps("loss", [curve]).draw(axes, pictures.LIGHT)
        return axes.get_yscale()

    assert scale(FALLING) == "log"
    assert scale(FALLING._replace(points=[(1, 0.0), (2, 100.0)])) == "linear"
    assert scale(FALLING._replace(points=[(1, 1.0), (2, 1e300)])) == "linear"
    assert scale(FALLING._replace(points=[(1, float("nan")), (2, 1.0)])) == "linear"


def test_a_report_is_drawn_with_its_numbers() -> None:
    figure = pictures.Figure()
    confusion, calibration = figure.subplots(1, 2)
    pictures.confusion(REPORT).draw(confusion, pictures.LIGHT)
    assert [(text.get_position(), text.get_text()) for text in confusion.texts] == [
        ((0, 0), "2"),
        ((1, 0), "1"),
    ]
    pictures.calibration(REPORT).draw(calibration, pictures.DARK)
    (bar,) = calibration.patches
    assert (bar.get_x(), bar.get_width(), bar.get_height()) == (0.5, 0.5, 2 / 3)
    assert [text.get_text() for text in calibration.texts] == ["3"]
    many = ClassReport(np.eye(50, dtype=int).tolist(), [], [], [], BINS)
    assert holds(pixels([pictures.confusion(many)]), "#08306b")


@pytest.mark.parametrize("name", [r"$\frac{$", "损失", "x\x1b[31m\n", "<script>", "a" * 500])
def test_any_name_can_be_drawn(name: str) -> None:
    """A formula is none, and what the font lacks, or no XML may hold, is no error."""
    panel = pictures.over_steps(name, [FALLING])
    assert pixels([panel], [name]).shape[1] == 1440
    text = pictures.svg(panel, pictures.DARK).decode()
    assert "<script>" not in text and "\x1b" not in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0, 1e300])
def test_any_value_can_be_drawn(value: float) -> None:
    lines = [Curve(0, "train", [(0, value)]), Curve(0, "validation", [(0, 1.0), (1, value)])]
    panel = pictures.over_steps("loss", lines)
    assert panel.words == "loss (train dashed, validation solid) over optimizer steps"
    assert pixels([panel]).shape[1] == 1440


def test_a_tall_picture_is_coarser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MOST_PIXELS", 320)
    height, width, _ = pixels([pictures.over_steps("loss", [FALLING])]).shape
    assert (height, width) == (320, 800)


def test_a_picture_is_the_same_each_time_and_leaves_no_setting() -> None:
    before = dict(matplotlib.rcParams)
    panel = pictures.over_steps("loss", [FALLING])
    assert pictures.svg(panel, pictures.LIGHT) == pictures.svg(panel, pictures.LIGHT)
    assert not re.search(rb"\d{4}-\d\d-\d\dT", pictures.svg(panel, pictures.LIGHT))
    assert dict(matplotlib.rcParams) == before
