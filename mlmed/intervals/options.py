"""Options of intervals: defaults, and refusals of what would be ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlmed.errors import EffectError
from mlmed.options import ENDS, check_count, check_flag, check_jobs, check_seed, one_of
from mlmed.text import shown

__all__ = ["Options", "check_options"]

#: The options each kind of interval uses, with their defaults.
Options = Mapping[str, Mapping[str, Any]]
#: Those that are true or false.
FLAGS = frozenset({"within", "progress"})


def check_options(table: Options, interval: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one kind of interval, defaults filled in.

    Parameters
    ----------
    table : mapping
        Kind of interval -> option -> default; the other options are refused, not ignored.
    interval : str
        The kind that was asked for.
    given : mapping
        What the user said; None where nothing.

    Raises
    ------
    EffectError
        Unknown interval, an option that it does not use, no seed where numbers are drawn, or what is no number of
        draws, no seed, no ends.
    """
    one_of(interval, table, "interval")
    asked = {name: value for name, value in given.items() if value is not None}
    idle = [name for name in asked if name not in table[interval]]
    if idle:
        users = [kind for kind, options in table.items() if idle[0] in options]
        raise EffectError(
            f"interval={shown(interval)} does not use {', '.join(idle)}; {idle[0]} belongs to "
            f"{' and '.join(f'interval={kind!r}' for kind in users)}"
        )
    options = {**table[interval], **asked}
    if "seed" in options:  # numbers are drawn; look at everything before they are
        options["seed"] = check_seed(options["seed"], f"interval={shown(interval)}")
        options["n"] = check_count(options["n"], "replicates" if interval == "bootstrap" else "draws")
    if "ends" in options:
        one_of(options["ends"], ENDS, "ends")
    if "n_jobs" in options:
        check_jobs(options["n_jobs"])
    for name in FLAGS & options.keys():
        check_flag(options[name], name)
    return options
