"""The long attack (``make hostile``): every argument with every value, every table in every mode; prints the counts.

Ends with status 1 if a try gave a bare error, took more than ``SLOW`` seconds, or warned of NumPy.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict

import joblib

from tests.hostile.attack import SLOW, VALUES, Tally, attack, tried
from tests.hostile.odd_tables import CALLS, tables
from tests.hostile.subjects import fits, functions, methods, table


def attack_arguments(pattern: str) -> Tally:
    """Every value in the place of every argument."""
    tally, data = Tally(), table()
    made = fits(data)
    with joblib.parallel_config(backend="threading"):
        for subject in [*functions(data), *methods(made, data)]:
            if pattern in subject.name:
                attack(subject, VALUES, tally)
    return tally


def attack_tables(pattern: str) -> Tally:
    """Every table in every mode."""
    tally = Tally()
    for name, make in tables().items():
        for mode, call in CALLS.items():
            label = f"{name} / {mode}"
            if pattern not in label:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = make()
            tally.add(label, *tried(lambda call=call, data=data: call(data)))
    return tally


def report(what: str, tally: Tally) -> bool:
    """Print the counts, and what should not be by the place where it came from; whether all is well."""
    print(f"{what}: {sum(tally.counts.values()):,} tries", end="")
    print("".join(f", {kind} {tally.counts.get(kind, 0):,}" for kind in KINDS), flush=True)
    places = defaultdict(list)
    for text in tally.bad:
        places[text.split(" at ")[-1].split(" < ")[0]].append(text)
    for place, texts in sorted(places.items(), key=lambda item: -len(item[1])):
        print(f"  {len(texts):4d} at {place}: {texts[0][:300]}")
    return not tally.bad


KINDS = ("fits", "refused", "signature", "bare", "slow", "warned")


def main() -> int:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("all", "arguments", "tables"), default="all")
    parser.add_argument("--only", default="", help="a part of the names of the tries")
    options = parser.parse_args()
    print(f"a try may take {SLOW} s")
    parts = {"arguments": attack_arguments, "tables": attack_tables}
    asked = parts if options.part == "all" else {options.part: parts[options.part]}
    well = [report(name, run(options.only)) for name, run in asked.items()]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
