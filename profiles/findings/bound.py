"""What the time goes into, in one bar, and what holds the whole back, in one word."""

from __future__ import annotations

from typing import NamedTuple

from ..facts.facts import Facts

# Parts of the window in the order of the bar. Together they are the window.
PARTS = (
    "compute",
    "exposed comm",
    "exposed copies",
    "input",
    "sync",
    "setup",
    "launch",
    "kernel wait",
    "other",
    "unknown",
)
# What a part is called where it is the largest.
WORD = {
    "compute": "compute",
    "exposed comm": "communication",
    "exposed copies": "copy",
    "input": "input",
    "sync": "sync",
    "setup": "setup",
    "launch": "launch",
    "kernel wait": "launch",
    "other": "waiting",
    "unknown": "unknown",
}
# What that means for the reader.
MEANING = {
    "compute": "the GPU computes most of the time: faster kernels are what helps",
    "communication": "the GPU waits for other GPUs most of the time",
    "copy": "the GPU moves data most of the time",
    "input": "the GPU waits for the data loader most of the time",
    "sync": "the host waits for the GPU, and then the GPU for the host",
    "setup": "memory is allocated and kernels are loaded for the first time: profile after a warm-up",
    "launch": "the host cannot issue work as fast as the GPU does it",
    "waiting": "work was queued, but the GPU waited for another stream, another device or the driver",
    "unknown": "most of the time cannot be explained from this file",
}


# Of a trace without a GPU.
ON_CPU = {
    "compute": (
        "operators compute most of the time: faster kernels, lower precision or less work are what helps"
    ),
    "layout": "most of the time goes into copies and other layouts of the same data",
    "framework": (
        "Python and the dispatch of operators take most of the time: fewer, larger operators are what helps"
    ),
    "input": "the data loader takes most of the time",
    "outside operators": "most of the time is in no recorded operator",
}


class Bound(NamedTuple):
    """What the time goes into."""

    # ns, together the window (on a CPU: the steps).
    parts: dict[str, int]
    # What most of it goes into.
    word: str
    # Of the whole, 0 to 1.
    share: float
    # The word in a sentence.
    meaning: str


def of(facts: Facts) -> Bound:
    """Returns what the GPU's window goes into; with nothing in it the word is unknown."""
    line = facts.line
    parts = dict.fromkeys(PARTS, 0)
    parts |= {
        "compute": line.busy.length - line.exposed_all_comm - line.exposed_copies,
        "exposed comm": line.exposed_all_comm,
        "exposed copies": line.exposed_copies,
        "input": facts.lost("input")[0],
        "sync": facts.lost("sync")[0],
        "setup": facts.lost("setup")[0],
        "launch": facts.lost("launch")[0],
        "kernel wait": facts.lost("kernel_wait")[0],
        "other": facts.lost("other")[0],
        "unknown": facts.lost("unknown")[0],
    }
    words: dict[str, int] = {}
    for part, length in parts.items():
        words[WORD[part]] = words.get(WORD[part], 0) + length
    word = max(words, key=lambda candidate: words[candidate]) if line.window else "unknown"
    return Bound(parts, word, words[word] / line.window if line.window else 0.0, MEANING[word])


def on_cpu(facts: Facts) -> Bound | None:
    """Returns what the steps of a trace without a GPU go into, by what operators are for.

    It is None where nothing is recorded.
    """
    whole = sum(facts.on_cpu.values())
    if not whole:
        return None
    word = max(facts.on_cpu, key=lambda part: facts.on_cpu[part])
    return Bound(facts.on_cpu, word, facts.on_cpu[word] / whole, ON_CPU[word])
