"""Lock of the rebuild: ``run.py store`` before it, ``run.py compare`` after each step, ``run.py accept`` for texts.

This is a *lock*: our own output, stored by our own code. It proves nothing about the numbers themselves, only that
they did not move; what they should be is the business of ``validation/run.py``. It is deleted with its folder at the
end of the rebuild.

Numbers must agree to 1e-12 of their size (``tolerances.toml`` has the exceptions, with what was measured), texts
exactly, after the old names were made new ones by ``renames.toml``. Only ``adapter.py`` knows the names of mlmed. Texts
whose words were changed on purpose are stored again by ``accept``, which refuses to do so while a number differs; it
adds numbers that are new.

``noise`` asks everything under other kernels of OpenBLAS, once, and stores how far each number moved: what another
order of sums does to it.

Exit status of ``compare``: 0; 1 if a number differs or is missing; 2 if only texts differ; 3 if something crashed.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pandas as pd
import scipy
from threadpoolctl import threadpool_info, threadpool_limits

from validation.lock.compare import Compared, Difference, Renames, Tolerances, compare
from validation.lock.flatten import SEPARATOR
from validation.lock.gather import Gathered, gather
from validation.lock.store import STORE, Stored, read, write

#: Every x86 processor of the last ten years can run it.
KERNEL = "Haswell"
OTHER_KERNELS = ("Prescott", "Sandybridge", "SkylakeX")
#: Shares of a size below this are not kept: 1e-12 is allowed anyway.
LEAST_NOISE = 1e-14
LABEL = "lock: our own output before the upper half was rebuilt; no reference"
#: Everything that differs, for reading; not committed.
REPORT = Path(__file__).parent / "partial.md"
#: Differences of each kind that are printed.
SHOWN, FEW_LINES, WIDE = 25, 7, 160


def about() -> dict[str, str]:
    """What the numbers were made with."""
    kernels = sorted({str(one.get("architecture")) for one in threadpool_info() if one["user_api"] == "blas"})
    versions = {"numpy": np.__version__, "scipy": scipy.__version__, "pandas": pd.__version__}
    return {"what": LABEL, "date": date.today().isoformat(), "kernels": ", ".join(kernels), **versions}


def ask_all(only: str) -> tuple[Gathered, Stored]:
    """Everything of today."""
    start = time.process_time()
    with threadpool_limits(1):  # sums over threads are sums in another order
        found = gather(only)
    print(f"{len(found.numbers):,} numbers and {len(found.texts):,} texts in {time.process_time() - start:.0f} s")
    for path, error in found.crashes.items():
        print(f"CRASHED  {path}\n         {error}")
    return found, Stored(about(), found.numbers, found.texts)


def stored_as(only: str) -> Stored:
    """What was stored, of some cases."""
    whole = read()
    return Stored(whole.about, _chosen(whole.numbers, only), _chosen(whole.texts, only))


def _chosen(values: dict[str, Any], only: str) -> dict[str, Any]:
    return {path: one for path, one in values.items() if only in path.partition(SEPARATOR)[0]}


def show(found: Compared) -> None:
    """Counts, then the worst; all of it in a file."""
    print(
        f"\nnumbers: {len(found.numbers):,} of {found.n_numbers:,} differ or are missing, {len(found.new):,} are new\n"
        f"         {found.same:,} are the same to the last bit; {found.loose:,} moved by more than 1e-12, as allowed\n"
        f"texts:   {len(found.texts):,} of {found.n_texts:,} differ, are missing or new; "
        f"{len(found.layout):,} in layout only\n"
        f"gone on purpose: {found.gone:,}"
    )
    for title, differences in (("Numbers", found.numbers), ("Texts", found.texts)):
        if differences:
            print(f"\n{title}, by case:", _by_case(differences))
            print("\n".join(_short(line) for line in _lines(differences[:SHOWN])))
    REPORT.write_text("\n".join(_report(found)) + "\n", encoding="utf-8")
    print(f"\nall of them: {REPORT}")


def _by_case(differences: Iterable[Difference]) -> str:
    counts = Counter(one.path.partition(SEPARATOR)[0] for one in differences)
    return ", ".join(f"{name} {count}" for name, count in counts.most_common(12))


def _lines(differences: Iterable[Difference]) -> list[str]:
    return [f"- {one.path}\n  " + one.what.replace("\n", "\n  ") for one in differences]


def _short(lines: str) -> str:
    """A few lines of each difference, none longer than a screen is wide; the file has all of them."""
    shown = lines.split("\n")
    cut = [line if len(line) <= WIDE else f"{line[:WIDE]} ..." for line in shown[:FEW_LINES]]
    return "\n".join([*cut, f"  ... {len(shown) - FEW_LINES} more lines"] if len(shown) > FEW_LINES else cut)


def _report(found: Compared) -> list[str]:
    parts = (("Numbers", found.numbers), ("Texts", found.texts), ("Layout", found.layout))
    lines = [line for title, differences in parts for line in ("", f"## {title}", "", *_lines(differences))]
    return ["# Lock", *lines, "", "## New numbers", "", *(f"- {path}" for path in found.new)]


def pin_kernel() -> None:
    """Start again under the kernel of the store, unless one was asked for: kernels round, and draw, differently."""
    if about()["kernels"] != KERNEL and "OPENBLAS_CORETYPE" not in os.environ:
        os.environ["OPENBLAS_CORETYPE"] = KERNEL
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if about()["kernels"] != KERNEL:
        print(f"under {about()['kernels']}, not {KERNEL}: numbers may move by rounding, parametric draws altogether")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("store", "compare", "accept", "noise"))
    parser.add_argument("--only", default="", metavar="PART", help="cases with this in their name (compare)")
    parser.add_argument("--to", type=Path, default=STORE, metavar="FILE", help="store there")
    parser.add_argument("--times", action="store_true", help="show what took longest")
    options = parser.parse_args()
    pin_kernel()
    if options.what != "compare" and options.only:
        parser.error("--only goes with compare: the store is whole")
    if options.what == "noise":
        return measure_noise()
    if options.what == "store" and options.to.exists():
        parser.error(
            f"{STORE} is there already: what was stored before the rebuild stays. Remove it by hand to start again"
        )
    found, today = ask_all(options.only)
    if options.times:
        for name, seconds in sorted(found.seconds.items(), key=lambda one: -one[1])[:SHOWN]:
            print(f"{seconds:7.2f} s  {name}")
    if found.crashes and options.what != "compare":
        print("nothing was stored")
        return 3
    if options.what == "store":
        write(today, options.to)
        return 0
    result = compare(stored_as(options.only), today, Renames.load(), Tolerances.load())
    show(result)
    if options.what == "accept":
        return accept(result, today)
    return 3 if found.crashes else 1 if result.numbers else 2 if result.texts else 0


def measure_noise() -> int:
    """Ask everything under other kernels, and store how far each number moved beside it."""
    stored, moved = read(), {}
    with tempfile.TemporaryDirectory() as folder:
        for kernel in OTHER_KERNELS:
            path = Path(folder) / f"{kernel}.json.xz"
            command = [sys.executable, __file__, "store", "--to", str(path)]
            subprocess.run(command, env={**os.environ, "OPENBLAS_CORETYPE": kernel}, check=True)
            other = read(path).numbers
            for name, number in stored.numbers.items():
                if name in other and (share := _apart(number.value, other[name].value, number.size)) > LEAST_NOISE:
                    moved[name] = max(moved.get(name, 0.0), float(f"{share:.1e}"))
            print(f"{kernel}: {len(moved):,} numbers moved so far")
    write(Stored({**stored.about, "noise": ", ".join(OTHER_KERNELS)}, stored.numbers, stored.texts, moved))
    return 0


def _apart(one: float, other: float, size: float) -> float:
    """As a share of the size; 0 where it cannot be said."""
    return min(1.0, abs(one - other) / size) if math.isfinite(one - other) and size > 0.0 else 0.0


def accept(result: Compared, today: Stored) -> int:
    """Store the texts of today under the names of today; numbers stay what they were stored as."""
    if result.numbers:
        print("nothing was stored: numbers differ")
        return 1
    old, renames = read(), Renames.load()
    kept = {renames.path(path): one for path, one in old.numbers.items()}
    numbers = {path: kept.get(path, one) for path, one in today.numbers.items()}
    noise = {renames.path(path): share for path, share in old.noise.items()}
    write(Stored(old.about, numbers, today.texts, noise))
    print("texts stored; empty renames.toml, whose names are those of the store now")
    return 0


if __name__ == "__main__":
    sys.exit(main())
