"""Where real traces lie, and damaged ones made of them.

`traces/` holds traces that others recorded, as small files with their licences. MANIFEST.json says
what each is and where it comes from, EXPECTED.json what others computed of it, BROKEN.json what a
reader must do with damaged files. Those that are too large for the repository are looked for in
the folder that the variable HOTLAP_TRACES names.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).with_name("traces")
# One entry a file, with its public source.
MANIFEST: dict[str, dict[str, Any]] = {
    entry["file"]: entry for entry in json.loads((FOLDER / "MANIFEST.json").read_bytes())
}
# Figures by trace: folder and name joined by two underscores, without what follows `.json`.
EXPECTED: dict[str, dict[str, Any]] = json.loads((FOLDER / "EXPECTED.json").read_bytes())
BROKEN: list[dict[str, Any]] = json.loads((FOLDER / "BROKEN.json").read_bytes())
# The file that the damaged ones are made of.
CLEAN = "h100_bert_small_infer.json.gz"
# Where the truncated file ends: within an event (BROKEN.json).
CUT_BYTES = 647_137


def trace(name: str) -> Path:
    """Returns the path of a file of the manifest; skips the test where it is neither here nor in
    HOTLAP_TRACES.
    """
    elsewhere = os.environ.get("HOTLAP_TRACES")
    for folder in (FOLDER, *([Path(elsewhere)] if elsewhere else [])):
        if (folder / name).is_file():
            return folder / name
    pytest.skip(
        f"{name} is not in the repository: get {MANIFEST[name]['source']}, name it {name} and set"
        " HOTLAP_TRACES=FOLDER to the folder it is in"
    )


def expected_trace(key: str) -> Path:
    """Returns the path of the trace that a key of EXPECTED stands for."""
    (name,) = [name for name in MANIFEST if name.startswith(key.replace("__", "/") + ".json")]
    return trace(name)


def damaged_trace(rule: dict[str, Any], folder: Path) -> Path:
    """Makes the file of an entry of BROKEN, byte for byte the one that it describes."""
    packed = trace(CLEAN).read_bytes()
    content = DAMAGES[rule["file"]](packed, gzip.decompress(packed))
    assert hashlib.sha256(content).hexdigest() == rule["sha256"]
    path = folder / rule["file"]
    path.write_bytes(content)
    return path


def with_trailing_comma(packed: bytes, text: bytes) -> bytes:
    """Returns the text with a comma after the last event."""
    end = text.index(b'\n  ],\n  "schemaVersion"')
    return text[:end] + b"," + text[end:]


# What the clean file, packed and unpacked, becomes.
DAMAGES: dict[str, Callable[[bytes, bytes], bytes]] = {
    "truncated.json": lambda packed, text: text[:CUT_BYTES],
    "trailing_comma.json": with_trailing_comma,
    "bare_array.json": lambda packed, text: json.dumps(json.loads(text)["traceEvents"]).encode(),
    "plain_named_gz.json.gz": lambda packed, text: text,
    "gz_named_json.json": lambda packed, text: packed,
    "empty_events.json": lambda packed, text: b'{"schemaVersion": 1, "traceEvents": []}',
}
