"""Tables in README and docs stand between markers with the command that made them and the hash of
its results file: they are made again here.

To renew them after the results changed: `python tests/perf/test_docs.py`.
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hotlap.perf.stats import changes, compare, estimates

ROOT = Path(__file__).resolve().parents[2]
TABLE = re.compile(
    r"<!-- table: (?P<command>.+?)(?: \| sha256 (?P<digest>\w+))? -->\n(?P<content>.*?)<!-- end table -->",
    re.DOTALL,
)
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "profiles" / "reviews").glob("*.md")),
]


def tables() -> list[tuple[Path, re.Match[str]]]:
    return [(page, found) for page in PAGES for found in TABLE.finditer(page.read_text())]


def made(command: str) -> tuple[str, str]:
    """The command's output (what is no table, between fences) and the hash of the files with
    results that it names.
    """
    words = shlex.split(command)
    program = (
        [sys.executable, *words[1:]]
        if words[0] == "python"
        else [sys.executable, "-m", "hotlap.perf.cli", *words[1:]]
    )
    output = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sources = [ROOT / word for word in words if word.startswith(("docs/results/", "profiles/reviews/"))]
    assert sources
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    return output if "\n|" in output else f"```\n{output}```\n", digest


def test_there_are_tables() -> None:
    assert {page.name for page, _ in tables()} >= {"README.md", "measuring.md"}


@pytest.mark.parametrize(
    ("page", "found"),
    tables(),
    ids=lambda value: value["command"] if isinstance(value, re.Match) else value.name,
)
def test_table_is_what_its_command_makes(page: Path, found: re.Match[str]) -> None:
    output, digest = made(found["command"])
    assert found["digest"] == digest
    assert found["content"] == output


def test_links_of_the_pages_lead_somewhere() -> None:
    missing = [
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def test_published_results_hold_no_path_of_the_machine() -> None:
    files = sorted(
        [*(ROOT / "docs" / "results").iterdir(), *(ROOT / "profiles" / "reviews").glob("*.json.gz")]
    )
    paths = re.compile(r"(?<![\w.:])/(?!sys/|proc/)(?:[\w.-]+/){2,}")
    assert paths.search('["/srv/bench/runs/profile.json"]') and files
    assert [(file.name, found) for file in files for found in paths.findall(text(file))] == []


def text(file: Path) -> str:
    return gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()


def test_the_example_of_the_statistics_prints_what_stands_below_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "docs" / "statistics.md").read_text()
    code, printed = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", page, re.DOTALL).groups()  # type: ignore[union-attr]
    exec(compile(code, "statistics.md", "exec"), {})
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    "module", [estimates, compare, changes], ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_the_page_of_the_statistics_has_every_function_as_it_is(module: ModuleType) -> None:
    page = (ROOT / "docs" / "statistics.md").read_text()
    section = page.split(f"## {module.__name__}\n")[1].split("\n## ")[0]
    shown = {
        name: [word.strip() for word in given.split(",") if word.strip()]
        for name, given in re.findall(r"`(\w+)\(([^)]*)\)`", section)
    }
    public = {
        name: one
        for name, one in vars(module).items()
        if inspect.isfunction(one) and one.__module__ == module.__name__ and not name.startswith("_")
    }
    public |= {
        name: one.__wrapped__
        for name, one in vars(module).items()
        if hasattr(one, "cache_info") and not name.startswith("_")
    }
    assert set(shown) == set(public)
    for name, one in public.items():
        assert one.__doc__, name
        given = [word for word in shown[name] if word != "..."]
        assert given == list(inspect.signature(one).parameters)[: len(given)], name


def renew(found: re.Match[str]) -> str:
    output, digest = made(found["command"])
    return f"<!-- table: {found['command']} | sha256 {digest} -->\n{output}<!-- end table -->"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(TABLE.sub(renew, page.read_text()))
