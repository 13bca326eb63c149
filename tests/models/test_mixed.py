"""Mixed precision in training.

What runs in half precision, the scaled loss of fp16, and that a run goes on as it began.
"""

from __future__ import annotations

import pytest
import torch

from hotlap.models import mixed, runs
from hotlap.models.checkpoint import read
from hotlap.models.nets.mlp import MLP
from hotlap.models.train import train


def silent(line: str) -> None:
    pass


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> set[torch.dtype]:
    """The dtypes of what the network's forward returned in training."""
    seen: set[torch.dtype] = set()
    forward = MLP.forward

    def watched(self: MLP, rows: torch.Tensor) -> torch.Tensor:
        logits = forward(self, rows)
        if self.training:
            seen.add(logits.dtype)
        return logits

    monkeypatch.setattr(MLP, "forward", watched)
    return seen


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_products_are_in_the_precision_and_weights_in_fp32(
    products: set[torch.dtype], precision: str, dtype: torch.dtype
) -> None:
    run = train("mlp", epochs=1, precision=precision, report=silent)
    # Lightning's own precision= would have run bf16 where fp16 was asked for on a CPU.
    assert products == {dtype}
    content = read(run.checkpoint)
    weights = [value for value in content["state_dict"].values() if value.is_floating_point()]
    assert {value.dtype for value in weights} == {torch.float32}
    assert ("MixedPrecision" in content and content["MixedPrecision"]["scale"] > 1) == (precision == "fp16")
    assert runs.Settings.read(run.folder).precision == precision


def test_a_step_with_infinite_gradients_is_left_out_and_the_scale_falls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step, lines = MLP.training_step, []

    def overflowing(self: MLP, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        return step(self, batch, batch_idx) * (float("inf") if batch_idx == 2 else 1.0)

    monkeypatch.setattr(MLP, "training_step", overflowing)
    run = train("mlp", epochs=1, precision="fp16", report=lines.append)
    assert all(value.isfinite().all() for value in read(run.checkpoint)["state_dict"].values())
    assert "(loss scale 32768)" in lines[0], "half of torch's first scale"


def share_without_gradient(run: runs.TrainingRun) -> float:
    """Share of the weights whose gradients were all 0."""
    state = read(run.checkpoint)["optimizer_states"][0]["state"]
    squares = torch.cat([moments["exp_avg_sq"].flatten() for moments in state.values()])
    return float((squares == 0).float().mean())


def test_gradients_below_fp16s_smallest_number_are_lost_without_the_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The defect planted: the same training with the scaler left out."""
    step = MLP.training_step
    monkeypatch.setattr(
        MLP, "training_step", lambda self, batch, batch_idx: step(self, batch, batch_idx) * 1e-6
    )
    scaled = share_without_gradient(train("mlp", epochs=1, precision="fp16", report=silent))
    monkeypatch.setattr(
        mixed, "plugin", lambda precision, device: mixed.MixedPrecision("16-mixed", device, None)
    )
    monkeypatch.setattr(mixed.MixedPrecision, "__init__", unscaled)
    lost = share_without_gradient(train("mlp", epochs=1, precision="fp16", report=silent))
    assert scaled < 0.05 < 0.5 < lost


def unscaled(self: mixed.MixedPrecision, precision: str, device: str, scaler: None = None) -> None:
    """Does what Lightning's own constructor does, but does not refuse fp16 without a scaler."""
    self.precision = precision
    self.scaler = None
    self.device = device
    self._desired_input_dtype = torch.float16


def test_a_run_keeps_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="precision 'int8' is none of fp32, bf16, fp16"):
        train("mlp", precision="int8", report=silent)
    folder = runs.create(runs.Settings("mlp", 0, 1, "bf16"))
    with pytest.raises(runs.NotResumable, match="was started with precision bf16, which cannot become fp16"):
        runs.to_resume("mlp", folder.name, None, None, "fp16")
    assert train("mlp", resume=folder.name, report=silent).settings.precision == "bf16"


def test_the_same_seed_gives_the_same_bits_in_fp16() -> None:
    first, second = (
        read(train("mlp", epochs=1, seed=3, precision="fp16", report=silent).checkpoint)["state_dict"]
        for _ in range(2)
    )
    assert all(torch.equal(value, second[name]) for name, value in first.items())
