"""What is asked of a fit, by concept; each function lists questions that fits of several cases answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from validation.lock.adapter import Asked

__all__ = [
    "CLUSTER_KINDS",
    "KINDS",
    "bootstraps",
    "causal_effects",
    "effects",
    "estimates",
    "function_tests",
    "mixed_tables",
    "own_rows",
    "profiles",
    "scale_tables",
    "sensitivities",
    "separate_effects",
]

#: Covariances of the estimates.
CLUSTER_KINDS = ("CR0", "CR1", "CR2", "cluster")
KINDS = ("block", "joint", *CLUSTER_KINDS)
DDF = ("satterthwaite", "kenward-roger", "residual")
ENDS = ("percentile", "bc", "bca", "basic", "normal")
ORDERS = ("first", "second", "unbiased")
#: Replicates of each bootstrap, enough for intervals of the level; draws of each Monte Carlo interval.
FEW, DRAWS, LEVEL = 24, 400, 0.8


def one(what: str, *args: Any, **options: Any) -> Asked:
    """A question."""
    return Asked(what, args, options)


def rows(what: str, *args: Any, **options: Any) -> Asked:
    """A question that is answered for every row of the data."""
    return Asked(what, args, options, rows=True)


def given(label: str, what: str, *args: Any, **options: Any) -> Asked:
    """A question under a name of its own, for what is too long to be shown."""
    return Asked(what, args, options, label)


def estimates() -> Iterator[Asked]:
    """What statsmodels and lme4 call the estimates, and what is said of the fit."""
    for name in ("params", "bse", "tvalues", "pvalues", "G", "llf", "aic", "bic", "deviance", "df_model"):
        yield one(name)
    for name in ("nobs", "n_clusters", "is_singular", "converged", "names", "conf_int", "glance"):
        yield one(name)
    yield one("conf_int", alpha=0.2)


def mixed_tables(kinds: Sequence[str] = KINDS, ddf: Sequence[str] = DDF, *, stata: bool = True) -> Iterator[Asked]:
    """Tables, documents and summaries of a mixed model under each covariance and each kind of degrees of freedom."""
    for name in ("sigma2", "Sigma", "reml_criterion", "method", "group_name", "label", "optimization", "ranef"):
        yield one(name)
    yield one("ranef", level=0.5)
    for share in (0.7, 1.3):
        yield one("loglik_at", share)
    for kind in kinds:
        yield one("vcov", kind)
        yield one("fixef", vcov=kind)
        yield one("tidy", vcov=kind)
    for kind in [kind for kind in kinds if kind in ("block", "joint")]:
        for table in ("varcorr", "sdcor", "correlations"):
            yield one(table, vcov=kind)
        yield one("summary", vcov=kind)
    for kind in ddf:
        yield one("fixef", ddf=kind)
    yield one("tidy", level=0.9)
    yield one("summary", level=0.9)
    yield one("to_json")
    yield one("to_table")
    if ddf:
        yield one("summary", ddf=ddf[0])
        yield one("to_json", vcov=kinds[-1], ddf="none", level=0.9)
    if stata:
        yield one("summary", "stata")
        yield one("summary", "stata", level=0.9)


def own_rows(variable: str, at: dict[str, Any] | None = None, *, drawn: bool = True) -> Iterator[Asked]:
    """Values of the rows that were fitted, curves, influence of clusters, draws from the model."""
    for level in ("population", "cluster"):
        yield rows("resid", of=level)
    yield rows("fittedvalues")
    yield one("conditional_effects", variable, points=5)
    if at is not None:
        yield one("conditional_effects", variable, points=3, at=at)
    yield rows("influence")
    yield one("check_starts", 2, seed=1)
    if drawn:
        yield rows("simulate", 2, seed=1)
        yield rows("simulate", 1, seed=1, of="cluster")
        yield one("predictive_check", 40, seed=1)
        yield one("predictive_check", 40, seed=1, of="cluster", level=0.8)


def predictions(newdata: Any, *, points: bool = True) -> Iterator[Asked]:
    """Predictions at rows that are given, with each interval and, if there are such, without one."""
    for level in ("population", "cluster"):
        if points:
            yield given(f"predict({_size(newdata)}, of={level})", "predict", newdata, of=level)
        for interval in ("confidence", "prediction"):
            name = f"predict({_size(newdata)}, of={level}, interval={interval})"
            yield given(name, "predict", newdata, of=level, interval=interval, level=0.9)


def _size(newdata: Any) -> str:
    return "own rows" if callable(newdata) else f"{len(newdata)} new rows"


def effects(at: dict[str, Any] | None = None, *, kinds: Sequence[str] = KINDS) -> Iterator[Asked]:
    """Effects of the joint model, delta method and draws from the normal law."""
    held = {} if at is None else {"at": at}
    for kind in kinds:
        yield one("effects", vcov=kind, **held)
    for order in ORDERS:
        yield one("effects", order=order, **held)
        yield one("effects", order=order, vcov="joint", **held)
    yield one("effects", ddf="satterthwaite", **held)
    yield one("effects", level=0.9, **held)
    yield one("effects", interval="monte-carlo", n=DRAWS, seed=1, **held)
    yield one("effects", interval="monte-carlo", n=DRAWS, seed=2, vcov="joint", level=0.8, **held)
    yield one("comparable")
    yield one("combined", "a*b")


def function_tests(expressions: Sequence[str], hypotheses: Sequence[str], **held: Any) -> Iterator[Asked]:
    """Functions of the parameters, and likelihood-ratio tests of one restriction."""
    for expression in expressions:
        yield one("nlcom", expression, **held)
    for options in ({"vcov": "joint"}, {"order": "first"}, {"vcov": "CR2", "level": 0.9}):
        yield one("nlcom", expressions[0], **options, **held)
    for hypothesis in hypotheses:
        yield one("test", hypothesis)


def profiles(quantities: Sequence[str], *, table: bool = False, **held: Any) -> Iterator[Asked]:
    """Profile likelihood: ends and curve of each quantity, or the table of all effects."""
    for quantity in quantities:
        yield one("profile", quantity, points=5, **held)
    if table:
        yield one("effects", interval="profile", level=0.9, **held)


def bootstraps(*, kinds: Sequence[str] = ("case", "parametric", "residual"), within: bool = True) -> Iterator[Asked]:
    """Every bootstrap with every way to make ends, and the jackknife behind ``bca``."""
    for kind in kinds:
        yield one("bootstrap", n=FEW, seed=1, kind=kind, ends=ENDS if kind == "case" else ENDS[:1])
    if within:
        yield one("bootstrap", n=FEW, seed=1, within=True)


def bootstrap_effects(*, joint: bool = True) -> Iterator[Asked]:
    """Tables of effects with bootstrap intervals, by the one function that has every interval."""
    drawn = {"interval": "bootstrap", "n": FEW, "seed": 3, "level": LEVEL}
    for ends in ("percentile", "bca", "normal"):
        yield one("effects", ends=ends, **drawn)
    if joint:
        for kind in ("parametric", "residual"):
            yield one("effects", kind=kind, **drawn)
        yield one("effects", within=True, **drawn)


def mixed_pictures(variable: str, quantity: str) -> Iterator[Asked]:
    """What a mixed model draws."""
    yield rows("picture", "conditional", variable, points=5)
    yield rows("picture", "conditional", variable, points=5, data=True)
    yield rows("picture", "spaghetti", variable, points=3, clusters=6, seed=1)
    yield rows("picture", "ranef")
    yield rows("picture", "correlations")
    yield rows("picture", "predictive", 10, seed=1)
    yield rows("picture", "predictive", 10, seed=1, kind="cluster-mean")
    yield rows("picture", "profile", quantity, points=5)
    yield rows("picture", "bootstrap", quantity, n=FEW, seed=1)
    yield rows("picture", "influence", quantity)
    yield rows("picture", "optimization")


def separate_effects(at: dict[str, Any] | None = None, *, kinds: Sequence[str] = KINDS) -> Iterator[Asked]:
    """Everything that separate equations answer without drawing clusters."""
    held = {} if at is None else {"at": at}
    for name in ("design", "levels", "label", "n_clusters", "nobs", "params", "names", "treatment", "effects_reason"):
        yield one(name)
    for kind in kinds:
        yield one("effects", vcov=kind, **held)
        yield one("tidy", vcov=kind)
        yield one("sobel", vcov=kind)
    for order in ORDERS:
        yield one("effects", order=order, **held)
    yield one("effects", interval="product", **held)
    yield one("effects", interval="product", vcov="joint", level=0.9, **held)
    yield one("effects", interval="monte-carlo", n=DRAWS, seed=1, **held)
    yield one("nlcom", "a*b / cprime", **held)
    yield one("nlcom", "exp(a)", vcov="joint", order="first", level=0.9, **held)
    yield one("to_json")
    yield one("to_json", vcov="CR1", level=0.9)
    yield one("comparable")
    yield one("combined", "a*b")
    for options in ({}, {"vcov": "CR2", "level": 0.9}):
        yield one("summary", **options)
    yield one("summary", "stata")
    for part in ("mediator", "outcome", "reduced"):
        yield given(f"{part}: nobs", "part", part, one("nobs"))
        yield given(f"{part}: fixef", "part", part, one("fixef", vcov="joint"))


def separate_draws(strata: str | None = None, *, jackknife: bool = True) -> Iterator[Asked]:
    """The bootstrap of separate equations, with its jackknife, which refits without each cluster."""
    drawn = {"n": FEW, "seed": 1} | ({} if strata is None else {"strata": strata})
    ends = [name for name in ENDS if jackknife or name != "bca"]
    yield one("bootstrap", ends=ends, **drawn)
    yield one("effects", interval="bootstrap", level=LEVEL, ends=ends[2], **drawn)
    yield one("effects", interval="bootstrap", level=LEVEL, **drawn)


def causal_effects(
    at: dict[str, Any] | None = None, *, clusters: bool = False, drawn: bool = True, apart: bool = False
) -> Iterator[Asked]:
    """Potential outcomes: effects with every interval, over rows or clusters, and the tests of them."""
    held = {} if at is None else {"at": at}
    for name in ("params", "nobs", "contrast", "treatment", "interaction", "label", "glance", "tidy", "to_json"):
        yield one(name)
    yield one("effects")
    yield one("effects", level=0.9, **held)
    yield one("effects", "delta" if not clusters else None, **held)
    yield one("effects", interval="monte-carlo", n=DRAWS, seed=1, **held)
    yield one("comparable")
    yield one("summary")
    yield one("summary", interval="monte-carlo", n=DRAWS, seed=1, level=0.9, **held)
    yield one("test_interaction", DRAWS, seed=1, **held)
    if at is not None:
        (name, value), *_ = at.items()
        yield one("test_moderation", {name: value}, {name: value + 1.0}, DRAWS, seed=1)
    if clusters:
        yield one("effects", groups="population", **held)
        yield one("effects", interval="monte-carlo", n=DRAWS, seed=1, groups="population", **held)
        yield one("groups")
        yield one("groups", interval="monte-carlo", n=100, seed=1)
        yield one("summary", groups="population")
    if apart:
        yield one("effects", interval="monte-carlo", n=100, seed=1, ranef_draws="independent")
    yield one("picture", "effects")
    yield one("picture", "effects", interval="monte-carlo", n=DRAWS, seed=1, level=0.9)
    if drawn:
        yield one("bootstrap", n=FEW, seed=1, ends=("percentile", "bc", "basic", "normal"))
        yield one("effects", interval="bootstrap", n=FEW, seed=1, level=LEVEL, **held)


def sensitivities() -> Iterator[Asked]:
    """Correlated errors: both effects, both formulas, both intervals."""
    yield one("sensitivity")
    yield one("sensitivity", effect="direct", level=0.9)
    yield one("picture", "sensitivity")
    yield one("sensitivity", rho=[-0.5, 0.0, 0.3], interval="monte-carlo", n=100, seed=1)


def scale_tables() -> Iterator[Asked]:
    """Everything that a location-scale model answers."""
    for name in ("vcov", "fixef", "effects", "varcorr", "sdcor", "tidy", "ranef", "summary", "to_json", "to_table"):
        yield one(name)
    for name in ("effects", "sdcor", "tidy", "summary"):
        yield one(name, level=0.9)
    for level in ("population", "cluster"):
        yield rows("fitted", of=level)
    yield one("nodes")
    yield rows("picture", "ranef")
