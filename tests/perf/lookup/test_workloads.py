"""From a reference in words to a workload, and what is said where it is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hotlap.perf.lookup import workloads
from hotlap.perf.lookup.plugins import Unknown
from hotlap.perf.lookup.workloads import Reference
from hotlap.perf.race.messages import Preload
from hotlap.perf.race.tasks import Tasks
from hotlap.perf.terms.case import Workload
from hotlap.perf.terms.reasons import Misuse, Refusal

USER = """
import torch
from torch import nn
from hotlap import Workload

class Module(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        self.example_input_array = torch.ones(2, 3)

class Wide(nn.Linear):
    def __init__(self, width, kind="relu"):
        super().__init__(3, width)
        self.kind, self.example_input_array = kind, torch.ones(2, 3)

class Bare(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)

def workload(): return Workload("other name", Module().train(), (torch.zeros(2, 3),), items=7)
def pair(): return Module(), torch.zeros(4, 3)
class Both(nn.Module):
    def forward(self, x, y): return x
def several(): return Both(), [torch.zeros(4, 3), torch.zeros(4)]
def uneven(): return Both(), (torch.zeros(4, 3), torch.zeros(5, 3))
def scalar(): return Module(), torch.tensor(1.0)
def fails(): raise KeyError("weights")
def text(): return "text"
def no_tensors(): return Module(), {"x": 1}
def no_inputs(): return Module(), ()
def sparse(): return Module(), torch.zeros(4, 3).to_sparse()
def no_rows(): return Module(), torch.zeros(0, 3)
module = Module()
"""
FILES = """
from hotlap import Workload
import torch
def load(preset):
    inputs = (torch.zeros(1, 1),)
    return Workload("small", torch.nn.Identity(), inputs, weights=preset or "trained")
def ready(report): report("training small")
"""


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's directory, with a module and a package whose import fails, and a distribution with
    a model file.
    """
    folder = tmp_path / "user"
    (folder / "lap_broken").mkdir(parents=True)
    (folder / "lap_user.py").write_text(USER)
    (folder / "lap_broken" / "__init__.py").write_text("raise RuntimeError('half written')")
    (folder / "lap_broken" / "nets.py").touch()
    site = tmp_path / "site"
    (site / "lap_files").mkdir(parents=True)
    (site / "lap_files" / "__init__.py").touch()
    (site / "lap_files" / "lapnet.py").write_text(FILES)
    (site / "lap-1.dist-info").mkdir()
    (site / "lap-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: lap\nVersion: 1\n")
    (site / "lap-1.dist-info" / "entry_points.txt").write_text("[hotlap.workloads]\nlap = lap_files\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(folder)
    yield folder
    for name in [name for name in sys.modules if name.startswith("lap_")]:
        del sys.modules[name]


def refused(reference: Reference) -> str:
    with pytest.raises(Refusal) as error:
        workloads.load(reference)
    assert error.value.reason.code == "invalid_input"
    return error.value.reason.detail


@pytest.mark.parametrize(
    ("attribute", "shapes", "dynamic"),
    [
        ("workload", [(2, 3)], True),
        ("pair", [(4, 3)], True),
        ("several", [(4, 3), (4,)], True),
        ("uneven", [(4, 3), (5, 3)], False),
        ("scalar", [()], False),
        ("Module", [(2, 3)], True),
        ("module", [(2, 3)], True),
    ],
)
def test_what_a_users_module_may_offer(attribute: str, shapes: list[tuple[int, ...]], dynamic: bool) -> None:
    workload = workloads.load(Reference(f"lap_user:{attribute}"))
    assert isinstance(workload, Workload)
    assert workload.name == f"lap_user:{attribute}"
    assert [tuple(value.shape) for value in workload.inputs] == shapes
    assert workload.dynamic == dynamic
    assert not workload.module.training
    assert not any(value.requires_grad for value in workload.module.parameters())
    assert workload.items == (7 if attribute == "workload" else 1)


def test_arguments_of_the_command_line_make_the_module() -> None:
    wide = Reference("lap_user:Wide", arguments=(("width", "7"), ("kind", "gelu")))
    module = workloads.load(wide).module
    assert (module.out_features, module.kind) == (7, "gelu")
    assert "lap_user:Wide needs width: give plain values with --arg width=VALUE" in refused(
        Reference("lap_user:Wide")
    )
    unknown = Reference("lap_user:Wide", arguments=(("width", "7"), ("witdh", "8")))
    assert "got an unexpected keyword argument 'witdh'; it takes width, kind" in refused(unknown)


@pytest.mark.parametrize("attribute", ["pair", "module"])
def test_every_process_makes_the_same_weights_whether_it_imported_the_module_before_or_not(
    attribute: str,
) -> None:
    """The referee imports a user's module when it makes the workload, an entrant's worker while it
    preloads.
    """
    referees = workloads.load(Reference(f"lap_user:{attribute}"))
    del sys.modules["lap_user"]
    torch.seed()
    Tasks(print).preload(Preload(["torch", "lap_user"]))
    entrants = workloads.load(Reference(f"lap_user:{attribute}"))
    assert torch.equal(referees.module.state_dict()["weight"], entrants.module.state_dict()["weight"])


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("fails", "lap_user:fails: KeyError: 'weights'"),
        ("missing", "lap_user:missing: AttributeError: module 'lap_user' has no attribute 'missing'"),
        (
            "text",
            (
                "lap_user:text gave a str; expected a Workload, (module, inputs) or a LightningModule with"
                " example_input_array"
            ),
        ),
        ("Bare", "lap_user:Bare: no example inputs; return (module, inputs) or set example_input_array"),
        ("no_tensors", "lap_user:no_tensors: no example input is a tensor; give at least one"),
        ("no_inputs", "lap_user:no_inputs: forward(input: torch.Tensor) -> torch.Tensor does not take the"),
        ("sparse", "lap_user:sparse: an example input is torch.sparse_coo, unknown to numpy; give dense"),
        ("no_rows", "lap_user:no_rows: its example inputs have no rows; give at least one"),
    ],
)
def test_what_is_no_workload_is_refused(attribute: str, message: str) -> None:
    assert message in refused(Reference(f"lap_user:{attribute}"))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (Reference("lapnot"), "unknown workload 'lapnot': did you mean lapnet"),
        (Reference("lapnet:"), ""),
        (Reference("lap_user"), "unknown workload 'lap_user'"),
        (Reference("lap_user:"), "unknown workload 'lap_user:'"),
        (Reference("lap_nowhere:make"), "no module named 'lap_nowhere' here or among the installed packages"),
        (Reference("lap_user.inner:make"), "no module named 'lap_user.inner'"),
        (Reference(":make"), "no module named ''"),
        (
            Reference("lapnet", "x.ckpt"),
            "--checkpoint goes with package.module:Class or package.module:function",
        ),
        (Reference("lap_user:Module", "x.ckpt"), "checkpoint x.ckpt does not exist"),
        (Reference("lap_broken.nets:make"), "half written"),
        (Reference("lap_user:pair"), ""),
        (Reference("lapnet"), ""),
        (Reference("lapnet:full"), ""),
    ],
)
def test_a_reference_is_checked_before_anything_runs(reference: Reference, message: str) -> None:
    if not message:
        workloads.check(reference)
        assert not {"lap_user", "lap_files.lapnet"} & set(sys.modules)
    else:
        with pytest.raises(Misuse) as misuse:
            workloads.check(reference)
        assert message in str(misuse.value)


def test_an_unknown_workload_is_of_the_kind_that_suggests() -> None:
    with pytest.raises(Unknown):
        workloads.check(Reference("lapnt"))


@pytest.mark.parametrize(("text", "weights"), [("lapnet", "trained"), ("lapnet:full", "full")])
def test_a_model_file_is_loaded_with_its_preset(text: str, weights: str) -> None:
    workload = workloads.load(Reference(text))
    assert (workload.name, workload.weights) == (text, weights)
    assert Reference(text).module == "lap_files.lapnet"
    assert Reference("lap_user:pair").module == "lap_user"


@pytest.mark.parametrize(
    ("text", "lines"), [("lapnet", ["training small"]), ("lapnet:full", []), ("lap_user:pair", [])]
)
def test_only_a_model_file_without_preset_is_made_ready(text: str, lines: list[str]) -> None:
    heard: list[str] = []
    workloads.ready(Reference(text), heard.append)
    assert heard == lines


def test_the_users_folder_shadows_nothing(user_folder: Path) -> None:
    before = [*sys.path]
    for _ in range(2):
        workloads.add_user_folder()
    assert sys.path == [*before, str(user_folder)]


def test_a_lightning_checkpoint_is_loaded_with_its_digest(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    asked: dict[str, Any] = {}

    def load_from_checkpoint(path: Path, **more: Any) -> torch.nn.Module:
        asked.update(more, path=path)
        module = torch.nn.Linear(3, 2)
        module.example_input_array = torch.ones(5, 3)  # type: ignore[assignment]
        return module

    torch.save({"state_dict": torch.nn.Linear(3, 2).state_dict()}, user_folder / "best.ckpt")
    digest = hashlib.sha256((user_folder / "best.ckpt").read_bytes()).hexdigest()[:8]
    with_checkpoint(monkeypatch, load_from_checkpoint)
    workload = workloads.load(Reference("lap_user:Module", "best.ckpt"))
    strict = {"map_location": "cpu", "weights_only": True, "strict": False}
    assert asked == {"path": Path("best.ckpt"), **strict}
    assert workload.weights == f"checkpoint best.ckpt sha256:{digest}"
    assert (workload.name, workload.inputs[0].shape) == ("lap_user:Module", (5, 3))


def test_a_checkpoint_that_cannot_be_loaded_is_refused_in_one_line(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_from_checkpoint(path: Path, **more: Any) -> torch.nn.Module:
        raise RuntimeError("size mismatch\nfor weight")

    torch.save(torch.nn.Linear(3, 2).state_dict(), user_folder / "x.ckpt")
    with_checkpoint(monkeypatch, load_from_checkpoint)
    detail = refused(Reference("lap_user:Module", "x.ckpt"))
    assert detail == "x.ckpt cannot be loaded as Module with weights_only: size mismatch for weight"


def test_a_functions_module_gets_the_weights_of_the_checkpoint(user_folder: Path) -> None:
    """They were ignored, and the untrained ones timed."""
    module = workloads.load(Reference("lap_user:pair")).module
    trained = {name: torch.full_like(value, 7.0) for name, value in module.state_dict().items()}
    torch.save({"state_dict": trained}, user_folder / "best.ckpt")
    workload = workloads.load(Reference("lap_user:pair", "best.ckpt"))
    assert all((value == 7).all() for value in workload.module.state_dict().values())
    assert workload.weights.startswith("checkpoint best.ckpt sha256:")


def with_checkpoint(monkeypatch: pytest.MonkeyPatch, load: Callable[..., torch.nn.Module]) -> None:
    import importlib

    workloads.add_user_folder()
    monkeypatch.setattr(
        importlib.import_module("lap_user").Module, "load_from_checkpoint", staticmethod(load), raising=False
    )


def test_the_package_around_a_module_changes_nothing_here_when_it_is_checked(user_folder: Path) -> None:
    """Every worker inherits the environment and the cores of this process."""
    package = user_folder / "lap_setting"
    package.mkdir()
    (package / "__init__.py").write_text("import os\nos.environ['LAP_SET'] = '1'\nos.nice(1)\n")
    (package / "nets.py").touch()
    before = os.getpriority(os.PRIO_PROCESS, 0)
    workloads.check(Reference("lap_setting.nets:make"))
    assert "LAP_SET" not in os.environ and "lap_setting" not in sys.modules
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_a_package_that_ends_the_process_is_an_error_and_not_the_end(user_folder: Path) -> None:
    package = user_folder / "lap_ends"
    package.mkdir()
    (package / "__init__.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(Misuse, match="importing lap_ends fails: exit status 7"):
        workloads.check(Reference("lap_ends.nets:make"))


def test_a_module_that_changes_folder_and_umask_changes_neither_for_us(user_folder: Path) -> None:
    """With a relative --out, a worker would write elsewhere, and files that nobody may read."""
    (user_folder / "lap_moves.py").write_text(
        f"import os\n{USER}\nos.chdir('/')\nos.umask(0o777)\n"
        "def moves():\n    os.chdir('/')\n    os.umask(0o777)\n    return pair()\n"
    )
    before, mask = Path.cwd(), os.umask(0o022)
    try:
        Tasks(print).preload(Preload(["torch", "lap_moves"]))
        assert (Path.cwd(), os.umask(0o022)) == (before, 0o022)
        workloads.load(Reference("lap_moves:moves"))
        assert (Path.cwd(), os.umask(0o022)) == (before, 0o022)
    finally:
        os.umask(mask)
