"""Mediation data whose random slopes are huge beside the residuals."""

from __future__ import annotations

import numpy as np
import pandas as pd

MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"


def steep(seed: int, sd: float, *, clusters: int = 40, rows: int = 10) -> pd.DataFrame:
    """Slopes a, b, c' of sd ``sd``, intercepts and residuals of sd 1: y has size ``sd ** 2``."""
    rng = np.random.default_rng(seed)
    a, b, c = (rng.standard_normal(clusters) * sd + 0.5 for _ in range(3))
    d = rng.standard_normal((2, clusters))
    at = np.repeat(np.arange(clusters), rows)
    x = rng.standard_normal(clusters * rows)
    m = d[0][at] + a[at] * x + rng.standard_normal(clusters * rows)
    y = d[1][at] + b[at] * m + c[at] * x + rng.standard_normal(clusters * rows)
    return pd.DataFrame({"id": at, "x": x, "m": m, "y": y})


def gappy(data: pd.DataFrame) -> pd.DataFrame:
    """The rows with missing values and clusters that have few of them."""
    out = data.copy()
    out.loc[out.index[5], "m"] = np.nan
    out.loc[out.index[30], "y"] = np.nan
    return out.drop(index=out.index[[0, 1, 2, 3, 12, 13, 14, 15, 16]])
