"""Coverage of confidence and prediction intervals of two responses, by number of clusters.

    python validation/predictions/run.py [--sets 200]

Writes report.md beside this file. Two responses on x, each with random intercept and slope (all correlated), and
correlated residuals; predictions for new rows of fitted clusters and of a new cluster.
"""

from __future__ import annotations

import argparse
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

import mlmed
from mlmed.atomic import write_text

HERE = Path(__file__).resolve().parent
SIZES = ((100, 8), (30, 6), (10, 5))
SD, RHO = np.array([0.8, 0.4, 0.7, 0.3]), 0.3
G = np.outer(SD, SD) * (RHO + (1.0 - RHO) * np.eye(4))
SIGMA = np.array([[0.6, 0.2], [0.2, 0.5]])
BETA = np.array([[0.2, 0.5], [-0.3, 0.1]])
FORMULAS = ["y0 ~ x + (1 + x |c| id)", "y1 ~ x + (1 + x |c| id)"]


def drawn(J: int, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of J + 1 clusters with their expected values; cluster J and the last row of the others are not fitted."""
    codes, x = np.repeat(np.arange(J + 1), n + 1), rng.standard_normal((J + 1) * (n + 1))
    u = rng.standard_normal((J + 1, 4)) @ np.linalg.cholesky(G).T
    e = rng.standard_normal((len(x), 2)) @ np.linalg.cholesky(SIGMA).T
    data = pd.DataFrame({"id": codes, "x": x, "fitted": (np.arange(len(x)) % (n + 1) < n) & (codes < J)})
    for r in range(2):
        data[f"mean{r}"] = BETA[r, 0] + u[codes, 2 * r] + (BETA[r, 1] + u[codes, 2 * r + 1]) * x
        data[f"population{r}"] = BETA[r, 0] + BETA[r, 1] * x
        data[f"y{r}"] = data[f"mean{r}"] + e[:, r]
    return data


def covered(J: int, n: int, seed: int) -> dict[str, float]:
    """Coverage of the intervals in one data set."""
    data = drawn(J, n, np.random.default_rng([J, n, seed]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some sets are singular
        fit = mlmed.mixed(FORMULAS, data[data["fitted"]], residual="unstructured")
    new = data[~data["fitted"]]
    old, unknown = new[new["id"] < J], new[new["id"] == J]
    cases = {
        "population, confidence": (old, "population", "confidence", "population"),
        "old cluster, confidence": (old, "cluster", "confidence", "mean"),
        "old cluster, prediction": (old, "cluster", "prediction", "y"),
        "new cluster, confidence": (unknown, "cluster", "confidence", "mean"),
        "new cluster, prediction": (unknown, "cluster", "prediction", "y"),
    }
    found = {}
    for name, (rows, level, interval, truth) in cases.items():
        table = fit.predict(rows, of=level, interval=interval)
        target = np.concatenate([rows[f"{truth}{r}"] for r in range(2)])
        found[name] = float(((table["conf_low"] <= target) & (target <= table["conf_high"])).mean())
    return found


#: Sets of data of the committed report.
SETS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS)
    sets = parser.parse_args().sets
    columns = {}
    for J, n in SIZES:
        table = pd.DataFrame([covered(J, n, seed) for seed in range(sets)])
        error = table.std() / np.sqrt(sets)
        columns[f"{J} x {n}"] = [f"{m:.3f} ({s:.3f})" for m, s in zip(table.mean(), error, strict=True)]
    lines = ["# Coverage of predictions", ""]
    lines += [f"{date.today().isoformat()}, mlmed {mlmed.__version__}, numpy {np.__version__}; seeds 0 to {sets - 1}. "]
    lines[-1] += f"Nominal 95%; clusters x rows; {sets} sets each, Monte Carlo standard errors in brackets."
    lines += ["", f"| interval | {' | '.join(columns)} |", "|---|" + "--:|" * len(columns)]
    lines += [f"| {name} | {' | '.join(own)} |" for name, *own in zip(table.columns, *columns.values(), strict=True)]
    lines += [
        "",
        "Variances are taken as known, so intervals for the expected value of a cluster that was fitted are too",
    ]
    lines += ["narrow where there are few clusters. Made by `make validate-predictions`."]
    name = "report.md" if sets == SETS else "partial.md"  # the committed report has all sets
    write_text(HERE / name, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
