"""definitions diff and graph: what differs, and the order of steps as text, Mermaid and SVG."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.programs import amends

TRIP = """
name: trip
steps:
  - {id: end, participant: airline, action: reserve, compensation: {}}
  - {id: hotel, participant: hotels, action: book, compensation: {}, after: [end], when: 'input.name != "<#1>"'}
  - {id: car, participant: cars, action: rent, compensation: {not_needed: true}, after: [end], delay: 1.5s}
  - {id: seat, participant: airline, action: choose, compensation: {}, after: [car]}
  - {id: pay, participant: bank, action: charge, kind: STEP_KIND_PIVOT, after: [hotel, end, seat]}
  - {id: mail, participant: post, action: send, kind: STEP_KIND_RETRIABLE, after: [pay]}
"""
TEXT = """\
trip
1  ○ end    airline.reserve
2  ○ hotel  hotels.book      ← end  (when input.name != "<#1>")
2  ○ car    cars.rent        ← end  (1.5 s later; not undone)
3  ○ seat   airline.choose   ← car
4  ◆ pay    bank.charge      ← hotel, seat
5  ▷ mail   post.send        ← pay
○ compensatable  ◆ pivot  ▷ retriable
"""
MERMAID = """\
%% trip
flowchart TD
  s0("end<br/>airline.reserve")
  s1("hotel<br/>hotels.book<br/>when input.name != #quot;#lt;#35;1#gt;#quot;")
  s2("car<br/>cars.rent<br/>1.5 s later<br/>not undone")
  s3("seat<br/>airline.choose")
  s4{{"pay<br/>bank.charge"}}
  s5(["mail<br/>post.send"])
  s0 --> s1
  s0 --> s2
  s2 --> s3
  s1 --> s4
  s3 --> s4
  s4 --> s5
"""
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def trip(tmp_path: Path) -> Path:
    path = tmp_path / "trip.yaml"
    path.write_text(TRIP, encoding="utf-8")
    return path


def test_graph_as_text_and_mermaid(trip: Path) -> None:
    assert amends("definitions", "graph", str(trip)).out == TEXT
    assert amends("definitions", "graph", str(trip), "--format", "mermaid").out == MERMAID


def test_graph_as_svg_has_each_step_apart_and_each_arrow(trip: Path) -> None:
    picture = ElementTree.fromstring(amends("definitions", "graph", str(trip), "-o", "svg").out)  # noqa: S314 – our own
    texts = [each.text for each in picture.iter(f"{SVG}text")]
    assert {"trip", "end", "hotel", "airline.choose", "pivot", "retriable", 'when input.name != "<#1>"'} <= set(texts)
    boxes = [box(each) for each in picture.iter(f"{SVG}rect") if each.get("class") == "box"]
    assert len(boxes) == 6
    assert not [(a, b) for a in boxes for b in boxes if a is not b and overlap(a, b)]
    width, height = (float(picture.get(name, "")) for name in ("width", "height"))
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    arrows = [each for each in picture.iter(f"{SVG}path") if each.get("class") == "arrow"]
    assert Counter(each.get("marker-end") for each in arrows) == {"url(#tip)": 6, None: 1}
    tips = [numbers(each.get("d", ""))[-2:] for each in arrows if each.get("marker-end")]
    assert all(any(close(x, a + w / 2) and close(y, b) for a, b, w, _ in boxes) for x, y in tips)


def test_graph_of_a_file_that_cannot_be_registered(tmp_path: Path) -> None:
    path = tmp_path / "ring.yaml"
    step = "{{id: {0}, participant: p, action: a, compensation: {{}}, after: [{1}]}}"
    path.write_text(f"name: ring\nsteps: [{step.format('a', 'b')}, {step.format('b', 'a')}]", encoding="utf-8")
    ended = amends("definitions", "graph", str(path))
    assert (ended.code, ended.out) == (2, "")
    assert "cannot be registered: mend it first" in ended.err


def test_graph_of_a_long_definition_is_quick(tmp_path: Path) -> None:
    steps = [
        f"{{id: s{n}, participant: p, action: a, compensation: {{}}, after: [{f's{n - 1}' if n else ''}]}}"
        for n in range(400)
    ]
    path = tmp_path / "long.yaml"
    path.write_text("name: long\nsteps:\n" + "".join(f"  - {step}\n" for step in steps), encoding="utf-8")
    assert amends("definitions", "graph", str(path), "-o", "svg").out.count('class="box"') == 400


def test_registered_versions_are_drawn_and_compared(server: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    step = "{id: charge, participant: payment, action: charge, compensation: {}, timeout: 5s}"
    first.write_text(
        f"name: grown\nsteps:\n  - {step}\n  - {step.replace('id: charge', 'id: tip')}\n", encoding="utf-8"
    )
    later = step.replace("5s", "9s").replace("compensation: {}", "compensation: {retry: {attempts_max: 3}}")
    fee = step.replace("id: charge", "id: fee, after: [charge]")
    second.write_text(f"name: grown\ndeadline: 60s\nsteps:\n  - {later}\n  - {fee}\n", encoding="utf-8")
    for path in (first, second):
        assert amends("definitions", "register", str(path), server=server).code == 0
    drawn = amends("definitions", "graph", "grown", server=server)
    assert drawn.out.splitlines()[:2] == ["grown@2", "1  ○ charge  payment.charge"]
    compared = amends("definitions", "diff", "grown@1", "grown@2", server=server)
    lines = compared.out.splitlines()
    assert (compared.code, lines[:3]) == (0, ["grown@1 → grown@2", "+ deadline: 60s", "~ step charge"])
    assert "    ~ timeout: 5s → 9s" in lines
    assert [line for line in lines if line.startswith("    + compensation.retry")]
    assert lines[-2:] == ["+ step fee: payment.charge, after charge", "- step tip: payment.charge, after nothing"]
    found = amends("definitions", "diff", "grown@1", "grown@2", "-o", "json", server=server).json
    assert {"step": "charge", "field": "timeout", "before": "5s", "after": "9s"} in found
    assert amends("definitions", "diff", "grown", "grown@2", server=server).out.endswith("Nothing differs.\n")
    assert amends("definitions", "diff", "grown", "grown@9", server=server).code == 1
    assert amends("definitions", "diff", "grown", str(second), server=server).out.splitlines() == [
        f"grown@2 → {second}",
        "Nothing differs.",
    ]
    of_file = amends("definitions", "diff", str(first), "grown", "-o", "json", server=server)
    assert of_file.json == found


def test_files_are_compared_without_an_orchestrator(tmp_path: Path) -> None:
    here, there, wrong = (tmp_path / name for name in ("here.yaml", "there.yaml", "wrong.yaml"))
    step = "{id: charge, participant: payment, action: charge, compensation: {}}"
    here.write_text(f"name: grown\nsteps:\n  - {step}\n", encoding="utf-8")
    there.write_text(f"name: grown\ndeadline: 60s\nsteps:\n  - {step}\n", encoding="utf-8")
    wrong.write_text("name: grown\nsteps: []\n", encoding="utf-8")
    compared = amends("definitions", "diff", str(here), str(there))
    assert compared.out.splitlines() == [f"{here} → {there}", "+ deadline: 60s"]
    refused = amends("definitions", "diff", str(here), str(wrong))
    assert (refused.code, "steps: A saga needs at least one step." in refused.err) == (2, True)


def box(rect: ElementTree.Element) -> tuple[float, float, float, float]:
    x, y, width, height = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
    return x, y, width, height


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]


def numbers(text: str) -> list[float]:
    return [float(each) for each in re.findall(r"[\d.]+", text)]


def close(a: float, b: float) -> bool:
    return abs(a - b) < 0.2
