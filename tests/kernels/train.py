"""Child process: a small gpt trained from the same weights on the same batches by eager, by eager
in fp64, and with our operations in the interpreter.

`python train.py DTYPE` prints the losses of all three as JSON.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import interpreter  # noqa: F401  # first: it decides what Triton is
import lightning.pytorch as L
import torch

from hotlap.kernels import dispatch, library
from hotlap.kernels.callback import TritonKernels
from hotlap.models.nets.gpt import GPT

# Of the optimiser.
STEPS = 10


class SmallGPT(GPT):
    """A gpt that keeps its losses, and computes them by our operation where `ours` is set."""

    ours = False

    def training_step(self, batch, batch_idx):
        (tokens,) = batch
        logits, targets = self(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()
        cross_entropy = torch.nn.functional.cross_entropy
        if self.ours:
            cross_entropy = library.function("cross_entropy")
        loss = cross_entropy(logits, targets)
        self.losses.append(float(loss))
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def train(module: SmallGPT, tokens: torch.Tensor, callbacks: list[L.Callback]) -> list[float]:
    """Returns the loss of each step."""
    module.losses = []
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(tokens), batch_size=2)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    L.Trainer(max_steps=STEPS, accelerator="cpu", callbacks=callbacks, **quiet).fit(module, loader)
    return module.losses


torch.manual_seed(0)
module = SmallGPT(vocabulary=64, context=16, width=32, depth=2, heads=2).train()
# Each token is the one before and one more: that can be learnt.
tokens = (torch.randint(64, (2 * STEPS, 1)) + torch.arange(17)) % 64
dtype = getattr(torch, sys.argv[1])
twin, exact = copy.deepcopy(module), copy.deepcopy(module)
callback = TritonKernels()
eager = train(module.to(dtype), tokens, [])
true = train(exact.double(), tokens, [])
twin.ours = True
with dispatch.using("interpret"):
    ours = train(twin.to(dtype), tokens, [callback])
print(
    json.dumps(
        {
            "eager": eager,
            "exact": true,
            "ours": ours,
            "launched": dispatch.launched,
            "fallbacks": [list(key) for key in dispatch.fallbacks],
        }
    )
)
