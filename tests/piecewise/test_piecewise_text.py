"""Joint fits, text and export of separate equations."""

from __future__ import annotations

import html
import json
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.api.piecewise import piecewise
from mlmed.effects.delta import COLUMNS
from mlmed.errors import EffectError
from mlmed.fit.glm import PlainFit
from mlmed.fit.names import parameter_names
from mlmed.options import PIECEWISE_INTERVALS, ROBUST_KINDS
from tests.piecewise_models import MEDIATOR, OUTCOME, estimates
from tests.tolerances import SAME


def test_joint_is_mediate(data, fit, upper):
    joint = mlmed.mediate(MEDIATOR, OUTCOME, data)
    assert fit.joint().llf == pytest.approx(joint.llf, rel=SAME)
    with pytest.raises(EffectError, match="mediator q is a variable of the clusters"):
        upper.joint()


def test_remarks(data, yuan, fit):
    """What a*b leaves out is said where it matters, and only there."""
    note = {
        name: one.effects().set_index("term").loc["indirect", "note"] for name, one in (("both", yuan), ("none", fit))
    }
    assert "cov(a_j, b_j)" in note["both"]
    assert note["none"] == ""
    assert "cov(a_j, b_j)" in yuan.summary()
    assert "cov(a_j," in yuan.summary("stata")
    blend = piecewise("m ~ z + (1 | id)", "y ~ m + z + (1 | id)", data)
    assert "blends its effects" in blend.effects().set_index("term").loc["indirect", "note"]


@pytest.mark.parametrize(
    ("mediator", "outcome", "covariance", "tied"),
    [
        ("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m | id)", "unstructured", True),
        ("m ~ x + (1 + x || id)", "y ~ m + x + (1 + m | id)", "unstructured", False),
        ("m ~ x + (1 + x |p| id)", "y ~ m + x + (1 + m |q| id)", "unstructured", False),
        ("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m | id)", "diagonal", False),
        ("m ~ x + (1 | id) + (0 + x |p| id)", "y ~ m + x + (1 + m | id)", "unstructured", False),
    ],
)
def test_the_joint_fit_is_offered_where_it_helps(data, mediator, outcome, covariance, tied):
    """joint() estimates cov(a_j, b_j) exactly where the note says so."""
    varied = data.assign(m=data["m"] + data["w"] * data["x"], y=data["y"] + data["q"] * data["m"])
    fit = piecewise(mediator, outcome, varied, covariance=covariance)
    said = fit.effects().set_index("term").loc["indirect", "note"]
    cov_ab = fit.joint().effects().set_index("term").loc["cov_ab"]
    assert ("joint() has it" in said) == tied
    assert ("joint() would hold it at 0" in said) != tied
    assert (cov_ab["estimate"] != 0.0) == tied


def test_a_response_with_the_name_reduced(data):
    """The parameters of the third equation keep names of their own."""
    fit = piecewise(MEDIATOR, "reduced ~ m + x + (1 | id)", data.rename(columns={"y": "reduced"}))
    assert len(set(fit.names)) == len(fit.names)
    assert fit.nlcom("`reduced~x`").iloc[0]["estimate"] == pytest.approx(fit.outcome.params["x"], rel=SAME)
    assert fit.nlcom("`reduced_~x`").iloc[0]["estimate"] == pytest.approx(fit.reduced.params["x"], rel=SAME)


@pytest.mark.parametrize("kind", ROBUST_KINDS)
def test_one_cluster_alone_gives_a_coefficient(upper, data, kind):
    """That coefficient has no robust error; the others have those without the cluster, which moves nothing else."""
    lonely = data.assign(k=1.0 * (data["id"] == 3))
    fit = piecewise("q ~ z + k", "y ~ q + z + k + (1 | id)", lonely, treatment="z")
    table = fit.mediator.fixef(vcov=kind).set_index("term")
    assert np.isnan(table.loc["k", ["std_error", "p_value", "conf_low", "conf_high"]].astype(float)).all()
    assert "without cluster 3 (id) it cannot be estimated" in table.loc["k", "note"]
    assert (table["df"] == fit.mediator.fit.df).all()
    assert (table["note"].drop("k") == "").all()
    others = piecewise("q ~ z", "y ~ q + z + (1 | id)", data[data["id"] != 3], treatment="z")
    J = fit.mediator.nobs
    factor = J / (J - 1) * (J - 2) / (J - 1) if kind in ("CR1", "cluster") else 1.0
    expected = factor * others.mediator.vcov(kind)
    np.testing.assert_allclose(fit.mediator.vcov(kind).drop("k").drop(columns="k"), expected, rtol=SAME)
    assert fit.effects(vcov=kind)["std_error"].notna().sum() == upper.effects()["std_error"].notna().sum()
    assert "cluster 3 (id)" in fit.nlcom("`q~k` + `q~z`", vcov=kind).iloc[0]["note"]


def test_stata_names(yuan, upper):
    """The seven numbers under the names of ml_mediation, and its quotients."""
    lines = dict(line.split(" = ") for line in yuan.summary("stata").splitlines() if " = " in line)
    shown = {name.strip(): value for name, value in lines.items()}
    names = ["c_path", "a_path", "b_path", "c_prime", "ind_eff", "dir_eff", "tot_eff"]
    assert list(shown)[:7] == names
    found = estimates(yuan)
    for name, term in zip(names, ("c", "a", "b", "cprime", "indirect", "direct", "total"), strict=True):
        assert float(shown[name].split()[0]) == pytest.approx(found[term], abs=5e-8)
    assert shown["c_prime"].endswith("same as dir_eff")
    assert float(shown["proportion of total effect mediated"]) == pytest.approx(found["prop_mediated"], abs=5e-8)
    assert float(shown["ratio of indirect to direct effect"]) == pytest.approx(found["ratio"], abs=5e-8)
    text = upper.summary("stata")
    assert "mv q: level 2" in text
    assert "dv y: level 1" in text
    assert "least squares on one row per cluster" in text
    assert max(map(len, text.splitlines())) <= 78
    with pytest.raises(EffectError, match="style must be"):
        yuan.summary("spss")
    with pytest.raises(EffectError, match="leave out vcov"):
        yuan.summary("stata", vcov="CR2")


def test_text(upper):
    text = str(upper)
    assert text == upper.summary()
    assert html.unescape(upper._repr_html_()) == f"<pre>{text}</pre>"
    assert "Multilevel mediation, separate equations: z -> q -> y" in text
    assert "delta method, second order" in text
    assert "90% intervals; CR2" in upper.summary(vcov="CR2", level=0.9)
    assert max(map(len, text.splitlines())) <= 100
    own = str(upper.mediator)
    assert own.startswith("Least squares on one row per cluster: q")
    assert html.unescape(upper.mediator._repr_html_()) == f"<pre>{own}</pre>"


def test_export(fit, upper):
    for one in (fit, upper):
        document = json.loads(one.to_json(vcov="CR0", level=0.9))
        assert document["schema"] == "mlmed/1"
        assert document["design"] == one.design
        row = next(row for row in document["effects"] if row["term"] == "c_minus_cprime")
        assert row["std_error"] is None
        assert "bootstrap" in row["note"]
        assert list(document["components"]) == ["mediator", "outcome", "reduced"]
        assert [row["term"] for row in document["fixef"]] == list(one.params.index)
        tidy = one.tidy()
        assert list(tidy["term"]) == one.names
        assert list(tidy.columns) == list(fit.outcome.tidy().columns)
        parts = pd.concat([part.tidy() for part in (one.mediator, one.outcome, one.reduced)], ignore_index=True)
        pd.testing.assert_frame_equal(tidy.drop(columns="term"), parts.drop(columns="term"))
    assert list(fit.names[:5]) == [*parameter_names(fit.mediator.fit, called=True)[:4], "y~Intercept"]


def test_what_comes_with_the_system(fit, upper):
    """Standard deviations and correlations of all components, each with the name of its equation."""
    for one in (fit, upper):
        found = one.sdcor()
        parts = [part.sdcor() for part in (one.mediator, one.outcome, one.reduced) if part.fit.kind != PlainFit.kind]
        expected = pd.concat(parts, ignore_index=True)
        pd.testing.assert_frame_equal(found.drop(columns="term"), expected.drop(columns="term"))
        name = str(found["term"].iloc[-1])
        assert name == "sd(reduced~Residual)"
        row = one.nlcom(f"`{name}`").iloc[0]
        assert row["std_error"] == pytest.approx(found["std_error"].iloc[-1], rel=SAME)
    assert one.glance().loc[0, "n_clusters"] == 40
    assert abs(fit.outcome.check_starts(2, seed=1)["difference"]).max() < 1e-6
    with pytest.raises(EffectError, match=r"ranef belongs to a linear mixed model.*as in fit\.mediator\.ranef"):
        fit.ranef()
    assert "ranef" not in dir(fit)
    assert "sobel" in dir(fit)
    assert "sobel" not in dir(fit.outcome)
    with pytest.raises(EffectError, match=r"sobel belongs to mlmed\.piecewise"):
        fit.outcome.sobel()
    with pytest.raises(EffectError, match="separate equations draw whole clusters"):
        fit.bootstrap(2, seed=1, kind="parametric")


def test_comparable(fit, upper):
    shared = mlmed.mediate(MEDIATOR, OUTCOME, fit.fit.table)
    for one in (fit, upper):
        table = one.comparable(level=0.9)
        assert tuple(table.columns) == COLUMNS
        assert table["term"].is_unique
    both = set(fit.comparable()["term"]) & set(shared.comparable()["term"])
    assert {"a", "b", "cprime", "indirect", "direct", "total", "m~x", "y~m", "var(m~Intercept)"} <= both
    assert (fit.label, upper.label) == ("piecewise REML", "piecewise REML")
    row = fit.combined("`m~x` * `y~m`").iloc[0]
    assert row["std_error"] == pytest.approx(fit.effects().set_index("term").loc["indirect", "std_error"], rel=1e-9)


def test_pickle_has_no_rows(fit, upper):
    for one in (fit, upper):
        again = pickle.loads(pickle.dumps(one))
        assert again.fit.table is None
        pd.testing.assert_frame_equal(again.effects(), one.effects())
        pd.testing.assert_frame_equal(again.bootstrap(2, seed=1).draws, one.bootstrap(2, seed=1).draws)
        with pytest.raises(EffectError, match="has no rows"):
            again.bootstrap(2, seed=1, strata="z")
    with pytest.raises(EffectError, match="has no rows"):
        pickle.loads(pickle.dumps(fit)).joint()


def test_results_are_frozen(fit):
    with pytest.raises(AttributeError):
        fit.fit = None
    assert replace(fit, fit=replace(fit.fit, table=None)).effects().equals(fit.effects())
    assert PIECEWISE_INTERVALS == ("delta", "monte-carlo", "product", "bootstrap")


def test_joint_refuses_rows_that_were_changed() -> None:
    """The same equations on other rows would be another analysis."""
    changed = mlmed.simulate.bpg(30, 6, seed=4).data
    found = mlmed.piecewise(MEDIATOR, OUTCOME, changed)
    changed.loc[0, "m"] += 1.0
    with pytest.raises(EffectError, match="changed after the fit"):
        found.joint()


def test_quotients_of_draws_with_both_signs_say_so() -> None:
    """The total effect is close to 0, so shares of it have no spread to speak of."""
    truth = mlmed.simulate.BPGTruth(cprime=-0.36).with_cov_ab(0.0)
    found = mlmed.piecewise(MEDIATOR, OUTCOME, mlmed.simulate.bpg(30, 6, truth=truth, seed=4).data)
    table = found.bootstrap(60, seed=1).tidy().set_index("term")["note"]
    assert "both signs" in table["prop_mediated"]
    assert "look at total itself" in table["prop_mediated"]
    assert "both signs" not in table["indirect"]
