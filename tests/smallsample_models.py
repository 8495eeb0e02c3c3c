"""Tolerances and dense counterparts that the tests of small samples share."""

from __future__ import annotations

import numpy as np
import pandas as pd

import mlmed
from mlmed.effects.paths import effect_quantities, find_paths
from mlmed.effects.smallsample import (
    DegreesOfFreedom,
    satterthwaite_effects,
)
from mlmed.reml import kenward_roger as kr
from mlmed.reml.start import natural_jacobian

#: Relative, against other software at its own optimum (lme4 with rhoend 1e-10). Estimates agree to 1e-5 or better
#: there, degrees of freedom are ratios that move less; lmerTest's Hessian is numerical.
REFERENCE = {"kr_df": 1e-7, "kr_se": 1e-6, "satterthwaite_df": 5e-6}
#: The same for two equations, stacked by hand: a flatter optimum, 22 parameters.
STACKED_REFERENCE = {"kr_df": 1e-6, "kr_se": 1e-6, "satterthwaite_df": 5e-6}
#: Sums over clusters against matrices of all rows: inverses of 60 x 60 matrices, entries relative to the largest.
DENSE = 1e-9
#: Exact and extrapolated gradient of the same variance; differences of numbers good to 1e-12 over steps of 1e-3.
DIFFERENCES = 1e-7
#: The same against numdifftools, whose smallest steps are noisier.
NUMDIFFTOOLS = 1e-6
#: Two fits of the same data in other units: two optima, each exact to about 1e-8.
INVARIANT = 1e-6

LINEAR = ("a", "b", "cprime", "direct")


def effects_of(fit):
    """Paths of a mediation as the function that ``satterthwaite_effects`` wants."""
    paths = find_paths(fit.fitted.layout, treatment=fit.treatment)
    return lambda estimates: list(effect_quantities(paths, estimates).values())


def terms_of(fit):
    return [quantity.term for quantity in effects_of(fit)(fit.fitted.estimates)]


def by_effect(fit, **options) -> pd.Series:
    """Satterthwaite's df of every effect."""
    fitted = fit.fitted
    found = satterthwaite_effects(effects_of(fit), fitted.working, fitted.optimum, reml=fitted.reml, **options)
    assert_explained(found)
    return pd.Series(found.values, index=terms_of(fit))


def fixed_parts(fit) -> np.ndarray:
    return np.array([quantity.gradient[: len(fit.params)] for quantity in effects_of(fit)(fit.fitted.estimates)])


def jacobian(fit) -> np.ndarray:
    return natural_jacobian(fit.fitted.working.problem, fit.fitted.working.blocks)


def corrected(fit) -> kr.KenwardRoger:
    """Kenward-Roger in the user's units."""
    working, optimum = fit.fitted.working, fit.fitted.optimum
    found = kr.kenward_roger(working.problem, optimum.L, optimum.sigma2, jacobian(fit), reml=fit.fitted.reml)
    return found.mapped(working.units.X_map)


def assert_explained(found: DegreesOfFreedom) -> None:
    """A number that is positive, or a reason."""
    assert len(found.values) == len(found.reasons)
    for value, reason in zip(found.values, found.reasons, strict=True):
        assert (value > 0.0 and not reason) or (np.isnan(value) and reason)


def close(ours, theirs, tolerance) -> None:
    """All entries, relative to the largest."""
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=tolerance * float(np.abs(theirs).max()))


def unbalanced(seed: int, n_clusters: int = 12, n_rows: int = 5) -> pd.DataFrame:
    """A third of the rows left out, clusters of 1 to 5."""
    data = mlmed.simulate.bpg(n_clusters, n_rows, seed=seed).data
    keep = np.random.default_rng(seed).random(len(data)) < 0.67
    return data[keep].reset_index(drop=True)
