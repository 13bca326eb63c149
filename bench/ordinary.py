"""Small models of the kinds that people have, a function each: `hotlap run bench.ordinary:NAME`.

The docstring of each says what its user expects. bench/models_tried.py tries all of them.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import MappingKey, register_pytree_node

import hotlap


class Does(nn.Module):
    """A module of one function and the layers that it uses."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


# What forward makes.


class Recurrent(nn.Module):
    """An LSTM whose first states are made where it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LSTM(12, 24, 2, batch_first=True)
        self.out = nn.Linear(24, 3)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:  # (B, T, 12) -> (B, 3)
        state = torch.zeros(2, steps.shape[0], 24)
        return self.out(self.layers(steps, (state, torch.zeros_like(state)))[0][:, -1])


def states_made_in_forward():
    """the zeros that an LSTM starts from follow the precision"""
    return Recurrent(), torch.randn(4, 15, 12)


class Denoiser(nn.Module):
    """Convolutions that are told an integer time by a table of sines made in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.first, self.last = nn.Linear(16, 8), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)

    def forward(self, image: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        waves = step[:, None] * torch.pow(1000.0, -torch.arange(8) / 8)
        waves_seen = self.time(torch.cat((waves.sin(), waves.cos()), 1))
        inner = F.silu(self.first(image) + waves_seen[:, :, None, None])
        return self.last(F.interpolate(F.avg_pool2d(inner, 2), scale_factor=2, mode="bilinear"))


def sines_of_an_integer():
    """a table of sines over integer time steps follows the precision"""
    return Denoiser(), (torch.randn(2, 3, 16, 16), torch.randint(0, 1000, (2,)))


def cast_to_float():
    """x.float() in forward does not stand in the way of the reference"""
    return Does(lambda self, x: self.lin(x.float()).softmax(-1, dtype=torch.float32), lin=nn.Linear(16, 4)), (
        torch.randn(4, 16)
    )


class Constant(nn.Module):
    """Multiplies by a matrix that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = [torch.randn(16, 16)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ self.matrix[0])


def constant_in_fp32():
    """runs, and it is said that fp32 eager is the reference"""
    return Constant(), torch.randn(4, 16)


# What goes in.


class Masked(nn.Module):
    """A causal encoder layer that also masks padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(50, 16), nn.Linear(16, 5)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, tokens: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        size = tokens.shape[1]
        future = torch.ones(size, size, dtype=torch.bool).triu(1)
        return self.out(self.layer(self.embed(tokens), src_mask=future, src_key_padding_mask=padding))


def padding_mask():
    """checked on its own mask; random masks would hide every token"""
    padding = torch.zeros(4, 10, dtype=torch.bool)
    padding[2, 7:] = True
    return Masked(), (torch.randint(0, 50, (4, 10)), padding)


def mask_of_infinities():
    """a mask of 0 and -inf stays as it is"""
    mask = torch.zeros(3, 6, 6).masked_fill(torch.ones(6, 6).triu(1).bool(), float("-inf"))
    return (
        Does(
            lambda self, x, mask: F.scaled_dot_product_attention(self.q(x), self.k(x), x, attn_mask=mask),
            q=nn.Linear(16, 16),
            k=nn.Linear(16, 16),
        ),
        (torch.randn(3, 6, 16), mask),
    )


class Mixture(nn.Module):
    """Asserts that its weights sum to one."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 4)

    def forward(self, shares: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        assert torch.allclose(shares.sum(1), shares.new_ones(len(shares)), atol=1e-3), "shares sum to 1"
        return self.lin(shares) * count[:, None]


def asserted_values():
    """checked on inputs that the assertion takes; a file does without it, and that is said"""
    return Mixture(), (torch.rand(4, 8).softmax(1), torch.arange(4))


class Recommender(nn.Module):
    """Sums embeddings of lists of ids that lie end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.top = nn.EmbeddingBag(500, 16, mode="sum"), nn.Linear(16 + 4, 1)

    def forward(self, dense: torch.Tensor, ids: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        return self.top(torch.cat((dense, self.bag(ids, offsets)), 1))


def bag_with_offsets():
    """its own offsets and the batch that they belong to"""
    return Recommender(), (torch.randn(3, 4), torch.randint(0, 500, (14,)), torch.tensor([0, 6, 9]))


class Scorer(nn.Module):
    """Takes its features in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(16, 4)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.lin(batch["user"] * batch["item"])


def dict_argument():
    """one dict goes in; inputs are called batch.user and batch.item"""
    return Scorer(), {"user": torch.randn(4, 16), "item": torch.randn(4, 16)}


class Encoder(nn.Module):
    """Takes keywords, as text encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lin = nn.Embedding(60, 16), nn.Linear(16, 16)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        scale: float = 1.0,
        return_dict: bool = True,
    ) -> Any:
        hidden = self.lin(self.embed(input_ids)) * scale
        if attention_mask is not None:
            hidden = hidden * attention_mask[..., None]
        return {"last": hidden, "pooled": hidden.mean(1)} if return_dict else hidden


def keywords():
    """a dict whose keys are forward's own parameters is keywords"""
    ids = torch.randint(0, 60, (3, 9))
    return Encoder(), {"input_ids": ids, "attention_mask": torch.ones_like(ids), "return_dict": True}


def none_and_number():
    """None and numbers among the arguments stay what they are"""
    return Encoder(), (torch.randint(0, 60, (3, 9)), None, 0.5)


def nested_states():
    """states go in as a tuple and come out as one"""
    lstm = nn.LSTM(8, 12, batch_first=True)
    states = (torch.zeros(1, 3, 12), torch.zeros(1, 3, 12))
    return lstm, (torch.randn(3, 5, 8), states)


@dataclasses.dataclass
class Sample:
    """A batch of two kinds of features."""

    left: torch.Tensor
    right: torch.Tensor


def dataclass_argument():
    """a dataclass goes in; inputs are called by its fields"""
    return Does(lambda self, sample: self.lin(sample.left - sample.right), lin=nn.Linear(8, 3)), (
        Sample(torch.randn(4, 8), torch.randn(4, 8)),
    )


class Ensemble(nn.Module):
    """Takes a list of images, as torchvision's detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([self.conv(image[None]).mean() for image in images])


def list_of_images():
    """refused, with the wrapper to write"""
    return Ensemble(), ([torch.randn(3, 16, 16), torch.randn(3, 16, 16)],)


def pixels():
    """integers of 8 bits go in as they are"""
    return Does(
        lambda self, image: self.conv(image / 255).mean((2, 3)), conv=nn.Conv2d(3, 6, 3)
    ), torch.randint(0, 256, (2, 3, 12, 12), dtype=torch.uint8)


class Spectral(nn.Module):
    """Multiplies the spectrum by complex weights, as neural operators do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(9, dtype=torch.complex64))

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft(torch.fft.rfft(wave) * self.weight, n=16)


def complex_weights():
    """eager has both parts of its weights; a file that cannot hold them is refused"""
    return Spectral(), torch.randn(3, 16)


def number_of_no_axis():
    """a number that is a tensor without axes stays one"""
    return Does(lambda self, x, column: self.lin(x)[:, column], lin=nn.Linear(8, 6)), (
        torch.randn(3, 8),
        torch.tensor(2),
    )


def same_tensor_twice():
    """two inputs, though the example has one tensor for both"""
    x = torch.randn(3, 8)
    return Does(lambda self, query, key: self.lin(query) * key, lin=nn.Linear(8, 8)), (x, x)


def mask_of_large_numbers():
    """the mask of text encoders, 0 or the least number there is"""

    def forward(self, x, mask):
        scores = self.lin(x)
        return (scores + (1.0 - mask.to(scores.dtype)) * torch.finfo(scores.dtype).min).softmax(-1)

    keep = torch.ones(3, 8, dtype=torch.int64)
    keep[1, 5:] = 0
    return Does(forward, lin=nn.Linear(8, 8)), (torch.randn(3, 8), keep)


class Rotating(nn.Module):
    """Keeps a table of angles that it makes when it is first called, and for each length."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.tables = nn.Linear(8, 8), {}

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        size = steps.shape[1]
        if size not in self.tables:
            self.tables[size] = torch.outer(torch.arange(size) / 10, torch.arange(8) + 1.0)
            self.register_buffer("angles", self.tables[size], persistent=False)
        return self.lin(steps) * self.angles.cos()


def table_kept_by_the_module():
    """what a module keeps from one call does not reach the next precision"""
    return Rotating(), torch.randn(2, 6, 8)


def weights_of_64_bits():
    """fp32 entrants run it in fp32, and it is said"""
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh()).double(), torch.randn(2, 8, dtype=torch.float64)


# What comes out.


@dataclasses.dataclass
class Answer:
    """What a detector returns."""

    boxes: torch.Tensor
    scores: torch.Tensor
    note: str = "ours"


class Detector(nn.Module):
    """Two heads, answered in different containers."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.answer = answer
        self.body, self.box, self.score = nn.Linear(16, 32), nn.Linear(32, 4), nn.Linear(32, 6)

    def forward(self, x: torch.Tensor) -> Any:
        inner = torch.relu(self.body(x))
        return self.answer(self.box(inner), self.score(inner))


def dict_returned():
    """outputs are called by their keys"""
    return Detector(lambda boxes, scores: {"z_boxes": boxes, "a_scores": scores}), torch.randn(4, 16)


def dataclass_returned():
    """outputs are called by the fields; text in one is left out, and said"""
    return Detector(Answer), torch.randn(4, 16)


Pair = namedtuple("Pair", ("boxes", "scores"))


def named_tuple_returned():
    """outputs are called by the fields"""
    return Detector(Pair), torch.randn(4, 16)


class Cache:
    """What a language model keeps for its next call: no tensor."""

    def __init__(self, keys: torch.Tensor) -> None:
        self.keys = keys


def cache_returned():
    """what is no tensor is left out, and said"""
    return Detector(lambda boxes, scores: {"logits": scores, "cache": Cache(boxes), "loss": None}), (
        torch.randn(4, 16)
    )


class Registered(Cache):
    """The same, registered with pytree, which can take it apart."""


register_pytree_node(
    Registered,
    lambda cache: ([cache.keys], None),
    lambda parts, _: Registered(*parts),
    flatten_with_keys_fn=lambda cache: ([(MappingKey("keys"), cache.keys)], None),
)


class Remembering(nn.Module):
    """Takes what it kept in the call before, by keyword, and returns what it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, cache: Registered) -> dict[str, Any]:
        kept = torch.cat((cache.keys, self.lin(x)), 1)
        return {"mean": kept.mean(1), "cache": Registered(kept)}


def cache_registered_with_pytree():
    """its tensors go in and come out"""
    return Remembering(), {"x": torch.randn(2, 1, 8), "cache": Registered(torch.randn(2, 5, 8))}


def booleans_beside():
    """booleans and integers are compared exactly"""
    return Does(
        lambda self, x: {"y": self.lin(x), "positive": x > 0, "large": (x * 1000).long() * 1000003},
        lin=nn.Linear(8, 4),
    ), torch.randn(3, 8)


def complex_returned():
    """both parts are compared"""
    return Does(
        lambda self, wave: torch.fft.rfft(self.conv(wave), dim=-1), conv=nn.Conv1d(1, 2, 5, padding=2)
    ), torch.randn(3, 1, 64)


# Which axis is the batch.


def time_first():
    """every time step is kept: dimension 0 is no batch"""
    return Does(
        lambda self, steps: self.out(self.lstm(steps)[0][-1]), lstm=nn.LSTM(8, 12), out=nn.Linear(12, 2)
    ), (torch.randn(30, 1, 8))


def fixed_view():
    """its own batch of 4 without --batch, and said"""
    return Does(lambda self, x: self.lin(x.view(4, 2, 8)).sum(1), lin=nn.Linear(8, 3)), torch.randn(4, 16)


def free_time():
    """any length: exported so, and checked at two others"""
    module = Does(lambda self, x: self.conv(x).relu().mean(-1), conv=nn.Conv1d(4, 8, 3, padding=1))
    return hotlap.Workload(
        "free_time", module, (torch.randn(2, 4, 20),), names=("x",), dynamic={"x": {2: "time"}}
    )


def free_image():
    """any height and width: exported so, and checked at two others"""
    module = Does(
        lambda self, image: F.interpolate(self.conv(image), scale_factor=2),
        conv=nn.Conv2d(3, 4, 3, padding=1),
    )
    axes = {"image": {2: "height", 3: "width"}}
    return hotlap.Workload("free_image", module, (torch.randn(2, 3, 16, 24),), names=("image",), dynamic=axes)


# What cannot be repeated or copied.


def noise_in_forward():
    """nondeterministic, with the remedy"""
    return Does(lambda self, x: self.lin(x + torch.randn_like(x)), lin=nn.Linear(8, 8)), torch.randn(4, 8)


def dropout_left_on():
    """nondeterministic, with the remedy"""
    return Does(lambda self, x: F.dropout(self.lin(x), 0.3, training=True), lin=nn.Linear(8, 8)), (
        torch.randn(4, 8)
    )


def weight_norm_by_hook():
    """runs, though such a module cannot be copied"""
    return nn.Sequential(nn.utils.weight_norm(nn.Conv1d(1, 6, 3)), nn.ReLU(), nn.Conv1d(6, 1, 3)), (
        torch.randn(2, 1, 40)
    )


class Logging(nn.Module):
    """Holds a lock, as clients, loggers and tokenizers do."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.lin = threading.Lock(), nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.lock:
            return self.lin(x)


def lock_held():
    """runs, though such a module cannot be copied"""
    return Logging(), torch.randn(4, 12)


def weights_of_16_bits():
    """fp32 entrants run it in fp32, and it is said"""
    return nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4)).bfloat16(), (
        torch.randn(2, 32, dtype=torch.bfloat16)
    )


# What exporters stumble over.


class Branching(nn.Module):
    """Goes one of two ways by what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return self.high(x)
        return self.low(x)


def branch_on_values():
    """eager runs; exporters refuse with the line and torch.where or torch.cond"""
    return Branching(), torch.randn(4, 8)


class Picking(nn.Module):
    """Goes another way where nothing is picked, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.box = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        picked = torch.where(self.score(x).sigmoid()[:, 0] > 0.99)[0]
        if picked.numel() == 0:
            return self.box(x)
        return self.box(x) * 0 + self.score(x)[picked].mean()


def branch_on_how_many():
    """eager runs; exporters refuse with the line that asks how many there are"""
    return Picking(), torch.randn(4, 8)


def rows_by_a_mask():
    """as many rows come out as the values say"""
    return Does(lambda self, x: (y := self.lin(x))[y[:, 0] > 0], lin=nn.Linear(8, 3)), torch.randn(8, 8)


def spectrogram():
    """the short-time Fourier transform runs in a file"""
    return Does(
        lambda self, wave: self.conv(
            torch.stft(wave, 128, 64, window=torch.hann_window(128), return_complex=True).abs()
        ).mean(-1),
        conv=nn.Conv1d(65, 8, 3),
    ), torch.randn(2, 2000)


class FakeQuantised(nn.Module):
    """Trained for 8 bits: its inputs are rounded as they will be."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = torch.ao.quantization.FakeQuantize.with_args(quant_min=0, quant_max=255)()
        self.conv = nn.Conv2d(3, 6, 3)
        self.fake(torch.randn(2, 3, 8, 8))
        self.fake.disable_observer()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.conv(self.fake(image)).mean((2, 3))


def fake_quantised():
    """its rounding goes into the file"""
    return FakeQuantised(), torch.randn(2, 3, 8, 8)


def packed_steps():
    """sequences of several lengths, all steps given back"""

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)[0]

    return Does(forward, gru=nn.GRU(8, 12, batch_first=True)), (
        torch.randn(3, 9, 8),
        torch.tensor([9, 6, 4]),
    )


def packed_last():
    """eager runs; exporters refuse in words"""

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0][0]

    return Does(forward, lstm=nn.LSTM(8, 12, batch_first=True)), (
        torch.randn(3, 9, 8),
        torch.tensor([9, 6, 4]),
    )


def grid_sampled():
    """sampling on a grid runs in a file"""

    def forward(self, image):
        grid = F.affine_grid(self.where(image.mean((2, 3))).view(-1, 2, 3).tanh(), list(image.shape), False)
        return F.grid_sample(image, grid, align_corners=False)

    return Does(forward, where=nn.Linear(3, 6)), torch.randn(2, 3, 12, 12)


def smaller_without_aliasing():
    """right in every file, or refused: never without the antialiasing"""
    return Does(
        lambda self, image: F.interpolate(self.conv(image), (10, 10), mode="bilinear", antialias=True),
        conv=nn.Conv2d(3, 4, 1),
    ), torch.randn(2, 3, 32, 32)


def scripted_part():
    """a part that TorchScript has compiled runs"""
    return nn.Sequential(torch.jit.script(nn.Sequential(nn.Linear(8, 16), nn.ReLU())), nn.Linear(16, 3)), (
        torch.randn(4, 8)
    )


class NeedsWidth(nn.Module):
    """Cannot be made without an argument."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x)


class AsksItsTrainer(nn.Module):
    """Uses in forward what there is only in training."""

    example_input_array = torch.randn(2, 4)

    @property
    def trainer(self) -> Any:
        raise RuntimeError(f"{type(self).__name__} is not attached to a `Trainer`.")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.trainer.current_epoch
