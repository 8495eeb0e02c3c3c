"""The bootstrap as users call it: reproducible, complete, counted, plotted; influence beside it."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.delta import COLUMNS
from mlmed.errors import BoundaryWarning, EffectError
from tests.models import MEDIATOR, OUTCOME

#: The same replicate fitted twice, from rows and from cross-products.
SAME_REPLICATE = 1e-8
#: Standard error of a standard deviation from n draws is sd / sqrt(2 n); four of them.
FOUR_ERRORS = 4.0
KINDS = ("case", "parametric", "residual")


@pytest.fixture(scope="module")
def fit(dataset):
    return mlmed.mediate(MEDIATOR, OUTCOME, dataset("ml_sim"))


@pytest.fixture(scope="module")
def boot(fit):
    return fit.bootstrap(60, seed=3)


@pytest.fixture(scope="module")
def singular():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        return mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate_bpg(12, 4, seed=2).data)


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_workers(fit, kind):
    one, two = (fit.bootstrap(8, kind=kind, seed=5, n_jobs=n).draws for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert not one.equals(fit.bootstrap(8, kind=kind, seed=6).draws)


def test_first_replicates_do_not_depend_on_how_many(fit, boot):
    pd.testing.assert_frame_equal(boot.draws[:10], fit.bootstrap(10, seed=3).draws, check_exact=True)


def test_a_replicate_is_the_fit_of_those_clusters(dataset, fit, boot):
    """The same seed, the same clusters, refitted from rows through the front door."""
    data = dataset("ml_sim")
    groups = [rows for _, rows in data.groupby("id", sort=True)]
    for k, child in enumerate(np.random.SeedSequence(3).spawn(3)):
        index = np.random.default_rng(child).integers(len(groups), size=len(groups))
        rows = pd.concat([groups[j].assign(id=new) for new, j in enumerate(index)], ignore_index=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            again = mlmed.mediate(MEDIATOR, OUTCOME, rows)
        expected = again.effects().set_index("term")["estimate"]
        for term in expected.index:
            assert boot.draws.loc[k, term] == pytest.approx(expected[term], rel=SAME_REPLICATE, abs=SAME_REPLICATE)


@pytest.mark.parametrize("kind", ["parametric", "residual"])
def test_the_model_bootstraps_spread_as_the_delta_errors(fit, kind):
    """Joint standard errors are those of the model; .0533 (block) lies within the same bounds for indirect."""
    n = 300
    table = fit.bootstrap(n, kind=kind, seed=11).tidy(method="normal").set_index("term")
    joint = fit.effects(vcov="joint").set_index("term")["std_error"]
    for term in ("a", "b", "cprime", "indirect", "total"):
        assert table.loc[term, "std_error"] == pytest.approx(joint[term], rel=FOUR_ERRORS / np.sqrt(2 * n)), term
    assert table.loc["indirect", "std_error"] == pytest.approx(0.0533, rel=FOUR_ERRORS / np.sqrt(2 * n))


def test_tables_have_the_same_columns_as_ever(fit, boot):
    for method in ("percentile", "bc", "bca", "basic", "normal"):
        table = boot.tidy(method=method, terms=["a", "indirect", "var(m:x)"])
        assert tuple(table.columns) == COLUMNS
        assert (table["conf_low"] < table["conf_high"]).all()
    effects = fit.effects(interval="bootstrap", n=60, seed=3)
    pd.testing.assert_frame_equal(effects, boot.tidy(terms=list(effects["term"])))
    assert list(boot.draws.columns[:7]) == list(effects["term"])


def test_the_jackknife_is_leaving_out_clusters(dataset, fit, boot):
    data = dataset("ml_sim")
    assert len(boot.jackknife) == 100
    cluster = boot.jackknife.index[4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        without = mlmed.mediate(MEDIATOR, OUTCOME, data[data["id"] != cluster])
    expected = without.effects().set_index("term")["estimate"]["indirect"]
    assert boot.jackknife.loc[cluster, "indirect"] == pytest.approx(expected, rel=SAME_REPLICATE)
    exact = fit.influence(refit=True).changes["indirect"]
    assert exact.loc[cluster] == pytest.approx(expected - 0.472532423699763, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_singular_fits_are_bootstrapped(singular, kind):
    assert singular.is_singular
    found = singular.bootstrap(30, kind=kind, seed=1)
    assert found.n_singular > 0
    assert found.n == 30
    assert found.draws["indirect"].notna().sum() == 30 - found.n_failed
    assert np.isfinite(found.tidy(terms=["indirect"])["conf_low"][0])


def test_failed_replicates_are_counted_and_shown():
    """A cluster-level factor of which some replicates miss a level: not identified there, and said so."""
    data = mlmed.simulate_bpg(12, 6, seed=5).data
    data["w"] = (data["id"] <= 2).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mixed("m ~ x + w + (1 | id)", data)
    found = fit.bootstrap(100, seed=2)
    assert 0 < found.n_failed < 40
    assert sum(found.failures.values()) == found.n_failed
    assert found.draws["w"].isna().sum() == found.n_failed
    note = found.tidy(terms=["w"])["note"][0]
    assert f"{100 - found.n_failed} of 100 draws; {found.n_failed} failed" in note
    assert f"{found.n_failed} failed" in repr(found)


def test_fixed_effects_of_the_model_have_no_interval(dataset):
    fit = mlmed.mediate("m ~ x + (1 |i| id)", "y ~ m + x + (1 |i| id)", dataset("ml_sim"))
    row = fit.effects(interval="bootstrap", n=25, seed=1).set_index("term").loc["cov_ab"]
    assert np.isnan(row["conf_low"])
    assert "fixed at 0" in row["note"]


def test_rows_are_needed_and_must_be_those_of_the_fit(dataset):
    data = dataset("ml_sim").copy()
    formulas = [MEDIATOR, OUTCOME]
    stored = mlmed.mediate(*formulas, mlmed.grams(formulas, data))
    assert stored.bootstrap(5, seed=1, kind="parametric").n_failed == 0
    for options in ({"kind": "residual"}, {"kind": "case", "within": True}):
        with pytest.raises(EffectError, match="needs the rows, but the fit was made from cross-products"):
            stored.bootstrap(5, seed=1, **options)
    fit = mlmed.mediate(*formulas, data)
    data.loc[0, "y"] += 1.0
    with pytest.raises(EffectError, match="changed after the fit"):
        fit.bootstrap(5, seed=1, kind="residual")


def test_both_levels(fit):
    found = fit.bootstrap(20, seed=1, within=True)
    assert found.kind == "case (rows, too)"
    assert found.draws["indirect"].std() > 0.0


def test_a_single_equation_has_draws_of_its_parameters(dataset):
    fit = mlmed.mixed("Reaction ~ Days + (1 + Days | Subject)", dataset("sleepstudy"))
    found = fit.bootstrap(40, seed=1, kind="parametric")
    assert list(found.draws.columns) == fit.names
    assert found.tidy()["term"].tolist() == fit.names
    with pytest.raises(EffectError, match="no draws of 'indirect'"):
        found.tidy(terms=["indirect"])


def test_progress_bar(fit, capsys):
    fit.bootstrap(3, seed=1, progress=True)
    assert "3/3" in capsys.readouterr().err


def test_influence_table(fit):
    found = fit.influence()
    assert not found.refitted
    table = found.tidy()
    assert list(table.columns) == ["cluster", "term", "change", "scaled", "cooks", "note"]
    assert len(table) == found.changes.size
    exact = fit.influence(refit=True)
    assert np.corrcoef(found.changes["indirect"], exact.changes["indirect"])[0, 1] > 0.99
    row = table[table["term"] == "indirect"].iloc[0]
    assert row["scaled"] == pytest.approx(row["change"] / 0.0533, rel=1e-3)


def test_influence_of_a_singular_fit_is_refitted(singular):
    found = singular.influence()
    assert found.refitted
    assert found.changes["indirect"].notna().all()


def test_pictures(fit, boot, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    for name, picture in {
        "draws": boot.plot(),
        "draws_b": boot.plot("b", method="bc"),
        "profile": fit.profile("indirect").plot(),
        "influence": fit.influence().plot(),
    }.items():
        picture.figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    with pytest.raises(EffectError, match="no changes of"):
        fit.influence().plot("nothing")
