"""How long `hotlap run` says that it takes, and what a stopped run has."""

from __future__ import annotations

from pathlib import Path

from hotlap.perf.commands import racing
from hotlap.perf.lookup.cases import expand
from hotlap.perf.measure.rundir import RunFolder
from hotlap.perf.terms.case import Plan
from hotlap.perf.terms.environment import Environment
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Result, Samples


def test_a_run_without_names_takes_the_standard_networks_and_mlp_first() -> None:
    assert racing.by_default() == ["mlp", "gpt", "resnet", "vit"]


def test_the_duration_counts_races_precisions_entrants_and_models_that_train() -> None:
    """Two races of two precisions with 90 s each; eager and onnxruntime in both, and the pace."""
    cases = expand(["mlp", "own.module:make"], ["eager", "onnxruntime"], ["fp32", "bf16"])
    line = racing.duration(cases, Plan(budget_s=90.0))
    assert "2 races: 6 min of measuring" in line
    assert "for 8 entrants to build and check" in line
    assert "60 s for 1 model to train if untrained" in line
    assert line.startswith("at most about 11 min: ")


def test_an_architecture_that_is_not_here_is_built_and_takes_no_measuring() -> None:
    line = racing.duration(expand(["own.module:make"], ["eager"], target="sm_89"), Plan())
    assert line == ("at most about 30 s: 1 race: 0 s of measuring, 30 s for 1 entrant to build and check")


HERE = Environment("cpu", 2, 2**30, (), "Linux", "3.11", {}, (), "", 1, "keep", "madvise", "", "host")


def test_a_stopped_run_counts_its_cases(tmp_path: Path) -> None:
    """The pace is none of the user's; a failure is finished; of a race all are or none."""
    cases = expand(["w", "v"], ["eager", "null"])
    latency = {"latency": Samples("s", "lower", ((1.0,),))}
    failed = Reason("oom", "planted")
    finished = [
        Result(case, "r", Plan(), "failed", failed)
        if case.backend == "null"
        else Result(case, "r", Plan(), "ok", metrics=latency)
        for case in cases
        if case.workload == "w"
    ]
    in_part = [
        Result(case, "r", Plan(), "noisy", Reason("interrupted", "planted"), metrics=latency)
        for case in cases
        if case.workload == "v" and case.backend != "pace"
    ]
    run = RunFolder(tmp_path / "run", "hotlap run", HERE, cases)
    try:
        assert racing.kept(run) == "stopped before the first block was measured"
        run.put([*finished, *in_part[:1]])
        text = f"stopped; 2 of 4 cases finished, 1 measured in part, in {tmp_path}/run/results.json"
        assert racing.kept(run) == text
        run.put(in_part)
        assert "2 of 4 cases finished, 2 measured in part" in racing.kept(run)
    finally:
        run.close()
