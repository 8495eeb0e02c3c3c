"""Bias and coverage of effects on simulated data with a stated truth: several mediators, moderators.

    python validation/recovery/run.py [--sets 300] [--jobs 1] [--kinds parallel serial]

Writes report.md beside this file; with fewer sets or kinds partial.md.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import scipy

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import mlmed
from mlmed.atomic import write_text
from validation.recovery.kinds import KINDS

HERE = Path(__file__).resolve().parent
#: Sets of data of the committed report.
SETS = 300


def one_set(name: str, seed: int) -> pd.DataFrame:
    """Estimates of one data set, and whether their intervals contain the truth."""
    kind = KINDS[name]
    data = kind.draw(np.random.default_rng([list(KINDS).index(name), seed]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlmed.errors.MlmedWarning)  # some sets are singular
        fit = kind.fit(data)
    delta = fit.nlcom({term: term for term in kind.truth}, vcov="joint", at=kind.at).set_index("term")
    rows = []
    for term, truth in kind.truth.items():
        low, high = fit.profile(term, at=kind.at, points=4).interval
        own = delta.loc[term]
        rows.append(
            {
                "kind": name,
                "term": term,
                "truth": truth,
                "error": own["estimate"] - truth,
                "delta": own["conf_low"] <= truth <= own["conf_high"],
                "profile": low <= truth <= high,
                "certified": fit.converged,
                "singular": fit.is_singular,
            }
        )
    return pd.DataFrame(rows)


def report(found: pd.DataFrame, sets: int) -> str:
    """The table of the report."""
    seeds = f"seeds 0 to {sets - 1}"
    lines = [
        "# Recovery of effects",
        "",
        f"{date.today().isoformat()}, mlmed {mlmed.__version__}, numpy {np.__version__}, scipy {scipy.__version__}; "
        f"{seeds}. {sets} sets of 150 clusters of 10 rows of each kind (kinds.py); REML; nominal 95%.",
        "",
        "| kind | term | truth | bias | in Monte Carlo errors | delta, joint | profile |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for (kind, term), rows in found.groupby(["kind", "term"], sort=False):
        bias = rows["error"].mean()
        error = rows["error"].std() / np.sqrt(len(rows))
        covered = " | ".join(f"{100 * rows[column].mean():.1f}%" for column in ("delta", "profile"))
        lines.append(f"| {kind} | {term} | {rows['truth'].iloc[0]:.4f} | {bias:.4f} | {bias / error:.1f} | {covered} |")
    once = found.drop_duplicates(["kind", "seed"])
    counts = [
        f"{kind}: {int((~rows['certified']).sum())} not certified, {int(rows['singular'].sum())} singular"
        for kind, rows in once.groupby("kind", sort=False)
    ]
    lines += ["", f"{'; '.join(counts)}. A coverage of 95% has a Monte Carlo error of "]
    lines[-1] += f"{100 * np.sqrt(0.05 * 0.95 / sets):.1f}%. Made by `make validate-recovery`."
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args(arguments)
    asked = [(name, seed) for name in options.kinds for seed in range(options.sets)]
    parts = joblib.Parallel(n_jobs=options.jobs)(joblib.delayed(one_set)(*one) for one in asked)
    found = pd.concat([part.assign(seed=seed) for part, (_, seed) in zip(parts, asked, strict=True)])
    text = report(found, options.sets)
    whole = options.sets == SETS and options.kinds == list(KINDS)
    write_text(HERE / ("report.md" if whole else "partial.md"), text)
    print(text)


if __name__ == "__main__":
    main()
