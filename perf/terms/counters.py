"""The exact structural integers that a result may carry; the structural gate reads nothing else."""

from __future__ import annotations

from typing import NamedTuple

from .case import Better


class Counter(NamedTuple):
    """What a counter counts: the unit of its number, which way is better, and the meaning."""

    unit: str
    better: Better
    meaning: str
    # Whether a worse number is harm by itself; one that is not says how the work is cut up, and a
    # model that got faster with more of it got better.
    harm: bool = True


# Name -> what it counts.
COUNTERS: dict[str, Counter] = {
    "graph_breaks": Counter("breaks", "lower", "places where dynamo gave up tracing and went back to Python"),
    "graphs": Counter("graphs", "lower", "graphs that dynamo handed to the compiler", False),
    "recompiles": Counter("compilations", "lower", "compilations after the first one of the same code"),
    "generated_kernels": Counter("kernels", "lower", "kernels that Inductor generated", False),
    "cuda_graphs": Counter("graphs", "higher", "CUDA graphs that were captured"),
    "cuda_graphs_skipped": Counter(
        "graphs", "lower", "graphs that ran without the CUDA graph that was asked for"
    ),
    "operators": Counter("calls", "lower", "aten operators dispatched in one call", False),
    "nodes": Counter("nodes", "lower", "nodes of the graph that the runtime executes", False),
    "nodes_elsewhere": Counter("nodes", "lower", "nodes that ran on another provider than the requested one"),
    "memcpy_nodes": Counter("nodes", "lower", "copies between providers"),
    "casts_inserted": Counter("nodes", "lower", "precision casts that the runtime added"),
    "nodes_other_precision": Counter(
        "nodes", "lower", "floating-point nodes executed in another precision than the requested one"
    ),
    "int8_nodes": Counter("nodes", "higher", "nodes that computed in int8"),
    "engines": Counter(
        "engines", "lower", "TensorRT engines; more than one means that the graph was cut", False
    ),
    "engine_bytes": Counter("B", "lower", "size of the TensorRT engine"),
    "kernel_calls": Counter("calls", "higher", "calls of our Triton operations in one call of the model"),
    "kernel_fallbacks": Counter(
        "calls", "lower", "calls of our operations that took the reference although Triton was asked for"
    ),
    "modules_replaced": Counter("modules", "higher", "places where our operations stand in for aten's"),
    "artefact_bytes": Counter("B", "lower", "size of what the build left behind"),
}
