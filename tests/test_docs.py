"""The pages are true: tables and pictures are made again, names of files lead somewhere, every page
is listed, prose has 100 columns.

Tables stand between markers with the command that made them and the hash of its results file. To
renew them and the pictures after the results changed: `python tests/test_docs.py`.
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

from hotlap.perf.stats import chance, changes, compare, estimates, partition, two_levels

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.compile(
    r"<!-- table: (?P<command>.+?)(?: \| sha256 (?P<digest>\w+))? -->\n(?P<content>.*?)<!-- end table -->",
    re.DOTALL,
)
# A picture is the last word of its command.
PICTURE = re.compile(r"<!-- picture: (?P<command>.+) (?P<file>\S+) -->")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "profiles" / "reviews").glob("*.md")),
]


def tables() -> list[tuple[Path, re.Match[str]]]:
    return [(page, table) for page in PAGES for table in TABLE.finditer(page.read_text())]


def pictures() -> list[re.Match[str]]:
    return [picture for page in PAGES for picture in PICTURE.finditer(page.read_text())]


def output_of(command: str) -> str:
    """Runs a command of hotlap, or a script with python, and returns what it prints."""
    words = shlex.split(command)
    program = (
        [sys.executable, *words[1:]]
        if words[0] == "python"
        else [sys.executable, "-m", "hotlap.perf.cli", *words[1:]]
    )
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def rendered(command: str) -> tuple[str, str]:
    """Returns the command's output (what is no table, between fences) and the hash of the files
    with results that it names.
    """
    sources = [
        ROOT / word
        for word in shlex.split(command)
        if word.startswith(("docs/results/", "profiles/reviews/"))
    ]
    assert sources
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    output = output_of(command)
    return output if "\n|" in output else f"```\n{output}```\n", digest


def test_there_are_tables_and_a_picture() -> None:
    assert {page.name for page, _ in tables()} >= {"README.md", "measuring.md", "run.md"}
    assert [picture["file"] for picture in pictures()] == ["docs/results/run.svg"]


@pytest.mark.parametrize(
    ("page", "table"),
    tables(),
    ids=lambda value: value["command"] if isinstance(value, re.Match) else value.name,
)
def test_table_is_what_its_command_makes(page: Path, table: re.Match[str]) -> None:
    output, digest = rendered(table["command"])
    assert table["digest"] == digest
    assert table["content"] == output


@pytest.mark.parametrize("picture", pictures(), ids=lambda picture: picture["file"])
def test_picture_is_what_its_command_makes(picture: re.Match[str]) -> None:
    assert (ROOT / picture["file"]).read_text() == output_of(f"{picture['command']} -")


def test_the_first_table_of_the_readme_is_small() -> None:
    table = next(table for page, table in tables() if page.name == "README.md")
    head, _, *rows = [line for line in table["content"].splitlines() if line.startswith("|")]
    assert head.count("|") - 1 <= 5 and len(rows) <= 6


def test_links_of_the_pages_lead_somewhere() -> None:
    missing = [
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


def test_every_page_of_docs_is_listed_once_with_a_line() -> None:
    index = ROOT / "docs" / "README.md"
    listed = re.findall(r"^- \[(.+)\]\((.+)\): \S", index.read_text(), re.MULTILINE)
    assert all(name == target for name, target in listed)
    pages = [page.relative_to(index.parent).as_posix() for page in index.parent.rglob("*.md")]
    assert sorted(target for _, target in listed) == sorted({*pages} - {"README.md"})


def test_the_way_of_a_case_is_ten_lines_with_names_of_files() -> None:
    lines = re.findall(
        r"^\d+\. .+(?:\n   +.+)*", (ROOT / "docs/how-a-case-travels.md").read_text(), re.MULTILINE
    )
    assert len(lines) == 10
    for line in lines:
        files = re.findall(r"`([\w/]+\.py)`", line)
        assert files, line
        assert [file for file in files if not (ROOT / file).is_file()] == []


def prose(text: str) -> list[str]:
    """Returns the lines that are no code, no table and not between the markers of a table."""
    text = TABLE.sub("", re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return [line for line in text.splitlines() if not line.startswith(("|", "!["))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_prose_has_100_columns(page: Path) -> None:
    lines = [line for line in prose(page.read_text()) if len(line) > 100]
    # A word that cannot be broken, such as a command in backticks, may be longer.
    assert [line for line in lines if " " in re.sub(r"`[^`]*`", "", line.strip(" -"))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_backend_is_one_word(page: Path) -> None:
    assert re.findall(r"(?i)back[ -]ends?\b", page.read_text()) == []


def test_published_results_hold_no_path_of_the_machine() -> None:
    files = sorted(
        [*(ROOT / "docs" / "results").iterdir(), *(ROOT / "profiles" / "reviews").glob("*.json.gz")]
    )
    paths = re.compile(r"(?<![\w.:])/(?!sys/|proc/)(?:[\w.-]+/){2,}")
    assert paths.search('["/srv/bench/runs/profile.json"]') and files
    contents = [(file.name, re.sub(r"https?://\S+", "", text(file))) for file in files]
    assert [(name, path) for name, content in contents for path in paths.findall(content)] == []


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
    "module",
    [estimates, compare, changes, two_levels, chance, partition],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
def test_the_page_of_the_statistics_has_every_function_as_it_is(module: ModuleType) -> None:
    page = (ROOT / "docs" / "statistics.md").read_text()
    section = page.split(f"## {module.__name__}\n")[1].split("\n## ")[0]
    shown = {
        name: [word.strip() for word in parameters.split(",") if word.strip()]
        for name, parameters in re.findall(r"`(\w+)\(([^)]*)\)`", section)
    }
    public = {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    }
    public |= {
        name: function.__wrapped__
        for name, function in vars(module).items()
        if hasattr(function, "cache_info") and not name.startswith("_")
    }
    assert set(shown) == set(public)
    for name, function in public.items():
        assert function.__doc__, name
        parameters = [word for word in shown[name] if word != "..."]
        assert parameters == list(inspect.signature(function).parameters)[: len(parameters)], name


def renewed(table: re.Match[str]) -> str:
    output, digest = rendered(table["command"])
    return f"<!-- table: {table['command']} | sha256 {digest} -->\n{output}<!-- end table -->"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(TABLE.sub(renewed, page.read_text()))
    for picture in pictures():
        (ROOT / picture["file"]).write_text(output_of(f"{picture['command']} -"))
