"""Calls that are refused: the class of the error and its text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from validation.lock.adapter import Asked, Fit, ask, compared, fit, load, power, stacked
from validation.lock.cases import JOINT, YUAN, framing, ml_sim, pupils, yuan
from validation.lock.outputs import one

__all__ = ["REFUSALS"]

_made: dict[str, Fit] = {}


def _asked(school: str, question: Asked) -> Callable[[], Any]:
    """A question to a fit of the shipped data, which is made once."""

    def call() -> Any:
        if school not in _made:
            _made[school] = fit(school, *YUAN, yuan())
        return ask(_made[school], question)

    return call


def _fit(school: str, *equations: Any, data: Callable[[], pd.DataFrame] = ml_sim, **options: Any) -> Callable[[], Any]:
    return lambda: str(fit(school, *equations, data(), **options))


def _constant() -> pd.DataFrame:
    return ml_sim().assign(x=1.0)


def _twins() -> pd.DataFrame:
    return ml_sim().assign(v=lambda data: 2.0 * data["x"] + 1.0)


def _infinite() -> pd.DataFrame:
    data = ml_sim().copy()
    data.loc[3, "m"] = np.inf
    return data


REFUSALS: dict[str, Callable[[], Any]] = {
    # formulas
    "formula without tilde": _fit("mixed", "y x"),
    "unknown column": _fit("mixed", "y ~ q + (1 | id)"),
    "code in a formula": _fit("mixed", "y ~ __import__('os').getcwd() + (1 | id)"),
    "unknown function": _fit("mixed", "y ~ np.linalg(x) + (1 | id)"),
    "no random term": _fit("joint", "m ~ x", "y ~ m + x"),
    "two cluster variables": _fit("mixed", "y ~ x + (1 | id) + (1 | z)"),
    "not a formula": _fit("mixed", 3),
    "mediator missing in the outcome": _fit("joint", "m ~ x + (1 | id)", "y ~ x + (1 | id)"),
    "which treatment": _fit("joint", "m ~ x + w + (1 | id)", "y ~ m + x + w + (1 | id)"),
    # data
    "unknown data set": lambda: load("nobody"),
    "infinite value": _fit("joint", *JOINT, data=_infinite),
    "collinear": _fit("mixed", "y ~ x + v + (1 | id)", data=_twins),
    "constant predictor": _fit("joint", *JOINT, data=_constant),
    "no rows": _fit("joint", *JOINT, data=lambda: ml_sim()[:0]),
    "text response": _fit("mixed", "arm ~ x + (1 | id)"),
    "one cluster": _fit("mixed", "y ~ x + (1 | id)", data=lambda: ml_sim()[:8]),
    "rows that are clusters": _fit("mixed", "y ~ x + (1 | row)", data=lambda: ml_sim().assign(row=range(800))),
    # options
    "method": _fit("joint", *JOINT, method="mle"),
    "covariance": _fit("joint", *JOINT, covariance="blocked"),
    "residual": _fit("mixed", ["m ~ x + (1 | id)", "y ~ m + x + (1 | id)"], residual="unstructured"),
    "treatment": _fit("joint", *JOINT, treatment="w"),
    "contrast": _fit("joint", *JOINT, contrast=(0.0, 0.0)),
    "contrast of levels": lambda: ask(
        fit("joint", "m ~ arm + (1 | id)", "y ~ m + arm + (1 | id)", ml_sim(), contrast=("low", "none")), one("effects")
    ),
    "interval": _asked("joint", one("effects", interval="wald")),
    "interval without seed": _asked("joint", one("effects", interval="bootstrap", n=30)),
    "option of another interval": _asked("joint", one("effects", interval="profile", n=30)),
    "level": _asked("joint", one("effects", level=95)),
    "vcov": _asked("joint", one("effects", vcov="HC3")),
    "order": _asked("joint", one("effects", order="third")),
    "ends": _asked("joint", one("effects", interval="bootstrap", n=30, seed=1, ends="bcb")),
    "ddf": _asked("joint", one("tidy", ddf="welch")),
    "within another kind": _asked("joint", one("bootstrap", n=3, seed=1, kind="residual", within=True)),
    "at": _asked("joint", one("effects", at={"w": 1.0})),
    "style": _asked("joint", one("summary", "sas")),
    "unknown name": _asked("joint", one("nlcom", "a * q")),
    "code in an expression": _asked("joint", one("nlcom", "a.__class__")),
    "hypothesis": _asked("joint", one("test", "cov_ab")),
    "hypothesis out of range": _asked("joint", one("test", "var(Med~X) = -1")),
    "new rows": _asked("joint", one("predict", pd.DataFrame({"X": [1.0]}))),
    "separate interval": _asked("separate", one("effects", interval="profile")),
    "separate strata": _asked("separate", one("bootstrap", n=3, seed=1, strata="X")),
    "separate vcov": _asked("separate", one("effects", vcov="HC0")),
    "causal interval": _asked("causal", one("effects", interval="product")),
    "causal at": _asked("causal", one("effects", at={"X": 1.0})),
    "causal without seed": _asked("causal", one("effects", interval="bootstrap", n=30)),
    # schools
    "effect upwards": _fit(
        "separate", "smorale ~ late + (1 | SCH_ID)", "score ~ smorale + late + (1 | SCH_ID)", data=pupils
    ),
    "family": _fit("causal", "emo ~ treat", "cong_mesg ~ emo + treat", data=framing, family_y="gamma"),
    "family of the data": _fit("causal", "emo ~ treat", "age ~ emo + treat", data=framing, family_y="probit"),
    "sensitivity": lambda: ask(
        fit("causal", "emo ~ treat", "cong_mesg ~ emo + treat", framing(), family_y="logit"), one("sensitivity")
    ),
    "scale effects": _fit("location-scale", "y ~ x + (1 | id)", "~ (1 + x + w + z | id)"),
    "compare nothing": lambda: compared(),
    "power without cov_ab": lambda: power(20, 5, n=2, a=0.3, seed=1),
    "stack": lambda: stacked(ml_sim(), x="x", m="x", y="y", cluster="id"),
}
