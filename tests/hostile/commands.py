"""Every option of every command of ``mlmed``, with words that no option means: found from the parsers, not listed."""

from __future__ import annotations

import argparse
import io
import itertools
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np

from mlmed.cli import main
from mlmed.cli.commands import COMMANDS, make_parser
from tests.hostile.attack import SLOW, TooSlow, time_limit
from tests.hostile.subjects import table

#: What stands for a file, a formula, a name, a number or a choice.
WORDS: dict[str, str] = {
    "empty": "", "blank": " ", "dash": "-", "two dashes": "--", "option": "--out", "unknown option": "--none",
    "line end": "a\nb", "only a line end": "\n", "carriage return": "a\rmlmed: done", "escape": "\x1b[2Jx",
    "bell": "\a", "NUL": "a\0b", "half a letter": "\udcff", "a letter's first half": "\ud800", "turned": "a\u202eb",
    "line separator": "a\u2028b", "accents": "größe", "picture": "\U0001f642", "joined": "e\u0301" * 50,
    "long": "x" * 100_000, "long lines": "x\n" * 30_000, "nan": "nan", "inf": "inf", "-inf": "-inf", "1e999": "1e999",
    "1e308": "1e308", "tiny": "5e-324", "zero": "0", "minus": "-1", "half": "2.5", "two": "2",
    "underscore": "1_0", "other digits": "\u0663", "many digits": "9" * 5000, "10**30": "1" + "0" * 30,
    "10**8": "100000000", "proportion": "0.9", "percent": "95%", "hex": "0x10", "true": "True", "None": "None",
    "list": "[1, 2]", "equals": "=", "no value": "w=", "no name": "=1", "name and value": "w=1",
    "value is nan": "x=nan", "value is huge": "w=1e400", "value is text": "w=z", "two equals": "w=1=2",
    "name is long": "x" * 5000 + "=1", "column": "x", "id": "id", "factor": "f", "no column": "nothing",
    "backtick": "`x", "quote": 'a"b', "semicolon": "x; drop table", "dollar": "$HOME", "subshell": "$(id)",
    "percent sign": "%s %(prog)s %", "braces": "{0} {x.__class__}", "backslash": "\\", "star": "*", "question": "?",
    "bracket": "[", "stars": "**/*.parquet", "bracket pattern": "[.parquet", "home": "~", "no home": "~nobody-here/x",
    "root": "/", "up": "../../..", "device": "/dev/null", "full device": "/dev/full", "no folder": "/none/x.csv",
    "through a file": "/etc/passwd/x", "csv": "none.csv", "parquet": "none.parquet", "sav": "none.sav",
    "address": "http://127.0.0.1:9/x.csv", "address of parquet": "http://127.0.0.1:9/x.parquet",
    "bucket": "s3://none/x.parquet", "extension": ".csv", "two extensions": "x.csv.gz", "formula": "m ~ x + (1 | id)",
    "formula, one side": "~ x", "formula, no effects": "m ~ x", "formula, tilde": "~",
    "formula, code": "m ~ np.load('x')",
    "formula, brackets": "(" * 3000, "formula, sums": "m ~ " + "+".join(["x"] * 2000),
    "encoding": "utf-16", "encoding of bytes": "hex", "encoding, odd": "idna", "encoding, rot": "rot13",
    "encoding, undefined": "undefined", "choice in capitals": "REML", "choice": "ml", "a start of one": "boot",
    "data set": "yuan_mackinnon_sim", "example": "yuan",
}  # fmt: skip
#: Those that found the most.
WORST = (
    "empty", "line end", "escape", "NUL", "half a letter", "a letter's first half", "long", "nan", "inf", "many digits",
    "two equals", "bracket pattern", "address of parquet", "encoding of bytes", "formula", "choice in capitals",
)  # fmt: skip
M, Y = "m ~ x + w + (1 | id)", "y ~ m + x + (1 | id)"
BOTH = ("--mediator", M, "--outcome", Y, "--treatment", "x")
#: What every command needs beside DATA, and what makes an option count that another one switches on.
NEEDED: dict[str, tuple[str, ...]] = {
    "mediate": BOTH,
    "piecewise": BOTH,
    "causal": ("--mediator", "m ~ x + w", "--outcome", "y ~ m + x", "--treatment", "x"),
    "compare": ("--mediator", "m ~ x + (1 | id)", "--outcome", Y),
    "mixed": ("--formula", M),
    "location-scale": ("--location", "m ~ x + (1 | id)", "--scale", "~ x"),
    "stack": ("--x", "x", "--m", "m", "--y", "y", "--cluster", "id"),
    "grams": ("--formula", M),
    "reproduce": (),
    "datasets": (),
}
DRAWN = ("--interval", "bootstrap", "-n", "2", "--seed", "1")
#: How a file is read, which is one function for all commands.
READING = frozenset({"encoding", "missing", "codes"})
#: Options that only mean something where numbers are drawn.
OF_DRAWS = frozenset({"-n", "--seed", "--jobs", "--ends", "--kind", "--strata", "--within"})
#: Words with which an option does what it says, at length: an example is run, ten million replicates are drawn.
WORKS = frozenset({("reproduce", "name", "example"), ("reproduce", "name", "two")})


@dataclass(frozen=True)
class Try:
    """A command line.

    Attributes
    ----------
    name : str
        Which option of which command has which word.
    words : tuple of str
        The line.
    """

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Option:
    """An option or position of a command.

    Attributes
    ----------
    command, name : str
        Where it is and what it is called.
    flag : str
        How it is given; empty for a position.
    places : int
        Words that it takes at once.
    """

    command: str
    name: str
    flag: str
    places: int

    def given(self, word: str) -> tuple[str, ...]:
        """The part of a line in which this option has the word, also one that begins with a dash."""
        if not self.flag:
            return (word,)
        return (f"{self.flag}={word}",) if self.places == 1 else (self.flag, *[word] * self.places)


def options_of(command: str) -> list[Option]:
    """Every option and position of a command, from its parser."""
    commands = next(a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    parser = commands.choices[command]
    with redirect_stdout(io.StringIO()), suppress(SystemExit):  # options are added when there is something to parse
        parser.parse_args(["--help"])
    found = []
    for action in parser._actions:
        if action.dest != "help" and action.nargs != 0:
            places = action.nargs if isinstance(action.nargs, int) else 2 if action.nargs in ("*", "+") else 1
            found.append(Option(command, action.dest, (action.option_strings or [""])[-1], places))
    return found


def lines(
    command: str, data: str, words: tuple[str, ...] = tuple(WORDS), without: frozenset[str] = frozenset()
) -> Iterator[Try]:
    """Every option of a command but those without, with every word, one at a time; where numbers are drawn, two are."""
    for option in options_of(command):
        for label in words:
            if option.name not in without and (command, option.name, label) not in WORKS:
                yield _line(command, data, [(option, label)])


def pairs(data: str, n: int, seed: int) -> Iterator[Try]:
    """Two options of one command with any words, drawn."""
    rng = np.random.default_rng(seed)
    every = {command: options_of(command) for command in COMMANDS}
    several = [command for command in COMMANDS if len(every[command]) > 2 and command != "reproduce"]
    for _ in range(n):
        command = str(rng.choice(several))
        two = [every[command][k] for k in rng.choice(len(every[command]), 2, replace=False)]
        yield _line(command, data, [(option, str(rng.choice(list(WORDS)))) for option in two])


def _line(command: str, data: str, given: list[tuple[Option, str]]) -> Try:
    flags = {option.flag for option, _ in given}
    needed = list(NEEDED[command])
    for flag in flags & set(needed):
        at = needed.index(flag)
        del needed[at : at + 2]
    if flags & OF_DRAWS:
        drawn = [DRAWN[k : k + 2] for k in range(0, len(DRAWN), 2) if DRAWN[k] not in flags]
        needed += itertools.chain.from_iterable(drawn)
    takes_data = command not in ("reproduce", "datasets")
    position = [WORDS[label] for option, label in given if not option.flag] or ([data] if takes_data else [])
    own = [word for option, label in given if option.flag for word in option.given(WORDS[label])]
    name = f"{command}({', '.join(f'{option.name}={label}' for option, label in given)})"
    return Try(name, (command, *needed, *own, "--", *position) if position else (command, *needed, *own))


def run(one: Try, *, seconds: int = SLOW) -> tuple[str, str]:
    """What came of a command line: answered, refused, usage; bare or slow where it should not have been."""
    out, err = _Stream(), _Stream()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with time_limit(seconds), joblib.parallel_config(backend="threading"):
                status: object = main(list(one.words))
        except SystemExit as ended:
            status = ended.code
        except TooSlow as error:
            return "slow", str(error)
        except BaseException as error:  # whatever comes out of main is what this looks for
            return "bare", f"{type(error).__name__}: {str(error)[:150]!r} at {_place(error)}"
    wrong = [c for c in caught if not issubclass(c.category, DeprecationWarning | PendingDeprecationWarning)]
    if wrong:
        return "warned", f"{wrong[0].category.__name__}: {str(wrong[0].message)[:150]}"
    return _judged(status, out.text(), err.text())


#: Letters of the longest message.
LONGEST = 4_300


def _judged(status: object, out: str, err: str) -> tuple[str, str]:
    """Answered with 0; refused with 2, nothing on standard output and one readable line (argparse: after its usage)."""
    odd = [letter for letter in err if not letter.isprintable() and letter != "\n"]
    if "Traceback" in err or odd:
        return "bare", f"status {status}, standard error has {odd[:3] or 'a traceback'}: {err[-300:]!r}"
    lines = err.splitlines()
    if any(len(line) > LONGEST for line in lines):
        return "bare", f"a message of {max(map(len, lines)):,} letters: {err[:80]!r}"
    if status == 0:
        strange = [line for line in lines if not line.startswith("mlmed: warning: ")]
        return ("bare", f"status 0, and on standard error {strange[0][:200]!r}") if strange else ("answered", "")
    if status != 2 or out:
        return "bare", f"status {status}, standard output {out[:100]!r}, standard error {err[:200]!r}"
    if err.startswith("usage: mlmed"):
        last = [line for line in lines if line.startswith("mlmed") and ": error: " in line]
        return ("usage", "") if len(last) == 1 and last[0] == lines[-1] else ("bare", f"usage and {err[-300:]!r}")
    if len(lines) != 1 or not err.startswith("mlmed: ") or len(err) < len("mlmed: x."):
        return "bare", f"{len(lines)} lines: {err[:300]!r}"
    return "refused", ""


class _Stream(io.TextIOWrapper):
    """Standard output as a program has it: UTF-8, with a buffer of bytes below."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="backslashreplace", newline="")

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


def _place(error: BaseException) -> str:
    places, at = [], error.__traceback__
    while at is not None:
        places.append(f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}")
        at = at.tb_next
    return " < ".join(places[::-1][:3])


def written(folder: Path) -> str:
    """Rows with every role, in a file."""
    path = folder / "rows.csv"
    table().head(90).to_csv(path, index=False)
    return str(path)
