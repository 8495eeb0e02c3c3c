"""Tables of expected responses and residual sds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.options import OF, PREDICTION_INTERVALS, check_level, one_of
from mlmed.quadrature.fit import Fit
from mlmed.quadrature.posterior import EffectsLaw, NewColumns, Predicted, predict_rows, response_quantiles
from mlmed.results.location_scale.newdata import own_columns, read_columns

__all__ = ["PREDICTED", "fitted_table", "predict_table", "with_limits"]

Array = NDArray[np.float64]
PREDICTED = ("estimate", "std_error", "conf_low", "conf_high", "sd", "sd_conf_low", "sd_conf_high")


def predict_table(
    fit: Fit, law: EffectsLaw, newdata: Any, *, of: str, interval: str, level: float, between: bool = False
) -> pd.DataFrame:
    """``PREDICTED`` of new rows with their index; NaN where a predictor is missing; ``between``: rows hold means."""
    one_of(of, OF, "of")
    one_of(interval, PREDICTION_INTERVALS, "interval")
    level = check_level(level)
    new, complete = read_columns(fit.rows, newdata, clusters=of == "cluster", between=between)
    found = predict_rows(new, _fixed(fit), fit.estimates.G, law)
    table = with_limits(found, level)
    if interval == "prediction":
        tails = (0.5 - level / 2.0, 0.5 + level / 2.0)
        table[["conf_low", "conf_high"]] = response_quantiles(new, _fixed(fit), fit.mixtures(), law, tails)
    out = np.full((len(complete), len(PREDICTED)), np.nan)
    out[complete] = table.to_numpy()
    index = newdata.index if isinstance(newdata, pd.DataFrame) else None
    return pd.DataFrame(out, index=index, columns=list(PREDICTED))


def with_limits(found: Predicted, level: float) -> pd.DataFrame:
    """``PREDICTED``, limits of the sd on the log scale."""
    z = float(ndtri(0.5 + level / 2.0))
    half, log_half = z * found.mean_se, z * found.log_sd_se
    sds = (np.exp(found.log_sd + sign * log_half) for sign in (0.0, -1.0, 1.0))
    columns = (found.mean, found.mean_se, found.mean - half, found.mean + half, *sds)
    return pd.DataFrame(dict(zip(PREDICTED, columns, strict=True)))


def fitted_table(fit: Fit, *, of: str) -> pd.DataFrame:
    """estimate, sd of the rows of the data; NaN where a row was left out."""
    one_of(of, OF, "of")
    new: NewColumns = own_columns(fit.rows, clusters=of == "cluster")
    mean, log_sd = new.X @ fit.estimates.beta, new.W @ fit.estimates.tau
    if new.at is not None:
        own, q = fit.effects().mean[new.at], new.Z.shape[1]
        mean, log_sd = mean + np.vecdot(new.Z, own[:, :q]), log_sd + np.vecdot(new.V, own[:, q:])
    out = np.full((len(fit.rows.kept), 2), np.nan)
    out[fit.rows.kept] = np.column_stack([mean, np.exp(log_sd)])
    return pd.DataFrame(out, index=fit.rows.index, columns=["estimate", "sd"])


def _fixed(fit: Fit) -> tuple[Array, Array]:
    return fit.estimates.beta, fit.estimates.tau
