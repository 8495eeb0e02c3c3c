"""The examples of the source documents, by name: published numbers, ours, and the differences."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from mlmed.errors import DatasetError
from mlmed.options import LETTERS, shown
from mlmed.reproduce.mediation import framing, stata_bpg, yuan_mackinnon
from mlmed.reproduce.multilevel import affect_m1, affect_m2, affect_m3, affect_m4, affect_m5, gpa, sleepstudy
from mlmed.reproduce.tables import Compared, Reproduction

__all__ = ["Compared", "Reproduction", "describe", "names", "run"]


@dataclass(frozen=True, slots=True)
class _Example:
    """The listing of an example, and the function that runs it."""

    data: str
    published: str
    ours: str
    make: Callable[[], Reproduction]


_EXAMPLES = {
    "stata-bpg": _Example("ml_sim", "Stata: four tables, two effects", "joint REML, three ML fits", stata_bpg),
    "yuan-mackinnon": _Example(
        "yuan_mackinnon_sim",
        "true, Stan, brms, lme4, R mediation, naive",
        "joint REML and ML, piecewise, potential outcomes",
        yuan_mackinnon,
    ),
    "framing": _Example(
        "framing", "R mediation: two tables, test.TMint, medsens", "potential outcomes, sensitivity", framing
    ),
    "gpa": _Example("gpa", "lme4, brms", "mixed", gpa),
    "sleepstudy": _Example("sleepstudy", "none; reference: lme4", "mixed", sleepstudy),
    "affect-m1": _Example("williams", "brms (in m3); reference: lme4", "mixed", affect_m1),
    "affect-m2": _Example("williams", "brms; reference: nlme", "mixed, two responses", affect_m2),
    "affect-m3": _Example("williams", "brms; reference: nlme", "mixed, two responses", affect_m3),
    "affect-m4": _Example("williams", "brms", "location_scale", affect_m4),
    "affect-m5": _Example("williams", "brms, did not converge", "location_scale", affect_m5),
}


def names() -> list[str]:
    """Return the names that `run` knows.

    Examples
    --------
    >>> from mlmed import reproduce
    >>> "stata-bpg" in reproduce.names()
    True
    """
    return list(_EXAMPLES)


def describe() -> pd.DataFrame:
    """Return one row per example: name, data set, published numbers, our counterpart.

    Examples
    --------
    >>> from mlmed import reproduce
    >>> list(reproduce.describe())
    ['name', 'data', 'published', 'ours']
    """
    rows = [(name, example.data, example.published, example.ours) for name, example in _EXAMPLES.items()]
    return pd.DataFrame(rows, columns=["name", "data", "published", "ours"])


def run(name: str) -> Reproduction:
    """Run an example of the source documents: published numbers against ours.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    Reproduction
        ``str()`` is the report, ``tables`` are data frames, ``to_frame()`` has one row per number.

    Raises
    ------
    DatasetError
        If no example has this name, or its data set is not available.

    Examples
    --------
    >>> from mlmed import reproduce
    >>> table = reproduce.run("yuan-mackinnon").tables["Indirect effect"].set_index("term")
    >>> table.loc[["naive_lmer", "brms"], ["published", "ours"]].round(4).to_dict("index")
    {'naive_lmer': {'published': -0.034, 'ours': -0.0341}, 'brms': {'published': -0.13, 'ours': -0.1276}}
    """
    if not isinstance(name, str) or name not in _EXAMPLES:
        close = difflib.get_close_matches(name[:LETTERS], _EXAMPLES, n=1, cutoff=0.4) if isinstance(name, str) else []
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise DatasetError(f"there is no example {shown(name)}, only {', '.join(_EXAMPLES)}{meant}")
    return _EXAMPLES[name].make()
