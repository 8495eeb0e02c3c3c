"""The fits of the lock: data sets that ship with the package, others that are only read, and simulated ones.

Every function gives a fit; what is asked of it stands beside it in ``CASES``. Columns that the data sets lack are made
here from row and cluster numbers, so that nothing is drawn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from validation.lock import outputs
from validation.lock.adapter import Asked, Fit, added, fit, load, simulated, stored
from validation.lock.outputs import given, one, rows

__all__ = ["CASES", "Case", "fitted"]


@dataclass(frozen=True, slots=True)
class Case:
    """A fit and its questions.

    Attributes
    ----------
    make : callable
        The fit.
    asked : tuple of Asked
        Questions.
    private : bool
        Whether its rows may not be printed: values of rows are described by quantiles then.
    """

    make: Callable[[], Fit]
    asked: tuple[Asked, ...]
    private: bool = False


# -- data -------------------------------------------------------------------------------------------------------------


@cache
def ml_sim() -> pd.DataFrame:
    """100 clusters of 8, with a moderator of the rows, one of the clusters, a factor, an arm, a two-valued response."""
    data = load("ml_sim")
    at = np.arange(len(data))
    data["w"] = np.sin(1.7 * at)
    data["z"] = (data["id"] % 3 == 0).astype(float)
    data["v"] = np.cos(data["id"])
    data["arm"] = np.array(["control", "low", "high"])[at % 3]
    data["y01"] = (data["y"] > 0).astype(float)
    return data


@cache
def holes() -> pd.DataFrame:
    """ml_sim with missing values in three columns."""
    data = ml_sim().copy()
    data.loc[data.index % 17 == 0, "m"] = np.nan
    data.loc[data.index % 23 == 5, "y"] = np.nan
    data.loc[data.index % 41 == 7, "x"] = np.nan
    return data


@cache
def yuan() -> pd.DataFrame:
    """50 groups of 20; ships with the package."""
    data = load("yuan_mackinnon_sim")
    at = np.arange(len(data))
    data["w"] = np.cos(0.9 * at)
    data["f"] = np.array(["b", "a", "c"])[(at // 3) % 3]
    data["my x"] = data["X"] * 2.0
    data["p"] = np.exp(0.5 * np.sin(at))
    return data


@cache
def diary() -> pd.DataFrame:
    """blch9: 100 people over 21 days."""
    return load("blch9")


@cache
def affect() -> pd.DataFrame:
    """williams: 13,033 days of 193 people."""
    return load("williams")


@cache
def framing() -> pd.DataFrame:
    """265 people, a two-valued outcome."""
    return load("framing")


@cache
def jobs() -> pd.DataFrame:
    """899 people, a two-valued mediator and one that counts."""
    data = load("jobs")
    data["count"] = np.round(data["depress2"] * 3.0)
    return data


@cache
def pupils() -> pd.DataFrame:
    """9,679 pupils in 568 schools; variables of both levels."""
    return load("student")


@cache
def small(J: int = 20, n: int = 5, seed: int = 3) -> pd.DataFrame:
    """Few clusters, so that the optimum lies on the boundary."""
    return simulated(J, n, seed=seed)


def new_rows(data: pd.DataFrame, **columns: list[Any]) -> pd.DataFrame:
    """A few made-up rows."""
    return pd.DataFrame(columns)


# -- questions --------------------------------------------------------------------------------------------------------

JOINT = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
YUAN = "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"
GRID = new_rows(ml_sim, id=[1, 1, 50, 100], x=[-1.0, 0.0, 0.5, 2.0], m=[0.3, -0.2, 1.1, 0.0], y=[0.0, 1.0, 2.0, 3.0])
YUAN_GRID = new_rows(yuan, group=[1, 2, 50], X=[-1.0, 0.25, 2.0], Med=[1.0, 2.0, 3.0], y=[0.0, 1.0, 2.0])

FULL = (
    *outputs.estimates(),
    *outputs.mixed_tables(),
    *outputs.effects(),
    *outputs.function_tests(
        ["a*b / cprime", "(a*b + cov_ab) / (a*b + cov_ab + cprime)", "sqrt(var(m~x))", "`m~x` * `y~m`"],
        ["cov_ab = 0", "indirect = 0", "a = b", "var(y~x) = 0", "cprime = 0.2"],
    ),
    *outputs.profiles(["indirect", "var(y~x)", "m~x"], table=True),
    *outputs.bootstraps(),
    *outputs.bootstrap_effects(),
    *outputs.own_rows("x"),
    rows("influence", refit=True, vcov="joint"),
    *outputs.predictions(GRID),
    *outputs.mixed_pictures("x", "indirect"),
)
MODERATED = (
    *outputs.estimates(),
    *(one("effects", at={"w": value}) for value in (-1.0, 0.0, 1.0)),
    *outputs.effects({"w": 0.5}, kinds=("joint", "CR2")),
    one("effects"),
    one("effects", interval="bootstrap", n=outputs.FEW, seed=1, level=0.8, at={"w": 1.0}),
    one("nlcom", "indirect / total", at={"w": 1.0}),
    one("profile", "indirect", points=4, at={"w": 1.0}),
    rows("influence", at={"w": 1.0}),
    one("conditional_effects", "x", points=3, at={"w": 1.0}),
    one("summary"),
    one("to_json"),
)
SHORT = (
    *outputs.estimates(),
    one("effects"),
    one("effects", vcov="joint"),
    one("summary"),
    one("to_json"),
    one("tidy"),
)
SINGLE = (*outputs.estimates(), *outputs.mixed_tables())


def nested_fit() -> Fit:
    """One random effect fewer than in the case that it is compared with."""
    return fit("mixed", "y ~ m + x + (1 + m | id)", ml_sim(), method="ml")


def through_engine(kind: str, formula: str | list[str], data: pd.DataFrame) -> Fit:
    """A model whose rows lie in an engine."""
    if kind == "duckdb":
        import duckdb

        connection = duckdb.connect()
        connection.execute("SET threads = 1")
        source: Any = connection.from_df(data)
    else:
        import polars

        source = polars.from_pandas(data).lazy()
    return fit("mixed", formula, source)


def added_shards() -> Fit:
    """A model from Grams of two halves, written and read on the way."""
    halves = [fit("sums", list(YUAN), yuan()[part]) for part in (slice(None, 500), slice(500, None))]
    with tempfile.TemporaryDirectory() as folder:
        return fit("joint", *YUAN, stored(added(*halves), Path(folder) / "sums.parquet"))


def joint(data: Callable[[], pd.DataFrame], equations: Iterable[str] = JOINT, **options: Any) -> Callable[[], Fit]:
    return lambda: fit("joint", *equations, data(), **options)


def mixed(formula: Any, data: Callable[[], pd.DataFrame], **options: Any) -> Callable[[], Fit]:
    return lambda: fit("mixed", formula, data(), **options)


def separate(data: Callable[[], pd.DataFrame], *equations: str, **options: Any) -> Callable[[], Fit]:
    return lambda: fit("separate", *equations, data(), **options)


def causal(data: Callable[[], pd.DataFrame], *equations: str, **options: Any) -> Callable[[], Fit]:
    return lambda: fit("causal", *equations, data(), **options)


def fitted(name: str, found: dict[str, Fit]) -> Fit:
    """The fit of a case, made once."""
    if name not in found:
        found[name] = CASES[name].make()
    return found[name]


#: What a formula may be made of, in memory and in engines.
ENCODINGS = {
    "factor": "y ~ f * X + (1 | group)",
    "sum coding": "y ~ C(f, Sum) + X + (1 | group)",
    "functions": "y ~ np.log(p) + I(X**2) + I(X * w) + abs(w) + (1 + X | group)",
    "quoted": "y ~ `my x` + (1 + `my x` | group)",
    "no intercept": "y ~ 0 + f + X:w + (0 + X | group)",
    "products": "y ~ (X + w + f)**2 + (1 | group)",
    "comparison": "y ~ I(X > 0.5) + np.where(w > 0, X, 0) + (1 | group)",
}
MEMORY_ONLY = {
    "splines": "y ~ bs(X, df=4) + poly(w, 2) + (1 | group)",
    "centred": "y ~ center(X) + scale(w) + standardize(p) + (1 + center(X) | group)",
    "natural spline": "y ~ 0 + cr(X, df=4) + (1 | group)",
    "helmert": "y ~ C(f, Helmert) + C(f, Treatment('c')):X + (1 | group)",
}
ENCODED = (one("params"), one("bse"), one("llf"), one("names"), one("varcorr"))
AFFECT2 = ["NA.std ~ 1 + (1 |c| id)", "PA.std ~ 1 + (1 |c| id)"]
AFFECT3 = [f"{name} ~ 1 + NA_lag + PA_lag + (1 + NA_lag + PA_lag |c| id)" for name in ("NA.std", "PA.std")]
TWO = ["Med ~ X + (1 + X |c| group)", "y ~ X + (1 + X |c| group)"]
COVARIATES = "treat + age + educ + gender + income"
CASES: dict[str, Case] = {
    # the joint model
    "ml_sim joint reml": Case(joint(ml_sim), FULL, private=True),
    "ml_sim joint ml": Case(
        joint(ml_sim, method="ml"),
        (*outputs.estimates(), *outputs.mixed_tables(("block", "joint"), ()), *outputs.effects(kinds=("joint",))),
        private=True,
    ),
    "ml_sim diagonal": Case(joint(ml_sim, covariance="diagonal"), SHORT, private=True),
    "ml_sim no covariances": Case(
        joint(ml_sim, ("m ~ x + (1 + x || id)", "y ~ m + x + (1 + m + x || id)")), SHORT, private=True
    ),
    "ml_sim labels": Case(
        joint(ml_sim, ("m ~ x + (1 |i| id) + (0 + x |s| id)", "y ~ m + x + (1 |i| id) + (0 + m |s| id)")),
        SHORT,
        private=True,
    ),
    "ml_sim intercepts": Case(joint(ml_sim, ("m ~ x + (1 | id)", "y ~ m + x + (1 | id)")), SHORT, private=True),
    "ml_sim missing values": Case(
        joint(holes),
        (*SHORT, one("effects", interval="bootstrap", n=outputs.FEW, seed=1, level=0.8, kind="residual")),
        private=True,
    ),
    "ml_sim moderated": Case(
        joint(ml_sim, ("m ~ x * w + (1 + x | id)", "y ~ m * w + x + (1 + m | id)"), treatment="x"),
        MODERATED,
        private=True,
    ),
    "ml_sim contrast": Case(joint(ml_sim, contrast=(-1.0, 1.5)), SHORT, private=True),
    "ml_sim factor treatment": Case(
        joint(
            ml_sim,
            ("m ~ arm + w + (1 | id)", "y ~ m * z + arm + (1 + m | id)"),
            treatment="arm",
            contrast=("low", "high"),
        ),
        (*SHORT, *outputs.effects({"z": 1.0}, kinds=("block",)), *outputs.profiles(["indirect"])),
        private=True,
    ),
    "yuan joint reml": Case(
        joint(yuan, YUAN),
        (
            *outputs.estimates(),
            *outputs.mixed_tables(),
            *outputs.effects(),
            *outputs.function_tests(
                ["indirect / total", "sqrt(var(Med~X))", "cov_ab / sqrt(var(Med~X) * var(y~Med))"],
                ["cov_ab = 0", "indirect = -0.1"],
            ),
            *outputs.profiles(["indirect", "cov_ab"]),
            *outputs.bootstraps(),
            *outputs.bootstrap_effects(),
            *outputs.own_rows("X"),
            *outputs.predictions(YUAN_GRID),
            *outputs.predictions(yuan),
            *outputs.mixed_pictures("X", "indirect"),
        ),
    ),
    "yuan shards": Case(added_shards, (*SHORT, one("bootstrap", n=outputs.FEW, seed=1), one("influence"))),
    "blch9 joint": Case(
        joint(diary, JOINT),
        (
            *outputs.estimates(),
            *outputs.mixed_tables(),
            *outputs.effects(),
            *outputs.bootstraps(kinds=("case", "parametric"), within=False),
            *outputs.own_rows("x"),
        ),
        private=True,
    ),
    "blch9 raw": Case(
        joint(
            diary,
            (
                "fwkdis ~ fwkstrs + I(time - 11) + (1 + fwkstrs | id)",
                "freldis ~ fwkdis + fwkstrs + I(time - 11) + (1 + fwkdis + fwkstrs | id)",
            ),
            treatment="fwkstrs",
        ),
        (*SHORT, *outputs.mixed_tables(("joint",), ("satterthwaite",)), *outputs.own_rows("fwkstrs", {"time": 1})),
        private=True,
    ),
    "small singular": Case(
        joint(small),
        (
            *outputs.estimates(),
            *outputs.mixed_tables(("block", "joint", "CR2"), ("satterthwaite",)),
            *outputs.effects(kinds=("block", "joint", "CR0")),
            *outputs.profiles(["indirect"]),
            *outputs.bootstraps(kinds=("case", "residual"), within=False),
            *outputs.own_rows("x", drawn=False),
            one("test", "cov_ab = 0"),
        ),
    ),
    # one equation, several responses
    "ml_sim m on x": Case(mixed("m ~ x + (1 + x | id)", ml_sim, method="ml"), SINGLE, private=True),
    "ml_sim y on x": Case(mixed("y ~ x + (1 + x | id)", ml_sim, method="ml"), SINGLE, private=True),
    "ml_sim y on m x": Case(
        mixed("y ~ m + x + (1 + m + x | id)", ml_sim, method="ml"),
        (
            *SINGLE,
            given("compare", "versus", nested_fit),
            one("test", "var(x) = 0"),
            one("test", "m = x"),
            *outputs.profiles(["m", "var(x)"]),
            *outputs.bootstraps(within=False),
        ),
        private=True,
    ),
    "sleepstudy": Case(
        mixed("Reaction ~ Days + (1 + Days | Subject)", lambda: load("sleepstudy")),
        (*SINGLE, *outputs.own_rows("Days"), *outputs.profiles(["Days", "sd(Days)", "cor(Intercept,Days)"])),
        private=True,
    ),
    "sleepstudy exchangeable": Case(
        mixed(
            "Reaction ~ Days + (1 + Days | Subject)", lambda: load("sleepstudy"), covariance="exchangeable", method="ml"
        ),
        SINGLE,
        private=True,
    ),
    "gpa": Case(
        mixed("gpa ~ occasion * sex + job + highgpa + (1 + occasion | student)", lambda: load("gpa")),
        (*SINGLE, *outputs.own_rows("occasion", {"sex": "male"})),
        private=True,
    ),
    "yuan two responses": Case(
        mixed(TWO, yuan, residual="unstructured"),
        (
            *SINGLE,
            *outputs.function_tests(["sqrt(var(Med~X))"], ["cov(Med~X,y~X) = 0"]),
            *outputs.profiles(["y~X"]),
            *outputs.bootstraps(),
            *outputs.own_rows("X"),
            *outputs.predictions(YUAN_GRID),
            *outputs.mixed_pictures("X", "y~X"),
        ),
    ),
    "williams m1": Case(
        mixed("NA.std ~ 1 + NA_lag + PA_lag + (1 + NA_lag + PA_lag | id)", affect),
        (*outputs.estimates(), *outputs.mixed_tables(("block", "joint", "CR2"), ("satterthwaite",))),
        private=True,
    ),
    "williams m2": Case(
        mixed(AFFECT2, affect, residual="unstructured"),
        (*outputs.estimates(), *outputs.mixed_tables(("block", "joint", "CR1"), ()), one("influence")),
        private=True,
    ),
    "williams m3": Case(
        mixed(AFFECT3, affect, residual="unstructured"),
        (*outputs.estimates(), *outputs.mixed_tables(("block", "joint", "CR0"), ())),
        private=True,
    ),
    # separate equations
    "yuan separate": Case(
        separate(yuan, *YUAN),
        (
            *outputs.separate_effects(),
            *outputs.separate_draws(),
            given("joint: effects", "joint", one("effects")),
        ),
    ),
    "ml_sim separate ml": Case(
        separate(ml_sim, *JOINT, method="ml"), tuple(outputs.separate_effects(kinds=("block", "CR2"))), private=True
    ),
    "ml_sim separate moderated": Case(
        separate(
            holes,
            "m ~ arm * w + (1 | id)",
            "y ~ m * w + arm + (1 + m | id)",
            treatment="arm",
            contrast=("control", "high"),
        ),
        tuple(outputs.separate_effects({"w": 0.5}, kinds=("joint",))),
        private=True,
    ),
    "student 2-1-1": Case(
        separate(pupils, "late ~ catholic + (1 | SCH_ID)", "score ~ late + catholic + (1 | SCH_ID)"),
        tuple(outputs.separate_effects()),
        private=True,
    ),
    "student 2-2-1": Case(
        separate(
            pupils,
            "smorale ~ catholic + free",
            "score ~ smorale + catholic + free + (1 | SCH_ID)",
            treatment="catholic",
        ),
        (*outputs.separate_effects(), *outputs.separate_draws("catholic", jackknife=False)),
        private=True,
    ),
    # potential outcomes
    "framing plain": Case(
        causal(framing, f"emo ~ {COVARIATES}", f"cong_mesg ~ emo + {COVARIATES}", treatment="treat", family_y="probit"),
        (*outputs.causal_effects({"age": 30.0}), *outputs.sensitivities()),
        private=True,
    ),
    "framing interaction": Case(
        causal(
            framing,
            f"emo ~ {COVARIATES}",
            f"cong_mesg ~ emo * treat + {COVARIATES}",
            treatment="treat",
            family_y="probit",
            vcov="HC3",
        ),
        tuple(outputs.causal_effects({"age": 40.0}, drawn=False)),
        private=True,
    ),
    "jobs linear": Case(
        causal(
            jobs,
            "job_seek ~ treat + econ_hard + sex + age",
            "depress2 ~ treat * job_seek + econ_hard + sex + age",
            treatment="treat",
            vcov="HC1",
        ),
        (*outputs.causal_effects({"age": 30.0}), one("sensitivity")),
        private=True,
    ),
    "jobs binary mediator": Case(
        causal(
            jobs,
            "job_dich ~ treat * age + econ_hard + sex",
            "depress2 ~ treat + job_dich + econ_hard + sex + age",
            treatment="treat",
            family_m="probit",
        ),
        (*outputs.causal_effects({"age": 30.0}, drawn=False), *outputs.sensitivities()),
        private=True,
    ),
    "jobs logit count": Case(
        causal(
            jobs,
            "job_dich ~ treat + age",
            "count ~ treat + job_dich + age",
            treatment="treat",
            family_m="logit",
            family_y="poisson",
        ),
        tuple(outputs.causal_effects({"age": 30.0})),
        private=True,
    ),
    "ml_sim causal contrast": Case(
        causal(ml_sim, "m ~ x + w", "y ~ m * x + w", contrast=(-1.0, 1.0), treatment="x", cluster="id"),
        (*outputs.causal_effects({"w": 0.5}), one("sensitivity", formula="exact")),
        private=True,
    ),
    "yuan causal": Case(causal(yuan, *YUAN), (*outputs.causal_effects(clusters=True, apart=True),)),
    "ml_sim causal clusters": Case(
        causal(ml_sim, "m ~ x + w + (1 | id)", "y01 ~ m + x", treatment="x", family_y="probit"),
        tuple(outputs.causal_effects({"w": 0.5}, clusters=True, drawn=False)),
        private=True,
    ),
    # location-scale
    "yuan location-scale": Case(
        lambda: fit("location-scale", "y ~ X + (1 |c| group)", "~ X + (1 |c| group)", yuan()),
        (
            *outputs.estimates(),
            *outputs.scale_tables(),
            one("check_starts", 1, seed=1),
            *outputs.predictions(YUAN_GRID, points=False),
            rows("picture", "location-scale"),
            rows("picture", "prediction", "X", points=5),
            rows("picture", "prediction", "X", points=5, interval="prediction", level=0.8),
        ),
    ),
    "yuan location-scale, fixed scale": Case(
        lambda: fit("location-scale", "y ~ Med + (1 + Med | group)", "~ X + f", yuan()),
        (*outputs.estimates(), *outputs.scale_tables()),
    ),
    "williams m4": Case(
        lambda: fit("location-scale", "PA.std ~ 1 + (1 |c| id)", "~ 1 + (1 |c| id)", affect()),
        (*outputs.estimates(), *outputs.scale_tables()),
        private=True,
    ),
    # formulas
    **{f"formula {name}": Case(mixed(formula, yuan), ENCODED) for name, formula in (ENCODINGS | MEMORY_ONLY).items()},
    **{
        f"{kind} {name}": Case(lambda kind=kind, formula=formula: through_engine(kind, formula, yuan()), ENCODED)
        for kind in ("duckdb", "polars")
        for name, formula in ENCODINGS.items()
    },
    "duckdb joint": Case(lambda: through_engine("duckdb", list(YUAN), yuan()), ENCODED),
}
