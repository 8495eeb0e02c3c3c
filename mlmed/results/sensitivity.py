"""SensitivityResults: effects as functions of the correlation of the two errors, as table, zeros, text and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.confounding import Curve
from mlmed.effects.counterfactual import CounterfactualCatalogue
from mlmed.errors import EffectError
from mlmed.options import check_text, is_number, one_of
from mlmed.report.plots.diagnostics import plot_over_r2, plot_over_rho
from mlmed.report.text import render_pairs, render_table
from mlmed.results.document import SCHEMA, interval_entry, plain, rows_of
from mlmed.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Array = NDArray[np.float64]
TERMS = {
    "indirect": ("acme_control", "acme_treated", "acme"),
    "direct": ("ade_control", "ade_treated", "ade"),
}
#: Correlations besides the grid at which the sign of the curve is checked; the last is .995.
LOOKED_AT = np.tanh(np.arange(-3.0, 3.25, 0.5))
#: A curve below this share of its scale is zero everywhere.
NOTHING = 1e-12


def check_rho(value: Any) -> float:
    """Check one correlation."""
    if not is_number(value) or not -1.0 < value < 1.0:
        raise EffectError(f"rho is a correlation of errors, between -1 and 1 (both excluded); found {shown(value)}")
    return float(value)


@dataclass(frozen=True)
class SensitivityResults:
    """Effects as functions of rho, the correlation of the errors of mediator and outcome.

    Attributes
    ----------
    table : DataFrame
        One row per rho and term: rho, term, estimate, std_error, conf_low, conf_high, R2_star (rho^2), R2_tilde
        (rho^2 times what both equations leave unexplained), note. Terms are ``acme_control``, ``acme_treated`` and
        their mean ``acme``; or those of ``ade``.
    effect : {"indirect", "direct"}
        ACME or ADE.
    formula : {"exact", "medsens"}
        Maximum likelihood at each rho, or R's formula.
    interval : {"delta", "monte-carlo"}
        Kind of interval.
    level : float
        Coverage of the intervals, a proportion.
    n, seed : int or None
        Draws and their seed, with ``monte-carlo``.
    families : (str, str)
        Families of mediator and outcome.
    unexplained : (float, float)
        1 - R^2 of mediator and outcome, on the latent scale for probit.
    notes : tuple of str
        Notes for the reader.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.simulate.bpg(seed=1).data
    >>> fit = mlmed.causal("m ~ x", "y ~ m + x", df, treatment="x")
    >>> result = fit.sensitivity(rho=[0.0, 0.5])
    >>> list(result.table["term"].unique())
    ['acme_control', 'acme_treated', 'acme']
    >>> bool(abs(result.at(float(result.zero["rho"][0]))["acme"]) < 1e-9)
    True
    """

    table: pd.DataFrame
    effect: str
    formula: str
    interval: str
    level: float
    n: int | None
    seed: int | None
    families: tuple[str, str]
    unexplained: tuple[float, float]
    notes: tuple[str, ...]
    _effects: Callable[[Array], Array] = field(repr=False, compare=False)
    _curve: Curve = field(repr=False, compare=False)
    _names: tuple[str, ...] = field(repr=False, compare=False)

    @property
    def terms(self) -> tuple[str, ...]:
        """Terms: at control, at treated, their mean."""
        return TERMS[self.effect]

    def at(self, rho: float) -> pd.Series:
        """The estimated effects at one correlation.

        Raises
        ------
        EffectError
            Not a number between -1 and 1.
        """
        return pd.Series(self._effects(np.array([check_rho(rho)]))[0], index=list(self.terms))

    def coefficients(self, rho: float) -> pd.Series:
        """Coefficients of the outcome equation at one correlation; at 0 those of the fit."""
        if self.formula == "medsens":
            raise EffectError("formula='medsens' is no model with coefficients; use formula='exact'")
        return pd.Series(self._curve.coefficients(check_rho(rho)), index=list(self._names))

    @cached_property
    def zero(self) -> pd.DataFrame:
        """Roots of the curves.

        One row per term: rho (a root of the curve), R2_star and R2_tilde there; rho_on_grid, the rho of the table
        whose estimate is nearest to zero (what R prints), R2_star_on_grid and R2_tilde_on_grid; note.
        """
        asked = self.table["rho"].unique()
        at = np.unique(np.concatenate([asked, LOOKED_AT]))
        curves = self._effects(at)
        share = self.unexplained[0] * self.unexplained[1]
        rows = []
        for k, term in enumerate(self.terms):
            mine = self.rows(term)
            nearest = float(mine["rho"].iloc[int(mine["estimate"].abs().argmin())])
            rho, note = root_of(self._effects, k, at, curves[:, k])
            rows.append((term, rho, rho**2, rho**2 * share, nearest, nearest**2, nearest**2 * share, note))
        on_grid = ["rho_on_grid", "R2_star_on_grid", "R2_tilde_on_grid"]
        return pd.DataFrame(rows, columns=["term", "rho", "R2_star", "R2_tilde", *on_grid, "note"])

    def rows(self, term: str | None = None) -> pd.DataFrame:
        """Rows of one term; by default of the mean.

        Raises
        ------
        EffectError
            Unknown term.
        """
        name = self.terms[2] if term is None else check_text(term, "term", "a term")
        if name not in self.terms:
            raise EffectError(f"no term {name!r}; there are {', '.join(self.terms)}")
        return self.table[self.table["term"] == name].reset_index(drop=True)

    def region(self) -> pd.DataFrame:
        """Rows of the table whose interval contains zero: correlations that would explain the effect away."""
        inside = (self.table["conf_low"] < 0.0) & (self.table["conf_high"] > 0.0)
        return self.table[inside].reset_index(drop=True)

    def plot(
        self,
        kind: Literal["rho", "r2"] = "rho",
        *,
        term: str | None = None,
        shares: Literal["residual", "total"] | None = None,
        sign: Literal["positive", "negative"] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """The curve over rho with its band, or contours over R^2 (extra ``plots``).

        Parameters
        ----------
        kind : {"rho", "r2"}
            Against rho, or against the shares of the variances of mediator and outcome that an omitted cause of both
            would explain.
        term : str, optional
            By default the mean of control and treated.
        shares : {"residual", "total"}, optional
            Shares of what the equations leave unexplained (default) or of the whole variances; for ``r2``.
        sign : {"positive", "negative"}, optional
            Whether the omitted cause moves both in the same direction (default) or not; for ``r2``.
        ax : Axes, optional
            Where to draw.

        Raises
        ------
        EffectError
            An unknown kind, term, share or sign, or one that the kind does not use.
        """
        rows = self.rows(term)
        name = str(rows["term"].iloc[0])
        if one_of(kind, ("rho", "r2"), "kind") == "rho":
            if shares is not None or sign is not None:
                raise EffectError("shares and sign belong to kind='r2'; leave them out for kind='rho'")
            zero = float(self.zero["rho"].to_numpy()[self.terms.index(name)])
            return plot_over_rho(rows, term=name, zero=zero, level=self.level, ax=ax)
        for value, choices, what in (
            ("residual" if shares is None else shares, ("residual", "total"), "shares"),
            ("positive" if sign is None else sign, ("positive", "negative"), "sign"),
        ):
            one_of(value, choices, what)
        k = self.terms.index(name)
        return plot_over_r2(
            lambda rhos: self._effects(rhos)[:, k],
            term=name,
            left=self.unexplained,
            total=shares == "total",
            negative=sign == "negative",
            ax=ax,
        )

    def to_json(self) -> str:
        """Write everything as JSON: what was asked, then ``zero`` and ``table`` as lists of rows.

        Examples
        --------
        >>> import json, mlmed
        >>> fit = mlmed.causal("Med ~ X", "y ~ Med + X", mlmed.datasets.load("yuan_mackinnon_sim"))
        >>> found = json.loads(fit.sensitivity(rho=[0.0]).to_json())
        >>> found["schema"], found["school"], [row["term"] for row in found["sensitivity"]]
        ('mlmed/1', 'causal', ['acme_control', 'acme_treated', 'acme'])
        """
        found = {
            "schema": SCHEMA,
            "school": CounterfactualCatalogue.school,
            "level": self.level,
            "effect": self.effect,
            "formula": self.formula,
            "families": list(self.families),
            "unexplained": plain(self.unexplained),
            "notes": list(self.notes),
            **interval_entry({"interval": self.interval, "n": self.n, "seed": self.seed}),
            "zero": rows_of(self.zero),
            "sensitivity": rows_of(self.table),
        }
        return json.dumps(found, indent=2, allow_nan=False)

    def __str__(self) -> str:
        return _report(self)

    def __repr__(self) -> str:
        rho = self.table["rho"]
        found = ", ".join(f"{row.term} {row.rho:.4g}" for row in self.zero.itertuples())
        asked = f"{self.effect}, {rho.nunique()} values of rho from {rho.min():g} to {rho.max():g}"
        return f"SensitivityResults({asked}; formula {self.formula!r}, interval {self.interval!r}; zero at: {found})"


def root_of(effects: Callable[[Array], Array], term: int, at: Array, values: Array) -> tuple[float, str]:
    """Find the zero of a curve nearest to rho = 0, bracketed by k points; NaN and the reason if there is none.

    Parameters
    ----------
    effects : function
        All curves, (R,) to (R, 3).
    term : int
        Position of the curve among them.
    at, values : (k,) arrays
        Increasing correlations, and the curve there.
    """
    from scipy.optimize import brentq

    if np.all(np.abs(values) <= NOTHING):
        return float("nan"), "the effect is zero at every rho"
    signs = np.sign(values)
    roots = [float(rho) for rho in at[signs == 0.0]]
    for k in np.flatnonzero(signs[:-1] * signs[1:] < 0.0):
        roots.append(float(brentq(lambda rho: effects(np.array([rho]))[0, term], at[k], at[k + 1], xtol=1e-13)))
    if not roots:
        return float("nan"), f"the estimated effect has one sign for every rho from {at[0]:.4f} to {at[-1]:.4f}"
    nearest = min(roots, key=abs)
    others = ", ".join(f"{rho:.4f}" for rho in sorted(roots) if rho != nearest)
    return nearest, f"the curve is zero at {others}, too" if others else ""


def _report(results: SensitivityResults) -> str:
    """Write header, zeros, and the correlations whose interval contains zero."""
    what = "indirect effect (ACME)" if results.effect == "indirect" else "direct effect (ADE)"
    title = f"Sensitivity of the {what} to correlated errors"
    terms = _distinct(results)
    same = "" if len(terms) > 1 else f"; control and treated are the same, shown as {terms[0]}"
    rho = results.table["rho"]
    how = "normal, delta method" if results.n is None else f"percentiles of {results.n:,} draws, seed {results.seed}"
    m, y = (f"{1.0 - left:.4f}" for left in results.unexplained)
    pairs = [
        ("Mediator, outcome", f"{results.families[0]}, {results.families[1]}"),
        ("rho", f"{rho.nunique()} values from {rho.min():g} to {rho.max():g}{same}"),
        ("Intervals", f"{100 * results.level:g}%, {how}"),
        (
            "R2",
            f"mediator {m}, outcome {y}"
            + (" (probit: of the latent response)" if "probit" in results.families else ""),
        ),
        *(("Note", note) for note in results.notes),
    ]
    zero = results.zero[results.zero["term"].isin(terms)]
    shown = zero[["term", "rho", "R2_star", "R2_tilde", "rho_on_grid", "note"]]
    region = results.region()
    region = region[region["term"].isin(terms)].sort_values(["term", "rho"], kind="stable")
    lines = [title, "=" * len(title), render_pairs(pairs), "", "Where the estimate is zero", render_table(shown), ""]
    unknown = results.table.loc[results.table["term"].isin(terms) & results.table["conf_low"].isna(), "note"]
    if len(unknown):
        lines += [f"Without an interval at {len(unknown)} places: {note}" for note in dict.fromkeys(unknown)]
    elif region.empty:
        lines.append(f"No interval contains zero at any of the {rho.nunique()} values of rho.")
    if not region.empty:
        lines += ["Where the interval contains zero", _rounded(region)]
    return "\n".join(lines)


def _rounded(region: pd.DataFrame) -> str:
    columns = ["term", "rho", "estimate", "conf_low", "conf_high", "R2_star", "R2_tilde", "note"]
    shown = region[columns].astype({"rho": object, "R2_star": object})
    for name in ("rho", "R2_star"):
        shown[name] = [f"{value:.4g}" for value in region[name]]
    return render_table(shown)


def _distinct(results: SensitivityResults) -> tuple[str, ...]:
    """Choose the terms to show: the mean alone if control and treated are the same curve."""
    control, treated = (results.rows(term)["estimate"].to_numpy() for term in results.terms[:2])
    size = np.abs([control, treated]).max()
    return results.terms[2:] if np.all(np.abs(control - treated) <= 1e-10 * size) else results.terms[:2]
