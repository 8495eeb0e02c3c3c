"""What follows from separate fits: effects with every kind of interval, tests of a b, functions of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import Quantity, delta_table
from mlmed.effects.nlcom import combine_all
from mlmed.effects.separate import (
    Slopes,
    find_slopes,
    separate_quantities,
    separate_vcov,
)
from mlmed.errors import EffectError
from mlmed.intervals.bootstrap import BootstrapResults, Plan
from mlmed.intervals.options import check_options
from mlmed.lmm.vcov import Vcov
from mlmed.options import PiecewiseInterval, check_level, check_mapping, check_text, own_words
from mlmed.results.piecewise.bootstrap import bootstrap_separately, lost_of, refit_of, strata_of
from mlmed.results.piecewise.fit import Asked, Fits
from mlmed.results.piecewise.intervals import OPTIONS, effects_table, sobel_table
from mlmed.results.piecewise.parts import Part, kinds_of, layout_of, names_of, parts_of, psi_of
from mlmed.results.piecewise.remarks import remarks

__all__ = ["PiecewiseInference"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PiecewiseInference:
    """Inference from three separate fits.

    Attributes
    ----------
    asked : Asked
        The equations, the treatment and the criterion.
    fits : Fits
        The fits, and what was learned of the data.
    contrast : pair or None
        Values of the treatment that are compared; None for a unit change.
    data : Any
        The user's table itself (not a copy), for ``strata`` and ``joint``; None in a fit from a pickle.
    """

    asked: Asked
    fits: Fits
    contrast: tuple[Any, Any] | None = None
    data: Any = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[PiecewiseInference], tuple[Any, ...]]:
        """Pickle everything but the rows."""
        return type(self), (self.asked, self.fits, self.contrast)

    # -- the fits ------------------------------------------------------------------------------------------

    @property
    def _three(self) -> tuple[Part, Part, Part]:
        return self.fits.mediator, self.fits.outcome, self.fits.reduced

    @cached_property
    def _equation_names(self) -> tuple[str, str, str]:
        m, y = self.asked.mediator.name, self.asked.outcome.name
        return f"equation {m}", f"equation {y}", f"equation {y} without {m}"

    @cached_property
    def names(self) -> list[str]:
        """Name of every parameter, ``m~x``, ``var(y~m)``; ``reduced~x`` for those of the equation without m.

        If mediator or outcome has the name ``reduced``, the latter is ``reduced_~x``.
        """
        m, y, own = self.asked.mediator.name, self.asked.outcome.name, "reduced"
        while own in (m, y):
            own += "_"
        return [name for fit, of in zip(self._three, (m, y, own), strict=True) for name in names_of(fit, of)]

    @cached_property
    def _psi(self) -> Array:
        return np.concatenate([psi_of(fit) for fit in self._three])

    def _covariance(self, kind: str) -> Vcov:
        return separate_vcov([fit.parameter_vcov(kind) for fit in self._three])

    def _slopes(self, at: Mapping[str, Any] | None) -> Slopes:
        first, second, third = (layout_of(fit) for fit in self._three)
        parts, treatment = parts_of(self._three), self.asked.treatment
        return find_slopes((first, second, third), parts, treatment=treatment, contrast=self.contrast, at=at)

    # -- effects -------------------------------------------------------------------------------------------

    def effect_quantities(self, at: Mapping[str, Any] | None = None) -> dict[str, Quantity]:
        """The effects with their derivatives in all parameters."""
        slopes = self._slopes(at)
        return separate_quantities(slopes, self._psi, remarks(self.asked, self.fits, slopes))

    @cached_property
    def effects_reason(self) -> str:
        """Why the equations define no effects (an interaction of treatment and mediator, a curve); usually empty."""
        try:
            self.effect_quantities()
        except EffectError as error:
            return str(error)
        return ""

    @own_words
    def effects(
        self,
        *,
        interval: PiecewiseInterval = "delta",
        level: float = 0.95,
        vcov: str | None = None,
        order: str | None = None,
        n: int | None = None,
        ends: str | None = None,
        strata: str | None = None,
        seed: int | None = None,
        n_jobs: int | None = None,
        progress: bool | None = None,
        at: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Paths and effects: a, b, cprime, c, indirect = a b, direct, total, c_minus_cprime, prop_mediated, ratio.

        An option that the asked interval does not use is refused. docs/piecewise.md says which to use.

        Parameters
        ----------
        interval : {"delta", "monte-carlo", "product", "bootstrap"}
            Normal theory; draws of the paths from their normal distributions; the exact distribution of a product of
            normal variables (indirect and total); refitted replicates of the data.
        level : float
            Coverage of the intervals, a proportion.
        vcov : {"block", "joint", "CR0", "CR1", "CR2", "cluster"}
            All but ``bootstrap``: covariance of the estimates of each fit, by default ``block``.
        order : {"second", "first", "unbiased"}
            ``delta``: Aroian's standard error (default, as in ``mediate``), Sobel's, Goodman's.
        n : int
            Draws (``monte-carlo``, 20,000) or replicates (``bootstrap``, 1,000).
        ends : {"percentile", "bc", "bca", "basic", "normal"}
            ``bootstrap``: how an interval is made of draws.
        strata : str
            ``bootstrap``: a column within whose values clusters are drawn.
        seed : int
            Required by ``monte-carlo`` and ``bootstrap``.
        n_jobs, progress
            ``bootstrap``: workers, and whether to show a progress bar.
        at : mapping, optional
            Values of moderators of x -> m, m -> y or x -> y; by default their mean or first level.

        Returns
        -------
        DataFrame
            term, estimate, std_error, statistic, df, p_value, conf_low, conf_high, note.

        Raises
        ------
        EffectError
            An option that is not used, no seed, or equations that define no effects.
        """
        given = {
            "vcov": vcov, "order": order, "n": n, "ends": ends, "strata": strata, "seed": seed, "n_jobs": n_jobs,
            "progress": progress,
        }  # fmt: skip
        level = check_level(level)
        options = check_options(OPTIONS, interval, given)
        if interval == "bootstrap":
            how = options.pop("ends")
            boot = self.bootstrap(options.pop("n"), at=at, **options)
            return boot.tidy(ends=how, level=level, terms=list(self.effect_quantities(at)))
        slopes, V = self._slopes(at), self._covariance(options.pop("vcov"))
        quantities = separate_quantities(slopes, self._psi, remarks(self.asked, self.fits, slopes))
        return effects_table(interval, quantities, slopes, V, psi=self._psi, level=level, **options)

    def sobel(self, *, vcov: str = "block", level: float = 0.95, at: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The three tests of a b that go by a name: Sobel (first order), Aroian (second), Goodman (unbiased).

        Examples
        --------
        >>> import mlmed
        >>> fit = mlmed.piecewise(
        ...     "Med ~ X + (1 + X | group)",
        ...     "y ~ X + Med + (1 + X + Med | group)",
        ...     mlmed.datasets.load("yuan_mackinnon_sim"),
        ... )
        >>> fit.sobel().set_index("term")["std_error"].round(5).to_dict()
        {'sobel': 0.02464, 'aroian': 0.02598, 'goodman': 0.02323}
        """
        return sobel_table(self.effect_quantities(at)["indirect"], self._covariance(vcov), level=level)

    def bootstrap(
        self,
        n: int = 1000,
        *,
        seed: int | None = None,
        strata: str | None = None,
        n_jobs: int | None = None,
        progress: bool = False,
        at: Mapping[str, Any] | None = None,
    ) -> BootstrapResults:
        """Draw whole clusters with replacement and refit all equations to the same drawn clusters.

        Parameters
        ----------
        n : int
            Replicates.
        seed : int
            Seed, required; results do not depend on the number of workers.
        strata : str, optional
            A column that is constant within clusters, such as treatment arms; each of its values keeps its number of
            clusters.
        n_jobs : int, optional
            Workers; by default those of the surrounding ``joblib.parallel_config``, or one.
        progress : bool
            Show a progress bar on standard error.
        at : mapping, optional
            Values of moderators.

        Raises
        ------
        EffectError, DataError
            No seed, or a column that cannot be strata.
        """
        kind = "case" if strata is None else f"case within {check_text(strata, 'strata', 'a column')}"
        plan = Plan(n, kind, seed=seed, n_jobs=n_jobs, progress=progress)
        at = check_mapping(at, "at", "at={'w': 1.0}")
        clusters = self.fits.clusters
        groups = None if strata is None else strata_of(self.data, strata, self.asked.group, clusters)
        source = refit_of(self._three, self._equation_names, clusters, groups)
        effects = {} if self.effects_reason and not at else self.effect_quantities(at)
        make = self._slopes(at).effects.draws if effects else _nothing
        return bootstrap_separately(
            source,
            {**effects, **self._parameters()},
            make,
            plan,
            names=self.names,
            clusters=clusters,
            lost=lost_of(self._three, parts_of(self._three)),
        )

    # -- functions of the parameters -------------------------------------------------------------------------

    def _parameters(self) -> dict[str, Quantity]:
        unit, kinds = np.eye(len(self._psi)), [kind for fit in self._three for kind in kinds_of(fit)]
        return {name: Quantity(name, float(self._psi[k]), unit[k], kind=kinds[k]) for k, name in enumerate(self.names)}

    def nlcom(
        self,
        expression: str | Callable[[dict[str, float]], float] | Mapping[str, str],
        *,
        vcov: str = "block",
        order: str = "second",
        level: float = 0.95,
        at: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Any function of the effects and parameters, with a delta-method standard error.

        Parameters
        ----------
        expression : str, callable or mapping
            For example ``"a*b / cprime"``; names may stand in backticks, ``"`m~x` * `y~m`"``. Those of the equation
            without the mediator are ``reduced~x``. A callable gets a dict of values by name. A mapping
            gives several, by label.
        vcov, order, level, at
            As in ``effects``.
        """
        effects = {} if self.effects_reason and not at else self.effect_quantities(at)
        known = {**{term: q for term, q in effects.items() if np.isfinite(q.estimate)}, **self._parameters()}
        return delta_table(combine_all(expression, known), self._covariance(vcov), order=order, level=level)


def _nothing(parameters: Array) -> dict[str, Array]:
    return {}
