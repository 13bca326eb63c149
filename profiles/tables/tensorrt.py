"""Layer profiles of TensorRT, as trtexec writes them (--exportProfile, with --exportLayerInfo
beside it; the names of TREx), as the same tables.

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
from typing import Any

import msgspec
import numpy as np

from .events import Unreadable
from .trace import NONE, Calls, Damage, Gpu, Kind, Memory, Rows, Spans, Trace

LARGEST = 256 << 20
TEXT = rb'"(?:[^"\\]|\\.)*"'
# A list whose objects have a time a layer, whatever the layers are called; or the graph that lies
# beside it.
BEGINS = re.compile(
    rb'\s*\[\s*\{(?:[^{}"]|' + TEXT + rb'|\}\s*,\s*\{)*?"(?:averageMs|timeMs)"\s*:|\s*\{\s*"Layers"\s*:',
    re.DOTALL,
)
COUNTED = re.compile(rb'\s*\[\s*\{\s*"count"\s*:')
SUFFIXES = ("profile.json", "graph.json", "profile.metadata.json", "metadata.json")
TYPES = (
    (r"int8", "int8"),
    (r"bf16|bfloat", "bf16"),
    (r"fp16|half", "fp16"),
    (r"fp8", "fp8"),
    (r"fp32|float", "fp32"),
)
RUN = "engine"
LONGEST_NS = 1 << 60


class Profiled(msgspec.Struct):
    """One layer. averageMs: as its text, for whole nanoseconds."""

    name: str = ""
    average: msgspec.Raw = msgspec.field(name="averageMs", default=msgspec.Raw(b""))
    count: int | None = None


def recognised(start: bytes) -> bool:
    return (COUNTED.match(start) or BEGINS.match(start)) is not None


def read(path: Path) -> Trace:
    """Raises Unreadable and OSError."""
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
    names, shapes, lanes = dict[str, int](), dict[bytes, int](), [("TensorRT", "engine")]
    gpu = Rows(*Gpu.__dataclass_fields__)
    operators = Rows(*Spans.__dataclass_fields__)
    notes = Rows(*Spans.__dataclass_fields__)
    clock = number = 0
    for layer in listed:
        if layer.count is not None and not layer.name:
            continue
        length = nanoseconds(layer.average)
        if length is None:
            damage.lost["a layer without a time"] += 1
            continue
        known = about.get(layer.name, {})
        kind = str(known.get("LayerType") or guessed(layer.name))
        shape = shaped(known)
        code = NONE if shape is None else shapes.setdefault(shape, len(shapes))
        operators.add((clock, length, names.setdefault(kind, len(names)), 0, number, code, NONE))
        kernel = str(known.get("TacticName") or layer.name)
        gpu.add(
            (
                clock,
                length,
                names.setdefault(kernel, len(names)),
                Kind.KERNEL,
                0,
                0,
                NONE,
                number,
                NONE,
                NONE,
                NONE,
                0,
                NONE,
            )
        )
        clock, number = clock + length, number + 1
        if clock > LONGEST_NS:
            raise Unreadable(f"{profile}: its layers together last for years: no profile of an engine")
    if not number:
        raise Unreadable(f"{profile}: a profile of TensorRT without layers")
    if engine_ms is not None and (engine_ns := round(engine_ms * 1_000_000)) > 0:
        notes.add((0, engine_ns, names.setdefault(RUN, len(names)), 0, NONE, NONE, NONE))
    nothing = Spans(**Rows(*Spans.__dataclass_fields__).columns())
    return Trace(
        path=str(profile),
        source="tensorrt",
        header={"deviceProperties": [{"name": device}]} if device else {},
        names=list(names),
        lanes=list(lanes),
        shapes=list(shapes),
        launches=[],
        groups=[],
        gpu=Gpu(**gpu.columns()),
        calls=Calls(**Rows(*Calls.__dataclass_fields__).columns()),
        operators=Spans(**operators.columns()),
        notes=Spans(**notes.columns()),
        frames=nothing,
        spans=nothing,
        memory=Memory(**{name: np.empty(0, np.int64) for name in Memory.__dataclass_fields__}),
        phases={"layer": number},
        categories={},
        others={},
        odd={},
        labels={},
        damage=damage,
    )


def decoded(path: Path, kind: Any) -> Any:
    if path.stat().st_size > LARGEST:
        raise Unreadable(f"{path}: {path.stat().st_size / 1e6:.0f} MB are no profile of TensorRT")
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"{path}: not a profile of TensorRT as trtexec writes it: {error}") from None


def beside(path: Path | None, damage: Damage, what: str) -> Any:
    """A file beside the profile, None where it is not there or damaged; what is then unknown is
    said.
    """
    try:
        return (
            decoded(path, Any)
            if path is not None and path.is_file()
            else lacking(damage, f"{what} unknown: {path.name if path else 'its file'} is not there")
        )
    except Unreadable as error:
        return lacking(damage, f"{what} unknown: {error}")


def lacking(damage: Damage, said: str) -> None:
    damage.notes[said] = None


def layers(path: Path | None, damage: Damage) -> dict[str, dict[str, Any]]:
    """By name. A graph that was exported with names only has no more than these."""
    found = beside(path, damage, "types and shapes of the layers are")
    listed = found.get("Layers") if isinstance(found, dict) else None
    return (
        {str(layer.get("Name")): layer for layer in listed if isinstance(layer, dict)}
        if isinstance(listed, list)
        else {}
    )


def device_name(path: Path | None, damage: Damage) -> str:
    found = beside(path, damage, "the device is")
    first = found[0] if isinstance(found, list) and found else found
    return str(first.get("Name") or "") if isinstance(first, dict) else ""


def engine_time(path: Path | None, damage: Damage) -> float | None:
    """ms: the median of the engine's own runs (trtexec: min, max, mean, median, 99 %)."""
    found = beside(path, damage, "the engine's own time is")
    try:
        median = found["performance_summary"]["GPU Compute Time"][3]
    except (TypeError, KeyError, IndexError):
        return None
    return float(median) if type(median) in (int, float) and 0 < median < 1e9 else None


def nanoseconds(text: msgspec.Raw) -> int | None:
    """Of the text of milliseconds."""
    try:
        found = Decimal(bytes(text).decode()) * 1_000_000
    except (ArithmeticError, UnicodeDecodeError):
        return None
    return int(found.to_integral_value()) if found.is_finite() and 0 <= found < 1 << 60 else None


def guessed(name: str) -> str:
    """Without its graph a layer has only its name."""
    return "Reformat" if "Reformat" in name or "CopyNode" in name else "layer"


def shaped(layer: dict[str, Any]) -> bytes | None:
    """Shapes of a convolution as torch would have recorded them (roofline.py): input and weight,
    type, then stride, padding and dilation.
    """
    try:
        (given, *_), (made, *_) = layer["Inputs"], layer["Outputs"]
        x, groups, window = given["Dimensions"], layer.get("Groups", 1), layer["Kernel"]
        weight = [layer["OutMaps"], x[1] // groups, *window]
        settings = [
            msgspec.json.encode(layer[name]).decode() for name in ("Stride", "PrePadding", "Dilation")
        ]
        precision = next(
            (name for pattern, name in TYPES if re.search(pattern, made["Format/Datatype"], re.IGNORECASE)),
            "unknown",
        )
        # Reduced results may leave in another type than the products were made in: what goes in
        # decides.
        entered = next(
            (name for pattern, name in TYPES if re.search(pattern, given["Format/Datatype"], re.IGNORECASE)),
            precision,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ZeroDivisionError):
        return None
    return msgspec.json.encode([[x, weight], [entered], ["", "", "", *settings]])
