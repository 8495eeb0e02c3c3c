"""Bad input: what was found, what it means, what to do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DataError, EffectError, FormulaError, MlmedError, NotIdentifiedError
from tests.locscale_models import simulated


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return simulated(30, 8, seed=1)


@pytest.mark.parametrize(
    ("location", "scale", "kind", "said"),
    [
        ("y ~ x + (1 | g)", "y ~ w + (1 | g)", FormulaError, r"response 'y'.*write only the right-hand side, '~ w"),
        ("y ~ x + (1 | g)", "w + (1 | g)", FormulaError, r"has no '~'.*'~ w \+ \(1 \| g\)'"),
        ("y ~ x", "~ w", FormulaError, r"neither .* has a random term.*add one"),
        ("y ~ x + (1 | g)", "~ 1 + (1 | x)", FormulaError, r"different cluster variables: g and x"),
        ("y ~ x + (1 | g)", "~ y + (1 | g)", FormulaError, r"response y on its own right-hand side; remove it"),
        ("y ~ x + (1 | g)", "~ 1 + (1 + x + w | g)", FormulaError, r"3 random effects.*at most 2.*1331 times.*Remove"),
        ("y ~ x + (1 | g)", "~ nothing + (1 | g)", DataError, r"nothing"),
        ("y ~ x + (1 | g)", "~ w + I(2 * w) + (1 | g)", NotIdentifiedError, r"scale: .* linear combination of w"),
        ("y ~ x + (1 | g)", "~ one + (1 | g)", NotIdentifiedError, r"'one' is constant \(1\).*remove it"),
        ("y ~ one + (1 | g)", "~ 1 + (1 | g)", MlmedError, r"'one' is constant.*remove it"),
        ("mean ~ 1 + (1 | g)", "~ 1 + (1 | g)", NotIdentifiedError, r"does not vary within clusters.*use one row"),
        ("y ~ x + (1 | row)", "~ 1 + (1 | row)", NotIdentifiedError, r"240 of 240 clusters \(row\) have 1 row"),
        ("y ~ x + (1 | g)", "~ w + w + (1 | g)", FormulaError, r"^the scale formula '~ w \+ w \+ .* term w twice"),
        (
            "y ~ x + (1 | g)",
            "~ log(w) + (1 | g)",
            FormulaError,
            r"^log\(w\) in the scale formula '~ log.* not a finite",
        ),
        ("y ~ x + (1 | g)", "~ w + (1 | g", FormulaError, r"^cannot read the scale formula '~ w \+ \(1 \| g': 1 open"),
        ("text ~ x + (1 | g)", "~ 1 + (1 | g)", DataError, r"'text' is not numeric"),
    ],
)
def test_refused(frame: pd.DataFrame, location: str, scale: str, kind: type[Exception], said: str) -> None:
    data = frame.assign(one=1.0, mean=frame.groupby("g")["y"].transform("mean"), row=range(len(frame)), text="a")
    with pytest.raises(kind, match=f"(?s){said}"):
        mlmed.location_scale(location, scale, data)


def test_what_is_not_identified_is_said(frame: pd.DataFrame) -> None:
    with pytest.raises(NotIdentifiedError, match="variance of the scale random effects is not identified"):
        mlmed.location_scale("y ~ x + (1 | row)", "~ 1 + (1 | row)", frame.assign(row=range(len(frame))))


@pytest.mark.parametrize("nodes", [2, 2.5, True, "many"])
def test_nodes(frame: pd.DataFrame, nodes: object) -> None:
    with pytest.raises(EffectError, match="nodes is a whole number from 3"):
        mlmed.location_scale("y ~ x + (1 | g)", "~ 1 + (1 | g)", frame, nodes=nodes)


def test_nodes_of_numpy(frame: pd.DataFrame) -> None:
    fit = mlmed.location_scale("y ~ x + (1 | g)", "~ 1 + (1 | g)", frame, nodes=np.int64(15))
    assert fit.fit.nodes == 15
    assert type(fit.fit.nodes) is int  # as JSON wants it


def test_nodes_without_scale_effects(frame: pd.DataFrame) -> None:
    with pytest.raises(EffectError, match="leave it out"):
        mlmed.location_scale("y ~ x + (1 | g)", "~ 1", frame, nodes=7)


def test_starts_need_a_seed(frame: pd.DataFrame) -> None:
    fit = mlmed.location_scale("y ~ x + (1 | g)", "~ w + (1 | g)", frame)
    with pytest.raises(EffectError, match="seed"):
        fit.check_starts(2, seed=None)
    with pytest.raises(EffectError, match="number of starts"):
        fit.check_starts(0, seed=1)


def test_slopes_of_the_clusters_own_variables_warn(frame: pd.DataFrame) -> None:
    data = frame.assign(between=np.random.default_rng(2).normal(size=30)[frame["g"]])
    with pytest.warns(mlmed.errors.MlmedWarning) as caught:
        mlmed.location_scale("y ~ x + (1 | g)", "~ w + (1 + between || g)", data)
    assert any("random scale slope of between" in str(warning.message) for warning in caught)
