"""Text on the disk as bytes: every .txt file of a folder and of the folders in it.

Whole files go to one split or another, so no split holds a passage of another's file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from ...perf.terms.reasons import Misuse
from .masking import masked
from .memory import InMemoryData, Split
from .order import generator
from .splits import SPLIT_SEED
from .stdlib_source import windows

# Kinds of bytes; the number of the hidden one, so a network of hidden tokens has one more.
BYTES = 256
# Of so many files one validates and one is the test, but one each at least.
OF = 10


class TextFiles(InMemoryData):
    """Windows of bytes (T,), and the bytes that follow each (T,); or, hidden, those that the
    network does not see.
    """

    def __init__(
        self,
        folder: str,
        window: int = 128,
        batch_size: int = 64,
        seed: int | None = None,
        split_seed: int = SPLIT_SEED,
        task: Literal["next", "hidden"] = "next",
    ) -> None:
        """window: T. split_seed: of which files are in which split. task: what is to be said of a
        window, the next bytes or hidden ones (`masking.masked`), which are drawn anew for each
        batch of training, and are the same each time in the other splits.
        """
        super().__init__(batch_size, seed)
        self.folder, self.window, self.split_seed, self.task = folder, window, split_seed, task

    def read(self) -> dict[str, np.ndarray]:
        folder = Path(self.folder)
        if not folder.is_dir():
            raise Misuse(f"there is no folder {folder}")
        files = sorted(folder.rglob("*.txt"))
        if len(files) < 3:
            raise Misuse(f"{folder} holds {len(files)} .txt files; three splits of whole files take three")
        return {
            file.relative_to(folder).as_posix(): np.frombuffer(file.read_bytes(), dtype=np.uint8)
            for file in files
        }

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        names = np.random.default_rng(self.split_seed).permutation(sorted(raw))
        share = max(1, len(names) // OF)
        chosen = {"validation": names[:share], "test": names[share : 2 * share], "train": names[2 * share :]}
        splits = {}
        for number, (split, files) in enumerate(chosen.items()):
            inputs, targets = windows(np.concatenate([raw[name] for name in files]), size=self.window)
            if not len(inputs):
                raise Misuse(
                    f"the files of the {split} split of {self.folder} have not one window of"
                    f" {self.window + 1} bytes; give longer ones, or a smaller window"
                )
            if self.task == "hidden":
                targets = inputs
                if split != "train":
                    inputs, targets = masked(inputs, BYTES, random=generator(0, "hidden", number))
            splits[split] = (inputs, targets)
        return splits

    def on_after_batch_transfer(
        self, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        if self.task == "hidden" and self.trainer is not None and self.trainer.training:
            return masked(batch[0], BYTES)
        return batch
