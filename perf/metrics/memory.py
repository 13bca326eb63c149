"""Peak resident memory of a worker that imported everything itself (VmHWM): what stands after
imports, and the growth over it.

The peak is over loading, the first call and the timed calls; each phase's own peak stands in the
details. On CUDA also torch's peak and the process's memory as NVML sees it (torch's allocator does
not see ONNX Runtime's or TensorRT's).
"""

from __future__ import annotations

from ..race.observations import Observations
from ..terms.reasons import Refusal
from ..terms.result import Samples


def measure(seen: Observations) -> Samples:
    blocks = seen.fresh
    if not blocks:
        raise Refusal("interrupted", "no worker that started fresh lived to the end of its block")
    first = blocks[0]
    phases = ("load_peak_bytes", "first_call_peak_bytes", "run_peak_bytes")
    peaks = [max(getattr(block, phase) for phase in phases) for block in blocks]
    return Samples(
        unit="B",
        better="lower",
        values=tuple((float(peak),) for peak in peaks),
        details={
            "after_imports_bytes": first.import_peak_bytes,
            "growth_bytes": max(0, peaks[0] - first.import_peak_bytes),
            **{phase: getattr(first, phase) for phase in phases},
            **{f"gpu_{name}_bytes": value for name, value in first.gpu.items()},
        },
    )
