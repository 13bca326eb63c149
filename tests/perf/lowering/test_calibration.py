"""Where int8 takes its ranges from."""

import numpy as np
import pytest
import torch

from hotlap.perf.lowering.calibration import ROWS, Calibration, calibration, cosine
from hotlap.perf.terms.case import Workload
from hotlap.perf.terms.reasons import Refusal


def workload(batch, calibrated):
    rows = None if calibrated is None else (torch.arange(calibrated * 3.0).reshape(-1, 3),)
    return Workload("w", torch.nn.Identity(), (torch.arange(batch * 3.0).reshape(-1, 3),), calibration=rows)


def test_whole_batches_of_the_training_split_in_their_order():
    ranges = calibration(workload(4, 10))
    assert [batch[0].shape for batch in ranges.batches] == [(4, 3), (4, 3)]
    assert ranges.batches[1][0][0, 0] == 12.0 and ranges.source == "8 rows of the training split"
    assert len(calibration(workload(1, 1000)).batches) == ROWS


def test_without_a_training_split_it_says_so():
    for rows in (None, 2):
        ranges = calibration(workload(4, rows))
        assert len(ranges.batches) == 5 and "Workload.calibration" in ranges.source
        assert (ranges.batches[0][0] == np.arange(12.0).reshape(4, 3)).all(), "the example inputs come first"


def test_batches_to_be_judged_on_are_held_back():
    batches = [(np.full(1, index),) for index in range(9)]
    used, held, apart = Calibration(batches, "").split()
    assert [int(batch[0][0]) for batch in held] == [3, 7] and len(used) == 7 and apart
    assert Calibration(batches[:2], "").split()[1] == batches[1:2] and Calibration(
        batches[:1], ""
    ).split() == (batches[:1], batches[:1], False)


def test_cosine_is_of_the_worst_output_and_nan_is_none():
    a, b = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    assert cosine([(a, a)], [(a, b)]) == pytest.approx(2**-0.5)
    assert cosine([(a,)], [(a * np.nan,)]) == 0.0 and cosine([(a * 0,)], [(a * 0,)]) == 1.0


@pytest.mark.parametrize(("value", "words"), [(0.0, "one value only"), (float("nan"), "NaN or infinity")])
def test_inputs_that_give_no_ranges_are_refused_whoever_asks(value, words):
    with pytest.raises(Refusal, match=f"invalid_input: .*{words}"):
        calibration(
            Workload("w", torch.nn.Identity(), (torch.ones(2, 3),), calibration=(torch.full((8, 3), value),))
        )
