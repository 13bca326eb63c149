"""A stand-in NVML (rung L6), compiled here and loaded in child processes only.

No figure of these tests is of a real device.

A function that nvidia-ml-py asks for and the stand-in has not ends the child, so a new version of
one cannot pass as an old driver.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .scenarios import NORMAL, Ask

SOURCE = Path(__file__).with_name("standin.c")
COMPILER = shutil.which("gcc") or shutil.which("cc")
PREAMBLE = """
import json, os, sys, time
import msgspec, pynvml
from hotlap.perf.machine import cuda_devices, telemetry
from hotlap.perf.terms.reasons import Refusal

ask = pynvml._nvmlGetFunctionPointer
def loud(name):
    try:
        return ask(name)
    except pynvml.NVMLError as error:
        absent = error.value == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
        if absent and name not in os.environ["HOTLAP_MISSING"].split():
            sys.stderr.write(f"the stand-in has no {name}\\n")
            sys.stderr.flush()
            os._exit(9)
        raise
pynvml._nvmlGetFunctionPointer = loud

def scenario(**changes):
    path = os.environ["HOTLAP_STANDIN_NVML"]
    lines = [f"{name} {value}" for name, value in changes.items()]
    with open(path + ".new", "w") as file:  # the first line of a name counts
        file.write("\\n".join(lines + [open(path).read()]))
    os.replace(path + ".new", path)

def reply(value):
    print(json.dumps(msgspec.to_builtins(value)))

def refused(call):
    try:
        return {"answered": msgspec.to_builtins(call())}
    except Refusal as refusal:
        return msgspec.to_builtins(refusal.reason)
"""


def build(folder: Path, *flags: str) -> Path:
    folder.mkdir(exist_ok=True)
    subprocess.run(
        [
            str(COMPILER),
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-shared",
            "-fPIC",
            *flags,
            str(SOURCE),
            "-o",
            str(folder / "libnvidia-ml.so.1"),
        ],
        check=True,
    )
    return folder


@pytest.fixture(scope="package")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of the library by kind of driver."""
    if COMPILER is None:
        pytest.skip("no C compiler (gcc or cc) to build the stand-in NVML with")
    top = tmp_path_factory.mktemp("nvml")
    return {"new": build(top / "new"), "old": build(top / "old", "-DOLD_DRIVER")}


@pytest.fixture(scope="package")
def child_of(drivers: dict[str, Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a child whose scenario lies in the folder."""

    def run(
        folder: Path,
        code: str,
        scenario: Mapping[str, Any] = NORMAL,
        driver: str = "new",
        missing: str = "",
        check: bool = True,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        file = folder / "scenario.txt"
        file.write_text("".join(f"{name} {value}\n" for name, value in scenario.items()))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
        variables = {
            **inherited,
            "LD_LIBRARY_PATH": str(drivers[driver]),
            "HOTLAP_STANDIN_NVML": str(file),
            "HOTLAP_MISSING": missing,
            **environment,
        }
        done = subprocess.run(
            [sys.executable, "-c", PREAMBLE + code],
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    return run


@pytest.fixture
def child(
    child_of: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    return partial(child_of, tmp_path)


@pytest.fixture
def ask(child: Callable[..., subprocess.CompletedProcess[str]]) -> Ask:
    """What a child prints as JSON."""
    return lambda *arguments, **named: json.loads(child(*arguments, **named).stdout)
