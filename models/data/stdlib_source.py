"""Text that every Python brings along: the sources of its own standard library, as bytes.

The top-level .py files of the standard library's folder in the order of their names, the first 16
KiB of each. Whole files go to one split or another, so no split holds a passage of another's file.
`_sysconfigdata*.py` is left out: it describes the machine, not the library. Another Python version
has other sources; `data_hash` tells them apart.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np
import torch

from .memory import InMemoryData, Split

# Bytes that the network sees at once: the context of the default gpt.
WINDOW = 128
# So that a few long files do not outweigh the rest.
BYTES_PER_FILE = 16 * 1024
# Each backend is evaluated on all of them: 4,096 tokens.
VALIDATION_WINDOWS = 32
# Used once, when training has finished.
TEST_WINDOWS = 128


def split_of(position: int) -> str:
    """The split that the file at a position belongs to.

    Of ten files in a row eight are for training, the ninth for validation, the tenth for the test.
    """
    return {8: "validation", 9: "test"}.get(position % 10, "train")


def windows(text: np.ndarray, at_most: int | None = None, size: int = WINDOW) -> Split:
    """Cuts windows of bytes (N, T), and of the bytes that follow each (N, T), out of a text.

    They do not overlap, and are evenly spread where there are more than `at_most`. size: T.
    """
    count = len(text) // (size + 1)
    rows = torch.from_numpy(text[: count * (size + 1)].reshape(count, size + 1).astype(np.int64))
    if at_most is not None and count > at_most:
        rows = rows[torch.linspace(0, count - 1, at_most).long()]
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


class StdlibSource(InMemoryData):
    """Windows of 128 bytes.

    An epoch is 512 windows drawn from the training files, not all of them.
    """

    samples_per_epoch = 512

    def read(self) -> dict[str, np.ndarray]:
        files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        chosen = [file for file in files if not file.name.startswith("_sysconfigdata")]
        return {
            file.name: np.frombuffer(file.read_bytes()[:BYTES_PER_FILE], dtype=np.uint8) for file in chosen
        }

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
        for position, (_, text) in enumerate(sorted(raw.items())):
            parts[split_of(position)].append(text)
        limits = {"train": None, "validation": VALIDATION_WINDOWS, "test": TEST_WINDOWS}
        return {name: windows(np.concatenate(texts), limits[name]) for name, texts in parts.items()}
