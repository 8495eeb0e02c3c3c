"""Commands on models that define no effects, and documents of commands."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.cli import main
from mlmed.effects.delta import COLUMNS

ARMS = "Med ~ arm + (1 | group)", "y ~ Med + arm + (1 | group)"
CURVE = "Med ~ X + (1 | group)", "y ~ Med * X + (1 | group)"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    found = tmp_path_factory.mktemp("data") / "d.csv"
    data.assign(arm=np.array(["a", "b", "c"])[np.arange(len(data)) % 3]).to_csv(found, index=False)
    return found


def _asked(command: str, path: Path, formulas: tuple[str, str], *more: str) -> list[str]:
    treatment = "arm" if formulas == ARMS else "X"
    return [command, str(path), "--mediator", formulas[0], "--outcome", formulas[1], "--treatment", treatment, *more]


@pytest.mark.parametrize("command", ["mediate", "piecewise"])
@pytest.mark.parametrize("formulas", [ARMS, CURVE])
@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_a_table_of_effects_that_do_not_exist_is_refused(command, formulas, form, path, capsys):
    """With the reason, as any interval but the usual one is."""
    status = main(_asked(command, path, formulas, "--table", "effects", "--format", form))
    told = capsys.readouterr()
    assert (status, told.out) == (2, "")
    school = getattr(mlmed, command)
    treatment = "arm" if formulas == ARMS else "X"
    reason = school(*formulas, pd.read_csv(path), treatment=treatment).effects_reason
    assert told.err.split() == f"mlmed: {reason}".split()


@pytest.mark.parametrize("command", ["mediate", "piecewise"])
def test_all_tables_say_why_there_are_no_effects(command, path, capsys):
    """The tables on standard output, the reason on standard error; JSON holds it."""
    assert main(_asked(command, path, ARMS, "--format", "csv")) == 0
    told = capsys.readouterr()
    table = pd.read_csv(io.StringIO(told.out))
    assert "effects" not in set(table["section"])
    assert {*COLUMNS} <= {*table.columns}
    assert "warning: no effects: " in told.err
    assert main(_asked(command, path, ARMS, "--format", "json")) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["effects_reason"]
    assert "no effects" not in told.err


def test_tables_of_models_without_effects_need_no_reason(path, capsys):
    assert main(["mixed", str(path), "--formula", "y ~ X + (1 | group)", "--format", "csv"]) == 0
    assert capsys.readouterr().err == ""


def test_sensitivity_is_one_document(path, capsys):
    status = main(_asked("causal", path, ("Med ~ X", "y ~ Med + X"), "--sensitivity", "--format", "json"))
    found = json.loads(capsys.readouterr().out)
    assert (status, found["schema"], found["school"]) == (0, "mlmed/1", "causal")
    assert {row["term"] for row in found["sensitivity"]} == {"acme", "acme_control", "acme_treated"}
