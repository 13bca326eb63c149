"""What Triton would launch, without launching it: each kernel with the types and the specialisation
that its arguments give it, as the JIT has them.

Tensors may lie on a CPU; nothing is compiled and no driver is asked. For counting variants, and for
compiling ahead of time what somebody else's code launches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock


class Launch(NamedTuple):
    """One launch of a kernel.

    types: argument -> type, as a signature for the compiler has it. divisible: arguments that are
    multiples of 16. options: of the compiler, such as num_warps.
    """

    kernel: Any
    types: dict[str, str]
    constexprs: dict[str, Any]
    divisible: tuple[str, ...]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the kernel's function."""
        return str(self.kernel.fn.__name__)

    @property
    def key(self) -> dict[str, str]:
        """Argument -> what it is compiled for. The JIT compiles once for each key."""
        arguments = {
            name: kind + (" of 16" if name in self.divisible else "") for name, kind in self.types.items()
        }
        return (
            arguments
            | {name: f"={value}" for name, value in self.constexprs.items()}
            | {name: str(value) for name, value in self.options.items()}
        )


def recorded(call: Callable[[], Any], target: str = "sm_90") -> list[Launch]:
    """Returns the launches of a call, in order. Triton must not be in its interpreter."""
    from triton.runtime.jit import JITFunction

    launches: list[Launch] = []

    def run(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        launches.append(launch(kernel, arguments, named, target))

    with mock.patch.object(JITFunction, "run", run):
        call()
    return launches


def launch(kernel: Any, arguments: tuple[Any, ...], named: dict[str, Any], target: str) -> Launch:
    """Returns a launch, by the binder that the JIT itself makes of a kernel's signature."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import make_backend
    from triton.runtime.jit import create_function_from_signature

    backend = make_backend(GPUTarget("cuda", int(target[3:]), 32))
    bound, specialisation, options = create_function_from_signature(kernel.signature, kernel.params, backend)(
        *arguments, **named
    )
    types, constexprs, divisible = {}, {}, []
    for name, (kind, detail) in zip(bound, specialisation, strict=True):
        types[name] = kind
        if kind == "constexpr":
            constexprs[name] = bound[name]
        elif isinstance(detail, str) and "D" in detail:
            divisible.append(name)
    return Launch(kernel, types, constexprs, tuple(divisible), options)
