"""Asks Apache Otava for the changes of many series, in an interpreter that has it.

    OTAVA_PYTHON bench/otava_child.py < series.json

Input: a list of series. Output: Otava's version, the CPU seconds, and for each series its changes
as index and relative step. Its own defaults but for the p of 1e-6, with which it is at its best on
series that people labelled: at 0.001 it alarms on 5 to 11 % of series of pure noise.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata

from otava.analysis import compute_change_points  # type: ignore[import-not-found]

MAX_PVALUE = 1e-6


def main() -> None:
    all_series = json.load(sys.stdin)
    compute_change_points(list(all_series[0]), max_pvalue=MAX_PVALUE)
    start = time.process_time()
    answers = [
        [
            (int(change.index), float(change.stats.forward_rel_change()))
            for change in compute_change_points(series, max_pvalue=MAX_PVALUE)[0]
        ]
        for series in all_series
    ]
    seconds = time.process_time() - start
    version = metadata.version("apache-otava")
    json.dump({"version": version, "seconds": seconds, "changes": answers}, sys.stdout)


if __name__ == "__main__":
    main()
