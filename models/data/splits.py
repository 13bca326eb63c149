"""Splits of labelled samples: disjoint, together everything, with equal shares of each class."""

from __future__ import annotations

import numpy as np

# Fixed: a split that moved with the training seed would let one run validate on what another
# trained on.
SPLIT_SEED = 0


def stratified(
    labels: np.ndarray, validation: float = 0.2, test: float = 0.2, seed: int = SPLIT_SEED
) -> dict[str, np.ndarray]:
    """Sorted sample numbers of the splits train, validation and test.

    validation and test are shares of the whole; a test share of 0 leaves that split empty. labels
    are (N,). Raises ValueError where a class has too few samples to be in each split.
    """
    from sklearn.model_selection import train_test_split

    rest, test_numbers = np.arange(len(labels)), np.arange(0)
    if test:
        rest, test_numbers = train_test_split(rest, test_size=test, random_state=seed, stratify=labels)
    train_numbers, validation_numbers = train_test_split(
        rest, test_size=validation / (1 - test), random_state=seed, stratify=labels[rest]
    )
    return {
        "train": np.sort(train_numbers),
        "validation": np.sort(validation_numbers),
        "test": np.sort(test_numbers),
    }
