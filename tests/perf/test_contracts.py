"""The rules that keep the code base simple: direction of imports, light start, what a plug-in file
holds, the README's tree.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from hotlap.perf.lookup import plugins
from hotlap.perf.terms import contract
from hotlap.perf.terms.case import Case

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("kernels", "perf", "models", "profiles")


def loaded_by(code: str) -> set[str]:
    output = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return set(output.split())


HEAVY = {"torch", "lightning", "onnx", "onnxruntime", "openvino", "scipy", "sklearn", "torchmetrics"}


def test_the_command_line_starts_without_torch() -> None:
    loaded = loaded_by("from hotlap.perf import cli; cli.status(['--help'])")
    assert "hotlap.models.cli" in loaded
    assert loaded & (HEAVY | {"numpy"}) == set()


def test_plug_ins_are_asked_without_heavy_imports() -> None:
    code = (
        "from hotlap.perf.lookup import plugins\n"
        "from hotlap.perf.lookup.cases import expand, default_backends\n"
        "for case in expand(['mlp'], [*default_backends(), 'null']): b = plugins.backend(case.backend);"
        " b.available('cpu'); b.supports(case); b.variables(case, 2)"
    )
    assert loaded_by(code) & HEAVY == set()


def test_the_pytest_plug_in_imports_no_torch() -> None:
    assert loaded_by("import hotlap.perf.commands.pytest_plugin as p; p.cases('mlp')") & HEAVY == set()


def test_an_onnxruntime_worker_never_imports_torch() -> None:
    assert "torch" not in loaded_by(
        "import hotlap.perf.race.worker, hotlap.perf.backends.onnxruntime, hotlap.perf.oracle.check\n"
        "import onnxruntime"
    )


SIGNATURES = {
    "available": ["target"],
    "supports": ["case"],
    "variables": ["case", "threads"],
    "build": ["workload", "case", "folder", "phase"],
    "load": ["artefact"],
    "placement": ["artefact", "step"],
}


@pytest.mark.parametrize("name", plugins.modules("hotlap.backends"))
def test_backend_contract(name: str) -> None:
    module = plugins.backend(name)
    assert isinstance(module.SUMMARY, str) and module.SUMMARY
    assert all(isinstance(values, tuple) and len(values) >= 2 for values in module.OPTIONS.values())
    assert isinstance(contract.modules(module, Case("w", name)), tuple)
    for function, parameters in SIGNATURES.items():
        if function == "build" and not hasattr(module, "build"):
            continue
        assert list(inspect.signature(getattr(module, function)).parameters) == parameters, function
    for option, values in module.OPTIONS.items():
        for value in values:
            case = Case("w", name, options=((option, value),))
            assert Case.parse(case.id) == case
    assert module.supports(Case("w", name, "int8", mode="train")) is not None or name == "pace"


@pytest.mark.parametrize("name", plugins.modules("hotlap.metrics"))
def test_metric_contract(name: str) -> None:
    module = plugins.load("hotlap.metrics", name)
    assert list(inspect.signature(module.measure).parameters) == ["seen"]
    assert module.__doc__


@pytest.mark.parametrize("name", plugins.modules("hotlap.workloads"))
def test_workload_contract(name: str) -> None:
    module = importlib.import_module(plugins.modules("hotlap.workloads")[name])
    assert next(iter(inspect.signature(module.load).parameters)) == "preset"
    assert list(inspect.signature(module.ready).parameters) == ["report"]


PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
SAFE = {"torch": ("weights_only", True), "np": ("allow_pickle", False), "numpy": ("allow_pickle", False)}


def unsafe(path: Path) -> list[str]:
    """Calls that unpickle, or could: a loader of pickles, or torch.load, np.load and
    load_from_checkpoint without their safe setting written out.
    """
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module in {*PICKLES, *SAFE}
            and any(alias.name in ("load", "loads", "Unpickler", "open") for alias in node.names)
        ):
            lines.append(f"{path.name}:{node.lineno} {node.module}")
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        constants = {
            word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)
        }
        name, setting = node.func.attr, SAFE.get(owner) if node.func.attr == "load" else None
        if name == "load_from_checkpoint":
            setting = SAFE["torch"]
        wrong = (
            (owner in PICKLES and name in ("load", "loads", "Unpickler", "open"))
            or name == "read_pickle"
            or constants.get("allow_pickle") is True
        )
        if wrong or (setting is not None and constants.get(setting[0]) is not setting[1]):
            lines.append(f"{path.name}:{node.lineno} {owner}.{name}")
    return lines


def test_nothing_is_unpickled() -> None:
    """No pickle, and torch and numpy load with their safe settings only."""
    files = [path for name in (*PACKAGES, "bench", "docs", "ci") for path in (ROOT / name).rglob("*.py")]
    assert [line for path in files for line in unsafe(path)] == []


@pytest.mark.parametrize(
    "text",
    [
        "pickle.load(file)", "pickle.loads(data)", "pickle.Unpickler(file)", "from pickle import loads",
        "from numpy import load", "torch.load(path)", "torch.load(path, weights_only=False)",
        "torch.load(\n  path,\n  map_location='cpu')", "np.load(path)", "np.load(path, allow_pickle=True)",
        "numpy.load(path)", "Net.load_from_checkpoint(path)", "joblib.load(path)",
        "np.savez(path, allow_pickle=True)", "torch.load(path, weights_only=safe)",
    ],
)  # fmt: skip
def test_what_unpickles_is_seen(text: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(text + "\n")
    assert len(unsafe(tmp_path / "planted.py")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "onnx.load(path)",
        "backend.load(artefact)",
    ],
)
def test_what_is_safe_is_let_through(text: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(text + "\n")
    assert unsafe(tmp_path / "planted.py") == []
