"""What a fit has and what it refuses: names, remedies, families, degrees of freedom, documents."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as student

import mlmed
from mlmed.errors import EffectError

JOINT = "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"


@pytest.fixture(scope="module")
def df() -> pd.DataFrame:
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    arm = np.array(["a", "b", "c"])[np.arange(len(data)) % 3]
    return data.assign(
        arm=arm,
        z=data["group"] % 7,
        wide=data.groupby("group")["Med"].transform("mean"),
        treated=(data["X"] > 0).astype(int),
        letter=(data["y"] > 0).astype(int),
        count=data["y"].abs().round().astype(int),
    )


@pytest.fixture(scope="module")
def joint(df):
    return mlmed.mediate(*JOINT, df)


@pytest.fixture(scope="module")
def apart(df):
    return mlmed.piecewise(*JOINT, df)


@pytest.fixture(scope="module")
def between(df):
    """A mediator of the clusters: least squares on one row each."""
    return mlmed.piecewise("wide ~ z", "y ~ wide + z + (1 | group)", df, treatment="z")


@pytest.fixture(scope="module")
def logit(df):
    return mlmed.causal("Med ~ treated", "letter ~ Med + treated", df, family_y="logit")


@pytest.fixture(scope="module")
def one(df):
    return mlmed.mixed("y ~ X + (1 | group)", df)


@pytest.fixture(scope="module")
def scale(df):
    return mlmed.location_scale("Med ~ X + (1 | group)", "~ X", df)


# -- families ----------------------------------------------------------------------------------------------------


def test_a_logit_says_its_family_and_likelihood(logit):
    """Tests are normal; least squares keep t, their name and their degrees of freedom."""
    text = logit.outcome.summary()
    assert text.startswith("Logit regression: letter\n")
    assert f"log-likelihood {logit.outcome.llf:.5f}" in text
    heading = next(line.split() for line in text.splitlines() if line.startswith("term"))
    assert "z" in heading
    assert "t" not in heading
    assert np.isinf(logit.outcome.fixef()["df"]).all()
    own = logit.mediator.summary()
    assert own.startswith("Least squares: Med\n")
    assert "998 df" in own


def test_other_families_have_their_names(df):
    for family, column, name in (("probit", "letter", "Probit regression"), ("poisson", "count", "Poisson regression")):
        fit = mlmed.causal("Med ~ treated", f"{column} ~ Med + treated", df, family_y=family)
        assert fit.outcome.summary().startswith(f"{name}: {column}\n")


def test_no_residual_variance_without_residuals(logit):
    for name in ("Sigma", "sigma2"):
        with pytest.raises(EffectError, match=f"{name} belongs to .* no residual variance"):
            getattr(logit.outcome, name)
        assert name not in dir(logit.outcome)
        assert name in dir(logit.mediator)


def test_document_of_a_regression(logit, between):
    """No count of clusters where there are none, and no school that did not fit it."""
    found = json.loads(logit.outcome.to_json())
    assert (found["school"], found["family"], found["n_clusters"]) == ("regression", "logit", None)
    assert found["aic"] == pytest.approx(-2.0 * logit.outcome.llf + 6.0, rel=1e-12)
    assert logit.outcome.glance()["n_clusters"].tolist() == [None]
    own = json.loads(between.mediator.to_json())
    assert own["n_clusters"] == 50
    assert json.loads(between.outcome.to_json())["school"] == "mixed"


# -- remedies and names ------------------------------------------------------------------------------------------


NAMES = "sobel", "joint", "fitted", "ranef", "Sigma", "plot.residuals", "plot.ranef", "predict", "profile", "groups"
#: What a system of equations has itself.
OWN = {"logit": ("predict", "groups"), "apart": ("sobel", "joint"), "between": ("sobel", "joint")}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in OWN for name in NAMES if name not in OWN[kind]])
def test_a_remedy_exists(request, kind, name):
    """A part is named that has it, where one does; otherwise nothing."""
    fit = request.getfixturevalue(kind)
    *place, last = name.split(".")
    held = fit.plot if place else fit
    assert last not in dir(held)
    with pytest.raises(EffectError) as told:
        getattr(held, last)()
    where = str(told.value).partition("as in fit.")[2]
    roles = [role for role in ("mediator", "outcome", "reduced") if role in dir(fit)]
    having = [role for role in roles if last in dir(getattr(fit, role).plot if place else getattr(fit, role))]
    assert where == (f"{having[0]}.{name}" if having else "")


def test_dir_lists_what_is_not_refused(joint, apart, logit, one, scale):
    """No name that always refuses."""
    for fit in (joint, apart, logit, one, scale, logit.outcome, apart.mediator):
        names = dir(fit)
        for name in ("treatment", "contrast", "fittedvalues", "deviance", "reml_criterion", "Sigma", "sigma2"):
            if name in names:
                getattr(fit, name)
            else:
                with pytest.raises(EffectError):
                    getattr(fit, name)
    assert "effects" not in dir(one)
    assert {"effects", "check_starts"} <= set(dir(scale))
    assert not {"check_starts", "fittedvalues"} & set(dir(apart))
    assert {"check_starts", "fittedvalues", "reml_criterion"} <= set(dir(joint))
    assert "check_starts" not in dir(logit.outcome)


def test_dir_of_pictures_lists_pictures(joint, one):
    for fit in (joint, one):
        assert all(callable(getattr(fit.plot, name)) for name in dir(fit.plot) if not name.startswith("_"))
        assert not {"fit", "catalogue", "results", "place"} & set(dir(fit.plot))
    assert ("effects" in dir(joint.plot), "effects" in dir(one.plot)) == (True, False)


# -- options of other schools ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "schools"),
    [
        ("joint", {"of": "population"}, "mlmed.causal"),
        ("joint", {"ranef_draws": "joint"}, "mlmed.causal"),
        ("joint", {"interval": "bootstrap", "strata": "arm", "seed": 1}, "mlmed.piecewise"),
        ("joint", {"interval": "product"}, "mlmed.piecewise"),
        ("apart", {"ddf": "residual"}, "mlmed.mediate"),
        ("apart", {"interval": "bootstrap", "kind": "case", "seed": 1}, "mlmed.mediate"),
        ("apart", {"interval": "bootstrap", "within": True, "seed": 1}, "mlmed.mediate"),
        ("apart", {"interval": "profile"}, "mlmed.mediate"),
        ("logit", {"order": "first"}, "mlmed.mediate and mlmed.piecewise"),
        ("scale", {"interval": "bootstrap", "seed": 1}, "mlmed.causal"),
    ],
)
def test_where_an_option_belongs(request, kind, options, schools):
    with pytest.raises(EffectError, match="is for effects of") as told:
        request.getfixturevalue(kind).effects(**options)
    assert schools in str(told.value)


# -- degrees of freedom ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["joint", "apart", "between", "logit", "scale"])
def test_normal_tests_can_be_asked_for(request, kind):
    """What is usual, in every output."""
    fit = request.getfixturevalue(kind)
    assert fit.summary(ddf="none") == fit.summary()
    assert fit.to_json(ddf="none") == fit.to_json()
    pd.testing.assert_frame_equal(fit.to_table(ddf="none"), fit.to_table())
    with pytest.raises(EffectError, match="ddf must be one of"):
        fit.summary(ddf="nonsense")


def test_degrees_of_freedom_are_of_coefficients(apart, joint):
    """Effects of mediate take them, those of piecewise are shown without."""
    found = apart.sections(ddf="satterthwaite")
    pd.testing.assert_frame_equal(found["fixef"], apart.fixef(ddf="satterthwaite"))
    assert np.isfinite(found["fixef"]["df"]).all()
    pd.testing.assert_frame_equal(found["effects"], apart.effects())
    assert len(apart.to_table(ddf="satterthwaite")) == len(apart.to_table())
    assert json.loads(apart.to_json(ddf="satterthwaite"))["ddf"] == "satterthwaite"
    effects, usual = (apart.summary(**given).partition("Effects (")[2] for given in ({"ddf": "residual"}, {}))
    assert effects == usual
    both = joint.sections(ddf="satterthwaite")
    pd.testing.assert_frame_equal(both["effects"], joint.effects(ddf="satterthwaite"))


def test_degrees_of_freedom_need_coefficients_of_mixed_models(logit, between):
    with pytest.raises(EffectError, match=r"summary of mlmed\.causal does not show"):
        logit.summary(ddf="residual")
    for fit in (logit, between):
        with pytest.raises(EffectError, match="is for linear mixed models; this is an ordinary regression"):
            fit.sections(ddf="residual")


def test_one_p_value_per_coefficient(logit, between):
    """A bare coefficient has the t test of its table; what is more than that is normal."""
    for fit in (logit, between, logit.mediator, between.mediator, logit.outcome):
        table = fit.fixef().set_index("term")
        for term in table.index:
            columns = ["std_error", "statistic", "df", "p_value", "conf_low", "conf_high"]
            found = fit.nlcom(f"`{term}`")[columns].iloc[0].astype(float)
            np.testing.assert_allclose(found, table.loc[term, columns].astype(float), rtol=1e-10)
    row = logit.nlcom({"own": "Med~treated", "twice": "2 * Med~treated"}).set_index("term")
    statistic = row.loc["own", "statistic"]
    assert row.loc["own", "p_value"] == pytest.approx(2.0 * student.sf(abs(statistic), 998), rel=1e-10)
    assert row.loc["twice", "p_value"] == pytest.approx(2.0 * norm.sf(abs(statistic)), rel=1e-8)
    assert logit.combined("Med~treated")["p_value"].item() == pytest.approx(row.loc["own", "p_value"], rel=1e-12)


# -- documents ---------------------------------------------------------------------------------------------------


def test_documents_say_the_contrast_and_the_criteria(df, joint, apart, logit, one, scale):
    for fit in (joint, apart, logit, one, scale):
        found = json.loads(fit.to_json())
        assert [found["aic"], found["bic"]] == pytest.approx([fit.aic, fit.bic], rel=1e-12)
    for school in (mlmed.mediate, mlmed.piecewise):
        fit = school("Med ~ arm + (1 | group)", "y ~ Med + arm + (1 | group)", df, treatment="arm", contrast=("a", "c"))
        assert json.loads(fit.to_json())["contrast"] == ["a", "c"]
    assert json.loads(joint.to_json())["contrast"] is None


def test_document_of_a_sensitivity_analysis(df):
    result = mlmed.causal("Med ~ X", "y ~ Med + X", df).sensitivity(rho=[0.0, 0.3], n=50, seed=1)
    found = json.loads(result.to_json())
    assert (found["schema"], found["school"], found["interval"]) == ("mlmed/1", "causal", "monte-carlo")
    assert found["options"] == {"n": 50, "seed": 1}
    assert [row["estimate"] for row in found["sensitivity"]] == result.table["estimate"].tolist()
    assert [row["term"] for row in found["zero"]] == list(result.terms)
