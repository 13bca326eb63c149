"""What the table of controls says of each network."""

from __future__ import annotations

import pytest

from bench.controls import SCHEMA, table, verdict


@pytest.mark.parametrize(
    ("beats", "words"),
    [([True, True], "yes"), ([False], "no"), ([True, False, True], "with 2 of 3 seeds")],
)
def test_a_network_beats_its_controls_with_every_seed_or_with_some(beats: list[bool], words: str) -> None:
    assert verdict(beats) == words


def test_a_row_has_the_mean_of_the_seeds_beside_each_control() -> None:
    network = {
        "name": "tcn",
        "metric": "mase",
        "better": "lower",
        "scores": [0.3, 0.5],
        "seconds": [10.0, 12.0],
        "controls": {"seasonal_naive": 1.35},
        "beats": [True, True],
    }
    last = table({"schema": SCHEMA, "hardware": "a CPU", "networks": [network]}).splitlines()[-1]
    assert last == "| tcn | mase, lower is better | 0.4 | 2 | seasonal naive 1.35 | yes | 11 s |"
