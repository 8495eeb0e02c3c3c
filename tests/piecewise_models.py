"""Equations and data of the tests of separate equations."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: The same replicate fitted twice, from rows and from cross-products.
SAME_REPLICATE = 1e-8
#: A weighted regression of distinct clusters, and one of repeated rows.
REPEATED = 1e-10
MEDIATOR, OUTCOME = "m ~ x + (1 | id)", "y ~ m + x + (1 | id)"
UPPER, LOWER = "q ~ z", "y ~ q + z + (1 | id)"


def make(J=40, n=6, *, seed=1, sd=1.0):
    """Rows in clusters: x, m, y, v vary within; z (0/1), w, q, g, arm do not. a = .4 (z on q: .5), b = .6 (q: .4)."""
    rng = np.random.default_rng(seed)
    at = np.repeat(np.arange(J), n)
    z, w, g = rng.integers(0, 2, J).astype(float), rng.normal(size=J), rng.choice(["ctl", "hi", "lo"], J)
    q = 0.5 * z + 0.3 * w + rng.normal(size=J)
    x, v = rng.normal(size=J * n), rng.normal(size=J * n)
    m = 0.4 * x + 0.5 * z[at] + sd * rng.normal(size=J)[at] + rng.normal(size=J * n)
    y = 0.6 * m + 0.2 * x + 0.3 * z[at] + 0.4 * q[at] + sd * rng.normal(size=J)[at] + rng.normal(size=J * n)
    rows = {"id": at, "x": x, "v": v, "m": m, "y": y, "z": z[at], "w": w[at], "q": q[at], "g": g[at]}
    return pd.DataFrame({**rows, "arm": np.where(z[at] > 0, "new", "old")})


def estimates(fit, **options):
    return fit.effects(**options).set_index("term")["estimate"]
