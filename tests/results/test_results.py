"""What a fitted model answers to."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.delta import COLUMNS
from mlmed.errors import BoundaryWarning, DataError, EffectError
from mlmed.report.text import format_number
from tests.models import MEDIATOR, OUTCOME


@pytest.fixture(scope="module")
def data():
    return mlmed.simulate.bpg(50, 6, seed=8).data


@pytest.fixture(scope="module")
def fit(data):
    return mlmed.mediate(MEDIATOR, OUTCOME, data)


@pytest.fixture(scope="module")
def one(data):
    return mlmed.mixed("y ~ m + x + (1 + m | id)", data, method="ml")


def test_tables_have_one_vocabulary(fit):
    assert tuple(fit.effects().columns) == COLUMNS
    assert tuple(fit.fixef().columns) == COLUMNS
    assert [c for c in fit.varcorr().columns if c in COLUMNS] == list(COLUMNS)
    tidy = fit.tidy()
    assert list(tidy.columns[:8]) == ["effect", "equation", "group", "term", "estimate", "std_error", "statistic", "df"]
    assert set(tidy["effect"]) == {"fixed", "ran_pars"}
    assert list(tidy["term"]) == fit.names == list(fit.vcov().index)
    assert fit.glance().loc[0, ["nobs", "n_clusters"]].tolist() == [600, 50]


def test_statsmodels_names(fit, one):
    for results in (fit, one):
        assert results.params.index.equals(results.bse.index)
        np.testing.assert_allclose(results.tvalues, results.params / results.bse)
        np.testing.assert_allclose(results.bse, np.sqrt(np.diag(results.cov_params())))
        interval = results.conf_int(alpha=0.1)
        np.testing.assert_allclose(interval[1] - results.params, 1.6448536269514722 * results.bse, rtol=1e-9)
        assert (results.pvalues >= 0).all()
        assert results.aic == pytest.approx(-2 * results.llf + 2 * len(results.names))
    assert one.deviance == -2 * one.llf
    assert fit.reml_criterion == -2 * fit.llf
    with pytest.raises(EffectError, match="reml_criterion"):
        _ = fit.deviance
    with pytest.raises(EffectError, match="deviance"):
        _ = one.reml_criterion


def test_intervals_of_variances_are_on_the_log_scale(one):
    row = one.varcorr().set_index("term").loc["var(Residual)"]
    assert row["conf_low"] * row["conf_high"] == pytest.approx(row["estimate"] ** 2)
    assert row["sdcorr"] == pytest.approx(np.sqrt(row["estimate"]))
    assert np.isnan(row["statistic"])


def test_conditional_modes_are_the_blups(data, one):
    """u_j = G Z'V^-1 (y - X beta), cluster by cluster."""
    ranef = one.ranef().pivot(index="group", columns="effect", values="estimate")
    G, s2 = one.G.to_numpy(), one.varcorr()["estimate"].iloc[-1]
    for cluster, rows in data.groupby("id"):
        X = np.column_stack([np.ones(len(rows)), rows["m"], rows["x"]])
        Z = X[:, :2]
        V = Z @ G @ Z.T + s2 * np.eye(len(rows))
        expected = G @ Z.T @ np.linalg.solve(V, rows["y"] - X @ one.params.to_numpy())
        np.testing.assert_allclose(ranef.loc[cluster, ["Intercept", "m"]], expected, rtol=1e-7, atol=1e-9)
    assert list(one.ranef().columns) == [
        "group_var",
        "effect",
        "group",
        "estimate",
        "std_error",
        "conf_low",
        "conf_high",
        "shrinkage",
    ]


def test_predictions(data, fit, one):
    X = np.column_stack([np.ones(len(data)), data["m"], data["x"]])
    np.testing.assert_allclose(one.predict(data), X @ one.params.to_numpy(), rtol=1e-12)
    u = one.ranef().pivot(index="group", columns="effect", values="estimate").loc[data["id"]]
    with_cluster = X @ one.params.to_numpy() + u["Intercept"].to_numpy() + u["m"].to_numpy() * data["m"]
    np.testing.assert_allclose(one.predict(data, of="cluster"), with_cluster, rtol=1e-10)
    both = fit.predict(data.iloc[[3, 1]])
    assert list(both.columns) == ["m", "y"]
    assert list(both.index) == [3, 1]
    stranger = data.iloc[[0]].assign(id=-5)
    np.testing.assert_allclose(one.predict(stranger, of="cluster"), one.predict(stranger))
    holes = data.iloc[:3].assign(m=[np.nan, 1.0, 2.0])
    assert one.predict(holes).isna().tolist() == [True, False, False]
    with pytest.raises(EffectError, match="population, cluster"):
        one.predict(data, of="group")


def test_new_levels_are_refused(data):
    labelled = data.assign(g=np.where(data["id"] % 2 == 0, "a", "b"))
    fit = mlmed.mixed("y ~ x + g + (1 | id)", labelled)
    with pytest.raises(DataError, match="'g' has the level 'c'"):
        fit.predict(labelled.iloc[:2].assign(g=["a", "c"]))
    np.testing.assert_allclose(fit.predict(labelled.iloc[:1]), fit.predict(labelled)[:1])


def test_the_criterion_can_be_held(fit):
    variances = fit.varcorr().query("group == 'Residual'")["estimate"].to_numpy()
    assert fit.loglik_at(fit.G, variances) == pytest.approx(fit.llf, rel=1e-12)
    assert fit.loglik_at(1.1 * fit.G.to_numpy(), variances) < fit.llf
    with pytest.raises(EffectError, match="negative eigenvalue"):
        fit.loglik_at(-fit.G.to_numpy(), variances)
    with pytest.raises(EffectError, match=r"\(5, 5\)"):
        fit.loglik_at(np.eye(2), variances)


def test_optimization_record(fit):
    record = fit.optimization
    assert record.certificate.converged
    assert record.evaluations == len(record.to_frame())
    assert record.llf.max() == pytest.approx(fit.llf, rel=1e-12)
    lines = record.log().splitlines()
    assert lines[0].startswith("Iteration 0:   log restricted-likelihood = ")
    assert lines[-1].endswith(f"{fit.llf:.4f}")
    assert np.all(np.diff(record.llf[record.accepted]) > -1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_optimization_plot(fit):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = fit.optimization.plot()
    assert axes.get_ylabel() == "log-likelihood below the optimum"


def test_summaries(fit, one):
    text = fit.summary()
    for piece in ("Multilevel mediation: x -> m -> y", "certified", "cov(m~x,y~m)", "indirect", 'vcov="joint"'):
        assert piece in text
    assert "Mixed-effects REML regression" in fit.summary(style="stata")
    assert "cov(m,_cons)" in one.summary(style="stata")
    assert "joint standard errors" in fit.summary(vcov="joint")
    with pytest.raises(EffectError, match="style must be"):
        fit.summary(style="sas")
    with pytest.raises(EffectError, match="block"):
        fit.summary(style="stata", vcov="joint")
    assert fit._repr_html_().startswith("<pre>")


def last_line(text: str) -> dict[str, float]:
    """Terms and numbers of the last line of a summary."""
    shown = text.splitlines()[-1].partition("standard errors ")[2].partition(" (docs")[0].partition(";")[0]
    return {term: float(number) for term, number in (pair.split(" ") for pair in shown.split(", "))}


@pytest.mark.parametrize("unit", [1e-6, 1e7])
def test_a_summary_keeps_its_digits_in_any_unit(data, fit, unit):
    """Errors of b, c' and the effects follow the unit of y; those of a do not."""
    scaled = mlmed.mediate(MEDIATOR, OUTCOME, data.assign(y=unit * data["y"]))
    expected = fit.effects(vcov="joint").set_index("term")["std_error"][["a", "b", "cprime", "indirect", "total"]]
    factors = pd.Series(unit, index=expected.index)
    factors["a"] = 1.0
    shown = last_line(scaled.summary())
    assert list(shown) == list(expected.index)
    # five digits are printed, so the last may be off by a half
    np.testing.assert_allclose(list(shown.values()), expected * factors, rtol=6e-5)
    for line in str(mlmed.compare(fit, scaled)).splitlines()[2:9]:
        term, *cells = line.replace("(", " ").replace(")", " ").split()
        ours, theirs = (np.array(cells[k : k + 2], dtype=float) for k in (0, 2))
        by = unit if term in ("b", "cprime", "cov_ab", "indirect", "direct", "total") else 1.0
        np.testing.assert_allclose(theirs, by * ours, rtol=2e-2)  # three digits or more, of two rounded numbers


def test_a_summary_has_no_nan_where_there_is_no_error(data):
    """The joint Hessian of this singular fit has the scaled eigenvalue -5.7."""
    with pytest.warns(BoundaryWarning):
        singular = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(25, 5, seed=5).data)
    text = singular.summary()
    assert text.splitlines()[-1] == (
        'vcov="joint" has no standard errors here; the notes of effects(vcov="joint") say why'
    )
    assert "nan" not in text
    assert "not positive definite" in singular.effects(vcov="joint")["note"].iloc[0]
    full = mlmed.mediate(MEDIATOR, "y ~ m + (1 + m | id)", data).summary()
    assert full.splitlines()[-1].endswith("; none of cprime (docs/standard_errors.md)")
    assert set(last_line(full)) == {"a", "b", "indirect", "total"}


@pytest.mark.parametrize("digits", [3, 4, 5, 6])
def test_numbers_in_text_have_three_digits_or_more(digits):
    for value in (-1.23456e-12, 3.45678e-4, 0.00123456, 0.0987654, 0.12, 123.456, 7654321.0, 1.23456e15):
        assert float(format_number(value, digits)) == pytest.approx(value, rel=5e-3)


def test_stata_layout_of_structures(data):
    text = {
        c: mlmed.mixed(OUTCOME, data, covariance=c).summary("stata") for c in ("diagonal", "identity", "exchangeable")
    }
    assert "id: Independent" in text["diagonal"]
    assert "id: Identity" in text["identity"]
    assert "var(m x _cons)" in text["identity"]
    assert "id: Exchangeable" in text["exchangeable"]
    assert "chibar2(01)" in mlmed.mixed("y ~ x + (1 | id)", data).summary("stata")


def test_json_is_strict_and_complete(fit):
    document = json.loads(fit.to_json())
    assert {row["term"] for row in document["effects"]} >= {"a", "b", "cprime", "cov_ab", "indirect", "direct", "total"}
    assert [row["term"] for row in document["residual"]] == ["var(m~Residual)", "var(y~Residual)"]
    assert document["varcorr"][0]["statistic"] is None
    assert document["llf"] == fit.llf


def test_results_are_frozen(fit):
    with pytest.raises(AttributeError):
        fit.treatment = "z"


def test_the_vcov_argument_reaches_every_table(fit):
    block, joint = fit.fixef(), fit.fixef(vcov="joint")
    assert (joint["std_error"] >= block["std_error"]).all()
    assert not np.allclose(joint["std_error"], block["std_error"])
    assert fit.tidy(vcov="joint").loc[3, "std_error"] == joint.loc[3, "std_error"]
    assert fit.vcov("joint").loc["y~m", "cov(m~x,y~m)"] != 0.0
    assert fit.vcov("block").loc["y~m", "cov(m~x,y~m)"] == 0.0
    assert fit.vcov(which="fixed").shape == (5, 5)
    with pytest.raises(EffectError, match="which must be"):
        fit.vcov(which="random")


def test_import_is_light():
    """No plotting library, no scipy.stats, no statsmodels; seconds are the benchmarks' business."""
    code = (
        "import sys, mlmed; "
        "print([m for m in ('matplotlib', 'scipy.stats', 'statsmodels', 'numdifftools') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_recovery():
    """Truth within 3 standard errors in one large seeded data set; G within 15 %."""
    sim = mlmed.simulate.bpg(1500, 10, seed=77)
    fit = mlmed.mediate(MEDIATOR, OUTCOME, sim.data)
    table = fit.effects(vcov="joint").set_index("term")
    for term in ("a", "b", "cprime", "cov_ab", "indirect", "total"):
        truth = getattr(sim.truth, term)
        assert abs(table.loc[term, "estimate"] - truth) < 3 * table.loc[term, "std_error"], term
    np.testing.assert_allclose(np.diag(fit.G), np.diag(np.asarray(sim.truth.G)), rtol=0.15)
    assert isinstance(sim.data, pd.DataFrame)
