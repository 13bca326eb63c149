"""Sets whether fp32 on CUDA may be computed in tf32, as PyTorch lets cuDNN do by default."""

from __future__ import annotations

import warnings


def allow(allowed: bool) -> None:
    """Allows or forbids tf32 by torch's older flags, which set the newer ones too.

    Where only the newer are set, torch refuses to read the older, and torch.export reads them
    (torch 2.14.1).
    """
    import torch  # here, because backends import this module and are asked without torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are newer ones
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
