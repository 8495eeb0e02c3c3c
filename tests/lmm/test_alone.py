"""What one cluster alone gives has no robust error: against matrices of all rows, other codings and simulation."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit
from statsmodels.regression.linear_model import OLS

import mlmed
from mlmed.cli import main
from mlmed.errors import BoundaryWarning, LevelWarning
from mlmed.glm.fit import cluster_vcov, fit_glm
from mlmed.lmm.percluster import cluster_products
from mlmed.lmm.sandwich import moves_of_one
from mlmed.lmm.vcov import Directions, said_along
from mlmed.options import ROBUST_KINDS
from tests.tolerances import SAME

#: The same model in another coding; optima agree up to a Newton decrement of 1e-12 or less.
RECODED = 1e-6
#: Numbers of a row that rest on a standard error.
INFERENCE = ["std_error", "statistic", "p_value", "conf_low", "conf_high"]


def trial(n_clusters=14, n_rows=8, seed=7):
    """Clusters with a treatment of their own level, ``arm``: cluster 3 alone has t, cluster 5 alone has a."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(n_clusters), n_rows)
    arm = np.array(["b", "c"])[np.arange(n_clusters) % 2].astype(object)
    arm[3], arm[5] = "t", "a"
    x, w = rng.normal(size=(2, len(g)))
    u, v = rng.normal(size=(2, n_clusters))[:, g] * 0.7
    d = pd.DataFrame({"id": g, "arm": arm[g], "x": x, "w": w, "one": 1.0 * (g == 3)})
    d["half"] = 1.0 * (g < n_clusters // 2)
    d["rest"] = 1.0 - d["one"]
    d["m"] = 0.4 * d["one"] + 0.3 * x + u + rng.normal(size=len(g))
    return d.assign(y=0.5 * d["m"] + 0.2 * x + v + rng.normal(size=len(g)))


@pytest.fixture(scope="module")
def data():
    return trial()


def mixed(formula, data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return mlmed.mixed(formula, data)


def not_estimable(X, codes):
    """Coefficients (p,) whose unit vector leaves the row space of X when one cluster is left out."""
    lost = np.zeros(X.shape[1], dtype=bool)
    for j in np.unique(codes):
        rest = X[codes != j]
        lost |= np.abs(np.linalg.pinv(rest) @ rest - np.eye(X.shape[1])).max(axis=0) > 1e-6
    return lost


DESIGNS = {
    "x + one": ["one"],
    "x + rest": ["Intercept", "rest"],
    "x + half": [],
    "x + w + one:x": ["x:one"],
    "x*one": ["one", "x:one"],
    "C(arm) + x": ["Intercept", "C(arm)[b]", "C(arm)[c]", "C(arm)[t]"],
    "I(1000 + 50 * one) + x": None,
}


@pytest.mark.parametrize("formula", DESIGNS)
def test_which_coefficients_against_the_row_space_without_each_cluster(data, formula):
    fit = mixed(f"y ~ {formula} + (1 | id)", data)
    names = list(fit.params.index)
    one, x, w, arm = np.ones(len(data)), data["x"], data["w"], data["arm"]
    own = data["one"]
    columns = {
        "x + one": [one, x, own],
        "x + rest": [one, x, data["rest"]],
        "x + half": [one, x, data["half"]],
        "x + w + one:x": [one, x, w, own * x],
        "x*one": [one, x, own, x * own],
        "C(arm) + x": [one, *(arm == level for level in "bct"), x],
        "I(1000 + 50 * one) + x": [one, 1000 + 50 * own, x],
    }[formula]
    X = np.column_stack([np.asarray(column, dtype=float) for column in columns])
    expected = [name for name, lost in zip(names, not_estimable(X, data["id"].to_numpy()), strict=True) if lost]
    for kind in ROBUST_KINDS:
        table = fit.fixef(vcov=kind).set_index("term")
        missing = table["std_error"].isna()
        assert list(table.index[missing]) == expected
        assert table.loc[missing, INFERENCE].isna().all().all()
        assert (table["note"].str.contains("no robust standard error: without cluster") == missing).all()
        assert np.isnan(np.diag(fit.vcov(kind, which="fixed"))).tolist() == missing.tolist()
    if DESIGNS[formula] is not None:
        assert len(expected) == len(DESIGNS[formula])
    assert fit.fixef(vcov="block")["std_error"].notna().all()


def test_who_alone_gives_it_is_named(data):
    notes = mixed("y ~ C(arm) + x + (1 | id)", data).fixef(vcov="CR2").set_index("term")["note"]
    assert "without cluster 5 (id) it" in notes["Intercept"]  # the mean of the reference
    assert "without cluster 5 (id) it" in notes.iloc[1]
    assert "without cluster 3 (id) or cluster 5 (id) it" in notes.iloc[3]
    every = mixed("y ~ x + C(id) + (0 + x | id)", data).fixef(vcov="CR1").set_index("term")
    assert "without cluster 0 (id) or cluster 1 (id) it" in every["note"].iloc[2]
    assert every["std_error"].notna().tolist() == [term == "x" for term in every.index]


@pytest.mark.parametrize("kind", ROBUST_KINDS)
def test_others_keep_their_errors_and_so_do_contrasts_that_do_not_need_the_cluster(data, kind):
    """b against c where the reference is an arm of one cluster: the coefficient of another coding."""
    fit = mixed("y ~ C(arm) + x + (1 | id)", data)
    b, c = list(fit.params.index)[1:3]
    found = fit.nlcom({"c - b": f"`{c}` - `{b}`", "b": f"`{b}`"}, vcov=kind, order="first").set_index("term")
    recoded = data.assign(arm=pd.Categorical(data["arm"], categories=["b", "c", "a", "t"]))
    other = mixed("y ~ C(arm) + x + (1 | id)", recoded).fixef(vcov=kind).set_index("term")
    expected = other.iloc[1]
    assert found.loc["c - b", "std_error"] == pytest.approx(expected["std_error"], rel=RECODED)
    assert found.loc["c - b", "note"] == expected["note"]
    assert np.isnan(found.loc["b", "std_error"])
    assert fit.fixef(vcov=kind).set_index("term").loc["x", "std_error"] == pytest.approx(
        other.loc["x", "std_error"], rel=RECODED
    )


def test_the_others_against_matrices_of_all_rows(data):
    """CR0 of the intercept and x, with the variances of the fit."""
    fit = mixed("y ~ x + one + (1 | id)", data)
    X, y, codes = np.column_stack([np.ones(len(data)), data[["x", "one"]]]), data["y"].to_numpy(), data["id"].to_numpy()
    V = float(fit.G.iloc[0, 0]) + float(fit.sigma2.iloc[0]) * np.eye(8)  # every cluster has 8 rows
    weighted = {j: np.linalg.solve(V, X[codes == j]) for j in range(14)}
    bread = np.linalg.inv(sum(X[codes == j].T @ weighted[j] for j in range(14)))
    beta = bread @ sum(weighted[j].T @ y[codes == j] for j in range(14))
    scores = np.array([weighted[j].T @ (y[codes == j] - X[codes == j] @ beta) for j in range(14)])
    expected = bread @ scores.T @ scores @ bread
    np.testing.assert_allclose(fit.vcov("CR0").iloc[:2, :2], expected[:2, :2], rtol=1e-8)
    assert fit.vcov("CR0").iloc[2, :3].isna().all()


def test_moves_do_not_depend_on_units(data):
    """Only the sign and the size of a move may differ."""
    for shift, scale in ((0.0, 1.0), (1e6, 1e-3)):
        moved = data.assign(one=shift + scale * data["one"], x=shift + scale * data["x"])
        fitted = mixed("y ~ x + one + (1 | id)", moved).fit
        found = moves_of_one(fitted.working, fitted.optimum, cluster_products(fitted.working, fitted.grams))
        assert found.owners.tolist() == [3]
        touched = (found.moves[:, 0] != 0.0).tolist()
        assert touched == [shift != 0.0, False, True]  # the mean of the others is that at one = shift


def test_nearly_collinear_columns_do_not_hide_it(data):
    """What two columns have apart is 1e-10 of their variance, which makes rounding of leverages large."""
    near = data.assign(v=data["x"] + 1e-5 * data["w"])
    fitted = mixed("y ~ x + v + one + (1 | id)", near).fit
    found = moves_of_one(fitted.working, fitted.optimum, cluster_products(fitted.working, fitted.grams))
    assert found.owners.tolist() == [3]
    assert (found.moves[:, 0] != 0.0).tolist() == [False, False, False, True]


def test_a_cluster_with_nearly_everything_is_not_alone(data):
    """x is 100 times larger in one cluster, which leaves 1e-3 of what is known of it to the others."""
    large = data.assign(x=data["x"] * np.where(data["id"] == 3, 100.0, 1.0))
    table = mixed("y ~ x + (1 | id)", large).fixef(vcov="CR2")
    assert table["std_error"].notna().all()


# -- effects ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joint(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        warnings.simplefilter("ignore", LevelWarning)
        return mlmed.mediate("m ~ one + x + (1 | id)", "y ~ m + one + x + (1 | id)", data, treatment="one")


@pytest.mark.parametrize("interval", ["delta", "monte-carlo", "profile"])
@pytest.mark.parametrize("kind", ["CR2", "cluster"])
def test_effects_of_a_treatment_of_one_cluster(joint, kind, interval):
    seed = {"seed": 1, "n": 200} if interval == "monte-carlo" else {}
    table = joint.effects(vcov=kind, interval=interval, **seed).set_index("term")
    lost = ["a", "cprime", "indirect", "direct", "total"]
    assert table.loc[lost, "std_error"].isna().all()
    assert table.loc[lost, "note"].str.contains("without cluster 3 \\(id\\)").all()
    assert table.loc["b", "std_error"] > 0.0
    assert "without cluster" not in table.loc["b", "note"]
    if interval == "profile":  # the likelihood needs no standard error
        assert table.loc[lost, ["conf_low", "conf_high"]].notna().all().all()
    else:
        assert table.loc[lost, INFERENCE].isna().all().all()


def test_a_treatment_that_others_have_keeps_its_effects(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mediate("m ~ x + one + (1 | id)", "y ~ m + x + one + (1 | id)", data, treatment="x")
    table = fit.effects(vcov="CR2").set_index("term").drop("cov_ab")
    assert table["std_error"].notna().all()
    assert not table["note"].str.contains("without cluster").any()
    text = fit.summary(vcov="CR2")
    assert "without cluster 3 (id)" in " ".join(text.split())
    scaled = fit.influence(vcov="CR2").tidy().set_index("term")
    assert scaled.loc["m~one", "scaled"].isna().all()
    assert scaled.loc["m~one", "note"].str.contains("scaled: no robust standard error").all()
    assert scaled.loc["m~x", "scaled"].notna().sum() == 13  # without cluster 3 there is no fit
    assert (scaled.loc["m~x", "note"] == "").sum() == 13


def test_json_of_the_command_line(data, tmp_path, capsys):
    path = tmp_path / "trial.csv"
    data.to_csv(path, index=False)
    formulas = ["--mediator", "m ~ one + (1 | id)", "--outcome", "y ~ m + one + (1 | id)"]
    assert main(["mediate", str(path), *formulas, "--vcov", "CR2", "--format", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = {row["term"]: row for row in [*document["fixef"], *document["effects"]]}
    for term in ("m~one", "y~one", "a", "indirect", "total"):
        assert rows[term]["std_error"] is None
        assert rows[term]["p_value"] is None
        assert "without cluster 3 (id)" in rows[term]["note"]
    for term in ("y~m", "b"):
        assert rows[term]["std_error"] > 0.0


# -- bootstraps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("within", [False, True])
def test_draws_of_clusters(joint, within):
    boot = joint.bootstrap(80, seed=1, within=within)
    assert 15 <= boot.n_failed <= 40  # (1 - 1/14)^14 = .354 of the replicates do not have the cluster
    for method in ("percentile", "normal"):
        table = boot.tidy(ends=method).set_index("term")
        lost = ["a", "cprime", "indirect", "direct", "total", "m~one", "y~one"]
        assert table.loc[lost, INFERENCE].isna().all().all()
        assert table.loc[lost, "note"].str.contains("no interval: without cluster 3 \\(id\\)").all()
        assert table.loc[["b", "m~x", "y~x"], INFERENCE].notna().all().all()
    shown = joint.effects(interval="bootstrap", n=40, seed=1, within=within).set_index("term")
    assert np.isnan(shown.loc["indirect", "conf_low"])


@pytest.mark.parametrize("kind", ["parametric", "residual"])
def test_bootstraps_that_keep_the_clusters_have_intervals(joint, kind):
    table = joint.bootstrap(45, seed=1, kind=kind).tidy(terms=["a", "indirect"])
    assert table[INFERENCE].notna().all().all()


def test_strata_do_not_hide_it(data):
    """Every replicate has the cluster, so none fails, and the cluster is always the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.piecewise("m ~ one + (1 | id)", "y ~ m + one + (1 | id)", data, treatment="one")
    for boot in (fit.bootstrap(70, seed=1), fit.bootstrap(45, seed=1, strata="one")):
        table = boot.tidy().set_index("term")
        lost = ["a", "cprime", "c", "indirect", "total", "c_minus_cprime", "prop_mediated", "ratio", "reduced~one"]
        assert table.loc[lost, ["conf_low", "conf_high", "p_value"]].isna().all().all()
        assert table.loc[lost, "note"].str.contains("without cluster 3 \\(id\\)").all()
        assert table.loc[["b", "y~m", "m~Intercept"], "conf_low"].notna().all()


@pytest.mark.parametrize("interval", ["delta", "monte-carlo", "product"])
def test_separate_equations(data, interval):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.piecewise("m ~ one + x + (1 | id)", "y ~ m + one + x + (1 | id)", data, treatment="one")
    seed = {"seed": 1, "n": 200} if interval == "monte-carlo" else {}
    table = fit.effects(vcov="CR1", interval=interval, **seed).set_index("term")
    lost = ["a", "cprime", "c", "indirect", "direct", "total"]
    assert table.loc[lost, INFERENCE].isna().all().all()
    assert table.loc[lost, "note"].str.contains("without cluster 3 \\(id\\)").all()
    assert table.loc["b", "std_error"] > 0.0
    assert fit.sobel(vcov="CR1")["std_error"].isna().all()


# -- why -------------------------------------------------------------------------------------------------------


def test_what_these_intervals_covered():
    """12 clusters, one treated: the sandwich against the t interval of two groups of means, one of them of one."""
    rng, codes, R = np.random.default_rng(5), np.repeat(np.arange(12), 6), 200
    X = np.column_stack([np.ones(len(codes)), codes == 0]).astype(np.float64)
    covered = dict.fromkeys(("sandwich", "t"), 0)
    for _ in range(R):
        y = 0.7 * rng.normal(size=12)[codes] + rng.normal(size=len(codes))
        fit = fit_glm("linear", y, X, names=("Intercept", "one"), response="y")
        means = np.bincount(codes, weights=y) / 6
        exact = stdtrit(10, 0.975) * np.std(means[1:], ddof=1) * np.sqrt(1 + 1 / 11)
        covered["sandwich"] += abs(fit.beta[1]) < 1.96 * np.sqrt(cluster_vcov(fit, codes)[1, 1])
        covered["t"] += abs(fit.beta[1]) < exact
    assert covered["sandwich"] / R < 0.6  # measured: .38
    assert covered["t"] / R > 0.9


def test_least_squares_errors_of_statsmodels(data):
    """They have a number for every coefficient, that of the cluster too; the others are the same."""
    fit = mlmed.causal("m ~ x + one", "y ~ m + x + one", data, treatment="x", cluster="id")
    X = np.column_stack([np.ones(len(data)), data[["x", "one"]]])
    theirs = OLS(data["m"].to_numpy(), X).fit(
        cov_type="cluster", cov_kwds={"groups": data["id"].to_numpy(), "use_correction": False}
    )
    found = fit.tidy().set_index("term").loc[["m~Intercept", "m~x", "m~one"], "std_error"]
    np.testing.assert_allclose(found.iloc[:2], np.sqrt(14 / 13) * theirs.bse[:2], rtol=SAME)
    assert np.isnan(found.iloc[2])
    assert theirs.bse[2] > 0.0


def test_owners_are_listed_and_counted():
    """Each text once, with all that it is said of."""
    text, unit = "without {owners}", np.eye(8)
    one = Directions(unit[:, :7], text, tuple("abcdefg"))
    other = Directions(unit[:, 7:], text, ("a",))
    assert said_along((one, other), np.ones(8)) == "without a, b, c, d, e or 2 more"
    assert said_along((one, other), unit[0] + unit[3]) == "without a or d"
    assert said_along((other,), unit[7]) == "without a"
    assert said_along((one, other), np.zeros(8), np.outer(unit[2], unit[2])) == "without c"
    assert said_along((one, other), np.full(8, np.nan)) == ""
    cancels = Directions(np.array([[0.1], [-0.3]]), text, ("a",))
    assert said_along((cancels,), np.array([0.3, 0.1])) == ""  # up to rounding
