"""What an experiment gave: every training's value, what the pairs say, and the file that holds it.

The file is a verdict, so that `hotlap gate BASE HEAD --with FILE` counts it, and has all that the
page is made of. Imports no torch.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from ...perf.stats.arms import Answer, Contrast, contrasts
from ...perf.stats.compare import Outcome
from ...perf.stats.estimates import fmean
from ...perf.terms import stored
from ...perf.terms.verdict import Finding, Verdict, worst
from .design import Design
from .trials import TrialResult

# Version of the section `experiment`. 1 (0.1.0): the first.
SCHEMA = 1
TOOL = "experiment"
# What an answer means to a gate whose BASE is the control.
MEANING: dict[Answer, Outcome] = {
    "better": "pass",
    "no difference": "pass",
    "worse": "regression",
    "could not tell": "inconclusive",
}


class FinishedExperiment(msgspec.Struct, frozen=True):
    """A finished experiment."""

    name: str
    # When the design was written down, in UTC, before the first training.
    registered: str
    design: Design
    outcomes: list[TrialResult]
    # Where the first training took place.
    place: dict[str, Any]
    # What of that was not the same for all trainings -> its values.
    varied: dict[str, list[Any]]
    schema: int = SCHEMA

    def of(self, arm: str) -> list[TrialResult]:
        """Returns how an arm's trainings ended, in the order of the seeds."""
        known = {outcome.seed: outcome for outcome in self.outcomes if outcome.arm == arm}
        return [known[seed] for seed in self.design.every_seed]

    def values(self, arm: str) -> list[float | None]:
        """Returns an arm's metric by seed; None where the training failed."""
        return [outcome.value for outcome in self.of(arm)]

    @property
    def smallest(self) -> float:
        """The smallest effect of interest, in the metric's unit."""
        return self.design.smallest(mean(self.values(self.design.control_name)))

    def contrasts(self) -> dict[str, Contrast]:
        """Returns what is known of each arm against the control."""
        arms = {arm: self.values(arm) for arm in self.design.arms}
        control = self.values(self.design.control_name)
        return contrasts(control, arms, self.smallest, self.design.better, self.design.alpha)

    @property
    def told(self) -> bool:
        """Whether each arm has an answer."""
        return all(contrast.answer != "could not tell" for contrast in self.contrasts().values())

    def verdict(self) -> Verdict:
        """Returns the answers as a verdict: control is BASE, an arm HEAD."""
        base = mean(self.values(self.design.control_name))
        findings = tuple(
            Finding(
                f"{self.name}/{arm}",
                self.design.metric,
                MEANING[contrast.answer],
                base=finite(base),
                head=finite(mean(self.values(arm))),
                better=self.design.better,
                evidence=(sentence(self, arm, contrast),),
            )
            for arm, contrast in self.contrasts().items()
        )
        return Verdict(TOOL, worst([finding.verdict for finding in findings]), findings=findings)

    def json(self) -> bytes:
        """Returns the file."""
        content = msgspec.to_builtins(self.verdict()) | {"experiment": msgspec.to_builtins(self)}
        return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


class _File(msgspec.Struct):
    experiment: FinishedExperiment


def read(path: Path) -> FinishedExperiment:
    """Reads a finished experiment. Raises Misuse where there is none, Unreadable."""
    return stored.decode(path, stored.content(path), _File, "not what an experiment gave").experiment


def sentence(record: FinishedExperiment, arm: str, contrast: Contrast) -> str:
    """Returns the answer about one arm in a line."""
    control, metric = record.design.control_name, record.design.metric
    answer: str = contrast.answer
    if answer == "no difference":
        answer = f"no difference larger than {record.smallest:.3g}"
    reason = f" ({contrast.reason})" if contrast.reason else ""
    if not contrast.pairs:
        return f"{arm}: {answer}{reason}"
    span = (
        f", {100 * contrast.confidence:.4g} % interval {contrast.low:+.3g} to {contrast.high:+.3g}"
        if math.isfinite(contrast.low)
        else ""
    )
    return (
        f"{arm}: {answer}{reason}. {metric} {contrast.control + contrast.difference:.5g} against"
        f" {contrast.control:.5g} of {control}: {contrast.difference:+.3g}{span}, from"
        f" {contrast.pairs} pairs"
    )


def mean(values: list[float | None]) -> float:
    """Returns the mean of the values that there are; NaN of none."""
    present = [value for value in values if value is not None]
    return fmean(present) if present else math.nan


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
