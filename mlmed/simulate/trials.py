"""Data sets of every planned size, fits of one model whose formulas are read once, and their outcomes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.grams import Grams, accumulate
from mlmed.data.layout import Design
from mlmed.errors import DataError, FormulaError, NotIdentifiedError
from mlmed.fit.lmm import LmmFit
from mlmed.lmm.best import best_optimum
from mlmed.lmm.estimates import to_estimates
from mlmed.lmm.resample import not_certified
from mlmed.lmm.working import Working, build_working, sample_of
from mlmed.options import Method
from mlmed.replication import Failure
from mlmed.simulate.performance import performance
from mlmed.simulate.population import Source

Array = NDArray[np.float64]

COLUMNS = ("x", "m", "y")
#: Values kept for every term.
VALUES = ("estimate", "std_error", "conf_low", "conf_high")
#: Notes that differ only in their numbers are counted together.
NUMBER = re.compile(r"-?\d[\d.]*(e[-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Template:
    """The model of one fit, to fit to other data sets with the complete columns id, x, m and y.

    Attributes
    ----------
    example : LmmFit
        The fit; only its specification and layout are used.

    Raises
    ------
    FormulaError
        If the model has columns other than those and the constant, which would have to be encoded again.
    """

    example: LmmFit

    def __post_init__(self) -> None:
        """Refuse columns that are computed from others."""
        computed = [name for name in self.example.layout.columns[1:] if name not in COLUMNS]
        if computed or self.example.group_name != "id":
            raise FormulaError(
                f"simulated data have the columns x, m, y and the clusters id; found "
                f"{computed[0] if computed else f'the clusters {self.example.group_name}'!r} in the formulas, which is "
                "not one of them; use these columns as they are"
            )

    def fits(self, data: pd.DataFrame, methods: Sequence[Method]) -> list[LmmFit | Failure]:
        """Fit a data set as ``mediate`` or ``mixed`` would, by each method: a certified fit, or why there is none.

        No warnings; ``LmmFit`` has no table.
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

    def fit(self, data: pd.DataFrame) -> LmmFit | Failure:
        """Fit by the method of the example."""
        return self.fits(data, [self.example.spec.method])[0]

    def _optimized(self, working: Working, grams: Grams, method: Method) -> LmmFit | Failure:
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
        return LmmFit(spec, self.example.layout, grams, working, optimum, estimates)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Results of one data set.

    Attributes
    ----------
    values : (n_terms, 4) array
        Estimate, standard error, ends of the interval; NaN where they do not exist.
    failures : tuple of Failure or None
        By term, why there is no estimate; None if there is one.
    notes : tuple of str
        By term, why there is an estimate but no interval; empty otherwise.
    singular : bool
        Whether the fit lies on the boundary.
    """

    values: Array
    failures: tuple[Failure | None, ...]
    notes: tuple[str, ...]
    singular: bool = False


def failed(n_terms: int, failure: Failure) -> Outcome:
    """Outcome without estimates."""
    return Outcome(np.full((n_terms, len(VALUES)), np.nan), (failure,) * n_terms, ("",) * n_terms)


def outcome_of(table: pd.DataFrame, terms: tuple[str, ...], *, singular: bool) -> Outcome:
    """Outcome from the rows of a tidy table."""
    rows = table.set_index("term").loc[list(terms)]
    values = rows[list(VALUES)].to_numpy(dtype=np.float64)
    missing = np.isnan(values[:, 2:]).any(axis=1)
    notes = tuple(str(note) if gone else "" for note, gone in zip(rows["note"], missing, strict=True))
    return Outcome(values, (None,) * len(terms), notes, singular)


def summarized(outcomes: Sequence[Outcome], k: int, truth: float) -> dict[str, Any]:
    """Performance of term k over data sets, and a note on missing results with their most frequent reason."""
    values = np.array([one.values[k] for one in outcomes])
    n, pieces = len(outcomes), []
    failures = Counter(failure for one in outcomes if (failure := one.failures[k]) is not None)
    if failures:
        first, most = failures.most_common(1)[0]
        example = f", the first: {first.detail}" if first.detail else ""
        pieces.append(f"{_share(failures.total(), n)} failed; {most} of them: {first.text}{example}")
    notes = [one.notes[k] for one in outcomes if one.notes[k]]
    if notes:
        like, most = Counter(NUMBER.sub("", text) for text in notes).most_common(1)[0]
        note = next(text for text in notes if NUMBER.sub("", text) == like)
        pieces.append(f"{_share(len(notes), n)} without an interval; {most} of them: {note}")
    return {
        **performance(values, truth).row(),
        "note": "; ".join(pieces),
    }


def _share(k: int, n: int) -> str:
    return f"{k} of {n} ({100 * k / n:.3g}%)"


class Analysis(Protocol):
    """A function from a data set to its outcome."""

    @property
    def terms(self) -> tuple[str, ...]:
        """The rows of its outcomes."""
        ...

    def __call__(self, data: pd.DataFrame, rng: np.random.Generator) -> Outcome:
        """The outcome of one data set."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """Task for ``replicate``: analyse one data set of every planned size.

    Attributes
    ----------
    source : Source
        The population.
    sizes : tuple of (int, int)
        Clusters and rows in each.
    analysis : Analysis
        The analysis of a data set.
    """

    source: Source
    sizes: tuple[tuple[int, int], ...]
    analysis: Analysis

    def __call__(self, rng: np.random.Generator) -> list[Outcome]:
        """One outcome per size; its data do not depend on the other sizes."""
        entropy = int(rng.integers(2**63))
        found = []
        for size in self.sizes:
            own = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=size))
            found.append(self.analysis(self.source.draw(*size, own).data, own))
        return found
