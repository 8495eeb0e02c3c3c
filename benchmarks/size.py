"""Many columns: factors with many levels, numbers, wide tables. Writes ``size.md`` and ``size.json``.

Every case runs in its own process with one thread for linear algebra. Times are CPU seconds, summed over the threads of
an engine, of a call to ``mixed`` after a small warm-up call; memory is the largest resident set of the process.
``--before FOLDER`` runs the same with another version of the package.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ENGINES = ("pandas", "polars", "polars lazy", "duckdb", "dask")
#: Kind of table, number of levels or columns, rows, clusters.
CASES = (
    ("factor", 20, 100_000, 1000),
    ("factor", 100, 100_000, 1000),
    ("factor", 200, 100_000, 1000),
    ("factor", 1000, 40_000, 2000),
    ("numbers", 50, 100_000, 1000),
    ("text of numbers", 20_000, 20_000, 1000),
    ("other columns", 20_000, 200, 20),
)


def table(kind: str, size: int, rows: int, clusters: int) -> tuple[Any, str]:
    """The rows, and the formula."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(1)
    ids = np.repeat(np.arange(clusters), rows // clusters)
    columns: dict[str, Any] = {"id": ids, "x": rng.normal(size=rows)}
    columns["y"] = 0.3 * columns["x"] + rng.normal(size=clusters)[ids] + rng.normal(size=rows)
    if kind == "factor":
        columns["g"] = np.char.add("level ", rng.integers(0, size, rows).astype(str))
        text = "g"
    elif kind == "text of numbers":
        columns["g"] = [f"{value:.9f}" for value in rng.normal(size=rows)]
        text = "g"
    else:
        columns |= {f"v{k}": rng.normal(size=rows) for k in range(size)}
        text = " + ".join(f"v{k}" for k in range(size if kind == "numbers" else 1))
    return pd.DataFrame(columns), f"y ~ x + {text} + (1 | id)"


def source(engine: str, data: Any) -> Any:
    """The rows in an engine."""
    if engine == "pandas":
        return data
    if engine == "duckdb":
        import duckdb

        return duckdb.from_df(data)
    if engine == "dask":
        import dask.dataframe

        return dask.dataframe.from_pandas(data, npartitions=2)
    import polars

    made = polars.from_pandas(data)
    return made if engine == "polars" else made.lazy()


def measure(kind: str, size: int, rows: int, clusters: int, engine: str) -> dict[str, Any]:
    """Measure one case in this process."""
    import mlmed

    data, text = table(kind, size, rows, clusters)
    mlmed.mixed("y ~ x + (1 | id)", source(engine, data[["id", "x", "y"]].iloc[::2]))
    given = source(engine, data)
    start = time.process_time()
    try:
        answer = f"{mlmed.mixed(text, given).llf:.6f}"
    except mlmed.errors.MlmedError:
        answer = "refused"
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0
    return {"seconds": round(seconds, 2), "peak_mb": round(peak), "answer": answer}


def in_process(case: tuple[str, int, int, int], engine: str, package: str, limit: int) -> dict[str, Any]:
    """Measure one case in its own process; ``limit``: CPU seconds."""
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": package}
    call = [sys.executable, __file__, "--case", json.dumps([*case, engine])]
    cap = lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit + 10, limit + 10))  # noqa: E731
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, preexec_fn=cap)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {"seconds": None, "peak_mb": None, "answer": last[:80] or f"more than {limit} s"}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def shown(found: dict[str, Any] | None, limit: int) -> str:
    """A cell of the table."""
    if found is None:
        return ""
    if found["seconds"] is None:
        return "MemoryError" if "emory" in found["answer"] else f"over {limit}"
    return f"{found['seconds']:.2f}{' (refused)' if found['answer'] == 'refused' else ''}"


def report(results: list[dict[str, Any]], limit: int, before: bool) -> str:
    """The report as Markdown."""
    import mlmed

    machine = f"{os.cpu_count()} processors, {platform.machine()}"
    versions = f"python {platform.python_version()}, mlmed {mlmed.__version__}"
    lines = [
        "# Many columns",
        "",
        f"{date.today()}; {machine}; {versions}. Written by `benchmarks/size.py`.",
        "",
        "Seconds of the processor for a call to `mixed`, all threads added up; the machine had other work. `over` is",
        f"the limit of {limit} seconds that a case was given. The ratio is that of the seconds to those of the eager",
        "Polars frame.",
        "",
        f"| columns | rows | clusters | engine |{' before, s |' if before else ''} s | ratio to Polars | peak, MB |",
        f"|---|--:|--:|---|{'--:|' if before else ''}--:|--:|--:|",
    ]
    polars = {tuple(r["case"]): r["now"]["seconds"] for r in results if r["engine"] == "polars"}
    for one in results:
        kind, size, rows, clusters = one["case"]
        now, base = one["now"], polars.get(tuple(one["case"]))
        ratio = f"{now['seconds'] / base:.1f}" if base and now["seconds"] is not None else ""
        past = f" {shown(one['before'], limit)} |" if before else ""
        peak = "" if now["peak_mb"] is None else f"{now['peak_mb']:,}"
        lines.append(
            f"| {size:,} {'levels' if kind == 'factor' else kind} | {rows:,} | {clusters:,} | {one['engine']} |{past} "
            f"{shown(now, limit)} | {ratio} | {peak} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--before", help="folder of another version of the package")
    parser.add_argument("--limit", type=int, default=60, help="seconds of the processor that a case may take")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(measure(*json.loads(asked.case))))
        return
    results: list[dict[str, Any]] = []
    for case in CASES:
        for engine in asked.engines:
            now = in_process(case, engine, str(HERE.parent), asked.limit)
            past = in_process(case, engine, asked.before, asked.limit) if asked.before else None
            results.append({"case": list(case), "engine": engine, "now": now, "before": past})
            print(case, engine, now, past, flush=True)
    (HERE / "size.json").write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "size.md").write_text(report(results, asked.limit, bool(asked.before)))


if __name__ == "__main__":
    main()
