"""Pieces -> one row per condition, interval and effect; and the tables of README.md."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from design import CELLS, SEED, Cell, truths
from methods import BOOTSTRAP_DRAWS, LEVEL, MONTE_CARLO_DRAWS, TERMS

import mlmed
from mlmed.atomic import write_text

__all__ = ["summarize", "write_summary"]


def _first_replicate(path: Path) -> int:
    return int(path.stem.split("_")[1].split("-")[0])


def _pieces(paths: Sequence[Path]) -> Iterator[tuple[str, Cell, dict[str, np.ndarray]]]:
    """All pieces of one study and cell, joined."""
    for study in sorted({path.parent.name for path in paths}):
        for cell in CELLS:
            own = [path for path in paths if path.parent.name == study and path.stem.split("_")[0] == cell.name]
            if own:
                loaded = [dict(np.load(path)) for path in sorted(own, key=_first_replicate)]
                joined = {key: np.concatenate([one[key] for one in loaded]) for key in loaded[0] if key != "methods"}
                yield study, cell, {**joined, "methods": loaded[0]["methods"]}


def _rows(study: str, cell: Cell, piece: dict[str, np.ndarray]) -> Iterator[dict[str, object]]:
    truth = truths(cell)
    converged, n = piece["converged"], len(piece["converged"])
    for m, method in enumerate(piece["methods"]):
        for t, term in enumerate(TERMS):
            low, high, error = piece["intervals"][:, m, t].T
            estimate = piece["estimates"][:, t]
            usable = converged & np.isfinite(low) & np.isfinite(high) | np.isinf(low) | np.isinf(high)
            if not usable.any():
                continue
            spread = float(estimate[converged].std(ddof=1))
            known = np.isfinite(error)
            above, below = truth[term] > high[usable], truth[term] < low[usable]
            yield {
                "study": study, "effects": "skewed" if cell.skewed else "normal", "clusters": cell.clusters,
                "size": cell.size, "path": cell.path, "cov_ab": cell.cov_ab, "interval": str(method), "term": term,
                "replicates": n, "without_interval": 1.0 - usable.mean(),
                "bias": float(estimate[converged].mean()) - truth[term], "sd": spread,
                "se_ratio": float(error[known].mean()) / spread if known.any() else np.nan,
                "coverage": 1.0 - float((above | below).mean()), "truth_below": float(below.mean()),
                "truth_above": float(above.mean()),
                "power": float(((low[usable] > 0.0) | (high[usable] < 0.0)).mean()),
                "width": float(np.median(high[usable] - low[usable])), "singular": float(piece["singular"].mean()),
                "not_converged": 1.0 - float(converged.mean()),
                "ms_fit": 1e3 * float(np.median(piece["seconds"][:, 0])),
                "ms_interval": 1e3 * float(np.median(piece["seconds"][:, 1])),
            }  # fmt: skip


def summarize(paths: Sequence[Path]) -> pd.DataFrame:
    """One row per study, condition, interval and effect."""
    return pd.DataFrame([row for study, cell, piece in _pieces(paths) for row in _rows(study, cell, piece)])


def _markdown(table: pd.DataFrame) -> str:
    header = [*(table.index.names if table.index.names[0] else []), *map(str, table.columns)]
    lines = ["| " + " | ".join(map(str, header)) + " |", "|" + "---|" * len(header)]
    for index, row in zip(table.index, table.to_numpy(), strict=True):
        keys = list(index) if isinstance(index, tuple) else [index]
        cells = [f"{value:.3f}".replace("0.", ".", 1) if np.isfinite(value) else "" for value in row]
        lines.append("| " + " | ".join([*map(str, keys), *cells]) + " |")
    return "\n".join(lines)


def _by_clusters(results: pd.DataFrame, term: str, value: str, effects: str) -> pd.DataFrame:
    chosen = results[(results["term"] == term) & (results["effects"] == effects)]
    chosen = chosen[chosen["study"].isin(["normal-theory", "profile"])]
    return chosen.pivot_table(index=["clusters", "size"], columns="interval", values=value, aggfunc="mean")


def _representative(results: pd.DataFrame, term: str, value: str) -> pd.DataFrame:
    """The costly intervals beside the cheap ones, in the eight conditions that have all of them."""
    conditions = ["effects", "clusters", "size", "path", "cov_ab"]
    costly = results[results["study"] == "case"][conditions].drop_duplicates()
    chosen = results.merge(costly, on=conditions)
    chosen = chosen[chosen["term"] == term].drop_duplicates([*conditions, "interval"])
    wide = chosen.pivot_table(index="interval", columns=conditions, values=value, sort=False)
    wide.columns = [f"{e} {j}x{n}, {p:g}, {c:g}" for e, j, n, p, c in wide.columns]
    wide["mean"] = wide.mean(axis=1)
    return wide


def write_summary(paths: Sequence[Path], out: Path) -> None:
    """Write results.csv and tables.md."""
    results = summarize(paths)
    write_text(out / "results.csv", results.round(6).to_csv(index=False))
    counts = results.groupby("study")["replicates"].agg(["min", "max"])
    lines = [
        "# Coverage study: tables",
        "",
        f"Written {date.today().isoformat()} by `validation/coverage/run.py`; mlmed {mlmed.__version__}, Python "
        f"{platform.python_version()}, numpy {np.__version__}; seed {SEED}; {100 * LEVEL:g}% intervals; "
        f"{MONTE_CARLO_DRAWS} Monte Carlo draws; {BOOTSTRAP_DRAWS} bootstrap replicates. All numbers: results.csv.",
        "",
        "Replicates a condition: " + ", ".join(f"{study} {least}" for study, least in counts["min"].items()) + ".",
        f"Fits that did not converge: {results['not_converged'].max():.6f} at most in any condition.",
    ]
    for term in ("indirect", "total", "b", "cov_ab"):
        for effects in ("normal", "skewed"):
            lines += ["", f"## Coverage of {term}, {effects} random effects (mean over paths and covariances)", ""]
            lines.append(_markdown(_by_clusters(results, term, "coverage", effects)))
    singular = results[(results["study"] == "normal-theory") & (results["term"] == "indirect")]
    shares = singular.pivot_table(index="clusters", columns=["effects", "size"], values="singular", aggfunc="mean")
    shares.columns = [f"{effects}, {size} rows" for effects, size in shares.columns]
    lines += ["", "## Share of singular fits", "", _markdown(shares)]
    for value in ("bias", "se_ratio", "truth_below", "truth_above", "power", "without_interval"):
        lines += ["", f"## {value} of indirect, normal random effects", ""]
        lines.append(_markdown(_by_clusters(results, "indirect", value, "normal")))
    if (results["study"] == "case").any():
        for term in ("indirect", "cov_ab", "b"):
            for value in ("coverage", "power", "width"):
                lines += ["", f"## All intervals, eight conditions: {value} of {term}", ""]
                lines.append(_markdown(_representative(results, term, value)))
    write_text(out / "tables.md", "\n".join(lines) + "\n")
