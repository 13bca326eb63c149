"""Splits, hashes, order and augmentation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hotlap.models.catalog import names, network
from hotlap.models.data.breast_cancer import BreastCancer
from hotlap.models.data.digits import Digits, augment
from hotlap.models.data.memory import InMemoryData, hash_arrays
from hotlap.models.data.order import EpochOrder, generator
from hotlap.models.data.splits import stratified
from hotlap.models.data.stdlib_source import WINDOW, StdlibSource, split_of, windows


def prepared(name: str) -> InMemoryData:
    data = network(name).data()
    data.setup()
    return data


def test_stratified_splits_are_disjoint_whole_and_even() -> None:
    labels = np.repeat([0, 1, 2], [50, 100, 250])
    parts = stratified(labels)
    everything = np.concatenate(list(parts.values()))
    assert sorted(everything) == list(range(400))
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [240, 80, 80]
    for numbers in parts.values():
        assert np.allclose(np.bincount(labels[numbers]) / len(numbers), [0.125, 0.25, 0.625], atol=0.02)


@pytest.mark.parametrize("name", ["mlp", "resnet"])
def test_no_sample_is_in_two_splits(name: str) -> None:
    """Rows and images repeat nowhere; windows of text may, such as licences.

    Which is why the next test is about files.
    """
    splits = {
        split: {row.numpy().tobytes() for row in inputs}
        for split, (inputs, _) in prepared(name).splits.items()
    }
    assert all(splits.values())
    assert not splits["train"] & splits["validation"]
    assert not splits["train"] & splits["test"]
    assert not splits["validation"] & splits["test"]


def test_no_file_is_in_two_splits() -> None:
    """Each file is filled with its own number, so a window tells which files it came from."""
    raw = {f"{number:03}": np.full(20 * (WINDOW + 1), number, dtype=np.uint8) for number in range(40)}
    splits = StdlibSource().prepare(raw)
    files = {name: set(inputs.unique().tolist()) for name, (inputs, _) in splits.items()}
    assert files["validation"] == {8, 18, 28, 38} and files["test"] == {9, 19, 29, 39}
    assert files["train"] == set(range(40)) - files["validation"] - files["test"]
    expected = {0: "train", 7: "train", 8: "validation", 9: "test", 10: "train"}
    assert {position: split_of(position) for position in expected} == expected


def test_targets_of_text_are_the_next_bytes() -> None:
    text = np.arange(1000) % 251
    inputs, targets = windows(text.astype(np.uint8))
    assert inputs.shape == targets.shape == (1000 // (WINDOW + 1), WINDOW)
    assert inputs.dtype == torch.int64
    assert ((inputs + 1) % 251 == targets).all()
    limited, _ = windows(text.astype(np.uint8), at_most=3)
    assert len(limited) == 3 and torch.equal(limited[0], inputs[0]) and torch.equal(limited[-1], inputs[-1])


def test_language_model_is_evaluated_on_at_most_32_sequences() -> None:
    assert len(prepared("gpt").splits["validation"][0]) == 32


def test_rows_are_standardised_by_the_training_split_alone() -> None:
    data = BreastCancer()
    raw = data.read()
    train, _ = data.prepare(raw)["train"]
    torch.testing.assert_close(train.mean(dim=0), torch.zeros(30), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(dim=0, correction=0), torch.ones(30), atol=1e-5, rtol=0)
    altered = {"rows": raw["rows"].copy(), "labels": raw["labels"]}
    altered["rows"][stratified(raw["labels"])["test"]] *= 100
    torch.testing.assert_close(data.prepare(altered)["train"][0], train)


@pytest.mark.parametrize("name", names())
def test_data_hash_is_stable_and_notices_one_value(name: str) -> None:
    data = prepared(name)
    assert data.data_hash == prepared(name).data_hash
    raw = data.read()
    assert data.data_hash == hash_arrays(dict(reversed(raw.items())))
    key, array = next((key, array.copy()) for key, array in raw.items() if array.size)
    array.flat[-1] += 1
    assert hash_arrays({**raw, key: array}) != data.data_hash


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochOrder(size=50, drawn=50, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert sorted(order(0, 3)) == list(range(50))
    assert order(0, 3) != order(0, 4) and order(0, 3) != order(1, 3)
    assert len(EpochOrder(size=50, drawn=20, seed=0)) == len(set(EpochOrder(size=50, drawn=20, seed=0))) == 20


def test_images_are_augmented_in_training_only() -> None:
    data = Digits(seed=1)
    batch = (torch.rand(4, 3, 32, 32), torch.arange(4))
    data.trainer = SimpleNamespace(training=False, global_step=5, global_rank=0)  # type: ignore[assignment]
    assert torch.equal(data.on_after_batch_transfer(batch, 0)[0], batch[0])
    data.trainer = SimpleNamespace(training=True, global_step=5, global_rank=0)  # type: ignore[assignment]
    first, again = (data.on_after_batch_transfer(batch, 0)[0] for _ in range(2))
    assert torch.equal(first, again) and not torch.equal(first, batch[0])
    data.trainer.global_step = 6  # type: ignore[union-attr,misc]
    assert not torch.equal(data.on_after_batch_transfer(batch, 0)[0], first)


def test_images_can_be_left_as_they_are() -> None:
    data = Digits(augmented=False)
    data.trainer = SimpleNamespace(training=True, global_step=0)  # type: ignore[assignment]
    images = torch.rand(2, 3, 32, 32)
    assert data.on_after_batch_transfer((images, torch.zeros(2)), 0)[0] is images


def test_augmentation_without_extent_is_the_identity_and_a_shift_shifts() -> None:
    images = torch.rand(8, 3, 32, 32)
    same = augment(images, generator(0, "test", 0), degrees=0, scale=0, shift=0)
    torch.testing.assert_close(same, images, atol=1e-5, rtol=0)
    dot = torch.zeros(64, 1, 32, 32)
    dot[:, :, 16, 16] = 1
    moved = augment(dot, generator(0, "test", 0), degrees=0, scale=0, shift=0.125)
    _, _, rows, columns = (moved > 0.2).nonzero(as_tuple=True)
    assert 1 <= (rows - 16).abs().max() <= 3 and 1 <= (columns - 16).abs().max() <= 3
