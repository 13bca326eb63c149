"""Keeping other processes of this machine out of a measurement: the scheduler is asked to prefer a
worker while it is its turn.

Linux shares a core by nice values (sched(7)), and with CONFIG_SCHED_AUTOGROUP between sessions
first, by the session's own nice value in /proc/PID/autogroup: a worker has a session of its own, so
both are lowered. Threads that are started later inherit. Beside a process that loads one of two
cores, a small MLP with two threads raced against itself was off by 17 % in a block without this, by
2 % with it (docs/measuring.md).

It takes CAP_SYS_NICE or RLIMIT_NICE, and does not reach over the borders of containers with CPU
shares of their own.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

NICE = -20
RAISED = "raised"
# Where a plan asks for none, to leave a shared machine alone.
AS_ASKED = "normal (as asked)"
# The kernel lets an unprivileged process write this file ten times a second
# (kernel/sched/autogroup.c).
AGAIN_S = 0.15


def claim(autogroup: Path = Path("/proc/self/autogroup")) -> str:
    """Asks for this process to be preferred. Returns `raised`, or why it stayed as it was."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        if autogroup.exists():
            try:
                autogroup.write_text(str(NICE))
            except BlockingIOError:
                time.sleep(AGAIN_S)
                autogroup.write_text(str(NICE))
    except OSError as error:
        return f"normal ({error.strerror}: run as root, or raise RLIMIT_NICE with ulimit -e 40)"
    return RAISED
