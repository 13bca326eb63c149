"""Models that people publish, with seeded random weights, a function each:
`hotlap run bench.published:NAME`.

The docstring of each says what its user expects. bench/models_tried.py tries all of them. They need
timm, torchvision, transformers and torch_geometric: pip install 'hotlap[published]'.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import hotlap

# Pixels of an image's height and width: what those of timm were published for, and a small one for
# the detector.
SIDE = 224
SMALL_SIDE = 160


# Images.


def _image_classifier(name: str) -> hotlap.Workload:
    import timm

    module = timm.create_model(name, pretrained=False)
    return hotlap.Workload(name, module, (torch.randn(1, 3, SIDE, SIDE),), item="image")


def edgenext_xx_small():
    """attention over channels, between convolutions, runs everywhere"""
    return _image_classifier("edgenext_xx_small")


def pvt_v2_b0():
    """attention over a smaller image runs everywhere"""
    return _image_classifier("pvt_v2_b0")


def coat_lite_tiny():
    """convolutions as positions in attention run everywhere"""
    return _image_classifier("coat_lite_tiny")


def _detector() -> nn.Module:
    """Faster R-CNN of few classes, whose batch norms have seen images, so that what it finds
    differs in its scores with random weights too.
    """
    from torchvision.models import detection

    model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=4,
        box_detections_per_img=Boxes.MOST,
        min_size=SMALL_SIDE,
        max_size=SMALL_SIDE,
    )
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        model.backbone(model.transform([*torch.rand(4, 3, SMALL_SIDE, SMALL_SIDE)])[0].tensors)
    return model.eval()


class Boxes(nn.Module):
    """A detector that takes a batch of images and returns as many boxes of each, the last of them
    zeros.
    """

    MOST = 20

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:  # (B, 3, H, W)
        answers = self.model(list(images))
        return {
            name: torch.stack([self.padded(answer[name]) for answer in answers])
            for name in ("boxes", "scores", "labels")
        }

    def padded(self, values: torch.Tensor) -> torch.Tensor:  # (N, ...) -> (MOST, ...)
        room = values.new_zeros(self.MOST, *values.shape[1:])
        return torch.cat((values, room))[: self.MOST]


def faster_rcnn():
    """a detector with a module around it: one tensor in, as many boxes of each image out"""
    return Boxes(_detector()), torch.rand(1, 3, SMALL_SIDE, SMALL_SIDE)


def faster_rcnn_of_a_list():
    """refused, with the wrapper to write"""
    return _detector(), ([torch.rand(3, SMALL_SIDE, SMALL_SIDE)],)


# Text.


def distilbert():
    """a text encoder called by keywords, on its own mask"""
    from transformers import DistilBertConfig, DistilBertModel

    module = DistilBertModel(DistilBertConfig(n_layers=4, dim=256, hidden_dim=1024, n_heads=4))
    mask = torch.ones(2, 32, dtype=torch.int64)
    mask[1, 20:] = 0
    return module, {"input_ids": torch.randint(0, 30522, (2, 32)), "attention_mask": mask}


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=5000, n_layer=4, n_embd=256, n_head=4, bos_token_id=0, eos_token_id=0)
    )


def gpt2_with_its_cache():
    """the cache that it returns is no tensor: left out, and said"""
    return _gpt2(), {"input_ids": torch.randint(0, 5000, (2, 24)), "use_cache": True}


class Step(nn.Module):
    """One step of decoding: takes and returns the keys and values of each layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, token: torch.Tensor, *cache: torch.Tensor) -> dict[str, Any]:
        """token: (B, 1). cache: keys and values of each layer by turns, (B, heads, T, width)."""
        from transformers import DynamicCache

        pairs = list(zip(cache[::2], cache[1::2], strict=True))
        answer = self.model(input_ids=token, cache=DynamicCache(pairs), use_cache=True)
        layers = [part for layer in answer.cache.layers for part in (layer.keys, layer.values)]
        return {"logits": answer.logits, "cache": layers}


def gpt2_one_step():
    """one step of decoding with a module around it: the cache goes in and comes out as tensors"""
    cache = [torch.randn(2, 4, 24, 64) for _ in range(8)]
    return Step(_gpt2()), (torch.randint(0, 5000, (2, 1)), *cache)


def gpt2_fed_with_a_cache():
    """refused, with the wrapper to write"""
    from transformers import DynamicCache

    pairs = [(torch.randn(2, 4, 24, 64), torch.randn(2, 4, 24, 64)) for _ in range(4)]
    return _gpt2(), {"input_ids": torch.randint(0, 5000, (2, 1)), "cache": DynamicCache(pairs)}


# Graphs.


class Layers(nn.Module):
    """Two layers of a graph network, called with the features of nodes and the edges."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:  # (N, C), (2, E)
        return self.second(F.elu(self.first(x, edge_index)), edge_index)


def _graph() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns features (N, C) and edges (2, E) of a graph of 60 nodes."""
    return torch.randn(60, 16), torch.randint(0, 60, (2, 240))


def gcn():
    """dimension 0 is no batch but nodes, and edges lead to nodes that there are"""
    from torch_geometric.nn import GCNConv

    return Layers(GCNConv(16, 32), GCNConv(32, 7)), _graph()


def gat():
    """a softmax over the edges of each node runs in a file"""
    from torch_geometric.nn import GATConv

    return Layers(GATConv(16, 8, heads=4), GATConv(32, 7, heads=1)), _graph()


def message_passing():
    """messages that are scattered to their nodes run in a file"""
    from torch_geometric.nn import MessagePassing

    class Edges(MessagePassing):
        """The largest of what a layer makes of the two ends of each edge."""

        def __init__(self, size: int, out: int) -> None:
            super().__init__(aggr="max")
            self.layer = nn.Linear(2 * size, out)

        def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_i: torch.Tensor, x_j: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat((x_i, x_j - x_i), -1))

    return Layers(Edges(16, 32), Edges(32, 7)), _graph()


# Size.


def above_2_gb():
    """weights of 2.2 GB, which a file has beside it"""
    width, layers = 4096, 33
    parts = [nn.utils.skip_init(nn.Linear, width, width) for _ in range(layers)]
    for part in parts:
        nn.init.normal_(part.weight, std=width**-0.5)
        nn.init.zeros_(part.bias)
    return nn.Sequential(*(each for part in parts for each in (part, nn.Tanh()))), torch.randn(1, width)
