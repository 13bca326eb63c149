"""A process that trains along with that of `hotlap train`, which starts it: training/ranks.py.

It reads the settings from a line of its standard input, has all that is printed go to its standard
error, and ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path

from ..perf.terms import printer
from .quiet import undisturbed
from .runs import Settings
from .train import fit
from .training.configuration import Configuration
from .training.guards import TrainingFailed, TrainingStopped
from .training.ranks import READY, TrainingRank


def main() -> int:
    """Returns the exit status: 0 trained, 4 stopped."""
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        asked = json.loads(pipe.readline())
    threading.Thread(target=end_with_rank_0, daemon=True).start()
    answers = os.dup(1)
    os.dup2(2, 1)

    def ready() -> None:
        os.write(answers, READY)
        os.close(answers)

    folder = Path(asked["folder"])
    rank = TrainingRank(asked["number"], asked["port"])
    try:
        with undisturbed():
            chosen, settings = Configuration(asked["words"]), Settings.read(folder)
            fit(chosen, folder, settings, silent, asked["test"], rank, ready)
    except (TrainingStopped, ValueError) as error:
        printer.note(f"{error}")
        return 4
    except TrainingFailed as error:
        for line in "".join(traceback.format_exception(error.__cause__ or error)).splitlines():
            printer.note(line)
        return 4
    return 0


def silent(line: str) -> None:
    """Leaves reports to rank 0."""


def end_with_rank_0() -> None:
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
