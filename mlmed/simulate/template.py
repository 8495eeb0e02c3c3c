"""Fits of many data sets to one model: its formulas are read once (reading them costs more than fitting)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from mlmed.data.grams import Grams, accumulate
from mlmed.data.layout import Design
from mlmed.errors import DataError, FormulaError, NotIdentifiedError
from mlmed.fit.lmm import Fitted
from mlmed.lmm.best import best_optimum
from mlmed.lmm.estimates import to_estimates
from mlmed.lmm.refit import not_certified
from mlmed.lmm.sample import sample_of
from mlmed.lmm.working import Working, build_working
from mlmed.options import Method
from mlmed.replication import Failure

__all__ = ["Template"]

COLUMNS = ("x", "m", "y")


@dataclass(frozen=True, slots=True)
class Template:
    """The model of one fit, for other data sets with the complete columns id, x, m and y.

    Attributes
    ----------
    example : Fitted
        The fit; only its specification and layout are used.

    Raises
    ------
    FormulaError
        If the model has other columns than those and the constant, which would have to be encoded anew.
    """

    example: Fitted

    def __post_init__(self) -> None:
        """Refuse columns that are computed from others."""
        computed = [name for name in self.example.layout.columns[1:] if name not in COLUMNS]
        if computed or self.example.group_name != "id":
            raise FormulaError(
                f"simulated data have the columns x, m, y and the clusters id; found "
                f"{computed[0] if computed else f'the clusters {self.example.group_name}'!r} in the formulas, which is "
                "not one of them; use these columns as they are"
            )

    def fits(self, data: pd.DataFrame, methods: Sequence[Method]) -> list[Fitted | Failure]:
        """What ``mediate`` or ``mixed`` makes of a data set, by each method: a certified fit, or why there is none.

        Nothing warns; ``Fitted`` has no table.
        """
        layout = self.example.layout
        codes, clusters = pd.factorize(data["id"])
        values = (np.ones(len(data)), *(data[name].to_numpy() for name in layout.columns[1:]))
        members = np.ones((len(layout.equations), len(data)), dtype=bool)
        grams = accumulate(Design(layout, values, members, codes, pd.Index(clusters), np.arange(len(codes))))
        try:
            working = build_working(self.example.spec, layout, grams)
        except (DataError, NotIdentifiedError) as error:
            return [Failure.of(error)] * len(methods)
        return [self._optimized(working, grams, method) for method in methods]

    def fit(self, data: pd.DataFrame) -> Fitted | Failure:
        """The same by the method of the example."""
        return self.fits(data, [self.example.spec.method])[0]

    def _optimized(self, working: Working, grams: Grams, method: Method) -> Fitted | Failure:
        reml = method == "reml"
        try:
            sample = partial(sample_of, self.example.spec, grams)
            optimum = best_optimum(working.problem, working.blocks, reml=reml, sample=sample)
        except NotIdentifiedError as error:
            return Failure.of(error)
        if not optimum.certificate.converged:
            return not_certified(optimum)
        spec = replace(self.example.spec, method=method)
        estimates = to_estimates(working, optimum, reml=reml)
        return Fitted(spec, self.example.layout, grams, working, optimum, estimates)
