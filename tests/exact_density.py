"""The density of a mixed model from its rows, in decimal arithmetic with 50 digits, nothing exploited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal, localcontext
from math import pi
from typing import Any

import numpy as np

#: Digits; the matrices have conditions of 1e14 and cancel to 1e-30 of their entries.
DIGITS = 50
#: pi to more digits than a double has.
LOG_2PI = (Decimal(2) * Decimal("3.14159265358979323846264338327950288419716939937510")).ln()
assert abs(float(LOG_2PI) - np.log(2 * pi)) < 1e-15

Exact = np.ndarray[Any, np.dtype[np.object_]]


def exact(values: Any) -> Exact:
    """The same numbers as decimals, without rounding."""
    array = np.asarray(values)
    return np.array([Decimal(v) if isinstance(v, float | int | Decimal) else Decimal(float(v)) for v in array.flat]
                    ).reshape(array.shape)  # fmt: skip


@contextmanager
def digits() -> Iterator[None]:
    """Decimal arithmetic with enough digits."""
    with localcontext() as context:
        context.prec = DIGITS
        yield


def inverse_and_logdet(V: Exact) -> tuple[Exact, Decimal]:
    """V^-1 and log|V| of a positive definite matrix, by Gauss and Jordan's elimination."""
    n = len(V)
    wide = np.concatenate([V, exact(np.eye(n))], axis=1)
    logdet = Decimal(0)
    for k in range(n):
        pivot = wide[k, k]
        assert pivot > 0
        logdet += pivot.ln()
        wide[k] = wide[k] / pivot
        for i in range(n):
            if i != k and wide[i, k] != 0:
                wide[i] = wide[i] - wide[i, k] * wide[k]
    return wide[:, n:], logdet


@dataclass(frozen=True)
class ExactRows:
    """One cluster: Z (n, q), [X y] (n, p + 1) and the equation of every row (n,)."""

    Z: Exact
    Xy: Exact
    equation: np.ndarray


@dataclass(frozen=True)
class ExactValue:
    """-2l, beta, its covariance, and derivatives of -2l in the entries of G and in the residual variances."""

    value: Decimal
    beta: Exact
    P_inv: Exact
    of_G: Exact
    of_sigma2: Exact


def exact_density(rows: list[ExactRows], G: Exact, sigma2: Exact, *, reml: bool) -> ExactValue:
    """The criterion at (G, sigma2), beta at its generalized least squares value."""
    p, N = rows[0].Xy.shape[1] - 1, sum(len(one.Z) for one in rows)
    S, value, kept = exact(np.zeros((p + 1, p + 1))), Decimal(0), []
    for one in rows:
        V = one.Z.dot(G).dot(one.Z.T)
        for i, r in enumerate(one.equation):
            V[i, i] += sigma2[r]
        inverse, logdet = inverse_and_logdet(V)
        moved = inverse.dot(one.Xy)
        value, S = value + logdet, S + one.Xy.T.dot(moved)
        kept.append((one, inverse, moved))
    P_inv, log_P = inverse_and_logdet(S[:p, :p])
    beta = P_inv.dot(S[:p, p])
    contrast = np.append(-beta, Decimal(1))
    value += contrast.dot(S).dot(contrast) + (N - (p if reml else 0)) * LOG_2PI + (log_P if reml else 0)
    weight = np.outer(contrast, contrast)
    if reml:
        weight[:p, :p] += P_inv
    q = kept[0][0].Z.shape[1]
    of_G, of_sigma2 = exact(np.zeros((q, q))), exact(np.zeros(len(sigma2)))
    for one, inverse, moved in kept:
        U = one.Z.T.dot(moved)
        of_G = of_G + one.Z.T.dot(inverse).dot(one.Z) - U.dot(weight).dot(U.T)
        own = np.diagonal(inverse) - (moved.dot(weight) * moved).sum(axis=1)
        for r in range(len(sigma2)):
            of_sigma2[r] += own[one.equation == r].sum()
    return ExactValue(value, beta, P_inv, of_G, of_sigma2)


def mediation_rows(data: Any) -> list[ExactRows]:
    """Clusters of ``m ~ x + (1 + x | id)`` and ``y ~ m + x + (1 + m + x | id)``."""
    found = []
    for _, own in data.groupby("id"):
        x, m, y = (own[name].to_numpy(dtype=float) for name in ("x", "m", "y"))
        n, zero = len(own), np.zeros(len(own))
        upper = np.column_stack([np.ones(n), x, zero, zero, zero, m])
        lower = np.column_stack([zero, zero, np.ones(n), m, x, y])
        both = exact(np.concatenate([upper, lower]))
        found.append(ExactRows(both[:, :5], both, np.repeat([0, 1], n)))
    return found
