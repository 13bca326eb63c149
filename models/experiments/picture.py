"""The picture of an experiment: each pair's difference, the interval, and what counts as none."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from ...perf.terms import escape
from ..pictures import LIGHT, drawing, saved
from .record import FinishedExperiment

WIDTH_INCHES, ROW_INCHES, DPI = 8.0, 0.9, 120
# Of a pair, and of what all pairs say.
PAIR, MEAN = LIGHT.lines[:2]


def png(record: FinishedExperiment) -> bytes:
    """Returns the picture as PNG, 960 pixels wide."""
    with drawing(LIGHT):
        return saved(drawn(record), "png", DPI)


def drawn(record: FinishedExperiment) -> Figure:
    """Returns a row for each arm: its pairs' differences above, their mean and interval below."""
    contrasts, design, smallest = record.contrasts(), record.design, record.smallest
    size = WIDTH_INCHES, 1.6 + ROW_INCHES * len(contrasts)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(False)
    if math.isfinite(smallest):
        band = "smaller than the effect of interest"
        axes.axvspan(-smallest, smallest, color=LIGHT.faint, alpha=0.15, lw=0, label=band)
    axes.axvline(0, color=LIGHT.faint, lw=1)
    control = record.values(design.control_name)
    for row, (arm, contrast) in enumerate(contrasts.items()):
        pairs = zip(control, record.values(arm), strict=True)
        differences = [b - a for a, b in pairs if a is not None and b is not None]
        label = "a pair" if not row else None
        axes.plot(differences, [row - 0.18] * len(differences), "o", ms=6, mfc="none", mec=PAIR, label=label)
        if math.isfinite(contrast.low):
            axes.plot([contrast.low, contrast.high], [row + 0.12] * 2, color=MEAN, lw=3)
            label = "mean and its interval" if not row else None
            axes.plot([contrast.difference], [row + 0.12], "D", color=MEAN, ms=7, label=label)
    axes.set_yticks(range(len(contrasts)), [f"{arm}\n{each.answer}" for arm, each in contrasts.items()])
    axes.set_ylim(len(contrasts) - 0.5, -0.5)
    side = "left" if design.better == "lower" else "right"
    metric = escape.plain(design.metric)
    axes.set_xlabel(f"{metric}, arm minus {design.control_name} (better: {side})")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure
