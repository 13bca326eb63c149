"""The folder that a choice leaves: the artefact, and beside it what is a property of the process
and not of the file: environment, threads, allocator. Its manifest lists all of it, so that
hotlap.open_artefact opens the folder as any other artefact.

run.sh sets the environment and starts predict.py or the command that follows; predict.py is a
program without hotlap; requirements.txt has the packages that it imports, in the versions that were
measured; Containerfile puts all in a container.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec

from ..artefacts import manifest as manifests
from ..artefacts.manifest import FILE, Manifest
from ..lookup import plugins
from ..measure.prepare import ALLOCATORS
from ..terms import files
from ..terms.case import Case
from ..terms.contract import modules
from ..terms.reasons import Misuse
from ..terms.result import Result

RUN = """\
#!/bin/sh
# Starts predict.py, or the command that follows, with the settings that the model was measured with.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
{exports}[ $# -gt 0 ] || set -- python3 "$here/predict.py"
exec "$@"
"""
PREDICT = '''\
"""Runs the model on the inputs of reference.npz, or of the npz file that is named: in0, in1, ..."""

import json
import os
import sys
from pathlib import Path

import numpy
{imports}
folder = Path(__file__).resolve().parent
launch = json.loads((folder / "launch.json").read_bytes())
cpus = sorted(os.sched_getaffinity(0))[: launch["threads"]] if launch["bind"] else []
cpus = cpus if len(cpus) == launch["threads"] else []

{script}

if __name__ == "__main__":
    named = sys.argv[1:2]
    if not named and not (folder / "reference.npz").exists():
        sys.exit("name an npz file with the arrays in0, in1, ...")
    inputs = json.loads((folder / "manifest.json").read_bytes())["inputs"]
    with numpy.load(named[0] if named else folder / "reference.npz", allow_pickle=False) as stored:
        arrays = [stored[f"in{{index}}"] for index in range(len(inputs))]
    if not named:  # the reference holds several batches
        arrays = [array[0] for array in arrays]
    outputs = predict(*(array.astype(port["dtype"]) for array, port in zip(arrays, inputs)))
    for index, output in enumerate(outputs):
        print(f"output {{index}}: {{output.dtype}}{{list(output.shape)}}, mean {{output.mean():.6g}}")
'''
CONTAINER = """\
FROM docker.io/library/python:{python}-slim
COPY . /model
RUN pip install --no-cache-dir -r /model/requirements.txt
ENTRYPOINT ["/model/run.sh"]
"""
# Import name -> names of the packages that may bring it, in the order of preference.
PACKAGES = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime")}


def ship(source: Path, target: Path, result: Result) -> Manifest:
    """Copies an artefact into a folder that is new or empty or an earlier choice's, and writes the
    launcher beside it. Raises Misuse, OSError.
    """
    cleared(target)
    manifest = manifests.read(source)
    for file in manifest.files:
        place = target / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / file.path, place)
    case = manifest.parsed()
    threads = case.threads(result.plan.threads)
    for name, content in launcher(case, threads, manifest).items():
        files.write(target / name, content.encode())
    (target / "run.sh").chmod(0o755)
    shipped = msgspec.structs.replace(manifest, files=manifests.files(target))
    files.write(target / FILE, manifests.encode(shipped))
    return shipped


def suitable(target: Path) -> None:
    """Makes the folder. Raises Misuse where it cannot be written to or holds anything but what an
    earlier choice left.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        inside = any(target.iterdir())
    except OSError as error:
        raise Misuse(f"cannot write to {target}: {error.strerror}; choose another -o") from None
    if target.is_symlink():
        raise Misuse(f"{target} is a symbolic link; choose another -o")
    if inside and not (target / FILE).is_file():
        raise Misuse(f"{target} holds other files and no artefact; choose another -o")


def cleared(target: Path) -> None:
    """Empties a suitable folder. Raises Misuse, OSError."""
    suitable(target)
    for path in target.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def launcher(case: Case, threads: int, manifest: Manifest) -> dict[str, str]:
    """Returns the files of the launcher, by name."""
    backend: Any = plugins.backend(case.backend)
    environment = {**ALLOCATORS[case.option("allocator", "keep")], **backend.variables(case, threads)}
    if "OMP_PLACES" in environment:
        environment["OMP_PLACES"] = "cores"  # those of the machine that runs it, not of this one
    own = backend.launched(case) if hasattr(backend, "launched") else {}
    launch = {
        "environment": environment,
        "threads": threads,
        "bind": case.option("binding", "cores") == "cores",
        "batch": case.batch if any("0" in tensor.dynamic for tensor in manifest.inputs) else 0,
        **own,
    }
    exports = "".join(f"export {name}={quoted(value)}\n" for name, value in environment.items())
    names = [name for name in modules(backend, case) if not name.startswith("hotlap")]
    texts = {
        "launch.json": json.dumps(launch, indent=1) + "\n",
        "run.sh": RUN.format(exports=exports),
        "requirements.txt": requirements(case, names, manifest),
        "Containerfile": CONTAINER.format(python=".".join(manifest.python.split(".")[:2])),
    }
    if hasattr(backend, "SCRIPT"):
        imports = "".join(f"import {name}\n" for name in imported(case, names))
        texts["predict.py"] = PREDICT.format(imports=imports, script=backend.SCRIPT.strip())
    return texts


def imported(case: Case, names: list[str]) -> list[str]:
    """Returns what SCRIPT needs besides numpy: the modules that a worker imports, and the library
    where its load does.
    """
    libraries = [case.backend] if case.backend == "openvino" else []
    return [name for name in dict.fromkeys([*names, *libraries]) if name != "numpy"]


def requirements(case: Case, names: list[str], manifest: Manifest) -> str:
    """Returns the packages that loading needs, in the versions that were measured."""
    lines = []
    for name in ["numpy", *imported(case, names)]:
        for package in PACKAGES.get(name, (name,)):
            if package in manifest.libraries:
                version = re.sub(r"\+.*", "", manifest.libraries[package])
                lines.append(f"{package}=={version}")
                break
    return "\n".join(dict.fromkeys(lines)) + "\n"


def quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
