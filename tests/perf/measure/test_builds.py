"""What was built is kept by what it was made of: a change of any of it is another build."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from hotlap.perf.artefacts.manifest import Signature
from hotlap.perf.lookup.cases import parse_backend
from hotlap.perf.lookup.fingerprint import fingerprint
from hotlap.perf.machine import survey
from hotlap.perf.measure import builds
from hotlap.perf.measure.builds import Builds, key_of
from hotlap.perf.race.messages import Built
from hotlap.perf.terms.case import Case, Workload

BUILT = Built(Signature((), ()), {"torch": "2.14"}, {"export": 3.0}, 12)


def case(spec: str, precision: str = "fp32", batch: int = 1) -> Case:
    backend, options = parse_backend(spec)
    return Case("net", backend, precision, batch, "cpu", "inference", options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a build leaves it."""
    (tmp_path / "work" / "weights").mkdir(parents=True)
    (tmp_path / "work" / "model.onnx").write_text("graph")
    (tmp_path / "work" / "weights" / "0.bin").write_text("numbers")
    return tmp_path / "work"


@pytest.fixture
def kept(folder: Path) -> Builds:
    store = Builds(folder.parent / "store", "key", 2)
    store.keep(case("onnxruntime"), folder, BUILT)
    return store


def test_what_was_built_comes_back(kept: Builds, tmp_path: Path) -> None:
    assert kept.take(case("onnxruntime"), tmp_path / "again") == BUILT
    assert (tmp_path / "again" / "model.onnx").read_text() == "graph"
    assert (tmp_path / "again" / "weights" / "0.bin").read_text() == "numbers"


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("onnxruntime[threads:1]", True),
        ("onnxruntime[optimization:extended]", True),
        ("onnxruntime[allocator:default][binding:none]", True),
        ("onnxruntime[fusion:transformer]", False),
        ("openvino", False),
    ],
)
def test_cases_that_loading_alone_tells_apart_share_a_build(
    spec: str, same: bool, kept: Builds, tmp_path: Path
) -> None:
    assert kept.holds(case(spec)) == same
    assert (kept.take(case(spec), tmp_path / "again") is not None) == same


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda store: (store, case("onnxruntime", "int8")), id="precision"),
        pytest.param(lambda store: (store, case("onnxruntime", batch=4)), id="batch"),
        pytest.param(lambda store: (Builds(store.store, "another", 2), case("onnxruntime")), id="key"),
    ],
)
def test_what_is_built_otherwise_is_not_taken(
    other: Callable[[Builds], tuple[Builds, Case]], kept: Builds, tmp_path: Path
) -> None:
    store, asked = other(kept)
    assert not store.holds(asked) and store.take(asked, tmp_path / "again") is None


def test_threads_tell_builds_apart_where_code_is_made_for_them(tmp_path: Path) -> None:
    package = case("compile[package:aoti]")
    places = {Builds(tmp_path, "key", threads).place(package) for threads in (1, 2)}
    assert len(places) == 2
    graphs = {Builds(tmp_path, "key", threads).place(case("onnxruntime")) for threads in (1, 2)}
    assert len(graphs) == 1


def test_a_cache_of_openvino_is_filled_for_its_options(tmp_path: Path) -> None:
    store = Builds(tmp_path, "key", 2)
    specs = ("openvino[cache:on]", "openvino[cache:on][threads:1]", "openvino[cache:on][hint:throughput]")
    assert len({store.place(case(spec)) for spec in specs}) == 3


@pytest.mark.parametrize("damage", ["changed", "missing", "more", "about"])
def test_what_is_damaged_is_built_anew(damage: str, kept: Builds, tmp_path: Path) -> None:
    place = kept.place(case("onnxruntime"))
    content = place / builds.CONTENT
    if damage == "changed":
        (content / "model.onnx").write_text("grapf")
    elif damage == "missing":
        (content / "weights" / "0.bin").unlink()
    elif damage == "more":
        (content / "extra.so").write_text("code")
    else:
        (place / builds.ABOUT).write_bytes(b'{"built"')
    assert kept.take(case("onnxruntime"), tmp_path / "again") is None
    assert not (tmp_path / "again").exists()


def test_a_link_that_a_build_left_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "secret").symlink_to("/etc/hostname")
    store = Builds(tmp_path / "store", "key", 2)
    store.keep(case("onnxruntime"), folder, BUILT)
    assert store.take(case("onnxruntime"), tmp_path / "again") is not None
    assert not (tmp_path / "again" / "secret").exists()


def test_a_store_that_cannot_be_written_keeps_nothing_and_stops_nothing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Builds(tmp_path / "file" / "store", "key", 2)
    store.keep(case("onnxruntime"), folder, BUILT)
    assert not store.holds(case("onnxruntime"))


def test_what_was_used_longest_ago_goes_first(folder: Path, tmp_path: Path) -> None:
    store = Builds(tmp_path / "store", "key", 2)
    cases = [case("onnxruntime", batch=batch) for batch in (1, 2, 3)]
    for age, each in enumerate(cases):
        store.keep(each, folder, BUILT)
        os.utime(store.place(each) / builds.ABOUT, (1000 + age, 1000 + age))
        os.utime(store.place(each), (1000 + age, 1000 + age))
    assert store.take(cases[0], tmp_path / "again") is not None  # used now
    size = sum(file.stat().st_size for file in store.place(cases[0]).rglob("*") if file.is_file())
    assert builds.pruned(store.store, 2 * size) == 1
    assert [store.holds(each) for each in cases] == [True, False, True]
    part = store.store / ".hotlap-0.part"
    part.mkdir()
    assert builds.pruned(store.store) == 0 and part.exists()  # somebody may be writing it
    os.utime(part, (1000, 1000))
    assert builds.pruned(store.store) == 1 and not part.exists()
    shutil.rmtree(store.store)
    assert builds.pruned(store.store) == 0


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def workload() -> Workload:
    torch.manual_seed(0)
    module = torch.nn.Sequential(Scaled(), torch.nn.LeakyReLU(0.1)).eval()
    return Workload("net", module, (torch.ones(1, 4),), calibration=(torch.zeros(3, 4),), names=("x",))


def other_weight() -> Workload:
    altered = workload()
    with torch.no_grad():
        altered.module[0].layer.weight[0, 0] += 1e-7  # type: ignore[index,union-attr]
    return altered


def other_slope() -> Workload:
    altered = workload()
    altered.module[1].negative_slope = 0.2  # type: ignore[index,union-attr]
    return altered


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(other_weight, id="weight"),
        pytest.param(other_slope, id="parameter of a module"),
        pytest.param(lambda: replace(workload(), inputs=(torch.zeros(1, 4),)), id="inputs"),
        pytest.param(lambda: replace(workload(), calibration=(torch.ones(3, 4),)), id="calibration"),
        pytest.param(lambda: replace(workload(), dynamic=False), id="axes"),
        pytest.param(lambda: replace(workload(), module=torch.nn.Linear(4, 2)), id="class"),
    ],
)
def test_a_fingerprint_holds_what_is_built_from(changed: Callable[[], Workload]) -> None:
    assert fingerprint(workload()) == fingerprint(workload()) != fingerprint(changed())


def test_source_code_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "of_a_user.py").write_text("import torch\n\n\nclass Net(torch.nn.Linear):\n    pass\n")
    import of_a_user  # type: ignore[import-not-found]

    torch.manual_seed(0)
    altered = replace(workload(), module=of_a_user.Net(4, 2))
    before = fingerprint(altered)
    with (tmp_path / "of_a_user.py").open("a") as file:
        file.write("# another forward\n")
    assert fingerprint(altered) != before


def test_a_function_that_a_forward_calls_is_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a helper in another file than the class, which is written anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "helper_of_a_user.py").write_text("def scale(x):\n    return 2 * x\n")
    import helper_of_a_user  # type: ignore[import-not-found]

    before = fingerprint(workload())
    Path(helper_of_a_user.__file__).write_text("def scale(x):\n    return x + x\n")
    assert fingerprint(workload()) != before


def test_a_key_holds_workload_reference_and_machine(tmp_path: Path) -> None:
    here = survey.collect(2, "keep")
    (tmp_path / "random.npz").write_text("1")
    key = key_of("a", tmp_path, here)
    assert key == key_of("a", tmp_path, msgspec.structs.replace(here, host="another", commit="abc"))
    assert key != key_of("b", tmp_path, here)
    assert key != key_of("a", tmp_path, msgspec.structs.replace(here, isa=("avx2",)))
    (tmp_path / "random.npz").write_text("2")
    assert key != key_of("a", tmp_path, here)
