"""What a training is made of: mistakes in one line, and text that starts the same once more."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hotlap.models.catalog import names, network
from hotlap.models.quiet import undisturbed
from hotlap.models.training.configuration import CONFIGS, Configuration, words
from hotlap.perf.terms.reasons import Misuse

OWN = """
import lightning.pytorch as L
import torch


class Net(L.LightningModule):
    def __init__(self, width: int = 8):
        super().__init__()
        self.layer = torch.nn.Linear(4, width)


class Rows(L.LightningDataModule):
    def __init__(self, count: int = 10, seed: int | None = None):
        super().__init__()
        self.count, self.seed = count, seed
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def configured(
    *overrides: str, workload: str = "config_net:Net", data: str = "config_net:Rows"
) -> Configuration:
    with undisturbed():
        return Configuration(words(workload, data, None, ["trainer.max_epochs=2", *overrides]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workload": "gtp"}, "no network is called 'gtp'; did you mean gpt?, or package.module:Class"),
        ({"workload": "config_net:Nett"}, "config_net has no 'Nett'; did you mean Net?"),
        ({"workload": "config_net:Rows"}, "config_net:Rows is no LightningModule"),
        ({"workload": "no_such_net:Net"}, "no module named 'no_such_net' here or among"),
        ({"data": "config_net:Net"}, "config_net:Net is no LightningDataModule"),
        ({"overrides": ["model.widht=3"]}, "config_net.Net takes no 'widht'; did you mean width?"),
        ({"overrides": ["model.width=wide"]}, "model.width: 'wide' is no int"),
        ({"overrides": ["data.conut=3"]}, "config_net.Rows takes no 'conut'; did you mean count?"),
        ({"overrides": ["traner.max_epochs=3"]}, "no setting is called 'traner.max_epochs'; did you mean"),
        ({"overrides": ["trainer.max_epoch=3"]}, "no setting is called 'trainer.max_epoch'; did you mean"),
        ({"overrides": ["trainer.max_epochs=x"]}, "trainer.max_epochs: x does not fit: it takes int"),
        ({"overrides": ["trainer.max_epochs=0"]}, "trainer.max_epochs must be at least 1, not 0"),
        ({"overrides": ["trainer.max_epochs=null"]}, "how long is not said"),
        ({"overrides": ["width"]}, "'width' is no setting; write key.sub=value"),
        ({"overrides": ["-x=3"]}, "'-x=3' is no setting"),
        (
            {"overrides": ["trainer.callbacks=[{class_path: EarlyStoppin}]"]},
            "trainer.callbacks: no class is called 'EarlyStoppin'; did you mean EarlyStopping",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_the_nearest_name(arguments: dict, message: str) -> None:
    with pytest.raises(Misuse) as error:
        configured(*arguments.pop("overrides", []), **arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="there is no such file"):
        words("mlp", config=tmp_path / "absent.yaml")
    damaged = tmp_path / "damaged.yaml"
    damaged.write_text("trainer: [\n")
    with undisturbed(), pytest.raises(Misuse, match="Problems parsing config: ") as error:
        Configuration(words("mlp", config=damaged))
    assert "\n" not in str(error.value)


def test_what_is_resolved_starts_the_same_training_again(tmp_path: Path) -> None:
    first = configured("model.width=3", "seed_everything=7", "optimizer=AdamW", "optimizer.lr=0.5")
    (tmp_path / "again.yaml").write_text(first.text())
    with undisturbed():
        again = Configuration(words("", config=tmp_path / "again.yaml"))
    assert again.text() == first.text()
    assert (again.seed, again.epochs, again.class_path("model")) == (7, 2, "config_net:Net")
    assert again.config.data.init_args.seed == 7  # left at None, it is the training's
    with undisturbed():
        _, module, data = again.build(logger=False)
    assert module.layer.out_features == 3 and data is not None and data.seed == 7
    assert module.configure_optimizers().param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("name", names())
def test_our_own_settings_are_those_of_the_class(name: str) -> None:
    """A file for plain LightningCLI and the class say the same: data, metric and recipe."""
    net = network(name)
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    with undisturbed():
        chosen = Configuration(words(name))
        _, module, data = chosen.build(logger=False, callbacks=[])
    assert type(module) is net and type(data) is net.data
    assert module.recipe == net().recipe
    (best,) = content["trainer"]["callbacks"]
    assert best["init_args"]["monitor"] == f"validation_{net.metric}"
    assert best["init_args"]["mode"] == {"higher": "max", "lower": "min"}[net.better]
