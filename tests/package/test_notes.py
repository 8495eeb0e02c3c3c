"""Notes of fits: codes that programs compare, and the warnings that what users call makes of them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from inspect import unwrap
from typing import get_args

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DroppedRowsWarning, FormulaError, LevelWarning, MlmedWarning
from mlmed.formula import parse_equation
from mlmed.notes import WARNINGS, Code, Note, warn_of
from mlmed.quadrature.rows import ScaleText, read_equations

M, Y = "m ~ x + (1 | id)", "y ~ m + x + (1 | id)"
RANDOM = "m ~ x + (1 | id)"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """30 clusters of 6 with a missing mediator, a missing outcome, a variable of the clusters and one of two values."""
    rng = np.random.default_rng(5)
    made = mlmed.simulate.bpg(30, 6, seed=2).data
    made["w"] = rng.normal(size=made["id"].max() + 1)[made["id"]]
    made["z"] = 1.0 * (made["y"] > 0.0)
    made.loc[3, "m"] = np.nan
    made.loc[8, "y"] = np.nan
    return made


def caught(call: Callable[[], object]) -> tuple[object, list[tuple[type[Warning], str]]]:
    """What a call returns, and its warnings; all of them point at this file."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        result = call()
    own = [one for one in found if issubclass(one.category, MlmedWarning)]
    assert {one.filename for one in own} <= {__file__}
    return result, [(one.category, str(one.message)) for one in own]


CALLS: dict[str, tuple[Callable[[pd.DataFrame], object], set[str]]] = {
    "mixed": (lambda data: mlmed.mixed("m ~ x + w + (1 + w | id)", data), {"rows-left-out", "slope-between"}),
    "mediate": (
        lambda data: mlmed.mediate("m ~ w + (1 | id)", "z ~ m + w + (1 | id)", data, treatment="w"),
        {"rows-left-out", "treatment-between", "two-values"},
    ),
    "piecewise": (lambda data: mlmed.piecewise(M, "z ~ m + x + (1 | id)", data), {"rows-left-out", "two-values"}),
    "clusters": (
        lambda data: mlmed.piecewise("w ~ v + (1 | id)", "y ~ w + v + (1 | id)", data.assign(v=data["w"] ** 2)),
        {"rows-left-out", "intercept-unused"},
    ),
    "causal": (
        lambda data: mlmed.causal("w ~ v", "y ~ w + v + (1 | id)", data.assign(v=data["w"] ** 3), treatment="v"),
        {"rows-left-out", "mediator-between"},
    ),
    "location_scale": (
        lambda data: mlmed.location_scale(RANDOM, "~ w + (1 + w | id)", data[data["id"] < 12]),
        {"rows-left-out", "slope-between"},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_warnings_of_a_fit_are_its_notes(data: pd.DataFrame, name: str) -> None:
    """Of every note the class of its code; those on left-out rows in one warning."""
    call, codes = CALLS[name]
    fit, said = caught(lambda: call(data))
    assert codes <= {note.code for note in fit.notes}
    assert {category for category, _ in said} == {WARNINGS[note.code] for note in fit.notes}
    assert sum(category is DroppedRowsWarning for category, _ in said) == 1
    for note in fit.notes:
        assert any(note.text in message and category is WARNINGS[note.code] for category, message in said)


@pytest.mark.parametrize("fit", [mlmed.mediate, mlmed.piecewise])
def test_fits_themselves_are_silent(data: pd.DataFrame, fit: Callable[..., object]) -> None:
    """What simulations call."""
    found, said = caught(lambda: unwrap(fit)(M, Y, data))
    assert said == []
    assert {note.code for note in found.notes} >= {"rows-left-out"}


def test_notes_of_separate_fits_name_their_equation(data: pd.DataFrame) -> None:
    """Rows of the third equation are those of `y without m`."""
    texts = [note.text for note in unwrap(mlmed.piecewise)(M, Y, data).notes if note.code == "rows-left-out"]
    assert [text.partition(":")[0] for text in texts[:2]] == ["equation m", "equation y"]
    assert len(texts) == len(set(texts))


def test_every_code_has_a_warning() -> None:
    """And no warning is without a code."""
    assert set(WARNINGS) == set(get_args(Code))


def test_texts_are_joined_where_they_are_shown() -> None:
    """Codes that are said together, others apart, none twice; the warning points at the caller."""
    told = [("slope-between", "w"), ("rows-left-out", "a"), ("slope-between", "w"), ("rows-left-out", "b")]
    notes = [Note(*one) for one in told]
    _, said = caught(lambda: warn_of(notes, stacklevel=1 + 1))
    assert said == [(LevelWarning, "w"), (DroppedRowsWarning, "a; b")]


def test_notes_are_pickled(data: pd.DataFrame) -> None:
    """Also those of a fit that leaves its rows behind."""
    for fit in (unwrap(mlmed.mediate)(M, Y, data), unwrap(mlmed.piecewise)(M, Y, data)):
        assert pickle.loads(pickle.dumps(fit)).notes == fit.notes


def test_scale_formulas_are_shown_as_they_were_given(data: pd.DataFrame) -> None:
    """Whatever refuses them, and although the same text was read as a location's before."""
    parse_equation("m ~ w + (1 | id)")
    scale = read_equations("m ~ x + (1 | id)", "~ w + (1 | id)", data)[1]
    assert repr(scale.text) == "the scale formula '~ w + (1 | id)'"
    assert repr(pickle.loads(pickle.dumps(scale)).text) == repr(scale.text)
    assert type(parse_equation("m ~ w + (1 | id)").text) is str
    assert scale.right == "w + (1 | id)"
    for wrong in ("~ w + + * x", "~ w +", "~ w * w"):
        with pytest.raises(FormulaError, match=r"the scale formula '~ "):
            read_equations("m ~ x + (1 | id)", wrong, data)
    assert isinstance(scale.text, ScaleText)
