"""Discovery: a file of ours or of an installed package is a plug-in by its name, and by nothing
else.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hotlap.perf.lookup import plugins

Installs = Callable[..., None]


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installs]:
    """Installs a distribution `far` with these files and one entry point of a group."""

    def install(group: str, value: str, **files: str) -> None:
        information = tmp_path / "far-1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: far\nVersion: 1\n")
        (information / "entry_points.txt").write_text(f"[{group}]\nfar = {value}\n")
        for name, text in {"__init__": "", **files}.items():
            path = tmp_path / "far" / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "far"]:
        del sys.modules[name]


@pytest.mark.parametrize("group", ["hotlap.backends", "hotlap.metrics"])
def test_each_file_of_ours_is_a_plugin(group: str) -> None:
    folder = Path(plugins.__file__).parents[1] / group.partition(".")[2]
    names = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    modules = plugins.modules(group)
    assert names
    assert {name for name, module in modules.items() if module.startswith("hotlap.perf.")} == names
    assert list(modules) == sorted(modules)


def test_files_of_an_installed_package_are_found_without_importing_them(installs: Installs) -> None:
    installs("hotlap.metrics", "far", joy="raise RuntimeError('imported')", _hidden="")
    assert plugins.modules("hotlap.metrics")["joy"] == "far.joy"
    assert "_hidden" not in plugins.modules("hotlap.metrics")
    assert "joy" not in plugins.modules("hotlap.backends")
    with pytest.raises(RuntimeError, match="imported"):
        plugins.load("hotlap.metrics", "joy")


def test_a_found_plugin_is_loaded(installs: Installs) -> None:
    installs("hotlap.backends", "far", swift="SUMMARY = 'from afar'")
    assert plugins.backend("swift").SUMMARY == "from afar"


def test_ours_win_over_others_of_the_same_name(installs: Installs) -> None:
    installs("hotlap.backends", "far", eager="raise RuntimeError('imported')")
    assert plugins.modules("hotlap.backends")["eager"] == "hotlap.perf.backends.eager"
    assert plugins.backend("eager") is importlib.import_module("hotlap.perf.backends.eager")


@pytest.mark.parametrize("value", ["nowhere", "nowhere.at.all", "far.single"])
def test_an_entry_point_that_names_no_package_adds_nothing_and_stops_nobody(
    installs: Installs, value: str
) -> None:
    before = plugins.modules("hotlap.backends")
    installs("hotlap.backends", value, single="x = 1")
    assert plugins.modules("hotlap.backends") == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eagr", "unknown backend 'eagr': did you mean eager?"),
        ("zzzz", "unknown backend 'zzzz': there are compile, eager, "),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(plugins.Unknown) as refused:
        plugins.backend(name)
    assert str(refused.value).startswith(message)


def test_an_unknown_name_among_none_says_so() -> None:
    assert str(plugins.Unknown("workload", "x", [])) == "unknown workload 'x': there are none"
    assert (
        str(plugins.Unknown("metric", "latency_", ["memory", "latency"]))
        == "unknown metric 'latency_': did you mean latency?"
    )
