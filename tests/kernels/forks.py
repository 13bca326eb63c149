"""Runs programs of this folder, each in a process of its own, forked from this one: it has imported
torch and Triton's interpreter, which takes longer than most of the programs.

Each line of stdin is a JSON list, a program's file and its arguments. The answer is a line of JSON:
the program's exit status, its stdout and its stderr.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import interpreter  # noqa: F401  # it decides what Triton is

# After so many seconds a program is ended by SIGALRM.
LONGEST_S = 240


def run(program: str, arguments: list[str]) -> tuple[int, str, str]:
    """Returns the exit status (negative: the signal that ended it), stdout and stderr."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            signal.alarm(LONGEST_S)
            sys.argv = [program, *arguments]
            runpy.run_path(program, run_name="__main__")
            sys.exit()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed = []
        for file in (out, errors):
            file.seek(0)
            printed.append(file.read().decode(errors="replace"))
        return status, printed[0], printed[1]


if __name__ == "__main__":
    for line in sys.stdin:
        program, *arguments = json.loads(line)
        print(json.dumps(run(program, arguments)), flush=True)
