"""What an experiment asks: read, and refused in one line where it could not be answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotlap.models.experiments import design
from hotlap.perf.terms.reasons import Misuse

WHOLE = """
question: Is wide better?
train: mlp
control: {narrow: {}}
arms: {wide: {model.width: 128, trainer.callbacks: [{class_path: EMAWeightAveraging}]}}
metric: accuracy
better: higher
smallest_effect: 1%
seeds: 3
settings: {trainer.max_epochs: 2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "wide.yaml"


def test_a_design_says_what_each_training_is(file: Path) -> None:
    file.write_text(WHOLE)
    read = design.read(file)
    assert read.overrides("narrow", 2) == ["trainer.max_epochs=2", "seed_everything=2"]
    assert read.overrides("wide", 0) == [
        "trainer.max_epochs=2",
        "model.width=128",
        'trainer.callbacks=[{"class_path":"EMAWeightAveraging"}]',
        "seed_everything=0",
    ]
    assert list(read.every_arm) == ["narrow", "wide"] and read.every_seed == [0, 1, 2]
    assert read.smallest(-2.0) == pytest.approx(0.02)


def test_more_samples_at_equal_steps_are_no_equal_budget(file: Path) -> None:
    file.write_text(WHOLE.replace("max_epochs", "max_steps").replace("model.width", "data.batch_size"))
    with pytest.raises(Misuse, match=r"with trainer\.max_steps another data\.batch_size is another budget"):
        design.read(file)


@pytest.mark.parametrize("effect", ["1e-3", "0.001", "'0.001'"])
def test_an_effect_may_be_written_as_yaml_reads_it(file: Path, effect: str) -> None:
    file.write_text(WHOLE.replace("1%", effect))
    assert design.read(file).smallest(5.0) == 0.001


def test_a_fingerprint_is_of_all_that_is_said(file: Path) -> None:
    content = {"seeds": 3, "arms": {"b": {}, "a": {}}}
    same = {"arms": {"a": {}, "b": {}}, "seeds": 3}
    assert design.fingerprint(content) == design.fingerprint(same)
    assert design.fingerprint(content) != design.fingerprint({**content, "seeds": 4})
    assert design.fingerprint(content) != design.fingerprint(content, b"model: ...")


MISTAKES = [
    ("question", "qestion", "nothing is called 'qestion' in an experiment; did you mean question?"),
    ("metric: accuracy", "", "Object missing required field `metric`"),
    ("better: higher", "better: larger", "Invalid enum value 'larger' - at `$.better`"),
    ("seeds: 3", "seeds: 1", "seeds: 2 to 1000 different ones, or how many"),
    ("seeds: 3", "seeds: [1, 1]", "seeds: 2 to 1000 different ones, or how many"),
    ("seeds: 3", "seeds: [0, 1048577]", "seeds: from 0 to 1048575; those above are a pilot's"),
    ("1%", "0", "smallest_effect: a number above 0 in the metric's unit, or such as 1%; not 0.0"),
    ("1%", "a lot", "smallest_effect: a number above 0 in the metric's unit, or such as 1%; not 'a lot'"),
    ("1%", "1.2.3%", "smallest_effect: a number above 0 in the metric's unit, or such as 1%; not '1.2.3%'"),
    ("1%", ".nan", "smallest_effect: a number above 0 in the metric's unit, or such as 1%; not nan"),
    ("control: {narrow: {}}", "control: {}", "control: one name with its settings"),
    ("control: {narrow: {}}", "control: {wide: {}}", "wide is both control and arm"),
    ("wide: {", "../x: {", "'../x' is no name of an arm"),
    ("model.width: 128", "trainer.max_epochs: 9", "wide: trainer.max_epochs is the same for all arms"),
    ("model.width: 128", "seed_everything: 9", "wide: seed_everything is the same for all arms"),
    ("trainer.max_epochs: 2", "seed_everything: 2", "settings: seeds say what seed_everything is"),
    ("question: Is", "question: [Is", "no YAML: "),
    ("model.width: 128", "trainer: {max_epochs: 9}", "trainer: a file of settings goes under config"),
    ("model.width: 128", "config: long.yaml", "config: a file of settings goes under config"),
    ("model.width: 128", "data: long.yaml", "data: a file of settings goes under config"),
    ("model.width: 128", "print_config: ''", "print_config: a file of settings goes under config"),
    ("model.width: 128", "trainer.limit_val_batches: 1", "wide: trainer.limit_val_batches is the same"),
    ("model.width: 128", "model.width: .inf", "model.width: inf is no setting as it stands"),
    (
        "model.width: 128",
        "model.width: 2026-01-01",
        "model.width: 2026-01-01 is no setting as it stands; write it as text",
    ),
    ("model.width: 128", "model.width: {1: 2}", "no YAML: 1 is no name"),
    ("model.width: 128", "model.width: 2024-13-45", "no YAML: month must be in 1..12"),
    ("metric: accuracy", "metric: accuracy\nmetric: loss", "no YAML: 'metric' is there twice"),
    ("seeds: 3", "seeds: 1000000000000", "seeds: 2 to 1000 different ones, or how many"),
    ("seeds: 3", "seeds: true", "Expected `int | array`, got `bool`"),
]


@pytest.mark.parametrize(("old", "new", "words"), MISTAKES)
def test_a_mistake_is_one_line(file: Path, old: str, new: str, words: str) -> None:
    assert old in WHOLE
    file.write_text(WHOLE.replace(old, new))
    with pytest.raises(Misuse) as refused:
        design.read(file)
    assert f"{file}: {words}" in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_not_named_well(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="No such file"):
        design.read(tmp_path / "none.yaml")
    results = tmp_path / "wide.json"
    results.write_text(WHOLE)
    with pytest.raises(Misuse, match=r"an experiment is written in a \.yaml file, not \.json"):
        design.read(results)
    odd = tmp_path / "A B.yaml"
    odd.write_text(WHOLE)
    with pytest.raises(Misuse, match="'A B' is the experiment's name; use small letters"):
        design.read(odd)
