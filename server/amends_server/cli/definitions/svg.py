"""The order of a definition's steps as an SVG picture: layers from top to bottom, arrows around what is between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from amends_server.cli.definitions.layers import Layers, notes_of
from amends_server.engine.definition import Kind, Step

LETTER = 7.3
"""The width of a letter of the font, a little rounded up: 12 px monospace."""

LINE, GAP, LAYER_GAP, MARGIN, BEND = 17, 28, 46, 24, 20
"""In px: the height of a line, between steps, between layers, around all, and how far an arrow leaves straight."""

NOTE_LETTERS_MAX = 48
"""Of a note in a box: a condition may be long."""

_FILLS = {Kind.COMPENSATABLE: "#e8f1fb", Kind.PIVOT: "#fdf0d5", Kind.RETRIABLE: "#e6f5e9"}
_STYLE = (
    "text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1b1f24}.id{font-weight:bold}"
    ".note{fill:#57606a}.box{stroke:#57606a}.arrow{stroke:#57606a;fill:none}"
)


@dataclass(slots=True, kw_only=True)
class _Place:
    """Where a step is drawn; one without lines is where an arrow passes a layer. `x` is its middle."""

    lines: list[str]
    kind: Kind = Kind.COMPENSATABLE
    before: list[_Place]
    x: float = 0
    top: float = 0
    height: float = 0

    @property
    def width(self) -> float:
        return max(len(line) for line in self.lines) * LETTER + 24 if self.lines else 0


def draw_svg(layers: Layers) -> str:
    """A picture that stands alone."""
    rows = _rows(layers)
    width = max(len(layers.title) * LETTER, *(_row_width(row) for row in rows)) + 2 * MARGIN
    height = _arrange(rows, width)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}" role="img">',
            f"<title>{escape(layers.title)}</title>",
            f"<style>{_STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
            'orient="auto"><path d="M0 0L8 4L0 8z" fill="#57606a"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text class="id" x="{MARGIN}" y="{MARGIN}">{escape(layers.title)}</text>',
            *(_arrow(before, place) for row in rows for place in row for before in place.before),
            *(_box(place) for row in rows for place in row if place.lines),
            "</svg>",
        ]
    )


def _rows(layers: Layers) -> list[list[_Place]]:
    """The places of each layer, those of arrows on their way among them, in an order with few crossings."""
    rows: list[list[_Place]] = [[] for _ in layers.rows]
    places = [_Place(lines=_lines(step), kind=step.kind, before=[]) for step in layers.steps]
    for index, place in enumerate(places):
        rows[layers.layer[index]].append(place)
    for index, predecessors in enumerate(layers.before):
        for p in predecessors:
            way = places[p]
            for layer in range(layers.layer[p] + 1, layers.layer[index]):
                way = _Place(lines=[], before=[way])
                rows[layer].append(way)
            places[index].before.append(way)
    for above, row in pairwise(rows):
        at = {id(place): n for n, place in enumerate(above)}
        row.sort(key=lambda place: sum(at[id(each)] for each in place.before) / len(place.before))
    return rows


def _lines(step: Step) -> list[str]:
    kind = [] if step.kind is Kind.COMPENSATABLE else [step.kind.value]
    notes = [note if len(note) <= NOTE_LETTERS_MAX else note[: NOTE_LETTERS_MAX - 1] + "…" for note in notes_of(step)]
    return [step.id, f"{step.participant}.{step.action}", *kind, *notes]


def _row_width(row: list[_Place]) -> float:
    return sum(place.width for place in row) + GAP * (len(row) - 1)


def _arrange(rows: list[list[_Place]], width: float) -> float:
    """Set where each place is, and return the height of all."""
    top = MARGIN + 2.0 * LINE
    for row in rows:
        x = (width - _row_width(row)) / 2
        height = max(len(place.lines) for place in row) * LINE + 14
        for place in row:
            place.x, place.top = x + place.width / 2, top
            place.height = len(place.lines) * LINE + 14 if place.lines else height
            x += place.width + GAP
        top += height + LAYER_GAP
    return top - LAYER_GAP + MARGIN


def _arrow(start: _Place, end: _Place) -> str:
    """From the foot of one place to the head of the other; on its way through a layer it has no tip."""
    y1, y2 = start.top + start.height, end.top
    tip = ' marker-end="url(#tip)"' if end.lines else ""
    way = f"M{start.x:.1f} {y1:.1f}C{start.x:.1f} {y1 + BEND:.1f} {end.x:.1f} {y2 - BEND:.1f} {end.x:.1f} {y2:.1f}"
    return f'<path class="arrow" d="{way}{"" if end.lines else f"v{end.height:.1f}"}"{tip}/>'


def _box(place: _Place) -> str:
    left, corner = place.x - place.width / 2, 4 if place.kind is Kind.PIVOT else 10
    return (
        f'<rect class="box" x="{left:.1f}" y="{place.top:.1f}" width="{place.width:.1f}" height="{place.height:.1f}" '
        f'rx="{corner}" fill="{_FILLS[place.kind]}"/>{"".join(_texts(place))}'
    )


def _texts(place: _Place) -> Iterator[str]:
    for n, line in enumerate(place.lines):
        kind = ("id", "call")[n] if n < 2 else "note"
        y = place.top + LINE * (n + 1)
        yield f'<text class="{kind}" x="{place.x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(line)}</text>'
