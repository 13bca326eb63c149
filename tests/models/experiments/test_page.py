"""The page of an experiment: ours as they were committed, and one with names that mean harm."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from hotlap.models.experiments import design, page, picture, record
from hotlap.models.experiments.design import Design
from hotlap.models.experiments.record import FinishedExperiment
from hotlap.models.experiments.trials import TrialResult
from hotlap.perf.terms import verdict as verdicts

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "experiments"
OURS = sorted(FOLDER.glob("*.json"))


def ended(arm: str, seed: int, value: float | None, steps: int = 8, reason: str = "") -> TrialResult:
    status = "failed" if value is None else "finished"
    return TrialResult(arm, seed, status, value, steps, 2.0, reason)


def stored(arms: dict[str, list[float | None]], **changes: object) -> FinishedExperiment:
    """Returns an experiment with these values, the control's first."""
    control, *others = arms
    asked = Design(
        question="Is *wide* <script>alert(1)</script> better?",
        train="net:Net",
        control={control: {}},
        arms={arm: {"model.width": 32} for arm in others},
        metric="loss|x",
        better="lower",
        smallest_effect=0.1,
        seeds=len(arms[control]),
    )
    outcomes = [
        ended(arm, seed, value, reason="the loss is nan" if value is None else "")
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    whole = FinishedExperiment(
        "wide", "2026-11-30 10:00", asked, outcomes, {"cpu": "one"}, {"commit": ["a", "b"]}
    )
    return msgspec.structs.replace(whole, **changes)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_our_pages_say_what_their_files_hold(path: Path) -> None:
    kept = record.read(path)
    assert kept.design == design.read(path.with_suffix(".yaml"))
    assert path.with_suffix(".md").read_text() == page.markdown(kept)
    assert path.read_bytes() == kept.json()
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_names_from_files_stay_text() -> None:
    text = page.markdown(stored({"narrow": [1.0, 2.0], "wide": [1.0, 2.1]}))
    assert "<script>" not in text and "\\*wide\\*" in text and "loss\\|x" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "#"))) <= 100


def test_limits_are_said_where_they_are() -> None:
    kept = stored({"narrow": [1.0, 1.1, 1.3, 1.2], "wide": [1.2, 0.9, 1.4, None]})
    text = page.markdown(kept)
    assert "wide: could not tell" in text
    assert "- wide with seeds 3: the loss is nan." in text
    assert "no pattern of signs" in text and "One commit: it was a and b." in text
    # 0.2, -0.2 and 0.1 vary too much for an effect of 0.1.
    assert "1 of its trainings failed" in text
    spread = stored({"narrow": [1.0, 1.1, 1.3, 1.2], "wide": [1.2, 0.9, 1.4, 1.2]})
    assert "pairs would find 0.1" in page.markdown(spread)
    whole = stored({"narrow": [1.0, 1.1, 1.3], "wide": [1.0, 1.101, 1.299]})
    assert "no difference larger than 0.1" in page.markdown(whole)
    assert "pairs would find" not in page.markdown(whole)


def test_what_failed_is_no_matter_of_spread_or_budget() -> None:
    kept = stored({"narrow": [1.0, 1.1, 1.3, 1.2], "wide": [1.2, 1.31, 1.52, None]})
    failed = [
        msgspec.structs.replace(each, steps=0) if each.value is None else each for each in kept.outcomes
    ]
    text = page.markdown(msgspec.structs.replace(kept, outcomes=failed))
    assert "pairs would find" not in text and "Equal numbers of steps" not in text


def test_an_answer_counts_whatever_the_others_are() -> None:
    some = stored({"narrow": [1.0, 2.0, 3.0], "bad": [1.5, 2.5, 3.51], "open": [0.0, 3.0, 3.0]})
    assert some.verdict().verdict == "regression" and not some.told
    assert stored({"narrow": [1.0, 2.0, 3.0], "bad": [1.5, 2.5, 3.51]}).told


@pytest.mark.parametrize("start", ["#", "-", "+", "=", "12."])
def test_a_broken_line_begins_no_list_or_heading(start: str) -> None:
    """Wherever the line is broken."""
    texts = [page.bullet("x" * count + f" {start} b" * 40) for count in range(1, 20)]
    begins = {line.split()[0] for _, *lines in texts for line in lines}
    assert begins <= {"b", "12\\." if start == "12." else f"\\{start}"} and len(begins) == 2


def test_budgets_that_differ_are_said() -> None:
    equal = stored({"narrow": [1.0, 2.0], "wide": [1.0, 2.1]})
    assert "Equal numbers of steps" not in page.markdown(equal)
    outcomes = [ended(each.arm, each.seed, each.value, 8 + (each.arm == "wide")) for each in equal.outcomes]
    uneven = msgspec.structs.replace(equal, outcomes=outcomes)
    assert "- Equal numbers of steps: narrow 8, wide 9 on average." in page.markdown(uneven)


@pytest.mark.parametrize(
    ("wide", "verdict"),
    [([0.5, 1.5, 2.51], "pass"), ([1.5, 2.5, 3.51], "regression"), ([0.0, 3.0, 3.0], "inconclusive")],
)
def test_a_gate_reads_the_answer(tmp_path: Path, wide: list[float | None], verdict: str) -> None:
    kept = stored({"narrow": [1.0, 2.0, 3.0], "wide": wide})
    path = tmp_path / "wide.json"
    path.write_bytes(kept.json())
    assert verdicts.read(path).verdict == verdict
    assert record.read(path) == kept


def test_a_picture_of_whatever_there_is(tmp_path: Path) -> None:
    for values in ([None, None, None], [1.0, None, None], [1.5, 2.0, 2.5]):
        image = picture.png(stored({"narrow": [1.0, 2.0, 3.0], "wide": values}))
        assert image.startswith(b"\x89PNG") and len(image) > 5000
