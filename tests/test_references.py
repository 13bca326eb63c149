"""No tracked text names a file, folder or page that the repository does not have.

    python tests/test_references.py

lists what dangles. What is looked at: paths that begin with a folder of ours, `NAME.py` in
backticks and Python files named on a page, pages (`NAME.md`), modules of ours, and folders beside
the repository. Of tests and benchmarks only comments and docstrings: their strings are data.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("perf", "kernels", "models", "profiles", "bench", "tests", "docs", "ci", "hotlap")
# Not a part of a longer path, and not a method or an attribute.
START = r"(?<![\w./${}*\\-])"
PATH = re.compile(rf"{START}(?:{'|'.join(FOLDERS)})/[\w.-]+(?:/[\w.-]+)*")
SCRIPT = re.compile(r"`([\w/]+\.py)`")
SCRIPT_ON_A_PAGE = re.compile(rf"{START}([\w/]+\.py)\b")
PAGE = re.compile(rf"{START}((?:\.\./)*(?:[\w-]+/)*[\w-]+\.md)\b")
# Folders that lie beside a checkout are nobody else's.
BESIDE = re.compile(r"(?<![\w/.])(?:\.\./)*sh" + r"ared/[\w./-]*")
# A module, or a name that its package defines.
MODULE = re.compile(r"\bhotlap\.(?:perf|kernels|models|profiles)\.\w+")
# What commands write.
WRITTEN = {
    "predict.py",
    "comment.md",
    "table.md",
    "v.md",
    "summary.md",
    "history.md",
    "hotlap-comment.md",
}
# What tables of results name lines of.
OTHERS = ("torchvision/",)
# Names of a reader's own files.
PLACEHOLDER = re.compile(r"\b(?:NAME|MODEL|FILE|ID|OWNER|X)\b")
TEXT = {".py", ".md", ".sh", ".toml", ".yml", ".yaml", ".html", ".c", ".cfg", ".txt", ""}


class Reference(NamedTuple):
    """What a file names on a line."""

    file: Path
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} names {self.name}"


def tracked(root: Path) -> list[Path]:
    """Returns the text files that git knows, results and licences left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    files = [Path(name) for name in listed if name and Path(name).suffix in TEXT]
    return [file for file in files if file.name != "LICENSE" and (root / file).is_file()]


def prose(text: str) -> str:
    """Returns the comments and docstrings of Python source, each on its line."""
    lines = [""] * (text.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0]] = token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            first = node.body[0]
            for number in range(first.lineno, (first.end_lineno or first.lineno) + 1):
                lines[number] = text.splitlines()[number - 1]
    return "\n".join(lines[1:])


def references(file: Path, text: str) -> Iterator[Reference]:
    """Yields what a file's text names."""
    patterns = [PATH, SCRIPT, PAGE, MODULE, *([SCRIPT_ON_A_PAGE] if file.suffix == ".md" else [])]
    data = file.suffix == ".py" and file.parts[0] in ("tests", "bench")
    for looked_at, used in ((prose(text) if data else text, patterns), (text, [BESIDE])):
        for number, line in enumerate(looked_at.splitlines(), 1):
            names = {match[match.re.groups] for pattern in used for match in pattern.finditer(line)}
            for name in sorted(name.rstrip(".-") for name in names):
                others = Path(name).name in WRITTEN or name.startswith(OTHERS)
                if not PLACEHOLDER.search(name) and not others:
                    yield Reference(file, number, name)


def dangling(root: Path, files: list[Path]) -> list[Reference]:
    """Returns what is named and is not there."""
    return [
        reference
        for file in files
        for reference in references(file, (root / file).read_text())
        if not is_there(root, files, reference)
    ]


def is_there(root: Path, files: list[Path], reference: Reference) -> bool:
    """Whether a name leads somewhere: from the root, from its file's own folder, as a module, and a
    bare `NAME.py` or a page anywhere.
    """
    name = reference.name
    if name.startswith("hotlap."):
        _, package, module = name.split(".")
        folder = root / package
        defined = folder / "__init__.py"
        return (
            (folder / module).exists()
            or (folder / f"{module}.py").exists()
            or (defined.is_file() and re.search(rf"\b{module}\b", defined.read_text()) is not None)
        )
    if name.endswith((".py", ".md")) and any(f"/{file.as_posix()}".endswith(f"/{name}") for file in files):
        return True
    return any(
        place.exists() for place in (root / name, root / reference.file.parent / name, root / f"{name}.py")
    )


def test_nothing_dangles() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: git says which files are the repository's")
    assert [str(reference) for reference in dangling(ROOT, tracked(ROOT))] == []


@pytest.mark.parametrize(
    "text",
    [
        "# see perf/nowhere/missing.py",
        '"""As docs/missing.md tells."""',
        "# `missing.py` calls it",
        "# tests/missing holds them",
        "# the rule of MISSING.md",
        "# sh" + "ared/PAGE has it",
        "# beside it, ../sh" + "ared/traces",
        "# hotlap.perf.missing does it",
    ],
)
def test_what_dangles_is_seen(text: str, tmp_path: Path) -> None:
    (tmp_path / "perf").mkdir()
    file = Path("perf") / "planted.py"
    (tmp_path / file).write_text(f"{text}\n# perf/planted.py, perf/planted and `planted.py` are there\n")
    assert {(reference.file, reference.line) for reference in dangling(tmp_path, [file])} == {(file, 1)}


def test_of_a_test_only_the_prose_is_looked_at() -> None:
    text = '"""Of perf/missing.py."""\npath = "perf/data.py"\n\n\ndef f():\n    """Of\n\n    b/docs.md."""\n'
    names = [(reference.line, reference.name) for reference in references(Path("tests/planted.py"), text)]
    assert names == [(1, "perf/missing.py"), (8, "b/docs.md")]


if __name__ == "__main__":
    for reference in dangling(ROOT, tracked(ROOT)):
        print(reference)
