"""Breast Cancer Wisconsin (Diagnostic), as it ships with scikit-learn.

569 rows of 30 measurements, 2 classes. Source: Wolberg, Mangasarian, Street and Street, UCI Machine
Learning Repository, 1993, https://doi.org/10.24432/C5DW2B.
"""

from __future__ import annotations

import numpy as np
import torch

from .memory import InMemoryData, Split
from .splits import stratified


class BreastCancer(InMemoryData):
    """Rows (30,), standardised with the mean and the standard deviation of the training split."""

    def read(self) -> dict[str, np.ndarray]:
        from sklearn.datasets import load_breast_cancer

        rows, labels = load_breast_cancer(return_X_y=True)
        return {"rows": rows, "labels": labels}

    def prepare(self, raw: dict[str, np.ndarray]) -> dict[str, Split]:
        numbers = stratified(raw["labels"])
        train = raw["rows"][numbers["train"]]
        rows = (raw["rows"] - train.mean(axis=0)) / train.std(axis=0)
        return {
            name: (torch.from_numpy(rows[chosen]).float(), torch.from_numpy(raw["labels"][chosen]).long())
            for name, chosen in numbers.items()
        }
