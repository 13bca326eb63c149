"""What 8 bits cost at least: a module whose linear, convolution and recurrent layers see rounded
weights and rounded inputs, all else in fp32.

The yardstick of int8 where there is no task metric: signed symmetric weights with a scale for each
output channel, inputs with one scale and zero point over the range that they have in this call (the
scheme of ONNX Runtime's, OpenVINO's and torch's static quantisation; Krishnamoorthi, Quantizing
deep convolutional networks for efficient inference, arXiv 1806.08342, sections 2 and 3).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

# The layers that quantisation runs in 8 bits, and those of which it does so to every weight.
RECURRENT = (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU)
LAYERS = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


@contextlib.contextmanager
def rounded(module: torch.nn.Module) -> Iterator[None]:
    """Rounds the weights for good, and the inputs of each call inside the context."""
    handles = []
    for layer in module.modules():
        if isinstance(layer, RECURRENT):
            for name, value in layer._parameters.items():
                if value is not None and name.startswith("weight"):
                    value.data = weights(value.data)
        if isinstance(layer, LAYERS):
            if "weight" in layer._parameters:  # else a hook makes it anew in each call
                layer.weight.data = weights(layer.weight.data)
            handles.append(layer.register_forward_pre_hook(lambda _, args: (inputs(args[0]), *args[1:])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def weights(value: torch.Tensor) -> torch.Tensor:  # (out, ...)
    """Returns weights rounded to 8 bits with a scale for each output channel."""
    scale = value.flatten(1).abs().amax(1).clamp(min=torch.finfo(value.dtype).tiny) / 127
    return torch.fake_quantize_per_channel_affine(
        value, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -127, 127
    )


def inputs(value: torch.Tensor) -> Any:
    """Returns a tensor rounded to 8 bits over its range, which is widened to hold 0."""
    low, high = min(0.0, float(value.min())), max(0.0, float(value.max()))
    scale = (high - low) / 255 or 1.0
    return torch.fake_quantize_per_tensor_affine(value, scale, round(-low / scale), 0, 255)
