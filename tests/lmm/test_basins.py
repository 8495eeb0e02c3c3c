"""Likelihoods with several optima: the answer is the best of them, whatever the order and the units of the data.

Some of the data sets of those with t(1.2) residuals (25 clusters of 8, validation/optima/kinds.py) on which a
search from the neutral start alone ends in a certified optimum that is not the best.
"""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag

import mlmed
from mlmed.errors import BoundaryWarning, MlmedWarning
from mlmed.fit.starts import loglik_without
from mlmed.lmm import best, working
from mlmed.lmm.best import _Ends, best_from, falls_into
from mlmed.lmm.objective import objective_for
from mlmed.lmm.optimum import coordinates, optimize
from mlmed.lmm.start import start_theta, wide_theta
from mlmed.lmm.working import MOST, spread_clusters
from validation.optima.kinds import simulated
from validation.optima.search import model_of, search

MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
#: Number of the data set: best log-likelihood of validation/optima/search.py from 40 wide starts, gain on the neutral
#: start. The search shares no code with the package.
HARD = {
    24: (-2352.7016532, 1.3522),
    70: (-1134.6708506, 0.0057),
    360: (-1258.0056512, 0.0371),
    614: (-1390.2631318, 0.0043),
    778: (-1364.7770086, 13.7451),
    821: (-1641.9852284, 0.4889),
    861: (-1274.3730663, 7.2028),
    1139: (-1548.8840901, 5.7970),
    1263: (-1585.2857971, 4.2841),
}
#: What counts as the same optimum in the log-likelihood; the same optimum from rows in another order; in other units.
SAME, ORDER, UNITS = 1e-6, 1e-9, 1e-8


def hard(k: int) -> pd.DataFrame:
    return simulated("t(1.2) residuals", k).data


def fitted(data: pd.DataFrame, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        return mlmed.mediate(MEDIATOR, OUTCOME, data, **options)


@pytest.fixture(scope="module")
def fit():
    """The one with the largest gain."""
    return fitted(hard(778))


def dense_loglik(data: pd.DataFrame, G: np.ndarray, sigma2: np.ndarray) -> float:
    """The restricted log-likelihood from the covariance matrix of all responses."""
    X, V, y = [], [], []
    for _, rows in data.groupby("id"):
        x, m = (rows[name].to_numpy() for name in ("x", "m"))
        one = np.ones(len(rows))
        Z = block_diag(np.column_stack([one, x]), np.column_stack([one, m, x]))
        X.append(Z)
        y.append(np.append(m, rows["y"]))
        V.append(Z @ G @ Z.T + np.diag(np.repeat(sigma2, len(rows))))
    design, outcome = np.vstack(X), np.concatenate(y)
    inverse = [np.linalg.inv(own) for own in V]
    P = sum(a.T @ b @ a for a, b in zip(X, inverse, strict=True))
    beta = np.linalg.solve(P, sum(a.T @ b @ c for a, b, c in zip(X, inverse, y, strict=True)))
    rest = outcome - design @ beta
    form = sum(r @ b @ r for r, b in zip(np.split(rest, len(V)), inverse, strict=True))
    logdet = sum(np.linalg.slogdet(own)[1] for own in V) + np.linalg.slogdet(P)[1]
    return float(-0.5 * (logdet + form + (len(outcome) - len(beta)) * np.log(2 * np.pi)))


@pytest.mark.parametrize("k", HARD)
def test_the_best_optimum_is_found(k):
    """That of the independent search; the neutral start alone ends elsewhere, in a certified optimum."""
    best_known, gain = HARD[k]
    found = fitted(hard(k))
    assert found.converged
    assert found.llf == pytest.approx(best_known, abs=SAME)
    made = found.fit
    alone = optimize(made.working.problem, made.working.blocks, reml=True)
    assert alone.certificate.converged
    # a search from elsewhere may end where the neutral one did, so the gain is that over one of the optima
    assert 0.5 * (alone.evaluation.value - made.optimum.evaluation.value) == pytest.approx(gain, abs=1e-4)
    row = found.glance().iloc[0]
    assert (row["n_starts"] >= 6, row["n_optima"] >= 2) == (True, True)
    assert found.optimization.optima[0] == pytest.approx(found.llf, abs=SAME)
    assert found.optimization.optima[0] - found.optimization.optima[-1] >= gain - 1e-4


def test_a_sample_with_one_optimum_in_another_basin_is_not_believed(fit):
    """An end of all clusters that does not lie in the basin of the sample's best is searched from there, too."""
    working, top = fit.fit.working, fit.fit.optimum
    alone = optimize(working.problem, working.blocks, reml=True)
    assert best._same_basin(top, top, working.problem, reml=True)
    assert not best._same_basin(top, alone, working.problem, reml=True)


def test_the_value_there_is_that_of_the_density(fit):
    G, sigma2 = fit.G.to_numpy(), fit.sigma2.to_numpy()
    assert dense_loglik(hard(778), G, sigma2) == pytest.approx(fit.llf, abs=1e-7)
    assert dense_loglik(hard(778), G, sigma2) == pytest.approx(HARD[778][0], abs=SAME)


def test_the_independent_search_agrees_with_the_fit(fit):
    """On the spot, from eight starts: never above the fit."""
    found = search(model_of(hard(778), several=False), np.random.default_rng(1), starts=8)
    assert found.loglik < fit.llf + SAME


def test_no_order_of_rows_or_clusters_matters(fit):
    data, rng = hard(778), np.random.default_rng(1)
    renamed = dict(enumerate(rng.permutation(25)))
    for other in (data.sample(frac=1.0, random_state=1), data.assign(id=data["id"].map(renamed)).sort_values("id")):
        assert fitted(other.reset_index(drop=True)).llf == pytest.approx(fit.llf, abs=ORDER)


def test_no_units_matter(fit):
    data = hard(778)
    scaled = data.assign(x=3.0 + 100.0 * data["x"], m=0.001 * data["m"] - 7.0, y=50.0 * data["y"] + 1e3)
    found = fitted(scaled, method="ml")
    same = fitted(data, method="ml")
    # the ML likelihood of responses in other units differs by the logarithms of the units, row by row
    assert found.llf == pytest.approx(same.llf - len(data) * np.log(0.001 * 50.0), abs=UNITS)
    row = found.glance().iloc[0]
    assert row["n_optima"] == found.optimization.n_optima == len(found.optimization.optima) >= 2
    said = f"the best of {row['n_optima']} optima that {row['n_starts']} starts led to"
    for style in ("text", "stata"):
        assert said in " ".join(found.summary(style).split())


@pytest.mark.parametrize("k", [24, 1139])
def test_correlated_residuals_and_other_structures(k):
    """Never below any of eight random starts, for every structure."""
    for options in ({"covariance": "diagonal"}, {"method": "ml"}):
        found = fitted(hard(k), **options)
        assert found.converged
        assert found.check_starts(8, seed=2)["difference"].max() < SAME
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        texts = ["m ~ x + (1 + x |i| id)", "y ~ x + (1 + x |i| id)"]
        pair = mlmed.mixed(texts, hard(k), residual="unstructured")
        one = mlmed.mixed("y ~ m + x + (1 + m + x | id)", hard(k), covariance="exchangeable")
    for found in (pair, one):
        assert found.converged
        assert found.check_starts(8, seed=2)["difference"].max() < SAME


@pytest.mark.parametrize("k", [70, 778, 821, 861])
def test_check_starts_reaches_the_best(k):
    """From several of 20 starts, and none is better."""
    table = fitted(hard(k)).check_starts(20, seed=1)
    assert table["difference"].max() < SAME
    assert (table["difference"] > -SAME).sum() >= 3
    assert (table["difference"] < -1e-3).sum() >= 1  # and some end in another optimum


def test_bootstrap_replicates_start_from_the_other_optimum_too(fit, monkeypatch):
    other = fit.fit.optimum.searched.other
    assert other is not None
    starts = []
    real = best.search_from

    def counted(objective, blocks, theta, settings, known=None):
        starts.append(theta)
        return real(objective, blocks, theta, settings, known)

    monkeypatch.setattr(best, "search_from", counted)
    fit.bootstrap(3, seed=1)
    assert len(starts) >= 3
    assert pickle.loads(pickle.dumps(fit)).llf == fit.llf  # what is known of other optima travels


def test_a_search_is_left_only_next_to_a_known_optimum(fit):
    """At the optimum itself, not at the other one; not without a short Newton step."""
    optimum = fit.fit.optimum
    problem, blocks = fit.fit.working.problem, fit.fit.working.blocks
    alone = optimize(problem, blocks, reml=True)
    assert falls_into(optimum, optimum.L, optimum.sigma2, optimum.evaluation)
    assert not falls_into(optimum, alone.L, alone.sigma2, alone.evaluation)
    assert not falls_into(alone, optimum.L, optimum.sigma2, optimum.evaluation)
    objective = objective_for(problem, blocks, reml=True)
    theta = coordinates(problem, blocks, optimum.G, optimum.sigma2)
    at = objective.in_chart(theta, optimum.evaluation)
    ends = _Ends(problem, blocks, True, [optimum])
    assert ends._known(objective, theta, at, 0.5)
    assert not ends._known(objective, theta, at, np.inf)


def test_the_best_of_given_starts(fit):
    working = fit.fit.working
    rng = np.random.default_rng(3)
    thetas = [start_theta(working.problem, working.blocks, reml=True)]
    thetas += [wide_theta(working.problem, working.blocks, rng, low_rank=bool(k % 2)) for k in range(20)]
    found = best_from(working.problem, working.blocks, thetas, reml=True)
    assert found.evaluation.value == pytest.approx(fit.fit.optimum.evaluation.value, abs=2 * SAME)
    assert found.searched.starts == 21


def test_ordinary_data_have_one_optimum_and_say_so():
    data = mlmed.simulate.bpg(30, 8, seed=2).data
    with pytest.warns(BoundaryWarning, match="the only optimum that 6 starts led to, exactly on the boundary"):
        found = mlmed.mediate(MEDIATOR, OUTCOME, data)
    assert tuple(found.glance()[["n_starts", "n_optima"]].iloc[0]) == (6, 1)
    assert "the only optimum that 6 starts led to" in found.summary()
    note = "Note: the optimum is certified; it is the only optimum that 6 starts led to."
    assert note in " ".join(found.summary("stata").split())
    assert (found.optimization.n_starts, found.optimization.n_optima) == (6, 1)
    assert len(found.optimization.optima) == 1


def test_many_clusters_compare_starts_in_a_sample():
    """By what clusters contain: the same clusters in any order; and outliers in all of them are seen there."""
    rng = np.random.default_rng(4)
    data = mlmed.simulate.bpg(MOST + 100, 4, seed=3).data
    moved = data.assign(id=data["id"].map(dict(enumerate(rng.permutation(MOST + 101)))))
    found, other = fitted(data), fitted(moved)
    assert found.fit.optimum.searched.clusters == MOST
    assert found.fit.optimum.searched.starts >= 6
    kept, again = (one.fit.grams.products[:, :, spread_clusters(one.fit.grams)].sum(axis=2) for one in (found, other))
    assert kept == pytest.approx(again, rel=1e-9)
    assert found.llf == pytest.approx(other.llf, abs=ORDER)
    assert "compared in a sample" in found.summary()


def test_models_under_a_hypothesis_are_searched_as_widely(fit):
    """The log-likelihood without the random slope of x is that of the model which is fitted without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        less = mlmed.mediate(MEDIATOR, "y ~ m + x + (1 + m | id)", hard(778))
    assert loglik_without(fit.fit, {4}) == pytest.approx(less.llf, abs=SAME)
    assert less.llf < fit.llf


@pytest.mark.filterwarnings("ignore::mlmed.errors.MlmedWarning")
def test_one_cluster_unlike_all_others_is_seen_above_the_size_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of 500 of 1,200 clusters seldom has it: the search was 58 log-likelihood units short."""
    rng = np.random.default_rng([77, 0])
    J, n = 1200, 5
    who = np.repeat(np.arange(J), n)
    x, U = rng.normal(size=J * n), 0.3 * rng.normal(size=(J, 3))
    y = 1.0 + U[who, 0] + (0.5 + U[who, 1]) * x + rng.normal(size=J * n)
    k, s = int(rng.choice(J, 1, False)[0]), 10.0 ** rng.uniform(1.2, 3.0)
    rng.integers(3)  # the data on which the search was found to be short have drawn this, too
    y[who == k] += s * rng.normal(size=n)
    data = pd.DataFrame({"id": who, "x": x, "y": y})
    found = mlmed.mixed("y ~ x + (1 + x | id)", data)
    monkeypatch.setattr(working, "MOST", 10**9)
    every = mlmed.mixed("y ~ x + (1 + x | id)", data)
    assert found.converged
    assert found.llf > every.llf - SAME
