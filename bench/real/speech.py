"""Silero VAD, which tells speech from other sound 32 ms at a time and carries a state from chunk
to chunk, from the TorchScript file that silero-vad ships.

Truth: nobody's voice is recorded here. Speech is made as a formant synthesiser makes vowels, pulses
of the glottis through three resonances; what is no speech is noise, hum and silence. That is easier
than the world: a score of 1 says that a route decides as it should on these signals, no more.

silero is one chunk with the state that the shipped model had there. silero_clip runs 0.8 s
from an empty state, so that what a route gets wrong adds up. silero_plain is silero written as
torch's own layers, with the same weights: exporters take it that do not take TorchScript.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import lfilter
from torch import Tensor, nn

import hotlap

from . import packages

# Samples a second, of a chunk, and of those before it that each call takes again
# (silero_vad/utils_vad.py).
RATE = 16000
CHUNK = 512
CONTEXT = 64
STATE = 128
# Chunks of a clip, and those at its beginning that are not judged: the model waits for some.
CHUNKS = 24
UNSURE = 8
CLIPS = 48
BUDGET = 0.01
# First three formants, Hz, of vowels (Peterson and Barney 1952, men) and their widths, Hz.
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
WIDTHS = (80, 100, 140)


def syllables(samples: int, random: np.random.Generator) -> np.ndarray:
    """Returns vowels of 120 to 300 ms at one speaker's pitch, some after a hiss, as after an s."""
    pitch, parts, length = random.uniform(110, 240), [], 0
    while length < samples:
        size = int(RATE * random.uniform(0.12, 0.3))
        glide = pitch * np.exp(random.normal(0, 0.1)) * np.linspace(1.05, 0.92, size)
        pulses = np.diff(np.floor(np.cumsum(glide / RATE)), prepend=0)
        sound = lfilter([1], [1, -0.95], pulses) + random.normal(0, 0.01, size)
        for formant, width in zip(VOWELS[random.integers(len(VOWELS))], WIDTHS, strict=True):
            radius = np.exp(-np.pi * width / RATE)
            poles = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2]
            sound = lfilter([1 - radius], poles, sound)
        sound *= np.hanning(size) ** 0.4 / np.abs(sound).max()
        if random.random() < 0.6:
            hiss = random.normal(size=int(RATE * 0.06))
            sound[: len(hiss)] = 0.3 * lfilter([1, -0.9], [1], hiss)
        parts.append(0.3 * sound)
        length += size
    return np.concatenate(parts)[:samples] + random.normal(0, 0.002, samples)


def noise(samples: int, random: np.random.Generator) -> np.ndarray:
    """Returns white or brown noise, hum of the mains, or near silence."""
    time, white = np.arange(samples) / RATE, random.normal(size=samples)
    kinds = (
        0.1 * white,
        0.02 * lfilter([1], [1, -0.97], white),
        0.2 * np.sin(2 * np.pi * 50 * time) + 0.1 * np.sin(2 * np.pi * 150 * time) + 0.01 * white,
        0.0005 * white,
    )
    return kinds[random.integers(len(kinds))]


def clips(count: int, seed: int) -> tuple[Tensor, np.ndarray]:
    """Returns sound (count, CHUNKS * CHUNK), half of it speech, and which half."""
    random = np.random.default_rng(seed)
    is_speech = np.arange(count) % 2 == 0
    sounds = [(syllables if speech else noise)(CHUNKS * CHUNK, random) for speech in is_speech]
    return torch.tensor(np.stack(sounds), dtype=torch.float32), is_speech


def chunks(sound: Tensor) -> Tensor:  # (B, T * CHUNK) -> (B, T, CONTEXT + CHUNK)
    """Returns each chunk with the samples before it, as a call takes it."""
    return F.pad(sound, (CONTEXT, 0)).unfold(1, CONTEXT + CHUNK, CHUNK)


class Detector(nn.Module):
    """One chunk and the state before it, rows first, by the shipped TorchScript."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        self.scripted = scripted

    def forward(self, samples: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        # (B, 576), (B, 2, 128) -> (B, 1), (B, 2, 128)
        rows = samples.shape[0]
        probability, after = self.scripted(samples, state.transpose(0, 1))
        # An exporter does not see how many axes come out of TorchScript's branches.
        return probability.reshape(rows, 1), after.reshape(2, rows, STATE).transpose(0, 1)


class ClipDetector(nn.Module):
    """All chunks of a clip, from an empty state."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, sound: Tensor) -> Tensor:  # (B, CHUNKS * CHUNK) -> (B, CHUNKS)
        state = sound.new_zeros(sound.shape[0], 2, STATE)
        probabilities = []
        for samples in chunks(sound).unbind(1):
            probability, state = self.detector(samples, state)
            probabilities.append(probability)
        return torch.cat(probabilities, 1)


class PlainDetector(nn.Module):
    """What the shipped TorchScript computes at 16 kHz, in torch's layers with its weights."""

    def __init__(self, scripted: nn.Module) -> None:
        super().__init__()
        values = dict(scripted.state_dict())
        basis = values["stft.forward_basis_buffer"]  # (2 * 129, 1, 256)
        self.spectrum = nn.Conv1d(1, basis.shape[0], basis.shape[2], stride=CHUNK // 4, bias=False)
        self.spectrum.weight.data = basis.clone()
        layers = []
        for index, stride in enumerate((1, 2, 2, 1)):
            name = f"encoder.{index}.reparam_conv"
            out, into, size = values[f"{name}.weight"].shape
            layer = nn.Conv1d(into, out, size, stride, padding=1)
            layer.load_state_dict({part: values[f"{name}.{part}"] for part in ("weight", "bias")})
            layers += [layer, nn.ReLU()]
        self.encoder = nn.Sequential(*layers)
        self.memory = nn.LSTMCell(STATE, STATE)
        self.memory.load_state_dict(
            {part: values[f"decoder.rnn.{part}"] for part, _ in self.memory.named_parameters()}
        )
        self.head = nn.Conv1d(STATE, 1, 1)
        self.head.load_state_dict({part: values[f"decoder.decoder.2.{part}"] for part in ("weight", "bias")})

    def forward(self, samples: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        # (B, 576), (B, 2, 128) -> (B, 1), (B, 2, 128)
        padded = F.pad(samples[:, None], (0, CONTEXT), mode="reflect")
        real, imaginary = self.spectrum(padded).chunk(2, 1)  # (B, 129, 4) each
        encoded = self.encoder(torch.sqrt(real**2 + imaginary**2))[:, :, 0]
        hidden, cell = self.memory(encoded, (state[:, 0], state[:, 1]))
        probability = torch.sigmoid(self.head(torch.relu(hidden)[:, :, None]))
        return probability[:, :, 0], torch.stack((hidden, cell), 1)


def shipped() -> nn.Module:
    """The network for 16 kHz of the shipped file."""
    file = packages.folder("silero_vad") / "data" / "silero_vad.jit"
    with warnings.catch_warnings(action="ignore"):  # torch 2.14: TorchScript is deprecated
        whole = torch.jit.load(file, map_location="cpu")
    return whole.eval()._model


def states(detector: nn.Module, sound: Tensor) -> tuple[Tensor, Tensor]:
    """Returns every chunk of the clips that is judged and the state before it."""
    state, before = torch.zeros(len(sound), 2, STATE), []
    parts = chunks(sound)
    with torch.inference_mode():
        for samples in parts.unbind(1):
            before.append(state)
            _, state = detector(samples, state)
    judged = slice(UNSURE, None)
    rows = parts[:, judged].flatten(0, 1), torch.stack(before, 1)[:, judged].flatten(0, 1)
    return rows[0].clone(), rows[1].clone()


def right(probabilities: np.ndarray, is_speech: np.ndarray) -> dict[str, float]:
    """The share of decisions that are right, by clip and chunk."""
    decisions = probabilities.reshape(len(is_speech), -1) > 0.5
    return {"decisions right": float((decisions == is_speech[:, None]).mean())}


def by_chunk(name: str, make: Callable[[nn.Module], nn.Module]) -> hotlap.Workload:
    """A detector of one chunk, on the states that the shipped one had."""
    scripted = shipped()
    module = make(scripted).eval()
    sound, is_speech = clips(CLIPS, seed=0)
    inputs = states(Detector(scripted), sound)
    return workload(
        name,
        module,
        inputs,
        states(Detector(scripted), clips(CLIPS // 2, seed=1)[0]),
        lambda outputs: right(outputs[0], is_speech),
    )


def workload(
    name: str,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    calibration: tuple[Tensor, ...],
    score: Callable[[tuple[np.ndarray, ...]], dict[str, float]],
) -> hotlap.Workload:
    return hotlap.Workload(
        name,
        module,
        tuple(value[:1] for value in inputs),
        item="chunk",
        evaluate=hotlap.Evaluation(inputs, score, "decisions right", "higher", BUDGET),
        calibration=calibration,
        weights=packages.weights("silero-vad", "silero_vad.jit"),
    )


def silero() -> hotlap.Workload:
    return by_chunk("silero", Detector)


def silero_plain() -> hotlap.Workload:
    return by_chunk("silero_plain", PlainDetector)


def silero_clip() -> hotlap.Workload:
    sound, is_speech = clips(CLIPS, seed=0)
    return workload(
        "silero_clip",
        ClipDetector(PlainDetector(shipped())).eval(),
        (sound,),
        (clips(CLIPS // 2, seed=1)[0],),
        lambda outputs: right(outputs[0][:, UNSURE:], is_speech),
    )


def silero_onnx() -> hotlap.Workload:
    """The ONNX file for 16 kHz as it is: one stream, whose state has its rows on axis 1."""
    file = packages.folder("silero_vad") / "data" / "silero_vad_16k_op15.onnx"
    samples, state = states(Detector(shipped()), clips(2, seed=0)[0])
    return hotlap.Workload(
        "silero_onnx",
        hotlap.OnnxFile(file),
        (samples[:1], state[:1].transpose(0, 1).contiguous(), torch.tensor(RATE)),
        item="chunk",
        dynamic=False,
        batched=False,
        names=("input", "state", "sr"),
        weights=packages.weights("silero-vad", file.name),
    )
