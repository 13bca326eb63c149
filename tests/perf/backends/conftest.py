"""Small modules with something planted in each, and one way to build, load and run them."""

import contextlib
import importlib
import os
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from hotlap.perf.oracle import reference
from hotlap.perf.oracle.check import distance
from hotlap.perf.terms.case import Case, Workload
from hotlap.perf.terms.contract import Artefact, Step


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x):  # (B, 3, H, W) -> (B, 5)
        return self.head(self.body(x).mean((2, 3)))


class Mlp(nn.Module):
    def forward(self, x):  # (B, 16) -> two outputs
        return {"sum": x @ torch.ones(16, 4, dtype=x.dtype), "ratio": torch.tanh(x)}


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):  # (B, T, D)
        # (B, 2 heads, T, D / 2) each
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (6, -1)).transpose(1, 2).chunk(3, 1)
        return x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Attention(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(3))

    def forward(self, tokens):  # (B, T) of int64 -> (B, T, D)
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return x


class Broken(nn.Module):
    def forward(self, x):
        x = x + 1
        torch._dynamo.graph_break("planted")
        return x * 2


class Uncompiled(nn.Module):
    @torch._dynamo.disable
    def forward(self, x):
        return x + 1


class Airy(nn.Module):
    def forward(self, x):
        return torch.special.airy_ai(x)


class Specialised(nn.Module):
    def forward(self, x):  # made for a batch of 2
        return torch.tanh(x) * (1.0 if x.shape[0] == 2 else 2.0)


class Branching(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class Gated(nn.Module):
    """torch.export cannot trace its forward, of which one operation is ours."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        x = self.norm(x)
        return x + 1 if x.sum() > 0 else x - 1


class Signal(nn.Module):
    """PT2E's quantiser for x86 takes linear and 2-d convolution; the 1-d one stays as it is."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 8, 3, padding=1), nn.Linear(4, 4)

    def forward(self, x):  # (B, 16) -> (B, 4)
        return self.head(self.conv(x.unflatten(1, (4, 4))).mean(1))


class Saturating(nn.Module):
    """Activations near 1, weights near 1 or -1: two 8-bit products together are beyond 16 bits."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 8)
        self.head.weight.data = torch.sign(self.head.weight) * (1 - 0.02 * torch.rand(8, 16))

    def forward(self, x):  # (B, 16) -> (B, 8)
        return self.head(0.75 + 0.25 * torch.tanh(x))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 32, batch_first=True), nn.Linear(32, 5)

    def forward(self, x):  # (B, 16) -> (B, 5)
        return self.head(self.lstm(x.unflatten(1, (4, 4)))[0][:, -1])


class Shared(nn.Module):
    """One batch norm after two convolutions: torchao folds each into its own and finds two
    (ValueError in its pattern matcher).
    """

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x)) + self.norm(self.conv(x))


MODULES = {
    "conv": Conv,
    "mlp": Mlp,
    "attention": Attention,
    "broken": Broken,
    "uncompiled": Uncompiled,
    "airy": Airy,
    "specialised": Specialised,
    "branching": Branching,
    "gated": Gated,
    "signal": Signal,
    "shared": Shared,
    "saturating": Saturating,
    "recurrent": Recurrent,
    "onlyconv": lambda: nn.Conv2d(3, 4, 3),
}


def make(case: Case) -> Workload:
    torch.manual_seed(0)
    module = MODULES[case.workload]().eval().requires_grad_(False)
    kinds = {
        "conv": torch.randn(case.batch, 3, 8, 8),
        "shared": torch.randn(case.batch, 3, 8, 8),
        "onlyconv": torch.randn(case.batch, 3, 8, 8),
        "attention": torch.randint(0, 11, (case.batch, 6)),
    }
    return Workload(case.workload, module, (kinds.get(case.workload, torch.randn(case.batch, 16)),))


class Ran(NamedTuple):
    backend: object
    artefact: Artefact
    step: Step
    outputs: tuple
    phases: list

    def placement(self):
        return self.backend.placement(self.artefact, self.step)


@pytest.fixture
def workload():
    return make


@pytest.fixture
def run(tmp_path):
    """run(case id): builds, loads and calls once, in this process; load's own binding of the thread
    is undone.
    """
    mask, threads = os.sched_getaffinity(0), torch.get_num_threads()

    def go(text: str) -> Ran:
        case = Case.parse(text)
        backend = importlib.import_module(f"hotlap.perf.backends.{case.backend}")
        folder, phases = tmp_path / text.replace("/", "_"), []
        folder.mkdir(exist_ok=True)

        @contextlib.contextmanager
        def phase(name):
            phases.append(name)
            yield

        if hasattr(backend, "build"):
            backend.build(make(case), case, folder, phase)
        artefact = Artefact(case, folder, 2, lambda: make(case), tmp_path)
        step = backend.load(artefact)
        inputs = tuple(tensor.numpy() for tensor in make(case).inputs)
        outputs = step.call(step.place(inputs))
        step.synchronize()
        return Ran(backend, artefact, step, step.fetch(outputs), phases)

    yield go
    os.sched_setaffinity(0, mask)
    torch.set_num_threads(threads)


@pytest.fixture
def check():
    """check(ran): outputs are as near to fp64 eager as same-precision eager is, by the oracle's
    rule.
    """

    def near(ran: Ran) -> None:
        case = ran.artefact.case
        terms = reference.counted(make(case)).terms
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(case.precision, torch.float32)
        exact, eager = _forward(case, torch.float64), _forward(case, dtype)
        assert len(exact) == len(ran.outputs)
        for true, same, output in zip(exact, eager, ran.outputs, strict=True):
            assert output.dtype == np.float32 and output.shape == true.shape
            off = distance(output, true, same, case.precision, terms)
            assert off.within, off

    return near


def _forward(case, dtype):
    workload = make(case)
    inputs = [value.to(dtype) if value.is_floating_point() else value for value in workload.inputs]
    outputs = workload.module.to(dtype)(*inputs)
    outputs = outputs.values() if isinstance(outputs, dict) else [outputs]
    return [value.double().numpy() for value in outputs]
