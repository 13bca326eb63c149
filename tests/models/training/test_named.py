"""What a YAML may name, each in a training: it does what it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hotlap.models import checkpoint
from hotlap.perf.terms.reasons import Misuse

Tiny = Callable[..., Any]
STOPPING = "{class_path: EarlyStopping, init_args: {monitor: val_loss, patience: 1, min_delta: 10}}"
CALLBACK = "hotlap.models.training.recomputing.ActivationCheckpointing"
RECOMPUTING = f"{{class_path: {CALLBACK}, init_args: {{modules: [layers.0]}}}}"


def content(run: Any) -> dict[str, Any]:
    return checkpoint.read(run.checkpoint)


def test_early_stopping(tiny: Tiny) -> None:
    _, lines, _ = tiny("trainer.max_epochs=9", f"trainer.callbacks=[{STOPPING}]")
    assert len(lines) == 2


def test_a_schedule_that_begins_with_a_linear_warm_up(tiny: Tiny) -> None:
    warm_up = ["lr_scheduler=LinearLR", "lr_scheduler.start_factor=0.1", "lr_scheduler.total_iters=4"]
    run, _, _ = tiny("optimizer=SGD", "optimizer.lr=1.0", *warm_up, net="Bare")
    assert content(run)["lr_schedulers"][0]["_last_lr"] == pytest.approx([0.1 + 0.9 * 2 / 4])


def test_clipping(tiny: Tiny) -> None:
    before, _, _ = tiny("optimizer=SGD", "optimizer.lr=0", net="Bare")
    run, _, net = tiny("optimizer=SGD", "optimizer.lr=1", "trainer.gradient_clip_val=1e-4", net="Bare")
    weights = [
        torch.cat([each.flatten() for each in content(each)["state_dict"].values()]) for each in (before, run)
    ]
    assert 0 < float((weights[1] - weights[0]).norm()) <= 1e-4 * len(net.losses) * 1.001


def test_accumulation(tiny: Tiny) -> None:
    run, _, net = tiny("trainer.accumulate_grad_batches=4")
    assert (content(run)["global_step"], len(net.losses)) == (4, 16)


def test_moving_averages_of_the_weights(tiny: Tiny) -> None:
    run, _, _ = tiny("trainer.callbacks=[{class_path: EMAWeightAveraging, init_args: {decay: 0.9}}]")
    averaged, present = content(run)["state_dict"], content(run)["current_model_state"]
    assert not torch.equal(averaged["layers.1.weight"], present["layers.1.weight"])


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float16)]
)
def test_mixed_precision(precision: str, dtype: torch.dtype, tiny: Tiny) -> None:
    run, _, net = tiny(f"trainer.precision={precision}")
    assert {*net.types} == {dtype}
    assert content(run)["state_dict"]["layers.1.weight"].dtype == torch.float32


def test_compiled(tiny: Tiny) -> None:
    _, _, plain = tiny()
    losses = plain.losses
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    run, _, net = tiny("compile={backend: aot_eager}")
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
    assert [*map(float, net.losses)] == pytest.approx([*map(float, losses)], rel=1e-5)
    module, _ = checkpoint.restore(net.Net, run.checkpoint)
    assert module(torch.zeros(3, 4)).shape == (3, 2)


def test_activation_checkpointing(tiny: Tiny) -> None:
    _, _, plain = tiny()
    run, _, net = tiny(f"trainer.callbacks=[{RECOMPUTING}]")
    assert torch.equal(torch.stack(net.losses), torch.stack(plain.losses))
    assert max(net.kept) < min(plain.kept)
    checkpoint.restore(net.Net, run.checkpoint)
    with pytest.raises(Misuse, match=r"no submodule is called 'layer\.0'; did you mean layers\.0 "):
        tiny(f"trainer.callbacks=[{RECOMPUTING.replace('layers', 'layer')}]")


def test_a_warm_start(tiny: Tiny, tmp_path: Path) -> None:
    first, _, _ = tiny()
    run, _, _ = tiny(f"warm_start={first.checkpoint}", "optimizer=SGD", "optimizer.lr=0", net="Bare")
    ours, theirs = content(run)["state_dict"], content(first)["state_dict"]
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(ValueError, match="of another shape are layers") as error:
        tiny(f"warm_start={first.checkpoint}", "model.width=4")
    assert "\n" not in str(error.value)
    with pytest.raises(
        ValueError, match=r"it lacks layer\.bias, layer\.weight; it has in excess layers\.0\.0"
    ):
        tiny(f"warm_start={first.checkpoint}", net="Other")
    (tmp_path / "torn.ckpt").write_bytes(first.checkpoint.read_bytes()[:-50])
    for name, message in (("torn", "is damaged"), ("nowhere", "there is no checkpoint")):
        with pytest.raises(ValueError, match=message):
            tiny(f"warm_start={tmp_path / name}.ckpt")
    # What could not begin leaves no run.
    assert {each.name for each in first.folder.parent.iterdir()} == {first.id, run.id}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("compile={mode: fast}", "compile: Unrecognized mode=fast"),
        ("compile={mod: default}", "compile: .* unexpected keyword argument 'mod'"),
        ("compile=yess", "compile: yess does not fit"),
        ("disk_budget=2XB", "disk_budget: '2XB' is no size; write a number and one of B, kB"),
        ("warm_strat=a.ckpt", r"no setting is called 'warm_strat'; did you mean warm_start\?"),
    ],
)
def test_mistakes_are_one_line(setting: str, message: str, tiny: Tiny) -> None:
    with pytest.raises(Misuse, match=message) as error:
        tiny(setting)
    assert "\n" not in str(error.value)


def test_losses_are_numbers(tiny: Tiny) -> None:
    """What the tests above compare."""
    _, _, net = tiny()
    assert len(net.losses) == 16 and all(math.isfinite(loss) for loss in net.losses)
