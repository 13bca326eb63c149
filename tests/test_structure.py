"""Which package, folder and file imports which: imports point one way, and README's tree is true.

    python tests/test_structure.py [CHECKOUT]

counts rooms and arrows: a room is a file or folder right inside a package, an arrow says that one
imports another, at module level, inside a function or under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A package imports only from those before it.
PACKAGES = ("kernels", "perf", "models", "profiles")
ORDER = (*PACKAGES, "bench", "tests")
# So does a folder of perf or profiles.
FOLDERS = {
    "perf": (
        "stats", "terms", "machine", "lookup", "oracle", "compiled", "lowering", "backends", "artefacts",
        "race", "metrics", "reports", "measure", "choose", "readers", "gate", "history", "commands",
        "cli",
    ),
    "profiles": ("tables", "facts", "findings", "pages", "recording", "commands"),
}  # fmt: skip


class Import(NamedTuple):
    """One import statement's name: `target` is a file of ours, or a bare name that must not be."""

    source: Path
    line: int
    target: Path


def imports(root: Path, file: Path) -> Iterator[Import]:
    """Every import of a file of ours by another, relative ones resolved."""
    package = file.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules = [(alias.name.split("."), None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            stem = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            modules = [(["hotlap", *filter(None, stem)], alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [((node.module or "").split("."), alias.name) for alias in node.names]
        else:
            continue
        for parts, name in modules:
            if parts[0] in PACKAGES and package[:1] != ("tests",):
                yield Import(file, node.lineno, root / "bare" / parts[0])
            elif parts[0] == "hotlap":
                target = module_file(root, [*parts[1:], *([name] if name else [])])
                if target is not None:
                    yield Import(file, node.lineno, target)


def module_file(root: Path, parts: list[str]) -> Path | None:
    """The file of a module, of the module that defines a name, or of a package."""
    for length in (len(parts), len(parts) - 1):
        path = root.joinpath(*parts[:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if length and file.is_file():
                return file
    return root.joinpath(*parts) if parts and parts[0] in ORDER else None


def sources(root: Path, *packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (root / package).rglob("*.py"))


def all_imports(root: Path, *packages: str) -> list[Import]:
    return [imported for file in sources(root, *packages) for imported in imports(root, file)]


def room(root: Path, file: Path) -> tuple[str, str]:
    """Package, and the folder or file right inside it."""
    parts = file.relative_to(root).parts
    return parts[0], parts[1].removesuffix(".py") if len(parts) > 1 else ""


def against_packages(root: Path) -> list[str]:
    """Imports of a package by one that stands before it, and imports of the bare names."""
    return [
        f"{item.source.relative_to(root)}:{item.line} imports {item.target.relative_to(root)}"
        for item in all_imports(root, *ORDER)
        if room(root, item.target)[0] not in ORDER[: ORDER.index(room(root, item.source)[0]) + 1]
    ]


def against_folders(root: Path) -> list[str]:
    """Imports of a folder by one that stands before it; what stands in no folder counts as such."""
    wrong = []
    for package, order in FOLDERS.items():
        for item in all_imports(root, package):
            (_, source), (other, target) = room(root, item.source), room(root, item.target)
            if other != package or source == "__init__" or target == "__init__":
                continue
            if {source, target} - {*order} or order.index(target) > order.index(source):
                wrong.append(
                    f"{item.source.relative_to(root)}:{item.line} imports {item.target.relative_to(root)}"
                )
    return wrong


def circle(root: Path) -> list[str]:
    """The files of an import circle; empty where there is none."""
    graph: dict[str, set[str]] = {}
    for item in all_imports(root, *PACKAGES):
        if item.target.is_file() and item.target != item.source:
            graph.setdefault(str(item.source), set()).add(str(item.target))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [Path(file).relative_to(root).as_posix() for file in error.args[1]]
    return []


def counted(root: Path, package: str) -> tuple[int, int]:
    """Rooms of a package and arrows between them."""
    rooms = {room(root, file)[1] for file in sources(root, package)} - {"__init__"}
    pairs = {(room(root, item.source), room(root, item.target)) for item in all_imports(root, package)}
    arrows = [
        (source, target)
        for source, target in pairs
        if source != target and target[0] == package and "__init__" not in (source[1], target[1])
    ]
    return len(rooms), len(arrows)


def test_packages_import_only_from_their_left() -> None:
    assert len(sources(ROOT, *ORDER)) > 40
    assert against_packages(ROOT) == []


def test_folders_import_only_from_those_before_them() -> None:
    assert against_folders(ROOT) == []


def test_no_files_import_in_a_circle() -> None:
    assert circle(ROOT) == []


@pytest.mark.parametrize(
    "text",
    [
        "from ..models import train",
        "from hotlap.models.train import train",
        "import hotlap.models.train",
        "import models",
        "from models import train",
    ],
)
def test_an_import_from_the_right_is_seen(text: str, tmp_path: Path) -> None:
    (tmp_path / "perf").mkdir()
    (tmp_path / "perf" / "planted.py").write_text(text + "\n")
    assert len(against_packages(tmp_path)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "from ..race import race",
        "from ..race.race import Race",
        "def late():\n    from ..race import race",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..race.race import Race",
        "from hotlap.perf.race import race",
    ],
)
def test_an_import_from_a_later_folder_is_seen(text: str, tmp_path: Path) -> None:
    for folder in ("stats", "race"):
        (tmp_path / "perf" / folder).mkdir(parents=True)
    (tmp_path / "perf" / "race" / "race.py").write_text("from ..stats import planted\n")
    (tmp_path / "perf" / "stats" / "planted.py").write_text(text + "\n")
    assert [line.split(":")[0] for line in against_folders(tmp_path)] == ["perf/stats/planted.py"]


def test_a_circle_is_seen(tmp_path: Path) -> None:
    (tmp_path / "perf").mkdir()
    (tmp_path / "perf" / "left.py").write_text("from .right import value\n")
    (tmp_path / "perf" / "right.py").write_text("def late():\n    from . import left\n")
    assert set(circle(tmp_path)) == {"perf/left.py", "perf/right.py"}


def twice(root: Path) -> dict[str, list[str]]:
    """Names that two classes of the packages share, with their files; private ones excepted."""
    files: dict[str, list[str]] = {}
    for file in sources(root, *PACKAGES):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                files.setdefault(node.name, []).append(file.relative_to(root).as_posix())
    return {name: paths for name, paths in files.items() if len(paths) > 1}


def test_no_two_classes_share_a_name() -> None:
    assert twice(ROOT) == {}


def test_two_classes_of_one_name_are_seen(tmp_path: Path) -> None:
    (tmp_path / "perf").mkdir()
    for name in ("left", "right"):
        (tmp_path / "perf" / f"{name}.py").write_text("class Entry:\n    pass\n")
    assert twice(tmp_path) == {"Entry": ["perf/left.py", "perf/right.py"]}


# Names that say nothing of what they hold.
EMPTY = {"found", "one", "made", "said", "given", "told", "taken"}


def empty_names(root: Path) -> list[str]:
    """Where a local or a parameter has such a name."""
    spots = []
    for file in sources(root, *PACKAGES, "bench"):
        for node in ast.walk(ast.parse(file.read_text())):
            stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            name = node.id if stored else node.arg if isinstance(node, ast.arg) else ""  # type: ignore[attr-defined]
            if name in EMPTY:
                spots.append(f"{file.relative_to(root).as_posix()}:{node.lineno} {name}")
    return spots


def test_names_say_what_they_hold() -> None:
    """But for a manifest's field `made`, which stands in files."""
    assert [spot for spot in empty_names(ROOT) if not spot.startswith("perf/artefacts/manifest.py")] == []


def test_a_name_that_says_nothing_is_seen(tmp_path: Path) -> None:
    (tmp_path / "perf").mkdir()
    (tmp_path / "perf" / "planted.py").write_text(
        "def function(given):\n    found = given\n    return found\n"
    )
    assert len(empty_names(tmp_path)) == 2


# Who prints by itself: the printers; a process whose output is read by its parent; standard output
# sent elsewhere.
PRINTERS = {
    "perf/terms/printer.py", "perf/reports/console.py",
    "perf/compiled/census.py", "perf/backends/onnxruntime.py",
}  # fmt: skip


def prints(root: Path) -> list[str]:
    """Where text reaches a terminal or a CI log past the printer, which makes names harmless."""
    spots = []
    for file in sources(root, *PACKAGES):
        for node in ast.walk(ast.parse(file.read_text())):
            name = ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""
            imported = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich.")
            markup = imported and any(alias.name in ("escape", "print") for alias in node.names)  # type: ignore[attr-defined]
            called = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Console")
            if name in ("print", "sys.stdout", "sys.stderr", "typer.echo", "typer.secho") or markup or called:
                spots.append(f"{file.relative_to(root).as_posix()}:{node.lineno}")  # type: ignore[attr-defined]
    return spots


def test_everything_is_printed_by_the_printer() -> None:
    assert [spot for spot in prints(ROOT) if spot.partition(":")[0] not in PRINTERS] == []


@pytest.mark.parametrize(
    "text",
    [
        "print(1)",
        "report = print",
        "import sys\nsys.stderr.write('x')",
        "import typer\ntyper.echo('x')",
        "from rich.console import Console\nConsole()",
        "from rich.markup import escape",
    ],
)
def test_what_is_printed_past_the_printer_is_seen(text: str, tmp_path: Path) -> None:
    (tmp_path / "perf").mkdir()
    (tmp_path / "perf" / "planted.py").write_text(text + "\n")
    assert len(prints(tmp_path)) == 1


def tree() -> dict[str, str]:
    """Path -> description, from README's tree."""
    block = (ROOT / "README.md").read_text().split("## The tree")[1].split("```")[1]
    entries, folder = {}, ""
    for line in block.strip("\n").splitlines():
        match = re.fullmatch(r"( *)(\S+)\s+(\S.+)", line)
        assert match is not None, line
        indented, name, text = match.groups()
        folder = folder if indented else name
        entries[folder + name if indented else name] = text
    return entries


def hidden(path: Path) -> bool:
    return path.name.startswith((".", "__")) or path.name.endswith(".egg-info")


def test_the_readme_tree_is_true() -> None:
    """Every folder of the repository and of each package has its line, and every line its place."""
    listed = tree()
    assert [name for name in listed if not (ROOT / name).exists()] == []
    top = {f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not hidden(path)}
    inner = {
        f"{package}/{path.name}/"
        for package in PACKAGES
        for path in (ROOT / package).iterdir()
        if path.is_dir() and not hidden(path)
    }
    assert top - {"runs/", "build/", "dist/"} | inner <= listed.keys()


if __name__ == "__main__":
    checkout = Path(sys.argv[1]).resolve() if sys.argv[1:] else ROOT
    for name in PACKAGES:
        rooms, arrows = counted(checkout, name)
        print(f"{name}: {rooms} rooms, {arrows} arrows")
    print(f"against the order: {len(against_packages(checkout)) + len(against_folders(checkout))}")
    print(f"circle: {' -> '.join(circle(checkout)) or 'none'}")
