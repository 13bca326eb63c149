"""Artefacts: what a build leaves says what it is, runs without its source, and is refused with one
line when it is not what was built.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hotlap.perf import cli
from hotlap.perf.artefacts import manifest, opening, signature, writing
from hotlap.perf.artefacts.manifest import Manifest
from hotlap.perf.artefacts.opening import open_artefact
from hotlap.perf.lookup import plugins
from hotlap.perf.lookup.cases import expand
from hotlap.perf.machine import cpu, survey
from hotlap.perf.measure import artefact, rundir
from hotlap.perf.measure.journal import Progress
from hotlap.perf.measure.measure import measure
from hotlap.perf.race.entrant import Entrant
from hotlap.perf.race.tasks import short_of_space
from hotlap.perf.terms.case import Case, Plan, Workload
from hotlap.perf.terms.reasons import Misuse, Refusal
from hotlap.perf.terms.result import Deviation, Distance, Result, Results, Task, read

TINY = "planted.workloads:tiny"
# No block of fresh workers: importing torch takes longer than all that it measures.
QUICK = Plan(budget_s=30, looks=(1,), rounds=2, tail_s=0, timeout_s=240, threads=2, fresh_blocks=0)

pytestmark = [pytest.mark.usefixtures("planted", "kept_servers"), pytest.mark.slow]


def race(
    backends: Sequence[str],
    workload: str = TINY,
    target: str = "cpu",
    progress: Progress | None = None,
    out: Path | None = None,
) -> tuple[Path, dict[str, Result]]:
    """The run's folder, and results by backend."""
    here = survey.collect(QUICK.threads, "keep")
    cases = expand([workload], backends, ["fp32"], [1], target)
    run = rundir.RunFolder(out, "test", here, cases)
    try:
        results = measure(cases, run, QUICK, here.key, progress or Progress())
    finally:
        run.close()
    return run.folder, {result.case.backend: result for result in results}


@pytest.fixture(scope="module")
def built(planted: Path) -> dict[str, Path]:
    """Backend -> its artefact, of one run."""
    folder, results = race(["eager", "onnxruntime", "openvino"])
    assert results["pace"].artefact == ""
    return {name: (folder / result.artefact).resolve() for name, result in results.items() if result.artefact}


@pytest.fixture
def copied(built: dict[str, Path], tmp_path: Path) -> Path:
    """Of onnxruntime's artefact, to be damaged."""
    return Path(shutil.copytree(built["onnxruntime"], tmp_path / "artefact"))


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def edit(folder: Path, **fields: Any) -> None:
    """Other values in the manifest, as somebody with an editor would put them."""
    current = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**current, **fields}))


def again(folder: Path) -> None:
    """Makes the hashes fit what is in the folder."""
    edit(folder, files=msgspec.to_builtins(manifest.files(folder)))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_manifest_says_what_was_built(name: str, built: dict[str, Path]) -> None:
    record = manifest.read(built[name])
    assert record.case == f"{TINY}/{name}/fp32/b1/cpu/inference"
    assert (record.backend, record.options, record.architecture) == (name, {}, "cpu")
    assert record.needs_source is False
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in (*record.inputs, *record.outputs)] == [
        ("input", "float32", (1, 64)),
        ("out0", "float32", (1, 10)),
    ]
    assert record.inputs[0].dynamic == ({"0": "batch"} if name == "onnxruntime" else {})
    assert {"torch", name if name == "openvino" else "onnxruntime-gpu"} <= record.libraries.keys()
    assert {"reference.npz", "model.onnx" if name == "onnxruntime" else "model.bin"} <= {
        file.path for file in record.files
    }
    assert (record.checked, record.verified_to, record.reason) == (True, "L7", None)
    assert record.weights == "as given"
    assert record.deviation is not None
    assert all(distance.within for distance in record.deviation.distances.values())
    assert record.placement is not None and sum(record.placement.ran_on.values()) > 0
    manifest.compare(built[name], record)


def test_what_was_built_for_one_batch_has_no_free_axis(built: dict[str, Path]) -> None:
    """An engine or a package lies beside a file that would take any batch."""
    record = manifest.read(built["onnxruntime"])
    fed = manifest.Signature(record.inputs, record.outputs)
    assert signature.of_files(built["onnxruntime"], fed) == fed
    fixed = signature.of_files(built["onnxruntime"], fed, fixed=True)
    assert [(tensor.name, tensor.shape, tensor.dynamic) for tensor in (*fixed.inputs, *fixed.outputs)] == [
        ("input", (1, 64), {}),
        ("out0", (1, 10), {}),
    ]
    for case, takes_one in (
        ("w/tensorrt/fp32/b1/sm_89/inference", True),
        ("w/tensorrt/fp32/b1/sm_89/inference[shapes:dynamic]", False),
        ("w/compile/fp32/b1/cpu/inference[package:aoti]", True),
        ("w/compile/fp32/b1/cpu/inference[package:aoti][dynamic:on]", False),
        ("w/compile/fp32/b1/cpu/inference", False),
    ):
        assert plugins.backend(Case.parse(case).backend).FIXED_BATCH(Case.parse(case)) == takes_one, case


def test_a_backend_that_needs_the_source_says_so(
    built: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    record = manifest.read(built["eager"])
    assert record.needs_source and record.checked and record.deviation is not None
    assert refused(["bench-artefact", str(built["eager"])], capsys).endswith(
        f"hotlap run {TINY} --backends eager"
    )


def test_the_first_load_says_whether_the_source_is_needed_and_the_check_whether_it_is_right() -> None:
    run, results = race(["eager", "hungry", "imprecise"])
    hungry, imprecise = (manifest.read(run / results[name].artefact) for name in ("hungry", "imprecise"))
    assert writing.self_contained(plugins.backend("hungry"), hungry.parsed()) and hungry.needs_source
    assert hungry.checked and hungry.reason is None
    assert imprecise.checked and imprecise.verified_to == "L0"
    assert imprecise.reason is not None and imprecise.reason.code == "accuracy"
    assert imprecise.deviation is not None
    assert not all(distance.within for distance in imprecise.deviation.distances.values())


def test_a_manifest_holds_no_path_of_the_machine(built: dict[str, Path]) -> None:
    for folder in built.values():
        text = (folder / "manifest.json").read_text()
        assert str(Path.cwd()) not in text and "/tmp/" not in text and str(Path.home()) not in text
    record = msgspec.structs.replace(
        manifest.read(built["onnxruntime"]),
        weights='weights of "/srv/users/me/last.ckpt" and https://host/a/b/c',
        python="fp32/b1/cpu",
    )
    assert json.loads(manifest.encode(record))["weights"] == 'weights of "last.ckpt" and https://host/a/b/c'
    assert json.loads(manifest.encode(record))["python"] == "fp32/b1/cpu"


def test_the_stored_inputs_are_not_the_users(built: dict[str, Path]) -> None:
    with (
        np.load(built["onnxruntime"] / "reference.npz", allow_pickle=False) as stored,
        np.load(built["onnxruntime"].parents[1] / "oracle" / "real.npz", allow_pickle=False) as real,
    ):
        drawn = {row.tobytes() for row in stored["in0"]}
        assert len(drawn) >= 2 and not drawn & {row.tobytes() for row in real["in0"]}


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with 4."""
    assert cli.status(arguments) == 4
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1 and printed.out == "", printed
    return lines[0]


def flip(path: Path) -> None:
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.unlink()
    path.write_bytes(changed)


def listed(folder: Path, path: str) -> None:
    edit(
        folder,
        files=[
            *json.loads((folder / "manifest.json").read_bytes())["files"],
            {"path": path, "sha256": "0" * 64, "bytes": 1},
        ],
    )


def linked(folder: Path, target: str, name: str = "model.onnx") -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


def repacked(folder: Path, save: Callable[..., None], **more: Any) -> None:
    """Writes the stored arrays anew, and more."""
    with np.load(folder / "reference.npz", allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    (folder / "reference.npz").unlink()
    save(folder / "reference.npz", **arrays, **more)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "flipped byte": (
        lambda folder: flip(folder / "model.onnx"),
        "model.onnx has changed since it was built (sha256)",
    ),
    "truncated": (lambda folder: os.truncate(folder / "reference.npz", 100), "reference.npz has 100 bytes"),
    "missing": (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing"),
    "extra": (lambda folder: (folder / "more.bin").touch(), "more.bin is not in the manifest"),
    "extra in a folder": (
        lambda folder: ((folder / "sub").mkdir(), (folder / "sub" / "x").touch()),
        "sub/x is not in the manifest",
    ),
    "extra code of Python": (
        lambda folder: ((folder / "__pycache__").mkdir(), (folder / "__pycache__" / "numpy.pyc").touch()),
        "__pycache__/numpy.pyc is not in the manifest",
    ),
    "extra with a line break": (lambda folder: (folder / "a\nb").touch(), "'a\\nb' is not in the manifest"),
    "no text in a name": (
        lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).touch(),
        "'\\udcff' is not in the manifest",
    ),
    "fifo": (lambda folder: os.mkfifo(folder / "pipe"), "pipe is no regular file"),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        "manifest.json: there is no such file",
    ),
    "manifest is a folder": (
        lambda folder: ((folder / "manifest.json").unlink(), (folder / "manifest.json").mkdir()),
        "manifest.json: no regular file",
    ),
    "manifest is a link": (
        lambda folder: linked(folder, "/etc/hostname", "manifest.json"),
        "manifest.json: no regular file",
    ),
    "link out": (lambda folder: linked(folder, "/etc/hostname"), "model.onnx is a symbolic link"),
    "link within": (lambda folder: linked(folder, "reference.npz"), "model.onnx is a symbolic link"),
    "link to a folder": (lambda folder: linked(folder, "/etc", "more"), "more is a symbolic link"),
    "dangling link": (lambda folder: linked(folder, "nowhere"), "model.onnx is a symbolic link"),
    "path out": (
        lambda folder: listed(folder, "../other/model.bin"),
        "../other/model.bin is not a path within the folder",
    ),
    "path out, hidden": (
        lambda folder: listed(folder, "a/../../b"),
        "a/../../b is not a path within the folder",
    ),
    "absolute path": (
        lambda folder: listed(folder, "/etc/passwd"),
        "/etc/passwd is not a path within the folder",
    ),
    "empty path": (lambda folder: listed(folder, ""), "is not a path within the folder"),
    "itself": (
        lambda folder: listed(folder, "manifest.json"),
        "manifest.json is not a path within the folder",
    ),
    "twice": (lambda folder: listed(folder, "model.onnx"), "a file is listed twice"),
    "other schema": (lambda folder: edit(folder, schema=2), "schema 2, this hotlap reads 1"),
    "no JSON": (
        lambda folder: (folder / "manifest.json").write_text("model"),
        "not the manifest of an artefact",
    ),
    "empty": (lambda folder: (folder / "manifest.json").write_text(""), "not the manifest of an artefact"),
    "no UTF-8": (
        lambda folder: (folder / "manifest.json").write_bytes(b'{"schema": 1, "case": "\xff"}'),
        "not the manifest of an artefact",
    ),
    "half": (lambda folder: os.truncate(folder / "manifest.json", 700), "not the manifest of an artefact"),
    "deep": (
        lambda folder: (folder / "manifest.json").write_text('{"schema":1,"case":' + "[" * 200_000),
        "not the manifest of an artefact",
    ),
    "large": (lambda folder: os.truncate(folder / "manifest.json", 2**30), "a manifest has at most"),
    "wrong type": (lambda folder: edit(folder, batch="one"), "not the manifest of an artefact"),
    "instruction with a command": (
        lambda folder: edit(folder, instructions=["\x1b[2J"]),
        "not the manifest of an artefact",
    ),
    "wrong type inside": (
        lambda folder: edit(folder, files=[{"path": 3}]),
        "not the manifest of an artefact",
    ),
    "negative size": (
        lambda folder: edit(folder, files=[{"path": "a", "sha256": "0" * 64, "bytes": -1}]),
        "not the manifest of an artefact",
    ),
    "no case": (lambda folder: edit(folder, case="model"), "not the manifest of an artefact"),
    "case of another": (lambda folder: edit(folder, backend="openvino"), "are not those of its case"),
    "unknown backend": (
        lambda folder: edit(folder, backend="onnx", case=f"{TINY}/onnx/fp32/b1/cpu/inference"),
        "did you mean onnxruntime",
    ),
    "unknown option": (
        lambda folder: edit(
            folder, options={"fast": "on"}, case=f"{TINY}/onnxruntime/fp32/b1/cpu/inference[fast:on]"
        ),
        "unknown option",
    ),
    "packed arrays": (
        lambda folder: (repacked(folder, np.savez_compressed), again(folder)),
        "is packed, which hotlap never does",
    ),
    "arrays of another model": (
        lambda folder: (repacked(folder, np.savez, more=np.zeros(1), in1=np.zeros((2, 1))), again(folder)),
        "does not hold the inputs and outputs",
    ),
    "nothing to compare with": (
        lambda folder: ((folder / "reference.npz").unlink(), again(folder)),
        "reference.npz is missing",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_line_that_names_it(
    name: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, words = DAMAGE[name]
    damage(copied)
    assert words in refused(["bench-artefact", str(copied)], capsys)
    if name == "nothing to compare with":  # and nothing is compared where it is only opened
        assert open_artefact(copied).manifest.case
        return
    with pytest.raises(Misuse, match=re.escape(words)):
        open_artefact(copied)


def test_a_truncated_openvino_file_is_named(
    built: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(built["openvino"], tmp_path / "artefact"))
    os.truncate(folder / "model.bin", 1000)
    assert "model.bin has 1000 bytes" in refused(["bench-artefact", str(folder)], capsys)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(Manifest.__struct_fields__), value=VALUES)
def test_any_other_value_of_a_field_is_read_or_refused(field: str, value: Any, copied: Path) -> None:
    kept = (copied / "manifest.json").read_bytes()
    message = ""
    try:
        edit(copied, **{field: value})
        opening.doubts(opening.checked(copied))
    except Misuse as error:
        message = str(error)
    finally:
        (copied / "manifest.json").write_bytes(kept)
    assert "\n" not in message


BLOCKER = """
import sys


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "lightning", "onnx", "planted" {more}):
            raise ModuleNotFoundError(name + " is not here")


sys.meta_path.insert(0, Blocker())
"""


def elsewhere(tmp_path: Path, more: str = "") -> dict[str, str]:
    """The environment of a machine without torch, Lightning and the model's source: neither a
    command nor its workers can import them.
    """
    (tmp_path / "sitecustomize.py").write_text(BLOCKER.format(more=more))
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]),
        "HOTLAP_RUNS": str(tmp_path / "runs"),
    }


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_it_is_checked_and_timed_without_torch_lightning_and_source(
    name: str, built: dict[str, Path], tmp_path: Path
) -> None:
    before = content(built[name])
    command = [
        sys.executable,
        "-m",
        "hotlap.perf.cli",
        "bench-artefact",
        str(built[name]),
        "--budget",
        "4s",
        "--threads",
        "2",
        "--json",
    ]
    done = subprocess.run(
        [*command, "one.json"],
        cwd=tmp_path,
        env=elsewhere(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RMSE to fp64" in done.stdout and "warning" not in done.stderr
    results = read(tmp_path / "one.json")
    result, pace = results.results
    assert result.case.backend == name and pace.case.backend == "pace" and result.race_id == pace.race_id
    assert result.metrics["latency"].values and {"memory", "cold_start"} <= result.metrics.keys()
    then = manifest.read(built[name]).deviation
    assert result.deviation is not None and then is not None
    assert result.deviation.distances == {"random": then.distances["random"]}
    assert content(built[name]) == before
    assert not list((tmp_path / "runs" / "artefact").glob("*/work"))


def test_json_on_stdout_is_nothing_else(copied: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "hotlap.perf.cli",
        "bench-artefact",
        str(copied),
        "--budget",
        "1s",
        "--json",
        "-",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=elsewhere(tmp_path), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(msgspec.json.decode(done.stdout, type=Results).results) == 2


def test_wrong_outputs_have_no_time_whatever_the_hashes_say(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    model = onnx.load(copied / "model.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = (np.frombuffer(weights.raw_data, np.float32) * 1.01).astype(np.float32).tobytes()
    (copied / "model.onnx").unlink()
    onnx.save(model, copied / "model.onnx")
    again(copied)
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    assert (
        cli.status(["bench-artefact", str(copied), "--budget", "1s", "--json", str(tmp_path / "one.json")])
        == 4
    )
    result = read(tmp_path / "one.json").results[0]
    assert result.reason is not None and result.reason.code == "accuracy"
    assert (result.status, result.metrics) == ("failed", {})
    assert "accuracy" in capsys.readouterr().out


def test_a_manifest_that_denies_its_need_of_the_source_gets_none(
    built: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(built["eager"], tmp_path / "artefact"))
    shutil.copyfile(built["onnxruntime"] / "reference.npz", folder / "reference.npz")
    edit(folder, needs_source=False)
    again(folder)
    assert "eager needs the module's source" in refused(["bench-artefact", str(folder)], capsys)
    edit(folder, backend="compile", case=f"{TINY}/compile/fp32/b1/cpu/inference")
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    assert cli.status(["bench-artefact", str(folder), "--budget", "1s"]) == 4
    assert (
        "invalid_input: compile asks for the module's source, which an artefact does not hold"
        in capsys.readouterr().out
    )
    with pytest.raises(Refusal, match="invalid_input"):
        open_artefact(folder)


def test_another_major_version_is_a_warning(copied: Path) -> None:
    edit(copied, libraries={"onnxruntime-gpu": "0.9.1", "torch": "1.0", "numpy": "1.0"})
    (line,) = opening.doubts(opening.checked(copied))
    assert line.startswith("built with onnxruntime-gpu 0.9.1, here is 1.")
    with pytest.warns(UserWarning, match=r"onnxruntime-gpu 0\.9\.1"):
        open_artefact(copied)


@pytest.mark.parametrize(("rmse", "code"), [(0.9, None), (1.9, None), (2.1, "accuracy")])
def test_int8_by_itself_may_be_as_far_out_as_it_was_when_its_task_metric_passed(
    rmse: float, code: str | None, built: dict[str, Path]
) -> None:
    def deviation(rmse: float) -> Deviation:
        return Deviation(
            {"random": Distance(rmse, 0.1, 0.3, 3.0, 0.0, 0.9, 0, 10)},
            Task("accuracy", "higher", 0.9, 0.9, 0.01),
        )

    record = msgspec.structs.replace(manifest.read(built["onnxruntime"]), deviation=deviation(1.0))
    case = Case(TINY, "onnxruntime", "int8")
    entrant = artefact.entrant_of(case, record, Path(), Path(), QUICK)
    assert entrant.oracle.judged
    entrant.deviation = deviation(rmse)
    reason = artefact.worse(record, entrant)
    assert (reason and reason.code) == code


def test_an_engine_of_another_architecture_has_no_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Proven without a device: the manifest is complete, engine and ladder lie beside it."""
    run, results = race(["engine"], target="sm_89")
    result = results["engine"]
    assert (result.status, result.verified_to) == ("verified", "L5")
    folder = run / result.artefact
    record = manifest.read(folder)
    assert {file.path for file in record.files} == {"ladder.json", "model.engine", "reference.npz"}
    assert (record.architecture, record.checked, record.verified_to) == ("sm_89", True, "L5")
    assert record.deviation is None and record.needs_source is False
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path))
    for devices in ([], ["sm_90"]):
        monkeypatch.setattr(
            opening, "capabilities", lambda devices=devices: (devices, f"this machine has {devices}")
        )
        assert cli.status(["bench-artefact", str(folder), "--json", str(tmp_path / "one.json")]) == 4
        printed = capsys.readouterr()
        assert "no_device: built for sm_89" in printed.out and "--target cuda:0" in printed.out
        assert printed.err == "warning: it was proven to L5 only and has never been seen to run on sm_89\n"
        assert read(tmp_path / "one.json").results[0].status == "skipped"
    with pytest.warns(UserWarning, match="L5 only"), pytest.raises(Refusal, match="no_device"):
        open_artefact(folder)
    monkeypatch.setattr(opening, "capabilities", lambda: (["sm_90", "sm_89"], ""))
    monkeypatch.setattr(plugins.backend("engine"), "available", lambda target: None)
    assert opening.here(record).target == "cuda:1"


class StopAtCheck(Progress):
    """Presses Ctrl-C when all is built."""

    def race(self, group: str, entrants: Sequence[Entrant], event: str) -> None:
        if event.startswith("checking"):
            raise KeyboardInterrupt


def test_the_manifest_is_there_before_the_check() -> None:
    with pytest.raises(KeyboardInterrupt):
        race(["onnxruntime"], progress=StopAtCheck())
    folder = next(rundir.latest().glob("work/**/onnxruntime-fp32/manifest.json")).parent
    record = opening.checked(folder)
    assert (record.checked, record.verified_to, record.deviation) == (False, "L0", None)
    with pytest.warns(UserWarning, match="L0 only"):
        assert open_artefact(folder)(np.zeros((1, 64), np.float32))[0].shape == (1, 10)


def test_an_opened_artefact_computes_what_was_checked(built: dict[str, Path]) -> None:
    bound = os.sched_getaffinity(0)
    for name in ("onnxruntime", "openvino"):
        model = open_artefact(built[name])
        with np.load(built[name] / "reference.npz", allow_pickle=False) as stored:
            for inputs, expected in zip(stored["in0"], stored["ref0"], strict=True):
                (output,) = model(inputs)
                np.testing.assert_allclose(output, expected, atol=1e-6)
    assert os.sched_getaffinity(0) == bound


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 64), np.float32)


def row_by_row(model: opening.Opened, inputs: np.ndarray) -> None:
    """Any batch has the outputs of its rows alone, which are as they were checked."""
    (outputs,) = model(inputs)
    alone = np.concatenate([model(inputs[row : row + 1])[0] for row in range(len(inputs))])
    np.testing.assert_allclose(outputs, alone, atol=1e-6)


def test_an_opened_artefact_takes_every_batch_that_its_manifest_calls_free(built: dict[str, Path]) -> None:
    model = open_artefact(built["onnxruntime"])
    for count in (1, 7, 2):
        row_by_row(model, rows(count))
    with pytest.raises(Misuse, match=re.escape("input takes float32[1, 64], not float32[2, 64]")):
        open_artefact(built["openvino"])(rows(2))


def test_it_takes_every_other_size_that_its_manifest_calls_free(copied: Path) -> None:
    """The model is a sum of two inputs whose both axes are free; they must agree."""
    from onnx import TensorProto, helper, save

    def value(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "time"])

    graph = helper.make_graph(
        [helper.make_node("Add", ["in0", "in1"], ["out0"])],
        "sum",
        [value("in0"), value("in1")],
        [value("out0")],
    )
    (copied / "model.onnx").unlink()
    (copied / "reference.npz").unlink()
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        copied / "model.onnx",
    )
    free = {"0": "batch", "1": "time"}
    inputs = [manifest.Tensor(f"in{index}", "float32", (1, 4), free) for index in range(2)]
    edit(copied, inputs=msgspec.to_builtins(inputs))
    again(copied)
    model = open_artefact(copied)
    for shape in ((1, 4), (3, 4), (1, 9), (2, 5)):
        (output,) = model(np.ones(shape, np.float32), np.ones(shape, np.float32))
        assert output.shape == shape and (output == 2).all()
    with pytest.raises(Misuse, match=re.escape("in1 takes float32[batch, time], not float32[3, 5]")):
        model(np.ones((3, 4), np.float32), np.ones((3, 5), np.float32))


def test_a_package_says_which_instructions_it_may_use_and_is_refused_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, results = race(["compile[package:aoti][dynamic:on]"])
    result = next(result for result in results.values() if result.case.options)
    folder = run / result.artefact
    record = manifest.read(folder)
    flags = cpu.flags()
    assert record.instructions == cpu.native(tiles=False) and {*record.instructions} <= flags
    assert {name for name in ("avx2", "fma", "avx512f", "avx512vl") if name in flags} <= {
        *record.instructions
    }
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        sources = [archive.read(name).decode() for name in archive.namelist() if name.endswith(".cpp")]
    assert all("-march=native" in source for source in sources), "else these are too many"
    model = open_artefact(folder)
    for count in (1, 5, 3):
        row_by_row(model, rows(count))

    edit(folder, instructions=[*record.instructions, "avx4096_planted"])
    words = (
        "unsupported_target: its machine code may use avx4096_planted, which this CPU does not have; build it"
        f" on this machine: hotlap run {TINY} --backends 'compile[dynamic:on][package:aoti]'"
    )
    with pytest.raises(Refusal, match=re.escape(words)):
        open_artefact(folder)
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))
    assert cli.status(["bench-artefact", str(folder), "--json", str(tmp_path / "one.json")]) == 4
    assert "may use avx4096_planted" in capsys.readouterr().out
    assert read(tmp_path / "one.json").results[0].status == "skipped"


def test_a_manifest_from_before_instructions_were_named_is_read(copied: Path) -> None:
    fields = json.loads((copied / "manifest.json").read_bytes())
    assert fields.pop("instructions") == []
    (copied / "manifest.json").write_text(json.dumps(fields))
    assert manifest.read(copied).instructions == ()
    row_by_row(open_artefact(copied), rows(2))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ((), "takes 1 arrays, not 0"),
        ((np.zeros((2, 32), np.float32),), "input takes float32[batch, 64], not float32[2, 32]"),
        ((np.zeros((0, 64), np.float32),), "input takes float32[batch, 64], not float32[0, 64]"),
        ((np.zeros(64, np.float32),), "input takes float32[batch, 64], not float32[64]"),
        ((np.zeros((1, 64), np.int64),), "input takes float32, not int64"),
        ((np.full((1, 64), None),), "input takes float32, not object"),
        (([[0.0] * 64],), "input takes float32[batch, 64], not list"),
    ],
)
def test_other_arrays_than_its_inputs_are_refused(
    arrays: tuple[Any, ...], words: str, built: dict[str, Path]
) -> None:
    with pytest.raises(Misuse, match=re.escape(words)):
        open_artefact(built["onnxruntime"])(*arrays)


def test_an_artefact_that_was_wrong_when_it_was_built_is_not_opened(copied: Path) -> None:
    edit(copied, reason={"code": "accuracy", "detail": "outputs are off by 1"})
    with pytest.raises(Misuse, match="wrong when it was built: accuracy: outputs are off by 1"):
        open_artefact(copied)


def snippets() -> list[str]:
    page = (Path(__file__).resolve().parents[3] / "docs" / "artefacts.md").read_text()
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)


@pytest.mark.parametrize(
    ("number", "more", "words"), [(0, "", "[(1, 10)]"), (1, ', "hotlap", "msgspec"', "largest error")]
)
def test_the_examples_of_the_page_run_as_they_stand(
    number: int, more: str, words: str, built: dict[str, Path], tmp_path: Path
) -> None:
    code = snippets()[number]
    assert len(code.strip().splitlines()) <= 20
    (tmp_path / "example.py").write_text(code.replace("ARTEFACT", str(built["onnxruntime"])))
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=elsewhere(tmp_path, more),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert words in done.stdout


def test_the_example_without_hotlap_sees_a_changed_file(copied: Path, tmp_path: Path) -> None:
    flip(copied / "model.onnx")
    done = subprocess.run(
        [sys.executable, "-c", snippets()[1].replace("ARTEFACT", str(copied))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "model.onnx has changed\n")


EXPORT = """
import sys, time
from pathlib import Path
import torch
from hotlap.perf.lowering import export
from hotlap.perf.terms.case import Case, Workload
from torch import nn

folder, number = Path(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
workload = Workload("net", nn.Linear(8, 4).eval().requires_grad_(False), (torch.randn(2, 8),))
write = export._write
def together(*arguments):
    written = write(*arguments)
    (folder / number).touch()  # both have written before one renames
    while not all((folder / other).exists() for other in "12"):
        time.sleep(0.01)
    return written
export._write = together
found = export.export(workload, Case("net", "onnxruntime"), folder / "root")
(folder / f"case-{number}").mkdir()
export.place(found, folder / f"case-{number}")
"""


def test_two_processes_may_build_the_same_entry(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", EXPORT, str(tmp_path), number], stderr=subprocess.PIPE, text=True
        )
        for number in "12"
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["onnx-net-fp32"]
    first, other = ((tmp_path / f"case-{number}" / "model.onnx").read_bytes() for number in "12")
    assert first == other == (tmp_path / "root" / "onnx-net-fp32" / "model.onnx").read_bytes()


@pytest.mark.parametrize("size", ["1m", "5m"])
def test_a_full_disk_fails_the_build_that_met_it_and_no_other(size: str, tmp_path: Path) -> None:
    """A real file system of that size below the run; 5 MB take the export and not OpenVINO's copy
    of it, whose library names no reason.
    """
    folder = tmp_path / "out" / "work" / "planted.workloads:heavy" / "b1" / "cpu" / "inference" / "artefacts"
    folder.mkdir(parents=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("no permission to mount; test_race.py has a stand-in that raises ENOSPC")
    try:
        _, results = race(
            ["eager", "onnxruntime", "openvino"], "planted.workloads:heavy", out=tmp_path / "out"
        )
        failed = {
            name: result.reason.code
            for name, result in results.items()
            if result.reason is not None and result.status == "failed"
        }
        assert failed == dict.fromkeys(
            ["onnxruntime", "openvino"] if size == "1m" else ["openvino"], "out_of_space"
        )
        assert all("\n" not in str(result.reason) for result in results.values())
        assert all("latency" in results[name].metrics for name in results.keys() - failed.keys())
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_library_that_names_no_reason_is_out_of_space_where_the_weights_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    workload = Workload("net", torch.nn.Linear(256, 256), (torch.zeros(1, 256),))
    error = RuntimeError("basic_ios::clear: iostream error")
    assert short_of_space(error, tmp_path, workload) is None
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    refusal = short_of_space(error, tmp_path, workload)
    assert refusal is not None and refusal.reason.code == "out_of_space"
    assert "1000 bytes are free and the weights alone take 263168" in refusal.reason.detail
    assert short_of_space(Refusal("export_failed", "operator"), tmp_path, workload) is None
