"""Run by test_tensorrt.py: torch_tensorrt's dry run with torch.cuda answered for, as an L4 would.

Fails loudly where one of the patched names is gone.
"""

import inspect
import json
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch

# NVIDIA L4 datasheet and CUDA programming guide, compute capability 8.9.
L4 = SimpleNamespace(name="NVIDIA L4", major=8, minor=9, total_memory=24 * 2**30, multi_processor_count=58)
ANSWERS = {
    "get_device_capability": lambda device=None: (8, 9),
    "current_device": lambda: 0,
    "get_device_properties": lambda device=None: L4,
    "mem_get_info": lambda device=None: (20 * 2**30, 24 * 2**30),
    "empty_cache": lambda: None,
}
for name, answer in ANSWERS.items():
    mock.patch.object(torch.cuda, name, answer).start()


class Airy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = torch.nn.Linear(16, 16), torch.nn.Linear(16, 4)

    def forward(self, x):
        return self.after(torch.special.airy_ai(torch.relu(self.before(x))))


def climbed(precision):
    """What verify says of each planted module in one precision."""
    from hotlap.perf.backends import tensorrt
    from hotlap.perf.race import tasks
    from hotlap.perf.terms.case import Case, Workload

    torch.manual_seed(0)
    conv = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(512, 5),
    )
    message = {}
    for name, module, inputs in (
        ("conv", conv, torch.randn(2, 3, 8, 8)),
        ("airy", Airy(), torch.randn(2, 16)),
    ):
        if name == "airy" and precision != "fp32":
            continue
        module.eval().requires_grad_(False)
        case = Case.parse(f"{name}/tensorrt/{precision}/b2/sm_89/inference[route:torch]")
        with TemporaryDirectory() as folder:
            rungs = list(
                tensorrt.verify(
                    Workload(name, module, (inputs,)), case, Path(folder), partial(tasks.phases, {})
                )
            )
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)
        eager = module.to(dtype)(inputs.to(dtype)).float().numpy()
        (lowered,) = rungs[-1].lowered((inputs.numpy(),))
        placement = rungs[-2].placement
        message[name] = {
            "rungs": [proven.rung for proven in rungs],
            "evidence": rungs[-2].evidence,
            "engines": placement.counters["engines"],
            "outside": placement.counters["nodes_elsewhere"],
            "largest": float(np.abs(lowered - eager).max()),
            "allowed": 4 * float(torch.finfo(dtype).eps) * float(np.abs(eager).max()),
        }
    import torch_tensorrt

    message["settings"] = list(inspect.signature(torch_tensorrt.dynamo.compile).parameters)
    return message


if __name__ == "__main__":
    print(json.dumps({precision: climbed(precision) for precision in sys.argv[1:]}))
