"""CIFAR-10, folders of images and texts on the disk: read, split, mixed and hidden, refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from PIL import Image

from bench.resumes import same, tensors
from hotlap.models import checkpoint
from hotlap.models.data.cifar10 import CIFAR10, RECORD, TEST, TRAIN
from hotlap.models.data.image_folder import ImageFolder, image
from hotlap.models.data.masking import masked
from hotlap.models.data.mixing import mixed
from hotlap.models.data.order import generator
from hotlap.models.data.text_files import BYTES, TextFiles
from hotlap.models.data.unknown import UNKNOWN
from hotlap.models.language_model import LanguageModel
from hotlap.models.train import train
from hotlap.models.training.guards import TrainingFailed, TrainingStopped
from hotlap.perf.terms.reasons import Misuse


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Ten images of each class in each training file, two in the test; of one colour each."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    for number, name in enumerate([*TRAIN, TEST]):
        count = 20 if name == TEST else 100
        rows = np.zeros((count, RECORD), dtype=np.uint8)
        rows[:, 0] = np.arange(count) % 10
        rows[:, 1:1025] = 40 * number + np.arange(count)[:, None] // 10  # red
        rows[:, 2049:] = np.arange(1024) % 32  # blue: the column
        (folder / name).write_bytes(rows.tobytes())
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Thirty dark and ten bright images of random pixels."""
    random = np.random.default_rng(0)
    for name, count, least in (("bright", 10, 128), ("dark", 30, 0)):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(least, least + 128, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return tmp_path / "pictures"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Twenty files, each of its own letter."""
    for number in range(20):
        path = tmp_path / "texts" / str(number % 2) / f"{number:02}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(chr(ord("a") + number) * 100)
    return tmp_path / "texts"


def ready(data: Any) -> Any:
    data.setup()
    return data


def training(data: Any) -> Any:
    data.trainer = SimpleNamespace(training=True)
    return data


def test_records_are_label_red_green_and_blue(cifar: Path) -> None:
    data = ready(CIFAR10(str(cifar)))
    assert {name: len(labels) for name, (_, labels) in data.splits.items()} == {
        "train": 450,
        "validation": 50,
        "test": 20,
    }
    assert data.splits["validation"][1].bincount().tolist() == [5] * 10
    images, labels = data.on_after_batch_transfer(data.splits["test"], 0)
    assert images.shape == (20, 3, 32, 32) and labels.tolist() == [*range(10), *range(10)]
    red, green, blue = (images[13] * 255).round().int()
    assert (red == 201).all() and (green == 0).all() and (blue == torch.arange(32)).all()


def test_who_validates_follows_from_the_seed_of_the_split(cifar: Path) -> None:
    seeds = ((1, 0), (2, 0), (1, 1))  # of the order, of the split
    first, again, other = (ready(CIFAR10(str(cifar), seed=seed, split_seed=split)) for seed, split in seeds)
    assert torch.equal(first.splits["validation"][0], again.splits["validation"][0])
    assert not torch.equal(first.splits["validation"][0], other.splits["validation"][0])
    assert first.data_hash == again.data_hash == other.data_hash
    content = bytearray((cifar / TEST).read_bytes())
    content[-1] ^= 1
    (cifar / TEST).write_bytes(content)
    assert ready(CIFAR10(str(cifar))).data_hash != first.data_hash


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_3", b"pickled", "pickled .* take the binary version, cifar-10-binary.tar.gz"),
        ("other", b"", "there is no .*data_batch_3.bin"),
        ("data_batch_3.bin", b"\0" * (RECORD + 1), "has 3074 bytes, not records of 3073"),
        ("data_batch_3.bin", b"", "has 0 bytes"),
        ("data_batch_3.bin", b"\x0b" * RECORD, "has the label 11"),
    ],
)
def test_what_is_no_binary_cifar_is_refused(cifar: Path, name: str, content: bytes, message: str) -> None:
    (cifar / "data_batch_3.bin").unlink()
    (cifar / name).write_bytes(content)
    with pytest.raises(Misuse, match=message) as error:
        ready(CIFAR10(str(cifar)))
    assert "\n" not in str(error.value)


def test_too_few_images_of_a_class_are_refused(cifar: Path) -> None:
    for name in TRAIN[1:]:
        (cifar / name).write_bytes((cifar / TEST).read_bytes()[: 9 * RECORD])  # none of class 9
    (cifar / TRAIN[0]).write_bytes((cifar / TEST).read_bytes()[: 10 * RECORD])
    with pytest.raises(Misuse, match="too few images of a class"):
        ready(CIFAR10(str(cifar)))


def test_images_are_in_the_class_of_their_folder(pictures: Path) -> None:
    data = ready(ImageFolder(str(pictures), side=8))
    assert data.classes == ["bright", "dark"]
    files = [file for split in data.splits.values() for file in split.files]
    assert sorted(files) == sorted(pictures.rglob("*.png"))
    for name, count in (("train", 6), ("validation", 2), ("test", 2)):
        assert np.bincount(data.splits[name].labels).tolist() == [count, 3 * count]
        for pixels, label in data.splits[name]:
            assert pixels.shape == (3, 8, 8)
            assert (pixels.mean() > 0.5) == (data.classes[label] == "bright")
    other = ready(ImageFolder(str(pictures), side=8, split_seed=1))
    assert other.splits["test"].files != data.splits["test"].files
    assert other.data_hash == data.data_hash


def test_an_image_is_what_pillow_reads(pictures: Path) -> None:
    file = pictures / "dark" / "00.png"
    with Image.open(file) as opened:
        expected = np.asarray(opened.resize((12, 12), Image.Resampling.BILINEAR))
    assert torch.equal(
        (image(file, 12) * 255).round().byte(), torch.from_numpy(expected.copy()).permute(2, 0, 1)
    )


def test_the_hash_of_a_folder_notices_a_byte_and_a_name(pictures: Path) -> None:
    before = ready(ImageFolder(str(pictures))).data_hash
    (pictures / "dark" / "00.png").rename(pictures / "dark" / "000.png")
    renamed = ready(ImageFolder(str(pictures))).data_hash
    with (pictures / "dark" / "01.png").open("ab") as file:
        file.write(b"\0")
    assert len({before, renamed, ready(ImageFolder(str(pictures))).data_hash}) == 3


def test_folders_without_classes_or_images_are_refused(pictures: Path) -> None:
    for folder, message in (
        (pictures / "none", "there is no folder"),
        (pictures / "dark", "holds 0 folders"),
    ):
        with pytest.raises(Misuse, match=message):
            ready(ImageFolder(str(folder)))
    for file in sorted((pictures / "bright").iterdir())[1:]:
        file.unlink()
    with pytest.raises(Misuse, match="too few images of a class"):
        ready(ImageFolder(str(pictures)))
    (pictures / "bright" / "00.png").unlink()
    with pytest.raises(Misuse, match="bright holds no file"):
        ready(ImageFolder(str(pictures)))


NET = ["model.channels=[4,4,4,4]", "model.classes=2", "data.side=8", "data.batch_size=8"]


def settings(folder: Path, *more: str) -> dict[str, Any]:
    return {
        "epochs": 2,
        "data": "hotlap.models.data.image_folder:ImageFolder",
        "overrides": [f"data.folder={folder}", *NET, *more],
        "report": lambda line: None,
    }


@pytest.mark.parametrize("damage", ["no image", "cut off"])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_stops_the_training_and_is_named(
    damage: str, workers: int, pictures: Path
) -> None:
    data = ready(ImageFolder(str(pictures)))
    file = data.splits["train"].files[3]
    file.write_bytes(file.read_bytes()[:100] if damage == "cut off" else b"no image")
    with pytest.raises(TrainingStopped, match=r"batch \d of epoch 1 cannot be read: OSError: ") as error:
        train("resnet", **settings(pictures, f"data.workers={workers}"))
    assert str(file) in str(error.value)


def test_mixed_labels_are_the_shares_of_the_pixels() -> None:
    """Each image is all zeros or all ones, as its label says, so its mean is its share of ones."""
    labels = torch.arange(8) % 2
    images = labels[:, None, None, None].float().expand(8, 3, 16, 16).clone()
    unmixed, same_labels = mixed(images, labels, 2, "none")
    assert unmixed is images and same_labels is labels
    torch.manual_seed(0)
    for mix in ("mixup", "cutmix", "either"):
        changed, shares = mixed(images, labels, 2, mix)  # type: ignore[arg-type]
        torch.testing.assert_close(shares[:, 1], changed.mean(dim=(1, 2, 3)))
        torch.testing.assert_close(shares.sum(dim=1), torch.ones(8))
        assert not torch.equal(changed, images)
        assert (changed.unique().tolist() == [0, 1]) == (mix == "cutmix") or mix == "either"


def test_images_are_mixed_in_training_only(cifar: Path, pictures: Path) -> None:
    for data in (ready(CIFAR10(str(cifar), mix="mixup")), ready(ImageFolder(str(pictures), mix="mixup"))):
        batch = (torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
        assert torch.equal(data.on_after_batch_transfer(batch, 0)[1], batch[1])
        batch = (batch[0].float(), batch[1])
        assert training(data).on_after_batch_transfer(batch, 0)[1].shape[0] == 4
        assert training(data).on_after_batch_transfer(batch, 0)[1].dtype == torch.float32


def test_windows_are_of_whole_files_and_targets_the_next_bytes(texts: Path) -> None:
    data = ready(TextFiles(str(texts), window=9))
    letters = {name: set(inputs.unique().tolist()) for name, (inputs, _) in data.splits.items()}
    assert {name: len(each) for name, each in letters.items()} == {"train": 16, "validation": 2, "test": 2}
    assert set.union(*letters.values()) == set(range(97, 117))
    inputs, targets = data.splits["train"]
    assert inputs.shape == targets.shape == (160, 9) and torch.equal(inputs[:, 1:], targets[:, :-1])
    assert ready(TextFiles(str(texts), window=9, split_seed=1)).splits["test"][0].unique().tolist() != sorted(
        letters["test"]
    )


def test_texts_that_make_no_splits_are_refused(texts: Path) -> None:
    with pytest.raises(Misuse, match="have not one window of 501 bytes"):
        ready(TextFiles(str(texts), window=500))
    for file in sorted(texts.rglob("*.txt"))[2:]:
        file.unlink()
    with pytest.raises(Misuse, match=r"holds 2 \.txt files"):
        ready(TextFiles(str(texts)))
    with pytest.raises(Misuse, match="there is no folder"):
        ready(TextFiles(str(texts / "none")))


def test_hidden_tokens_are_those_to_be_said_in_the_stated_shares() -> None:
    tokens = torch.randint(BYTES, (200, 200), generator=generator(0, "test", 0))
    seen, targets = masked(tokens, BYTES, random=generator(0, "test", 1))
    said = targets != UNKNOWN
    assert torch.equal(targets[said], tokens[said]) and torch.equal(seen[~said], tokens[~said])
    assert float(said.float().mean()) == pytest.approx(0.15, abs=0.01)
    assert float((seen[said] == BYTES).float().mean()) == pytest.approx(0.8, abs=0.02)
    stays = float((seen[said] == tokens[said]).float().mean())
    assert stays == pytest.approx(0.1 + 0.1 / BYTES, abs=0.02)


def test_hidden_tokens_are_the_same_each_time_but_in_training(texts: Path) -> None:
    first, again = (ready(TextFiles(str(texts), window=9, task="hidden")) for _ in range(2))
    inputs, targets = first.splits["validation"]
    assert torch.equal(inputs, again.splits["validation"][0]) and (targets == UNKNOWN).any()
    assert (inputs == BYTES).any()
    batch = first.splits["train"]
    assert torch.equal(batch[0], batch[1])
    torch.manual_seed(0)
    before, after = (training(first).on_after_batch_transfer(batch, 0) for _ in range(2))
    assert (before[0] == BYTES).any() and not torch.equal(before[0], after[0])


def test_tokens_without_a_target_are_not_scored() -> None:
    logits = torch.randn(2, 5, 7, generator=generator(0, "test", 0))
    targets = torch.randint(7, (2, 5), generator=generator(0, "test", 1))
    alone = LanguageModel.score(logits[:1], targets[:1])
    targets[1] = UNKNOWN
    assert LanguageModel.score(logits, targets) == pytest.approx(alone)
    torch.testing.assert_close(
        LanguageModel.loss(logits, targets), LanguageModel.loss(logits[:1], targets[:1])
    )


def hidden_text(folder: Path) -> dict[str, Any]:
    net = ["model.vocabulary=257", "model.context=9", "model.width=8", "model.depth=1", "model.heads=1"]
    data = [f"data.folder={folder}", "data.window=9", "data.task=hidden", "data.batch_size=20"]
    return {
        "epochs": 2,
        "data": "hotlap.models.data.text_files:TextFiles",
        "overrides": [*net, *data],
        "report": lambda line: None,
    }


@pytest.mark.parametrize("name", ["resnet", "gpt"])
def test_mixed_and_hidden_batches_come_back_to_the_bit(
    name: str, pictures: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that was stopped within its second epoch ends as one that was not."""
    asked = settings(pictures, "data.mix=either") if name == "resnet" else hidden_text(texts)
    asked["overrides"].append("checkpoint_every=1")
    whole = tensors(checkpoint.read(train(name, **asked).checkpoint))
    save = L.Trainer.save_checkpoint

    def failing(self: L.Trainer, *rest: Any, **options: Any) -> None:
        save(self, *rest, **options)
        if self.current_epoch == 1 and self.fit_loop.batch_idx == 0:
            raise RuntimeError("no more")

    with monkeypatch.context() as planted:
        planted.setattr(L.Trainer, "save_checkpoint", failing)
        with pytest.raises(TrainingFailed, match="no more"):
            train(name, **asked)
    resumed = tensors(checkpoint.read(train(resume="latest", report=lambda line: None).checkpoint))
    assert [key for key in whole if not same(whole[key], resumed.get(key))] == []
