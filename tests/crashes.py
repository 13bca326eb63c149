"""A pytest plug-in: a process that a fatal signal ends says where it was.

pytest has Python's faulthandler do that, once. Lightning's Trainer puts back the handlers of all
signals as Python knows them when a fit is over, and of a handler in C it knows nothing: from then
on a crash ended the run without a word.
"""

from __future__ import annotations

import faulthandler

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key


@pytest.fixture(autouse=True)
def a_crash_says_where(request: pytest.FixtureRequest) -> None:
    """Arms the handler anew for each test: enabled alone it does nothing where it already is."""
    if (stderr := request.config.stash.get(fault_handler_stderr_fd_key, None)) is not None:
        faulthandler.disable()
        faulthandler.enable(file=stderr)
