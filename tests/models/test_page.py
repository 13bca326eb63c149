"""The page of runs, in a real browser, and what is not on it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hotlap.models import records, runs
from hotlap.models.page import page
from hotlap.models.promotion import PROMOTED
from hotlap.perf import cli
from tests.browser import browsed

HOSTILE = "</title><script>document.title='owned'</script><img src=x onerror=alert(1)>"


def stored(name: str, metric: str = "accuracy", setting: str = "1", **more: object) -> Path:
    """Writes a finished run, with all that a training leaves of which the page tells."""
    folder = runs.create(runs.Settings(name, 0, 2))
    scores = {"validation": {metric: 0.75}, "test": {metric: 0.4375}, "seconds": 3.0, **more}
    (folder / runs.METRICS).write_text(json.dumps(scores))
    (folder / runs.CONFIGURATION).write_text(json.dumps({"model": {"width": setting}}))
    (folder / runs.ENVIRONMENT).write_text(json.dumps({"cpu": setting, "libraries": {"torch": "2"}}))
    report = {
        "schema": 1,
        "split": "validation",
        "confusion": [[3, 1], [0, 4]],
        "precision": [1.0, 0.8],
        "recall": [0.75, 1.0],
        "f1": [0.8571, 0.8889],
        "bins": [{"low": 0.5, "high": 1.0, "samples": 8, "confidence": 0.8, "accuracy": 0.875}],
    }
    for split in ("validation", "test"):
        (folder / f"evaluation_{split}.json").write_text(json.dumps(report))
    log = folder / "logs" / "csv" / "1" / "metrics.csv"
    log.parent.mkdir(parents=True)
    log.write_text(
        f'step,"{metric}","val_{metric}","test_{metric}"\n1,9,0.5,\n2,5,0.75,\n3,,0.75,\n3,,,0.4375\n'
    )
    return folder


def test_names_settings_and_metrics_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE.replace("/", "")
    first, second = (stored(f"net:{name}", HOSTILE, HOSTILE + str(number)) for number in range(2))
    out, both = tmp_path / "page.html", tmp_path / "both.html"
    assert cli.status(["runs", "show", first.name, "--html", str(out)]) == 0
    assert cli.status(["runs", "compare", first.name, second.name, "--html", str(both)]) == 0
    assert "validation" in capsys.readouterr().out
    for path in (out, both):
        text = path.read_text()
        assert "<script" not in text and "onerror=alert(1)>" not in text
        assert text.count("<img") == text.count("<source") and text.count("&lt;script&gt;") >= 4
        addresses = re.findall(r'(?:src|srcset|href)="([^"]*)"', text)
        assert addresses and all(address.startswith("data:") for address in addresses)
    seen, complaints = browsed(both, tmp_path)
    assert "<title>hotlap runs: 2 runs</title>" in seen and seen.count("<picture>") == 1
    assert "CONSOLE" not in complaints


def test_the_test_split_is_on_the_page_of_a_promoted_run_alone() -> None:
    folder = stored("mlp")
    other = stored("mlp", setting="2")
    text = page([records.read(folder)])
    assert "0.75" in text and "0.4375" not in text and "test" not in text
    (folder / PROMOTED).write_text(json.dumps({"by": "NAME <a@b>"}))
    text = page([records.read(folder)])
    assert "test split" in text and "0.4375" in text and "NAME &lt;a@b&gt;" in text
    assert "0.4375" not in page([records.read(folder), records.read(other)])


def test_a_page_says_what_a_run_is() -> None:
    folder = stored("mlp")
    text = page([records.read(folder)])
    assert f"<h1>{folder.name}</h1>" in text and "2 classes on the validation split" in text
    assert (
        text.count("<picture>") == 3 and "<code>model.width</code>" in text and "<code>torch</code>" in text
    )
    (folder / runs.METRICS).unlink()
    assert "what it logged last" in page([records.read(folder)])
    bare = runs.create(runs.Settings("mlp", 0, 1))
    text = page([records.read(bare)])
    assert "None yet." in text and "Nothing was logged to CSV." in text and "<picture>" not in text
    both = page([records.read(folder), records.read(bare)])
    assert "Settings that differ" in both and "All the same." not in both


def test_a_page_on_stdout_comes_alone_and_a_picture_is_a_png(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder, other = stored("mlp"), stored("mlp")
    for words in (("show", folder.name), ("compare", folder.name, other.name)):
        assert cli.status(["runs", *words, "--html", "-"]) == 0
        printed = capsysbinary.readouterr().out
        assert printed.startswith(b"<!doctype html>") and printed.endswith(b"</html>")
        file = tmp_path / "curves.png"
        assert cli.status(["runs", *words, "--curves", str(file)]) == 0
        assert (
            file.read_bytes().startswith(b"\x89PNG") and folder.name.encode() in capsysbinary.readouterr().out
        )


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stored("mlp")
    bare = runs.create(runs.Settings("mlp", 0, 1))
    for words, status, message in (
        (("list", "--html", "x.html"), 2, "--html goes with hotlap runs show and compare, not with list"),
        (("prune", "--sort", "accuracy"), 2, "--sort goes with hotlap runs list, not with prune"),
        (("show", folder.name, "--curves", "x.svg"), 2, "name a file .png"),
        (("show", folder.name, "--curves", "-"), 2, "name a file .png"),
        (("show", bare.name, "--curves", str(tmp_path / "x.png")), 2, "nothing to draw"),
        (("show", folder.name, "--curves", str(tmp_path / "no" / "x.png")), 2, "cannot write"),
    ):
        assert cli.status(["runs", *words]) == status
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    (folder / "evaluation_validation.json").write_text("{}")
    assert cli.status(["runs", "show", folder.name, "--html", str(tmp_path / "x.html")]) == 4
    assert "not an evaluation of a classifier" in capsys.readouterr().err
