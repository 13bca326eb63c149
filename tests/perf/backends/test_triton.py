"""The backend of our kernels: on a CPU it says that it is none; what it did is evidence, and a
fallback is the case's status. In a process with the interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from hotlap.perf.backends import triton as backend
from hotlap.perf.compiled import rules
from hotlap.perf.lookup import plugins
from hotlap.perf.race import tasks
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Refusal

# Over 20 s on two quiet cores.
pytestmark = pytest.mark.slow

RUN = """
import json
from pathlib import Path
import torch
from torch import nn
from hotlap.kernels import dispatch
from hotlap.perf.backends import triton
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.case import Case, Workload

class Wide(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
    def forward(self, x):
        return self.norm(x)

class Bare(nn.Module):
    def forward(self, x):
        return x.sin()

def ran(module, width):
    dispatch.reset()
    case = Case("w", "triton")
    make = lambda: Workload("w", module, (torch.randn(2, width),))
    step = triton.load(Artefact(case, Path("."), 1, make, Path(".")))
    placement = triton.placement(Artefact(case, Path("."), 1, None, Path(".")), step)
    return "\\n".join([f"{placement.counters} {placement.wrong}", *placement.evidence])

with dispatch.using("interpret"):
    texts = {"narrow": ran(Wide(64), 64), "wide": ran(Wide(9000), 9000), "bare": ran(Bare(), 64)}
print(json.dumps(texts))
"""


@pytest.fixture(scope="module")
def placements() -> dict[str, str]:
    """What the placement of each planted module says, all of one process: it imports torch and
    Triton's interpreter once.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    texts: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return texts


def test_what_ran_is_counted(placements: dict[str, str]) -> None:
    counted = "'kernel_calls': 1, 'kernel_fallbacks': 0, 'modules_replaced': 1} None"
    assert counted in placements["narrow"]


def test_an_operation_that_would_silently_fall_back_is_the_status_of_the_case(
    placements: dict[str, str],
) -> None:
    """Planted: rows that the kernel does not take."""
    text = placements["wide"]
    assert "'kernel_calls': 0, 'kernel_fallbacks': 1" in text and "} unsupported_op: 1 calls" in text
    assert "1 x layer_norm took the reference: rows of 9,000 elements" in text


def test_a_model_with_none_of_our_operations_is_no_case_of_ours(placements: dict[str, str]) -> None:
    assert "nothing in w is one of our operations" in placements["bare"]


@pytest.mark.parametrize(
    ("target", "code"), [("cpu", "no_device"), ("cuda:0", "no_device"), ("sm_90", "no_device")]
)
def test_where_it_cannot_run(target: str, code: str) -> None:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        reason = plugins.backend("triton").available(target)
        assert reason is not None and reason.code == code
    else:
        pytest.skip("an NVIDIA driver answers here")


def test_a_cold_cache_is_asked_of_a_gpu_only() -> None:
    reason = plugins.backend("triton").supports(Case("w", "triton", options=(("l2", "cold"),)))
    assert reason is not None and reason.code == "unsupported_target"


@pytest.mark.parametrize(
    ("target", "rungs"), [("sm_89", ["L0", "L1", "L2", "L3", "L5"]), ("cuda:0", ["L0", "L1", "L2", "L3"])]
)
def test_without_a_gpu_the_operations_it_would_use_are_compiled(workload, tmp_path, target, rungs):
    case = Case.parse(f"attention/triton/bf16/b2/{target}/inference")
    results = list(backend.verify(workload(case), case, tmp_path, partial(tasks.phases, {})))
    assert (
        [proven.rung for proven in results] == rungs
        and "every tensor on cuda:0" in results[1].evidence
        and "layer_norm" in results[2].evidence
    )
    lowered = results[3].lowered(tuple(value.numpy() for value in workload(case).inputs))[0]
    np.testing.assert_allclose(
        lowered, workload(case).module(*workload(case).inputs).numpy(), rtol=0.1, atol=0.1
    )


def test_what_torch_cannot_export_is_proven_without_the_devices_tensors_and_says_so(workload, tmp_path):
    """Our operations need no export: L1 is missing, and L2 says why."""
    case = Case.parse("gated/triton/fp32/b2/sm_89/inference")
    results = list(backend.verify(workload(case), case, tmp_path, partial(tasks.phases, {})))
    assert [proven.rung for proven in results] == ["L0", "L2", "L3", "L5"]
    assert "not seen on the device's tensors, since torch.export fails: operator " in results[1].evidence


def test_a_kernel_that_breaks_a_rule_is_no_rung(workload, tmp_path, monkeypatch):
    case = Case.parse("attention/triton/bf16/b2/sm_89/inference")
    monkeypatch.setattr(rules, "broken", lambda *arguments: ("spills 8 registers",))
    with pytest.raises(Refusal, match=r"build_failed: .* kernels for sm_89: layer_norm.*spills 8"):
        list(backend.verify(workload(case), case, tmp_path, partial(tasks.phases, {})))


def test_a_model_without_our_operations_is_refused(workload, tmp_path):
    case = Case.parse("airy/triton/fp32/b2/sm_89/inference")
    with pytest.raises(Refusal, match="unsupported_op: nothing in airy"):
        list(backend.verify(workload(case), case, tmp_path, partial(tasks.phases, {})))
