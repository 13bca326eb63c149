"""The stack that a thread handles signals on.

OpenVINO's CPU plug-in (seen with 2026.4) gives the thread that first compiles a model one of its
own, and unmaps that with the last model, whichever thread lets go of it. Where it is another, the
next signal with a handler (Ctrl-C, the end of a loader's worker) ends the process as a segmentation
fault, and no handler can say so: it has no stack to run on.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def current() -> SignalStack | None:
    """Returns that of the calling thread; None outside Linux."""
    stack = SignalStack()
    if sys.platform != "linux" or ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)):
        return None
    return stack


def give_back(stack: SignalStack | None) -> None:
    """Has the calling thread handle signals on this stack again. The kernel refuses one that has
    become too small: then it stays as it is.
    """
    if stack is not None:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None)


@contextmanager
def kept() -> Iterator[None]:
    """Leaves the calling thread with the stack that it has now."""
    stack = current()
    try:
        yield
    finally:
        give_back(stack)
