"""Columns of one equation that are made of the response of another: what a simulation has to rebuild.

Equations are simulated in the order in which they were written. A predictor that *is* the response of an
earlier equation (the mediator) follows it at once; one that is computed from it (``m:w``, ``np.log(m)``) has to be
encoded again from rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlmed.data.grams import Grams, column_sums
from mlmed.data.layout import EquationLayout, Layout
from mlmed.data.terms import Encoding
from mlmed.errors import DataError
from mlmed.formula import formula_variables, term_variables

__all__ = ["Derived", "derived_columns", "refuse_cluster_means", "refuse_derived"]

#: A predictor that equals the cluster means of a response up to this share of its scale is made of them.
SAME_MEANS = 1e-9


@dataclass(frozen=True, slots=True)
class Derived:
    """A column computed from responses of earlier equations.

    Attributes
    ----------
    equation : int
        The equation whose predictor it is.
    encoding : int
        Its encoding there: 0 for the fixed part, k for random term k - 1.
    column : int
        Its position in that encoding.
    at : int
        Its position among the Gram columns.
    variables : tuple of str
        The response variables it reads.
    """

    equation: int
    encoding: int
    column: int
    at: int
    variables: tuple[str, ...]


def derived_columns(layout: Layout) -> tuple[tuple[Derived, ...], ...]:
    """For every equation, its columns that earlier responses go into without being such a response themselves.

    Raises
    ------
    DataError
        If an equation uses the response of a later one.
    """
    responses = [formula_variables(equation.response) for equation in layout.asked]
    places = [equation.response_at for equation in layout.equations]
    endogenous = frozenset().union(*responses)
    found: list[tuple[Derived, ...]] = []
    for s, equation in enumerate(layout.equations):
        own: list[Derived] = []
        for encoding, column, at, variables in _predictors(equation):
            used = variables & endogenous
            sources = [places.index(at)] if at in places else [r for r, known in enumerate(responses) if known & used]
            if any(r >= s for r in sources):
                later = layout.equations[max(sources)].name
                raise DataError(
                    f"the predictor {layout.columns[at]!r} of equation {equation.name} depends on the response of the "
                    f"later equation {later}, so responses cannot be simulated one after the other; write the "
                    "equations in causal order, and make a response that is computed from predictors a column"
                )
            if sources and at not in places:
                own.append(Derived(s, encoding, column, at, tuple(sorted(used))))
        found.append(tuple(own))
    return tuple(found)


def refuse_derived(layout: Layout) -> None:
    """Refuse what cannot be simulated from cross-products.

    Raises
    ------
    DataError
        If a predictor is computed from the response of another equation.
    """
    for column in (column for own in derived_columns(layout) for column in own):
        raise DataError(
            f"the predictor {layout.columns[column.at]!r} of equation {layout.equations[column.equation].name} is "
            f"computed from {', '.join(column.variables)}, the response of another equation; its cross-products cannot "
            "be simulated from those of the data, so use a resampler of rows (row_parametric_resampler, "
            "residual_resampler) or resample whole clusters (case_resampler)"
        )


def refuse_cluster_means(grams: Grams) -> None:
    """Refuse a predictor that holds the cluster means of an earlier response: nothing says that it must follow.

    Raises
    ------
    DataError
        If there is one.
    """
    layout = grams.layout
    for s, equation in enumerate(layout.equations):
        rows = column_sums(grams, s, 0)
        for response in layout.equations[:s]:
            at = response.response_at
            r = layout.equations.index(response)
            others = column_sums(grams, r, 0)
            shared = (rows > 0) & (others > 0)
            if not shared.any():
                continue
            means = grams.shift[at] + grams.scale[at] * column_sums(grams, r, at)[shared] / others[shared]
            for k in sorted({*equation.fixed_at, *equation.random_at} - {0, at}):
                sums, n, squares = column_sums(grams, s, k)[shared], rows[shared], column_sums(grams, s, k, k)[shared]
                gap = np.abs(grams.shift[k] + grams.scale[k] * sums / n - means).max()
                within = np.abs(squares - sums**2 / n).max()
                if max(gap / grams.scale[k], within) <= SAME_MEANS:
                    raise DataError(
                        f"the predictor {layout.columns[k]!r} of equation {equation.name} holds the cluster means of "
                        f"{response.name}, which is simulated, but would stay as it is; resample whole clusters "
                        "(case_resampler)"
                    )


def _predictors(equation: EquationLayout) -> Iterator[tuple[int, int, int, frozenset[str]]]:
    """Encoding, column in it, Gram column, and variables of every predictor."""
    first = 0
    for number, encoding in enumerate(equation.encodings):
        width = len(encoding.column_names)
        places = equation.fixed_at if number == 0 else equation.random_at[first : first + width]
        first += width if number else 0
        for column, variables in _column_variables(encoding):
            yield number, column, places[column], variables


def _column_variables(encoding: Encoding) -> Iterator[tuple[int, frozenset[str]]]:
    for term, span in encoding.term_slices.items():
        variables = term_variables(term)
        for column in range(span.start, span.stop):
            yield column, variables
