"""`hotlap upgrade` with a small package in several versions, installed by the real pip from wheels
that are written here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf import cli
from hotlap.perf.gate import overlay
from hotlap.perf.terms.reasons import Misuse, Refusal

LAYERS = """import torch

def activation(x, weight):
    {body}
"""
BODIES = {
    "1.0": "return torch.relu(x @ weight)",
    "1.1": "return torch.relu(x @ weight) + 0 * torch.tanh(x @ weight)",
    "2.0": "return torch.relu(x @ weight) + 0.5",
}
WORKLOAD = """import torch
import hotlap_lap_layers as layers

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weights = torch.nn.ParameterList(torch.randn(128, 128) / 12 for _ in range(8))

    def forward(self, x):
        for weight in self.weights:
            x = layers.activation(x, weight)
        return x

def make():
    return Net(), torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
"""


def wheel(folder: Path, name: str, version: str, files: dict[str, str], *requires: str) -> None:
    """Writes a wheel, as https://packaging.python.org/specifications/binary-distribution-format."""
    information = f"{name}-{version}.dist-info"
    lines = "".join(f"Requires-Dist: {each}\n" for each in requires)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}"
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = {**files, f"{information}/METADATA": metadata, f"{information}/WHEEL": tag}
    record = ""
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    record += f"{information}/RECORD,,\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        for path, text in {**content, f"{information}/RECORD": record}.items():
            file.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place where pip looks, and an empty working directory."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for version, body in BODIES.items():
        text = LAYERS.format(body=body)
        wheel(folder, "hotlap_lap_layers", version, {"hotlap_lap_layers.py": text})
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("HOTLAP_RUNS", raising=False)
    return folder


def test_what_is_written_is_every_combination() -> None:
    combinations = overlay.upgrades(["torch==2.13,2.14.1", "onnxruntime==1.30"])
    assert [each.name for each in combinations] == [
        "torch 2.13, onnxruntime 1.30",
        "torch 2.14.1, onnxruntime 1.30",
    ]
    assert combinations[0].requirements == ["torch==2.13.*", "onnxruntime==1.30.*"]
    assert combinations[1].requirements == ["torch==2.14.1", "onnxruntime==1.30.*"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mlp",), "name packages with versions, and a workload"),
        (("torch==2.13",), "name packages with versions, and a workload"),
        (("torch==", "mlp"), "names no versions"),
        (("torch==2.13", "torch==2.14", "mlp"), "named twice"),
        (("--extra-index-url=http://x==1", "mlp"), "No such option"),
        (("a==" + ",".join(map(str, range(1, 30))), "mlp"), "24 are the most"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], words: str, capsys: Any) -> None:
    assert cli.status(["upgrade", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_an_environment_has_the_versions_and_all_else_of_this_one(wheels: Path, tmp_path: Path) -> None:
    wheel(wheels, "hotlap_lap_user", "1.0", {"hotlap_lap_user.py": ""}, "hotlap_lap_layers<2")
    (upgrade,) = overlay.upgrades(["hotlap_lap_layers==1.1"])
    lines: list[str] = []
    python, conflicts = overlay.overlay(upgrade, tmp_path / "kept", lines.append)
    assert conflicts == [] and lines == ["hotlap_lap_layers 1.1: installing"]
    seen = overlay.ran(
        str(python), "-c", "import hotlap_lap_layers, torch, sys; print(torch.__file__, sys.prefix)"
    )
    assert str(tmp_path / "kept") not in seen.split()[0] and str(tmp_path / "kept") in seen.split()[1]
    assert overlay.overlay(upgrade, tmp_path / "kept", lines.append)[0] == python and len(lines) == 1
    with pytest.raises(Refusal, match="No matching distribution found for hotlap_lap_layers==9"):
        overlay.overlay(overlay.upgrades(["hotlap_lap_layers==9"])[0], tmp_path / "kept", lines.append)
    # One that was not finished is made anew.
    (python.parents[1] / overlay.MARK).unlink()
    overlay.overlay(upgrade, tmp_path / "kept", lines.append)
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (
            "torchvision 0.29.1 requires torch>=2.14.0, but you have torch 2.13.0+cpu which is incompatible.",
            "torchvision",
        ),
        ("torchvision 0.29.1 has requirement torch==2.14.1, but you have torch 2.13.0.", "torchvision"),
        ("No broken requirements found.", ""),
    ],
)  # fmt: skip
def test_pips_words_on_what_does_not_go_together(line: str, name: str) -> None:
    match = overlay.CONFLICT.search(f"before\n{line}\nafter")
    assert (match["name"] if match else "") == name


def test_pips_words_on_why_there_is_no_environment() -> None:
    conflict = (
        "ERROR: Cannot install\n\nThe conflict is caused by:\n    The user requested a==1\n"
        "    b 2 depends on a>1\n"
    )
    assert overlay.why(conflict) == "in conflict: The user requested a==1; b 2 depends on a>1"
    last = "ERROR: No matching distribution\nERROR: ResolutionImpossible: for help visit https://x\n"
    assert overlay.why(last) == "ERROR: No matching distribution"
    assert overlay.why("") == "no message"


@pytest.mark.slow
def test_a_wrong_version_and_one_that_there_is_not(wheels: Path, capsys: Any) -> None:
    """None of them is installed here, where 1.0 stands beside the workload; the working directory
    goes behind what an environment holds.
    """
    Path("hotlap_lap_layers.py").write_text(LAYERS.format(body=BODIES["1.0"]))
    Path("lap_workload.py").write_text("import sys\nsys.path.append(sys.path.pop(0))\n" + WORKLOAD)
    packages, options = (
        "hotlap_lap_layers==2.0,9.0",
        ["--threads", "1", "--budget", "30s", "--target", "cpu"],
    )
    status = cli.status(["upgrade", packages, "lap_workload:make", *options, "--json", "verdict.json"])
    printed = capsys.readouterr().out
    assert status == 1, printed
    findings = json.loads(Path("verdict.json").read_text())["findings"]
    worse = {
        (each["case"].rpartition(" ")[2], each["metric"])
        for each in findings
        if each["verdict"] == "regression"
    }
    assert ("2.0", "outputs") in worse
    lines = printed.splitlines()
    assert lines[0] == "with hotlap_lap_layers 2.0"
    after = lines[lines.index("with hotlap_lap_layers 2.0") + 1]
    assert "regression" in after and "outputs differ" in after
    assert any("No matching distribution" in line for line in lines)


def test_versions_as_pip_knows_them() -> None:
    (local,) = overlay.upgrades(["torch==2.13+cu118"])
    assert local.requirements == ["torch==2.13+cu118"]
    assert len(overlay.upgrades(["torch==2.13,2.13"])) == 1
    with pytest.raises(Misuse, match="named twice"):
        overlay.upgrades(["onnxruntime_gpu==1.30", "onnxruntime-gpu==1.31"])
    with pytest.raises(Misuse, match="names no versions"):
        overlay.upgrades(["torch==,"])
