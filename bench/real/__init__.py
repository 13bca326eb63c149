"""Trained models whose weights ship inside packages, as workloads: bench.real:crepe_tiny.

They need the extra [real]; docs/real-models.md has the licences. Nothing is downloaded at run time.
"""

from .molecules import admet
from .pitch import crepe_full, crepe_tiny
from .sentences import minilm
from .speech import silero, silero_clip, silero_onnx, silero_plain
from .text import ocr

__all__ = [
    "admet",
    "crepe_full",
    "crepe_tiny",
    "minilm",
    "ocr",
    "silero",
    "silero_clip",
    "silero_onnx",
    "silero_plain",
]
