"""What a .npz of an artefact may be: what numpy.savez wrote, and no more than the file holds.

numpy trusts the header of an array (its shape is allocated before a byte is read) and unpacks
whatever a member says: a folder from elsewhere could ask for any amount of memory. numpy.savez
packs nothing, so that no member of ours is larger than what it takes in the file.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO

from ..terms.reasons import Unreadable
from ..terms.stored import line

# Members: a model has some inputs and outputs, each in some precisions.
MOST_ARRAYS = 100_000
# Characters of an array's header, as numpy's own limit.
MOST_HEADER = 10_000
# What zipfile raises for a damaged or foreign table of contents, and numpy for a header.
DAMAGED = (
    OSError,
    ValueError,
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    MemoryError,
    SyntaxError,
)


def check(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of a file's arrays.

    Raises Unreadable where loading it would take more memory than it has bytes, or would need
    pickle.
    """
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_ARRAYS or len({member.filename for member in members}) < len(members):
                raise ValueError(f"{len(members)} arrays, or two of one name")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError("it unpacks to more than it holds")
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
                    raise ValueError(f"{member.filename} is packed, which hotlap never does")
                with archive.open(member) as file:
                    shape, size = described(file)
                    if size != member.file_size - file.tell():
                        raise ValueError(f"{member.filename} is not as large as it says")
                shapes[member.filename.removesuffix(".npy")] = shape
    except DAMAGED as error:
        raise Unreadable(f"{path}: not arrays of hotlap: {line(error)}") from None
    return shapes


def described(file: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """Returns shape and bytes of the array whose header is read. Raises ValueError."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version} of numpy")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file, max_header_size=MOST_HEADER)
    if dtype.hasobject:
        raise ValueError("its elements are pickled objects")
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return tuple(shape), math.prod(shape) * dtype.itemsize
