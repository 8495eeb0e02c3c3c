"""The delta method, once, for every quantity (docs/math.md, eq. 28 to 31)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from mlmed.effects.quantity import Kind, Quantity
from mlmed.options import ORDERS, check_level, one_of
from mlmed.reml.vcov import Vcov

__all__ = [
    "COLUMNS",
    "Kind",
    "Quantity",
    "delta_table",
    "said_of",
    "std_error",
    "wald_table",
]

Array = NDArray[np.float64]
#: Columns of every table of estimates; ``note`` says why a number is missing or how to read it.
COLUMNS = ("term", "estimate", "std_error", "statistic", "p_value", "conf_low", "conf_high", "note")
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


def said_of(quantity: Quantity, V: Vcov, *, order: str) -> str:
    """Why a quantity has no standard error, or what a reader should know of it; nothing if the model fixes it."""
    if quantity.is_fixed:
        return ""
    if np.isfinite(std_error(quantity, V, order=order)):
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
    log_scale: NDArray[np.bool_] | None = None,
    df: Array | None = None,
) -> pd.DataFrame:
    """The tidy table: z or t tests and intervals; on the log scale (and without a test) where ``log_scale``.

    Variances get ``estimate * exp(+- z se / estimate)``, as Stata prints them. Where ``df`` (n,) is NaN there is
    neither test nor interval.
    """
    check_level(level)
    log = np.zeros(len(estimates), dtype=bool) if log_scale is None else log_scale
    free = np.full(len(estimates), np.inf) if df is None else df
    z = _quantile(free, 0.5 + level / 2.0)
    usable = np.isfinite(std_errors) & (std_errors > 0.0)
    statistic = np.divide(estimates, std_errors, out=np.full(len(estimates), np.nan), where=usable & ~log)
    low, high = estimates - z * std_errors, estimates + z * std_errors
    positive = log & usable & (estimates > 0.0)
    ratio = np.divide(z * std_errors, estimates, out=np.full(len(estimates), np.nan), where=positive)
    with np.errstate(over="ignore"):  # an interval that reaches to infinity says just that
        factor = np.exp(ratio)
    low, high = np.where(log, estimates / factor, low), np.where(log, estimates * factor, high)
    return pd.DataFrame(
        {
            "term": list(terms),
            "estimate": estimates,
            "std_error": std_errors,
            "statistic": statistic,
            "p_value": 2.0 * _cumulative(free, -np.abs(statistic)),
            "conf_low": low,
            "conf_high": high,
            "note": list(notes) if notes is not None else [""] * len(estimates),
        },
        columns=list(COLUMNS),
    )


def _quantile(df: Array, probability: float) -> Array:
    """Quantiles of t, of the normal where df is infinite, NaN where it is NaN."""
    finite = np.where(np.isfinite(df), df, 1.0)
    return np.where(np.isinf(df), ndtri(probability), np.where(np.isnan(df), np.nan, stdtrit(finite, probability)))


def _cumulative(df: Array, statistic: Array) -> Array:
    """Distribution function of t, of the normal where df is infinite, NaN where it is NaN."""
    finite = np.where(np.isfinite(df), df, 1.0)
    return np.where(np.isinf(df), ndtr(statistic), np.where(np.isnan(df), np.nan, stdtr(finite, statistic)))


def delta_table(quantities: Sequence[Quantity], V: Vcov, *, order: str = "second", level: float = 0.95) -> pd.DataFrame:
    """Estimates, standard errors and intervals of several quantities (eq. 30).

    Parameters
    ----------
    quantities : sequence of Quantity
        What to tabulate.
    V : Vcov
        Of psi; what it says of a quantity stands in its row.
    order : {"second", "first", "unbiased"}
        Second order adds the variance of the product term, ``unbiased`` subtracts it.
    level : float
        Coverage, a proportion.
    """
    errors = np.array([std_error(quantity, V, order=order) for quantity in quantities])
    estimates = np.array([quantity.estimate for quantity in quantities])
    notes = ["; ".join(filter(None, [q.note, said_of(q, V, order=order)])) for q in quantities]
    return wald_table([q.term for q in quantities], estimates, errors, level=level, notes=notes)
