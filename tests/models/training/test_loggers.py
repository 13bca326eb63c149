"""Loggers that the settings name: a server of MLflow, and one that goes down."""

from __future__ import annotations

import csv
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hotlap.models.training import loggers

Tiny = Callable[..., Any]
SERVER = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("flask") is None,
    reason="no server of MLflow is installed: pip install mlflow",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server's address and its process."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    store = ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.sqlite'}", "--workers", "1"]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *store], stdout=log, stderr=log, cwd=tmp_path, start_new_session=True
        )
    try:
        while not answers(address):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.2)
        yield address, process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1):
            return True
    except (urllib.error.URLError, OSError):
        return False


def logger(address: str) -> str:
    arguments = f"{{tracking_uri: '{address}', experiment_name: tried}}"
    return f"trainer.logger={{class_path: MLFlowLogger, init_args: {arguments}}}"


def logged(run: Any) -> list[str]:
    """The steps of the losses in the run's CSV file."""
    (path,) = (run.folder / "logs" / "csv").glob("*/metrics.csv")
    return [row["step"] for row in csv.DictReader(path.read_text().splitlines()) if row["loss"]]


@SERVER
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_figures_reach_the_server_until_it_goes_down(server: tuple[str, Any], tiny: Tiny) -> None:
    from mlflow.tracking import MlflowClient

    address, process = server
    run, lines, _ = tiny(logger(address))
    assert len(lines) == 2 and len(logged(run)) == 16
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("tried")
    (kept,) = client.search_runs([experiment.experiment_id])
    assert [each.step for each in client.get_metric_history(kept.info.run_id, "loss")] == [*range(16)]
    assert kept.data.params["width"] == "8" and kept.info.status == "FINISHED"

    log_metrics, begun = loggers.Forgiven.tried, []

    def tried(self: loggers.Forgiven, method: Callable[..., Any]) -> Callable[..., None]:
        call = log_metrics(self, method)

        def then(*inputs: Any, **named: Any) -> None:
            begun.append(method.__name__)
            if begun.count("log_metrics") == 5 and process.poll() is None:
                stop(process)
            call(*inputs, **named)

        return then

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loggers.Forgiven, "tried", tried)
        before = time.monotonic()
        run, lines, _ = tiny(logger(address))
        took_s = time.monotonic() - before
    (line,) = [line for line in lines if "MLFlowLogger fails" in line]
    assert "training goes on" in line and "\n" not in line
    assert len(lines) == 3 and len(logged(run)) == 16 and took_s < 30
    # Nobody is there from the start.
    run, (line, *_), _ = tiny(logger(address))
    assert "MLFlowLogger fails and is left out of this session; training goes on" in line
    assert len(logged(run)) == 16


def test_a_logger_that_fails_costs_no_training(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """The defect planted: one that always raises, beside which all else goes on."""
    (Path.cwd() / "tiny_logger.py").write_text(
        "from lightning.pytorch.loggers import CSVLogger\n\n\n"
        "class Broken(CSVLogger):\n"
        "    calls = 0\n\n"
        "    def log_metrics(self, metrics, step=None):\n"
        "        Broken.calls += 1\n"
        "        raise ConnectionError('nobody answers\\nat all')\n"
    )
    broken = "trainer.logger={class_path: tiny_logger.Broken, init_args: {save_dir: theirs}}"
    run, lines, _ = tiny(broken)
    (line,) = [line for line in lines if "Broken fails" in line]
    assert line.endswith("ConnectionError: nobody answers") and len(lines) == 3
    assert len(logged(run)) == 16
    assert sys.modules.pop("tiny_logger").Broken.calls == 1  # the others fall into the pause
    monkeypatch.setattr(loggers, "PAUSE_S", 0.0)
    assert len(tiny(broken)[1]) == 3  # though it is tried each time
    assert sys.modules.pop("tiny_logger").Broken.calls > 16


def test_without_a_logger_there_is_none(tiny: Tiny) -> None:
    run, _, _ = tiny("trainer.logger=false")
    assert not (run.folder / "logs").exists()
