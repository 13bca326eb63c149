"""Layer profiles of TensorRT as the same tables.

trtexec writes them (--exportProfile, with --exportLayerInfo beside it) under the names of TREx.

A layer is one kernel by its tactic, behind it the layer's type as operator. TensorRT says how long
a layer took, not when, and times each layer alone: the layers together take longer than the engine
(1.02 to 1.37 times in the traces of tests/profiles/traces/trt), which stands in a file of its own.

    NAME.profile.json            times; the file to give         NAME.graph.json   types, shapes,
                                 tactics
    NAME.profile.metadata.json   the engine's own time           NAME.metadata.json   the device
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ...perf.terms.reasons import Unreadable
from .trace import NONE, Calls, Damage, Gpu, Kind, Memory, Rows, Spans, Trace

# Bytes: the profiles of the largest networks have some megabytes.
LARGEST = 256 << 20
TEXT = rb'"(?:[^"\\]|\\.)*"'
# A list whose objects have a time a layer, whatever the layers are called; or the graph that lies
# beside it.
BEGINS = re.compile(
    rb'\s*\[\s*\{(?:[^{}"]|' + TEXT + rb'|\}\s*,\s*\{)*?"(?:averageMs|timeMs)"\s*:|\s*\{\s*"Layers"\s*:',
    re.DOTALL,
)
# A list that begins with the number of runs.
COUNTED = re.compile(rb'\s*\[\s*\{\s*"count"\s*:')
# What the names of the four files end in.
SUFFIXES = ("profile.json", "graph.json", "profile.metadata.json", "metadata.json")
# What a format of TensorRT contains, and the precision that it is.
TYPES = (
    (r"int8", "int8"),
    (r"bf16|bfloat", "bf16"),
    (r"fp16|half", "fp16"),
    (r"fp8", "fp8"),
    (r"fp32|float", "fp32"),
)
# The step that the engine's own time stands in (facts/steps.py).
RUN = "engine"
# All layers together; beyond it the clock would overflow.
LONGEST_NS = 1 << 60


class Profiled(msgspec.Struct):
    """One layer, or the number of runs in front of the layers."""

    name: str = ""
    # ms, as its text, for whole nanoseconds.
    average: msgspec.Raw = msgspec.field(name="averageMs", default=msgspec.Raw(b""))
    count: int | None = None


def recognised(start: bytes) -> bool:
    """Returns whether a file that begins so is a layer profile, or the graph beside one."""
    return (COUNTED.match(start) or BEGINS.match(start)) is not None


def read(path: Path) -> Trace:
    """Reads a layer profile, by the name of its times or of its graph.

    Raises Unreadable and OSError.
    """
    stem = next(
        (path.name.removesuffix(suffix) for suffix in SUFFIXES if path.name.endswith("." + suffix)), ""
    )
    files = {suffix: path.with_name(stem + suffix) if stem else None for suffix in SUFFIXES}
    profile = files["profile.json"] or path
    if not profile.is_file():
        raise Unreadable(
            f"{path}: layers without times; {profile.name} (trtexec --exportProfile) must lie beside it"
        )
    listed = decoded(profile, list[Profiled])
    damage = Damage()
    about = layers(files["graph.json"], damage)
    device = device_name(files["metadata.json"], damage)
    engine_ms = engine_time(files["profile.metadata.json"], damage)
    laid = lay(listed, about, damage)
    if laid.end > LONGEST_NS:
        raise Unreadable(f"{profile}: its layers together last for years: no profile of an engine")
    if not laid.number:
        raise Unreadable(f"{profile}: a profile of TensorRT without layers")
    names, notes = laid.names, Rows(*Spans.__dataclass_fields__)
    if engine_ms is not None and (engine_ns := round(engine_ms * 1_000_000)) > 0:
        notes.add((0, engine_ns, names.setdefault(RUN, len(names)), 0, NONE, NONE, NONE))
    nothing = Spans(**Rows(*Spans.__dataclass_fields__).columns())
    return Trace(
        path=str(profile),
        source="tensorrt",
        header={"deviceProperties": [{"name": device}]} if device else {},
        names=list(names),
        lanes=[("TensorRT", "engine")],
        shapes=list(laid.shapes),
        launches=[],
        groups=[],
        gpu=Gpu(**laid.gpu.columns()),
        calls=Calls(**Rows(*Calls.__dataclass_fields__).columns()),
        operators=Spans(**laid.operators.columns()),
        notes=Spans(**notes.columns()),
        frames=nothing,
        spans=nothing,
        memory=Memory(**{name: np.empty(0, np.int64) for name in Memory.__dataclass_fields__}),
        phases={"layer": laid.number},
        categories={},
        others={},
        odd={},
        labels={},
        damage=damage,
    )


class Laid(NamedTuple):
    """Layers laid one after the other."""

    # Names and shapes by code.
    names: dict[str, int]
    shapes: dict[bytes, int]
    # Rows of Gpu and Spans.
    gpu: Rows
    operators: Rows
    # Number of layers.
    number: int
    # ns of all together.
    end: int


def lay(listed: list[Profiled], about: dict[str, dict[str, Any]], damage: Damage) -> Laid:
    """Returns each layer as a kernel and the operator behind it; what has no time is lost."""
    names, shapes = dict[str, int](), dict[bytes, int]()
    gpu, operators = Rows(*Gpu.__dataclass_fields__), Rows(*Spans.__dataclass_fields__)
    clock = number = 0
    for layer in listed:
        if layer.count is not None and not layer.name:
            continue
        length = nanoseconds(layer.average)
        if length is None:
            damage.lost["a layer without a time"] += 1
            continue
        known = about.get(layer.name, {})
        kind = names.setdefault(str(known.get("LayerType") or guessed(layer.name)), len(names))
        shape = shaped(known)
        code = NONE if shape is None else shapes.setdefault(shape, len(shapes))
        operators.add((clock, length, kind, 0, number, code, NONE))
        kernel = names.setdefault(str(known.get("TacticName") or layer.name), len(names))
        # Device and stream 0; its operator is known by number; nothing else is.
        unknown = (NONE, NONE, NONE)
        gpu.add((clock, length, kernel, Kind.KERNEL, 0, 0, NONE, number, *unknown, 0, NONE))
        clock, number = clock + length, number + 1
    return Laid(names, shapes, gpu, operators, number, clock)


def decoded(path: Path, kind: Any) -> Any:
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"{path}: {path.stat().st_size / 1e6:.0f} MB are no profile of TensorRT")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"{path}: not a profile of TensorRT as trtexec writes it: {error}") from None


def beside(path: Path | None, damage: Damage, what: str) -> Any:
    """Returns what a file beside the profile holds; None where it is not there or damaged, and a
    note of what is then unknown.
    """
    try:
        if path is not None and path.is_file():
            return decoded(path, Any)
        return lacking(damage, f"{what} unknown: {path.name if path else 'its file'} is not there")
    except Unreadable as error:
        return lacking(damage, f"{what} unknown: {error}")


def lacking(damage: Damage, note: str) -> None:
    damage.notes[note] = None


def layers(path: Path | None, damage: Damage) -> dict[str, dict[str, Any]]:
    """Returns what the graph says of each layer by name; nothing if it has names only."""
    graph = beside(path, damage, "types and shapes of the layers are")
    listed = graph.get("Layers") if isinstance(graph, dict) else None
    if not isinstance(listed, list):
        return {}
    return {str(layer.get("Name")): layer for layer in listed if isinstance(layer, dict)}


def device_name(path: Path | None, damage: Damage) -> str:
    metadata = beside(path, damage, "the device is")
    first = metadata[0] if isinstance(metadata, list) and metadata else metadata
    return str(first.get("Name") or "") if isinstance(first, dict) else ""


def engine_time(path: Path | None, damage: Damage) -> float | None:
    """Returns the median of the engine's own runs in ms (trtexec: min, max, mean, median, 99 %)."""
    metadata = beside(path, damage, "the engine's own time is")
    try:
        median = metadata["performance_summary"]["GPU Compute Time"][3]
    except (TypeError, KeyError, IndexError):
        return None
    return float(median) if type(median) in (int, float) and 0 < median < 1e9 else None


def nanoseconds(text: msgspec.Raw) -> int | None:
    """Returns the nanoseconds of a text of milliseconds; None where it is no time."""
    try:
        ns = Decimal(bytes(text).decode()) * 1_000_000
    except (ArithmeticError, UnicodeDecodeError):
        return None
    return int(ns.to_integral_value()) if ns.is_finite() and 0 <= ns < 1 << 60 else None


def guessed(name: str) -> str:
    """Returns the type of a layer without its graph, of which only the name is known."""
    return "Reformat" if "Reformat" in name or "CopyNode" in name else "layer"


def shaped(layer: dict[str, Any]) -> bytes | None:
    """Returns the shapes of a convolution as torch would have recorded them (roofline.py), in JSON:
    input and weight, type, then stride, padding and dilation; None of other layers.
    """
    try:
        (entering, *_), (leaving, *_) = layer["Inputs"], layer["Outputs"]
        x, groups, window = entering["Dimensions"], layer.get("Groups", 1), layer["Kernel"]
        weight = [layer["OutMaps"], x[1] // groups, *window]
        settings = [
            msgspec.json.encode(layer[name]).decode() for name in ("Stride", "PrePadding", "Dilation")
        ]
        # Results may leave in another type than the products were made in: what goes in decides.
        after = precision(leaving["Format/Datatype"], "unknown")
        before = precision(entering["Format/Datatype"], after)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError):
        return None
    return msgspec.json.encode([[x, weight], [before], ["", "", "", *settings]])


def precision(form: str, otherwise: str) -> str:
    """Returns the precision that a format of TensorRT names, else the other."""
    return next((name for pattern, name in TYPES if re.search(pattern, form, re.IGNORECASE)), otherwise)
