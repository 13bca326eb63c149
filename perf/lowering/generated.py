"""What Inductor's own code says of itself, read from the Python that it generated in this process
or from the C++ of a package (aoti.py).

The code is the evidence, since Inductor's counters stay at 0 where a graph comes from the cache.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

# Calls of what Inductor did not generate: in its Python, and in the C++ of AOTInductor through the
# stable C interface (torch/csrc/inductor/aoti_torch/c/shim.h).
PYTHON = re.compile(
    r"(?<!['\"\w.])(?:extern_kernels|torch\.ops\.(?:aten|mkldnn|mkl|onednn))\.(\w+)(?:\.\w+)?\("
)
C = re.compile(r"\baoti_torch_(?:cpu|cuda|mkldnn)_(\w+)\(")
# A kernel from the template of a matrix product names its inner loop so
# (torch/_inductor/codegen/cpp_micro_gemm.py).
TEMPLATE = re.compile(r"^inline void (\w*micro_gemm)\(", re.MULTILINE)
# In a package every parameter is a constant; what freezing made of them has these names
# (torch/_inductor/freezing.py, graph.py).
FROZEN = re.compile(r"_frozen_param\d+|constant\d+")
# In a package's C++: the name of a constant, and one in oneDNN's own layout.
NAMED = re.compile(r"constants_info_\[\d+\]\.name = \"(\w+)\"")
PACKED = re.compile(r"constants_info_\[\d+\]\.layout = [^;]*mkldnn")
# Operators of oneDNN that compute in int8, such as _qlinear_pointwise.
INT8 = re.compile(r"_?q(linear|conv)")


class Code(NamedTuple):
    """What generated code calls and holds.

    operators: calls of libraries, by name. templates: kernels from the C++ GEMM template.
    constants: stored in the code. packed: those of them in oneDNN's own layout.
    """

    operators: dict[str, int]
    templates: int
    constants: int = 0
    packed: int = 0

    @property
    def int8(self) -> int:
        """Linear and convolution layers that run on 8-bit numbers."""
        return sum(count for name, count in self.operators.items() if INT8.match(name))

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.operators.items()) or "none"


def forget() -> None:
    """Drops what this process has generated until now."""
    from torch._inductor.codecache import PyCodeCache

    PyCodeCache.cache_clear()


def here() -> Code:
    """Returns what this process has generated since the last call of `forget`."""
    import torch
    from torch._inductor.codecache import PyCodeCache

    modules = [module for module in PyCodeCache.modules if hasattr(module, "call")]
    stored = [
        value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, torch.Tensor) and FROZEN.fullmatch(name)
    ]
    return read([Path(str(module.__file__)).read_text() for module in modules], PYTHON)._replace(
        constants=len(stored), packed=sum(value.is_mkldnn for value in stored)
    )


def read(sources: list[str], call: re.Pattern[str]) -> Code:
    """Returns what sources say, without constants. call: matches a call of a library."""
    operators = Counter(name for source in sources for name in call.findall(source))
    return Code(dict(operators.most_common()), sum(len(TEMPLATE.findall(source)) for source in sources))


def package(sources: list[str]) -> Code:
    """Returns what the C++ in a package says."""
    named = [name for source in sources for name in NAMED.findall(source)]
    return read(sources, C)._replace(
        constants=sum(FROZEN.fullmatch(name) is not None for name in named),
        packed=sum(len(PACKED.findall(source)) for source in sources),
    )


def frozen(code: Code, parameters: int) -> str:
    """Returns what freezing made of a module's parameters and buffers, in words."""
    if not code.constants:
        return f"freezing was asked for and nothing was frozen, of {parameters} parameters and buffers"
    return (
        f"freezing: {code.constants} constants, {code.packed} of them packed for oneDNN or MKL, stand for"
        f" {parameters} parameters and buffers"
    )


def chosen(code: Code, is_frozen: bool) -> str:
    """Returns what max-autotune chose on a CPU, in words."""
    if code.templates:
        return (
            f"max-autotune: the C++ GEMM template was chosen for {code.templates} products; calls of"
            f" libraries: {code}"
        )
    why = (
        "each was timed faster in a library, or has no template"
        if is_frozen
        else "it takes constant weights only: freezing:on"
    )
    return f"max-autotune: no product took the C++ GEMM template ({why}); calls of libraries: {code}"
