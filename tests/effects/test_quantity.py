"""Arithmetic on quantities: derivatives against numdifftools, and the same functions on draws."""

from __future__ import annotations

import math
import operator
from itertools import combinations, product

import numdifftools as nd
import numpy as np
import pytest
from scipy import special

from mlmed.effects.catalogue import Effects
from mlmed.effects.delta import delta_table, std_error
from mlmed.effects.nlcom import combine
from mlmed.effects.paths import PathEffects
from mlmed.effects.potential import contrast_effects
from mlmed.effects.quantity import FUNCTIONS, Quantity, applied, mean_product
from mlmed.effects.separate import separate_effects
from mlmed.lmm.vcov import Directions, Vcov, stacked
from tests.tolerances import DERIVATIVE, SAME

AT = np.array([0.6, 0.35, 0.8, -0.2])
CONSTANT = 1.7
#: Short enough for roots and logarithms of these numbers.
STEPS = nd.MinStepGenerator(base_step=2e-3, step_ratio=2.0, num_steps=7)
OPERATIONS = {
    "a + b": lambda a, b: a + b,
    "number + a": lambda a, b: CONSTANT + a,
    "a - b": lambda a, b: a - b,
    "number - a": lambda a, b: CONSTANT - a,
    "a * b": lambda a, b: a * b,
    "number * a": lambda a, b: CONSTANT * a,
    "a / b": lambda a, b: a / b,
    "a / number": lambda a, b: a / CONSTANT,
    "number / a": lambda a, b: CONSTANT / a,
    "a ** number": lambda a, b: a**CONSTANT,
    "a ** 1": lambda a, b: a**1,
    "number ** a": lambda a, b: CONSTANT**a,
    "a ** b": lambda a, b: a**b,
    "-a": lambda a, b: -a,
    "all": lambda a, b: (a * b + 2.0 * a**2) / (1.0 - b) - -a / b,
}


def forms(at: np.ndarray = AT) -> list[Quantity]:
    """Each of the numbers as a quantity, and so in other parameters than themselves."""
    turn = np.array([[1.0, 0.5, 0.0, 0.0], [0.0, 1.0, 0.0, -1.0], [0.0, 0.0, 2.0, 0.0], [0.3, 0.0, 0.0, 1.0]])
    psi = np.linalg.solve(turn, at)
    return [Quantity("abcd"[k], float(row @ psi), row) for k, row in enumerate(turn)], turn, psi


def check(function, count: int = 2) -> None:
    """Value, gradient and Hessian of a function of plain numbers, against differences."""
    parts, turn, psi = forms()

    def plain(values):
        return function(*(turn @ values)[:count])

    found = function(*parts[:count])
    assert found.estimate == pytest.approx(plain(psi), rel=SAME)
    np.testing.assert_allclose(found.gradient, nd.Gradient(plain, step=STEPS)(psi), rtol=DERIVATIVE, atol=1e-8)
    bent = np.zeros((4, 4)) if found.hessian is None else found.hessian
    np.testing.assert_allclose(bent, nd.Hessian(plain, step=STEPS)(psi), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    check(OPERATIONS[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    check(lambda a, b: applied(name, a * b))


def test_linear_functions_have_no_hessian():
    (a, b, *_), _, _ = forms()
    assert (2.0 * (a + b) - a / 4.0 + 1.0).hessian is None


def test_numbers_of_numpy_leave_the_arithmetic_to_quantities():
    (a, *_), _, _ = forms()
    for operation in (operator.add, operator.sub, operator.mul, operator.truediv):
        found = operation(np.float64(CONSTANT), a)
        assert isinstance(found, Quantity)
        assert found.estimate == operation(CONSTANT, a.estimate)


def test_what_does_not_exist_spoils_what_is_made_of_it_and_only_that():
    (a, b, *_), _, _ = forms()
    none = Quantity("c", math.nan, np.zeros(4), note="there is none")
    made = a - none * 2.0
    assert made.is_missing
    assert made.note == "there is none"
    assert (a / (b - b)).is_missing
    assert not (a + b).is_missing


def test_notes_that_are_carried_stand_once():
    a, b = (Quantity(name, 1.0, np.ones(1), note="own", carried=("at w = 1",)) for name in "ab")
    assert (a * b + b).note == "at w = 1"


#: One mediator, and a route of three slopes that all covary.
ONE = PathEffects(("a", "b", "cprime"), ((0, 1),), ("cov_ab",), ("cov_ab",), ((0, 1), (2,)), ("indirect", "direct"))
SERIAL = PathEffects(
    ("a", "d", "b"), ((0, 1), (0, 2), (1, 2)), ("ad", "ab", "db"), (), ((0, 1, 2), (2,)), ("indirect[m]", "direct")
)


def of_one(a, b, cprime, cov_ab):
    return ONE(a=a, b=b, cprime=cprime, cov_ab=cov_ab)


def of_three(a, d, b, cov):
    return SERIAL(a=a, d=d, b=b, ad=cov, ab=2.0 * cov, db=cov * -1.0)


@pytest.mark.parametrize(
    ("make", "count"),
    [(of_one, 4), (of_three, 4), (separate_effects, 4), (lambda a, b, c, d: contrast_effects(a, b, c, d, a + d), 4)],
)
def test_one_function_for_derivatives_and_for_draws(make, count):
    """The values of quantities are those of arrays of one draw; the derivatives those of differences of the draws."""
    parts, turn, psi = forms()
    quantities = make(*parts)
    drawn = make(*(turn @ psi)[:, None])
    assert list(quantities) == list(drawn)
    for term, quantity in quantities.items():
        assert quantity.estimate == pytest.approx(float(drawn[term][0]), rel=SAME)
        gradient = nd.Gradient(lambda values, term=term: make(*(turn @ values))[term])(psi)
        np.testing.assert_allclose(quantity.gradient, gradient, rtol=DERIVATIVE, atol=1e-8)


# -- means of products of slopes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_means_of_products_of_slopes(count):
    """E[prod (s + r'u)] against Gauss-Hermite quadrature over three random effects, exact for polynomials."""
    rng = np.random.default_rng(count)
    root, means, loads = rng.normal(size=(3, 3)), rng.normal(size=count), rng.normal(size=(count, 3))
    G = root @ root.T
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    exact = 0.0
    for at in product(range(5), repeat=3):
        u = root @ nodes[list(at)]
        exact += np.prod(weights[list(at)]) * np.prod(means + loads @ u)
    exact /= (2.0 * np.pi) ** 1.5
    pairs = {(i, j): loads[i] @ G @ loads[j] for i, j in combinations(range(count), 2)}
    assert mean_product(list(means), pairs) == pytest.approx(exact, rel=1e-12)


def test_means_of_three_slopes_as_they_are_written():
    a, b, c = 0.5, -0.4, 2.0
    pairs = {(0, 1): 0.1, (0, 2): 0.02, (1, 2): 0.3}
    assert mean_product([a, b, c], pairs) == pytest.approx(a * b * c + a * 0.3 + b * 0.02 + c * 0.1, rel=SAME)
    assert mean_product([a, b, c], {(0, 1): 0.1}) == pytest.approx(a * b * c + c * 0.1, rel=SAME)


def test_a_mean_of_products_carries_derivatives():
    parts, turn, psi = forms()
    found = mean_product(parts[:3], {(0, 2): parts[3]})

    def plain(values):
        a, b, c, ac = turn @ values
        return a * b * c + ac * b

    np.testing.assert_allclose(found.gradient, nd.Gradient(plain, step=STEPS)(psi), rtol=DERIVATIVE, atol=1e-9)
    np.testing.assert_allclose(found.hessian, nd.Hessian(plain, step=STEPS)(psi), rtol=1e-6, atol=1e-6)


# -- draws and expressions ----------------------------------------------------------------------------------------


def test_draws_of_forms_whose_covariance_is_unknown_are_made_apart():
    """Nothing is made of both, and each has its own distribution."""
    V = np.diag([0.04, 0.09, 0.01, 0.25])
    V[3, :3] = V[:3, 3] = np.nan
    effects = Effects(separate_effects, ("a", "b", "cprime", "c"), np.eye(4), ("",) * 4, ((),) * 4)
    found = effects.monte_carlo(AT, Vcov.one(V), n=20_000, rng=np.random.default_rng(1))
    assert np.isnan(found["c_minus_cprime"]).all()
    for term, sd in (("a", 0.2), ("b", 0.3), ("cprime", 0.1), ("c", 0.5)):
        assert found[term].std() == pytest.approx(sd, rel=0.02)
    assert found["indirect"].std() == pytest.approx(
        std_error(Quantity("a", AT[0], np.eye(4)[0]) * Quantity("b", AT[1], np.eye(4)[1]), np.diag(np.diag(V))),
        rel=0.02,
    )


def test_lacking_forms_are_missing():
    effects = Effects(
        separate_effects,
        ("a", "b", "cprime", "c"),
        np.diag([1.0, 1.0, 1.0, 0.0]),
        ("", "", "", "none"),
        ((),) * 4,
        {"c"},
    )
    found = effects.quantities(AT)
    assert found["c"].is_missing
    assert found["c_minus_cprime"].note == "none"
    assert found["prop_mediated"].estimate == pytest.approx(0.21 / 1.01, rel=SAME)


@pytest.mark.parametrize(
    "text",
    ["a*b + c", "a**2 / (b + c)", "exp(a) - log(b*c)", "sqrt(a)*tanh(b) - atanh(d)", "2**a + a**b - abs(d)", "+a - -b"],
)
def test_expressions_are_exact(text):
    """Of text by the arithmetic, of a callable by differences: the same within the error of these."""
    parts, _, _ = forms()
    known = {part.term: part for part in parts}
    code = compile(text.replace("log", "math.log"), "", "eval")
    names = {"math": math, "exp": math.exp, "sqrt": math.sqrt, "tanh": math.tanh, "atanh": math.atanh}
    exact, numerical = combine(text, known), combine(lambda values: eval(code, names | values), known)
    assert exact.estimate == pytest.approx(numerical.estimate, rel=SAME)
    np.testing.assert_allclose(exact.gradient, numerical.gradient, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(exact.hessian, numerical.hessian, rtol=1e-5, atol=1e-5)


def test_an_expression_that_cancels_is_fixed():
    """Rounding is no standard error."""
    parts, _, _ = forms()
    a, b = parts[:2]
    known = {"u": (a * b).named("u"), "v": (a * b).named("v"), "a": a}
    found = combine("u / v", known)
    assert found.is_fixed
    assert "whatever the parameters are" in found.note


# -- the table ----------------------------------------------------------------------------------------------------


def test_every_kind_has_its_scale():
    """Plain, log, Fisher's z; t with degrees of freedom; what is fixed or unknown says so."""
    unit, V = np.eye(5), np.diag([0.04, 0.09, 0.01, 0.0025, np.nan])
    rows = [
        Quantity("b", 1.0, unit[0]),
        Quantity("var", 2.0, unit[1], kind="variance"),
        Quantity("sd", 0.5, unit[2], kind="sd"),
        Quantity("cor", 0.3, unit[3], kind="correlation"),
        Quantity("gone", 1.0, unit[4]),
        Quantity("fixed", 0.0, np.zeros(5), note="fixed at 0"),
    ]
    table = delta_table(rows, Vcov.one(V, "why"), df=7.0).set_index("term")
    t = special.stdtrit(7.0, 0.975)
    ends = {
        "b": (1.0 - 0.2 * t, 1.0 + 0.2 * t),
        "var": (2.0 * np.exp(-0.15 * t), 2.0 * np.exp(0.15 * t)),
        "sd": (0.5 * np.exp(-0.2 * t), 0.5 * np.exp(0.2 * t)),
        "cor": tuple(np.tanh(np.arctanh(0.3) + sign * t * 0.05 / 0.91) for sign in (-1, 1)),
    }
    for term, (low, high) in ends.items():
        assert table.loc[term, ["conf_low", "conf_high"]].astype(float).tolist() == pytest.approx([low, high], rel=SAME)
        assert (table.loc[term, "df"], table.loc[term, "note"]) == (7.0, "")
    assert np.isinf(delta_table(rows, Vcov.one(V, "why"))["df"]).all()
    assert table.loc["b", "p_value"] == pytest.approx(2.0 * special.stdtr(7.0, -5.0), rel=SAME)
    assert table.loc[["var", "sd"], "statistic"].isna().all()
    assert table.loc["cor", "statistic"] == pytest.approx(np.arctanh(0.3) * 0.91 / 0.05, rel=SAME)
    assert table.loc[["gone", "fixed"], "note"].tolist() == ["why", "fixed at 0"]


def test_blocks_of_a_covariance_answer_for_themselves():
    """Reasons and notes of the fits that a quantity depends on, one text for what is between them."""
    unit = np.eye(3)
    V = stacked([Vcov.one(unit[:1, :1], note="first"), Vcov.one(np.full((1, 1), np.nan), "flat"),
                 Vcov.one(unit[:1, :1], note="third")], 2, "apart")  # fmt: skip
    assert V.note_for(unit[0]) == "first"
    assert V.reason_for(unit[1]) == "flat"
    assert V.reason_for(unit[0] + unit[1]) == "flat"
    assert V.reason_for(unit[0] + unit[2]) == "apart"
    assert np.isnan(std_error(Quantity("", 0.0, unit[0] + unit[2]), V))
    assert std_error(Quantity("", 0.0, 2.0 * unit[2]), V) == 2.0
    lost = Directions(unit[:, :1], "lost with {owners}", ("cluster 1",))
    gone = Vcov.one(unit).losing([lost])
    assert gone.reason_for(unit[0] - unit[1]) == "lost with cluster 1"
    assert np.isnan(gone.matrix[0, 0])
    assert gone.of(unit[1])[0, 0] == 1.0
    np.testing.assert_array_equal(gone.losing([]).matrix, unit)
