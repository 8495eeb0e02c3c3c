"""Influence of single clusters on the estimates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.catalogue import EffectSet
from mlmed.effects.delta import said_of, std_error
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import shown_clusters
from mlmed.lmm.influence import one_step_changes, refit_changes
from mlmed.lmm.percluster import cluster_products
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined
from mlmed.options import check_count, check_flag, check_jobs, check_text
from mlmed.report.plots.diagnostics import plot_influence

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Array = NDArray[np.float64]
#: Clusters up to which a singular fit is refitted by default.
MANY = 2000


@dataclass(frozen=True)
class InfluenceResults:
    """Changes of all effects and parameters when one cluster is left out.

    Attributes
    ----------
    changes : DataFrame
        Estimate without the cluster less the estimate; a row per cluster, a column per effect and parameter.
    std_errors : Series
        Standard errors of the fit, which scale the changes.
    cooks : Series
        Cook's distance of the fixed effects.
    notes : Series
        Why the row of a cluster is NaN; otherwise empty.
    refitted : bool
        Whether changes are from exact refits or from one Newton step.
    unscaled : dict of str to str
        Terms without a standard error, and why.
    remarks : dict of str to str
        Notes on terms, such as values of moderators.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.influence().changes["X"].abs().nlargest(2).round(3).to_dict()
    {37: 0.037, 42: 0.032}
    >>> fit.influence()
    InfluenceResults(one step without each of 50 clusters; largest Cook's distance 0.0624: cluster 4)
    """

    changes: pd.DataFrame
    std_errors: pd.Series
    cooks: pd.Series
    notes: pd.Series
    refitted: bool
    unscaled: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)

    def tidy(self) -> pd.DataFrame:
        """One row per cluster and term: cluster, term, change, scaled (in standard errors), cooks, note."""
        J, K = self.changes.shape
        change = self.changes.to_numpy().T.ravel()
        errors = self.std_errors[self.changes.columns].to_numpy(dtype=np.float64)
        why = {term: f"scaled: {reason}" for term, reason in self.unscaled.items()}
        notes = [joined(note, why.get(term, "")) for term in map(str, self.changes) for note in self.notes]
        return pd.DataFrame(
            {
                "cluster": np.tile(self.changes.index.to_numpy(), K),
                "term": np.repeat(self.changes.columns.to_numpy(dtype=object), J),
                "change": change,
                "scaled": change / np.repeat(np.where(errors > 0.0, errors, np.nan), J),
                "cooks": np.tile(self.cooks.to_numpy(), K),
                "note": notes,
            }
        )

    def plot(self, term: str | None = None, *, label: int = 3, ax: Axes | None = None) -> Axes:
        """Change of one term by cluster, in standard errors, the largest named (extra ``plots``).

        Parameters
        ----------
        term : str, optional
            By default the indirect effect, or else the first term.
        label : int
            Clusters that are named.
        ax : Axes, optional
            Where to draw.

        Raises
        ------
        EffectError
            Unknown term.
        """
        label = check_count(label, "clusters to be named", name="label", least=0)
        usual = "indirect" if "indirect" in self.changes else str(self.changes.columns[0])
        name = usual if term is None else check_text(term, "term", "a term")
        if name not in self.changes:
            raise EffectError(f"no changes of {name!r}; there are {', '.join(self.changes.columns)}")
        error = float(self.std_errors[name])
        scaled, unit = (self.changes[name] / error, "(standard errors)") if error > 0.0 else (self.changes[name], "")
        how = "refitted without each" if self.refitted else "one Newton step without each"
        note = joined(how, self.remarks.get(name, ""))
        return plot_influence(scaled, term=name, unit=unit, label=label, note=note, ax=ax)

    def __repr__(self) -> str:
        kind = "refits" if self.refitted else "one step"
        known = self.cooks.dropna()
        largest = f"{known.max():.3g}: cluster {known.idxmax()}" if len(known) else f"unknown: {self.notes.iloc[0]}"
        return f"InfluenceResults({kind} without each of {len(self.cooks)} clusters; largest Cook's distance {largest})"


def influence_of(
    fitted: LmmFit,
    effects: EffectSet,
    V: Vcov,
    *,
    refit: bool | None,
    n_jobs: int | None = None,
) -> InfluenceResults:
    """Leave each cluster out in turn; return the changes of effects and parameters."""
    n_jobs = check_jobs(n_jobs)
    refit = refit if refit is None else check_flag(refit, "refit")
    if refit is None:  # one Newton step does not exist at a singular optimum
        refit = fitted.is_singular and len(fitted.clusters) <= MANY
    products = cluster_products(fitted.working, fitted.grams)
    if refit:
        found = refit_changes(fitted.working, fitted.optimum, products, reml=fitted.reml, n_jobs=n_jobs)
    else:
        found = one_step_changes(fitted.working, fitted.optimum, products, reml=fitted.reml)
    quantities, moved = effects.drawn, effects.columns(fitted.psi + found.changes)
    index = pd.Index(shown_clusters(fitted.clusters), name=fitted.group_name)
    changes = pd.DataFrame({term: values - quantities[term].estimate for term, values in moved.items()}, index=index)
    errors = {term: std_error(quantities[term], V) for term in moved}
    said = {term: said_of(quantities[term], V, order="second") for term in moved if np.isnan(errors[term])}
    return InfluenceResults(
        changes,
        pd.Series(errors, name="std_error"),
        pd.Series(found.cooks, index=index, name="cooks"),
        pd.Series(["" if one is None else str(one) for one in found.failures], index=index, name="note"),
        refit,
        {term: why for term, why in said.items() if why},
        {term: quantity.note for term, quantity in quantities.items() if quantity.note},
    )
