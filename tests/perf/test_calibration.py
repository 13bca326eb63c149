"""Where int8 takes its ranges from."""

import torch

from hotlap.perf.calibration import ROWS, calibration
from hotlap.perf.case import Workload


def workload(batch, calibrated):
    given = None if calibrated is None else (torch.arange(calibrated * 3.0).reshape(-1, 3),)
    return Workload("w", torch.nn.Identity(), (torch.ones(batch, 3),), calibration=given)


def test_whole_batches_of_the_training_split_in_their_order():
    found = calibration(workload(4, 10))
    assert [batch[0].shape for batch in found.batches] == [(4, 3), (4, 3)]
    assert found.batches[1][0][0, 0] == 12.0 and found.source == "8 rows of the training split"
    assert len(calibration(workload(1, 1000)).batches) == ROWS


def test_without_a_training_split_it_says_so():
    for given in (None, 2):
        found = calibration(workload(4, given))
        assert len(found.batches) == 5 and "Workload.calibration" in found.source
        assert (found.batches[0][0] == 1).all()
