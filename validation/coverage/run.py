"""Coverage of every interval. ``make coverage`` runs what is missing and writes results.csv and README.md's tables.

python validation/coverage/run.py [--study NAME ...] [--jobs N] [--replicates N] [--summarize]

Pieces are kept in validation/coverage/pieces/ (not committed), so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import joblib
import numpy as np
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[1]))

from design import CELLS, REPRESENTATIVE, SEED, Cell, simulate  # noqa: E402
from methods import STUDIES, study_of  # noqa: E402

from mlmed.atomic import replacing  # noqa: E402

PIECES = HERE / "pieces"
#: Folder for results of a partial study (not committed).
PARTIAL = HERE / "partial"
#: Replicates of a cell, and of a piece.
REPLICATES = {"normal-theory": (1000, 250), "profile": (300, 50)}
COSTLY = (300, 10)


def plan(study: str, limit: int | None) -> list[tuple[str, Cell, int, int]]:
    """Pieces of one study: (study, cell, first replicate, one past the last)."""
    cells = REPRESENTATIVE
    if study == "normal-theory":
        cells = CELLS
    elif study == "profile":
        cells = tuple(cell for cell in CELLS if not cell.skewed or cell in REPRESENTATIVE)
    total, size = REPLICATES.get(study, COSTLY)
    total = total if limit is None else min(limit, total)
    # round by round over the cells, so that partial results are balanced
    return [(study, cell, first, min(first + size, total)) for first in range(0, total, size) for cell in cells]


def path_of(study: str, cell: Cell, first: int, last: int) -> Path:
    """Where a piece is kept."""
    return PIECES / study / f"{cell.name}_{first}-{last}.npz"


def run_piece(study: str, cell: Cell, first: int, last: int) -> None:
    """Compute one piece and store it."""
    rows = []
    for k in range(first, last):
        key = np.random.SeedSequence(SEED, spawn_key=(cell.number, k, list(STUDIES).index(study)))
        rows.append(study_of(study, simulate(cell, k), np.random.default_rng(key)))
    methods = list(rows[0]["intervals"])
    path = path_of(study, cell, first, last)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:  # a piece exists whole or not at all
        np.savez(
            file,
            methods=methods,
            estimates=np.array([row["estimates"] for row in rows]),
            singular=np.array([row["singular"] for row in rows]),
            converged=np.array([row["converged"] for row in rows]),
            seconds=np.array([row["seconds"] for row in rows]),
            intervals=np.array([[row["intervals"][method] for method in methods] for row in rows]),
        )


def summarized(studies: Sequence[str], limit: int | None) -> tuple[list[Path], Path]:
    """Pieces for the tables, and the folder for them.

    Committed results have every replicate of every study; partial ones go elsewhere. Replicates of runs with another
    limit are not counted twice.
    """
    if limit is None:
        whole = [path_of(*piece) for study in STUDIES for piece in plan(study, None)]
        if all(path.exists() for path in whole):
            return whole, HERE
    asked = [path_of(*piece) for study in studies for piece in plan(study, limit)]
    return [path for path in asked if path.exists()], PARTIAL


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", nargs="*", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--replicates", type=int, help="at most this many a cell")
    parser.add_argument("--summarize", action="store_true", help="only rewrite the tables from what exists")
    options = parser.parse_args(arguments)
    if not options.summarize:
        pieces = [piece for study in options.study for piece in plan(study, options.replicates)]
        # partial results are balanced over studies, too
        pieces.sort(key=lambda piece: piece[2] / REPLICATES.get(piece[0], COSTLY)[0])
        missing = [piece for piece in pieces if not path_of(*piece).exists()]
        tasks = joblib.Parallel(n_jobs=options.jobs, return_as="generator_unordered")(
            joblib.delayed(run_piece)(*piece) for piece in missing
        )
        for _ in tqdm(tasks, total=len(missing), desc="pieces"):
            pass
    from summary import write_summary

    paths, folder = summarized(options.study, options.replicates)
    if not paths:
        parser.error("there are no pieces to summarize; run without --summarize")
    folder.mkdir(exist_ok=True)
    write_summary(paths, folder)
    print(f"{len(paths)} pieces -> {folder}")


if __name__ == "__main__":
    main()
