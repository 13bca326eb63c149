"""A user's own Triton kernel compiled and judged like ours.

    hotlap kernels my_package.kernels:add --signature 'x:*bf16, y:*bf16, n:i32,
      BLOCK:constexpr=1024'

Every argument in order, as name:type. Pointers and integers are taken as multiples of 16, which is
what the fast case has; `n:i32!` says that this one is not. What the kernel has under
do_not_specialize is never taken so, because the JIT does not either. A constexpr is a Python
literal, a type such as tl.float32, or else text.
"""

from __future__ import annotations

import ast
import importlib
import re
from typing import Any, NamedTuple

import msgspec

from ..lookup import workloads
from ..lookup.plugins import Unknown
from ..terms.reasons import Misuse
from . import aot, rules
from .builds import plain
from .entries import Entry, Failed

# The types of a scalar, and what a pointer may point to (Triton's ASTSource signatures).
SCALARS = (
    "i1",
    "i8",
    "i16",
    "i32",
    "i64",
    "u8",
    "u16",
    "u32",
    "u64",
    "fp8e4nv",
    "fp8e4b8",
    "fp8e4b15",
    "fp8e5",
    "fp8e5b16",
    "fp16",
    "bf16",
    "fp32",
    "fp64",
)
KIND = re.compile(rf"\**k?(?:{'|'.join(SCALARS)})|tensordesc<.+>")
# A comma between two arguments, not one within the brackets of a constexpr or a type.
COMMA = re.compile(r",(?![^<(\[]*[>)\]])")


class KernelSignature(NamedTuple):
    """What a kernel is compiled for.

    types: argument -> type, in order. divisible: arguments taken as multiples of 16.
    """

    types: dict[str, str]
    constexprs: dict[str, Any]
    divisible: tuple[str, ...]

    @property
    def aligned(self) -> bool:
        """Whether all pointers and integers are multiples of 16: wide loads are possible."""
        return all(
            name in self.divisible
            for name, kind in self.types.items()
            if kind != "i1" and kind.startswith(("*", "i", "u"))
        )


def kernel(reference: str) -> Any:
    """Returns the @triton.jit function behind `package.module:name`.

    Of an autotuned kernel it is the function inside. Raises Misuse, or Unknown for a name that the
    module lacks.
    """
    from triton.runtime.jit import JITFunction

    name, colon, attribute = reference.partition(":")
    if not colon or not attribute:
        raise Misuse(f"{reference!r} is no kernel; expected package.module:kernel")
    workloads.add_user_folder()
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a user's module may raise anything
        raise Misuse(f"{reference!r}: importing {name} fails: {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        raise Unknown(
            f"kernel of {name}",
            attribute,
            [key for key, value in vars(module).items() if hasattr(value, "fn")],
        )
    function = getattr(module, attribute)
    while not isinstance(function, JITFunction) and hasattr(function, "fn"):
        function = function.fn
    if not isinstance(function, JITFunction):
        raise Misuse(f"{reference!r} is {type(function).__name__}, not a function under @triton.jit")
    return function


def signature(text: str, jit: Any) -> KernelSignature:
    """Returns what --signature says.

    Raises Misuse unless it names all of the kernel's arguments and no others, each with a type that
    there is.
    """
    types, constexprs, divisible = {}, {}, []
    names = [parameter.name + ":constexpr=..." * parameter.is_constexpr for parameter in jit.params]
    takes = f"the kernel takes {', '.join(names)}"
    if not text:
        raise Misuse(f"a kernel of your own needs --signature 'name:type, ...'; {takes}")
    free = {
        parameter.name
        for parameter in jit.params
        if not (parameter.do_not_specialize or parameter.do_not_specialize_on_alignment)
    }
    for part in COMMA.split(text):
        name, colon, kind = (word.strip() for word in part.partition(":"))
        kind, equals, value = (word.strip() for word in kind.partition("="))
        if not name or not colon or (kind == "constexpr") != bool(equals):
            raise Misuse(
                f"--signature {part.strip()!r}: expected name:type such as x:*bf16, n:i32, or"
                " BLOCK:constexpr=1024"
            )
        odd = kind.endswith("!")
        types[name] = kind.removesuffix("!")
        if kind == "constexpr":
            constexprs[name] = literal(value)
            continue
        if not KIND.fullmatch(types[name]):
            raise Misuse(
                f"--signature {part.strip()!r}: {types[name]} is no type; there are {', '.join(SCALARS)},"
                " pointers such as *bf16, and tensordesc<bf16[128, 64]>"
            )
        if not odd and name in free and types[name] != "i1" and types[name].startswith(("*", "i", "u")):
            divisible.append(name)
    if list(types) != jit.arg_names:
        raise Misuse(f"--signature has {', '.join(types)}; {takes}, in this order")
    if typed := [
        parameter.name
        for parameter in jit.params
        if parameter.is_constexpr and parameter.name not in constexprs
    ]:
        raise Misuse(f"--signature: {typed[0]} is a tl.constexpr; write {typed[0]}:constexpr=VALUE")
    return KernelSignature(types, constexprs, tuple(divisible))


def literal(value: str) -> Any:
    """Returns a constexpr: a type of triton.language, a Python literal, or else the text."""
    import triton.language as tl

    if isinstance(kind := getattr(tl, value.removeprefix("tl."), None), tl.dtype):
        return kind
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def build(reference: str, text: str, targets: list[str], warps: int, stages: int) -> list[Entry | Failed]:
    """Compiles a kernel of the user's for targets; returns one entry a target.

    The rules apply as far as they can be read from the kernel itself: spills, width of loads,
    tensor cores where it has a product.
    """
    jit = kernel(reference)
    types, constexprs, divisible = wanted = signature(text, jit)
    dtype = next((kind.lstrip("*") for kind in types.values() if kind.startswith("*")), "fp32")
    name, entries = reference.replace("/", "."), list[Entry | Failed]()
    for target in targets:
        try:
            compiled = aot.compile_kernel(jit, types, constexprs, divisible, warps, stages, target)
        except Exception as error:  # the compiler raises many kinds: this kernel cannot be had
            entries.append(Failed(name, dtype, target, aot.why(error)))
            continue
        figures = aot.read(compiled, target)
        broken = rules.broken(figures, target, "", aot.multiplies(compiled), aligned=wanted.aligned)
        config = {
            **{key: plain(value) for key, value in constexprs.items()},
            "num_warps": warps,
            "num_stages": stages,
        }
        entries.append(
            Entry(
                name,
                dtype,
                target,
                config,
                **msgspec.structs.asdict(figures),
                bytes=None,
                flops=None,
                roofline_s=None,
                violations=broken,
            )
        )
    return entries
