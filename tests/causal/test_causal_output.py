"""Bootstrap, tables, text, JSON and pictures of potential outcomes."""

from __future__ import annotations

import html
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.api.causal import causal
from mlmed.effects.potential import (
    EFFECTS,
)
from mlmed.errors import (
    BoundaryWarning,
    EffectError,
)
from tests.causal_models import MIXED, XM, YM, column, fitted, simulated
from tests.tolerances import SAME

# -- bootstrap -----------------------------------------------------------------------------------------------------


def test_bootstrap_does_not_depend_on_workers():
    fit = fitted("linear", "probit")
    one = fit.bootstrap(24, seed=7)
    two = fit.bootstrap(24, seed=7, n_jobs=2)
    pd.testing.assert_frame_equal(one.draws, two.draws)
    assert one.kind == "row"
    assert not one.draws.equals(fit.bootstrap(24, seed=8).draws)


def test_a_replicate_is_a_fit_of_drawn_rows():
    data = simulated("logit", "poisson")
    options = {"treatment": "x", "family_m": "logit", "family_y": "poisson"}
    fit = causal(XM, YM, data, **options)
    index = np.random.default_rng(np.random.SeedSequence(3).spawn(1)[0]).integers(300, size=300)
    by_hand = column(causal(XM, YM, data.iloc[index], **options).effects())
    np.testing.assert_allclose(fit.bootstrap(1, seed=3).draws.iloc[0], by_hand, rtol=1e-7)


def test_a_replicate_is_a_fit_of_drawn_clusters():
    data = simulated("linear", "logit")
    fit = causal(XM, YM, data, treatment="x", family_y="logit", cluster="g")
    index = np.random.default_rng(np.random.SeedSequence(3).spawn(1)[0]).integers(15, size=15)
    drawn = pd.concat([data[data["g"] == k] for k in index])
    by_hand = column(causal(XM, YM, drawn, treatment="x", family_y="logit").effects())
    boot = fit.bootstrap(1, seed=3)
    np.testing.assert_allclose(boot.draws.iloc[0], by_hand, rtol=1e-7)
    assert boot.kind == "cluster"


@pytest.mark.parametrize(
    ("outcome", "family_y"), [("y ~ X + Med + (1 + Med | group)", "linear"), ("z ~ X + Med", "probit")]
)
@pytest.mark.parametrize("of", ["cluster", "population"])
def test_a_replicate_is_a_mixed_fit_of_drawn_clusters(outcome, family_y, of):
    data = mlmed.datasets.load("yuan_mackinnon_sim").assign(z=lambda d: (d["y"] > 0.6).astype(float))
    fit = causal(MIXED[0], outcome, data, family_y=family_y)
    index = np.random.default_rng(np.random.SeedSequence(5).spawn(1)[0]).integers(50, size=50)
    clusters = data["group"].drop_duplicates().to_numpy()
    drawn = pd.concat([data[data["group"] == clusters[k]].assign(group=c) for c, k in enumerate(index)])
    by_hand = column(causal(MIXED[0], outcome, drawn, family_y=family_y).effects(of=of))
    found = fit.bootstrap(1, seed=5, of=of)
    np.testing.assert_allclose(found.draws.iloc[0], by_hand, rtol=1e-5)
    assert found.kind == "cluster"


def test_failed_replicates_are_counted():
    """A rare outcome: some replicates have none of it, or separate it."""
    rng = np.random.default_rng(1)
    data = simulated().iloc[:60].assign(y=0.0)
    data.loc[rng.choice(60, 3, replace=False), "y"] = 1.0
    fit = causal("m ~ x", "y ~ m + x", data, family_y="logit")
    boot = fit.bootstrap(60, seed=1)
    assert 0 < boot.n_failed < 60
    assert boot.draws["acme"].isna().sum() == boot.n_failed
    assert boot.tidy()["note"].str.contains(f"{boot.n_failed} failed").all()
    assert {"equation y, infinite", "equation y, separated"} & {failure.code for failure in boot.failures}


def test_failures_of_mixed_equations_name_them_and_clusters_are_left_out_by_name():
    """A treatment of two clusters out of ten, which have names: as in separate equations."""
    data = mlmed.simulate.bpg(10, 5, seed=5).data
    data["t"], data["id"] = (data["id"] <= 2).astype(float), "c" + data["id"].astype(str)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = causal("m ~ t + (1 | id)", "y ~ m + t + (1 | id)", data, treatment="t")
        boot = fit.bootstrap(60, seed=1)
        left = boot.jackknife
        without = causal("m ~ t + (1 | id)", "y ~ m + t + (1 | id)", data[data["id"] != "c4"], treatment="t")
    ((failure, count),) = boot.failures.items()
    assert failure.text == "equation m, the fixed effects cannot be told apart in the replicate"
    assert count == boot.n_failed > 0
    assert (left.index.name, sorted(left.index)) == ("id", sorted(data["id"].unique()))
    expected = without.effects().set_index("term")["estimate"]
    np.testing.assert_allclose(left.loc["c4", ["acme", "ade"]], expected[["acme", "ade"]], rtol=1e-5)


@pytest.mark.parametrize("method", ["percentile", "bc", "bca", "basic", "normal"])
def test_bootstrap_methods(method):
    table = fitted().effects("bootstrap", n=60, seed=1, ends=method)
    row = table.set_index("term").loc["acme"]
    assert row["conf_low"] < row["estimate"] < row["conf_high"]
    estimate = column(fitted().effects())["acme"]
    assert row["estimate"] == pytest.approx(estimate, rel=SAME)


# -- output --------------------------------------------------------------------------------------------------------


def test_summary_says_what_was_done(mixed):
    text = str(fitted("linear", "probit", vcov="HC3"))
    for part in ("x -> m -> y", "(linear)", "(probit)", "0 (control) to 1 (treated)", "HC3", "Phi((A + B mu)",
                 "delta method", "residual sd of m", "acme_treated"):  # fmt: skip
        assert part in text
    text = fitted(outcome="y ~ m + x + w").summary(interval="monte-carlo", n=300, seed=9)
    assert "sums of products" in text
    assert "Control and treated have the same effects" in text
    assert "acme_control" not in text
    assert "300 draws of the coefficients, seed 9" in text
    text = fitted().summary(interval="bootstrap", n=60, seed=2, ends="bc", n_jobs=1)
    assert "bootstrap (bc), 60 replicates, seed 2" in text
    text = mixed.summary(interval="monte-carlo", n=100, seed=1, ranef_draws="independent")
    assert "drawn independently of them" in " ".join(text.split())
    assert "covariance of their random slopes" in str(mixed)
    assert "conditional modes" in str(mixed)
    assert "averaged out" in mixed.summary(of="population")
    assert html.unescape(mixed._repr_html_()) == f"<pre>{mixed}</pre>"
    assert "3 clusters for 5 coefficients" in str(
        causal(XM, YM, simulated().assign(g=lambda d: d["g"] % 3), treatment="x", cluster="g")
    )


def test_summary_says_that_a_fit_is_singular():
    data = simulated(n=200)  # its clusters do not differ
    with pytest.warns(BoundaryWarning):
        fit = causal("m ~ x + (1 + x | g)", "y ~ m + x", data)
    assert fit.glance().loc[0, "is_singular"]
    assert "boundary (singular) fit, see docs/singular.md" in " ".join(str(fit).split())


@pytest.mark.parametrize(("pair", "words"), [
    (("linear", "logit"), "numerical integral"), (("linear", "poisson"), "closed form"),
    (("logit", "probit"), "both values of the mediator"), (("poisson", "logit"), "counts of the mediator"),
    (("poisson", "poisson"), "closed form"), (("probit", "linear"), "closed form"),
])  # fmt: skip
def test_summary_names_the_computation(pair, words):
    assert words in " ".join(str(fitted(*pair)).split())


def test_tables(mixed):
    fit = fitted("linear", "probit", vcov="HC3")
    assert list(fit.params.index[:3]) == ["m~Intercept", "m~x", "m~w"]
    glance = fit.glance().iloc[0]
    assert (glance["family_m"], glance["family_y"], glance["nobs"], glance["vcov"]) == (
        "linear",
        "probit",
        300,
        "HC3",
    )
    assert glance["interaction"]
    document = json.loads(fit.to_json())
    assert (document["schema"], document["school"]) == ("mlmed/1", "causal")
    assert [row["term"] for row in document["effects"]] == list(EFFECTS)
    assert document["contrast"] == [0.0, 1.0]
    shared = mixed.comparable().set_index("term")
    assert list(shared.index[:3]) == ["indirect", "direct", "total"]
    assert shared.loc["indirect", "estimate"] == pytest.approx(column(mixed.effects())["acme"], rel=SAME)
    assert "var(Med~X)" in shared.index
    assert mixed.label == "potential outcomes"
    assert mixed.combined("`Med~X` * `y~Med`").iloc[0]["estimate"] == pytest.approx(
        column(mixed.effects(of="population"))["acme"], rel=1e-8
    )
    with pytest.raises(EffectError, match="names 'cov_ab'"):
        mixed.combined("cov_ab + indirect")


def test_a_fit_can_be_pickled(mixed):
    again = pickle.loads(pickle.dumps(mixed))
    pd.testing.assert_frame_equal(again.effects(), mixed.effects())


def test_plot(mixed):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ax = fitted("linear", "probit").plot.effects("monte-carlo", n=100, seed=1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Total effect", "ADE", "ACME"]
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"treated", "control"}
    assert mixed.plot.effects().get_legend() is None
    plt.close("all")


def test_covariances_can_be_chosen_after_the_fit():
    """Those of a fit that was made with them, in every kind of interval."""
    usual, other = fitted("linear", "probit"), fitted("linear", "probit", vcov="HC3")
    for options in ({}, {"interval": "monte-carlo", "n": 100, "seed": 1}):
        pd.testing.assert_frame_equal(usual.effects(vcov="HC3", **options), other.effects(**options))
        pd.testing.assert_frame_equal(other.effects(vcov="iid", **options), usual.effects(**options))
    asked = {"n": 100, "seed": 1}
    pd.testing.assert_frame_equal(usual.test_interaction(vcov="HC3", **asked), other.test_interaction(**asked))
    assert "HC3, of the coefficients" in usual.summary(vcov="HC3")
    with pytest.raises(EffectError, match="within clusters, and none are named"):
        usual.effects(vcov="CR1")


def test_what_belongs_to_other_schools_is_refused(mixed):
    """And is no name of the fit."""
    joint = mlmed.mediate(*MIXED, mlmed.datasets.load("yuan_mackinnon_sim"))
    for options in ({"of": "population"}, {"ranef_draws": "joint"}):
        with pytest.raises(EffectError, match=rf"{next(iter(options))} is for effects of mlmed\.causal"):
            joint.effects(**options)
    with pytest.raises(EffectError, match=r"of= is for effects of mlmed\.causal"):
        joint.bootstrap(5, seed=1, of="population")
    with pytest.raises(EffectError, match=r"groups belongs to mlmed\.causal"):
        joint.groups()
    with pytest.raises(EffectError, match="profile belongs to a linear mixed model"):
        mixed.profile("acme")
    with pytest.raises(EffectError, match="leave out kind, within and strata"):
        mixed.bootstrap(5, seed=1, within=True)
    assert {"groups", "sensitivity", "test_moderation"} <= {*dir(mixed)} - {*dir(joint)}


def test_functions_of_effects_and_coefficients(mixed):
    """First order, in the contrasts: an effect alone is what the table has."""
    row, table = mixed.nlcom("acme").iloc[0], mixed.effects().set_index("term")
    assert row["std_error"] == pytest.approx(table.loc["acme", "std_error"], rel=SAME)
    assert mixed.nlcom("acme + ade - total")["estimate"].item() == pytest.approx(0.0, abs=1e-12)
