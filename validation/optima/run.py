"""Is a certified optimum the best? 3,600 data sets of 12 kinds, each fitted and searched independently.

python validation/optima/run.py [--sets N] [--jobs N] [--out FOLDER]

Every data set is fitted with the defaults; then ``search.py``, which shares no code with the package, searches from ten
wide starts. Pieces are kept in validation/optima/pieces/ (not committed), so an interrupted run goes on where it
stopped. results.csv and report.md are written when all data sets are there.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import scipy
from tqdm import tqdm

import mlmed
from mlmed.errors import MlmedError, MlmedWarning

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

sys.path.insert(0, str(HERE.parent.parent))

from exact import exact_loglik, in_users_units  # noqa: E402
from kinds import KINDS, SEED, Asked, simulated  # noqa: E402
from search import model_of, search  # noqa: E402

PIECES = HERE / "pieces"
#: Data sets of a kind, of a piece; starts of the independent search; log-likelihood gain that counts as beaten.
SETS, PIECE, STARTS, BEATEN = 300, 25, 10, 1e-6


def fitted(asked: Asked) -> mlmed.results.results.Results:
    """The fit with default settings."""
    if asked.several:
        texts = ["m ~ x + (1 + x |i| id)", "y ~ x + (1 + x |i| id)"]
        return mlmed.mixed(texts, asked.data, residual="unstructured")
    return mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", asked.data)


def judged(kind: str, k: int) -> dict[str, object]:
    """One row: the fit, the best end of the independent search."""
    asked = simulated(kind, k)
    row: dict[str, object] = {"kind": kind, "k": k, "llf": np.nan, "certified": False, "singular": False}
    row |= {"starts": 0, "optima": 0, "error": ""}
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        try:
            fit = fitted(asked)
        except (MlmedError, np.linalg.LinAlgError) as error:
            row["error"] = f"{type(error).__name__}: {str(error)[:100]}"
        else:
            glance = fit.glance().iloc[0]
            row |= {"llf": fit.llf, "certified": bool(fit.converged), "singular": bool(fit.is_singular)}
            row |= {"starts": int(glance["n_starts"]), "optima": int(glance["n_optima"])}
    row["fit_seconds"] = round(time.process_time() - began, 4)
    began = time.process_time()
    at = list(KINDS).index(kind)
    model = model_of(asked.data, several=asked.several)
    found = search(model, np.random.default_rng([SEED, at, k, 1]), starts=STARTS)
    row |= {"search": found.loglik, "reached": found.reached, "search_seconds": round(time.process_time() - began, 4)}
    row |= {"exact_defeat": np.nan}
    if row["certified"] and found.loglik - row["llf"] > BEATEN and not asked.several:  # rounding of which side?
        ends = in_users_units(asked.data, *model.parts(found.theta)), (fit.G.to_numpy(), fit.sigma2.to_numpy())
        row["exact_defeat"] = float(np.subtract(*(exact_loglik(asked.data, *end) for end in ends)))
    return row


def piece(kind: str, first: int, last: int) -> None:
    """Compute data sets ``first`` to ``last - 1`` of a kind, unless they exist."""
    path = PIECES / f"{list(KINDS).index(kind):02d}-{first:04d}-{last:04d}.csv"
    if path.exists():
        return
    table = pd.DataFrame([judged(kind, k) for k in range(first, last)])
    partial = path.with_suffix(".part")
    table.to_csv(partial, index=False)
    partial.replace(path)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row per kind, and all."""
    table = table.assign(defeat=table["exact_defeat"].fillna(table["search"] - table["llf"]))
    rows = []
    for kind, own in [*table.groupby("kind", sort=False), ("all", table)]:
        certified = own[own["certified"]]
        beaten = certified[certified["defeat"] > BEATEN]
        others = own[~own["certified"] & own["error"].isna()]
        rows.append(
            {
                "kind": kind,
                "data sets": len(own),
                "certified": len(certified),
                "singular": int(certified["singular"].sum()),
                "several optima": int((certified["optima"] > 1).sum()),
                "beaten": len(beaten),
                "search's rounding": int(certified["exact_defeat"].le(BEATEN).sum()),
                "largest defeat": float(certified["defeat"].max()) if len(certified) else np.nan,
                "search behind": int((certified["defeat"] < -1e-4).sum()),
                "not certified": len(others),
                "refused": int(own["error"].notna().sum()),
                "ms per fit (median)": 1e3 * float(own["fit_seconds"].median()),
            }
        )
    return pd.DataFrame(rows)


def report(table: pd.DataFrame, sets: int) -> str:
    """The report as markdown."""
    shown = summary(table)
    whole = shown.iloc[-1]
    lines = [
        "# Is a certified optimum the best?",
        "",
        f"{len(table):,} data sets ({len(KINDS)} kinds, {sets} of each), seed {SEED}, made by `kinds.py`. Each was "
        f"fitted with the defaults; `search.py`, which shares no code with the package, searched from {STARTS} wide "
        "starts.",
        "",
        f"Date {datetime.date.today().isoformat()}; mlmed {mlmed.__version__}, numpy {np.__version__}, scipy "
        f"{scipy.__version__}, Python {platform.python_version()}. Run again: `make validate-optima`.",
        "",
        f"**Certified fits that the search beats by more than {BEATEN:g} log-likelihood units: {whole['beaten']} of "
        f"{whole['certified']:,} (asked: 0).**",
        "",
        "| " + " | ".join(shown.columns) + " |",
        "|" + "---|" * len(shown.columns),
    ]
    for _, row in shown.iterrows():
        cells = [f"{v:.2g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "*Several optima*: the fit found more than one. *Largest defeat*: highest log-likelihood of the search less "
        "that of a certified fit; negative where the search did not reach the fit. Where the search says that it is "
        f"better by more than {BEATEN:g}, both points are judged by the density in decimal arithmetic with 50 digits "
        "(`exact.py`), as sums of products lose digits where slopes are huge; *search's rounding* counts what was not "
        "better then. *Search behind*: certified fits that the search missed by more than 1e-4. *Refused*: an error, "
        "as for data that do not determine the model; results.csv has it.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run missing pieces; write the results when all exist."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=SETS, help="data sets of each kind")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of report.md and results.csv, where fewer data sets ran")
    asked = parser.parse_args()
    if asked.sets != SETS and asked.out is None:
        parser.error(f"with other than {SETS} data sets of a kind say where the results go (--out)")
    PIECES.mkdir(exist_ok=True)
    tasks = [(kind, first, min(first + PIECE, asked.sets)) for first in range(0, asked.sets, PIECE) for kind in KINDS]
    run = joblib.Parallel(n_jobs=asked.jobs, return_as="generator_unordered")
    for _ in tqdm(run(joblib.delayed(piece)(*task) for task in tasks), total=len(tasks)):
        pass
    names = [f"{list(KINDS).index(kind):02d}-{first:04d}-{last:04d}.csv" for kind, first, last in tasks]
    table = pd.concat([pd.read_csv(PIECES / name) for name in sorted(names)], ignore_index=True)
    out = asked.out or HERE
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "results.csv", index=False)
    (out / "report.md").write_text(report(table, asked.sets), encoding="utf-8")
    print(summary(table).to_string(index=False))


if __name__ == "__main__":
    main()
