"""The coverage study runs, and a part of it does not take the place of the results that are committed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

import mlmed
from tests.tolerances import SAME

FOLDER = Path(__file__).resolve().parents[2] / "validation" / "coverage"
NAMES = ("run", "methods", "design", "summary")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script with two conditions, its results in a folder of the test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    run = importlib.import_module("run")
    cells = tuple(cell for cell in run.REPRESENTATIVE if cell.clusters == 100 and not cell.skewed)  # regular fits
    for name, value in {
        "CELLS": cells, "REPRESENTATIVE": cells, "HERE": tmp_path / "here", "PIECES": tmp_path / "pieces",
        "PARTIAL": tmp_path / "partial", "REPLICATES": {"normal-theory": (3, 2), "profile": (2, 2)}, "COSTLY": (2, 1),
    }.items():  # fmt: skip
        monkeypatch.setattr(run, name, value)
    (tmp_path / "here").mkdir()
    yield run
    for name in NAMES:
        sys.modules.pop(name, None)


def test_the_short_way_fits_what_mediate_does(study: ModuleType) -> None:
    data = study.simulate(study.CELLS[0], 1)
    fit = importlib.import_module("methods").fit(data)
    expected = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data)
    np.testing.assert_allclose(fit.effects()["estimate"], expected.effects()["estimate"], rtol=SAME)


@pytest.mark.parametrize("name", ["normal-theory", "profile", "small-sample", "case", "parametric", "residual"])
def test_every_study_gives_intervals(study: ModuleType, name: str) -> None:
    """One replicate; intervals are (low, high, error) of every effect and hold their estimates."""
    row = study.study_of(name, study.simulate(study.CELLS[0], 0), np.random.default_rng(1))
    at = importlib.import_module("methods").TERMS.index("indirect")
    for method, found in row["intervals"].items():
        assert found.shape == (6, 3)
        assert found[at, 0] < row["estimates"][at] < found[at, 1], method


def test_less_than_all_goes_elsewhere(study: ModuleType, tmp_path: Path) -> None:
    """A limit, one study, and what exists of an interrupted run: the committed results stay."""
    committed = tmp_path / "here" / "results.csv"
    committed.write_text("committed")
    asked = ["--jobs", "1", "--study", "normal-theory"]
    for more in (["--replicates", "2"], [], ["--summarize"]):
        study.main([*asked, *more])
        assert committed.read_text() == "committed"
        assert not (tmp_path / "here" / "tables.md").exists()
        table = pd.read_csv(tmp_path / "partial" / "results.csv")
        assert set(table["replicates"]) == {2 if "--replicates" in more else 3}  # those of the first run count once


def test_all_of_it_is_written(study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of every study, cheap ones standing in for the costly."""
    cheap = study.study_of
    monkeypatch.setattr(study, "study_of", lambda name, data, rng: cheap("normal-theory", data, rng))
    study.main(["--jobs", "1"])
    table = pd.read_csv(tmp_path / "here" / "results.csv")
    assert set(table["study"]) == set(study.STUDIES)
    assert (tmp_path / "here" / "tables.md").read_text().startswith("# Coverage study")
    assert not (tmp_path / "partial").exists()
    assert not [path for path in (tmp_path / "pieces").rglob("*") if path.is_file() and path.suffix != ".npz"]
