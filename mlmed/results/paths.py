"""The routes from treatment to outcome: a row for each, and their differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mlmed.effects.paths import PathCatalogue
from mlmed.intervals.values import interval_of
from mlmed.options import ROUTE_DIFFERENCES, check_level, one_of, own_words
from mlmed.results.abilities import Held, only


@own_words
@only(PathCatalogue)
def paths(
    self: Held,
    interval: Any = "delta",
    *,
    differences: str | None = None,
    level: float = 0.95,
    at: Mapping[str, Any] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Tabulate every route from the treatment to the outcome, with the effect that runs along it.

    The effect of a route is the mean over clusters of the product of its slopes (math.md, eq. 27); those of all routes
    through mediators add up to the indirect effect of ``effects()``.

    Parameters
    ----------
    interval, level, at, **options
        As in ``effects`` (``vcov``, ``order``, ``ddf``, ``n``, ``seed``, ...).
    differences : {"pairwise"}, optional
        Add the difference of each pair of indirect effects, from the same draws or replicates. Other contrasts are
        ``nlcom("indirect[m1] - 2*indirect[m2]")``.

    Returns
    -------
    DataFrame
        route (``x -> m1 -> y``; empty for differences), slopes (``a[m1] b[m1]``), and the columns of ``effects``.

    Raises
    ------
    EffectError
        The model defines no effects, or as ``effects``.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.mediate("Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)", df)
    >>> fit.paths()[["route", "slopes", "term", "estimate"]].round(3).values.tolist()
    [['X -> Med -> y', 'a b', 'indirect', -0.128], ['X -> y', 'cprime', 'direct', 0.296]]
    """
    level = check_level(level)
    if differences is not None:
        one_of(differences, ROUTE_DIFFERENCES, "differences", also="None")
    asked = interval_of("delta" if interval is None else interval, options, self.catalogue.intervals)
    routes = self.catalogue.routes(self.fit, at)
    table = asked.table(self.catalogue.effects(self.fit, at, by_route=True), level=level)
    if differences is None:
        table = table.iloc[: len(routes.labels)]
    told = {
        label: (" -> ".join(routes.nodes(route)), " ".join(routes.names[k] for k in route))
        for label, route in zip(routes.labels, routes.routes, strict=True)
    }
    shown = [told.get(term, ("", "")) for term in table["term"]]
    table.insert(0, "route", [route for route, _ in shown])
    table.insert(1, "slopes", [slopes for _, slopes in shown])
    return table.reset_index(drop=True)
