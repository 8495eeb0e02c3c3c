"""Which interval for effects of separate fits, and the options that each of them uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import COLUMNS, delta_table, std_error
from mlmed.effects.quantity import Quantity
from mlmed.effects.separate import QUOTIENTS, Slopes
from mlmed.intervals.bootstrap import draws_table
from mlmed.intervals.product_normal import product_normal
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined

__all__ = ["OPTIONS", "effects_table", "sobel_table"]

Array = NDArray[np.float64]
#: The options each kind of interval uses, with their defaults; the others are refused, not ignored.
OPTIONS: dict[str, dict[str, Any]] = {
    "delta": {"vcov": "block", "order": "second"},
    "monte-carlo": {"vcov": "block", "n": 20_000, "seed": None},
    "product": {"vcov": "block"},
    "bootstrap": {
        "n": 1000, "ends": "percentile", "strata": None, "seed": None, "n_jobs": None, "progress": False,
    },
}  # fmt: skip
#: The named tests of a b, by the order of the delta method that they are.
TESTS = {"sobel": "first", "aroian": "second", "goodman": "unbiased"}
#: Effects that hold a product, and how many of a, b, cprime are in it.
PRODUCTS = {"indirect": 2, "total": 3}
#: Standard errors from 0 within which a denominator makes a normal interval of the quotient worthless.
NEAR_ZERO = 2.0
NO_PRODUCT = "no product interval: it is for a*b and a*b + c'; use interval='monte-carlo' or 'bootstrap'"
NO_VARIANCE = "no standard error: draws of a quotient have no variance, as its denominator may be 0"
CAUTION = (
    "{name} is within two standard errors of 0, where a quotient has no normal distribution; use interval='bootstrap' "
    "or look at {name} itself"
)


def effects_table(
    interval: str,
    quantities: Mapping[str, Quantity],
    slopes: Slopes,
    V: Vcov,
    *,
    psi: Array,
    level: float,
    order: str = "second",
    n: int = 0,
    seed: int | None = None,
) -> pd.DataFrame:
    """The effects with the delta method, Monte Carlo, or the distribution of the product."""
    if interval == "monte-carlo":
        return _monte_carlo(quantities, slopes, V, psi=psi, level=level, n=n, rng=np.random.default_rng(seed))
    table = delta_table(list(quantities.values()), V, order=order, level=level, more=_cautions(quantities, V))
    return table if interval == "delta" else _with_products(table, quantities, slopes, V, psi=psi, level=level)


def _cautions(quantities: Mapping[str, Quantity], V: Vcov) -> dict[str, str]:
    """What to say of quotients whose denominator may be 0."""
    said = {}
    for term, below in QUOTIENTS.items():
        error = std_error(quantities[below], V)
        if np.isfinite(quantities[term].estimate) and abs(quantities[below].estimate) < NEAR_ZERO * error:
            said[term] = CAUTION.format(name=below)
    return said


def _monte_carlo(
    quantities: Mapping[str, Quantity],
    slopes: Slopes,
    V: Vcov,
    *,
    psi: Array,
    level: float,
    n: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    draws, unspread = slopes.effects.monte_carlo(psi, V, n=n, rng=rng), dict.fromkeys(QUOTIENTS, NO_VARIANCE)
    return monte_carlo_table(quantities, draws, V, level=level, unspread=unspread)


def _with_products(
    table: pd.DataFrame,
    quantities: Mapping[str, Quantity],
    slopes: Slopes,
    V: Vcov,
    *,
    psi: Array,
    level: float,
) -> pd.DataFrame:
    """Replace the normal intervals of products by exact ones; quotients have none (eq. 65)."""
    mean, covariance = slopes.effects.values(psi)[:3], slopes.effects.covariance(V)[:3, :3]
    out, numbers = table.set_index("term"), list(COLUMNS[2:-1])
    for term, k in PRODUCTS.items():
        if np.isfinite(out["std_error"][term]):
            found = product_normal(mean[:k], covariance[:k, :k])
            ends = found.interval(level)
            out.loc[term, numbers] = [found.sd, quantities[term].estimate / found.sd, np.nan, found.p_value(), *ends]
    for term in QUOTIENTS:
        if not quantities[term].is_fixed:
            out.loc[term, numbers] = np.nan
            out.loc[term, "note"] = joined(quantities[term].note, NO_PRODUCT)
    return out.reset_index()


def sobel_table(indirect: Quantity, V: Vcov, *, level: float) -> pd.DataFrame:
    """The indirect effect with the standard errors of Sobel, Aroian and Goodman, a row each (eq. 28, 29, 63)."""
    rows = [delta_table([indirect.named(test)], V, order=order, level=level) for test, order in TESTS.items()]
    return pd.concat(rows, ignore_index=True)


def monte_carlo_table(
    quantities: Mapping[str, Quantity],
    draws: Mapping[str, Array],
    V: Vcov,
    *,
    level: float,
    unspread: Mapping[str, str] = {},
) -> pd.DataFrame:
    """Quantiles of draws of effects; a row without them says why. ``unspread`` as in ``draws_table``."""
    estimates = pd.Series({term: quantity.estimate for term, quantity in quantities.items()})
    missing = {
        term: joined(quantity.note, "" if quantity.is_fixed else V.reason_for(quantity.gradient, quantity.hessian))
        for term, quantity in quantities.items()
        if quantity.is_fixed or np.isnan(draws[term]).any()
    }
    notes = {term: joined(q.note, V.note_for(q.gradient, q.hessian)) for term, q in quantities.items()}
    return draws_table(pd.DataFrame(draws), estimates, level=level, notes=notes, missing=missing, unspread=unspread)
