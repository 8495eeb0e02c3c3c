"""Kinds of intervals as values: each holds its options and tabulates effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd

from mlmed.effects.catalogue import EffectSet, FormSet, IntervalOptions, schools_with
from mlmed.effects.delta import COLUMNS, delta_table
from mlmed.effects.quantity import Quantity
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.resampling import Plan
from mlmed.intervals.bootstrap import draws_table, run_bootstrap
from mlmed.intervals.functions import quantity_of
from mlmed.intervals.product_normal import product_normal
from mlmed.intervals.profile import profile_table
from mlmed.intervals.smallsample import delta_with_df
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined
from mlmed.options import (
    DDF_KINDS,
    ENDS,
    ORDERS,
    RESAMPLED,
    check_count,
    check_flag,
    check_jobs,
    check_seed,
    one_of,
    shown,
)

#: Effects with a product, and how many of the forms a, b, cprime they use.
PRODUCTS = {"indirect": 2, "total": 3}
NO_PRODUCT = "no product interval: it is for a*b and a*b + c'; use interval='monte-carlo' or 'bootstrap'"


class Interval(Protocol):
    """A kind of interval with its options."""

    name: ClassVar[str]

    def table(self, effects: EffectSet, *, level: float) -> pd.DataFrame:
        """Tabulate the effects with intervals of this kind: term, estimate, std_error, statistic, ..., note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """Normal intervals by the delta method (docs/math.md, eq. 28 to 31); every fit with effects.

    Attributes
    ----------
    vcov : str, optional
        Covariance of the estimates; by default the fit's own.
    order : {"second", "first", "unbiased"}, optional
        By default ``second``, which adds the term Va Vb + Cab^2 of Bauer, Preacher & Gil (2006); ``first`` omits it,
        ``unbiased`` subtracts it (Aroian, Sobel, Goodman). ``mediate`` and ``piecewise`` only: other errors are
        first-order.
    ddf : {"none", "satterthwaite", "kenward-roger", "residual"}
        t instead of z, with these degrees of freedom; ``mediate`` only.

    Raises
    ------
    EffectError
        An unknown word.

    Examples
    --------
    >>> import mlmed
    >>> formulas = "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"
    >>> fit = mlmed.mediate(*formulas, mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> table = fit.effects(mlmed.Delta(order="first")).set_index("term")
    >>> float(round(table.loc["indirect", "std_error"], 5))
    0.06623
    """

    name: ClassVar[str] = "delta"
    vcov: str | None = None
    order: str | None = None
    ddf: str | None = None

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        _known(self.order, ORDERS, "order")
        _known(self.ddf, DDF_KINDS, "ddf")

    def table(self, effects: EffectSet, *, level: float) -> pd.DataFrame:
        """Tabulate the effects with delta-method errors."""
        if isinstance(effects, FormSet) and isinstance(effects.fit, LmmFit) and effects.moving is not None:
            kind = effects.fit.usual if self.vcov is None else self.vcov
            given = {"vcov": kind, "order": self.order or "second", "ddf": self.ddf or "none"}
            return delta_with_df(effects.fit, effects.quantities, effects.moving, level=level, **given)
        V = effects.vcov(self.vcov)
        listed = list(effects.told(V).values())
        return delta_table(listed, V, order=self.order or "second", level=level, more=effects.cautions(V))


@dataclass(frozen=True, slots=True, kw_only=True)
class MonteCarlo:
    """Quantiles of effects over normal draws of the parameters (eq. 43); every fit with effects.

    Attributes
    ----------
    vcov : str, optional
        Covariance of the estimates; by default the fit's own.
    n : int, optional
        Draws, by default 20,000 (``causal``: 1,000).
    seed : int
        Required.

    Raises
    ------
    EffectError
        No seed, or no number of draws.

    Examples
    --------
    >>> import mlmed
    >>> formulas = "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"
    >>> fit = mlmed.mediate(*formulas, mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> table = fit.effects(mlmed.MonteCarlo(n=20_000, seed=1)).set_index("term")
    >>> table.loc["indirect", ["conf_low", "conf_high"]].astype(float).round(3).tolist()
    [-0.261, -0.001]
    """

    name: ClassVar[str] = "monte-carlo"
    vcov: str | None = None
    n: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check seed and number of draws."""
        check_seed(self.seed, f"interval={self.name!r}")
        if self.n is not None:
            check_count(self.n, "draws")

    def table(self, effects: EffectSet, *, level: float) -> pd.DataFrame:
        """Tabulate quantiles of draws; a row without them says why."""
        assert self.seed is not None
        V = effects.vcov(self.vcov)
        draws = effects.monte_carlo(V, n=20_000 if self.n is None else self.n, seed=self.seed)
        known, missing = effects.centred(draws, V)
        return draws_table(
            pd.DataFrame(draws),
            pd.Series({term: quantity.estimate for term, quantity in known.items()}),
            level=level,
            notes={term: joined(q.note, V.note_for(q.gradient, q.hessian)) for term, q in known.items()},
            missing=missing,
            untested=[term for term, q in known.items() if q.kind in ("sd", "factor")],
            unspread=effects.unspread,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """Exact distribution of a product of normal variables, for a b and a b + c' (eq. 65); ``piecewise`` only.

    Attributes
    ----------
    vcov : str, optional
        Covariance of the estimates; by default the fit's own.

    Examples
    --------
    >>> import mlmed
    >>> formulas = "Med ~ X + (1 | group)", "y ~ Med + X + (1 | group)"
    >>> fit = mlmed.piecewise(*formulas, mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> table = fit.effects(mlmed.Product()).set_index("term")
    >>> table.loc["indirect", ["conf_low", "conf_high"]].astype(float).round(3).tolist()
    [-0.059, -0.026]
    """

    name: ClassVar[str] = "product"
    vcov: str | None = None

    def table(self, effects: EffectSet, *, level: float) -> pd.DataFrame:
        """Tabulate exact intervals of products and normal ones of paths; quotients have none."""
        assert isinstance(effects, FormSet)
        assert effects.forms is not None
        V = effects.vcov(self.vcov)
        table = Delta(vcov=self.vcov).table(effects, level=level)
        forms = effects.forms
        mean, covariance = forms.values(effects.fit.psi)[:3], forms.covariance(V)[:3, :3]
        out, numbers = table.set_index("term"), list(COLUMNS[2:-1])
        for term, k in PRODUCTS.items():
            if np.isfinite(out["std_error"][term]):
                found = product_normal(mean[:k], covariance[:k, :k])
                statistic = effects.quantities[term].estimate / found.sd
                out.loc[term, numbers] = [found.sd, statistic, np.nan, found.p_value(), *found.interval(level)]
        for term in effects.unspread:
            if not effects.quantities[term].is_fixed:
                out.loc[term, numbers] = np.nan
                out.loc[term, "note"] = joined(effects.quantities[term].note, NO_PRODUCT)
        return out.reset_index()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Profile likelihood: all other parameters are re-estimated at each value (eq. 37); ``mediate`` only.

    Attributes
    ----------
    vcov : str, optional
        Covariance for the column std_error, which the intervals do not use.

    Examples
    --------
    >>> import mlmed
    >>> formulas = "Med ~ X + (1 | group)", "y ~ Med + X + (1 | group)"
    >>> fit = mlmed.mediate(*formulas, mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> table = fit.effects(mlmed.Profile()).set_index("term")
    >>> table.loc["indirect", ["conf_low", "conf_high"]].astype(float).round(3).tolist()
    [-0.059, -0.026]
    """

    name: ClassVar[str] = "profile"
    vcov: str | None = None

    def table(self, effects: EffectSet, *, level: float) -> pd.DataFrame:
        """Tabulate the ends where the LR statistic reaches its quantile; ``statistic`` is the signed root at 0."""
        assert isinstance(effects, FormSet)
        assert isinstance(effects.fit, LmmFit)
        assert effects.moving is not None
        fit, moving = effects.fit, effects.moving
        asked: dict[str, tuple[Quantity, Any]] = {
            term: (effect, quantity_of(term, moving, fit.estimates)) for term, effect in effects.quantities.items()
        }
        return profile_table(fit, asked, effects.vcov(self.vcov), level=level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Refitted replicates of the data; every fit with effects but location-scale models.

    Attributes
    ----------
    n : int, optional
        Replicates, by default 1,000.
    kind : {"case", "parametric", "residual"}, optional
        Type of replicate; ``mediate`` only, others draw clusters (rows, if there are none).
    within : bool, optional
        With ``case``: also draw rows within the drawn clusters; ``mediate`` only.
    strata : str, optional
        Column within whose values clusters are drawn; ``piecewise`` only.
    ends : {"percentile", "bc", "bca", "basic", "normal"}, optional
        Construction of the interval from the draws.
    seed : int
        Required.
    n_jobs : int, optional
        Workers.
    progress : bool, optional
        Show a progress bar.

    Raises
    ------
    EffectError
        No seed, an unknown word, or a number that is none.

    Examples
    --------
    >>> import mlmed
    >>> formulas = "Med ~ X + (1 | group)", "y ~ Med + X + (1 | group)"
    >>> fit = mlmed.piecewise(*formulas, mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> table = fit.effects(mlmed.Bootstrap(n=50, seed=1)).set_index("term")
    >>> table.loc["indirect", ["conf_low", "conf_high"]].astype(float).round(2).tolist()
    [-0.13, 0.04]
    """

    name: ClassVar[str] = "bootstrap"
    n: int | None = None
    kind: str | None = None
    within: bool | None = None
    strata: str | None = None
    ends: str | None = None
    seed: int | None = None
    n_jobs: int | None = None
    progress: bool | None = None

    def __post_init__(self) -> None:
        """Check all options before replicates are drawn."""
        check_seed(self.seed, f"interval={self.name!r}")
        if self.n is not None:
            check_count(self.n, "replicates")
        _known(self.kind, RESAMPLED, "kind")
        _known(self.ends, ENDS, "ends")
        check_jobs(self.n_jobs)
        for name in ("within", "progress"):
            if getattr(self, name) is not None:
                check_flag(getattr(self, name), name)

    @property
    def plan(self) -> Plan:
        """The options of the replicates."""
        n, kind = 1000 if self.n is None else self.n, self.kind or "case"
        return Plan(n, kind, bool(self.within), self.strata, self.seed, self.n_jobs, bool(self.progress))

    def table(self, effects: EffectSet, *, level: float) -> pd.DataFrame:
        """Tabulate intervals from the draws."""
        boot = run_bootstrap(effects, self.plan)
        return boot.tidy(ends=self.ends or "percentile", level=level, terms=list(effects.quantities))


KINDS: dict[str, type[Delta | MonteCarlo | Product | Profile | Bootstrap]] = {
    kind.name: kind for kind in (Delta, MonteCarlo, Product, Profile, Bootstrap)
}


def _known(value: str | None, words: Sequence[str], what: str) -> None:
    if value is not None:
        one_of(value, words, what)


def options_of(interval: Interval) -> dict[str, Any]:
    """The options that a value was given."""
    found = {f.name: getattr(interval, f.name) for f in fields(interval)}  # type: ignore[arg-type]
    return {name: value for name, value in found.items() if value is not None}


def spread(
    vcov: str | None, ddf: str | None, options: Mapping[str, Any]
) -> tuple[str | None, str | None, dict[str, Any]]:
    """Replace an interval value by its name and options, beside ``vcov``, ``ddf`` and the other options of effects.

    Raises
    ------
    EffectError
        Options beside a value that has its own.
    """
    interval = options.get("interval")
    if not isinstance(interval, Delta | MonteCarlo | Product | Profile | Bootstrap):
        return vcov, ddf, dict(options)
    given = {"vcov": vcov, "ddf": ddf, **options}
    _refuse_twice(interval, {name: value for name, value in given.items() if value is not None})
    found = {**given, **options_of(interval), "interval": interval.name}
    return found.pop("vcov"), found.pop("ddf"), found


def _refuse_twice(interval: Interval, asked: Mapping[str, Any]) -> None:
    if twice := [f.name for f in fields(interval) if f.name in asked]:  # type: ignore[arg-type]
        raise EffectError(
            f"interval={interval!r} has its own options; give {', '.join(twice)} to it, as in "
            f"{type(interval).__name__}({twice[0]}=...)"
        )


def interval_of(interval: Any, given: Mapping[str, Any], allowed: IntervalOptions) -> Interval:
    """Make an interval from its name and options, or from a user's value.

    Parameters
    ----------
    interval : str or Interval
        Name or value.
    given : mapping
        Options by name; None if not given.
    allowed : mapping
        From a catalogue: kind of interval -> option -> default; other options are refused.

    Raises
    ------
    EffectError
        An unknown interval, an option that it does not use, or options beside a value that has its own.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if isinstance(interval, Delta | MonteCarlo | Product | Profile | Bootstrap):
        _refuse_twice(interval, asked)
        asked |= options_of(interval)
        interval = interval.name
    if isinstance(interval, str) and interval in KINDS and interval not in allowed:
        known = ", ".join(map(repr, allowed))
        raise EffectError(f"interval={interval!r} is for effects of {_schools(interval)}; these have {known}")
    one_of(interval, allowed, "interval")
    idle = [name for name in asked if name not in allowed[interval]]
    if idle:
        users = [kind for kind, options in allowed.items() if idle[0] in options]
        named = " and ".join(f"interval={kind!r}" for kind in users)
        belongs = f"belongs to {named}" if users else f"is for effects of {_schools('', idle[0])}"
        raise EffectError(f"interval={shown(interval)} does not use {', '.join(idle)}; {idle[0]} {belongs}")
    kind, options = KINDS[interval], {**allowed[interval], **asked}
    return kind(**{f.name: options[f.name] for f in fields(kind) if f.name in options})  # others ask for effects


def _schools(interval: str, option: str = "") -> str:
    """Functions whose effects have an interval, or an option."""
    *others, last = [f"mlmed.{school}" for school in schools_with(interval, option)] or ["no kind of fit here"]
    return f"{', '.join(others)} and {last}" if others else last


def sobel_table(indirect: Quantity, V: Vcov, *, level: float) -> pd.DataFrame:
    """Tabulate the indirect effect with the standard errors of Sobel, Aroian and Goodman (eq. 28, 29, 63)."""
    tests = {"sobel": "first", "aroian": "second", "goodman": "unbiased"}
    rows = [delta_table([indirect.named(test)], V, order=order, level=level) for test, order in tests.items()]
    return pd.concat(rows, ignore_index=True)
