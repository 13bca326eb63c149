"""A pytest plug-in: a process that a fatal signal ends says where it was.

pytest has Python's faulthandler do that, once. Lightning's Trainer puts back the handlers of all
signals as Python knows them when a fit is over, and of a handler in C it knows nothing: from then
on a crash ended the run without a word. So it did where a library had taken the stack away that
handlers run on (perf/machine/signal_stack.py).
"""

from __future__ import annotations

import faulthandler

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from hotlap.perf.machine import signal_stack

# That of faulthandler, which pytest enables before it loads its plug-ins.
AT_FIRST = signal_stack.current()


@pytest.fixture(autouse=True)
def a_crash_says_where(request: pytest.FixtureRequest) -> None:
    """Arms the handler anew for each test: enabled alone it does nothing where it already is."""
    signal_stack.give_back(AT_FIRST)
    if (stderr := request.config.stash.get(fault_handler_stderr_fd_key, None)) is not None:
        faulthandler.disable()
        faulthandler.enable(file=stderr)
