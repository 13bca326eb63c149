"""AdamW with clipping as an optimizer of torch: on a GPU one launch for all parameters of a group
and dtype (ops/adamw.py), elsewhere the same formula in aten.

    optimizer = hotlap.kernels.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, max_norm=1.0)

Its state has the names of torch.optim.AdamW (step, exp_avg, exp_avg_sq), so checkpoints of the one
load into the other; the states are fp32 whatever the parameters are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from . import dispatch
from .chunks import is_dense
from .ops import adamw, total_norm

# States of each parameter beside its count of steps, by the names that torch.optim.AdamW has.
STATES = ("exp_avg", "exp_avg_sq")
# Added to the norm that gradients are divided by, as torch.nn.utils.clip_grad_norm_ does.
CLIPPING_EPS = 1e-6


class BatchKey(NamedTuple):
    """What parameters have in common that one launch updates."""

    dtype: torch.dtype
    device: torch.device
    # How many steps they have had, with the one that is being made.
    step: float


class Batch(NamedTuple):
    """Parameters that one launch updates, with what belongs to each."""

    params: list[torch.Tensor]
    grads: list[torch.Tensor]
    exp_avgs: list[torch.Tensor]
    exp_avg_sqs: list[torch.Tensor]


class AdamW(torch.optim.Optimizer):
    """AdamW, with the total norm of all gradients clipped where `max_norm` is not 0.

    `lr` is a number or a tensor (). Gradients of all groups together are scaled down to `max_norm`,
    as torch.nn.utils.clip_grad_norm_ does; `total_norm` is the norm before that in the last step,
    or None. Raises ValueError for settings out of range and, in `step`, for sparse gradients.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        max_norm: float = 0.0,
    ) -> None:
        if (
            not all(0 <= beta < 1 for beta in betas)
            or eps < 0
            or weight_decay < 0
            or max_norm < 0
            or (not isinstance(lr, torch.Tensor) and lr < 0)
        ):
            raise ValueError(
                f"AdamW: lr {lr}, betas {betas}, eps {eps}, weight_decay {weight_decay}, max_norm {max_norm};"
                " betas lie below 1 and none is negative"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.max_norm = max_norm
        self.total_norm: torch.Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient, and returns what the closure gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.total_norm = self.clipping_norm() if self.max_norm else None
        for group in self.param_groups:
            for key, batch in self.batches(group).items():
                self.update(group, key, batch)
        return loss

    def update(self, group: dict[str, Any], key: BatchKey, batch: Batch) -> None:
        """Updates the parameters of one batch in place."""
        factor = torch.ones((), device=key.device)
        if self.total_norm is not None:
            norm = self.total_norm.to(key.device)
            factor = (self.max_norm / (norm + CLIPPING_EPS)).clamp(max=1.0)
        lr = group["lr"] if isinstance(group["lr"], torch.Tensor) else torch.tensor(group["lr"])
        beta1, beta2 = group["betas"]
        run = adamw.forward if dispatch.uses_triton(batch.params[0]) else adamw.reference
        run(
            *batch,
            step=torch.tensor(key.step),
            lr=lr.to(key.device),
            factor=factor,
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
        )

    def batches(self, group: dict[str, Any]) -> dict[BatchKey, Batch]:
        """Returns the parameters of a group that have a gradient, in batches for one launch each.

        Raises ValueError for sparse gradients.
        """
        batches: dict[BatchKey, Batch] = defaultdict(lambda: Batch([], [], [], []))
        for param in group["params"]:
            if param.grad is None:
                continue
            if param.grad.is_sparse:
                raise ValueError("AdamW takes no sparse gradients; make the embedding with sparse=False")
            state = self.advance_state(param)
            grad = param.grad
            if grad.stride() != param.stride():
                grad = torch.empty_like(param).copy_(grad)
            batch = batches[BatchKey(param.dtype, param.device, float(state["step"]))]
            batch.params.append(param)
            batch.grads.append(grad)
            batch.exp_avgs.append(state["exp_avg"])
            batch.exp_avg_sqs.append(state["exp_avg_sq"])
        return batches

    def advance_state(self, param: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns a parameter's states in its own memory format, with this step counted."""
        state: dict[str, torch.Tensor] = self.state[param]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in STATES:
                state[name] = torch.zeros_like(param, dtype=torch.float32)
        state["step"] += 1
        for name in STATES:
            # A checkpoint may have another memory format, or the model may have changed its own.
            if state[name].stride() != param.stride():
                state[name] = torch.empty_like(param, dtype=torch.float32).copy_(state[name])
        return state

    def clipping_norm(self) -> torch.Tensor:
        """Returns the norm () of all gradients of all groups; 0 where there is none."""
        by_kind: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = defaultdict(list)
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    grad = param.grad
                    by_kind[grad.dtype, grad.device].append(grad if is_dense(grad) else grad.contiguous())
        norms = [
            total_norm.forward(grads)[0] if dispatch.uses_triton(grads[0]) else total_norm.reference(grads)
            for grads in by_kind.values()
        ]
        if not norms:
            return torch.zeros(())
        return torch.stack([norm.to(norms[0].device) for norm in norms]).square().sum().sqrt()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a checkpoint; the states stay fp32, which torch's own would cast to the dtype of
        each parameter.

        Raises ValueError for what only torch.optim.AdamW can go on with.
        """
        groups = state_dict["param_groups"]
        wrong = sorted({name for group in groups for name in ("amsgrad", "maximize") if group.get(name)})
        if wrong:
            raise ValueError(
                f"AdamW has no {' and '.join(wrong)}, with which this checkpoint was made; go on with"
                " torch.optim.AdamW"
            )
        super().load_state_dict(state_dict)
        params = [param for group in self.param_groups for param in group["params"]]
        numbers = [number for group in groups for number in group["params"]]
        for param, number in zip(params, numbers, strict=True):
            stored = state_dict["state"].get(number, {})
            for name in STATES:
                if name in stored:
                    self.state[param][name] = stored[name].to(param.device, torch.float32, copy=True)
