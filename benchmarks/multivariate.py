"""Time several responses at once and location-scale models on williams, against R in the same run.

    python benchmarks/multivariate.py [--repeats 20] [--peers m1 m2 m3]

One BLAS thread. Writes multivariate.md and multivariate.json next to this file.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from causal import HERE, ONE_THREAD, os, seconds  # sets the threads before numpy is imported
from kept import folder_of

import mlmed
from mlmed.atomic import write_text

SLOPES = "NA_lag + PA_lag + (1 + NA_lag + PA_lag |c| id)"
LOCATION = "PA.std ~ 1 + day + PA_lag + NA_lag + steps.pm*steps.pmd + (1 + day + steps.pmd |c| id)"
SCALE = "~ 1 + PA_lag + NA_lag + steps.pm*steps.pmd + (1 + steps.pmd |c| id)"
#: Required seconds. For comparison, the page's brms took minutes for m3 and 80 minutes for m5.
ASKED = {"m3": "1", "m4": "5", "m5, five random starts": "60 on 2 cores"}


def models(data: Any) -> dict[str, Callable[[], Any]]:
    """The page's models as calls."""

    def both(right: str) -> Any:
        return mlmed.mixed([f"NA.std ~ {right}", f"PA.std ~ {right}"], data, residual="unstructured")

    return {
        "m1": lambda: mlmed.mixed(f"NA.std ~ {SLOPES}", data),
        "m2": lambda: both("1 + (1 |c| id)"),
        "m3": lambda: both(SLOPES),
        "m4": lambda: mlmed.location_scale("PA.std ~ 1 + (1 |c| id)", "~ 1 + (1 |c| id)", data),
        "m5": lambda: mlmed.location_scale(LOCATION, SCALE, data),
    }


def own_times(data: Any, repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of a fit with its certificate, and its log-likelihood."""
    calls, found = models(data), {}
    for name, call in calls.items():
        slow = name in ("m4", "m5")
        found[name] = {"seconds": seconds(call, 3 if slow else repeats), "logLik": call().llf}
    fit = calls["m3"]()
    found["m3, five random starts"] = {"seconds": seconds(lambda: fit.check_starts(5, seed=1), 3), "logLik": fit.llf}
    fit = calls["m5"]()
    start = time.perf_counter()
    table = fit.check_starts(5, seed=1, n_jobs=os.cpu_count())
    found["m5, five random starts"] = {"seconds": time.perf_counter() - start, "logLik": float(table["llf"].min())}
    return found


def peer_times(data: Any, asked: list[str]) -> dict[str, Any] | None:
    """Seconds and log-likelihoods of R; None without it or its packages."""
    if not asked or shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "data.csv"
        data.to_csv(table, index=False)
        command = ["Rscript", str(HERE / "multivariate.R"), str(table), *asked]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ONE_THREAD}, check=False)
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else None


def write(own: dict[str, dict[str, float]], other: dict[str, Any] | None, folder: Path) -> None:
    """Write tables as Markdown and JSON."""
    versions = f"python {platform.python_version()}, mlmed {mlmed.__version__}"
    if other:
        versions += f"; R {other['R']}, lme4 {other['lme4']} (m1), nlme {other['nlme']} (m2, m3)"
    lines = ["# Several responses, and location-scale models: timings", ""]
    lines += [f"{date.today().isoformat()}; williams (13,033 rows of 193 people); one BLAS thread; {versions}.", ""]
    lines += ["Written by `benchmarks/multivariate.py`. m1 to m3 by REML, m4 and m5 by maximum likelihood.", ""]
    lines += ["| model | seconds | asked | log-likelihood | R, seconds | times | R's log-likelihood minus ours |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|"]
    for name, found in own.items():
        cells = [name, f"{found['seconds']:.3f}", ASKED.get(name, ""), f"{found['logLik']:.5f}", "", "", ""]
        if other and name in other:
            cells[4] = f"{other[name]['seconds']:.1f}"
            cells[5] = f"{other[name]['seconds'] / found['seconds']:.0f}"
            cells[6] = f"{other[name]['logLik'] - found['logLik']:.1e}"
        lines.append(f"| {' | '.join(cells)} |")
    write_text(folder / "multivariate.md", "\n".join(lines) + "\n")
    record = {"date": date.today().isoformat(), "versions": versions, "own": own, "peers": other}
    write_text(folder / "multivariate.json", json.dumps(record, indent=2) + "\n")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--peers", nargs="*", default=["m1", "m2", "m3"], help="models that R fits, too")
    options = parser.parse_args()
    data = mlmed.datasets.load("williams")
    write(own_times(data, options.repeats), peer_times(data, options.peers), folder_of(HERE, parser, options))


if __name__ == "__main__":
    main()
