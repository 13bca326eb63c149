"""What tests in several folders need: the planted back ends on the path of this process and of
every worker.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest_plugins = ["pytester"]
HERE = Path(__file__).parent
PLANTED = HERE / "perf" / "planted"
# Files, or tests of a file, that take over 20 s on two quiet cores: they start real workers, C++
# compilers and Triton's interpreter. `pytest -m "not slow"` leaves them out.
SLOW = (
    "kernels/test_interpreted.py",
    "kernels/test_liger.py",
    "kernels/test_ops.py",
    "perf/artefacts/test_opening.py",
    "perf/backends/test_compile.py",
    "perf/backends/test_int8.py",
    "perf/backends/test_onnxruntime.py",
    "perf/backends/test_openvino.py",
    "perf/backends/test_package.py",
    "perf/backends/test_tensorrt.py",
    "perf/backends/test_triton.py",
    "perf/backends/test_verify.py",
    "perf/commands/test_pytest_plugin.py",
    "perf/commands/test_run.py",
    "perf/gate/test_ab.py::test_a_revision_that_cannot_be_loaded_is_a_regression",
    "perf/gate/test_ab.py::test_a_slower_revision_is_a_confirmed_regression_and_names_its_cause",
    "perf/gate/test_ab.py::test_a_tenth_more_memory_is_a_confirmed_regression",
    "perf/gate/test_ab.py::test_code_from_the_working_copy_is_refused",
    "perf/gate/test_ab.py::test_revisions_that_load_the_same_files_are_refused",
    "perf/gate/test_ab.py::test_two_installed_environments",
    "perf/gate/test_ab.py::test_what_the_compiler_lost_is_a_regression_before_anything_is_timed",
    "perf/history/test_culprit.py::test_a_slower_commit_is_found_by_measuring",
    "perf/race/test_race.py",
    "profiles/recording/test_capture.py",
    "test_ci_kit.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is slow, before -m looks at the marks."""
    for item in items:
        name = f"{item.path.relative_to(HERE).as_posix()}::{item.name}" if HERE in item.path.parents else ""
        if name.startswith(SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def workers_save_their_coverage() -> Iterator[None]:
    """Under `coverage run` a worker is asked to end (coverage saves at SIGTERM) before it is
    killed; otherwise nothing is changed.
    """
    if "coverage" not in sys.modules:
        yield
        return
    from hotlap.perf.race.handle import Worker

    at_once = Worker.kill

    def kill(worker: Worker) -> int | None:
        if not worker.gone:
            worker.go()
            worker._signal(signal.SIGTERM)
            with contextlib.suppress(psutil.Error):
                psutil.wait_procs([psutil.Process(worker.pid)], timeout=3)
        return at_once(worker)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "kill", kill)
        yield


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed distribution whose entry point names the package `planted`.

    Returns the working directory, which is empty.
    """
    site, here = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("here")
    information = site / "planted-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[hotlap.backends]\nplanted = planted.backends\n")
    (site / "planted").symlink_to(PLANTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
        patch.delenv("HOTLAP_RUNS", raising=False)
        patch.chdir(here)
        yield here
    for name in [name for name in sys.modules if name.partition(".")[0] == "planted"]:
        del sys.modules[name]
