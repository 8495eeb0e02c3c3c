"""One ordinary regression, fitted by statsmodels and kept as arrays, and its robust covariances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import DataError, EffectError, NotIdentifiedError, filtering
from mlmed.glm.family import check_response_of, likelihood, newton
from mlmed.lmm.checks import CONSTANT, refuse_collinear, refuse_few_rows
from mlmed.lmm.sandwich import FULL_LEVERAGE, Alone, gathered, leverages
from mlmed.options import HC_KINDS, one_of
from mlmed.replication import Failure, Replicate
from mlmed.text import Compact

Array = NDArray[np.float64]

#: Change of the scaled coefficients at which iteratively reweighted least squares stops, and the most iterations.
TOLERANCE, MOST_ITERATIONS = 1e-10, 100
#: Largest move of the linear predictor in one more Newton step. At an optimum it is below 1e-6; if an estimate is
#: infinite it stays near 1 (logit, poisson) or falls like 1/eta (probit).
STILL = 1e-4
#: Why there is no least-squares fit of drawn rows.
DEFICIENT = Failure("deficient", "the coefficients cannot be told apart in the replicate")
EXACT = Failure("exact-fit", "the response is constant, or made up by the predictors, in the replicate")


@dataclass(frozen=True, slots=True, repr=False)
class GlmFit(Compact):
    """A least-squares fit or a generalized linear model.

    Attributes
    ----------
    family : str
        One of ``FAMILIES``.
    names : tuple of str
        Columns of X.
    beta : (p,) array
        Coefficients.
    vcov : (p, p) array
        Model-based covariance: s^2 (X'X)^-1, or the inverse expected information.
    bread : (p, p) array
        (X'WX)^-1, with W = 1 for ``linear``; ``bread @ X.T @ score`` is the first-order change of beta.
    score : (n,) array
        Derivative of each row's log-likelihood in its linear predictor; times sigma^2 for ``linear``: the residual.
    information : (n,) array
        Expected information of each row in its linear predictor, W above.
    leverage : (n,) array
        Diagonal of the hat matrix.
    X : (n, p) array
        The columns.
    sigma2 : float
        Residual variance, RSS / (n - p); NaN for the other families.
    loglik : float
        Maximized log-likelihood.
    """

    family: str
    names: tuple[str, ...]
    beta: Array
    vcov: Array
    bread: Array
    score: Array
    information: Array
    leverage: Array
    X: Array
    sigma2: float
    loglik: float

    @property
    def nobs(self) -> int:
        """Rows."""
        return len(self.X)

    @property
    def eta(self) -> Array:
        """Linear predictor of every row, (n,)."""
        return self.X @ self.beta


@dataclass(frozen=True, slots=True)
class Regression:
    """A regression to refit with other frequency weights.

    Attributes
    ----------
    family, response : str
        Family and name of the response.
    names : tuple of str
        Columns of X.
    y, X : (n,), (n, p) arrays
        Data.
    start : (p,) array
        Start values.
    where : str
        Prefix of failures.
    """

    family: str
    response: str
    names: tuple[str, ...]
    y: Array
    X: Array
    start: Array
    where: str

    def __call__(self, index: NDArray[np.intp]) -> Replicate | Failure:
        """Fit the listed rows."""
        found = self.counted(np.bincount(index, minlength=len(self.y)).astype(np.float64))
        return found if isinstance(found, Failure) else Replicate(found.beta)

    def counted(self, counts: Array) -> GlmFit | Failure:
        """Fit the rows with frequency weights ``counts``, (n,)."""
        kept, names, response = counts > 0.0, self.names, self.response
        X, y, weights = self.X[kept], self.y[kept], counts[kept]
        try:
            return fit_glm(self.family, y, X, names=names, response=response, weights=weights, start=self.start)
        except (DataError, NotIdentifiedError) as error:
            if self.family == "linear":
                failure = DEFICIENT if isinstance(error, NotIdentifiedError) else EXACT
                return failure.within(self.where)
            return Failure(self.where + error.code, str(error))  # the text names the equation


@dataclass(frozen=True, slots=True)
class _Scaled:
    """Columns scaled to mean square 1, and centred if there is an intercept.

    Attributes
    ----------
    X : (n, p) array
        The columns.
    back : (p, p) array
        ``beta = back @ beta_scaled``.
    """

    X: Array
    back: Array


def fit_glm(
    family: str,
    y: Array,
    X: Array,
    *,
    names: tuple[str, ...],
    response: str,
    weights: Array | None = None,
    start: Array | None = None,
) -> GlmFit:
    """Fit one regression.

    Columns are shifted and scaled first, so that checks of collinearity and accuracy do not depend on their units.

    Parameters
    ----------
    family : {"linear", "logit", "probit", "poisson"}
        Family with its own link; ``poisson`` has the logarithm.
    y, X : (n,), (n, p) arrays
        Response and columns.
    names : tuple of str
        Names of the columns.
    response : str
        Name of the response, for messages.
    weights : (n,) array, optional
        Frequency weights (bootstrap); whole numbers from 1.
    start : (p,) array, optional
        Estimates from similar data (bootstrap): Newton's method starts there; statsmodels takes over if it does not
        converge.

    Raises
    ------
    DataError
        The data do not fit the family, or the response is a linear combination of the columns.
    NotIdentifiedError
        Constant or collinear columns, too few rows, or an estimate that is infinite because the predictors separate
        the responses.
    """
    check_response_of(family, y, response)
    counts = np.ones(len(y)) if weights is None else weights
    refuse_few_rows(response, int(counts.sum()), X.shape[1])
    scaled = _scaled(X, counts, response, names)
    if family == "linear":
        return _least_squares(y, X, scaled, names, response, counts)
    beta = None
    if start is not None:
        near = np.asarray(np.linalg.solve(scaled.back, start), dtype=np.float64)
        beta = newton(family, y, scaled.X, counts, near)
    if beta is None:
        beta = _statsmodels_glm(family, y, scaled.X, counts, response)
    at = likelihood(family, y, scaled.X @ beta)
    information = counts * at.expected
    bread = _settled_bread(family, scaled.X, information, counts * at.score, response)
    leverage = information * np.einsum("ni,ij,nj->n", scaled.X, bread, scaled.X)
    bread = scaled.back @ bread @ scaled.back.T
    loglik = float(counts @ at.loglik)
    return GlmFit(
        family, names, scaled.back @ beta, bread, bread, at.score, information, leverage, X, float("nan"), loglik
    )


def _scaled(X: Array, counts: Array, response: str, names: tuple[str, ...]) -> _Scaled:
    """Shift and scale the columns; refuse constant or collinear ones."""
    n, p = float(counts.sum()), X.shape[1]
    mean = counts @ X / n
    constant = [k for k in range(p) if X[0, k] != 0.0 and np.all(X[:, k] == X[0, k])]
    back = np.eye(p)
    out = X.astype(np.float64, copy=True)
    if constant:
        first = constant[0]
        shifted = np.arange(p) != first
        out[:, shifted] -= mean[shifted]
        back[first, shifted] = -mean[shifted] / X[0, first]
    raw, square = counts @ (X * X) / n, counts @ (out * out) / n
    empty = np.flatnonzero(square <= CONSTANT * raw)
    if len(empty):
        k = int(empty[0])
        raise NotIdentifiedError(
            f"equation {response}: the predictor {names[k]!r} is constant ({X[0, k]:g}) in its rows, so its effect "
            "cannot be told from the intercept; remove it",
            code=f"constant {names[k]}",
        )
    size = np.sqrt(square)
    out /= size
    refuse_collinear((out * counts[:, None]).T @ out, response, names)
    return _Scaled(out, back / size)


def _least_squares(y: Array, X: Array, scaled: _Scaled, names: tuple[str, ...], response: str, counts: Array) -> GlmFit:
    from statsmodels.regression.linear_model import WLS

    n = float(counts.sum())
    centre = float(counts @ y) / n
    fitted = WLS(y, scaled.X, weights=counts).fit()
    beta = np.asarray(fitted.params)
    residual = y - scaled.X @ beta
    rss = float(counts @ residual**2)
    if np.all(y == y[0]) or rss <= CONSTANT * float(counts @ (y - centre) ** 2):
        raise DataError(
            f"equation {response}: the response is constant or an exact linear combination of {', '.join(names)}, so "
            "nothing is left to estimate its errors from; check how it was made, or remove the predictor it was made of"
        )
    sigma2 = rss / (n - len(beta))
    bread = np.asarray(np.linalg.inv((scaled.X * counts[:, None]).T @ scaled.X), dtype=np.float64)
    leverage = counts * np.einsum("ni,ij,nj->n", scaled.X, bread, scaled.X)
    bread = scaled.back @ bread @ scaled.back.T
    loglik = -0.5 * n * (np.log(2.0 * np.pi * rss / n) + 1.0)
    return GlmFit(
        "linear", names, scaled.back @ beta, sigma2 * bread, bread, residual, counts, leverage, X, sigma2, float(loglik)
    )


def _settled_bread(family: str, X: Array, information: Array, score: Array, response: str) -> Array:
    """Inverse information, (p, p); refuse a point that one more Newton step would leave.

    With an infinite estimate the search may stop at a small step, but the linear predictor still moves.
    """
    try:
        bread = np.linalg.inv((X * information[:, None]).T @ X)
    except np.linalg.LinAlgError as error:
        raise _infinite(family, response) from error
    with np.errstate(all="ignore"):
        step = float(np.abs(X @ (bread @ (X.T @ score))).max())
    if not step <= STILL:
        raise _infinite(family, response)
    return np.asarray(bread)


def _infinite(family: str, response: str) -> NotIdentifiedError:
    what = (
        "in some category or beyond some value of a predictor all counts are 0"
        if family == "poisson"
        else "in some category or beyond some value of a predictor all responses are the same"
    )
    return NotIdentifiedError(
        f"equation {response}: the {family} model has an infinite estimate, as when {what}; remove a predictor, or "
        "collapse categories",
        code="infinite",
    )


def _statsmodels_glm(family: str, y: Array, X: Array, counts: Array, response: str) -> Array:
    from statsmodels.genmod import families
    from statsmodels.genmod.generalized_linear_model import GLM
    from statsmodels.tools.sm_exceptions import ConvergenceWarning, PerfectSeparationError, PerfectSeparationWarning

    kinds = {
        "logit": lambda: families.Binomial(),
        "probit": lambda: families.Binomial(families.links.Probit()),
        "poisson": lambda: families.Poisson(),
    }
    model = GLM(y, X, family=kinds[family](), freq_weights=counts)
    told = filtering(ignore=RuntimeWarning, error=(PerfectSeparationWarning, ConvergenceWarning))
    with told, np.errstate(all="ignore"):  # the end point is checked by ``_settled_bread``
        try:
            return np.asarray(model.fit(maxiter=MOST_ITERATIONS, tol=TOLERANCE, tol_criterion="params").params)
        except (PerfectSeparationWarning, PerfectSeparationError) as error:
            raise NotIdentifiedError(
                f"equation {response}: the predictors separate 0 from 1 perfectly, so the {family} model has no "
                "finite estimate; remove a predictor, or collapse categories",
                code="separated",
            ) from error
        except (ConvergenceWarning, np.linalg.LinAlgError, ValueError) as error:
            raise _infinite(family, response) from error


def hc_vcov(fit: GlmFit, kind: str) -> Array:
    """White's covariance and its small-sample versions, (p, p).

    Parameters
    ----------
    fit : GlmFit
        The regression.
    kind : {"HC0", "HC1", "HC2", "HC3"}
        Squared scores unchanged, times n/(n - p), over 1 - h, over (1 - h)^2 (MacKinnon and White 1985); for
        generalized linear models as R's ``sandwich::vcovHC``.

    Raises
    ------
    EffectError
        Unknown kind.

    Notes
    -----
    A row with leverage 1 fits itself, and its score is 0. It is left out: it informs only directions of its own
    (``moves_of_one``), whose variance here is meaningless.
    """
    one_of(kind, HC_KINDS, "kind")
    n, p = fit.X.shape
    alone = fit.leverage > 1.0 - FULL_LEVERAGE
    free = np.where(alone, np.inf, 1.0 - fit.leverage)
    weight = fit.score**2
    if kind == "HC1":
        weight = weight * (n / (n - p))
    elif kind in ("HC2", "HC3"):
        weight = weight / (free if kind == "HC2" else free**2)
    return _sandwich(fit.bread, (fit.X * weight[:, None]).T @ fit.X)


def cluster_vcov(fit: GlmFit, codes: NDArray[np.intp] | None = None, *, corrected: bool = True) -> Array:
    """Covariance robust to dependence within clusters, (p, p): CR1, with the factor J/(J - 1).

    Parameters
    ----------
    fit : GlmFit
        The regression.
    codes : (n,) int array, optional
        Cluster of each row, 0 to J - 1; by default every row is a cluster.
    corrected : bool
        Whether to apply that factor; CR0 without it.

    Raises
    ------
    EffectError
        Fewer than two clusters.
    """
    J = fit.nobs if codes is None else int(codes.max()) + 1
    if J < 2:
        raise EffectError("a cluster-robust covariance needs at least two clusters; found one")
    factor = J / (J - 1.0) if corrected else 1.0
    if codes is None:
        return factor * hc_vcov(fit, "HC0")
    rows = fit.X * fit.score[:, None]
    sums = np.column_stack([np.bincount(codes, weights=column, minlength=J) for column in rows.T])
    return _sandwich(fit.bread, np.asarray(sums.T @ sums * factor, dtype=np.float64))


def moves_of_one(fit: GlmFit, codes: NDArray[np.intp] | None = None) -> Alone:
    """Moves of beta that single clusters, or rows, alone inform.

    Parameters
    ----------
    fit : GlmFit
        The regression.
    codes : (n,) int array, optional
        Cluster of each row, 0 to J - 1; by default every row is a cluster.
    """
    codes = np.arange(fit.nobs) if codes is None else codes
    weighted = fit.X * np.sqrt(fit.information)[:, None]
    size = np.linalg.norm(weighted, axis=0)
    Q, R = np.linalg.qr(weighted / size)  # orthogonal columns: the precision is the identity
    p = len(size)

    def found() -> Iterator[tuple[int, Array]]:
        # the largest leverage of a cluster is at most the sum of those of its rows
        for owner in np.flatnonzero(np.bincount(codes, weights=(Q * Q).sum(axis=1)) > 1.0 - FULL_LEVERAGE):
            own = Q[codes == owner]
            values, vectors = leverages((own.T @ own)[None], np.eye(p))
            yield int(owner), vectors[0][:, values[0] > 1.0 - FULL_LEVERAGE]

    return gathered(found(), np.linalg.inv(R) / size[:, None], np.sqrt(np.diag(fit.bread)))


def _sandwich(bread: Array, meat: Array) -> Array:
    found = bread @ meat @ bread
    return 0.5 * (found + found.T)
