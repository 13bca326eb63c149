"""The picture of an experiment: each pair's difference, the interval, and what counts as none."""

from __future__ import annotations

import io
import math

from ...perf.terms import escape
from .record import FinishedExperiment

# Of the palette of Okabe and Ito (Color Universal Design, 2008), which colour-blind people tell
# apart.
BLUE, VERMILION, GREY = "#0072B2", "#D55E00", "#666666"
WIDTH_INCHES, ROW_INCHES, DPI = 8.0, 0.9, 120


def png(record: FinishedExperiment) -> bytes:
    """Returns the picture as PNG, 960 pixels wide."""
    from matplotlib.figure import Figure

    contrasts = record.contrasts()
    design, smallest = record.design, record.smallest
    figure = Figure(figsize=(WIDTH_INCHES, 1.6 + ROW_INCHES * len(contrasts)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(
        -smallest, smallest, color=GREY, alpha=0.15, lw=0, label="smaller than the effect of interest"
    )
    axes.axvline(0, color=GREY, lw=1)
    control = record.values(design.control_name)
    for row, (arm, contrast) in enumerate(contrasts.items()):
        pairs = zip(control, record.values(arm), strict=True)
        differences = [b - a for a, b in pairs if a is not None and b is not None]
        rows = [row - 0.18] * len(differences)
        axes.plot(differences, rows, "o", ms=6, mfc="none", mec=BLUE, label="a pair" if not row else None)
        if math.isfinite(contrast.low):
            axes.plot([contrast.low, contrast.high], [row + 0.12] * 2, color=VERMILION, lw=3)
            axes.plot(
                [contrast.difference],
                [row + 0.12],
                "D",
                color=VERMILION,
                ms=7,
                label="mean and its interval" if not row else None,
            )
    axes.set_yticks(range(len(contrasts)), [f"{arm}\n{each.answer}" for arm, each in contrasts.items()])
    axes.set_ylim(len(contrasts) - 0.5, -0.5)
    side = "left" if design.better == "lower" else "right"
    metric = escape.plain(design.metric).replace("$", r"\$")  # no formula
    axes.set_xlabel(f"{metric}, arm minus {design.control_name} (better: {side})")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
