"""Write ``validation/reference/singular_*.json``: lme4 on small data sets with singular optima.

In each case one or more random slopes have true variance 0. The data are simulated here, written to a
temporary folder, and fitted by ``singular.R``. Run from the root of the repository::

    python validation/generate/singular.py [--only NAME] [--out FOLDER]

Needs R with lme4 and jsonlite.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlmed.atomic import write_text
from mlmed.simulate import BPGTruth, bpg

HERE = Path(__file__).resolve().parent
REFERENCE = HERE.parent / "reference"
#: Positions of the random slopes in G.
SLOPES = {"a": 1, "b": 3, "cprime": 4}


@dataclass(frozen=True, slots=True)
class Case:
    """A data set to simulate.

    Attributes
    ----------
    name : str
        Part of the file name.
    n_clusters, n_rows, seed : int
        Arguments of `mlmed.simulate.bpg`.
    zero : tuple of str
        Slopes with true variance 0.
    sigma2 : (float, float)
        Residual variances of m and y.
    """

    name: str
    n_clusters: int
    n_rows: int
    zero: tuple[str, ...]
    seed: int
    sigma2: tuple[float, float] = (0.65, 0.45)

    @property
    def truth(self) -> BPGTruth:
        """Default population values with the rows and columns of the chosen slopes set to 0."""
        G = np.array(BPGTruth().G)
        for slope in self.zero:
            G[SLOPES[slope], :] = G[:, SLOPES[slope]] = 0.0
        return BPGTruth(G=tuple(map(tuple, G.tolist())), sigma2=self.sigma2)


CASES = (
    Case("cprime_12x4", 12, 4, ("cprime",), 1),
    Case("cprime_30x8", 30, 8, ("cprime",), 2),
    Case("cprime_50x4", 50, 4, ("cprime",), 3),
    Case("b_20x5", 20, 5, ("b",), 4),
    Case("b_50x4", 50, 4, ("b",), 5, (0.45, 0.65)),
    Case("ab_12x4", 12, 4, ("a", "b"), 6),
    Case("ab_20x5", 20, 5, ("a", "b"), 7, (0.45, 0.65)),
    Case("ab_30x8", 30, 8, ("a", "b"), 8),
    Case("all_20x5", 20, 5, ("a", "b", "cprime"), 9),
)


def write_case(case: Case, folder: Path) -> None:
    """Write the data as CSV (17 digits) and their true parameters as JSON."""
    truth = case.truth
    data = bpg(case.n_clusters, case.n_rows, truth=truth, seed=case.seed).data
    data.to_csv(folder / f"{case.name}.csv", index=False, float_format="%.17g")
    record = {
        "simulate": {
            "n_clusters": case.n_clusters,
            "n_rows": case.n_rows,
            "truth": {
                "a": truth.a,
                "b": truth.b,
                "cprime": truth.cprime,
                "G": np.asarray(truth.G).tolist(),
                "sigma2": list(truth.sigma2),
            },
            "seed": case.seed,
        },
        "data_check": {name: float(f"{data[name].mean():.12g}") for name in ("x", "m", "y")},
    }
    write_text(folder / f"{case.name}.json", json.dumps(record))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=[case.name for case in CASES], action="append", help="default: all")
    parser.add_argument("--out", type=Path, default=REFERENCE, help="default: validation/reference")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if options.only is None or case.name in options.only:
                write_case(case, Path(folder))
        subprocess.run(["Rscript", str(HERE / "singular.R"), folder, str(options.out)], check=True)


if __name__ == "__main__":
    main()
