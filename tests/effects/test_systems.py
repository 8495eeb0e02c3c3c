"""Systems of equations: every route, its effect by the normal moments, and the sum of all."""

from __future__ import annotations

import itertools

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.quantity import mean_product
from mlmed.errors import DroppedRowsWarning, EffectError, FormulaError
from mlmed.system.graph import find_cycle, routes_between
from tests.models import SERIAL, dense_loglik, serial_data
from tests.tolerances import DENSE, OPTIMUM, SAME

pytestmark = pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
#: Analytic gradients of effects of size 1 against numdifftools.
GRADIENT = 1e-7


@pytest.fixture(scope="module")
def serial():
    return mlmed.mediate(*SERIAL, serial_data(), treatment="x")


# -- routes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_routes_are_all_routes(seed):
    """Against every sequence of nodes, kept if all its steps are arrows."""
    rng = np.random.default_rng(seed)
    inner = [f"m{k}" for k in range(int(rng.integers(1, 6)))]
    order = ["x", *rng.permutation(inner), "y"]
    sources = {end: [start for start in order[:k] if rng.random() < 0.6] for k, end in enumerate(order) if k}
    shuffled = {end: sources[end] for end in rng.permutation(list(sources))}
    ways = (("x", *way, "y") for r in range(len(inner) + 1) for way in itertools.permutations(inner, r))
    every = {way for way in ways if all(start in sources[end] for start, end in itertools.pairwise(way))}
    found = routes_between(shuffled, "x", "y")
    assert set(found) == every
    assert len(found) == len(every)
    assert [len(way) for way in found] == sorted(len(way) for way in found)


def test_a_cycle_is_named_in_the_direction_of_its_arrows():
    sources = {"m1": ["x", "m3"], "m2": ["m1"], "m3": ["m2"], "y": ["m3"]}
    cycle = find_cycle(sources)
    assert cycle[0] == cycle[-1]
    assert set(cycle) == {"m1", "m2", "m3"}
    assert all(start in sources[end] for start, end in itertools.pairwise(cycle))


def test_too_many_routes_are_refused():
    nodes = ["x", *(f"m{k}" for k in range(14)), "y"]
    with pytest.raises(FormulaError, match="more than 2000 routes lead from x to"):
        routes_between({end: nodes[:k] for k, end in enumerate(nodes) if k}, "x", "y")


@pytest.mark.parametrize(
    ("mediators", "outcome", "message"),
    [
        (["m1 ~ x + m2 + (1 | id)", "m2 ~ m1 + (1 | id)"], "y ~ m1 + m2 + (1 | id)", "m[12] -> m[12] -> m[12]"),
        (["m1 ~ x + (1 | id)", "m2 ~ x + y + (1 | id)"], "y ~ m1 + m2 + (1 | id)", "outcome y is a predictor of .* m2"),
        (["m1 ~ x + (1 | id)", "m2 ~ x + (1 | id)"], "y ~ m1 + x + (1 | id)", "m2 is not in the fixed part"),
        (["m1 ~ x + (1 | id)", "m2 ~ x + z + (1 | id)"], "y ~ m1 + m2 + (1 | id)", "which variable is .* x, z"),
        (["m1 ~ x + (1 | id)", "m1 ~ x + (1 + x | id)"], "y ~ m1 + (1 | id)", "same response"),
        ([], "y ~ m1 + (1 | id)", "no formula was given"),
    ],
)  # fmt: skip
def test_systems_that_are_none_are_refused(mediators, outcome, message):
    data = serial_data(10, 5).assign(z=lambda d: d.x**2)
    with pytest.raises(FormulaError, match=message):
        mlmed.mediate(mediators, outcome, data)


# -- moments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3, 4])
def test_mean_of_a_product_is_that_of_draws(k):
    """1e7 draws; five standard errors of their mean."""
    rng = np.random.default_rng(k)
    mean, root = rng.normal(size=k), np.tril(rng.normal(size=(k, k))) * 0.7
    G = root @ root.T
    found = mean_product(
        [np.array([s]) for s in mean], {(i, j): np.array([G[i, j]]) for i in range(k) for j in range(i + 1, k)}
    )
    total, square, n = 0.0, 0.0, 10_000_000
    for _ in range(20):
        products = np.prod(mean + rng.normal(size=(n // 20, k)) @ root.T, axis=1)
        total, square = total + products.sum(), square + (products**2).sum()
    error = np.sqrt((square / n - (total / n) ** 2) / n)
    assert abs(found[0] - total / n) < 5.0 * error
    assert error < 0.02 * (1.0 + abs(found[0]))


# -- effects ---------------------------------------------------------------------------------------------------


def moments(fit, psi):
    """All effects of the serial system from named parameters, written out (three slopes: a d b + ...)."""
    v = dict(zip(fit.names, psi, strict=True))
    a1, a2, d, b1, b2, c = (v[name] for name in ("m1~x", "m2~x", "m2~m1", "y~m1", "y~m2", "y~x"))
    ad, ab1, ab2, db2 = (v[f"cov({one})"] for one in ("m1~x,m2~m1", "m1~x,y~m1", "m1~x,y~m2", "m2~m1,y~m2"))
    way1, way2, way12 = a1 * b1 + ab1, a2 * b2, a1 * d * b2 + a1 * db2 + d * ab2 + b2 * ad
    return {
        "a[m1]": a1, "a[m2]": a2, "d[m1,m2]": d, "b[m1]": b1, "b[m2]": b2, "cprime": c, "cov(a[m1],d[m1,m2])": ad,
        "cov(a[m1],b[m1])": ab1, "cov(a[m1],b[m2])": ab2, "cov(d[m1,m2],b[m2])": db2, "indirect[m1]": way1,
        "indirect[m2]": way2, "indirect[m1,m2]": way12, "indirect": way1 + way2 + way12, "direct": c,
        "total": way1 + way2 + way12 + c,
    }  # fmt: skip


def test_effects_and_their_errors_are_those_of_the_formula(serial):
    expected, table = moments(serial, serial.fit.psi), serial.effects(order="first", vcov="joint").set_index("term")
    assert list(table.index) == list(expected)
    np.testing.assert_allclose(table["estimate"], list(expected.values()), rtol=SAME)
    V = serial.vcov("joint").to_numpy()
    for term in ("indirect[m1,m2]", "indirect", "total"):
        g = nd.Gradient(lambda psi, term=term: moments(serial, psi)[term])(serial.fit.psi)
        assert table["std_error"][term] == pytest.approx(float(np.sqrt(g @ V @ g)), rel=GRADIENT)


def test_the_engine_has_the_density_of_all_rows_together():
    """REML at its optimum, from the covariance matrix of all responses."""
    data = serial_data(12, 6, seed=2)
    fit = mlmed.mediate(*SERIAL, data, treatment="x")
    X, Z, y, residual = [], [], [], []
    fixed, random = [["x"], ["m1", "x"], ["m1", "m2", "x"]], [["x"], ["m1"], ["m1", "m2"]]
    for r, response in enumerate(["m1", "m2", "y"]):
        for blocks, columns in ((X, fixed), (Z, random)):
            own = np.column_stack([np.ones(len(data)), data[columns[r]]])
            parts = [own if k == r else np.zeros((len(data), len(columns[k]) + 1)) for k in range(3)]
            blocks.append(np.hstack(parts))
        y.append(data[response].to_numpy())
        residual.append(np.full(len(data), fit.sigma2[response]))
    codes = np.tile(data["id"].to_numpy(), 3)
    arrays = np.vstack(X), np.vstack(Z), np.concatenate(y), codes, fit.G.to_numpy(), np.concatenate(residual)
    assert fit.llf == pytest.approx(dense_loglik(*arrays, reml=True), rel=DENSE)
    same = mlmed.mixed([*SERIAL[0], SERIAL[1]], data)  # no shared blocks there unless labelled
    assert same.llf <= fit.llf + OPTIMUM


@pytest.mark.parametrize("seed", range(6))
def test_total_effects_are_those_of_the_reduced_form(seed):
    """Without random slopes the total effect is that of x in (I - B)^-1 A, for any acyclic system."""
    rng = np.random.default_rng(seed)
    J, n, k = 30, 6, 4
    codes = np.repeat(np.arange(J), n)
    data = pd.DataFrame({"id": codes, "x": rng.normal(size=J * n), "z": rng.normal(size=J * n)})
    names, formulas = [f"m{i}" for i in range(k - 1)] + ["y"], []
    for i, name in enumerate(names):
        before = [one for one in names[:i] if rng.random() < 0.7 or name == "y"] + ["x", "z"]
        data[name] = data[before] @ rng.uniform(-1, 1, len(before)) + rng.normal(size=J)[codes] + rng.normal(size=J * n)
        formulas.append(f"{name} ~ {' + '.join(before)} + (1 | id)")
    order = rng.permutation(k - 1)
    fit = mlmed.mediate([formulas[i] for i in order], formulas[-1], data, treatment="z", covariance="diagonal")
    B, A = np.zeros((k, k)), np.zeros(k)
    for i, name in enumerate(names):
        A[i] = fit.params[f"{name}~z"]
        B[i] = [fit.params.get(f"{name}~{one}", 0.0) for one in names]
    table = fit.effects().set_index("term")["estimate"]
    total = np.linalg.solve(np.eye(k) - B, A)[-1]
    assert table["total"] == pytest.approx(total, rel=SAME)
    assert fit.paths()["estimate"].sum() == pytest.approx(total, rel=SAME)


def test_treatment_chooses_the_routes():
    data = serial_data(30, 8).assign(z=np.random.default_rng(0).normal(size=240))
    system = ["m1 ~ x + (1 | id)", "m2 ~ z + (1 | id)"], "y ~ m1 + m2 + x + (1 | id)"
    by_x, by_z = (mlmed.mediate(*system, data, treatment=name) for name in "xz")
    assert by_x.llf == by_z.llf
    assert list(by_x.paths()["route"]) == ["x -> m1 -> y", "x -> y"]
    assert list(by_z.paths()["route"]) == ["z -> m2 -> y", "z -> y"]
    direct = by_z.effects().set_index("term").loc["direct"]
    assert direct["estimate"] == 0.0
    assert direct["note"] == "fixed at 0: the treatment is not in the outcome equation"
    through = mlmed.mediate(["m1 ~ x + (1 | id)", "m2 ~ m1 + (1 | id)"], SERIAL[1], data, treatment="m1")
    assert list(through.paths()["route"]) == ["m1 -> m2 -> y", "m1 -> y"]


def test_one_mediator_in_a_list_is_that_mediator():
    data, formulas = serial_data(30, 8), ("m1 ~ x + (1 + x | id)", "y ~ m1 + x + (1 + m1 | id)")
    alone, listed = (mlmed.mediate(first, formulas[1], data).effects() for first in (formulas[0], [formulas[0]]))
    pd.testing.assert_frame_equal(alone, listed)
    assert list(alone["term"]) == ["a", "b", "cprime", "cov_ab", "indirect", "direct", "total"]


def test_differences_of_routes_are_contrasts(serial):
    table = serial.paths(differences="pairwise").set_index("term")
    contrast = serial.nlcom("indirect[m1] - indirect[m1,m2]").iloc[0]
    row = table.loc["indirect[m1] - indirect[m1,m2]"]
    for column in ("estimate", "std_error", "conf_low", "conf_high"):
        assert row[column] == pytest.approx(contrast[column], rel=SAME)
    assert row["route"] == ""
    assert len(table) == 3 + 1 + 3
    assert table.loc["indirect[m1,m2]", "slopes"] == "a[m1] d[m1,m2] b[m2]"


@pytest.mark.parametrize(
    "options",
    [
        {"interval": "monte-carlo", "n": 2000, "seed": 1},
        {"interval": "bootstrap", "n": 50, "seed": 1, "kind": "parametric"},
        {"interval": "delta", "ddf": "satterthwaite"},
    ],
    ids=lambda options: options["interval"],
)
def test_every_interval_has_the_routes(serial, options):
    table = serial.paths(differences="pairwise", **options)
    assert np.isfinite(table[["estimate", "conf_low", "conf_high"]].to_numpy()).all()
    effects = serial.effects(**options).set_index("term")
    np.testing.assert_allclose(table["conf_low"][:4], effects["conf_low"][table["term"][:4]], rtol=1e-6)


def test_profile_of_a_route(serial):
    """At each end the log-likelihood is 1.92 below the optimum, with the route at that value."""
    found = serial.profile("indirect[m1,m2]")
    for end in found.ends:
        assert end.drop == pytest.approx(3.841458820694124, rel=1e-6)
        assert moments(serial, end.psi)["indirect[m1,m2]"] == pytest.approx(end.value, rel=1e-6)


def test_moderators_of_any_arrow_are_held():
    data = serial_data(40, 8).assign(w=np.random.default_rng(3).normal(size=320))
    fit = mlmed.mediate(["m1 ~ x + (1 + x | id)", "m2 ~ m1 * w + x + (1 + m1 | id)"], SERIAL[1], data, treatment="x")
    table = fit.effects(at={"w": 1.0}).set_index("term")
    assert table["estimate"]["d[m1,m2]"] == pytest.approx(fit.params["m2~m1"] + fit.params["m2~m1:w"], rel=SAME)
    held = table["note"].str.contains("at w = 1")
    assert list(table.index[held]) == ["d[m1,m2]", "indirect[m1,m2]", "indirect", "total"]
    for name, message in (
        ("m1", "a mediator"),
        ("x", "the treatment"),
        ("u", "no equation uses"),
        ("y", "the outcome"),
    ):
        with pytest.raises(EffectError, match=message):
            fit.effects(at={name: 1.0})


def test_interactions_of_mediators_are_no_products_of_slopes():
    data = serial_data(30, 8)
    fit = mlmed.mediate(SERIAL[0], "y ~ m1 * m2 + x + (1 | id)", data, treatment="x")
    assert "outcome equation has the term m1:m2: the effect of m1 depends on m2" in fit.effects_reason
    with pytest.raises(EffectError, match="m1:m2"):
        fit.effects()


def test_rows_that_miss_one_response_stay_in_the_other_equations():
    data = serial_data(30, 8)
    data.loc[data.index % 7 == 0, "m2"] = np.nan
    with pytest.warns(DroppedRowsWarning, match="equation m2: 35 of 240 rows left out"):
        fit = mlmed.mediate(*SERIAL, data, treatment="x")
    assert fit.nobs == 240 + 2 * int(data["m2"].notna().sum())
    assert fit.converged


def test_transformed_mediators_must_be_the_same_everywhere():
    data = serial_data(30, 8).assign(m1=lambda d: np.exp(d.m1 / 4))
    good = ["np.log(m1) ~ x + (1 | id)", "m2 ~ np.log(m1) + x + (1 | id)"], "y ~ np.log(m1) + m2 + x + (1 | id)"
    fit = mlmed.mediate(*good, data, treatment="x")
    assert "d[np.log(m1),m2]" in set(fit.effects()["term"])
    mixed = mlmed.mediate([good[0][0], "m2 ~ m1 + x + (1 | id)"], good[1], data, treatment="x")
    assert "m1 beside the mediator np.log(m1)" in mixed.effects_reason
