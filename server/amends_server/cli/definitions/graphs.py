"""The order of a definition's steps as text and as Mermaid."""

from __future__ import annotations

import html

from amends_server.cli.definitions.layers import LEGEND, Layers, notes_of
from amends_server.engine.definition import Kind, Step

_SHAPES = {Kind.COMPENSATABLE: ("(", ")"), Kind.PIVOT: ("{{", "}}"), Kind.RETRIABLE: ("([", "])")}


def draw_text(layers: Layers) -> str:
    """A line for each step. Those with the same number wait for nothing of each other; arrows lead back."""
    steps = layers.steps
    digits = len(str(max(layers.layer) + 1))
    ids = max(len(step.id) for step in steps)
    calls = max(len(_call(step)) for step in steps)
    lines = [layers.title]
    for layer, row in enumerate(layers.rows, 1):
        for index in row:
            step = steps[index]
            after = ", ".join(steps[p].id for p in layers.before[index])
            notes = "; ".join(notes_of(step))
            line = f"{layer:>{digits}}  {LEGEND[step.kind]} {step.id:{ids}}  {_call(step):{calls}}"
            lines.append(f"{line}  {f'← {after}' if after else ''}{f'  ({notes})' if notes else ''}".rstrip())
    lines.append("  ".join(f"{mark} {kind.value}" for kind, mark in LEGEND.items()))
    return "\n".join(lines)


def draw_mermaid(layers: Layers) -> str:
    """A flowchart. Its names are numbers, since ids of steps may be words of Mermaid."""
    lines = [f"%% {layers.title}", "flowchart TD"]
    for index, step in enumerate(layers.steps):
        left, right = _SHAPES[step.kind]
        label = "<br/>".join(_quoted(text) for text in (step.id, _call(step), *notes_of(step)))
        lines.append(f'  s{index}{left}"{label}"{right}')
    lines += [f"  s{p} --> s{index}" for index, before in enumerate(layers.before) for p in before]
    return "\n".join(lines)


def _call(step: Step) -> str:
    return f"{step.participant}.{step.action}"


def _quoted(text: str) -> str:
    """Text that Mermaid takes for text: its entities begin with `#`."""
    return html.escape(text.replace("#", "#35;")).replace("&#x27;", "'").replace("&", "#")
