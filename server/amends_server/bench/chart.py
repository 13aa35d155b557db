"""Sagas a second as an SVG picture: bars of the floor and of amends, by concurrency, one panel a link."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

PANEL, HEIGHT, MARGIN, GAP, BAR = 330, 190, 44, 18, 26
"""In px: a panel's width, the height of the tallest bar, around all, between groups of bars, and a bar's width."""

_STYLE = (
    "text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#1b1f24}.title{font-weight:bold}.note{fill:#57606a}"
    ".floor{fill:#c9d1d9}.ours{fill:#2f6feb}line{stroke:#57606a}"
)


class Bars(NamedTuple):
    """What both did at a concurrency, in sagas a second."""

    concurrency: int
    floor: float
    ours: float


def draw_chart(title: str, panels: Mapping[str, Sequence[Bars]]) -> str:
    """A picture that stands alone; each panel has a scale of its own."""
    width, height = PANEL * len(panels) + 2 * MARGIN, HEIGHT + 3 * MARGIN
    drawn = [line for place, (name, bars) in enumerate(panels.items()) for line in _panel(place, name, bars)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text class="title" x="{MARGIN}" y="24">{escape(title)}</text>',
            *_legend(width),
            *drawn,
            "</svg>\n",
        ]
    )


def _legend(width: int) -> Iterator[str]:
    for place, (kind, name) in enumerate((("floor", "the floor"), ("ours", "amends"))):
        x = width - MARGIN - 170 + place * 90
        yield f'<rect class="{kind}" x="{x}" y="14" width="12" height="12"/>'
        yield f'<text x="{x + 18}" y="24">{name}</text>'


def _panel(place: int, name: str, bars: Sequence[Bars]) -> Iterator[str]:
    left, ground = MARGIN + place * PANEL, HEIGHT + 2 * MARGIN
    most = max(max(each.floor, each.ours) for each in bars)
    yield f'<text class="note" x="{left}" y="{MARGIN + 8}">{escape(name)}: sagas a second by concurrency</text>'
    yield f'<line x1="{left}" x2="{left + PANEL - GAP}" y1="{ground}" y2="{ground}"/>'
    for number, each in enumerate(bars):
        x = left + number * (2 * BAR + GAP)
        for kind, value, at in (("floor", each.floor, x), ("ours", each.ours, x + BAR)):
            tall = HEIGHT * value / most
            yield f'<rect class="{kind}" x="{at}" y="{ground - tall:.1f}" width="{BAR - 2}" height="{tall:.1f}"/>'
        y = ground - HEIGHT * max(each.floor, each.ours) / most - 5
        yield f'<text x="{x}" y="{y:.1f}">{each.ours / each.floor:.0%}</text>'
        yield f'<text class="note" x="{x}" y="{ground + 16}">{each.concurrency:,}</text>'
        yield f'<text class="note" x="{x}" y="{ground + 32}">{each.ours:,.0f}</text>'
