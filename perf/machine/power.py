"""Reads energy counters: the CPU package's (RAPL, as Linux powercap shows it) and the GPU's
(telemetry.py).
"""

from __future__ import annotations

from pathlib import Path

from ..terms.reasons import Refusal
from . import cuda_devices, telemetry

# Documentation/power/powercap/powercap.rst of Linux.
POWERCAP = Path("/sys/class/powercap")


class Meter:
    """Reads joules since an arbitrary start. Raises Refusal where there is no readable counter.

    gpu: the device whose counter it is; None for the CPU's. A GPU's counter is updated too seldom
    for two readings around a turn; Device.window waits for its updates.
    """

    def __init__(self, target: str, powercap: Path = POWERCAP) -> None:
        self.gpu: telemetry.Device | None = None
        # Of each package its counter, and where that wraps, uJ.
        self._domains: list[tuple[Path, float]] = []
        if target.startswith("cuda:"):
            self.gpu = cuda_devices.open_device(target)
            self.gpu.energy_j()
            return
        for domain in sorted(powercap.glob("*-rapl:?")):
            try:
                if not (domain / "name").read_text().startswith("package"):
                    continue  # psys, the whole platform: it holds the package
                self._domains.append(
                    (domain / "energy_uj", float((domain / "max_energy_range_uj").read_text()))
                )
                (domain / "energy_uj").read_text()
            except OSError as error:
                raise Refusal(
                    "no_device",
                    f"{domain.name}: the energy counter is not readable ({error.strerror}); run as root or"
                    " grant read access",
                ) from error
        if not self._domains:
            raise Refusal(
                "no_device", f"no RAPL domain under {powercap} (a virtual machine, or the kernel hides it)"
            )

    def read(self) -> tuple[float, ...]:
        """Returns the joules of each domain."""
        if self.gpu is not None:
            return (self.gpu.energy_j(),)
        return tuple(float(path.read_text()) / 1e6 for path, _ in self._domains)

    def between(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        """Returns the joules from one reading to the next; a counter that wrapped once is
        unwrapped.
        """
        limits = [limit / 1e6 for _, limit in self._domains] or [0.0] * len(before)
        pairs = zip(before, after, limits, strict=True)
        return sum(new - old if new >= old else new - old + limit for old, new, limit in pairs)
