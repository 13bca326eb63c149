"""Arrays of an artefact that comes from elsewhere: what would take more memory than the file has
bytes, or would run code, is refused before it is loaded.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotlap.perf.artefacts import npz
from hotlap.perf.terms.reasons import Unreadable

ARRAYS = {"in0": np.arange(12, dtype=np.float32).reshape(3, 4), "ref0": np.zeros((3, 1)), "n": np.array(7)}


def header(shape: str, descr: str = "'<f8'") -> bytes:
    """The beginning of an array's file."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zipped(path: Path, content: bytes, packed: int = zipfile.ZIP_STORED, names: Any = ("in0.npy",)) -> None:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name in names:
            archive.writestr(name, content)


def bomb(path: Path) -> None:
    """A gigabyte in a megabyte."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("in0.npy", "w", force_zip64=True) as file,
    ):
        file.write(header("(134217728,)"))
        for _ in range(1024):
            file.write(bytes(1 << 20))


def overlapping(path: Path) -> None:
    """Many entries of the table of contents that share one member."""
    zipped(path, header("(1000,)") + bytes(8000))
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry, tail = content[start:end], bytearray(content[end:])
    name = entry.index(b"in0.npy")
    entries = b"".join(entry[:name] + b"in%d.npy" % index + entry[name + 7 :] for index in range(10))
    tail[8:12] = struct.pack("<HH", 10, 10)
    tail[12:16] = struct.pack("<I", len(entries))
    path.write_bytes(content[:start] + entries + tail)


def pickled(path: Path) -> None:
    zipped(path, header("(1,)", "'|O'") + pickle.dumps(print))


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "bomb": (bomb, "unpacks to more than it holds"),
    "packed": (lambda path: np.savez_compressed(path, **ARRAYS), "is packed"),
    "overlapping": (overlapping, "unpacks to more than it holds"),
    "huge shape": (lambda path: zipped(path, header("(1 << 40,)".replace("1 << 40", str(1 << 40)))), "large"),
    "huge product": (lambda path: zipped(path, header(f"({1 << 62}, {1 << 62})")), "not as large"),
    "negative": (lambda path: zipped(path, header("(-8,)")), "shape (-8,)"),
    "two that cancel": (lambda path: zipped(path, header("(-1, -1)") + bytes(8)), "shape (-1, -1)"),
    "short": (lambda path: zipped(path, header("(9,)") + bytes(8)), "not as large as it says"),
    "long": (lambda path: zipped(path, header("(1,)") + bytes(800)), "not as large as it says"),
    "pickled": (pickled, "pickled objects"),
    "long header": (lambda path: zipped(path, header("(1,)" + " " * 60_000) + bytes(8)), "npz"),
    "deep header": (lambda path: zipped(path, header("(" * 9000 + ")" * 9000) + bytes(8)), "npz"),
    "no array": (lambda path: zipped(path, b"text"), "not arrays of hotlap"),
    "empty member": (lambda path: zipped(path, b""), "not arrays of hotlap"),
    "no zip": (lambda path: path.write_bytes(b"text"), "not arrays of hotlap: File is not a zip file"),
    "empty": (lambda path: path.write_bytes(b""), "not arrays of hotlap"),
    "twice": (
        lambda path: zipped(path, header("(1,)") + bytes(8), names=("a.npy", "b.npy", "a.npy")),
        "two of one name",
    ),
}


def test_what_numpy_saves_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", allow_pickle=False, **ARRAYS)  # type: ignore[arg-type]
    npz.check(tmp_path / "reference.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", BAD)
def test_what_would_take_more_than_the_file_holds_is_one_line(name: str, tmp_path: Path) -> None:
    plant, words = BAD[name]
    plant(tmp_path / "reference.npz")
    with pytest.raises(Unreadable) as caught:
        npz.check(tmp_path / "reference.npz")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_any_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """What the check lets pass, numpy loads into no more memory than the file has bytes."""
    buffer, path = io.BytesIO(), tmp_path / "reference.npz"
    np.savez(buffer, allow_pickle=False, **ARRAYS)  # type: ignore[arg-type]
    content = buffer.getvalue()
    for position in range(0, len(content), 3):
        for value in (0, 0x7F, 0xFF):
            path.write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
            try:
                npz.check(path)
            except Unreadable:
                continue
            try:
                with np.load(path, allow_pickle=False) as stored:
                    assert sum(stored[name].nbytes for name in stored.files) <= len(content)
            except (zipfile.BadZipFile, ValueError):
                continue  # a checksum, which only who reads all of it sees
