"""The delta method, once, for every quantity (docs/math.md, eq. 28 to 31)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from mlmed.effects.quantity import Quantity
from mlmed.fit.protocol import Kind
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined
from mlmed.options import ORDERS, check_level, one_of

Array = NDArray[np.float64]
#: Columns of every table of estimates; ``note`` says why a number is missing or how to read it. ``df`` are the degrees
#: of freedom of t: infinite where the reference is normal, NaN where it is neither (quantiles of draws, products).
COLUMNS = ("term", "estimate", "std_error", "statistic", "df", "p_value", "conf_low", "conf_high", "note")
#: Kinds with intervals on another scale: errors are first-order, and no second note is needed.
ON_OTHER_SCALES = ("sd", "correlation", "factor")
#: Why ``order="unbiased"`` may have no answer.
NEGATIVE = (
    "the unbiased (Goodman) variance is negative, as happens where the paths are small beside their standard errors; "
    "use order='first' or 'second'"
)


def std_error(quantity: Quantity, V: Array | Vcov, *, order: str = "second") -> float:
    """Delta-method standard error: sqrt(g'Vg), in second order plus, unbiased minus tr(HVHV)/2 (eq. 28, 29, 63).

    For ``a b + cov_ab`` that term is ``Va Vb + Cab^2`` of Bauer, Preacher & Gil. The three orders are the tests of
    Sobel, Aroian and Goodman. Entries of V that the quantity does not involve may be NaN. NaN where the unbiased
    variance is negative.

    Raises
    ------
    EffectError
        Unknown order.
    """
    one_of(order, ORDERS, "order")
    used = quantity.gradient != 0.0
    if quantity.hessian is not None:
        used = used | np.any(quantity.hessian != 0.0, axis=0)
    if not used.any():
        return float("nan")
    matrix = V if isinstance(V, np.ndarray) else V.of(quantity.gradient, quantity.hessian)
    part = matrix[np.ix_(used, used)]
    g = quantity.gradient[used]
    variance = g @ part @ g
    if order != "first" and quantity.hessian is not None:
        HV = quantity.hessian[np.ix_(used, used)] @ part
        variance += (0.5 if order == "second" else -0.5) * np.trace(HV @ HV)
    return float(np.sqrt(variance)) if variance >= 0.0 else float("nan")


def said_of(quantity: Quantity, V: Vcov, *, order: str, error: float | None = None) -> str:
    """Say why a quantity has no standard error, or how to read it; empty if the model fixes it.

    ``error`` is that standard error, if known.
    """
    if quantity.is_fixed:
        return ""
    if np.isfinite(std_error(quantity, V, order=order) if error is None else error):
        return V.note_for(quantity.gradient, quantity.hessian)
    if order == "unbiased" and np.isfinite(std_error(quantity, V, order="first")):
        return NEGATIVE
    return V.reason_for(quantity.gradient, quantity.hessian)


def wald_table(
    terms: Sequence[str],
    estimates: Array,
    std_errors: Array,
    *,
    level: float = 0.95,
    notes: Sequence[str] | None = None,
    kinds: Sequence[Kind] | None = None,
    df: Array | None = None,
) -> pd.DataFrame:
    """Tabulate estimates and standard errors with tests and intervals, each on the scale of its kind.

    Variances and standard deviations have intervals on the log scale, ``estimate * exp(+- z se / estimate)``, as Stata
    prints them, and no test; factors the same with a test of 1; correlations both by Fisher's z. All others are
    normal, or t with ``df`` (n,) degrees of freedom; NaN there leaves out test and interval.
    """
    level = check_level(level)
    of = np.asarray([""] * len(estimates) if kinds is None else kinds, dtype=object)
    log, fisher, ratio = np.isin(of, ("variance", "sd", "factor")), of == "correlation", of == "factor"
    free = np.full(len(estimates), np.inf) if df is None else df
    z = _quantile(free, 0.5 + level / 2.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # an interval may reach to infinity
        inner = np.where(fisher, estimates, 0.0)
        centre = np.where(fisher, np.arctanh(inner), np.where(ratio, np.log(estimates), estimates))
        spread = std_errors / np.where(ratio, estimates, 1.0 - inner**2)
        usable = np.isfinite(spread) & (spread > 0.0) & (ratio | ~log)
        statistic = np.divide(centre, spread, out=np.full(len(estimates), np.nan), where=usable)
        factor = np.exp(np.where(log & (std_errors > 0.0) & (estimates > 0.0), z * std_errors / estimates, np.nan))
        low, high = centre - z * spread, centre + z * spread
        low = np.where(log, estimates / factor, np.where(fisher, np.tanh(low), low))
        high = np.where(log, estimates * factor, np.where(fisher, np.tanh(high), high))
    return pd.DataFrame(
        {
            "term": list(terms),
            "estimate": estimates,
            "std_error": std_errors,
            "statistic": statistic,
            "df": free,
            "p_value": 2.0 * _cumulative(free, -np.abs(statistic)),
            "conf_low": low,
            "conf_high": high,
            "note": list(notes) if notes is not None else [""] * len(estimates),
        },
        columns=list(COLUMNS),
    )


def _quantile(df: Array, probability: float) -> Array:
    """Quantiles of t, normal if df is infinite, NaN if it is NaN."""
    finite = np.where(np.isfinite(df), df, 1.0)
    return np.where(np.isinf(df), ndtri(probability), np.where(np.isnan(df), np.nan, stdtrit(finite, probability)))


def _cumulative(df: Array, statistic: Array) -> Array:
    """Distribution function of t, normal if df is infinite, NaN if it is NaN."""
    finite = np.where(np.isfinite(df), df, 1.0)
    return np.where(np.isinf(df), ndtr(statistic), np.where(np.isnan(df), np.nan, stdtr(finite, statistic)))


def delta_table(
    quantities: Sequence[Quantity],
    V: Vcov,
    *,
    order: str = "second",
    level: float = 0.95,
    df: float | Sequence[float] = np.inf,
    more: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Estimates, standard errors and intervals of several quantities (eq. 30).

    Parameters
    ----------
    quantities : sequence of Quantity
        The rows.
    V : Vcov
        Covariance of psi; its notes on a quantity go to the row.
    order : {"second", "first", "unbiased"}
        Second order adds the variance of the product term, ``unbiased`` subtracts it; standard deviations and
        correlations are first-order.
    level : float
        Coverage, a proportion.
    df : float or sequence of float
        Degrees of freedom of t tests, of all or of each; normal ones by default.
    more : mapping, optional
        Further notes by term.
    """
    orders = ["first" if q.kind in ON_OTHER_SCALES else order for q in quantities]
    errors = np.array([std_error(q, V, order=own) for q, own in zip(quantities, orders, strict=True)], dtype=np.float64)
    notes = []
    for q, own, error in zip(quantities, orders, errors, strict=True):
        said = "" if q.note and q.kind in ON_OTHER_SCALES else said_of(q, V, order=own, error=error)
        notes.append(joined(q.note, said, (more or {}).get(q.term, "")))
    terms, kinds = [q.term for q in quantities], [q.kind for q in quantities]
    estimates = np.array([q.estimate for q in quantities], dtype=np.float64)
    free = np.broadcast_to(np.asarray(df, dtype=np.float64), estimates.shape).copy()
    return wald_table(terms, estimates, errors, level=level, notes=notes, kinds=kinds, df=free)
