"""Faults in the safety core are caught: here those that are caught in seconds, all of them with `make mutants`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutants.faults import MUTANTS
from tests.mutants.lab import spoil, try_out
from tests.mutants.mutant import Mutant
from tests.named import is_test
from tests.sources import ROOT

MUTANTS_MIN = 20


def test_there_are_enough_and_each_has_a_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= MUTANTS_MIN


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_fault_still_fits_the_source(mutant: Mutant, tmp_path: Path) -> None:
    (tmp_path / mutant.path).parent.mkdir(parents=True)
    shutil.copy(ROOT / mutant.path, tmp_path / mutant.path)
    spoil(mutant, tmp_path)
    if mutant.path.endswith(".py"):
        compile((tmp_path / mutant.path).read_text(encoding="utf-8"), mutant.path, "exec")
    assert is_test(mutant.caught_by), "so `make test` is red with this fault in it"


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.quick], ids=lambda mutant: mutant.name)
def test_a_quick_fault_is_caught(mutant: Mutant) -> None:
    result = try_out(mutant)
    assert result.caught, result.output


def test_without_a_fault_the_copy_passes() -> None:
    """Or every mutant would count as caught, for want of something that they all need."""
    result = try_out(None, next(mutant.caught_by for mutant in MUTANTS if mutant.quick))
    assert result.code == 0, result.output
