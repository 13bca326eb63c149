"""What the time goes into, in one bar, and what holds the whole back, in one word."""

from __future__ import annotations

from typing import NamedTuple

from ..facts.facts import Facts

# Parts of the steps and the GPU's window (Facts.wall), which they are together, in the order of the
# bar.
PARTS = (
    "compute",
    "exposed comm",
    "exposed copies",
    "input",
    "sync",
    "setup",
    "host work",
    "launch",
    "kernel wait",
    "other",
    "unknown",
)
# Of the largest: from here on a second part is named beside it.
CLOSE = 0.8
# What a part is called where it is the largest.
WORD = {
    "compute": "compute",
    "exposed comm": "communication",
    "exposed copies": "copy",
    "input": "input",
    "sync": "sync",
    "setup": "setup",
    "host work": "host work",
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
    "host work": "the host computes on tensors of its own, and the GPU waits for it",
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

    # ns, together the steps and the GPU's window.
    parts: dict[str, int]
    # What most of it goes into.
    word: str
    # Of the whole, 0 to 1.
    share: float
    # The word in a sentence.
    meaning: str
    # What nearly as much goes into, and its share; empty where nothing does.
    second: str = ""
    second_share: float = 0.0

    @property
    def whole(self) -> int:
        """What is accounted for, ns."""
        return sum(self.parts.values())


def of(facts: Facts) -> Bound:
    """Returns what steps and the GPU's window go into; with nothing in them the word is unknown."""
    line = facts.line
    parts = dict.fromkeys(PARTS, 0)
    parts |= {
        "compute": line.busy.length - line.exposed_all_comm - line.exposed_copies,
        "exposed comm": line.exposed_all_comm,
        "exposed copies": line.exposed_copies,
        "input": facts.lost("input")[0],
        "sync": facts.lost("sync")[0],
        "setup": facts.lost("setup")[0],
        "host work": facts.lost("host work")[0],
        "launch": facts.lost("launch")[0],
        "kernel wait": facts.lost("kernel_wait")[0],
        "other": facts.lost("other")[0],
        "unknown": facts.lost("unknown")[0],
    }
    words: dict[str, int] = {}
    for part, length in parts.items():
        words[WORD[part]] = words.get(WORD[part], 0) + length
    return named(parts, words, MEANING)


def named(parts: dict[str, int], words: dict[str, int], meanings: dict[str, str]) -> Bound:
    """Returns the bound by the ns of each word; a second word stands beside one that it is near."""
    whole = sum(words.values())
    if not whole:
        return Bound(parts, "unknown", 0.0, meanings.get("unknown", ""))
    word, *others = sorted(words, key=lambda candidate: -words[candidate])
    second = others[0] if others and words[others[0]] >= CLOSE * words[word] else ""
    share = words[second] / whole if second else 0.0
    return Bound(parts, word, words[word] / whole, meanings[word], second, share)


def on_cpu(facts: Facts) -> Bound | None:
    """Returns what the steps of a trace without a GPU go into, by what operators are for.

    It is None where nothing is recorded.
    """
    return named(facts.on_cpu, facts.on_cpu, ON_CPU) if sum(facts.on_cpu.values()) else None
