"""Golden histories: what follows from each command, kept as text and read in review. `--rewrite` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.history import replay

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_history(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text(encoding="utf-8")
    replayed = replay(text)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(replayed, encoding="utf-8")
    else:
        assert replayed == text, "read the difference; if it is meant, run pytest tests/engine --rewrite"


def test_there_are_histories() -> None:
    assert len(GOLDEN) > 20
