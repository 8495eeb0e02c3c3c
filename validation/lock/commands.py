"""What the command line prints; documents and tables among it are read, so that their numbers are numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pandas as pd

from validation.lock.adapter import known, run_command

__all__ = ["COMMANDS"]

DATA = "yuan_mackinnon_sim"
BOTH = ("--mediator", "Med ~ X + (1 + X | group)", "--outcome", "y ~ Med + X + (1 + Med + X | group)")
ONE = ("--formula", "y ~ Med + X + (1 + Med | group)")
TWO = ("--formula", "Med ~ X + (1 |c| group)", "--formula", "y ~ X + (1 |c| group)", "--residual", "unstructured")
SCALE = ("--location", "y ~ X + (1 |c| group)", "--scale", "~ X + (1 |c| group)", "--nodes", "7")
LEVELS = ("--mediator", "late ~ catholic + (1 | SCH_ID)", "--outcome", "score ~ late + catholic + (1 | SCH_ID)")
PROBIT = ("--mediator", "emo ~ treat + age", "--outcome", "cong_mesg ~ emo + treat + age")
FRAMING = ("framing", *PROBIT, "--treatment", "treat", "--family-y", "probit", "--vcov", "HC3")
DRAWN = ("--seed", "1", "--level", "0.8")

#: Arguments by name; the way to read what is printed follows from ``--format``.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "version": ("--version",),
    "help": ("--help",),
    **{
        f"help {name}": (name, "--help")
        for name in (
            "fit", "effects", "piecewise", "causal", "compare", "reproduce", "mixed", "location-scale", "stack",
            "grams", "datasets",
        )
    },
    "fit": ("fit", DATA, *BOTH),
    "fit ml joint": ("fit", DATA, *BOTH, "--method", "ml", "--vcov", "joint", "--level", "0.9"),
    "fit stata": ("fit", DATA, *BOTH, "--format", "stata"),
    "fit json": ("fit", DATA, *BOTH, "--format", "json"),
    "fit csv": ("fit", DATA, *BOTH, "--format", "csv", "--vcov", "CR2"),
    "fit contrast": ("fit", DATA, *BOTH, "--contrast", "-1", "1", "--format", "csv"),
    "fit ml_sim stata": (
        "fit", "ml_sim", "--mediator", "m ~ x + (1 + x | id)", "--outcome", "y ~ m + x + (1 + m + x | id)", "--format",
        "stata",
    ),
    "effects": ("effects", DATA, *BOTH),
    "effects csv": ("effects", DATA, *BOTH, "--format", "csv", "--vcov", "joint", "--order", "first"),
    "effects t": ("effects", DATA, *BOTH, "--ddf", "satterthwaite"),
    "effects monte-carlo": ("effects", DATA, *BOTH, "--interval", "monte-carlo", "-n", "200", *DRAWN),
    "effects bootstrap": ("effects", DATA, *BOTH, "--interval", "bootstrap", "-n", "24", "--ends", "bc", *DRAWN),
    "effects residual": ("effects", DATA, *BOTH, "--interval", "bootstrap", "-n", "24", "--kind", "residual", *DRAWN),
    "mixed": ("mixed", DATA, *ONE, "--ddf", "kenward-roger"),
    "mixed json": ("mixed", DATA, *ONE, "--format", "json", "--covariance", "diagonal"),
    "mixed stata": ("mixed", DATA, *ONE, "--format", "stata", "--method", "ml"),
    "mixed two": ("mixed", DATA, *TWO),
    "piecewise": ("piecewise", DATA, *BOTH),
    "piecewise stata": ("piecewise", DATA, *BOTH, "--format", "stata"),
    "piecewise product": ("piecewise", DATA, *BOTH, "--interval", "product", "--format", "csv"),
    "piecewise json": ("piecewise", DATA, *BOTH, "--format", "json", "--vcov", "CR1"),
    "piecewise levels": ("piecewise", "student", *LEVELS),
    "causal": ("causal", *FRAMING),
    "causal json": ("causal", *FRAMING, "--format", "json", "--at", "age=30"),
    "causal monte carlo": ("causal", *FRAMING, "--interval", "monte-carlo", "-n", "200", "--seed", "1"),
    "causal sensitivity": (
        "causal", "framing", *PROBIT, "--treatment", "treat", "--family-y", "probit", "--sensitivity",
    ),
    "causal clusters": ("causal", DATA, *BOTH, "--of", "population"),
    "compare": ("compare", DATA, *BOTH),
    "compare csv": ("compare", DATA, *BOTH, "--format", "csv"),
    "location-scale": ("location-scale", DATA, *SCALE),
    "location-scale json": ("location-scale", DATA, *SCALE, "--format", "json"),
    "reproduce": ("reproduce",),
    "stack": ("stack", DATA, "--x", "X", "--m", "Med", "--y", "y", "--cluster", "group"),
    "datasets": ("datasets",),
    "no covariances": (
        "fit", DATA, "--mediator", "Med ~ X + (1 + X || group)", "--outcome", "y ~ Med + X + (1 + Med || group)",
    ),
    "refused formula": ("fit", DATA, "--mediator", "Med ~ X", "--outcome", "y ~ Med + X"),
    "refused column": ("mixed", DATA, "--formula", "y ~ nobody + (1 | group)"),
    "refused data": ("mixed", "nobody.csv", *ONE),
    "refused seed": ("effects", DATA, *BOTH, "--interval", "bootstrap"),
    "refused option": ("fit", DATA, *BOTH, "--vcov", "HC9"),
    "refused stata": ("piecewise", DATA, *BOTH, "--format", "stata", "--interval", "product"),
}  # fmt: skip


def _read(arguments: tuple[str, ...]) -> dict[str, Any]:
    found = run_command(arguments)
    form = arguments[arguments.index("--format") + 1] if "--format" in arguments else arguments[0]
    if "--help" in arguments:
        return found
    if found["status"] == 0 and form == "json":
        document = json.loads(found["out"])
        found["out"] = known(document) if isinstance(document, dict) else document
    elif found["status"] == 0 and form in ("csv", "stack"):
        found["out"] = pd.read_csv(io.StringIO(found["out"]))
    return found


COMMANDS: dict[str, Callable[[], dict[str, Any]]] = {
    name: (lambda arguments=arguments: _read(arguments)) for name, arguments in ARGUMENTS.items()
}
