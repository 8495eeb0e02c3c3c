"""The likelihood-ratio statistic and the reference for a variance at its boundary (docs/math.md, eq. 42)."""

from __future__ import annotations

from scipy.special import chdtrc

__all__ = ["NO_DIFFERENCE", "lr_statistic", "mixture_p"]

#: Twice a difference of log-likelihoods below this is the rounding of zero.
NO_DIFFERENCE = 1e-6


def lr_statistic(drop: float) -> float:
    """Twice a drop of the log-likelihood, exactly 0 where it is rounding."""
    return 2.0 * drop if 2.0 * drop > NO_DIFFERENCE else 0.0


def mixture_p(chi2: float, df: int) -> float:
    """P value of the equal mixture of chi2(df - 1) and chi2(df); chi2(0) is the value 0.

    With df - 1 covariances beside the variance the mixture is the limit for many clusters. It is conservative before:
    the other variances bound the covariances, so they cannot use all their freedom.
    """
    upper = float(chdtrc(df, chi2))
    lower = float(chdtrc(df - 1, chi2)) if df > 1 else float(chi2 <= 0.0)
    return 0.5 * (lower + upper)
