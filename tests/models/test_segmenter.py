"""Segmentation: tiles of a photograph, their labels, the U-Net's parts, Dice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hotlap.models.data.motorcycle import COLUMNS, ROWS, SIDE, Motorcycle, labelled, tiles, turned
from hotlap.models.data.order import generator
from hotlap.models.data.unknown import UNKNOWN
from hotlap.models.nets.unet import DoubleConv, UNet, Up
from hotlap.models.segmenter import Segmenter


@pytest.fixture(scope="module")
def data() -> Motorcycle:
    data = Motorcycle()
    data.setup()
    return data


def logits(classes: torch.Tensor) -> torch.Tensor:
    """Those of a network that is certain of these classes (B, H, W)."""
    return torch.nn.functional.one_hot(classes, 2).permute(0, 3, 1, 2).float()


def test_the_network_keeps_the_shape_of_any_image_of_whole_halves() -> None:
    net = UNet().eval()
    for height, width in ((32, 32), (64, 16), (4, 8)):
        assert net(torch.rand(2, 3, height, width)).shape == (2, 2, height, width)


def test_parts_keep_and_double_the_size() -> None:
    assert DoubleConv(3, 8)(torch.rand(2, 3, 12, 10)).shape == (2, 8, 12, 10)
    assert Up(16, 8)(torch.rand(2, 16, 6, 5), torch.rand(2, 8, 12, 10)).shape == (2, 8, 12, 10)


def test_the_connection_at_each_size_reaches_the_output() -> None:
    torch.manual_seed(0)
    net = UNet().eval()
    seen: list[torch.Tensor] = []
    for up in net.up:
        up.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    images = torch.rand(1, 3, 32, 32)
    before = net(images)
    assert [tuple(beside.shape) for beside in seen] == [(1, 32, 16, 16), (1, 16, 32, 32)]
    for up in net.up:
        hook = up.register_forward_pre_hook(lambda _, inputs: (inputs[0], torch.zeros_like(inputs[1])))
        assert not torch.equal(net(images), before)
        hook.remove()


def test_dice_of_equal_masks_is_one_of_disjoint_ones_zero() -> None:
    labels = torch.zeros(2, 4, 4, dtype=torch.int64)
    labels[:, :2] = 1
    assert Segmenter.score(logits(labels), labels) == {"dice": 1, "pixel_accuracy": 1}
    assert Segmenter.score(logits(1 - labels), labels) == {"dice": 0, "pixel_accuracy": 0}


def test_dice_is_over_all_pixels_of_the_foreground() -> None:
    """Eight are labelled, twelve chosen, six both: 2 * 6 / 20; wrong are two and six of 32."""
    labels, chosen = torch.zeros(2, 2, 4, 4, dtype=torch.int64)
    labels[0, :2] = 1
    chosen[0].flatten()[2:8] = 1
    chosen[1].flatten()[:6] = 1
    score = Segmenter.score(logits(chosen), labels)
    assert score == pytest.approx({"dice": 0.6, "pixel_accuracy": 1 - 8 / 32})


def test_unknown_pixels_are_neither_scored_nor_trained_on() -> None:
    labels = torch.randint(0, 2, (2, 4, 4), generator=generator(0, "test", 0))
    answers = torch.randn(2, 2, 4, 4, generator=generator(0, "test", 1))
    labels[:, 0] = UNKNOWN
    other = answers.clone()
    other[:, :, 0] *= -1
    assert Segmenter.score(answers, labels) == Segmenter.score(other, labels)
    assert torch.equal(Segmenter.loss(answers, labels), Segmenter.loss(other, labels))
    other[:, :, 1] *= -1
    assert not torch.equal(Segmenter.loss(answers, labels), Segmenter.loss(other, labels))


def test_tiles_are_the_parts_of_the_picture_row_by_row() -> None:
    picture = np.arange(70 * 100).reshape(70, 100)
    parts = tiles(picture)
    assert parts.shape == (2 * 3, SIDE, SIDE)
    for number, part in enumerate(parts):
        row, column = divmod(number, 3)
        assert (part == picture[row * SIDE :, column * SIDE :][:SIDE, :SIDE]).all()


def test_no_pixel_is_in_two_splits(data: Motorcycle) -> None:
    """Each pixel of the picture is its own number, in three channels."""
    number = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    raw = {**data.read(), "picture": np.stack([number // 65536, number // 256 % 256, number % 256], axis=-1)}
    splits = data.prepare(raw)
    pixels = {
        name: (images * 255).round().permute(0, 2, 3, 1).reshape(-1, 3) @ torch.tensor([65536.0, 256, 1])
        for name, (images, _) in splits.items()
    }
    everything = torch.cat(list(pixels.values()))
    assert len(everything) == ROWS * COLUMNS == len(everything.unique())


def test_each_split_has_its_share_of_the_motorcycle(data: Motorcycle) -> None:
    for name, (images, labels) in data.splits.items():
        assert images.shape[1:] == (3, SIDE, SIDE) and images.min() >= 0 and images.max() <= 1
        assert set(labels.unique().tolist()) == {0, 1, UNKNOWN}, name
        assert 0.3 < float((labels == 1).sum() / (labels != UNKNOWN).sum()) < 0.42, name


def test_labels_are_the_measured_disparity() -> None:
    disparity = np.array([[39.9, 40.1], [np.inf, np.nan]])
    assert labelled(disparity).tolist() == [[0, 1], [UNKNOWN, UNKNOWN]]


def test_images_and_labels_are_mirrored_together_and_in_training_only() -> None:
    images = torch.rand(16, 1, 4, 4).round().repeat(1, 3, 1, 1)
    labels = images[:, 0].long()
    changed, their_labels = turned(images, labels, generator(0, "test", 0))
    bright = changed[:, 0] > changed[:, 0].amin(dim=(1, 2), keepdim=True)
    assert torch.equal(bright.long(), their_labels)
    mirrored = [torch.equal(theirs, ours.flip(-1)) for theirs, ours in zip(their_labels, labels, strict=True)]
    assert 0 < sum(mirrored) < 16
