"""A user's own Triton kernel compiled and judged like ours.

    hotlap kernels my_package.kernels:add --signature 'x:*bf16, y:*bf16, n:i32, BLOCK:constexpr=1024'

Every argument in order, as name:type. Pointers and integers are taken as multiples of 16, which is what the fast case has; `n:i32!` says that this one is not.
"""

from __future__ import annotations

import ast
import importlib
from typing import Any, NamedTuple

import msgspec

from . import aot, kernel_rules, workloads
from .kernel_entries import Entry, Failed
from .plugins import Unknown
from .reasons import Misuse


class Signature(NamedTuple):
    types: dict[str, str]
    constexprs: dict[str, Any]
    divisible: tuple[str, ...]

    @property
    def aligned(self) -> bool:
        return all(name in self.divisible for name, kind in self.types.items() if kind.startswith(("*", "i", "u")))


def kernel(reference: str) -> Any:
    """The @triton.jit function behind `package.module:name`; of an autotuned one its function. Raises Misuse."""
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
        raise Unknown(f"kernel of {name}", attribute, [key for key, value in vars(module).items() if hasattr(value, "fn")])
    found = getattr(module, attribute)
    while not isinstance(found, JITFunction) and hasattr(found, "fn"):
        found = found.fn
    if not isinstance(found, JITFunction):
        raise Misuse(f"{reference!r} is a {type(found).__name__}, not a function under @triton.jit")
    return found


def signature(text: str, names: list[str]) -> Signature:
    """Raises Misuse unless the text names the kernel's arguments, all of them and no others."""
    types, constexprs, divisible = {}, {}, []
    for part in text.split(","):
        name, colon, kind = (word.strip() for word in part.partition(":"))
        kind, equals, value = (word.strip() for word in kind.partition("="))
        if not name or not colon or (kind == "constexpr") != bool(equals):
            raise Misuse(f"--signature {part.strip()!r}: expected name:type such as x:*bf16, n:i32, or BLOCK:constexpr=1024")
        odd = kind.endswith("!")
        types[name] = kind.removesuffix("!")
        if kind == "constexpr":
            constexprs[name] = literal(value)
        elif not odd and types[name].startswith(("*", "i", "u")):
            divisible.append(name)
    if list(types) != names:
        raise Misuse(f"--signature has {', '.join(types)}; the kernel takes {', '.join(names)}, in this order")
    return Signature(types, constexprs, tuple(divisible))


def literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def build(reference: str, text: str, targets: list[str], warps: int, stages: int) -> list[Entry | Failed]:
    """One entry a target; the rules apply as far as they can be read from the kernel itself: spills, width of loads, tensor cores where it has a product."""
    jit = kernel(reference)
    said = signature(text, list(jit.arg_names))
    dtype = next((kind.lstrip("*") for kind in said.types.values() if kind.startswith("*")), "fp32")
    name, found = reference.replace("/", "."), list[Entry | Failed]()
    for target in targets:
        try:
            made = aot.made(jit, said.types, said.constexprs, said.divisible, warps, stages, target)
        except Exception as error:  # the compiler raises many kinds, all meaning that this kernel cannot be had
            found.append(Failed(name, dtype, target, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))
            continue
        figures = aot.read(made, target)
        broken = kernel_rules.broken(figures, target, dtype, aot.multiplies(made), aligned=said.aligned)
        config = {**said.constexprs, "num_warps": warps, "num_stages": stages}
        found.append(Entry(name, dtype, target, config, **msgspec.structs.asdict(figures), bytes=None, flops=None, roofline_s=None, violations=broken))
    return found
