"""A library that takes away the stack that signals are handled on, each time in a process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from hotlap.perf.machine import signal_stack

# A stack that is there no more, as the plug-in of OpenVINO leaves it; then a signal with a handler.
PLANTED = """
import ctypes, mmap, os, signal
from hotlap.perf.machine import signal_stack

def taken_away():
    memory = mmap.mmap(-1, 65536)
    stack = signal_stack.SignalStack(ctypes.addressof(ctypes.c_char.from_buffer(memory)), 0, 65536)
    signal_stack.give_back(stack)
    ctypes.CDLL(None).munmap(ctypes.c_void_p(stack.address), ctypes.c_size_t(65536))
    memory_is_gone.append(memory)

memory_is_gone = []
%s
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
print("alive", flush=True)
os._exit(0)
"""
OPENVINO = """
import gc, os, signal, threading
import numpy, openvino
from openvino import opset13
from hotlap.perf.lowering import ov_model
from hotlap.perf.machine import signal_stack

before = signal_stack.current()
rows = opset13.parameter([1, 4], numpy.float32)
models = [ov_model.compiled_by(openvino, openvino.Model([opset13.relu(rows)], [rows]), {})]
elsewhere = threading.Thread(target=models.clear)
elsewhere.start()
elsewhere.join()
gc.collect()
assert signal_stack.current().address == before.address
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""


def ended(program: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_without_its_stack_a_process_ends_without_a_word_at_the_next_signal() -> None:
    assert ended(PLANTED % "taken_away()") == (-signal.SIGSEGV, "")
    kept = "with signal_stack.kept():\n    taken_away()"
    assert ended(PLANTED % kept) == (0, "handled\nalive\n")


def test_a_model_of_openvino_that_is_let_go_of_elsewhere_takes_nothing_away() -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'hotlap[openvino]'")
    assert ended(OPENVINO) == (0, "handled\nalive\n")


def test_the_stack_of_this_thread_is_found_and_comes_back() -> None:
    stack = signal_stack.current()
    assert stack is not None
    with signal_stack.kept():
        pass
    again = signal_stack.current()
    assert again is not None and (again.address, again.size) == (stack.address, stack.size)
