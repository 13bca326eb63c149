"""Images on the disk in a folder for each class: FOLDER/CLASS/anything.png.

They are read while training, so there may be more of them than fit into memory. One that cannot be
read stops the training, which names it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ...perf.terms.reasons import Misuse
from .libraries import library
from .mixing import Mix, mixed
from .order import EpochOrder
from .splits import SPLIT_SEED, stratified


def image(path: Path, side: int) -> Tensor:
    """Reads an image as (3, side, side) in 0..1, stretched to a square.

    Raises OSError, which names the file, where it cannot be read.
    """
    pillow = library("PIL.Image", "pillow")
    try:
        with pillow.open(path) as opened:
            pixels = np.asarray(opened.convert("RGB").resize((side, side), pillow.Resampling.BILINEAR))
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise OSError(f"{path}: {error}") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def files_of_classes(folder: Path) -> dict[str, list[Path]]:
    """Returns class -> its files, both sorted, hidden ones left out. Raises Misuse where there are
    not two classes with files.
    """
    if not folder.is_dir():
        raise Misuse(f"there is no folder {folder}")
    classes = {
        each.name: sorted(file for file in each.rglob("*") if file.is_file() and file.name[0] != ".")
        for each in sorted(folder.iterdir())
        if each.is_dir() and not each.name.startswith(".")
    }
    if empty := [name for name, files in classes.items() if not files]:
        raise Misuse(f"{folder / empty[0]} holds no file; a folder in {folder} is a class")
    if len(classes) < 2:
        raise Misuse(f"{folder} holds {len(classes)} folders; it takes one for each class, at least two")
    return classes


def hash_files(folder: Path, files: list[Path]) -> str:
    """The sha256 over name and content of files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


class Images(Dataset[tuple[Tensor, int]]):
    """Some of the files, read as they are asked for."""

    def __init__(self, files: list[Path], labels: np.ndarray, side: int) -> None:
        self.files, self.labels, self.side = files, labels, side

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return image(self.files[index], self.side), int(self.labels[index])


class ImageFolder(L.LightningDataModule):
    """Images (3, side, side) in 0..1 and the number of their class in the order of the names; a
    fifth of each class validates, a fifth is the test.
    """

    def __init__(
        self,
        folder: str,
        side: int = 32,
        batch_size: int = 64,
        seed: int | None = None,
        split_seed: int = SPLIT_SEED,
        mix: Mix = "none",
        workers: int = 0,
    ) -> None:
        """seed: of the order of the samples; a training gives its own. split_seed: of which images
        are in which split. mix: while training; see `mixing.mixed`. workers: processes that read.
        """
        super().__init__()
        self.folder, self.side, self.batch_size, self.workers = folder, side, batch_size, workers
        self.seed, self.split_seed, self.mix = seed or 0, split_seed, mix
        # Empty until `setup`: the classes' names, and the splits.
        self.classes: list[str] = []
        self.splits: dict[str, Images] = {}
        # The sha256 of the names and contents of the files; empty until `setup`.
        self.data_hash = ""

    def setup(self, stage: str | None = None) -> None:
        if self.splits:
            return
        classes = files_of_classes(Path(self.folder))
        files = [file for of_class in classes.values() for file in of_class]
        labels = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in classes.values()])
        try:
            numbers = stratified(labels, seed=self.split_seed)
        except ValueError as error:
            raise Misuse(f"{self.folder}: too few images of a class to split: {error}") from None
        self.classes, self.data_hash = list(classes), hash_files(Path(self.folder), files)
        self.splits = {
            name: Images([files[number] for number in chosen], labels[chosen], self.side)
            for name, chosen in numbers.items()
        }

    def loader(self, split: str, **order: Any) -> DataLoader[tuple[Tensor, int]]:
        return DataLoader(self.splits[split], self.batch_size, num_workers=self.workers, **order)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        size = len(self.splits["train"])
        return self.loader("train", sampler=EpochOrder(size, size, self.seed))

    def val_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return self.loader("validation")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, int]]:
        return self.loader("test")

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        training = self.trainer is not None and self.trainer.training
        return mixed(*batch, len(self.classes), self.mix if training else "none")
