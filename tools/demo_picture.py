"""Draws docs/demo.svg: what `amends demo` shows on a terminal, for the README."""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

from rich.console import Console

from amends_server.cli.demo.demo import run_demo
from amends_server.cli.sagas.screen import Manner

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "demo.svg"
COLUMNS = 100
WEB_FONT = re.compile(r"^ *@font-face \{.*?^ *\}\n+", re.DOTALL | re.MULTILINE)
"""Would be fetched from elsewhere by whoever looks at the picture; any monospaced font does."""


def main() -> None:
    console = Console(
        record=True, width=COLUMNS, force_terminal=True, color_system="truecolor", highlight=False, file=io.StringIO()
    )
    asyncio.run(run_demo(console=console, manner=Manner.TABLE))
    PICTURE.parent.mkdir(exist_ok=True)
    svg = console.export_svg(title="make demo", unique_id="demo")
    PICTURE.write_text(WEB_FONT.sub("", svg), encoding="utf-8")


if __name__ == "__main__":
    main()
