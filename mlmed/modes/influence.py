"""What every single cluster does to the estimates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import Quantity, std_error
from mlmed.errors import EffectError
from mlmed.modes.fitting import Fitted
from mlmed.modes.tables import parameter_names, psi, shown_clusters
from mlmed.reml.influence import one_step_changes, refit_changes
from mlmed.reml.percluster import cluster_products
from mlmed.reml.vcov import ParameterVcov
from mlmed.report.plots import plot_influence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["InfluenceResults", "influence_of"]

Array = NDArray[np.float64]
#: Clusters up to which a singular fit is refitted without each of them unless something else is asked.
MANY = 2000


@dataclass(frozen=True)
class InfluenceResults:
    """Changes of all effects and parameters when one cluster is left out.

    Attributes
    ----------
    changes : DataFrame
        Estimate without the cluster less the estimate; a row per cluster, a column per effect and parameter.
    std_errors : Series
        Standard errors of the fit, the unit in which a change is large or small.
    cooks : Series
        Cook's distance of the fixed effects.
    notes : Series
        Why the row of a cluster is missing; empty strings otherwise.
    refitted : bool
        Exact refits, or one Newton step from the fit.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.influence().changes["X"].abs().nlargest(2).round(3).to_dict()
    {37: 0.037, 42: 0.032}
    """

    changes: pd.DataFrame
    std_errors: pd.Series
    cooks: pd.Series
    notes: pd.Series
    refitted: bool

    def tidy(self) -> pd.DataFrame:
        """One row per cluster and term: cluster, term, change, scaled (in standard errors), cooks, note."""
        long = self.changes.rename_axis("cluster").reset_index().melt("cluster", var_name="term", value_name="change")
        long["scaled"] = long["change"] / long["term"].map(self.std_errors)
        repeats = self.changes.shape[1]
        long["cooks"], long["note"] = np.tile(self.cooks, repeats), np.tile(self.notes, repeats)
        return long

    def plot(self, term: str | None = None, *, label: int = 3) -> Axes:
        """Change of one term by cluster, in standard errors, the largest named (extra ``plots``)."""
        name = term or ("indirect" if "indirect" in self.changes else str(self.changes.columns[0]))
        if name not in self.changes:
            raise EffectError(f"no changes of {name!r}; there are {', '.join(self.changes.columns)}")
        error = float(self.std_errors[name])
        scaled, unit = (self.changes[name] / error, "(standard errors)") if error > 0.0 else (self.changes[name], "")
        return plot_influence(scaled, term=name, unit=unit, label=label)


def influence_of(
    fitted: Fitted,
    quantities: dict[str, Quantity],
    make: Callable[[Array], dict[str, Array]],
    V: ParameterVcov,
    *,
    refit: bool | None,
) -> InfluenceResults:
    """Leave every cluster out in turn; ``make`` turns parameter vectors into effects."""
    if refit is None:  # one Newton step does not exist at a singular optimum
        refit = fitted.is_singular and len(fitted.clusters) <= MANY
    products = cluster_products(fitted.working, fitted.grams)
    arguments: tuple[Any, ...] = (fitted.working, fitted.optimum, products)
    found = (refit_changes if refit else one_step_changes)(*arguments, reml=fitted.reml)
    here, names = psi(fitted), parameter_names(fitted)
    moved = {**make(here + found.changes), **dict(zip(names, (here + found.changes).T, strict=True))}
    index = pd.Index(shown_clusters(fitted.clusters), name=fitted.group_name)
    changes = pd.DataFrame({term: values - quantities[term].estimate for term, values in moved.items()}, index=index)
    errors = {term: std_error(quantities[term], V.matrix) for term in moved}
    return InfluenceResults(
        changes,
        pd.Series(errors, name="std_error"),
        pd.Series(found.cooks, index=index, name="cooks"),
        pd.Series(list(found.reasons), index=index, name="note"),
        refit,
    )
