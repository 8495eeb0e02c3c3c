"""Functions of the parameters of a fit, from text, and their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from mlmed.effects.delta import ON_OTHER_SCALES, delta_table
from mlmed.effects.nlcom import combine, known_name
from mlmed.effects.quantity import Quantity
from mlmed.errors import EffectError
from mlmed.fit.protocol import Parameter
from mlmed.intervals.profile_search import QuantityAt
from mlmed.lmm.estimates import Estimates
from mlmed.lmm.vcov import Vcov
from mlmed.options import ORDERS, one_of
from mlmed.text import shown

Expression = str | Callable[[dict[str, float]], float] | Mapping[str, str]
#: From estimates to quantities by name.
QuantitiesAt = Callable[[Estimates], dict[str, Quantity]]


def quantity_of(expression: str, every: QuantitiesAt, estimates: Estimates) -> QuantityAt:
    """One named quantity, or an expression of several, as a function of the estimates.

    Raises
    ------
    EffectError
        It cannot be read, or has no derivatives at the estimates.
    """
    if not isinstance(expression, str):
        raise EffectError(f"a quantity is named by text such as 'indirect'; found {shown(expression)}")
    known = every(estimates)
    name = known_name(expression, known)
    here = combine(expression, known) if name is None else known[name]
    if np.isnan(here.gradient).any():
        raise EffectError(f"{here.term} cannot be moved from where it is: {here.note}")
    if name is None:
        return lambda estimates: combine(expression, every(estimates))
    return lambda estimates: every(estimates)[name]


def function_table(
    expression: Expression,
    known: Mapping[str, Quantity],
    V: Vcov,
    *,
    order: str = "second",
    level: float = 0.95,
    df: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Tabulate functions of quantities by the delta method; a bare ``sd()`` or ``cor()`` as in ``sdcor()``.

    Parameters
    ----------
    expression : str, callable or mapping
        One expression, or several by label.
    known : mapping
        Quantities by name.
    V : Vcov
        Covariance of psi.
    order, level
        As in ``delta_table``.
    df : mapping, optional
        Degrees of freedom by name, of t tests of an expression that is this name; all others are normal.
    """
    one_of(order, ORDERS, "order")
    asked = dict(expression) if isinstance(expression, Mapping) else {"": expression}
    found = [_bare(one, known) or combine(one, known) for one in asked.values()]
    names = [known_name(one, known) if isinstance(one, str) else None for one in asked.values()]
    free = [(df or {}).get(name or "", np.inf) for name in names]
    table = delta_table(found, V, order=order, level=level, df=free)
    return table.assign(term=list(asked)) if isinstance(expression, Mapping) else table


def _bare(expression: object, known: Mapping[str, Quantity]) -> Quantity | None:
    """Return the standard deviation, correlation or factor that an expression names; otherwise None."""
    name = known_name(expression, known) if isinstance(expression, str) else None
    return known[name] if name is not None and known[name].kind in ON_OTHER_SCALES else None


def parameters_at(own: Sequence[Parameter], estimates: Estimates) -> dict[str, Quantity]:
    """Every entry of psi as a quantity."""
    values, unit = estimates.psi, np.eye(len(estimates.psi))
    return {one.name: Quantity(one.name, float(values[k]), unit[k], kind=one.kind) for k, one in enumerate(own)}
