"""Time and memory by rows and clusters, in memory and from Parquet. Writes ``scale.md`` and ``scale.json``.

Every case runs in its own process with one BLAS thread; peak memory is the largest resident set of that process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from kept import folder_of

from mlmed.atomic import write_text

HERE = Path(__file__).parent
MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SEED = 1


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def in_memory(clusters: int, rows: int, repeats: int) -> dict[str, Any]:
    """Seconds from data frame to effects table, of the Gram pass, and of its ten products and sums in plain numpy."""
    import numpy as np

    import mlmed
    from mlmed.data.design import build_design
    from mlmed.data.grams import accumulate
    from mlmed.formula import parse_equation
    from mlmed.system.system import System

    data = mlmed.simulate.bpg(clusters, rows, seed=SEED).data
    before = peak_mb()
    times, passes, limits, fit = [], [], [], None
    for _ in range(repeats):
        start = time.perf_counter()
        fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
        fit.effects()
        times.append(time.perf_counter() - start)
    memory = peak_mb()
    spec = System((parse_equation(MEDIATOR), parse_equation(OUTCOME)))
    design = build_design(spec, data)
    codes = design.codes
    columns = [np.ones(len(data)), *(data[name].to_numpy() for name in "xmy")]
    for _ in range(repeats):
        start = time.perf_counter()
        accumulate(design)
        passes.append(time.perf_counter() - start)
        start = time.perf_counter()
        for i in range(4):
            for j in range(i + 1):
                np.bincount(codes, weights=columns[i] * columns[j], minlength=clusters)
        limits.append(time.perf_counter() - start)
    assert fit is not None
    return {
        "clusters": clusters,
        "rows": len(data),
        "seconds": min(times),
        "evaluations": fit.optimization.evaluations,
        "gram_seconds": min(passes),
        "numpy_seconds": min(limits),
        "peak_mb": memory,
        "fit_mb": memory - before,
        "llf": fit.llf,
    }


def one_evaluation(clusters: int, rows: int, repeats: int) -> dict[str, Any]:
    """Seconds of one evaluation of criterion, gradient and Hessian after the pass."""
    import mlmed
    from mlmed.lmm.criterion import evaluate

    fit = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(clusters, rows, seed=SEED).data)
    problem, optimum = fit.fit.working.problem, fit.fit.optimum
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        evaluate(problem, optimum.L, optimum.sigma2)
        times.append(time.perf_counter() - start)
    return {"clusters": clusters, "rows": clusters * rows, "ms": 1e3 * min(times)}


def write_parquet(folder: str, clusters: int, rows: int) -> dict[str, Any]:
    """Random-slope mediation data simulated in DuckDB, cluster ids scattered over the rows."""
    import duckdb

    duckdb.sql("SELECT setseed(0.5)")
    normal = "sqrt(-2 * ln(1 - random())) * cos(6.283185307179586 * random())"
    duckdb.sql(
        f"CREATE TABLE u AS SELECT id, 0.77 * {normal} AS u1, s.a AS a, 0.63 * {normal} AS u2, "
        f"0.6 * s.a + 0.3 * {normal} AS b, 0.2 * {normal} AS c "
        f"FROM (SELECT range AS id, 0.4 * {normal} AS a FROM range({clusters})) s"
    )
    duckdb.sql(
        f"COPY (WITH r AS (SELECT range % {clusters} AS id, {normal} AS x, {normal} AS e1, {normal} AS e2 "
        f"FROM range({rows})), w AS (SELECT r.id, x, u1 + (0.6 + a) * x + 0.8 * e1 AS m, u2, b, c, e2 FROM r JOIN u "
        "USING (id)) SELECT id, x, m, u2 + (0.6 + b) * m + (0.2 + c) * x + 0.67 * e2 AS y FROM w) "
        f"TO '{folder}/obs.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )
    return {"bytes": os.path.getsize(f"{folder}/obs.parquet")}


def from_parquet(folder: str, limit_mb: int) -> dict[str, Any]:
    """Seconds of mlmed on Parquet through DuckDB, and of DuckDB for the same group-by sums."""
    import duckdb

    import mlmed

    duckdb.sql(f"SET memory_limit = '{limit_mb}MB'")
    source = f"{folder}/obs.parquet"
    start = time.perf_counter()
    fit = mlmed.mediate(MEDIATOR, OUTCOME, duckdb.read_parquet(source))
    fit.effects()
    seconds = time.perf_counter() - start
    pairs = ["x*x", "m*x", "m*m", "y*x", "y*m", "y*y"]
    sums = ", ".join(f"sum({p})" for p in ("x", "m", "y", *pairs))
    start = time.perf_counter()
    duckdb.sql(f"SELECT id, count(*), {sums} FROM read_parquet('{source}') GROUP BY id").fetchnumpy()
    own = time.perf_counter() - start
    rows = int(fit.fit.working.problem.nobs[0])
    return {
        "clusters": fit.n_clusters, "rows": rows, "seconds": seconds, "duckdb_seconds": own, "peak_mb": peak_mb(),
        "evaluations": fit.optimization.evaluations,
    }  # fmt: skip


CASES = {"memory": in_memory, "evaluation": one_evaluation, "write": write_parquet, "parquet": from_parquet}


def run(case: str, *arguments: Any, threads: str = "1") -> dict[str, Any]:
    """Run one case in a fresh process."""
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "MLMED_THREADS": threads}
    command = [sys.executable, __file__, "--case", case, json.dumps(arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}{arguments} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(results: dict[str, Any]) -> str:
    import duckdb
    import numpy as np

    import mlmed

    lines = [
        "# Size",
        "",
        f"{date.today().isoformat()}; {os.cpu_count()} processors, {platform.machine()}; python "
        f"{platform.python_version()}, mlmed {mlmed.__version__}, numpy {np.__version__}, duckdb {duckdb.__version__}; "
        f"seed {SEED}. Written by `benchmarks/scale.py`.",
        "",
        "## Data frame to effects table, one thread",
        "",
        "| clusters | rows | seconds | evaluations | Gram pass, s | numpy's ten products and sums, s | ratio "
        "| peak, MB | of which the fit, MB |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in results["memory"]:
        ratio = row["gram_seconds"] / row["numpy_seconds"]
        lines.append(
            f"| {row['clusters']:,} | {row['rows']:,} | {row['seconds']:.4f} | {row['evaluations']} | "
            f"{row['gram_seconds']:.4f} | {row['numpy_seconds']:.4f} | {ratio:.2f} | {row['peak_mb']:.0f} | "
            f"{row['fit_mb']:.0f} |"
        )
    lines += [
        "",
        "## One evaluation of criterion, gradient and Hessian",
        "",
        "| clusters | rows | ms |",
        "|--:|--:|--:|",
    ]
    lines += [f"| {row['clusters']:,} | {row['rows']:,} | {row['ms']:.3f} |" for row in results["evaluation"]]
    if results.get("parquet"):
        lines += [
            "",
            "## Rows that stay in Parquet (DuckDB, two threads for scan and fit)",
            "",
            "| clusters | rows | file, GB | seconds | DuckDB's own group-by sums, s | ratio | peak, MB |",
            "|--:|--:|--:|--:|--:|--:|--:|",
        ]
        for row in results["parquet"]:
            lines.append(
                f"| {row['clusters']:,} | {row['rows']:,} | {row['bytes'] / 1e9:.2f} | {row['seconds']:.1f} | "
                f"{row['duckdb_seconds']:.1f} | {row['seconds'] / row['duckdb_seconds']:.2f} | {row['peak_mb']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs=2, metavar=("NAME", "ARGUMENTS"), help="used by the script itself")
    parser.add_argument("--small", action="store_true", help="leave out the cases that take minutes")
    parser.add_argument("--parquet-rows", type=int, default=100_000_000)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(CASES[options.case[0]](*json.loads(options.case[1]))))
        return
    sizes = [(100, 8, 40), (1_000, 20, 20), (5_000, 20, 10), (10_000, 50, 5), (10_000, 100, 5)]
    results: dict[str, Any] = {"memory": [run("memory", *size) for size in sizes]}
    lines = [(1_000, 10), (1_000, 100), (1_000, 1_000), (10_000, 10), (100_000, 10)]
    results["evaluation"] = [run("evaluation", clusters, rows, 10) for clusters, rows in lines]
    if not options.small:
        results["memory"].append(run("memory", 1_000_000, 10, 1))
        with tempfile.TemporaryDirectory() as folder:
            written = run("write", folder, 100_000, options.parquet_rows, threads="2")
            results["parquet"] = [{**written, **run("parquet", folder, 1200, threads="2")}]
    folder = folder_of(HERE, parser, options)
    write_text(folder / "scale.json", json.dumps(results, indent=1) + "\n")
    text = report(results)
    write_text(folder / "scale.md", text)
    print(text)


if __name__ == "__main__":
    main()
