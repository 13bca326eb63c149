"""CIFAR-10 from its files on the disk, the binary version.

60,000 images of 32x32 pixels, 10 classes. A record is the label in 1 byte, then 1,024 bytes of
red, of green and of blue, row by row. Source and format: Krizhevsky, Learning Multiple Layers of
Features from Tiny Images, 2009, https://www.cs.toronto.edu/~kriz/cifar.html. The Python version is
pickled, and loading a pickle may run code that is in it, so it is refused.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...perf.terms.reasons import Misuse
from .memory import InMemoryData, Split
from .mixing import Mix, mixed
from .splits import SPLIT_SEED, stratified

CLASSES = 10
# Pixels of an image's height and width.
SIDE = 32
# Bytes of a record.
RECORD = 1 + 3 * SIDE * SIDE
TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]
TEST = "test_batch.bin"


def records(path: Path) -> np.ndarray:
    """Reads the records of a file, (N, RECORD) uint8. Raises Misuse where it holds none."""
    if not path.is_file():
        if path.with_suffix("").is_file():
            raise Misuse(
                f"{path.with_suffix('')} is of CIFAR-10's Python version, which is pickled and may run"
                " foreign code; take the binary version, cifar-10-binary.tar.gz"
            )
        raise Misuse(f"there is no {path}; give the folder of CIFAR-10's binary version")
    content = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not len(content) or len(content) % RECORD:
        raise Misuse(f"{path} has {len(content)} bytes, not records of {RECORD}; fetch it again")
    rows = content.reshape(-1, RECORD)
    if (highest := int(rows[:, 0].max())) >= CLASSES:
        raise Misuse(f"{path} has the label {highest}, of 0 to {CLASSES - 1}; fetch it again")
    return rows


class CIFAR10(InMemoryData):
    """Images (3, 32, 32) in 0..1; a tenth of the training batches, of each class, validates.

    The test split is the data's own. In memory they are bytes, on their way to the network numbers.
    """

    def __init__(
        self,
        folder: str,
        batch_size: int = 64,
        seed: int | None = None,
        split_seed: int = SPLIT_SEED,
        mix: Mix = "none",
    ) -> None:
        """split_seed: of which images validate. mix: while training; see `mixing.mixed`."""
        super().__init__(batch_size, seed)
        self.folder, self.split_seed, self.mix = folder, split_seed, mix

    def read(self) -> dict[str, np.ndarray]:
        folder = Path(self.folder)
        return {
            "train": np.concatenate([records(folder / name) for name in TRAIN]),
            "test": records(folder / TEST),
        }

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        splits = {name: split_of_records(rows) for name, rows in raw.items()}
        images, labels = splits["train"]
        try:
            numbers = stratified(labels.numpy(), validation=0.1, test=0, seed=self.split_seed)
        except ValueError as error:
            raise Misuse(f"{self.folder}: too few images of a class to split: {error}") from None
        train, validation = (
            (images[numbers[name]], labels[numbers[name]]) for name in ("train", "validation")
        )
        return {"train": train, "validation": validation, "test": splits["test"]}

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        images, labels = batch[0].float() / 255, batch[1]
        training = self.trainer is not None and self.trainer.training
        return mixed(images, labels, CLASSES, self.mix if training else "none")


def split_of_records(rows: np.ndarray) -> Split:
    """Returns the images (N, 3, 32, 32) uint8 and the labels (N,) of records."""
    images = torch.from_numpy(rows[:, 1:].reshape(-1, 3, SIDE, SIDE).copy())
    return images, torch.from_numpy(rows[:, 0].astype(np.int64))
