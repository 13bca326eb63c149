"""What our networks are made of, counted by running them, for docs/models/architecture.md.

    python -m bench.architectures            prints them
    python -m bench.architectures --write    writes them into the page; a test has both alike

FLOPs are those of one sample's forward pass, counted by torch.utils.flop_counter: two for each
multiplication with addition, products of matrices, convolutions and attention alone.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hotlap.models.catalog import names, network
from hotlap.models.trainable import Trainable

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models" / "architecture.md"
# What stands around the section in the page.
BEGIN, END = "<!-- python -m bench.architectures --write -->", "<!-- end of what it writes -->"


def built(name: str, preset: str) -> Trainable:
    """Returns a network without values: shapes are enough, and the large presets have gigabytes."""
    presets = importlib.import_module(f"hotlap.models.nets.{name}").PRESETS
    with torch.device("meta"):
        return network(name)(**presets[preset]).eval()


def parameters(module: nn.Module) -> int:
    """Returns how many numbers a module is trained by; tied ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def counted(net: Trainable) -> tuple[dict[str, int], dict[str, tuple[int, ...]], Tensor, Tensor]:
    """Returns FLOPs and shape of the output of each part by its name, and what goes in and out."""
    shapes: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        def kept(_: Any, __: Any, output: Any) -> None:
            shapes.setdefault(name, tuple((output if isinstance(output, Tensor) else output[0]).shape))

        return kept

    for name, part in parts(net).items():
        part.register_forward_hook(keep(name))
    inputs = net.example().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = net(inputs)
    root = type(net).__name__
    flops = {
        name.removeprefix(root).removeprefix("."): sum(each.values())
        for name, each in counter.get_flop_counts().items()
        if name != "Global"
    }
    return {**flops, "": counter.get_total_flops()}, shapes, inputs, output


def parts(net: nn.Module) -> dict[str, nn.Module]:
    """Returns the parts that a diagram shows: children, and those of a row of blocks."""
    shown: dict[str, nn.Module] = {}
    for name, child in net.named_children():
        blocks = isinstance(child, nn.Sequential | nn.ModuleList) and any(
            list(part.children()) for part in child.children()
        )
        shown |= {f"{name}.{key}": part for key, part in child.named_children()} if blocks else {name: child}
    return shown


def shape(sizes: tuple[int, ...]) -> str:
    """Returns a shape with B for the batch."""
    return f"({', '.join(['B', *map(str, sizes[1:])])})"


def table() -> str:
    """Returns all networks in Markdown."""
    lines = ["| network | preset | input | output | parameters | FLOPs |", "|---|---|---|---|---:|---:|"]
    for name in names():
        for preset in importlib.import_module(f"hotlap.models.nets.{name}").PRESETS:
            net = built(name, preset)
            flops, _, inputs, output = counted(net)
            cells = (name, preset or "default", shape(tuple(inputs.shape)), shape(tuple(output.shape)))
            lines.append(f"| {' | '.join(cells)} | {parameters(net):,} | {flops['']:,} |")
    return "\n".join(lines)


def diagram(name: str) -> str:
    """Returns a network's parts in the order in which they are made, one a line."""
    net = built(name, "")
    flops, shapes, inputs, output = counted(net)
    rows = [("input", "", shape(tuple(inputs.shape)), "", "")]
    for part, module in parts(net).items():
        if part in shapes:
            kind = type(module).__name__
            own = f"{flops.get(part, 0):,}"
            rows.append((part, kind, shape(shapes[part]), f"{parameters(module):,}", own))
    rows.append(
        ("all", type(net).__name__, shape(tuple(output.shape)), f"{parameters(net):,}", f"{flops['']:,}")
    )
    rows.insert(0, ("part", "module", "output", "parameters", "FLOPs"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def section() -> str:
    """Returns what the page says of all networks: a table, and each with its source and parts."""
    lines = [table()]
    for name in names():
        words = inspect.getdoc(importlib.import_module(f"hotlap.models.nets.{name}")) or ""
        lines += ["", f"### {name}", "", words, "", "```", diagram(name), "```"]
    return "\n".join(lines)


def in_page(text: str) -> str:
    """Returns the page's text with this section in the place of the one that is there."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{section()}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        PAGE.write_text(in_page(PAGE.read_text()))
    else:
        print(section())


if __name__ == "__main__":
    main()
