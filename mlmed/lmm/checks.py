"""Checks of an equation's cross-products before it is fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf

from mlmed.data.columns import MANY_COLUMNS
from mlmed.data.grams import Grams, column_sums, rest_share, unpacked
from mlmed.data.layout import INTERCEPT, EquationLayout
from mlmed.data.roots import NO_DIGITS
from mlmed.errors import DataError, NotIdentifiedError
from mlmed.limits import LARGEST, SMALLEST, rescaled_by, unusual_size

Array = NDArray[np.float64]

#: Share of a column unexplained by others (or within clusters) below which it counts as collinear (or constant).
COLLINEAR = 1e-11
#: Share of a response within clusters left unexplained by predictors and other responses, below which it repeats them:
#: a correlation of .9999995. Cross-products hold such a share to nine digits, so the order of rows does not matter.
REPEATED = 1e-6
#: Share of a random effect's columns, over all clusters, left by the fixed effects, below which it counts as zero.
ABSORBED = 1e-9
#: A variance below this share of the mean square is the rounding error of zero.
CONSTANT = 1e-13
#: Cluster mean of a column, in its sds, below which it is the rounding error of zero (data kept to 6 digits).
CENTRED = 1e-6


def refuse_one_cluster(equation: str, clusters: int, group: str) -> None:
    """Refuse fewer than two clusters."""
    if clusters < 2:
        raise DataError(
            f"equation {equation} has {clusters} cluster with complete rows ({group}); a multilevel model needs "
            "at least two"
        )


def refuse_constant(equation: EquationLayout, total: Array, grams: Grams) -> None:
    """Refuse a constant response, a constant predictor beside an intercept, or a random effect's column of zeros.

    ``total``: (K, K) sums.
    """
    n = total[0, 0]
    fixed = {equation.response_at, *(equation.fixed_at if INTERCEPT in equation.fixed else ())}
    for k in sorted({*fixed, *equation.random_at} - {0}):
        mean = total[0, k] / n
        if total[k, k] / n - mean**2 > CONSTANT * total[k, k] / n:
            continue
        value = grams.shift[k] + grams.scale[k] * mean
        if k not in fixed:
            if value == 0.0:
                raise DataError(
                    f"the random effect {grams.columns[k]!r} is 0 in all rows of equation {equation.name}, so it has "
                    "no variance; remove it"
                )
            continue
        if k == equation.response_at:
            raise DataError(
                f"the response {equation.name!r} is constant ({value:g}) in the rows of its equation; choose "
                "another response"
            )
        raise DataError(
            f"the predictor {grams.columns[k]!r} is constant ({value:g}) in the rows of equation {equation.name}, so "
            "its effect cannot be told from the intercept; remove it"
        )


def refuse_scales(equation: EquationLayout, grams: Grams) -> None:
    """Refuse columns whose coefficients, or their variances, would leave the range of floating point."""
    response = equation.response_at
    columns = sorted({response, *equation.fixed_at, *equation.random_at} - {0})
    for k in columns:
        error = unusual_size(grams.columns[k], float(grams.scale[k]))
        if error is not None:
            raise error
    for k in columns:
        ratio = float(grams.scale[response] / grams.scale[k])
        if SMALLEST <= ratio <= LARGEST:
            continue
        far = max((k, response), key=lambda at: abs(float(np.log10(grams.scale[at]))))
        raise DataError(
            f"equation {equation.name}: the response has standard deviation {grams.scale[response]:.3g} and the "
            f"predictor {grams.columns[k]!r} {grams.scale[k]:.3g}, so its coefficient is of size {ratio:.3g}; standard "
            "errors of variances take fourth powers of such numbers, which overflow or vanish; multiply "
            f"{grams.columns[far]!r} by {rescaled_by(float(grams.scale[far]))}"
        )


def refuse_lost_digits(equation: int, name: str, grams: Grams) -> None:
    """Refuse a response whose residual share is below the digits of its cross-products, where no rows are at hand."""
    is_wide = len(grams.columns) >= MANY_COLUMNS  # no roots are computed
    if grams.roots.of_rows if grams.roots is not None else not is_wide:
        return
    share = rest_share(grams, equation)
    if share <= NO_DIGITS:
        instead = (
            f"with {MANY_COLUMNS} columns and more; use fewer, or divide by a predictor with huge slopes"
            if is_wide
            else "from an engine or from stored Grams; fit a data frame in memory, whose rows hold it"
        )
        raise DataError(
            f"equation {name}: predictors leave {share:.1e} of the squares of the response within clusters. "
            f"Cross-products hold shares down to {NO_DIGITS:g} to six digits and no less, so the residual variance "
            f"cannot be computed {instead}"
        )


def refuse_collinear(cross: Array, equation: str, names: tuple[str, ...]) -> None:
    """Refuse a fixed-effects column that is zero or a linear combination of those before it."""
    empty = np.flatnonzero(np.diag(cross) == 0.0)
    if len(empty):
        raise NotIdentifiedError(
            f"equation {equation}: the column {names[int(empty[0])]!r} is 0 in every row that is used, so nothing "
            "is known of its effect; remove it"
        )
    scale = np.sqrt(np.diag(cross))
    scaled = cross / np.outer(scale, scale)
    factor, failed = dpotrf(scaled, lower=1)
    if not failed and float((factor.diagonal() ** 2).min()) > 2.0 * COLLINEAR:
        return
    rest = scaled.copy()  # find the column by sweeping one after the other
    done: list[int] = []
    for k in range(len(names)):
        if rest[k, k] < COLLINEAR:
            weights = np.linalg.lstsq(scaled[np.ix_(done, done)], scaled[done, k], rcond=None)[0]
            involved = [names[j] for j, w in zip(done, weights, strict=True) if abs(w) > 1e-6]
            raise NotIdentifiedError(
                f"equation {equation}: the column {names[k]!r} is a linear combination of "
                f"{', '.join(involved) or 'the others'}, so their effects cannot be told apart; remove one of them",
                code=f"collinear {equation}",
            )
        done.append(k)
        rest[k + 1 :, k + 1 :] -= np.outer(rest[k + 1 :, k] / rest[k, k], rest[k + 1 :, k])


def within_share(grams: Grams, equation: int, k: int) -> float:
    """Share of the sum of squares of Gram column k, in the rows of an equation, that lies within clusters."""
    n, sums, squares = (column_sums(grams, equation, *at) for at in ((0,), (k,), (k, k)))
    within = squares - np.divide(sums**2, n, out=np.zeros_like(sums), where=n > 0)
    return float(within.sum() / squares.sum())


def refuse_between(equation: str, grams: Grams, number: int, response_at: int) -> None:
    """Refuse a response without variation within clusters: it is a variable of the clusters, not of their rows."""
    counts = column_sums(grams, number, 0)
    rows, clusters = float(counts.sum()), int((counts > 0.0).sum())
    if rows == clusters:
        raise NotIdentifiedError(
            f"equation {equation} has {clusters} rows in {clusters} clusters, one each, so what differs between "
            "clusters cannot be told from what differs within them; check the cluster variable, or use an ordinary "
            "regression",
            code=f"one-row-a-cluster {equation}",
        )
    if within_share(grams, number, response_at) <= COLLINEAR:
        raise NotIdentifiedError(
            f"the response {equation} does not vary within clusters, so it is a variable of the clusters: a model of "
            "rows in clusters cannot be fitted; use one row per cluster and an ordinary regression",
            code=f"between {equation}",
        )


def refuse_few_rows(equation: str, nobs: int, fixed: int) -> None:
    """Refuse an equation without more rows than fixed effects."""
    if nobs <= fixed:
        raise NotIdentifiedError(
            f"equation {equation} has {nobs} rows for {fixed} fixed effects; remove predictors or add rows",
            code=f"few-rows {equation}",
        )


def refuse_absorbed(equation: str, names: tuple[str, ...], absorbed: NDArray[np.bool_]) -> None:
    """Refuse random effects in the span of the fixed effects, (q_r,) flags: REML does not depend on their variance."""
    if absorbed.any():
        name = names[int(np.flatnonzero(absorbed)[0])]
        raise NotIdentifiedError(
            f"equation {equation}: the fixed effects hold {name} of every cluster, so under REML nothing is left "
            f"to tell the variance of the random effect {name} from; remove the random effect, or the fixed "
            "effects of the clusters",
            code=f"absorbed {equation}",
        )


def absorbed_effects(A: Array, B: Array, cross: Array) -> NDArray[np.bool_]:
    """Which random effects have their columns, one per cluster, in the span of the fixed effects, (q_r,).

    Parameters
    ----------
    A, B : (q_r, J), (q_r, p_r, J) arrays
        Squares of the columns of Z_r by cluster, and Z_r'X_r.
    cross : (p_r, p_r) array
        X_r'X_r.
    """
    wide = B.transpose(1, 0, 2).reshape(len(cross), -1)  # X'Z, all clusters side by side
    made = (wide * np.linalg.solve(cross, wide)).sum(axis=0).reshape(len(A), -1).sum(axis=1)
    return np.asarray(1.0 - made / A.sum(axis=1) < ABSORBED)


def refuse_unpaired(names: tuple[str, ...], observed: NDArray[np.bool_], nobs: Array) -> None:
    """Refuse residual covariances without rows that have both responses; ``observed`` (P, R), ``nobs`` (P,)."""
    counts = observed.T @ (nobs[:, None] * observed)
    for r in range(len(names)):
        for s in range(r):
            if counts[r, s] < 2.0:
                raise NotIdentifiedError(
                    f"the responses {names[s]} and {names[r]} are complete together in {counts[r, s]:g} row(s), so "
                    "nothing is known of their residual correlation; use residual='diagonal'",
                    code=f"unpaired {names[s]} {names[r]}",
                )


def refuse_repeated(grams: Grams) -> None:
    """Refuse a response collinear, within clusters, with others and predictors: residuals have no joint density."""
    for pattern, packed in zip(grams.patterns, grams.products, strict=True):
        equations = [e for e, own in zip(grams.layout.equations, pattern, strict=True) if own]
        responses = [e.response_at for e in equations]
        predictors = sorted({k for e in equations for k in (*e.fixed_at, *e.random_at)} - {0, *responses})
        order = [*predictors, *responses]
        full = unpacked(packed)[np.ix_([0, *order], [0, *order])]
        if len(equations) < 2 or float(np.maximum(full[0, 0] - 1.0, 0.0).sum()) <= len(order):
            continue
        means = np.divide(full[0], full[0, 0], out=np.zeros_like(full[0]), where=full[0, 0] > 0.0)
        within = (full - means[:, None] * full[0][None])[1:, 1:].sum(axis=2)
        repeated = _made_up(within, len(predictors))
        if repeated is not None:
            names = [grams.columns[k] for k in order]
            others = [name for name in names[len(predictors) :] if name != names[repeated]]
            raise NotIdentifiedError(
                f"the response {names[repeated]!r} is within clusters a linear combination of {', '.join(others)} and "
                "the predictors, so their residual covariance is singular; remove one of these responses",
                code=f"repeated {names[repeated]}",
            )


def _made_up(cross: Array, first: int) -> int | None:
    """The first column from ``first`` on that is collinear with others from there, given the columns before ``first``.

    Shares are of a response's residual after the predictors: a trend may explain nearly all of the response.
    """
    size = np.sqrt(np.diag(cross))
    size = np.where(size > 0.0, size, 1.0)
    rest = cross / np.outer(size, size)
    given = np.diag(rest).copy()  # residual sum of squares of each column after the predictors
    for k in range(len(rest)):
        if k <= first:
            given = np.diag(rest).copy()
        if rest[k, k] <= max(REPEATED * given[k] if k >= first else 0.0, COLLINEAR):
            if k >= first and given[k] > COLLINEAR:
                return k
            continue
        rest = rest - np.outer(rest[:, k], rest[:, k]) / rest[k, k]
    return None


def empty_intercepts(grams: Grams) -> tuple[int, ...]:
    """Positions in u of random intercepts whose equation has no column that varies between clusters.

    If the response and all fixed columns have the same mean in every cluster, and the random ones sum to zero there,
    the data hold no differences between clusters: the intercepts' variance is estimated as 0, so their covariances
    with slopes must be 0, and derivatives in these are meaningless.
    """
    found: list[int] = []
    first = 0
    for r, equation in enumerate(grams.layout.equations):
        centred = _is_centred(grams, r, equation)
        found += [first + k for k, name in enumerate(equation.random) if name == INTERCEPT and centred]
        first += len(equation.random)
    return tuple(found)


def _is_centred(grams: Grams, r: int, equation: EquationLayout) -> bool:
    """Whether no column of an equation but the constant has a mean that differs between clusters."""
    n = column_sums(grams, r, 0)
    columns, varying = ({*at} - {0} for at in ((equation.response_at, *equation.fixed_at), equation.random_at))
    if INTERCEPT not in equation.fixed:  # no intercept absorbs the means
        varying, columns = columns | varying, set()
    shift = grams.shift / grams.scale
    moved = ((k, 0.0 if k in columns else float(shift[k])) for k in (*columns, *varying))
    return all(bool(np.all(np.abs(column_sums(grams, r, k) + n * by) <= CENTRED * n)) for k, by in moved)
