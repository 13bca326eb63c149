"""AdamW with clipping as an optimizer of torch: on a GPU one launch for all parameters of a group
and dtype (ops/adamw.py), elsewhere the same formula in aten.

    optimizer = hotlap.kernels.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, max_norm=1.0)

Its state has the names of torch.optim.AdamW (step, exp_avg, exp_avg_sq), so checkpoints of the one
load into the other; the states are fp32 whatever the parameters are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch

from . import dispatch
from .chunks import dense
from .ops import adamw, total_norm

STATES = ("exp_avg", "exp_avg_sq")
Batch = tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]


class AdamW(torch.optim.Optimizer):
    """lr: a number or a tensor ().

    max_norm: the total norm of all gradients of all groups that they are scaled down to, as
    torch.nn.utils.clip_grad_norm_ does; 0 is none.

    Raises ValueError for settings out of range and for sparse gradients. `total_norm`: of the last
    step, before clipping, or None.
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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.total_norm = self.clipping_norm() if self.max_norm else None
        for group in self.param_groups:
            for (_, device, step), batch in self.batches(group).items():
                factor = torch.ones((), device=device)
                if self.total_norm is not None:
                    factor = (self.max_norm / (self.total_norm.to(device) + 1e-6)).clamp(max=1.0)
                lr = group["lr"] if isinstance(group["lr"], torch.Tensor) else torch.tensor(group["lr"])
                run = adamw.forward if dispatch.wanted(batch[0][0]) else adamw.reference
                run(
                    *batch,
                    torch.tensor(step),
                    lr.to(device),
                    factor,
                    *group["betas"],
                    group["eps"],
                    group["weight_decay"],
                )
        return loss

    def batches(self, group: dict[str, Any]) -> dict[tuple[torch.dtype, torch.device, float], Batch]:
        """Parameters with a gradient, gradients and states, by dtype, device and how many steps
        they have had with this one.
        """
        found: dict[Any, Batch] = defaultdict(lambda: ([], [], [], []))
        for param in group["params"]:
            if param.grad is None:
                continue
            if param.grad.is_sparse:
                raise ValueError("AdamW takes no sparse gradients; make the embedding with sparse=False")
            state = self.state[param]
            if not state:
                state["step"] = torch.tensor(0.0)
                for name in STATES:
                    state[name] = torch.zeros_like(param, dtype=torch.float32)
            state["step"] += 1
            for name in STATES:
                if (
                    state[name].stride() != param.stride()
                ):  # a checkpoint of another memory format, or the model changed its own
                    state[name] = torch.empty_like(param, dtype=torch.float32).copy_(state[name])
            grad = (
                param.grad
                if param.grad.stride() == param.stride()
                else torch.empty_like(param).copy_(param.grad)
            )
            for held, tensor in zip(
                found[param.dtype, param.device, float(state["step"])],
                (param, grad, *(state[name] for name in STATES)),
                strict=True,
            ):
                held.append(tensor)
        return found

    def clipping_norm(self) -> torch.Tensor:
        """Of all gradients of all groups."""
        by_kind: dict[Any, list[torch.Tensor]] = defaultdict(list)
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    grad = param.grad
                    by_kind[grad.dtype, grad.device].append(grad if dense(grad) else grad.contiguous())
        norms = [
            total_norm.forward(grads)[0] if dispatch.wanted(grads[0]) else total_norm.reference(grads)
            for grads in by_kind.values()
        ]
        return (
            torch.stack([norm.to(norms[0].device) for norm in norms]).square().sum().sqrt()
            if norms
            else torch.zeros(())
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The states stay fp32, which torch's own would cast to the dtype of each parameter.

        Raises ValueError for what only torch.optim.AdamW can go on with.
        """
        if wrong := sorted(
            {
                name
                for group in state_dict["param_groups"]
                for name in ("amsgrad", "maximize")
                if group.get(name)
            }
        ):
            raise ValueError(
                f"AdamW has no {' and '.join(wrong)}, with which this checkpoint was made; go on with"
                " torch.optim.AdamW"
            )
        super().load_state_dict(state_dict)
        held = [param for group in self.param_groups for param in group["params"]]
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        for param, number in zip(held, numbers, strict=True):
            for name in STATES:
                if name in (given := state_dict["state"].get(number, {})):
                    self.state[param][name] = given[name].to(param.device, torch.float32, copy=True)
