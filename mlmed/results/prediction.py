"""Predictions for new rows, with intervals: expected responses, and residual sds of location-scale models."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.quadrature import QuadratureFit
from mlmed.lmm.ranef import ModeLaw
from mlmed.options import OF, PREDICTION_INTERVALS, check_level, one_of
from mlmed.quadrature.posterior import NewColumns, predict_rows, response_quantiles
from mlmed.results.newdata import NewRows, own_effects, read_columns, read_rows
from mlmed.text import shown

Array = NDArray[np.float64]
#: Columns of a prediction by a location-scale model.
PREDICTED = ("estimate", "std_error", "conf_low", "conf_high", "sd", "sd_conf_low", "sd_conf_high")
Indices = NDArray[np.intp]


@singledispatch
def predicted(fit: Any, newdata: Any, *, of: str, interval: str | None, level: float | None) -> Any:
    """Predict new rows, by kind of fit.

    Raises
    ------
    EffectError
        A kind of fit without predictions, or a level without an interval.
    """
    raise EffectError(f"{fit.kind} has no predictions")


@predicted.register
def _(fit: LmmFit, newdata: Any, *, of: str, interval: str | None, level: float | None) -> pd.DataFrame | pd.Series:
    if interval is not None:
        return prediction_table(fit, newdata, of=of, interval=interval, level=0.95 if level is None else level)
    if level is not None:
        raise EffectError(
            f"level={shown(level)} is the coverage of an interval, and none was asked for; give "
            "interval='confidence' or 'prediction' as well, or leave level out"
        )
    return predictions(fit, newdata, of=of)


@predicted.register
def _(fit: QuadratureFit, newdata: Any, *, of: str, interval: str | None, level: float | None) -> pd.DataFrame:
    kind, share = "confidence" if interval is None else interval, 0.95 if level is None else level
    return scale_predictions(fit, newdata, of=of, interval=kind, level=share)


def scale_predictions(
    fit: QuadratureFit, newdata: Any, *, of: str, interval: str, level: float, between: bool = False
) -> pd.DataFrame:
    """Columns ``PREDICTED`` for new rows, with their index; NaN without a predictor; ``between``: rows hold means."""
    one_of(of, OF, "of")
    one_of(interval, PREDICTION_INTERVALS, "interval")
    level = check_level(level)
    new, complete = read_columns(fit.rows, newdata, clusters=of == "cluster", between=between)
    table = scale_values(fit, new, level=level)
    if interval == "prediction":
        tails, fixed = (0.5 - level / 2.0, 0.5 + level / 2.0), (fit.estimates.beta, fit.estimates.tau)
        table[["conf_low", "conf_high"]] = response_quantiles(new, fixed, fit.mixtures(), fit.law, tails)
    out = np.full((len(complete), len(PREDICTED)), np.nan)
    out[complete] = table.to_numpy()
    index = newdata.index if isinstance(newdata, pd.DataFrame) else None
    return pd.DataFrame(out, index=index, columns=list(PREDICTED))


def scale_values(fit: QuadratureFit, new: NewColumns, *, level: float) -> pd.DataFrame:
    """Columns ``PREDICTED`` for encoded rows; limits of the sd are formed on the log scale."""
    z, estimates = float(ndtri(0.5 + level / 2.0)), fit.estimates
    found = predict_rows(new, (estimates.beta, estimates.tau), estimates.G, fit.law)
    half, log_half = z * found.mean_se, z * found.log_sd_se
    sds = (np.exp(found.log_sd + sign * log_half) for sign in (0.0, -1.0, 1.0))
    columns = (found.mean, found.mean_se, found.mean - half, found.mean + half, *sds)
    return pd.DataFrame(dict(zip(PREDICTED, columns, strict=True)))


def predictions(fitted: LmmFit, newdata: Any, *, of: str) -> pd.DataFrame | pd.Series:
    """X beta, plus Z u for ``of="cluster"``; one column per equation."""
    law = _law_for(fitted, of)
    columns = {}
    for number, equation in enumerate(fitted.layout.equations):
        rows = read_rows(fitted, number, newdata, clusters=law is not None)
        values = np.full(len(rows.complete), np.nan)
        values[rows.complete] = row_means(fitted, number, rows, law)
        columns[equation.name] = values
    out = pd.DataFrame(columns, index=_index_of(newdata))
    return out if len(columns) > 1 else out.iloc[:, 0]


def prediction_table(fitted: LmmFit, newdata: Any, *, of: str, interval: str, level: float) -> pd.DataFrame:
    """row, response, estimate, std_error, conf_low, conf_high; one block of rows per response."""
    one_of(interval, PREDICTION_INTERVALS, "interval")
    level = check_level(level)
    law, index = _law_for(fitted, of), _index_of(newdata)
    blocks = []
    for number, equation in enumerate(fitted.layout.equations):
        rows = read_rows(fitted, number, newdata, clusters=law is not None)
        numbers = np.full((len(rows.complete), 2), np.nan)
        variance = row_variances(fitted, number, rows, law, new_row=interval == "prediction")
        numbers[rows.complete] = np.column_stack([row_means(fitted, number, rows, law), np.sqrt(variance)])
        labels = pd.RangeIndex(len(numbers)) if index is None else index
        block = pd.DataFrame({"row": labels.to_flat_index(), "response": equation.name})
        blocks.append(block.assign(estimate=numbers[:, 0], std_error=numbers[:, 1]))
    return with_limits(pd.concat(blocks, ignore_index=True), level)


def with_limits(table: pd.DataFrame, level: float) -> pd.DataFrame:
    """Add ``conf_low`` and ``conf_high``, normal limits around ``estimate``."""
    half = float(ndtri(0.5 + level / 2.0)) * table["std_error"]
    return table.assign(conf_low=table["estimate"] - half, conf_high=table["estimate"] + half)


def _index_of(newdata: Any) -> pd.Index | None:
    return newdata.index if isinstance(newdata, pd.DataFrame | pd.Series) else None


def _law_for(fitted: LmmFit, of: str) -> ModeLaw | None:
    one_of(of, OF, "of")
    return fitted.law() if of == "cluster" else None


def row_means(fitted: LmmFit, number: int, rows: NewRows, law: ModeLaw | None) -> Array:
    """Expected responses, (n,); the population's if the cluster is unknown."""
    fixed, random = own_effects(fitted, number)
    found: Array = rows.X @ fitted.estimates.beta[fixed]
    if law is not None:
        known = rows.at >= 0
        found[known] += np.vecdot(rows.Z[known], law.modes[rows.at[known], random])
    return found


def row_variances(fitted: LmmFit, number: int, rows: NewRows, law: ModeLaw | None, *, new_row: bool) -> Array:
    """Error variances of ``row_means``, (n,); ``new_row``: as predictions of a response, not of its mean.

    A row of a new cluster differs from the population by z'u: always with ``of="cluster"``, in the population only if
    a single row is predicted.
    """
    estimates, own = fitted.estimates, own_effects(fitted, number)
    fixed, random = own
    out = mean_variance(rows.X, fixed, estimates.P_inv)
    if law is not None or new_row:
        out += quadratic(rows.Z, estimates.G[random, random])
    if law is not None:
        known = rows.at >= 0
        out[known] = posterior_variance(rows.X[known], rows.Z[known], rows.at[known], own, law, estimates.P_inv)
    return out + estimates.Sigma[number, number] if new_row else out


def quadratic(rows: Array, matrix: Array) -> Array:
    """``x'M x`` of every row (n, k), (n,)."""
    return np.vecdot(rows @ matrix, rows)


def mean_variance(X: Array, own: slice, P_inv: Array) -> Array:
    """Variance of x'beta-hat, (n,); ``own`` is the slice of the fixed effects for the columns of X (n, p_r)."""
    return quadratic(X, P_inv[own, own])


def posterior_variance(X: Array, Z: Array, at: Indices, own: tuple[slice, slice], law: ModeLaw, P_inv: Array) -> Array:
    """Variance of ``x'(beta-hat - beta) + z'(u-hat - u)`` for rows of clusters that are in the data.

    Given beta the modes have the error variance N and move by ``-slide`` with it, so that this is
    ``(x - slide'z)'P^-1 (x - slide'z) + z'N z``: Henderson's matrix, without inverting it.

    Parameters
    ----------
    X, Z : (n, p_r), (n, q_r) arrays
        Columns of one equation.
    at : (n,) int array
        Cluster of each row.
    own : (slice, slice)
        Which fixed and random effects of the model the columns belong to.
    law : ModeLaw
        Random effects of every cluster given the data.
    P_inv : (p, p) array
        (X'V^-1 X)^-1.
    """
    fixed, random = own
    lever = -np.einsum("nk,nkp->np", Z, law.slide[at][:, random])
    lever[:, fixed] += X
    spread = np.einsum("nak,nk->na", law.root[at][:, :, random], Z)
    return quadratic(lever, P_inv) + np.vecdot(spread, spread)
