"""Mixed precision in training.

Weights and optimizer stay in fp32, forward and backward run under autocast, and fp16's gradients
are scaled.

fp16 has no numbers below 6e-8, so small gradients would be 0: the loss is multiplied by a factor
that grows while gradients stay finite, and a step whose gradients do not is left out (Micikevicius
et al., Mixed Precision Training, https://arxiv.org/abs/1710.03740). bf16 has fp32's range and needs
none of it. The plug-in is made here and not by Lightning's `precision=`, which on a CPU takes bf16
where fp16 was asked for.
"""

from __future__ import annotations

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision

from ..perf.terms.reasons import Misuse

# Precision as hotlap calls it -> as Lightning does.
NAMES = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def plugin(precision: str, device: str) -> Precision:
    """Returns Lightning's plug-in for a precision of NAMES on a device, which is "cpu" or "cuda".

    Raises Misuse for a precision that NAMES does not have.
    """
    if precision not in NAMES:
        raise Misuse(f"precision {precision!r} is none of {', '.join(NAMES)}")
    if precision == "fp32":
        return Precision()
    scaler = torch.amp.GradScaler(device) if precision == "fp16" else None
    return MixedPrecision(NAMES[precision], device, scaler)  # type: ignore[arg-type]


def scale(trainer: object) -> float | None:
    """The factor by which a trainer multiplies its loss now; None where it does not."""
    scaler = getattr(getattr(trainer, "precision_plugin", None), "scaler", None)
    return None if scaler is None else float(scaler.get_scale())
