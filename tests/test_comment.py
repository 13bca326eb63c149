"""ci/comment.sh: what a workflow with rights does with what a pull request left, beside a `gh` that
answers from files and notes what it was asked.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.perf.terms.reasons import Unreadable
from hotlap.perf.terms.verdict import Finding, Verdict
from hotlap.perf.terms.verdict import read as read_verdict

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "ci" / "comment.sh"
SHA = "c" * 40
# jq's part of an answer is done by whoever writes the files: `pulls` holds the number, `artifacts`
# id and size.
GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >>{folder}/asked
case "$*" in
*/zip) cat {folder}/archive ;;
*/pulls*) cat {folder}/pulls ;;
*/artifacts*) cat {folder}/artifacts ;;
*body=@*)
  for word in "$@"; do
    case $word in body=@*) cat "${{word#body=@}}" >{folder}/posted ;; esac
  done
  ;;
*/comments*) cat {folder}/comments ;;
esac
"""


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of answers: pull request 7 is open at SHA, and run 5 left a small archive."""
    folder = tmp_path / "github"
    folder.mkdir()
    (folder / "pulls").write_text("7\n")
    (folder / "artifacts").write_text("9 1000\n")
    (folder / "comments").write_text("")
    (folder / "asked").write_text("")
    archive(folder, verdict())
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "gh").write_text(GH.format(folder=folder))
    (tools / "gh").chmod(0o755)
    monkeypatch.setenv(
        "PATH", f"{tools}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    for name, value in {
        "GITHUB_REPOSITORY": "us/net", "NAME": "hotlap", "HEAD_SHA": SHA, "HEAD_OWNER": "them",
        "HEAD_BRANCH": "faster;touch planted", "GITHUB_OUTPUT": str(folder / "output"), "GH_TOKEN": "none",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def verdict(**change: Any) -> bytes:
    finding = {"case": "net/eager", "metric": "latency", "verdict": "regression", "base": 1.0, "head": 2.0,
               "ratio": 2.0, "unit": "s"}  # fmt: skip
    content = {"tool": "ab", "verdict": "regression", "findings": [finding], "schema": 1, **change}
    return json.dumps(content).encode()


def archive(folder: Path, content: bytes, *names: str, **more: bytes) -> None:
    """Writes a ZIP archive with this content under the names, by default verdict.json."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names or ("verdict.json",):
            file.writestr(name, content)
        for name, text in more.items():
            file.writestr(name, text)
    (folder / "archive").write_bytes(buffer.getvalue())


def after() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), "after", "5"], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_verdict_is_commented_on_its_own_pull_request(github: Path) -> None:
    done = after()
    assert done.returncode == 0, done.stderr
    posted = (github / "posted").read_text()
    assert posted.startswith("<!-- hotlap: hotlap -->\n### hotlap ab: regression")
    assert "net/eager" in posted and "issues/7/comments" in (github / "asked").read_text()
    assert (github / "output").read_text() == "number=7\n"
    assert json.loads(Path("hotlap-out/gate.sarif").read_text())["runs"][0]["results"]
    assert not list(Path().glob("planted"))
    (github / "comments").write_text("31\n")
    assert after().returncode == 0
    assert "PATCH repos/us/net/issues/comments/31" in (github / "asked").read_text()


def test_a_pull_request_that_has_moved_on_is_left_alone(github: Path) -> None:
    (github / "pulls").write_text("")
    done = after()
    assert done.returncode == 0 and "nothing to say" in done.stdout
    assert not (github / "posted").exists()


@pytest.mark.parametrize(
    ("artifacts", "words"),
    [("", "left no results"), ("null null", "left no results"), ("9 99000000", "not looked at")],
)
def test_without_an_archive_that_can_be_read_the_comment_says_so(
    artifacts: str, words: str, github: Path
) -> None:
    (github / "artifacts").write_text(artifacts)
    assert after().returncode == 0
    posted = (github / "posted").read_text()
    assert "no verdict" in posted and words in posted
    assert "/zip" not in (github / "asked").read_text()


HOSTILE = {
    "not an archive": lambda folder: (folder / "archive").write_bytes(b"PK\x03\x04 damaged"),
    "empty": lambda folder: (folder / "archive").write_bytes(b""),
    "no verdict": lambda folder: archive(folder, b"x", "comment.md"),
    "two verdicts": lambda folder: archive(folder, verdict(), "verdict.json", "a/verdict.json"),
    "no JSON": lambda folder: archive(folder, b"<script>"),
    "green although a finding is red": lambda folder: archive(folder, verdict(verdict="pass")),
    "a bomb": lambda folder: archive(folder, b"[" + b" " * (33 << 20) + b"]"),
    "another schema": lambda folder: archive(folder, verdict(schema=99)),
    "deep": lambda folder: archive(folder, b"[" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_no_verdict(name: str, github: Path) -> None:
    HOSTILE[name](github)
    done = after()
    assert done.returncode == 0, done.stderr
    posted = (github / "posted").read_text()
    assert "no verdict that can be read" in posted and "pass" not in posted
    assert sorted(path.name for path in Path("hotlap-out").iterdir()) == ["comment.md"]


def test_nothing_of_an_archive_is_written_where_it_says(github: Path) -> None:
    archive(github, verdict(), "../../verdict.json", **{"../../planted": b"x", "comment.md": b"### pass"})
    assert after().returncode == 0
    assert "regression" in (github / "posted").read_text()
    assert not [path for path in github.parent.rglob("*") if path.name in ("planted", "verdict.json")]


def test_words_of_an_archive_are_words(github: Path) -> None:
    """HTML, links, mentions, commands of the log, and the marker that finds the earlier comment."""
    case = "<img src=x onerror=y> [link](http://x) ::error::planted\n::set-output name=a::b <!-- hotlap -->"
    finding = {"case": case, "metric": "latency", "verdict": "regression", "evidence": ["\x1b]52;c;x\x07"]}
    archive(github, verdict(findings=[finding], reasons=[case]))
    done = after()
    assert done.returncode == 0, done.stderr
    posted = (github / "posted").read_text()
    assert "<img" not in posted and "[link](http" not in posted and "\x1b" not in posted
    assert posted.count("<!--") == 1
    assert not [row for row in (done.stdout + done.stderr).splitlines() if row.startswith("::")]


@pytest.mark.parametrize(
    "arguments", [(), ("after",), ("after", "5; x"), ("post", "x", "file"), ("post", "1")]
)
def test_mistakes(arguments: tuple[str, ...], github: Path) -> None:
    done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("comment.sh: ")


def test_a_verdict_is_read_without_what_measuring_needs(tmp_path: Path) -> None:
    """The commenting workflow installs three small packages, not torch."""
    (tmp_path / "verdict.json").write_bytes(verdict())
    heavy = (
        "torch",
        "numpy",
        "scipy",
        "psutil",
        "lightning",
        "onnx",
        "onnxruntime",
        "pynvml",
        "jinja2",
        "pytest",
    )
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy})); from hotlap.perf import cli; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "verdict", "verdict.json", "--markdown", "comment.md"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "### hotlap ab: regression" in (tmp_path / "comment.md").read_text()


@pytest.mark.parametrize(("outcome", "status"), [("pass", 0), ("regression", 1), ("inconclusive", 3)])
def test_the_command_ends_as_the_one_that_wrote_it(
    outcome: Any, status: int, tmp_path: Path, capsys: Any
) -> None:
    import msgspec

    file = tmp_path / "v.json"
    file.write_bytes(msgspec.json.encode(Verdict("gate", outcome, (), (Finding("a", "latency", outcome),))))
    assert cli.status(["verdict", str(file), "--json", str(tmp_path / "again.json")]) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith("gate: ")
    assert read_verdict(tmp_path / "again.json") == read_verdict(file)
    assert cli.status(["verdict", str(tmp_path / "absent.json")]) == 2
    file.write_text("{}")
    with pytest.raises(Unreadable):
        read_verdict(file)


@pytest.mark.parametrize("tool", ["x\n# Approved by security", "t::x ::error::evil", "\x1b[2J", "", "A" * 40])
def test_who_judged_is_a_command_and_nothing_else(tool: str, github: Path) -> None:
    """It stands in a heading, in a log's command and in XML."""
    archive(github, verdict(tool=tool))
    assert after().returncode == 0
    assert "no verdict that can be read" in (github / "posted").read_text()


def test_a_figure_near_the_largest_is_written(github: Path) -> None:
    finding = {"case": "a", "metric": "latency", "verdict": "regression", "base": 1.797693e308, "unit": "s"}
    archive(github, verdict(findings=[finding]))
    assert after().returncode == 0
    assert "regression" in (github / "posted").read_text()
