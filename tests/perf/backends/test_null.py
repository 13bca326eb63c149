import time

import numpy as np
import pytest

from hotlap.perf.backends import null
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.contract import Artefact
from hotlap.perf.terms.reasons import Refusal


@pytest.fixture
def load(tmp_path):
    """Two known batches of two rows, and a validation split of three rows with another input
    beside.
    """
    rng = np.random.default_rng(0)
    known = {
        "in0": rng.random((2, 2, 4), "float32"),
        "in1": rng.integers(0, 9, (2, 2)),
        "ref0": rng.random((2, 2, 3)),
    }
    np.savez(tmp_path / "real.npz", allow_pickle=False, **known, **{"eager-fp32-0": known["ref0"]})
    split = {"in0": rng.random((3, 4), "float32"), "in1": rng.integers(0, 9, 3)}
    np.savez(tmp_path / "validation.npz", allow_pickle=False, **split)
    np.savez(tmp_path / "validation-reference.npz", allow_pickle=False, out0=np.arange(9.0).reshape(3, 3))

    def go(takes: str):
        case = Case("any", "null", batch=2, options=(("takes", takes),))
        return null.load(Artefact(case, tmp_path, 1, None, tmp_path)), known, split

    return go


@pytest.mark.parametrize("takes", null.OPTIONS["takes"])
def test_undisturbed_it_takes_the_stated_time_within_one_per_cent(load, takes):
    step, known, _ = load(takes)
    inputs = step.place((known["in0"][0], known["in1"][0]))
    stated = float(takes.removesuffix("ms")) / 1000
    seen = []
    for _ in range(round(0.5 / stated) if stated < 0.01 else 40):
        start = time.perf_counter()
        step.call(inputs)
        seen.append(time.perf_counter() - start)
    assert stated <= min(seen) <= 1.01 * stated


def test_it_returns_the_reference_of_its_inputs(load):
    step, known, split = load("0.2ms")
    for index in (1, 0):
        (output,) = step.fetch(step.call(step.place((known["in0"][index], known["in1"][index]))))
        assert np.array_equal(output, known["ref0"][index])
    rows = [2, 0]
    (output,) = step.fetch(step.call(step.place((split["in0"][rows], split["in1"][rows]))))
    assert np.array_equal(output, [[6, 7, 8], [0, 1, 2]])


def test_inputs_that_nobody_stored_are_refused(load):
    step, known, _ = load("0.2ms")
    with pytest.raises(Refusal, match="invalid_input: null knows the outputs of 2 batches"):
        step.place((known["in0"][0] + 1, known["in1"][0]))
    with pytest.raises(Refusal, match="invalid_input"):
        step.place((known["in0"][0], known["in1"][0].astype("int32")))


def test_it_runs_nowhere_but_on_the_cpu():
    assert null.available("cuda:0").code == "unsupported_target" and null.available("cpu") is None
    assert null.supports(Case("any", "null", mode="train")).code == "unsupported_op"
