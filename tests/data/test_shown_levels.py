"""How levels and columns are shown: whole numbers without decimals; names that give way to the user's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DataError, EffectError
from tests.tolerances import SAME


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    frame = mlmed.simulate.bpg(20, 6, seed=1).data
    return frame.assign(k=np.resize([1, 2, 3], len(frame)), group=np.resize([0.0, 1.0, 1.0, 0.0], len(frame)))


def test_whole_number_levels_have_no_decimals(data: pd.DataFrame) -> None:
    fit = mlmed.mediate("m ~ x + (1 | id)", "y ~ m*C(k) + x + (1 | id)", data)
    assert "at k = 1 (first level)" in set(fit.effects()["note"])
    with pytest.raises(EffectError, match=r"no level 9; its levels are 1, 2, 3"):
        fit.effects(at={"k": 9})
    with pytest.raises(DataError, match=r"level '7'.*\(levels: 1, 2, 3\)"):
        mlmed.mixed("y ~ C(k) + (1 | id)", data).predict(data.assign(k=7))
    with pytest.raises(EffectError, match=r"one of 1, 2, 3"):
        mlmed.causal("m ~ x", "y ~ m*C(k) + x", data).effects(at={"k": "2"})
    with pytest.raises(EffectError, match=r"3 levels \(1, 2, 3\)"):
        mlmed.mediate("m ~ C(k) + (1 | id)", "y ~ m + C(k) + (1 | id)", data).effects()


def test_a_predictor_called_group(data: pd.DataFrame) -> None:
    """The numbers of the same column by another name, in table and picture; ``response`` is the table's."""
    fit = mlmed.mixed("y ~ group*x + (1 + x | id)", data)
    renamed = mlmed.mixed("y ~ arm*x + (1 + x | id)", data.rename(columns={"group": "arm"}))
    left, right = fit.conditional_effects("group"), renamed.conditional_effects("arm")
    np.testing.assert_allclose(left["estimate"], right["estimate"], rtol=SAME)
    assert left.columns[:2].tolist() == ["response", "group"]
    lines = [
        [line.get_ydata() for line in one.plot.spaghetti(name, clusters=[1, 2])[0].get_lines()]
        for one, name in ((fit, "group"), (renamed, "arm"))
    ]
    np.testing.assert_allclose(np.concatenate(lines[0]), np.concatenate(lines[1]), rtol=SAME)
    with pytest.raises(EffectError, match="called 'response' cannot be told"):
        mlmed.mixed("y ~ response + (1 | id)", data.rename(columns={"x": "response"})).conditional_effects("response")


def test_dir_shows_public_names_only() -> None:
    code = "import mlmed; mlmed.mixed; print([n for n in dir(mlmed) if n not in mlmed.__all__ and n[:2] != '__'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
