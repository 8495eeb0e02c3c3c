"""Likelihood-ratio tests: of one equation between parameters, of a variance at the boundary, of nested fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from mlmed.data.grams import total_gram
from mlmed.effects.delta import Quantity
from mlmed.effects.nlcom import known_name
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import parameter_names, parameters, qualified
from mlmed.fit.protocol import Kind
from mlmed.fit.starts import loglik_without
from mlmed.intervals.functions import QuantitiesAt, parameters_at, quantity_of
from mlmed.intervals.profile import profiler_of
from mlmed.intervals.profile_search import QuantityAt, constrained
from mlmed.intervals.sdcor import entry_behind, fit_sdcor_quantities
from mlmed.text import shown

#: LR statistics below this are rounding error of zero.
NO_DIFFERENCE = 1e-6
#: Range of a quantity by its kind.
RANGES: dict[Kind, tuple[float, float, str]] = {
    "variance": (0.0, np.inf, "a variance is 0 or more"),
    "sd": (0.0, np.inf, "a standard deviation is 0 or more"),
    "correlation": (-1.0, 1.0, "a correlation lies between -1 and 1"),
}
WAY_OUT = " That a random effect has no variance can be tested, as 'var(...) = 0'"


@dataclass(frozen=True, slots=True)
class LRTest:
    """A likelihood-ratio test.

    Attributes
    ----------
    hypothesis : str
        The restriction.
    chi2 : float
        Twice the drop of the log-likelihood.
    df : int
        Restrictions.
    p_value : float
        From chi2(df), or from the mixture of chi2(df - 1) and chi2(df) for a variance at its boundary, which is
        conservative if several covariances fall with the variance.
    llf : float
        Log-likelihood under the hypothesis.
    note : str
        The reference distribution and the reason, if it is not chi2(df).
    """

    hypothesis: str
    chi2: float
    df: int
    p_value: float
    llf: float
    note: str = ""

    def __str__(self) -> str:
        """One line."""
        tail = f" ({self.note})" if self.note else ""
        return f"LR test of {self.hypothesis}: chi2({self.df}) = {self.chi2:.4f}, p = {self.p_value:.4g}{tail}"


#: Columns of two fits are equal if their moments agree to this share of their spread, and to the rounding error of
#: a mean that is large beside it.
SAME_COLUMN, ROUNDED = 1e-8, 1e-13
MIXTURE_NOTE = "the variance is tested at its boundary: equal mixture of chi2({low}) and chi2({high})"
#: Covariances that drop out with a variance: with one the test has its nominal size, with four it rejects 2 to 4.5% of
#: true hypotheses at 5% (simulated, 25 clusters of 6 to 500 of 20; docs/math.md, eq. 42).
CONSERVATIVE_NOTE = (
    "; conservative, as {covariances} covariances fall with it (with four of them 2 to 4.5% of true hypotheses are "
    "rejected at 5%)"
)


def _mixture_note(df: int) -> str:
    """Note on a variance and df - 1 covariances at the boundary."""
    note = MIXTURE_NOTE.format(low=df - 1, high=df)
    return note + CONSERVATIVE_NOTE.format(covariances=df - 1) if df > 2 else note


def test_constraint(fitted: LmmFit, hypothesis: str, quantity_at: QuantityAt, value: float) -> LRTest:
    """Test that one quantity has a value, all other parameters re-estimated."""
    profiler = profiler_of(fitted, quantity_at)
    at = constrained(profiler, value)
    if at.note:
        raise EffectError(f"the fit under {hypothesis!r} cannot be trusted: {at.note}")
    chi2 = lr_statistic(0.5 * at.drop)
    note = "the fit is singular: chi2 is an approximation there" if fitted.is_singular else ""
    return LRTest(hypothesis, chi2, 1, float(chdtrc(1, chi2)), fitted.estimates.loglik - 0.5 * at.drop, note)


def variance_in(fitted: LmmFit, name: str) -> int | None:
    """Position in u of the random effect that a variance belongs to; None for other names."""
    names = parameter_names(fitted)[len(fitted.estimates.beta) :][: len(fitted.estimates.tau)]
    if name not in names:
        return None
    i, j = fitted.estimates.tau_at[names.index(name)]
    return int(i) if i == j else None


def test_variance(fitted: LmmFit, hypothesis: str, effect: int) -> LRTest:
    """Test that a random effect has variance 0: the fit without it (Self & Liang 1987, Stram & Lee 1994)."""
    block = next(block for block in fitted.working.blocks if effect in block.index)
    if block.structure == "exchangeable" and len(block.index) > 1:
        raise EffectError("an exchangeable block has one variance and covariance for all; compare() two fits")
    gone = block.index if block.structure == "identity" else (effect,)
    df = len(block.index) if block.structure == "unstructured" else 1
    llf = loglik_without(fitted, gone)
    chi2 = lr_statistic(fitted.estimates.loglik - llf)
    return LRTest(hypothesis, chi2, df, mixture_p(chi2, df), llf, _mixture_note(df))


def compare_fits(first: LmmFit, second: LmmFit) -> pd.DataFrame:
    """Two fits side by side, with the likelihood-ratio test where one is nested in the other.

    Returns
    -------
    DataFrame
        model, n_parameters, llf, aic, bic, chi2, df, p_value, note; the smaller model first.

    Raises
    ------
    EffectError
        Different data, different criteria, or REML with different fixed effects.
    """
    _refuse_incomparable(first, second)
    small, large = sorted((first, second), key=lambda fitted: fitted.n_parameters)
    chi2, df, p, note = _nested_test(small, large)
    rows = [
        (_formula(fitted), fitted.n_parameters, fitted.estimates.loglik, fitted.aic, fitted.bic, *rest)
        for fitted, rest in ((small, (np.nan, np.nan, np.nan, "")), (large, (chi2, df, p, note)))
    ]
    columns = ["model", "n_parameters", "llf", "aic", "bic", "chi2", "df", "p_value", "note"]
    return pd.DataFrame(rows, columns=columns)


def _formula(fitted: LmmFit) -> str:
    """Write the formulas, and covariance structures that are not the default."""
    text = "; ".join(equation.text for equation in fitted.spec.equations)
    asked = fitted.spec.covariance
    named = "" if asked == "unstructured" else f"covariance {asked if isinstance(asked, str) else dict(asked)}"
    notes = [note for note in (named, "residuals correlated" if fitted.spec.correlated else "") if note]
    return f"{text} ({', '.join(notes)})" if notes else text


def _refuse_incomparable(first: LmmFit, second: LmmFit) -> None:
    for fitted in (first, second):
        if not fitted.converged:
            raise EffectError(f"the fit of {_formula(fitted)} is not certified, so it cannot be compared")
    if first.spec.method != second.spec.method:
        raise EffectError("one fit is by REML and the other by ML; fit both by the same method")
    ours, theirs = _moments(first), _moments(second)
    responses = [[e.name for e in fitted.layout.equations] for fitted in (first, second)]
    if responses[0] != responses[1] or any(not _same(ours[key], theirs[key]) for key in set(ours) & set(theirs)):
        raise EffectError(
            f"the fits are not of the same rows and columns: {_shown(first)} and {_shown(second)}; use one data frame "
            "for both, and drop its rows with missing values before"
        )
    if first.reml and set(qualified(first, "fixed")) != set(qualified(second, "fixed")):
        raise EffectError(
            "REML fits with different fixed effects cannot be compared (the restricted likelihoods are of different "
            "contrasts of the data); refit both with method='ml'"
        )


def _moments(fitted: LmmFit) -> dict[tuple[int, str], tuple[float, float, float, float]]:
    """Rows, mean, sd and correlation with the response (0 for a constant) of every column of every equation."""
    found = {}
    for number, equation in enumerate(fitted.layout.equations):
        total = total_gram(fitted.grams, number)
        n, y = float(total[0, 0]), equation.response_at
        centred = total / n - np.outer(total[0], total[0]) / n**2
        sd = np.sqrt(np.clip(np.diag(centred), 0.0, None))
        for k in {y, *equation.fixed_at, *equation.random_at}:
            shift, scale = fitted.grams.shift[k], fitted.grams.scale[k]
            correlation = float(centred[k, y] / (sd[k] * sd[y])) if sd[k] * sd[y] > 0.0 else 0.0
            moments = n, float(shift + scale * total[0, k] / n), float(scale * sd[k]), correlation
            found[number, fitted.grams.columns[k]] = moments
    return found | _pairs_of_responses(fitted)


def _pairs_of_responses(fitted: LmmFit) -> dict[tuple[int, str], tuple[float, float, float, float]]:
    """Rows with two responses and their correlation there, which detects another pairing of rows."""
    grams, equations, found = fitted.grams, fitted.layout.equations, {}
    for r, first in enumerate(equations):
        for s, second in enumerate(equations[:r]):
            at = [0, first.response_at, second.response_at]
            total = total_gram(grams, r, s)[np.ix_(at, at)]
            n = float(total[0, 0])
            spread = total - np.outer(total[0], total[0]) / n if n else np.zeros((3, 3))
            size = float(np.sqrt(spread[1, 1] * spread[2, 2]))
            found[r, f"beside {second.name}"] = (n, 0.0, 1.0, float(spread[1, 2]) / size if size > 0.0 else 0.0)
    return found


def _same(ours: tuple[float, ...], theirs: tuple[float, ...]) -> bool:
    """Whether two columns are the same up to rounding, in any order of the rows."""
    n, mean, spread, correlation = np.abs(np.subtract(ours, theirs))
    close = SAME_COLUMN * ours[2] + ROUNDED * abs(ours[1])
    return bool(n == 0.0 and mean <= close and spread <= close and correlation <= SAME_COLUMN)


def _shown(fitted: LmmFit) -> str:
    return ", ".join(f"{e.name} ({fitted.grams.nobs(r)} rows)" for r, e in enumerate(fitted.layout.equations))


def _covariances_nested(small: LmmFit, large: LmmFit) -> bool:
    """Whether the larger model allows every covariance matrix of the smaller: spans of their E_k (eq. 14)."""
    names = [qualified(fitted, "random") for fitted in (small, large)]
    same_clusters = small.spec.group == large.spec.group and small.clusters.sort_values().equals(
        large.clusters.sort_values()
    )
    if not same_clusters or any(len(set(one)) < len(one) for one in names) or not set(names[0]) <= set(names[1]):
        return False
    place = [names[1].index(name) for name in names[0]]
    q = len(names[1])
    moved = np.zeros((len(small.estimates.tau_basis), q, q))
    moved[:, np.array(place)[:, None], place] = small.estimates.tau_basis
    span = large.estimates.tau_basis.reshape(-1, q * q)
    both = np.vstack([span, moved.reshape(-1, q * q)])
    return bool(np.linalg.matrix_rank(both) == np.linalg.matrix_rank(span))


def _nested_test(small: LmmFit, large: LmmFit) -> tuple[float, float, float, str]:
    """chi2, df, p and note; NaN and the reason if the fits are not nested."""
    df = large.n_parameters - small.n_parameters
    if df == 0:
        return np.nan, np.nan, np.nan, "the same number of parameters: compare by AIC or BIC"
    if small.spec.correlated and not large.spec.correlated:
        return np.nan, np.nan, np.nan, "not nested: compare by AIC or BIC"
    fixed_in = set(qualified(small, "fixed")) <= set(qualified(large, "fixed"))
    drop = large.estimates.loglik - small.estimates.loglik
    if not fixed_in or not _covariances_nested(small, large) or drop < -NO_DIFFERENCE:
        return np.nan, np.nan, np.nan, "not nested: compare by AIC or BIC"
    chi2 = lr_statistic(drop)
    gone = set(qualified(large, "random")) - set(qualified(small, "random"))
    slopes = len(qualified(large, "fixed")) - len(qualified(small, "fixed"))
    if not gone:
        return chi2, df, float(chdtrc(df, chi2)), ""
    structures = {block.structure for block in (*small.working.blocks, *large.working.blocks)}
    if len(gone) == 1 and not slopes and structures <= {"unstructured", "diagonal"}:
        return chi2, df, mixture_p(chi2, df), _mixture_note(df)
    note = f"conservative: {len(gone)} variance(s) tested at the boundary beside other parameters; p is at most this"
    return chi2, df, float(chdtrc(df, chi2)), note


def lr_statistic(drop: float) -> float:
    """Twice a drop of the log-likelihood, exactly 0 within rounding error."""
    return 2.0 * drop if 2.0 * drop > NO_DIFFERENCE else 0.0


def mixture_p(chi2: float, df: int) -> float:
    """P value of the equal mixture of chi2(df - 1) and chi2(df); chi2(0) is the value 0.

    With df - 1 covariances beside the variance the mixture holds for many clusters. With few it is conservative, as the
    other variances bound the covariances.
    """
    upper = float(chdtrc(df, chi2))
    lower = float(chdtrc(df - 1, chi2)) if df > 1 else float(chi2 <= 0.0)
    return 0.5 * (lower + upper)


def test_equation(fitted: LmmFit, hypothesis: str, named_at: QuantitiesAt) -> LRTest:
    """Test one restriction, all other parameters re-estimated.

    Parameters
    ----------
    fitted : LmmFit
        The fit.
    hypothesis : str
        Two expressions, or an expression and a number.
    named_at : callable
        Quantities by name, as a function of the estimates.

    Raises
    ------
    EffectError
        If the text is not a restriction, or the quantity cannot take the value.
    """

    def quantity_at(text: str) -> QuantityAt:
        return quantity_of(text, named_at, fitted.estimates)

    left, right = _sides(hypothesis)
    value = _number(right)
    if value is None:
        return test_constraint(fitted, hypothesis, quantity_at(f"({left}) - ({right})"), 0.0)
    if not np.isfinite(value):
        raise EffectError(f"a quantity cannot be tested to be {right}; found {shown(hypothesis)}")
    known = _known(fitted)
    name = known_name(left, known)
    if name is None:
        return test_constraint(fitted, hypothesis, quantity_at(left), value)
    _check_range(fitted, known[name], value)
    name, value = _as_parameter(fitted, known[name], value, quantity_at)
    effect = variance_in(fitted, name) if value == 0.0 else None
    if effect is not None:
        return test_variance(fitted, hypothesis, effect)
    return test_constraint(fitted, hypothesis, quantity_at(name), value)


def _sides(hypothesis: str) -> tuple[str, str]:
    """Split at the equals sign; a number goes to the right."""
    left, equals, right = hypothesis.partition("=") if isinstance(hypothesis, str) else ("", "", "")
    left, right = left.strip(), right.strip()
    if not equals or "=" in right or not left or not right:
        raise EffectError(f"a hypothesis is one equation such as 'cov_ab = 0'; found {shown(hypothesis)}")
    return (right, left) if _number(left) is not None and _number(right) is None else (left, right)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _known(fitted: LmmFit) -> dict[str, Quantity]:
    """Every parameter, standard deviation and correlation by name."""
    shown = fit_sdcor_quantities(fitted, fitted.estimates)
    return {**shown, **parameters_at(parameters(fitted), fitted.estimates)}


def _check_range(fitted: LmmFit, quantity: Quantity, value: float) -> None:
    """Refuse a value that a variance, standard deviation or correlation cannot have."""
    name, kind = quantity.term, quantity.kind
    if kind not in RANGES:
        return
    low, high, allowed = RANGES[kind]
    wrong = f"{name} could not be brought to {value:g}: "
    here = f"it is {quantity.estimate:.4g} in the fit"
    if not low <= value <= high:
        raise EffectError(f"{wrong}{allowed}; {here}.{WAY_OUT if kind != 'correlation' else ''}")
    residual = parameter_names(fitted)[-len(fitted.estimates.sigma2) :]
    if value == 0.0 and kind != "correlation" and entry_behind(fitted, "sd").get(name, name) in residual:
        raise EffectError(f"{wrong}without residuals the model would have to fit every row exactly; {here}.{WAY_OUT}")


def _as_parameter(
    fitted: LmmFit, quantity: Quantity, value: float, quantity_at: Callable[[str], QuantityAt]
) -> tuple[str, float]:
    """Restate it for the variance behind an sd, or the covariance behind a correlation of 0, which are smooth."""
    name = quantity.term
    if quantity.kind == "sd":
        variance = entry_behind(fitted, "sd").get(name)
        return (name, value) if variance is None else (variance, value * value)
    if quantity.kind != "correlation" or value != 0.0:
        return name, value
    quantity_at(name)  # refuses a correlation that does not exist
    return entry_behind(fitted, "correlation").get(name, name), value
