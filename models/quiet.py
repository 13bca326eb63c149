"""Trains inside somebody else's process: Lightning prints nothing, and the process stays as it was.

How many threads a training takes is its configuration's. Our own networks take one: they are small,
results then do not depend on the number of cores, and a busy machine does not slow training out of
proportion (seen on 2 cores with other work on them: 2 threads took 5 to 10 times as long as 1).
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning

# Those that print what a training is about to do, and advice.
LIGHTNING_LOGGERS = ("lightning.pytorch", "lightning.fabric")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Restores afterwards what training changes.

    That is random state, determinism, threads, environment variables, log levels, warnings and the
    meaning of Ctrl-C.
    """
    loggers = [(logging.getLogger(name), logging.getLogger(name).level) for name in LIGHTNING_LOGGERS]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    debugging: Any = torch.utils.deterministic
    fills_memory = debugging.fill_uninitialized_memory
    threads = torch.get_num_threads()
    drawn = np.random.get_state(), random.getstate()
    environment = dict(os.environ)
    ctrl_c = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng():
            # Of what Lightning's command line calls in jsonargparse.
            os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"
            # Advice on dataloader workers and logging intervals.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning 2.6 with torch 2.14.
            warnings.filterwarnings("ignore", r".*LeafSpec", FutureWarning)
            # The training says so itself, and stops.
            warnings.filterwarnings("ignore", r"Total length of .* across ranks is zero")
            # A run that is resumed has checkpoints.
            warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
            # It shows reads of unset memory, and takes 14 % of the time of a resnet step.
            debugging.fill_uninitialized_memory = False
            for logger, _ in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in loggers:
            logger.setLevel(level)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        debugging.fill_uninitialized_memory = fills_memory
        torch.set_num_threads(threads)
        np.random.set_state(drawn[0])
        random.setstate(drawn[1])
        os.environ.clear()
        os.environ.update(environment)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, ctrl_c)
