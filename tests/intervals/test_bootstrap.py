"""The bootstrap as users call it: reproducible, complete, counted, plotted; influence beside it."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.delta import COLUMNS
from mlmed.errors import BoundaryWarning, EffectError
from mlmed.fit.lmm import design_of
from mlmed.lmm.resample import within_case_resampler
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
        return mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(12, 4, seed=2).data)


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
    table = fit.bootstrap(n, kind=kind, seed=11).tidy(ends="normal").set_index("term")
    joint = fit.effects(vcov="joint").set_index("term")["std_error"]
    for term in ("a", "b", "cprime", "indirect", "total"):
        assert table.loc[term, "std_error"] == pytest.approx(joint[term], rel=FOUR_ERRORS / np.sqrt(2 * n)), term
    assert table.loc["indirect", "std_error"] == pytest.approx(0.0533, rel=FOUR_ERRORS / np.sqrt(2 * n))


def test_tables_have_the_same_columns_as_ever(fit, boot):
    for method in ("percentile", "bc", "bca", "basic", "normal"):
        table = boot.tidy(ends=method, terms=["a", "indirect", "var(m~x)"])
        assert tuple(table.columns) == COLUMNS
        assert (table["conf_low"] < table["conf_high"]).all()
        assert (np.isinf(table["df"]) if method == "normal" else table["df"].isna()).all()
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
    exact = fit.influence(refit=True).changes
    assert exact.loc[cluster, "indirect"] == pytest.approx(expected - 0.472532423699763, rel=1e-6)
    assert (boot.jackknife - boot.estimates).to_numpy() == pytest.approx(exact.to_numpy(), rel=0, abs=0)


def test_clusters_are_left_out_by_any_number_of_workers(fit):
    """The jackknife and influence are the same refits, and do not depend on how many workers make them."""
    one, two = (fit.bootstrap(2, seed=1, n_jobs=n).jackknife for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    exact = fit.influence(refit=True, n_jobs=2).changes
    assert (one - fit.bootstrap(2, seed=1).estimates).to_numpy() == pytest.approx(exact.to_numpy(), rel=0, abs=0)


@pytest.mark.parametrize("kind", KINDS)
def test_singular_fits_are_bootstrapped(singular, kind):
    assert singular.is_singular
    found = singular.bootstrap(42, kind=kind, seed=1)
    assert found.n_singular > 0
    assert found.n == 42
    assert found.draws["indirect"].notna().sum() == 42 - found.n_failed
    row = found.tidy(terms=["indirect"]).iloc[0]
    assert np.isfinite(row["conf_low"])
    assert f"{found.n_singular} of 42 replicates singular" in row["note"]


def test_failed_replicates_are_counted_and_shown():
    """A cluster-level factor of which some replicates miss a level: not identified there, and said so."""
    data = mlmed.simulate.bpg(12, 6, seed=5).data
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


def test_replicates_that_do_not_tell_fixed_effects_apart_fail():
    """A factor and a number of the clusters: fewer than four different rows among six drawn clusters are too few."""
    rng, J, rows = np.random.default_rng(1), 6, 8
    design = np.column_stack([np.ones(J), [0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], rng.normal(0.0, 0.1, J)])
    data = pd.DataFrame({"id": np.repeat(np.arange(J), rows)})
    data["g"], data["z"] = np.array(list("aabbcc"))[data["id"]], 1000.0 + design[data["id"], 3]
    data["y"] = rng.normal(size=J)[data["id"]] + rng.normal(size=len(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        found = mlmed.mixed("y ~ g + z + (1 | id)", data, method="ml").bootstrap(300, seed=2)
    drawn = [np.random.default_rng(seed).integers(J, size=J) for seed in np.random.SeedSequence(2).spawn(300)]
    rank = np.array([np.linalg.matrix_rank(design[index], tol=1e-9) for index in drawn])
    assert 50 < (rank < 4).sum() < 250
    assert (found.draws["Intercept"].isna() == (rank < 4)).all()
    assert [failure.text for failure in found.failures] == ["the fixed effects cannot be told apart in the replicate"]


def test_failures_that_differ_in_their_numbers_are_counted_together():
    """The logarithm of a simulated mediator: which rows are not positive differs from draw to draw."""
    data = mlmed.simulate.bpg(40, 6, seed=2).data
    data["m"] += 0.01 - data["m"].min()
    fit = mlmed.mediate("m ~ x + (1 | id)", "y ~ m + np.log(m) + x + (1 | id)", data)
    found = fit.bootstrap(20, seed=1, kind="parametric")
    ((failure, count),) = found.failures.items()
    assert count == found.n_failed > 5
    assert failure.text.startswith("np.log(m) in equation y with simulated m is not a finite number")
    assert f"{count} failed ({count}: np.log(m) in equation y" in found.tidy(terms="m~x").loc[0, "note"]


def test_fixed_effects_of_the_model_have_no_interval(dataset):
    fit = mlmed.mediate("m ~ x + (1 |i| id)", "y ~ m + x + (1 |i| id)", dataset("ml_sim"))
    found = fit.bootstrap(40, seed=1)
    row = found.tidy(terms="cov_ab").iloc[0]
    assert np.isnan(row["conf_low"])
    assert "fixed at 0" in row["note"]
    with pytest.raises(EffectError, match="cov_ab do not vary, so there is nothing to plot: fixed at 0"):
        found.plot("cov_ab")


def test_notes_of_effects_and_terms(dataset):
    """Where an effect is taken is said whatever the interval; one name needs no list; variances have no test."""
    data = dataset("ml_sim")
    data = data.assign(w=np.random.default_rng(1).normal(size=len(data)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mediate("m ~ x*w + (1 | id)", "y ~ m + x + (1 | id)", data, treatment="x")
    delta, drawn = (
        fit.effects(at={"w": 0.5}, **options).set_index("term")["note"]
        for options in ({}, {"interval": "bootstrap", "n": 40, "seed": 1})
    )
    assert "at w = 0.5" in delta["a"]
    assert delta["a"] in drawn["a"]
    found = fit.bootstrap(40, seed=1)
    assert found.tidy(terms="indirect")["term"].tolist() == ["indirect"]
    table = found.tidy(ends="normal").set_index("term")
    variances = table.index.str.startswith("var(")
    assert variances.sum() == 4
    assert table.loc[variances, ["statistic", "p_value"]].isna().all(axis=None)
    assert table.loc[~variances & (table["note"] == ""), ["statistic", "p_value"]].notna().all(axis=None)
    assert np.isfinite(table.loc[variances, "conf_high"]).all()


def test_options_are_checked_before_anything_runs(fit, boot, monkeypatch):
    with pytest.raises(EffectError, match="give a seed, as in seed=1"):
        fit.bootstrap(1000)

    def run(*arguments, **options):
        raise AssertionError("ran before the options were checked")

    monkeypatch.setattr("mlmed.intervals.bootstrap.replicate", run)
    monkeypatch.setattr("mlmed.intervals.bootstrap.leave_out", run)
    for options, message in (
        ({"ends": "bcaa"}, "ends must be one of"),
        ({"method": "bca"}, "method is the criterion of a fit; write ends='bca'"),
        ({"level": 95}, "proportion"),
        ({"kind": "wild"}, "kind must be one of"),
        ({"n_jobs": 0}, "number of workers"),
    ):
        with pytest.raises(EffectError, match=message):
            fit.effects(interval="bootstrap", n=400, seed=1, **options)
    fresh = pickle.loads(pickle.dumps(boot))
    fresh.__dict__.pop("jackknife", None)
    for call in (fresh.tidy, fresh.plot):
        with pytest.raises(EffectError, match="write ends='bc'"):
            call(method="bc")
    for options in ({"level": 95}, {"terms": "nothing"}):
        with pytest.raises(EffectError):
            fresh.tidy(ends="bca", **options)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, np.random.default_rng(1)])
def test_seeds(fit, seed):
    for call in (
        lambda: fit.bootstrap(5, seed=seed),
        lambda: fit.effects(interval="bootstrap", n=5, seed=seed),
        lambda: fit.effects(interval="monte-carlo", seed=seed),
    ):
        with pytest.raises(EffectError, match="seed is a whole number from 0"):
            call()


@pytest.mark.parametrize("n", [0, True, 2.0, "9", None])
def test_numbers_of_replicates(fit, n):
    with pytest.raises(EffectError, match="number of replicates"):
        fit.bootstrap(n, seed=1)
    with pytest.raises(EffectError, match="number of workers"):
        fit.bootstrap(5, seed=1, n_jobs=0 if n is None else str(n))


def test_integers_of_numpy(fit, boot):
    found = fit.bootstrap(np.int64(4), seed=np.uint8(3), n_jobs=np.int32(1))
    pd.testing.assert_frame_equal(found.draws, boot.draws[:4], check_exact=True)
    assert repr(found).startswith("BootstrapResults(4 replicates, kind 'case', seed 3:")
    assert fit.effects(interval="monte-carlo", n=np.int64(50), seed=np.int64(1))["conf_low"].notna().all()


def test_bca_says_what_its_jackknife_lacks():
    data = mlmed.simulate.bpg(2, 20, seed=1).data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", BoundaryWarning)
        found = mlmed.mixed("y ~ m + x + (1 | id)", data).bootstrap(60, seed=1, kind="parametric")
        row = found.tidy(ends="bca", terms="x").iloc[0]
    assert row[["p_value", "conf_low", "conf_high"]].isna().all()
    assert "2 of 2 jackknife fits failed" in row["note"]
    data = mlmed.simulate.bpg(12, 8, seed=5).data
    data["d"] = (data["id"] == data["id"].iloc[0]).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        found = mlmed.mixed("m ~ x + d + (1 | id)", data).bootstrap(150, seed=2)
    row = found.tidy(ends="bca", terms="x").iloc[0]
    assert np.isfinite(row["conf_low"])
    assert "1 of 12 jackknife fits failed" in row["note"]


def test_moderators_of_effects_that_do_not_exist(dataset):
    data = dataset("ml_sim").assign(q=1.0)
    data["q"] = np.arange(len(data)) % 3
    fit = mlmed.mediate("m ~ x + (1 | id)", "y ~ m*x + q + (1 | id)", data)
    assert fit.effects_reason
    for call in (
        lambda at: fit.bootstrap(5, seed=1, at=at),
        lambda at: fit.influence(at=at),
        lambda at: fit.nlcom("a*b", at=at),
    ):
        with pytest.raises(EffectError, match=r"the model defines none: .*depends on x"):
            call({"q": 1})
    assert list(fit.bootstrap(2, seed=1).draws.columns) == fit.names


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


def test_without_rows_only_what_needs_none_is_proposed(dataset):
    data = dataset("ml_sim").copy()
    data["w"] = np.arange(len(data)) % 5
    formulas = ["m ~ x + (1 | id)", "y ~ m*w + x + (1 | id)"]
    stored = mlmed.mediate(*formulas, mlmed.grams(formulas, data))
    for kind in ("parametric", "residual"):
        with pytest.raises(EffectError, match=r"fit a data frame, or use kind='case'$"):
            stored.bootstrap(5, seed=1, kind=kind)
    with pytest.raises(EffectError, match=r"or leave out within=True$"):
        stored.bootstrap(5, seed=1, within=True)
    assert stored.bootstrap(2, seed=1).n_failed == 0


def test_pickles_have_no_rows(dataset):
    data = dataset("ml_sim").copy()
    data["secret"] = [f"secret {k}" * 50 for k in range(len(data))]
    fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
    found = fit.bootstrap(20, seed=1)
    saved, own = pickle.dumps(found), pickle.dumps(fit)
    assert len(data) * 400 > 2 * max(len(saved), len(own))
    assert b"secret" not in saved + own
    again, copied = pickle.loads(saved), pickle.loads(own)
    pd.testing.assert_frame_equal(again.jackknife, found.jackknife, check_exact=True)
    pd.testing.assert_frame_equal(copied.bootstrap(20, seed=1).draws, found.draws, check_exact=True)
    pd.testing.assert_frame_equal(copied.effects(), fit.effects(), check_exact=True)
    for options in ({"kind": "residual"}, {"within": True}):
        with pytest.raises(EffectError, match="comes from a pickle, which has no rows"):
            copied.bootstrap(5, seed=1, **options)


def test_both_levels(dataset, fit):
    """The drawn rows of the drawn clusters, refitted from rows through the front door."""
    found = fit.bootstrap(20, seed=1, within=True)
    assert found.kind == "case (rows, too)"
    resampler = within_case_resampler(fit.fit.spec, fit.fit.grams, design_of(fit.fit, "this", "leave it"))
    for k, child in enumerate(np.random.SeedSequence(1).spawn(2)):
        index, rows = resampler.draw_rows(np.random.default_rng(child))
        assert len(np.unique(rows)) < 0.56 * len(rows)  # 1 - exp(-(1 - 1/e)) = 47% is expected; of whole clusters, 63%
        new = dataset("ml_sim").iloc[resampler.order[rows]]
        new = new.assign(id=np.repeat(np.arange(len(index)), resampler.size[index]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BoundaryWarning)
            expected = mlmed.mediate(MEDIATOR, OUTCOME, new).effects().set_index("term")["estimate"]
        drawn = found.draws.loc[k, list(expected.index)]
        assert drawn.to_numpy() == pytest.approx(expected.to_numpy(), rel=SAME_REPLICATE, abs=SAME_REPLICATE)


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
    for term, own in table.groupby("term"):
        assert own["cluster"].tolist() == list(found.changes.index)
        assert own["change"].tolist() == found.changes[term].tolist()
        assert own["cooks"].tolist() == found.cooks.tolist()
    pd.testing.assert_frame_equal(fit.influence(refit=True, n_jobs=2).changes, exact.changes, check_exact=True)
    with pytest.raises(EffectError, match="number of workers"):
        fit.influence(n_jobs=0)


def test_influence_on_one_line(fit, singular):
    found = fit.influence()
    worst = found.cooks.idxmax()
    assert repr(found) == (
        f"InfluenceResults(one step without each of 100 clusters; largest Cook's distance {found.cooks[worst]:.3g}: "
        f"cluster {worst})"
    )
    assert "(refits without each of 12 clusters;" in repr(singular.influence())
    assert "unknown: the optimum is singular" in repr(singular.influence(refit=False))


def test_influence_table_of_a_predictor_named_cluster(dataset):
    data = dataset("ml_sim").rename(columns={"x": "cluster"})
    table = mlmed.mixed("y ~ cluster + (1 | id)", data).influence().tidy()
    assert list(table.columns) == ["cluster", "term", "change", "scaled", "cooks", "note"]
    assert "cluster" in set(table["term"])


def test_influence_of_a_singular_fit_is_refitted(singular):
    found = singular.influence()
    assert found.refitted
    assert found.changes["indirect"].notna().all()


def test_pictures(fit, boot, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    for name, picture in {
        "draws": boot.plot(),
        "draws_b": boot.plot("b", ends="bc"),
        "profile": fit.profile("indirect").plot(),
        "influence": fit.influence().plot(),
    }.items():
        picture.figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    with pytest.raises(EffectError, match="no changes of"):
        fit.influence().plot("nothing")
