"""Principal components, as many as the autoencoder's code has numbers: of all linear codes the one
with the least squared error on the training split.
"""

from __future__ import annotations

from torch import Tensor

from ..data.memory import Split
from ..nets.vae import VAE

NETWORKS = ("vae",)
# How far from 0 and 1 pixels stay, so that they have logits.
MARGIN = 1e-6


def outputs(train: Split, inputs: Tensor) -> Tensor:
    """Returns the logits of the images (N, 1, H, W) made anew, clipped to 0..1."""
    from sklearn.decomposition import PCA

    model = PCA(VAE().hparams["code"], random_state=0).fit(train[0].flatten(1).numpy())
    anew = Tensor(model.inverse_transform(model.transform(inputs.flatten(1).numpy())))
    return anew.reshape(inputs.shape).clamp(MARGIN, 1 - MARGIN).logit()
