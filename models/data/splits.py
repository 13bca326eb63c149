"""Splits of labelled samples: disjoint, together everything, with equal shares of each class."""

from __future__ import annotations

import numpy as np

# Fixed: a split that moved with the training seed would let one run validate on what another
# trained on.
SPLIT_SEED = 0


def stratified(labels: np.ndarray, validation: float = 0.2, test: float = 0.2) -> dict[str, np.ndarray]:
    """Sorted sample numbers of the splits train, validation and test.

    validation and test are shares of the whole; labels are (N,).
    """
    from sklearn.model_selection import train_test_split

    numbers = np.arange(len(labels))
    rest, test_numbers = train_test_split(numbers, test_size=test, random_state=SPLIT_SEED, stratify=labels)
    train_numbers, validation_numbers = train_test_split(
        rest, test_size=validation / (1 - test), random_state=SPLIT_SEED, stratify=labels[rest]
    )
    return {
        "train": np.sort(train_numbers),
        "validation": np.sort(validation_numbers),
        "test": np.sort(test_numbers),
    }
