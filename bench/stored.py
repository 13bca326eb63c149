"""Measurements that take hours, one after the other: what is stored is left out, and the file is
whole after each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def arguments(description: str | None, file: Path, **defaults: str) -> argparse.Namespace:
    """Returns what a script was started with: names, --out, --table, and an option for each of
    these defaults.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", default=value)
    parser.add_argument("--out", type=Path, default=file)
    parser.add_argument("--table", type=Path, metavar="FILE")
    return parser.parse_args()


def fill(
    file: Path,
    field: str,
    schema: int,
    order: Sequence[str],
    asked: Sequence[str],
    measure: Callable[[str], dict[str, Any]],
) -> None:
    """Measures what was asked for, or all of `order` that the file lacks, and writes the file after
    each, in that order.
    """
    entries = json.loads(file.read_text())[field] if file.exists() else {}
    for key in asked or [key for key in order if key not in entries]:
        entries[key] = measure(key)
        print(key, entries[key].get("failed", entries[key].get("way", "stored")), flush=True)
        ordered = sorted(
            entries, key=lambda name: (name not in order, order.index(name) if name in order else 0)
        )
        content = {"schema": schema, field: {name: entries[name] for name in ordered}}
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
