"""Time every interval on ml_sim, and the case bootstrap against refitting with lme4, in the same run.

    python benchmarks/intervals.py [--replicates 1000] [--peer-replicates 20] [--many 10000]

One BLAS thread. Writes intervals.md and intervals.json next to this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from kept import folder_of

ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS")}
os.environ.update(ONE_THREAD)  # before numpy is imported

import numpy as np  # noqa: E402

import mlmed  # noqa: E402
from mlmed.atomic import write_text  # noqa: E402

HERE = Path(__file__).resolve().parent
#: Required seconds for 1,000 replicates on one core, and for 10,000 on two.
ASKED = {"1,000 case replicates, 1 worker": 5.0, "10,000 case replicates, 2 workers": 30.0}


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median of several runs."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def own_times(fit: mlmed.Results, replicates: int, many: int) -> dict[str, float]:
    """Seconds of every interval of the effects table, and of every bootstrap."""
    table = {
        "delta": lambda: fit.effects(),
        "delta, Satterthwaite": lambda: fit.effects(ddf="satterthwaite"),
        "delta, Kenward-Roger": lambda: fit.effects(ddf="kenward-roger"),
        "delta, CR2": lambda: fit.effects(vcov="CR2"),
        "Monte Carlo, 20,000 draws": lambda: fit.effects(interval="monte-carlo", seed=1),
        "profile, all effects with tests": lambda: fit.effects(interval="profile"),
        "profile interval of indirect": lambda: fit.profile("indirect", points=4).interval,
        "influence, one step": lambda: fit.influence(),
        "influence, refits": lambda: fit.influence(refit=True),
    }
    found = {}
    for name, call in table.items():
        call()
        found[name] = seconds(call, 3)
    for kind in ("case", "parametric", "residual"):
        found[f"{replicates:,} {kind} replicates, 1 worker"] = seconds(
            lambda kind=kind: fit.bootstrap(replicates, kind=kind, seed=1), 1
        )
    if many:
        fit.bootstrap(50, seed=1, n_jobs=2)  # start the workers
        found[f"{many:,} case replicates, 2 workers"] = seconds(lambda: fit.bootstrap(many, seed=1, n_jobs=2), 1)
    return found


def peer(data: Any, replicates: int) -> dict[str, Any] | None:
    """Median seconds of one lme4 refit of resampled clusters; None without R."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "data.csv"
        data.to_csv(table, index=False)
        command = ["Rscript", str(HERE / "bootstrap.R"), str(table), str(replicates), "1"]
        text = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}
        ).stdout
    return json.loads(text.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--peer-replicates", type=int, default=20)
    parser.add_argument("--many", type=int, default=10_000, help="replicates on two workers; 0 leaves them out")
    options = parser.parse_args()
    data = mlmed.datasets.load("ml_sim")
    fit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data)
    times = own_times(fit, options.replicates, options.many)
    other = peer(data, options.peer_replicates)
    write(times, other, options, folder_of(HERE, parser, options))


def write(times: dict[str, float], other: dict[str, Any] | None, options: argparse.Namespace, folder: Path) -> None:
    """Write tables as Markdown and JSON."""
    versions = f"python {platform.python_version()}, mlmed {mlmed.__version__}, numpy {np.__version__}"
    setting = "ml_sim (100 clusters of 8), REML, one BLAS thread"
    lines = ["# Intervals: timings", "", f"{date.today().isoformat()}; {setting}; {versions}.", ""]
    lines += ["Written by `benchmarks/intervals.py`.", "", "| what | seconds | asked |", "|---|--:|--:|"]
    lines += [f"| {name} | {value:.3f} | {ASKED.get(name, '')} |" for name, value in times.items()]
    if other is not None:
        own = times[f"{options.replicates:,} case replicates, 1 worker"] / options.replicates
        lines += [
            "",
            f"lme4 {other['lme4']}, same model, default optimizer, median of {options.peer_replicates} refits of "
            f"resampled clusters in the same run: {other['seconds']:.3f} s a refit; mlmed {own:.5f} s with drawing: "
            f"**{other['seconds'] / own:.0f} times faster**.",
        ]
    write_text(folder / "intervals.md", "\n".join(lines) + "\n")
    record = {"date": date.today().isoformat(), "versions": versions, "seconds": times, "lme4": other}
    write_text(folder / "intervals.json", json.dumps(record, indent=2) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
