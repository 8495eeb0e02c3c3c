"""Time mlmed and other software on the same data, in the same run, on one thread.

    python benchmarks/run.py --size 100x8 --size 1000x20

Every engine runs in a process of its own. See README.md next to this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from kept import folder_of

from mlmed.atomic import write_text

HERE = Path(__file__).resolve().parent
MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
#: Most rows of a table for each peer.
LIMITS = {
    "lme4_stacked": 500_000,
    "nlme_stacked": 40_000,
    "glmmtmb_stacked": 200_000,
    "lme4_separate": 1_000_000,
    "statsmodels_separate": 20_000,
}
#: Peers that fit another model: their log-likelihood is not comparable.
OTHER_MODEL = {
    "lme4_separate": "no covariance across equations",
    "statsmodels_separate": "no covariance across equations",
}
#: Required milliseconds on ml_sim from the Grams to the effects.
REQUIRED_MS = 20.0
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")} | {
    "VECLIB_MAXIMUM_THREADS": "1"
}


@dataclass(frozen=True, slots=True)
class Timing:
    """One engine on one table.

    Attributes
    ----------
    engine : str
        ``mlmed`` or a name in ``LIMITS``.
    median_ms, fastest_ms : float or None
        Of the repeats; None if it did not run.
    repeats : int
        Timed runs.
    llf : float or None
        Restricted log-likelihood reported by the engine.
    baseline_mb, peak_mb : float or None
        Resident memory with library and data loaded, and its peak (Linux only).
    note : str
        Warnings, or why it did not run.
    stages_ms : dict of str to float
        Medians by stage; mlmed only.
    """

    engine: str
    median_ms: float | None = None
    fastest_ms: float | None = None
    repeats: int = 0
    llf: float | None = None
    baseline_mb: float | None = None
    peak_mb: float | None = None
    note: str = ""
    stages_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A table and its timings, mlmed first.

    Attributes
    ----------
    name : str
        ``ml_sim`` or the size.
    n_rows, n_clusters : int
        Of the table.
    seed : int or None
        None for data that were not simulated.
    timings : tuple of Timing
        One per engine.
    """

    name: str
    n_rows: int
    n_clusters: int
    seed: int | None
    timings: tuple[Timing, ...]


# -- in the process that is measured -----------------------------------------------------------------------


def resident_mb(name: str) -> float | None:
    """Read ``VmRSS`` or ``VmHWM`` of this process in megabytes; None if the kernel does not report it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[name].split()[0]) / 1024


def one_fit(data: Any) -> tuple[dict[str, float], float]:
    """Seconds of ``mediate`` with effects, and the log-likelihood."""
    import mlmed

    start = time.perf_counter()
    fit = mlmed.mediate(mediator=MEDIATOR, outcome=OUTCOME, data=data, method="reml")
    fit.effects()
    llf = float(fit.llf)
    return {"total": time.perf_counter() - start}, llf


def one_fit_by_stage(data: Any) -> tuple[dict[str, float], float]:
    """Seconds of the stages of ``mediate``, called one by one."""
    from mlmed.data.design import build_design
    from mlmed.data.grams import accumulate
    from mlmed.fit.lmm import LmmFit
    from mlmed.formula import parse_equation
    from mlmed.lmm.estimates import to_estimates
    from mlmed.lmm.optimum import optimize
    from mlmed.lmm.working import build_working
    from mlmed.results.results import Results
    from mlmed.system.system import System

    clock = [time.perf_counter()]
    spec = System(tuple(parse_equation(text, data.columns) for text in (MEDIATOR, OUTCOME)), "reml")
    design = build_design(spec, data)
    clock.append(time.perf_counter())
    grams = accumulate(design)
    clock.append(time.perf_counter())
    working = build_working(spec, design.layout, grams)
    optimum = optimize(working.problem, working.blocks, reml=True)
    clock.append(time.perf_counter())
    estimates = to_estimates(working, optimum, reml=True)
    fitted = LmmFit(spec, design.layout, grams, working, optimum, estimates)
    results = Results(fitted, "x")
    results.effects()
    clock.append(time.perf_counter())
    names = ("formulas + design", "Grams", "criterion + optimum", "vcov + effects")
    return {name: clock[k + 1] - clock[k] for k, name in enumerate(names)}, float(results.llf)


def repeat(
    run: Callable[[Any], tuple[dict[str, float], float]], data: Any, repeats: int, budget: float
) -> tuple[list[dict[str, float]], float]:
    """Repeat a call until there are enough repeats or the time budget is spent; the first call warms up."""
    found: list[dict[str, float]] = []
    spent, llf = 0.0, float("nan")
    while len(found) < repeats + 1 and spent < budget:
        seconds, llf = run(data)
        found.append(seconds)
        spent += sum(seconds.values())
    return found[1:] or found, llf


def measure_mlmed(table: Path, repeats: int, budget: float) -> dict[str, Any]:
    """Time mlmed on a table in this process."""
    import pandas as pd

    import mlmed.api.mediate  # noqa: F401  # imported before the baseline is read

    warnings.simplefilter("ignore")
    data = pd.read_csv(table)
    baseline = resident_mb("VmRSS")
    whole, llf = repeat(one_fit, data, repeats, budget)
    peak = resident_mb("VmHWM")
    stages, staged_llf = repeat(one_fit_by_stage, data, repeats, budget)
    if abs(staged_llf - llf) > 1e-9 * abs(llf):
        raise RuntimeError(f"the stages one by one end at {staged_llf}, mediate at {llf}")
    return {
        "times": [seconds["total"] for seconds in whole],
        "stages_ms": {name: 1e3 * statistics.median(run[name] for run in stages) for name in stages[0]},
        "llf": llf,
        "baseline_mb": baseline,
        "peak_mb": peak,
    }


def measure_statsmodels(table: Path, repeats: int, budget: float) -> dict[str, Any]:
    """Time statsmodels' MixedLM on the two equations separately; it cannot express the joint model."""
    import pandas as pd
    from statsmodels.formula.api import mixedlm

    warnings.simplefilter("ignore")
    data = pd.read_csv(table)
    baseline = resident_mb("VmRSS")

    def both(rows: Any) -> tuple[dict[str, float], float]:
        start = time.perf_counter()
        fits = [
            mixedlm("m ~ x", rows, groups=rows["id"], re_formula="~ x").fit(reml=True, method="lbfgs"),
            mixedlm("y ~ m + x", rows, groups=rows["id"], re_formula="~ m + x").fit(reml=True, method="lbfgs"),
        ]
        return {"total": time.perf_counter() - start}, float(sum(fit.llf for fit in fits))

    whole, llf = repeat(both, data, repeats, budget)
    times = [seconds["total"] for seconds in whole]
    return {"times": times, "llf": llf, "baseline_mb": baseline, "peak_mb": resident_mb("VmHWM")}


# -- in the process that measures --------------------------------------------------------------------------


def call(engine: str, command: Sequence[str], timeout: float) -> Timing:
    """Run one engine on one thread and read its JSON output."""
    environment = os.environ | ONE_THREAD
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return Timing(engine, note=f"stopped after {timeout:g} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Timing(engine, note=f"failed: {last}")
    found = json.loads(done.stdout)
    if "error" in found:
        return Timing(engine, note=" ".join(f"failed: {found['error']}".split()))
    times = found.pop("times")
    return Timing(engine, 1e3 * statistics.median(times), 1e3 * min(times), len(times), **found)


def run_case(name: str, data: Any, seed: int | None, options: argparse.Namespace) -> Case:
    """Write the table to a temporary folder and give it to mlmed and to every peer."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "data.csv"
        data.to_csv(table, index=False, float_format="%.17g")
        plan = [str(table), str(options.repeats), str(options.budget)]
        timings = [call("mlmed", [sys.executable, __file__, "--worker", *plan], options.timeout)]
        if timings[0].median_ms is None:
            raise SystemExit(f"mlmed on {name} {timings[0].note}")
        for peer in options.peers:
            if len(data) > LIMITS[peer]:
                timings.append(Timing(peer, note=f"not run above {LIMITS[peer]:,} rows"))
                continue
            here = [sys.executable, __file__, "--statsmodels", *plan]
            there = ["Rscript", str(HERE / "peers.R"), peer, *plan]
            timings.append(call(peer, here if peer == "statsmodels_separate" else there, options.timeout))
        for timing in timings:
            spent = "-" if timing.median_ms is None else f"{timing.median_ms:.1f} ms"
            print(f"{name:>10}  {timing.engine:<16} {spent:>12}  {timing.note}", flush=True)
    return Case(name, len(data), int(data["id"].nunique()), seed, tuple(timings))


def processor() -> str:
    """Model name of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def software(peers: Sequence[str]) -> dict[str, Any]:
    """Versions of the timed software."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    packages = ("mlmed", "numpy", "scipy", "pandas")
    found: dict[str, Any] = {"python": platform.python_version(), "BLAS": f"{blas['name']} {blas['version']}"}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree
            found[package] = getattr(sys.modules.get(package), "__version__", "not installed")
    if peers:
        done = subprocess.run(
            ["Rscript", str(HERE / "peers.R"), "versions"], capture_output=True, text=True, check=True
        )
        listed = json.loads(done.stdout)
        found |= {"R": listed["R"], "R BLAS": listed["BLAS"], **listed["packages"]}
    return found


def differences(case: Case) -> list[dict[str, Any]]:
    """Timings of a case with the ratio to mlmed and the difference in log-likelihood."""
    own = case.timings[0]
    rows = []
    for timing in case.timings:
        ran = timing.median_ms is not None
        comparable = timing.llf is not None and timing.engine not in OTHER_MODEL
        extra = {
            "ratio": timing.median_ms / own.median_ms if ran else None,
            "llf_minus_mlmed": timing.llf - own.llf if comparable else None,
        }
        rows.append(asdict(timing) | extra)
    return rows


def shown(value: float | None, text: str) -> str:
    """Format a number, or a dash for None."""
    return "-" if value is None else format(value, text)


def case_table(case: Case) -> list[str]:
    """Markdown lines of one case."""
    seed = "" if case.seed is None else f", seed {case.seed}"
    lines = [
        f"## {case.name}: {case.n_clusters:,} clusters, {case.n_rows:,} rows{seed}",
        "",
        "| engine | median, ms | fastest, ms | repeats | times mlmed | log-likelihood | minus mlmed's "
        "| peak memory, MB | of which the fit, MB | note |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in differences(case):
        extra = None if row["peak_mb"] is None else row["peak_mb"] - row["baseline_mb"]
        note = "; ".join(filter(None, [OTHER_MODEL.get(row["engine"], ""), row["note"].replace("|", "/")]))
        cells = [
            row["engine"], shown(row["median_ms"], ",.1f"), shown(row["fastest_ms"], ",.1f"), str(row["repeats"]),
            shown(row["ratio"], ",.1f"), shown(row["llf"], ".6f"), shown(row["llf_minus_mlmed"], "+.1e"),
            shown(row["peak_mb"], ".0f"), shown(extra, ".0f"), " ".join(note.split()),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def stage_table(cases: Sequence[Case]) -> list[str]:
    """Markdown lines of mlmed's stages, and whether the requirement is met."""
    stages = list(cases[0].timings[0].stages_ms)
    head = ["case", *stages, "sum of the last two"]
    lines = ["## mlmed by stage, ms", "", f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for case in cases:
        spent = case.timings[0].stages_ms
        cells = [case.name, *(f"{spent[name]:,.2f}" for name in stages), f"{engine_ms(case):,.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    for case in cases:
        if case.name == "ml_sim":
            met = "met" if engine_ms(case) <= REQUIRED_MS else "not met"
            lines += [
                "",
                f"Required: {REQUIRED_MS:g} ms or less for criterion, optimum, vcov and effects on ml_sim, data in "
                f"memory, one thread. Found: {engine_ms(case):.1f} ms ({met}); the whole call, from the formulas "
                f"to the effects, takes {case.timings[0].median_ms:.1f} ms.",
            ]
    return [*lines, ""]


def engine_ms(case: Case) -> float:
    """Criterion, optimum, vcov and effects, data in memory."""
    return sum(list(case.timings[0].stages_ms.values())[-2:])


def write_results(cases: Sequence[Case], options: argparse.Namespace) -> None:
    """Write results.json and results.md."""
    top = {
        "date": date.today().isoformat(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": 1,
        "method": "reml",
        "software": software(options.peers),
    }
    listed = [
        {
            "name": c.name,
            "n_clusters": c.n_clusters,
            "n_rows": c.n_rows,
            "seed": c.seed,
            "timings": differences(c),
        }
        for c in cases
    ]
    text = json.dumps(top | {"cases": listed}, indent=1)
    write_text(options.out / "results.json", text + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in top["software"].items())
    lines = [
        "# Timings",
        "",
        f"{top['date']}; {top['cpu']}, {top['cores']} cores, one thread used; REML.",
        "",
    ]
    lines += [f"{versions}.", "", "Written by `benchmarks/run.py`; what is measured: `README.md`.", ""]
    if not options.peers:
        lines += ["No peers were timed.", ""]
    for case in cases:
        lines += case_table(case)
    lines += stage_table(cases)
    write_text(options.out / "results.md", "\n".join(lines))


def size(text: str) -> tuple[int, int]:
    """Read CLUSTERSxROWS."""
    clusters, _, rows = text.partition("x")
    if not (clusters.isdigit() and rows.isdigit()):
        raise argparse.ArgumentTypeError(f"expected CLUSTERSxROWS such as 100x8, found {text!r}")
    return int(clusters), int(rows)


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=size, action="append", help="CLUSTERSxROWS; default 100x8 and 1000x20")
    parser.add_argument("--no-ml-sim", action="store_true", help="leave out the published data set")
    parser.add_argument("--peers", nargs="*", choices=list(LIMITS), default=list(LIMITS), help="default: all")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds after which no repeat is started")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds after which an engine is stopped")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, help="folder of results.md and results.json (default: here, or partial/ with other options)"
    )
    parser.add_argument("--worker", nargs=3, metavar=("CSV", "REPEATS", "BUDGET"), help=argparse.SUPPRESS)
    parser.add_argument("--statsmodels", nargs=3, metavar=("CSV", "REPEATS", "BUDGET"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.out is None and not (options.worker or options.statsmodels):
        options.out = folder_of(HERE, parser, options)
    options.size = options.size or [(100, 8), (1000, 20)]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Time all requested cases."""
    options = read_options(arguments)
    os.environ.update(ONE_THREAD)  # before anything imports numpy
    if options.worker:
        table, repeats, budget = options.worker
        print(json.dumps(measure_mlmed(Path(table), int(repeats), float(budget))))
        return
    if options.statsmodels:
        table, repeats, budget = options.statsmodels
        print(json.dumps(measure_statsmodels(Path(table), int(repeats), float(budget))))
        return
    from mlmed import datasets, errors, simulate

    if options.peers and shutil.which("Rscript") is None:
        print("R (Rscript) was not found: only mlmed is timed")
        options.peers = [peer for peer in options.peers if peer == "statsmodels_separate"]
    cases = []
    if not options.no_ml_sim:
        try:
            cases.append(run_case("ml_sim", datasets.load("ml_sim"), None, options))
        except errors.DatasetError as error:
            print(f"ml_sim is left out: {error}")
    for n_clusters, n_rows in options.size:
        data = simulate.bpg(n_clusters, n_rows, seed=options.seed).data
        cases.append(run_case(f"{n_clusters}x{n_rows}", data, options.seed, options))
    write_results(cases, options)


if __name__ == "__main__":
    main()
