"""Gradient-boosted trees on rows; of images, on their pixels."""

from __future__ import annotations

from torch import Tensor

from ..data.memory import Split
from ._rows import rows

NETWORKS = ("mlp", "resnet", "vit")


def outputs(train: Split, inputs: Tensor) -> Tensor:
    """Returns the probability of each class, (N, classes)."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(random_state=0).fit(rows(train[0]), train[1].numpy())
    return Tensor(model.predict_proba(rows(inputs)))
