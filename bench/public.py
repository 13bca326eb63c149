"""Public architectures with seeded random weights as workloads, such as bench.public:resnet18.

They need timm: pip install timm torchvision.

Random weights say what a backend makes of a graph and how fast it is; of the accuracy of int8 on a
trained network they say nothing.
"""

from __future__ import annotations

from functools import partial

import torch

import hotlap

# Pixels of an image's height and width: what all of them were published for.
SIDE = 224
# Our name -> timm's.
NAMES = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "mobilenetv3": "mobilenetv3_large_100",
    "efficientnet_b0": "efficientnet_b0",
    "vit_tiny": "vit_tiny_patch16_224",
    "convnext_nano": "convnext_nano",
    "regnety_008": "regnety_008",
    "swin_tiny": "swin_tiny_patch4_window7_224",
}


def make(name: str) -> hotlap.Workload:
    """The architecture with seeded weights and one seeded image (1, 3, SIDE, SIDE)."""
    import timm

    torch.manual_seed(0)
    module = timm.create_model(NAMES[name], pretrained=False).eval()
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return hotlap.Workload(name, module, (image,), item="image", weights="random, seed 0")


resnet18 = partial(make, "resnet18")
resnet50 = partial(make, "resnet50")
mobilenetv3 = partial(make, "mobilenetv3")
efficientnet_b0 = partial(make, "efficientnet_b0")
vit_tiny = partial(make, "vit_tiny")
convnext_nano = partial(make, "convnext_nano")
regnety_008 = partial(make, "regnety_008")
swin_tiny = partial(make, "swin_tiny")
