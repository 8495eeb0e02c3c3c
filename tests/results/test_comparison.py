"""Several fits, the truth and published numbers in one table and one picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import EffectError
from mlmed.results.comparison import Comparison
from tests.tolerances import SAME

MEDIATOR, OUTCOME = "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return mlmed.datasets.load("yuan_mackinnon_sim")


@pytest.fixture(scope="module")
def joint(data: pd.DataFrame) -> mlmed.Results:
    return mlmed.mediate(MEDIATOR, OUTCOME, data)


@pytest.fixture(scope="module")
def everything(data: pd.DataFrame, joint: mlmed.Results) -> Comparison:
    """Every school on one data set, with the truth and two published columns."""
    return mlmed.compare(
        joint,
        mlmed.mediate(MEDIATOR, OUTCOME, data, method="ml"),
        mlmed.piecewise(MEDIATOR, OUTCOME, data),
        mlmed.causal(MEDIATOR, OUTCOME, data),
        truth={"a": 0.2, "b": -0.2, "indirect": -0.14, "total": 0.16},
        published={
            "brms": {"indirect": ("-.13", ".08")},
            "Stan": {"indirect": {"estimate": -0.115, "std_error": 0.067}},
        },
    )


def test_published_and_reached(everything: Comparison) -> None:
    """The indirect effect of every school, as it is known (docs/why_ab_is_biased.md)."""
    row = everything.table.loc["indirect"]
    assert row["joint REML"] == pytest.approx(-0.12762, abs=5e-6)
    assert row["piecewise REML"] == pytest.approx(-0.0341, abs=5e-5)
    assert row["potential outcomes"] == pytest.approx(-0.115, abs=1e-3)
    assert (row["truth"], row["brms"], row["Stan"]) == (-0.14, -0.13, -0.115)
    assert everything.std_errors.loc["indirect", "brms"] == 0.08


def test_columns_and_rows_are_in_order(everything: Comparison) -> None:
    assert everything.sources[:3] == ("truth", "brms", "Stan")
    assert everything.sources[3:] == ("joint REML", "joint ML", "piecewise REML", "potential outcomes")
    assert everything.terms[:7] == ("a", "b", "cprime", "cov_ab", "indirect", "direct", "total")
    assert list(everything.table.index) == list(everything.terms)
    assert everything.long.groupby(["term", "source"]).size().max() == 1


def test_terms_mean_the_same_in_every_school(everything: Comparison, data: pd.DataFrame) -> None:
    """Separate equations have the parameters of separate mixed fits, under the names of the joint one."""
    single = mlmed.mixed(OUTCOME, data)
    column = everything.table["piecewise REML"]
    assert column["y~Med"] == pytest.approx(single.params["Med"], rel=SAME)
    assert column["var(y~Med)"] == pytest.approx(single.G.loc["Med", "Med"], rel=SAME)
    assert column["var(y~Residual)"] == pytest.approx(single.sigma2.iloc[0], rel=SAME)
    assert np.isnan(everything.table.loc["cov(Med~X,y~Med)", "piecewise REML"])


def test_expressions_and_single_equations(joint: mlmed.Results, data: pd.DataFrame) -> None:
    """A label for an expression; every fit that has the names evaluates it."""
    single = mlmed.mixed(MEDIATOR, data)
    found = mlmed.compare(joint, single, terms={"sd of a_j": "sqrt(var(Med~X))", "indirect": "indirect"})
    assert list(found.table.index) == ["sd of a_j", "indirect"]
    assert found.table.loc["sd of a_j"].tolist() == pytest.approx([0.8008, 0.8009], abs=5e-5)
    expected = single.nlcom("sqrt(var(X))")["std_error"].iloc[0]
    assert found.std_errors.loc["sd of a_j", "mixed REML"] == pytest.approx(expected, rel=SAME)
    assert np.isnan(found.table.loc["indirect", "mixed REML"])


def test_differences(everything: Comparison, joint: mlmed.Results) -> None:
    below = everything.differences().loc["indirect"]
    assert "truth" not in below.index
    assert below["joint REML"] == pytest.approx(joint.effects().set_index("term").loc["indirect", "estimate"] + 0.14)
    assert everything.differences("Stan").loc["indirect", "truth"] == pytest.approx(-0.025)
    with pytest.raises(EffectError, match="no source 'nobody'"):
        everything.differences("nobody")


def test_truth_of_simulated_data() -> None:
    sim = mlmed.simulate.bpg(40, 8, seed=3)
    fit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", sim.data)
    for truth in (sim, sim.truth):
        column = mlmed.compare(fit, truth=truth).table["truth"]
        assert column["indirect"] == pytest.approx(0.473)
        assert column["direct"] == column["cprime"] == 0.2


def test_names_of_columns(joint: mlmed.Results) -> None:
    """The same method twice is numbered; names can be given, and must be different."""
    assert mlmed.compare(joint, joint).sources == ("joint REML (1)", "joint REML (2)")
    assert mlmed.compare(joint, joint, names=["first", "second"]).sources == ("first", "second")
    for names in (["one"], ["same", "same"], "ab"):
        with pytest.raises(EffectError, match="names must be 2 different names"):
            mlmed.compare(joint, joint, names=names)
    for names, published in ((["truth"], None), (["x"], {"x": {"a": 1}})):
        with pytest.raises(EffectError, match="two columns"):
            mlmed.compare(joint, names=names, truth={"a": 1}, published=published)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truth": 3}, "truth must be a mapping"),
        ({"published": [1]}, "published is a mapping"),
        ({"published": {"page": 3}}, "page must be a mapping"),
        ({"published": {"page": {"a": "x"}}}, "not a number"),
        ({"published": {"page": {"a": (1, 2, 3)}}}, "pair"),
        ({"published": {"page": {"a": {"se": 1}}}}, "mapping with some of"),
        ({"terms": []}, "terms is empty"),
        ({"terms": ["indirekt"]}, "no fit has 'indirekt'.*known are"),
        ({"terms": "indirekt"}, "no fit has 'indirekt'"),
        ({"terms": {"x": "sqrt(var(Med~Y))"}}, r"no fit has 'sqrt\(var\(Med~Y\)\)': cannot read"),
        ({"level": 95}, "level must be a proportion"),
    ],
)
def test_what_cannot_be_compared(joint: mlmed.Results, options: dict, message: str) -> None:
    with pytest.raises(EffectError, match=message):
        mlmed.compare(joint, **options)


def test_only_fits() -> None:
    with pytest.raises(EffectError, match="at least one fit"):
        mlmed.compare()
    with pytest.raises(EffectError, match="found dict"):
        mlmed.compare({"a": 1})


def test_text_and_picture(everything: Comparison) -> None:
    """Every method is a line of the picture, every term a panel."""
    pytest.importorskip("matplotlib").use("Agg")
    text = str(everything)
    assert text.splitlines()[0] == "Comparison: estimates (standard errors)"
    assert "-0.12762 (0.0668)" in text
    assert "indirect, total (potential outcomes): about these 50 clusters only" in " ".join(text.split())
    assert text.count("joint() has it") == 1
    axes = everything.plot()
    titles = [ax.get_title() for ax in axes]
    assert titles == ["a", "b", "cprime", "cov_ab", "indirect", "total"]
    labels = [label.get_text() for label in axes[0].get_yticklabels()]
    assert labels == list(everything.sources[1:])
    assert len(everything.plot("indirect")) == 1
    with pytest.raises(EffectError, match="no term 'nothing'"):
        everything.plot("nothing")
    with pytest.raises(EffectError, match="no terms to draw"):
        everything.plot([])
    only_true = mlmed.compare(mlmed.mixed("y ~ x + (1 | id)", mlmed.simulate.bpg(20, 5, seed=1).data), truth={"a": 0.4})
    assert only_true.plot()[0].get_title() == "y~Intercept"  # a has a truth, but no estimate
    with pytest.raises(EffectError, match="no term 'a' to draw"):
        only_true.plot("a")
    import matplotlib.pyplot as plt

    plt.close("all")


def test_effects_that_a_model_does_not_define_say_why(data: pd.DataFrame) -> None:
    """An interaction of mediator and treatment: no numbers, and the reason of each fit as a note."""
    formulas = MEDIATOR, "y ~ Med*X + (1 + Med + X | group)"
    joint, separate = mlmed.mediate(*formulas, data), mlmed.piecewise(*formulas, data)
    found = mlmed.compare(joint, separate, mlmed.piecewise(MEDIATOR, OUTCOME, data), names=["j", "p", "plain"])
    assert found.table.loc["indirect", ["j", "p"]].isna().all()
    assert np.isfinite(found.table.loc["indirect", "plain"])
    notes = found.long[found.long["term"] == "indirect"].set_index("source")["note"]
    assert (notes["j"], notes["p"]) == (joint.effects_reason, separate.effects_reason)
    text = " ".join(str(found).split())
    assert joint.effects_reason in text
    assert "indirect, direct, total (j" in text
    assert "depends on X" in str(mlmed.compare(joint))


def test_the_picture_leaves_out_effects_without_numbers(data: pd.DataFrame) -> None:
    found = mlmed.compare(mlmed.mediate(MEDIATOR, "y ~ Med*X + (1 | group)", data))
    titles = [ax.get_title() for ax in found.plot()]
    assert titles
    assert not {"a", "indirect"} & set(titles)
    with pytest.raises(EffectError, match="no term 'indirect' to draw"):
        found.plot("indirect")
