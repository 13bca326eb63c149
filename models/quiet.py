"""Training inside somebody else's process: nothing printed by Lightning, and the process left as it
was.

On the CPU training takes one thread. The networks are small, results then do not depend on the
number of cores, and a busy machine does not slow training out of proportion (seen on 2 cores with
other work on them: 2 threads took 5 to 10 times as long as 1).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning

LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restores random state, determinism, threads, environment, logging, warnings and the meaning
    of Ctrl-C, which training changes.
    """
    loggers = [(logging.getLogger(name), logging.getLogger(name).level) for name in LIGHTNING_LOGGERS]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    debugging: Any = torch.utils.deterministic
    filled = debugging.fill_uninitialized_memory
    threads = torch.get_num_threads()
    environment = dict(os.environ)
    ctrl_c = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter(
                "ignore", PossibleUserWarning
            )  # advice on dataloader workers and logging intervals
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)  # lightning 2.6 with torch 2.14
            debugging.fill_uninitialized_memory = (
                False  # finds reads of unset memory, at 14 % of the time of a resnet step
            )
            torch.set_num_threads(1)
            for logger, _ in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in loggers:
            logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        debugging.fill_uninitialized_memory = filled
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, ctrl_c)
