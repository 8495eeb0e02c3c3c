"""Intervals as values: the same as their names with options, everywhere a name is taken."""

import json
import rlcompleter

import pandas as pd
import pytest

import mlmed
from mlmed.errors import EffectError, UnavailableError

FORMULAS = "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"


@pytest.fixture(scope="module")
def fits():
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    return {
        "mixed": mlmed.mixed(FORMULAS[0], data),
        "mediate": mlmed.mediate(*FORMULAS, data),
        "piecewise": mlmed.piecewise(*FORMULAS, data),
        "causal": mlmed.causal(*FORMULAS, data),
        "location_scale": mlmed.location_scale("Med ~ X + (1 | group)", "~ X + (1 | group)", data),
    }


VALUES = {
    "delta": (mlmed.Delta(vcov="joint"), {"vcov": "joint"}),
    "monte-carlo": (mlmed.MonteCarlo(seed=1), {"seed": 1}),
    "product": (mlmed.Product(vcov="CR0"), {"vcov": "CR0"}),
    "profile": (mlmed.Profile(), {}),
    "bootstrap": (mlmed.Bootstrap(n=20, ends="basic", seed=1), {"n": 20, "ends": "basic", "seed": 1}),
}
PAIRS = [("mediate", name) for name in ("delta", "monte-carlo", "profile", "bootstrap")] + [
    ("piecewise", "product"),
    ("piecewise", "bootstrap"),
    ("causal", "monte-carlo"),
    ("location_scale", "delta"),
]


@pytest.mark.parametrize(("school", "name"), PAIRS)
def test_a_value_is_its_name_with_its_options(fits, school, name):
    fit, (value, options) = fits[school], VALUES[name]
    pd.testing.assert_frame_equal(fit.effects(value), fit.effects(name, **options))
    said, asked = json.loads(fit.to_json(interval=value)), json.loads(fit.to_json(interval=name, **options))
    assert said == asked
    assert fit.summary(interval=value) == fit.summary(interval=name, **options)
    assert fit.to_table(interval=value).equals(fit.to_table(interval=name, **options))


def test_a_value_says_what_it_cannot_be():
    for make, words in (
        (lambda: mlmed.Delta(order="third"), "order must be one of"),
        (lambda: mlmed.MonteCarlo(n=100), "seed"),
        (lambda: mlmed.Bootstrap(kind="foo", seed=1), "kind must be one of"),
    ):
        with pytest.raises(EffectError, match=words):
            make()


def test_an_option_is_given_once_and_used(fits):
    with pytest.raises(EffectError, match="has its own options; give vcov to it"):
        fits["mediate"].summary(interval=mlmed.Delta(vcov="joint"), vcov="CR2")
    with pytest.raises(EffectError, match="does not use order"):
        fits["causal"].effects(mlmed.Delta(order="second"))
    shown = " ".join(fits["causal"].summary(interval=mlmed.Delta(vcov="CR2")).split())
    assert "vcov CR2" in shown


def test_what_a_fit_has_not_is_no_attribute(fits):
    """Tab completion, ``hasattr`` and ``getattr`` with a default ask for every name of the class."""
    for fit in fits.values():
        assert rlcompleter.Completer({"fit": fit}).attr_matches("fit.")
        assert not hasattr(fit, "no_such_name")
    assert not hasattr(fits["mediate"], "design")
    assert getattr(fits["mixed"], "treatment", None) is None
    with pytest.raises(UnavailableError, match=r"mlmed\.piecewise"):
        _ = fits["mediate"].design
