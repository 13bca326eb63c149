"""Tables and colours on a terminal: rich, which shows every string as it is and obeys none."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ..terms import escape

# Of the output where it is no terminal: a table with every column fits.
LOG_WIDTH = 200
# No markup, smileys or colours for what stands in a name.
AS_IT_IS: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}


class HarmlessConsole(Console):
    """Shows no string's control characters, and starts no line with a command of a CI system."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(escape.plain(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Cleans what did not come as a string, and lines once they are broken."""
        for segment in super().render(renderable, options):
            rows = "\n".join(map(escape.log, segment.text.split("\n")))
            yield segment if segment.control else Segment(rows, segment.style)


def console(**settings: Any) -> HarmlessConsole:
    """Returns standard output, or the `file` of the settings; where it is no terminal, wide enough
    for a table.
    """
    output = HarmlessConsole(**{**AS_IT_IS, **settings})
    if output.is_terminal or "width" in settings:
        return output
    return HarmlessConsole(**{**AS_IT_IS, **settings, "width": LOG_WIDTH})
