"""Whether fp32 on CUDA may be computed in tf32:

PyTorch lets cuDNN do it unless it is told not to.
"""

from __future__ import annotations

import warnings


def allow(allowed: bool) -> None:
    """By torch's older flags, which set the newer ones too: where only the newer are set, torch
    refuses to read the older, and torch.export reads them (torch 2.14.1).
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are newer ones
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed
