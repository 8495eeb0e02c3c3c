"""Two regressions whose errors have a known correlation, by maximum likelihood (docs/math.md, eq. 77 and 82 to 84).

The first response is linear, the second linear or probit, and one may be a predictor of the other: the likelihood is
the same, because the system is recursive. In the coordinates of Olsen (1978), coefficients divided by the standard
deviation and its inverse, it is concave, so the optimum is unique and Newton's method
finds it from any start. Columns are made orthogonal, so that units and collinearity do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, cho_factor, cho_solve, solve_triangular
from scipy.special import erfcx, log_ndtr

from mlmed.errors import EffectError, NotIdentifiedError
from mlmed.numerics.certificate import DECREMENT, STEP, Certificate, below

Array = NDArray[np.float64]
#: Squared Newton decrement (about twice the log-likelihood still to gain) below which a step is the last; bound of the
#: certificate; most steps; most halvings of a step.
LAST, CERTIFIED, MOST_STEPS, MOST_HALVINGS = 1e-14, 1e-12, 100, 40
#: Largest move of a linear predictor in one more step: 1e-7 at an optimum, more than .1 on the way to infinity.
STILL = 1e-4
#: Shares of the diagonal added to a Hessian that has no Cholesky factor.
RIDGES = (0.0, 1e-10, 1e-7, 1e-4, 1e-2)
LOG_2PI = float(np.log(2.0 * np.pi))


@dataclass(frozen=True, slots=True)
class Margin:
    """One of the two regressions.

    Attributes
    ----------
    family : {"linear", "probit"}
        Kind of regression.
    y : (n,) array
        Response; 0 and 1 for ``probit``.
    X : (n, p) array
        Columns.
    """

    family: str
    y: Array
    X: Array


@dataclass(frozen=True, slots=True)
class Block:
    """One regression in coordinates whose columns are orthogonal, so that units and collinearity do not matter.

    With X = Q R and least squares y = X b0 + s0 r, the error (y - X beta) / s is E theta with E = (-Q, r),
    theta = (R (beta - b0) / s, s0 / s); the index of a probit is Q theta with theta = R beta.

    Attributes
    ----------
    E : (n, p + 1) or (n, p) array
        Columns.
    R : (p, p) array
        Upper triangular.
    centre : (p,) array
        b0; zero for a probit.
    spread : float
        s0; NaN for a probit.
    """

    E: Array
    R: Array
    centre: Array
    spread: float

    @property
    def is_linear(self) -> bool:
        """Whether there is a scale."""
        return not np.isnan(self.spread)

    def to_theta(self, beta: Array, scale: float) -> Array:
        """Theta from natural parameters."""
        if not self.is_linear:
            return np.asarray(self.R @ beta)
        return np.append(self.R @ (beta - self.centre) / scale, self.spread / scale)

    def natural(self, theta: Array) -> tuple[Array, float, Array]:
        """Coefficients, scale, and the derivatives of (coefficients, log scale) in theta (eq. 84)."""
        inverse = solve_triangular(self.R, np.eye(len(self.R)))
        if not self.is_linear:
            return inverse @ theta, float("nan"), inverse
        scale = self.spread / theta[-1]
        moved = scale * (inverse @ theta[:-1])
        J = np.zeros((len(theta), len(theta)))
        J[:-1, :-1], J[:-1, -1], J[-1, -1] = scale * inverse, -moved / theta[-1], -1.0 / theta[-1]
        return self.centre + moved, float(scale), J


def block_of(margin: Margin) -> Block:
    """Orthogonalize the columns of one regression."""
    Q, R = np.linalg.qr(margin.X)
    if margin.family == "probit":
        return Block(Q, R, np.zeros(len(R)), float("nan"))
    projected = Q.T @ margin.y
    residual = margin.y - Q @ projected
    spread = float(np.sqrt(np.mean(residual**2)))
    if spread <= 1e-12 * float(np.abs(margin.y).max()):
        raise NotIdentifiedError("a linear equation fits its response without error, so there is no error to correlate")
    return Block(np.column_stack([-Q, residual / spread]), R, solve_triangular(R, projected), spread)


@dataclass(frozen=True, slots=True)
class PairFit:
    """Both regressions at one correlation of their errors.

    Attributes
    ----------
    rho : float
        The correlation.
    first, second : (p1,), (p2,) arrays
        Coefficients.
    scales : (1,) or (2,) array
        Standard deviations of the errors of linear responses, the first regression's first.
    vcov : (P, P) array
        Inverse observed information of (first, second, log scales).
    scores : (n, P) array
        Derivatives of each row's log-likelihood in (first, second, log scales); they sum to zero.
    loglik : float
        The maximum.
    certificate : Certificate
        Checks of g'(-H)^-1 g at the returned point and of the last move of an index.
    """

    rho: float
    first: Array
    second: Array
    scales: Array
    vcov: Array
    scores: Array
    loglik: float
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class _System:
    """The problem in Olsen's coordinates, theta = (theta_1, theta_2) of the two blocks.

    Attributes
    ----------
    first, second : Block
        E1 theta_1 is the standardized error of the first response; E2 theta_2 that of the second, or its index.
    signs : (n,) array or None
        2 y - 1 of a probit response.
    rho : float
        The correlation.
    """

    first: Block
    second: Block
    signs: Array | None
    rho: float

    @property
    def inverse_scales(self) -> list[int]:
        """Positions of s0 / s in theta."""
        k = self.first.E.shape[1]
        return [k - 1] if self.signs is not None else [k - 1, k + self.second.E.shape[1] - 1]

    def errors(self, theta: Array) -> tuple[Array, Array]:
        """E1 theta_1 and E2 theta_2, (n,) each."""
        k = self.first.E.shape[1]
        return self.first.E @ theta[:k], self.second.E @ theta[k:]

    def loglik(self, theta: Array) -> float:
        """Log-likelihood (eq. 82); minus infinity where a scale is not positive."""
        n, inverse = len(self.first.E), theta[self.inverse_scales]
        if np.any(inverse <= 0.0):
            return -np.inf
        inverse = inverse / [block.spread for block in (self.first, self.second) if block.is_linear]
        e1, e2 = self.errors(theta)
        rest = 1.0 - self.rho**2
        common = n * (float(np.log(inverse).sum()) - 0.5 * LOG_2PI * len(inverse))
        if self.signs is None:
            quadratic = float((e1**2 - 2.0 * self.rho * e1 * e2 + e2**2).sum())
            return common - 0.5 * (n * np.log(rest) + quadratic / rest)
        u = self.signs * (e2 + self.rho * e1) / np.sqrt(rest)
        return common - 0.5 * float(e1 @ e1) + float(log_ndtr(u).sum())

    def row_derivatives(self, e1: Array, e2: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Derivatives of each row's log-likelihood: d1, d2, d11, d12, d22 in (e1, e2) (eq. 83); (n,) each."""
        rho, rest = self.rho, 1.0 - self.rho**2
        if self.signs is None:
            flat = np.full(len(e1), 1.0 / rest)
            return (rho * e2 - e1) / rest, (rho * e1 - e2) / rest, -flat, rho * flat, -flat
        root = np.sqrt(rest)
        u = self.signs * (e2 + rho * e1) / root
        mills = np.sqrt(2.0 / np.pi) / erfcx(-u / np.sqrt(2.0))  # phi(u) / Phi(u)
        slope, bend = self.signs * mills / root, mills * (u + mills) / rest
        return rho * slope - e1, slope, -1.0 - rho**2 * bend, -rho * bend, -bend

    def derivatives(self, theta: Array) -> tuple[Array, Array]:
        """Scores (n, P) and Hessian (P, P) in theta."""
        n, E1, E2 = len(self.first.E), self.first.E, self.second.E
        d1, d2, d11, d12, d22 = self.row_derivatives(*self.errors(theta))
        scores = np.hstack([E1 * d1[:, None], E2 * d2[:, None]])
        cross = (E1 * d12[:, None]).T @ E2
        H = np.block([[(E1 * d11[:, None]).T @ E1, cross], [cross.T, (E2 * d22[:, None]).T @ E2]])
        for at in self.inverse_scales:
            scores[:, at] += 1.0 / theta[at]
            H[at, at] -= n / theta[at] ** 2
        return scores, H


def _system(first: Margin, second: Margin, rho: float) -> _System:
    if first.family != "linear" or second.family not in ("linear", "probit"):
        raise EffectError(
            f"the first of the two regressions is linear and the second linear or probit; found {first.family} and "
            f"{second.family}"
        )
    if not -1.0 < rho < 1.0:
        raise EffectError(f"a correlation of errors lies between -1 and 1, both excluded; found {rho:g}")
    signs = 2.0 * second.y - 1.0 if second.family == "probit" else None
    return _System(block_of(first), block_of(second), signs, rho)


def _to_theta(system: _System, coefficients: tuple[Array, Array], scales: Array) -> Array:
    padded = [*map(float, scales), float("nan")]
    return np.concatenate(
        [system.first.to_theta(coefficients[0], padded[0]), system.second.to_theta(coefficients[1], padded[1])]
    )


def fit_pair(first: Margin, second: Margin, rho: float, *, start: PairFit | None = None) -> PairFit:
    """Maximum likelihood at a fixed correlation of the errors.

    Parameters
    ----------
    first, second : Margin
        The regressions; ``first`` is linear. Each response may be among the other's columns, but not both.
    rho : float
        Correlation of their errors, between -1 and 1.
    start : PairFit, optional
        A fit at a similar correlation; by default least squares and an index of zero.

    Raises
    ------
    EffectError
        Invalid correlation or family.
    NotIdentifiedError
        No finite optimum was certified.

    Notes
    -----
    Concave after Olsen, R. J. (1978). Note on the uniqueness of the maximum likelihood estimator for the Tobit model.
    *Econometrica*, 46, 1211-1215.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> one = np.ones((500, 1))
    >>> y, m = rng.normal(2.0, 3.0, 500), (rng.normal(size=500) > 0.5) * 1.0
    >>> fit = fit_pair(Margin("linear", y, one), Margin("probit", m, one), 0.0)
    >>> bool(np.isclose(fit.first[0], y.mean()) and np.isclose(fit.scales[0], y.std()))
    True
    """
    system = _system(first, second, rho)
    if start is None:  # least squares, and an index of zero
        theta = np.zeros(system.first.E.shape[1] + system.second.E.shape[1])
        theta[system.inverse_scales] = 1.0
    else:
        theta = _to_theta(system, (start.first, start.second), start.scales)
    value = system.loglik(theta)
    for _ in range(MOST_STEPS):
        scores, H = system.derivatives(theta)
        step, decrement = _newton_step(scores.sum(axis=0), H)
        theta, value = _line_search(system, theta, value, step, decrement)
        if decrement < LAST:
            break
    scores, H = system.derivatives(theta)
    step, decrement = _newton_step(scores.sum(axis=0), H, (0.0,))
    moves = max(float(np.abs(moved).max()) for moved in system.errors(step))
    certificate = Certificate((below(DECREMENT, decrement, CERTIFIED), below(STEP, moves, STILL)))
    if not certificate.converged:
        raise NotIdentifiedError(
            f"the two equations with errors correlated {rho:g} have no certified optimum (Newton decrement "
            f"{decrement:.3g}, an index still moves by {moves:.3g}), as when predictors separate 0 from 1 perfectly; "
            "remove a predictor, or leave out this rho"
        )
    return _natural(system, theta, scores, H, certificate)


def _newton_step(gradient: Array, H: Array, ridges: tuple[float, ...] = RIDGES) -> tuple[Array, float]:
    """(-H)^-1 g and g'(-H)^-1 g; zero and infinite if no ridge makes -H positive definite.

    Far from its maximum the concave likelihood may be flat up to rounding; then a ridge is added.
    """
    size = np.sqrt(np.abs(np.diag(H)))
    size = np.where(size > 0.0, size, 1.0)
    scaled, scaled_gradient = -H / np.outer(size, size), gradient / size
    for ridge in ridges:
        try:
            factor = cho_factor(scaled + ridge * np.eye(len(size)))
        except np.linalg.LinAlgError:
            continue
        step = cho_solve(factor, scaled_gradient)
        return step / size, float(scaled_gradient @ step)
    return np.zeros(len(size)), float("inf")


def _line_search(system: _System, theta: Array, value: float, step: Array, decrement: float) -> tuple[Array, float]:
    """Halve the step until the log-likelihood rises, up to rounding."""
    length, rounding = 1.0, 1e-13 * (abs(value) + len(system.first.E))
    for _ in range(MOST_HALVINGS):
        trial = theta + length * step
        found = system.loglik(trial)
        if found >= value + 1e-4 * length * decrement - rounding:
            return trial, found
        length *= 0.5
    return theta, value


def _natural(system: _System, theta: Array, scores: Array, H: Array, certificate: Certificate) -> PairFit:
    """Map theta to (first, second, log scales) (eq. 84)."""
    k = system.first.E.shape[1]
    first, first_scale, J_first = system.first.natural(theta[:k])
    second, second_scale, J_second = system.second.natural(theta[k:])
    last = system.inverse_scales
    order = [i for i in range(len(theta)) if i not in last] + last
    J = block_diag(J_first, J_second)[order]
    V = J @ np.linalg.inv(-H) @ J.T
    return PairFit(
        rho=system.rho,
        first=first,
        second=second,
        scales=np.array([first_scale] if system.signs is not None else [first_scale, second_scale]),
        vcov=0.5 * (V + V.T),
        scores=scores @ np.linalg.inv(J),
        loglik=system.loglik(theta),
        certificate=certificate,
    )
