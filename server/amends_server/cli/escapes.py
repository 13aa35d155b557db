"""Text of others on a terminal: what would steer it, or hide something, is written out instead."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

JOINERS = "\u200c\u200d"
"""Invisible, but parts of words in some scripts, and of emoji."""


def visible(text: str) -> str:
    """The text in one line, with control characters and the like written as Python escapes."""
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char in JOINERS or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return char
    return char.encode("unicode_escape").decode("ascii")


class Escaping(RenderHook):
    """Escapes whatever is printed on a console, after it was laid out: lines stay lines, and styles styles."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(each) for each in renderables]


class _Escaped:
    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _escaped(console.render(self._inner, options))


def _escaped(segments: Iterable[Segment]) -> Iterable[Segment]:
    for segment in segments:
        if segment.control:
            yield segment
        else:
            text = "\n".join(map(visible, segment.text.split("\n")))
            yield Segment(text, segment.style)
