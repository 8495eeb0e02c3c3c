"""Refuse formulas whose value in a row depends on other rows: ``I(w - w.mean())``, ``x.rank()``.

Such a statistic would be taken again from whatever rows are encoded next (new rows, one row with ``at=``), and the
coefficients would mean something else there. ``center()``, ``scale()``, ``poly()`` and splines remember the rows of
the fit and stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from formulaic.parser.types import Term

from mlmed.data.evaluation import looks_at_other_rows, tree_of
from mlmed.errors import FormulaError
from mlmed.names import display_name
from mlmed.syntax import depends_on_other_rows

__all__ = ["depends_on_rows", "refuse_other_rows"]


def refuse_other_rows(terms: Iterable[Term], where: str) -> None:
    """Refuse a term whose value in a row depends on other rows.

    Raises
    ------
    FormulaError
        There is one; ``where`` says in which formula.
    """
    if (told := depends_on_rows(terms, where)) is not None:
        raise told


def depends_on_rows(terms: Iterable[Term], where: str) -> FormulaError | None:
    """The error for the first term that takes its values from other rows; None if there is none."""
    for term in terms:
        for factor in term.factors:
            if factor.eval_method.value == "python" and looks_at_other_rows(tree_of(factor.expr)):
                return depends_on_other_rows(display_name(factor.expr), where)
    return None
