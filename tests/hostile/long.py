"""The long attack (``make hostile``): every argument, every table in every mode, every option; prints the counts.

Ends with status 1 if a try gave a bare error, took more than ``SLOW`` seconds, or warned of NumPy.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib

from mlmed.cli.commands import COMMANDS
from tests.hostile.attack import SLOW, VALUES, Tally, attack, tried
from tests.hostile.commands import lines, pairs, run, written
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


def attack_commands(pattern: str) -> Tally:
    """Every option of every command, and pairs of them, with every word."""
    tally, data = Tally(), written(Path.cwd())
    one = itertools.chain.from_iterable(lines(command, data) for command in COMMANDS)
    for each in itertools.chain(one, pairs(data, PAIRS, seed=2)):
        if pattern in each.name:
            tally.add(each.name, *run(each))
    return tally


@contextmanager
def folder() -> Iterator[None]:
    """A folder for the files with odd names that some tries write."""
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)
        try:
            yield
        finally:
            os.chdir(home)


def report(what: str, tally: Tally) -> bool:
    """Print the counts, and what should not be by the place where it came from; whether all is well."""
    print(f"{what}: {sum(tally.counts.values()):,} tries", end="")
    print("".join(f", {kind} {tally.counts[kind]:,}" for kind in KINDS if kind in tally.counts), flush=True)
    places = defaultdict(list)
    for text in tally.bad:
        places[text.split(" at ")[-1].split(" < ")[0]].append(text)
    for place, texts in sorted(places.items(), key=lambda item: -len(item[1])):
        print(f"  {len(texts):4d} at {place}: {texts[0][:300]}")
    return not tally.bad


KINDS = ("fits", "answered", "refused", "usage", "signature", "bare", "slow", "warned")
#: Command lines with two odd options.
PAIRS = 5_000


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=("all", "arguments", "tables", "commands"), default="all")
    parser.add_argument("--only", default="", help="a part of the names of the tries")
    options = parser.parse_args()
    print(f"a try may take {SLOW} s")
    parts = {"arguments": attack_arguments, "tables": attack_tables, "commands": attack_commands}
    asked = parts if options.part == "all" else {options.part: parts[options.part]}
    with folder():
        well = [report(name, act(options.only)) for name, act in asked.items()]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
