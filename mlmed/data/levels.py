"""Levels of variables: of the rows (1) or of the clusters (2); the table with one row per cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.errors import DataError
from mlmed.text import shorten

Codes = NDArray[np.intp]
#: A variable is constant within clusters if its variation there is below this share of all, as for the engine.
NO_WITHIN = 1e-11


def levels_of(table: pd.DataFrame, codes: Codes, names: Iterable[str]) -> dict[str, int]:
    """Level of every named column: 2 if it is constant within every cluster, missing values ignored, else 1.

    ``table``: numbers as float64; anything else is compared by value; ``codes`` (n,): cluster of each row, 0 to J -
    1; rows with -1 are left out.

    Examples
    --------
    >>> table = pd.DataFrame({"pupil": [1.0, 2.0, 3.0], "school": [5.0, np.nan, 7.0]})
    >>> levels_of(table, np.array([0, 0, 1]), ["pupil", "school"])
    {'pupil': 1, 'school': 2}
    """
    return {name: 2 if _is_constant_within(table[name], codes) else 1 for name in names}


def _is_constant_within(column: pd.Series, codes: Codes) -> bool:
    known = np.asarray(column.notna()) & (codes >= 0)
    clusters = codes[known]
    if column.dtype != np.float64:
        values = pd.factorize(column[known])[0]
        return len(pd.DataFrame({"c": clusters, "v": values}).drop_duplicates()) == len(np.unique(clusters))
    numbers = column.to_numpy()[known]
    if not len(numbers):
        return True
    deviation = numbers - numbers.mean()
    deviation = deviation / max(float(np.abs(deviation).max()), np.finfo(float).tiny)
    size = np.maximum(np.bincount(clusters), 1)
    within = deviation - (np.bincount(clusters, weights=deviation) / size)[clusters]
    return bool(within @ within <= NO_WITHIN * (deviation @ deviation))


def cluster_table(table: pd.DataFrame, codes: Codes, names: Iterable[str]) -> pd.DataFrame:
    """One row per cluster, in the order of their codes: the first value of each column that is not missing.

    ``table``: columns of level 2; ``codes`` (n,): cluster of each row, 0 to J - 1; rows with -1 are left out.
    """
    known = codes >= 0
    return table.loc[known, list(names)].groupby(codes[known], sort=True).first().reset_index(drop=True)


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of variables in a mediation model."""

    #: Names as shown.
    treatment: str
    mediator: str
    outcome: str
    #: The columns behind ``mediator`` and ``outcome``; more than one if the response is computed.
    columns: Mapping[str, tuple[str, ...]]
    covariates: tuple[str, ...]  #: All other predictors of any equation.
    upstream: tuple[str, ...]  #: Covariates in the mediator equation.
    group: str  #: The cluster variable.

    @property
    def variables(self) -> tuple[str, ...]:
        """Every column that has a level."""
        return tuple(name for name, _ in self.listed)

    @property
    def listed(self) -> list[tuple[str, str]]:
        """Every column that has a level, and its role."""
        rows = [(self.treatment, "treatment")]
        rows += [(name, role) for role in ("mediator", "outcome") for name in self.columns[getattr(self, role)]]
        return rows + [(name, "covariate") for name in self.covariates]

    def table(self, levels: Mapping[str, int]) -> pd.DataFrame:
        """variable, role, level."""
        rows = self.listed
        return pd.DataFrame(
            {
                "variable": [name for name, _ in rows],
                "role": [role for _, role in rows],
                "level": [levels[name] for name, _ in rows],
            }
        )


def refuse_constant(roles: Roles, table: pd.DataFrame) -> None:
    """Refuse a constant column, which would pass for a variable of the clusters."""
    for name, role in roles.listed:
        values = table[name].dropna().unique()
        if len(values) < 2:
            known = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
            found = f"is constant ({known[0]})" if known else "has only missing values"
            raise DataError(
                f"the {role} {name!r} {found}, so it has neither causes nor effects in these data; check how the "
                "column was read or selected, or choose another"
            )


def check_design(roles: Roles, levels: Mapping[str, int]) -> str:
    """The design, ``"1-1-1"``, ``"2-1-1"`` or ``"2-2-1"``: levels of treatment, mediator and outcome.

    Raises ``DataError``: nothing is nested, or a variable of the rows predicts one of the clusters.
    """
    x, m, y = roles.treatment, roles.mediator, roles.outcome
    of_m, of_y = (min(levels[name] for name in roles.columns[role]) for role in (m, y))
    same = f"the same in all rows of a cluster ({roles.group})"
    if levels[x] == of_m == of_y == 2:
        raise DataError(
            f"treatment {x}, mediator {m} and outcome {y} are each {same}: nothing is nested, and there is nothing "
            "multilevel about them. Take one row per cluster and fit ordinary regressions (mlmed.causal)"
        )
    if of_y == 2:
        lower = [name for name, level in ((x, levels[x]), (m, of_m)) if level == 1]
        vary = f"{' and '.join(lower)} {'varies' if len(lower) == 1 else 'vary'} within clusters"
        raise DataError(
            f"the outcome {y} is {same}, but {vary}: what differs from row to row cannot predict what is the same for "
            "all of them (an upward effect). Average over clusters and fit ordinary regressions to one row per cluster "
            "(mlmed.causal), or use a two-level structural equation model"
        )
    if of_m == 2:
        _refuse_upward(roles, levels, same)
    return f"{levels[x]}-{of_m}-{of_y}"


def _refuse_upward(roles: Roles, levels: Mapping[str, int], same: str) -> None:
    """Refuse predictors of the rows for a mediator of the clusters."""
    x, m = roles.treatment, roles.mediator
    if levels[x] == 1:
        raise DataError(
            f"the treatment {x} varies within clusters, but the mediator {m} is {same}: a variable of the rows cannot "
            f"cause what is the same for all of them (an upward effect). Use a mediator that was measured on the rows, "
            f"or cluster means of {x} as the treatment"
        )
    lower = [name for name in roles.upstream if levels[name] == 1]
    if lower:
        raise DataError(
            f"the mediator {m} is {same}, so its equation is a regression of clusters, but its predictor(s) "
            f"{shorten(lower)} vary within clusters and have no one value per cluster. Leave them out of the mediator "
            "equation (they may stay in the outcome equation), or make a column of their cluster means"
        )
