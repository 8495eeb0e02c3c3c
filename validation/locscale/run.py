"""Bias and coverage of the location-scale model over simulated data; writes validation/locscale/report.md.

python validation/locscale/run.py [replicates]

Two conditions at the same truth. The downward bias of ML standard deviations is of order 1 / clusters, the Monte Carlo
error of order 1 / sqrt(clusters): with more clusters this bias must vanish in the error.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import mlmed
from mlmed.atomic import write_text
from mlmed.errors import MlmedWarning
from mlmed.reproduce.summaries import sd_cor

#: y = 1 + 0.5 x + u, log residual sd = -0.3 + 0.2 w + t.
TRUTH = {
    "Intercept": 1.0,
    "x": 0.5,
    "sigma~Intercept": -0.3,
    "sigma~w": 0.2,
    "sd(Intercept)": 0.8,
    "sd(sigma~Intercept)": 0.4,
    "cor(Intercept,sigma~Intercept)": -0.3,
}
#: Clusters, rows per cluster, seed. With one seed the first clusters of the second would be those of the first.
CONDITIONS = ((200, 20, 20), (1000, 20, 21))

#: Requirements: largest bias in Monte Carlo errors, range of coverage.
MOST_BIAS, LEAST_COVERAGE, MOST_COVERAGE = 2.0, 0.93, 0.97

#: Parameters also estimated from the true random effects, which shows the chance deviation of the draws.
RANDOM = ("sd(Intercept)", "sd(sigma~Intercept)", "cor(Intercept,sigma~Intercept)")


def simulated(J: int, n: int, rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, float]]:
    sd, sd_scale = TRUTH["sd(Intercept)"], TRUTH["sd(sigma~Intercept)"]
    cov = TRUTH["cor(Intercept,sigma~Intercept)"] * sd * sd_scale
    b = rng.multivariate_normal([0.0, 0.0], [[sd**2, cov], [cov, sd_scale**2]], size=J)
    g = np.repeat(np.arange(J), n)
    x, w, e = rng.normal(size=(3, J * n))
    y = 1.0 + 0.5 * x + b[g, 0] + np.exp(-0.3 + 0.2 * w + b[g, 1]) * e
    drawn = dict(zip(RANDOM, (*b.std(axis=0), np.corrcoef(b.T)[0, 1]), strict=True))
    return pd.DataFrame({"g": g, "x": x, "w": w, "y": y}), drawn


def study(replicates: int, J: int, n: int, seed: int) -> tuple[pd.DataFrame, dict[str, float]]:
    """One row per parameter: mean, bias, its Monte Carlo error, mean std error, coverage; certificates and time."""
    found, drawn, uncertified, singular = [], [], 0, 0
    began = time.perf_counter()
    for child in np.random.SeedSequence(seed).spawn(replicates):
        data, effects = simulated(J, n, np.random.default_rng(child))
        drawn.append(effects)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MlmedWarning)
            fit = mlmed.location_scale("y ~ x + (1 |c| g)", "~ w + (1 |c| g)", data)
        uncertified, singular = uncertified + (not fit.converged), singular + fit.is_singular
        found.append(sd_cor(fit).set_index("term").loc[list(TRUTH)])
    seconds = (time.perf_counter() - began) / replicates
    rows = []
    for term, truth in TRUTH.items():
        part = pd.DataFrame([table.loc[term] for table in found])
        estimate = part["estimate"].astype(float).reset_index(drop=True)
        error = estimate.std() / np.sqrt(replicates)
        seen = np.array([effects.get(term, np.nan) for effects in drawn])
        inside = (part["conf_low"] <= truth) & (truth <= part["conf_high"])
        rows.append(
            {
                "term": term,
                "truth": truth,
                "mean": estimate.mean(),
                "bias": estimate.mean() - truth,
                "mc_error": error,
                "bias_in_mc_errors": (estimate.mean() - truth) / error,
                "sd": estimate.std(),
                "mean_std_error": part["std_error"].astype(float).mean(),
                "coverage": inside.mean(),
                "drawn_bias": seen.mean() - truth,
                "own_bias": (estimate - seen).mean(),
                "own_mc_error": (estimate - seen).std() / np.sqrt(replicates),
            }
        )
    return pd.DataFrame(rows), {"uncertified": uncertified, "singular": singular, "seconds": seconds}


def verdict(table: pd.DataFrame) -> str:
    """The requirements of a condition, and the parameters that miss them."""
    far = table.loc[table["bias_in_mc_errors"].abs() > MOST_BIAS]
    outside = table.loc[~table["coverage"].round(4).between(LEAST_COVERAGE, MOST_COVERAGE)]
    bias = ", ".join(f"{row.term} ({row.bias_in_mc_errors:.2f})" for row in far.itertuples())
    coverage = ", ".join(f"{row.term} ({100 * row.coverage:.1f}%)" for row in outside.itertuples())
    return (
        f"Asked: bias within {MOST_BIAS:g} Monte Carlo errors: {f'missed by {bias}' if bias else 'met by all'}. Asked: "
        f"coverage of {100 * LEAST_COVERAGE:g} to {100 * MOST_COVERAGE:g}%: "
        f"{f'missed by {coverage}' if coverage else 'met by all'}."
    )


def section(replicates: int, J: int, n: int, seed: int) -> list[str]:
    """Lines of the report on one condition."""
    table, extra = study(replicates, J, n, seed)
    return [
        f"## {J} clusters of {n} rows",
        "",
        f"{replicates} replicates, seed {seed}; {extra['uncertified']} not certified, {extra['singular']} singular; "
        f"{extra['seconds']:.2f} s a fit. {verdict(table)}",
        "",
        "| " + " | ".join(table.columns) + " |",
        "|" + "---|" * len(table.columns),
        *("| " + " | ".join(v if isinstance(v, str) else f"{v:.4f}" for v in row) + " |" for row in table.to_numpy()),
        "",
    ]


#: Replicates of the committed report.
REPLICATES = 200


def main(replicates: int = REPLICATES) -> None:
    lines = [
        "# Location-scale model: simulated data",
        "",
        "y = 1 + 0.5 x + u, log residual sd = -0.3 + 0.2 w + t. Nominal coverage 0.95; its Monte Carlo error is "
        f"{np.sqrt(0.95 * 0.05 / replicates):.3f}.",
        "",
        "`drawn_bias` is the same mean for the effects that were drawn, had they been seen (divisor J, as ML has it): "
        "the part of the bias that these draws and the divisor would give to anyone. `own_bias` is the mean of "
        "estimate less drawn value, what estimation adds; `own_mc_error` is its Monte Carlo error.",
        "",
        "Sds of maximum likelihood are too small: with the effects seen, by 3/(4 J) of an sd, which is -0.0030 of 0.8 "
        "with 200 clusters and -0.0006 with 1000. That much of `drawn_bias` is bias, a tenth of a standard error and "
        "less. The rest of it is the chance of these draws: in the first condition most of the -0.0084 of "
        "sd(Intercept), while estimation adds 0.0002 with an error of 0.0009. So the sds that miss the bar there miss "
        "it mostly by the draws. With shorter or fewer clusters estimation adds more than this divisor.",
        "",
        "The second condition was first run with seed 20, where its first 200 clusters are those of the first "
        "condition, so that they share chance: the sds were -2.73 and -1.93 Monte Carlo errors away, drawn_bias "
        "-0.0031 and -0.0012, own_bias -0.0005 and -0.0003. It has a seed of its own since.",
        "",
    ]
    for J, n, seed in CONDITIONS:
        lines += section(replicates, J, n, seed)
    name = "report.md" if replicates == REPLICATES else "partial.md"  # the committed report has all replicates
    write_text(Path(__file__).with_name(name), "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
