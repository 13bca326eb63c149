"""README's section on a model of one's own, word for word, in a fresh environment.

    python -m bench.own_model 2.11           with this torch, without extras
    python -m bench.own_model dev            with README's own install command
    python -m bench.own_model --in FOLDER    an environment that there is
    python -m bench.own_model --table docs/results/own_model.json

--json names a file for what was seen, to which it is added.

Every line of the section's block is run as it stands, in a folder that holds what its names stand
for: a package with a model and a LightningModule's checkpoint, an ONNX file, results. Exit: 0 all
ended as they should, 1 one did not, 2 the environment could not be installed.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.versions import ROOT, Broken, Environment, Uninstalled, install

HEADING = "## Use it on your own model"
MODELS = """
import lightning
import torch


class MyModule(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, stride=4), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        )
        self.head = torch.nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


class Net(lightning.LightningModule):
    def __init__(self, hidden=32):
        super().__init__()
        self.save_hyperparameters()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
        )
        self.example_input_array = torch.randn(4, 64)

    def forward(self, x):
        return self.layers(x)

    def training_step(self, batch, index):
        return self.layers(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


"""
# Writes what the block's names stand for.
READY = """
import lightning
import torch
from my_package.models import Net, make

data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(64, 64)), batch_size=16)
trainer = lightning.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
trainer.fit(Net(), data)
trainer.save_checkpoint("last.ckpt")
module, example = make()
torch.onnx.export(module.eval(), (example,), "model.onnx", dynamo=True, verbose=False)
"""
# How hotlap history ends where there are fewer runs than a change of level needs.
COULD_NOT_TELL = 3


def section() -> tuple[list[str], str]:
    """Returns the commands of README's section, without their comments, and its Python."""
    text = (ROOT / "README.md").read_text().partition(HEADING)[2].partition("\n## ")[0]
    blocks = re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)
    commands = [line.partition("  #")[0].strip() for line in blocks[0][1].splitlines() if line.strip()]
    (python,) = [body for language, body in blocks if language == "python"]
    return commands, python


def followed(there: Environment) -> dict[str, dict[str, Any]]:
    """Returns for each command whether it ended as it should, its last line and its seconds."""
    commands, python = section()
    package = there.work / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(MODELS + python)
    (there.work / "ready.py").write_text(READY)
    there.run(str(there.python), "ready.py")
    seen: dict[str, dict[str, Any]] = {}
    for command in commands:
        start = time.perf_counter()
        try:
            status = (0, COULD_NOT_TELL) if command.startswith("hotlap history") else (0,)
            printed, passed = there.hotlap(*words(command, there), status=status), True
        except Broken as broken:
            printed, passed = str(broken), False
        lines = [line for line in printed.splitlines() if line.strip()]
        answer = next((line for line in lines if "times as fast as" in line), lines[-1] if lines else "")
        line = answer.strip().replace(f"{there.work}/", "")
        seen[command] = {"passed": passed, "seen": line, "seconds": round(time.perf_counter() - start, 1)}
        print(
            f"  {'passed' if passed else 'FAILED'}  {command} ({seen[command]['seconds']} s): {line}",
            flush=True,
        )
        if not passed:
            print(printed, flush=True)
    return seen


def words(command: str, there: Environment) -> list[str]:
    """Returns a command's words behind `hotlap`, with the folders that its names stand for."""
    runs = there.work / "runs"
    if "results/" in command:
        (there.work / "results").mkdir(exist_ok=True)
        for number, file in enumerate(sorted(runs.glob("race/*/results.json"))):
            shutil.copy(file, there.work / "results" / f"{number}.json")
    artefact = next(iter(sorted(runs.glob("choose/*/artefact"))), runs)
    return [str(artefact) if word == "DIR" else word for word in shlex.split(command)[1:]]


def tried(name: str, existing: Path | None) -> dict[str, Any]:
    """Returns what was seen of one environment, which is removed again unless it was there."""
    with tempfile.TemporaryDirectory(prefix="hotlap-own-model-") as folder:
        environment, work = Path(folder) / "environment", Path(folder) / "work"
        work.mkdir()
        if existing is None:
            requirements, extras = ([], "[dev]") if name == "dev" else ([f"torch=={name}.*"], "")
            install(sys.executable, environment, requirements, extras)
        there = Environment((existing or environment) / "bin" / "python", work)
        versions = there.versions()
        print(
            f"{name}: {', '.join(f'{package} {version}' for package, version in versions.items())}",
            flush=True,
        )
        return {"versions": versions, "commands": followed(there)}


def table(file: Path) -> str:
    """Returns what was seen as a table in Markdown."""
    everything = json.loads(file.read_bytes())
    lines = ["| environment | command | ended well | seconds |", "|---|---|---|---|"]
    for name, seen in everything.items():
        for command, step in seen["commands"].items():
            label = f"torch {seen['versions']['torch']}" + (", [dev]" if name == "dev" else "")
            well = "yes" if step["passed"] else "no"
            lines.append(f"| {label} | `{command}` | {well} | {step['seconds']:.0f} |")
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="TORCH", help="a minor version, or dev")
    parser.add_argument("--in", dest="existing", type=Path, metavar="FOLDER")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args(words)
    if arguments.table:
        print(table(arguments.table))
        return 0
    everything = json.loads(arguments.json.read_bytes()) if arguments.json and arguments.json.exists() else {}
    status = 0
    for name in arguments.names or ["dev"]:
        existing = arguments.existing.absolute() if arguments.existing else None
        try:
            everything[name] = tried(name, existing)
        except Uninstalled as lacking:
            print(f"{name}: not installed: {lacking}")
            status = 2
            continue
        if not all(step["passed"] for step in everything[name]["commands"].values()):
            status = status or 1
        if arguments.json:
            arguments.json.write_text(json.dumps(everything, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
