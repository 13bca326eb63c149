"""Energy counters, on a made powercap tree (Documentation/power/powercap/powercap.rst of Linux)."""

from __future__ import annotations

from pathlib import Path

import pytest

from hotlap.perf.machine.power import Meter
from hotlap.perf.terms.reasons import Refusal

RANGE_UJ = 1_000_000_000


def domain(tree: Path, folder: str, name: str, energy_uj: int) -> Path:
    path = tree / folder
    path.mkdir()
    for file, value in (("name", name), ("energy_uj", energy_uj), ("max_energy_range_uj", RANGE_UJ)):
        (path / file).write_text(f"{value}\n")
    return path / "energy_uj"


def test_joules_of_all_packages_are_added(tmp_path: Path) -> None:
    first = domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 7_000_000)
    meter = Meter("cpu", tmp_path)
    before = meter.read()
    assert before == (5.0, 7.0)
    first.write_text("5500000\n")
    second.write_text("9000000\n")
    assert meter.between(before, meter.read()) == pytest.approx(2.5)


def test_a_counter_that_wrapped_is_unwrapped(tmp_path: Path) -> None:
    first = domain(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 3_000_000)
    domain(tmp_path, "intel-rapl:1", "package-1", 1_000_000)
    meter = Meter("cpu", tmp_path)
    before = meter.read()
    first.write_text("2000000\n")
    assert meter.between(before, meter.read()) == pytest.approx(5.0)


def test_parts_of_a_package_are_not_counted_again(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    domain(tmp_path, "intel-rapl:0:0", "core", 4_000_000)
    domain(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)
    assert Meter("cpu", tmp_path).read() == (5.0,)


def test_the_whole_platform_is_not_added_to_its_package(tmp_path: Path) -> None:
    """Laptops list a domain psys beside package-0; it holds the package."""
    domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    domain(tmp_path, "intel-rapl:1", "psys", 20_000_000)
    assert Meter("cpu", tmp_path).read() == (5.0,)


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_a_counter_that_cannot_be_read_is_named(tmp_path: Path, file: str) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    (tmp_path / "intel-rapl:0" / file).unlink()
    (tmp_path / "intel-rapl:0" / file).mkdir()
    with pytest.raises(
        Refusal, match=r"intel-rapl:0: the energy counter is not readable .* grant read access"
    ) as refused:
        Meter("cpu", tmp_path)
    assert refused.value.reason.code == "no_device"


@pytest.mark.parametrize("missing", [False, True])
def test_a_machine_without_counters_is_refused(tmp_path: Path, missing: bool) -> None:
    with pytest.raises(Refusal, match=r"no RAPL domain under .*a virtual machine") as refused:
        Meter("cpu", tmp_path / "powercap" if missing else tmp_path)
    assert refused.value.reason.code == "no_device"
