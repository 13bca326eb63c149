"""PP-OCRv6's reader of single lines, an ONNX file that rapidocr ships: the lines, what they say,
and how an answer is scored.

Truth: the text is drawn here, in the font that PIL brings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import hotlap

from . import packages

# Pixels of a line: the height that the network takes, and the width of all here.
HEIGHT, WIDTH = 48, 320
WORDS = ("river", "engine", "quiet", "orange", "window", "basket", "METAL", "Garden", "yellow", "Friday")
LINES = 48
BUDGET = 0.01


def texts(count: int, seed: int) -> list[str]:
    """Returns lines of a word, a word and a number."""
    random = np.random.default_rng(seed)
    words = [WORDS[index] for index in random.integers(len(WORDS), size=2 * count)]
    numbers = random.integers(100, 1000, size=count)
    return [f"{words[2 * line]} {words[2 * line + 1]} {numbers[line]}" for line in range(count)]


def drawn(text: str) -> np.ndarray:
    """Returns a picture of a line, (3, HEIGHT, WIDTH) in -1 to 1, padded with zeros as rapidocr
    pads.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(32)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (round(right - left) + 16, round(bottom - top) + 16), "white")
    ImageDraw.Draw(image).text((8 - left, 8 - top), text, fill="black", font=font)
    width = min(WIDTH, round(image.width * HEIGHT / image.height))
    pixels = np.asarray(image.resize((width, HEIGHT), Image.Resampling.BILINEAR), np.float32)
    picture = np.zeros((3, HEIGHT, WIDTH), np.float32)
    picture[:, :, :width] = pixels.transpose(2, 0, 1) / 127.5 - 1
    return picture


def characters() -> list[str]:
    """Returns what each class of the network's output means, nothing first."""
    import onnx

    model = onnx.load(file(), load_external_data=False)
    listed = next(entry.value for entry in model.metadata_props if entry.key == "character")
    return ["", *listed.splitlines(), " "]


def read(probabilities: np.ndarray, alphabet: list[str]) -> list[str]:
    """Returns the text of each row (steps, classes): the likeliest class of each step, once where
    it repeats.
    """
    likeliest = probabilities.argmax(2)
    changes = np.diff(likeliest, axis=1, prepend=-1) != 0
    return [
        "".join(alphabet[index] for index in row[change])
        for row, change in zip(likeliest, changes, strict=True)
    ]


def apart(text: str, other: str) -> int:
    """Returns how many characters have to be changed, left out or put in (Levenshtein)."""
    row = list(range(len(other) + 1))
    for index, character in enumerate(text, 1):
        diagonal, row[0] = row[0], index
        for place, letter in enumerate(other, 1):
            changed = diagonal + (character != letter)
            diagonal, row[place] = row[place], min(changed, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def characters_right(answers: list[str], true: list[str]) -> float:
    """Returns 1 less the edits that the answers need, as a share of the true characters."""
    edits = sum(apart(answer, text) for answer, text in zip(answers, true, strict=True))
    return 1 - edits / sum(map(len, true))


def file() -> Path:
    return packages.folder("rapidocr") / "models" / "PP-OCRv6_rec_small.onnx"


def evaluation(count: int = LINES, seed: int = 0) -> hotlap.Evaluation:
    """The lines and their score, for whatever runs the ONNX file."""
    true, alphabet = texts(count, seed), characters()
    pictures = torch.tensor(np.stack([drawn(text) for text in true]))
    return hotlap.Evaluation(
        inputs=(pictures,),
        score=lambda outputs: {"characters right": characters_right(read(outputs[0], alphabet), true)},
        metric="characters right",
        better="higher",
        budget=BUDGET,
    )


def ocr() -> hotlap.Workload:
    """The shipped file as it is; its batch is free, the width of a line is WIDTH."""
    lines = evaluation()
    return hotlap.Workload(
        "ocr",
        hotlap.OnnxFile(file()),
        (lines.inputs[0][:1],),
        item="line",
        evaluate=lines,
        calibration=evaluation(seed=1).inputs,
        weights=packages.weights("rapidocr", file().name),
    )
