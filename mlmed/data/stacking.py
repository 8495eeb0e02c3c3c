"""The stacked table of Bauer, Preacher and Gil (2006): mediator and outcome as one response."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from narwhals.exceptions import DuplicateError

from mlmed.data.frames import engine_rows, index_names, schema_names, select_columns, taken, unknown_column
from mlmed.data.ids import cluster_codes, doubtful_ids
from mlmed.data.values import refusal_of_text, value_counts, written_numbers
from mlmed.errors import DataError, IdWarning, warn
from mlmed.options import STACK_ORDERS, StackOrder, check_list, check_text, one_of


def stack(
    data: Any,
    *,
    x: str,
    m: str,
    y: str,
    cluster: str,
    covariates: Sequence[str] = (),
    order: StackOrder = "stata",
) -> pd.DataFrame:
    """Stack the mediator and the outcome into one response with selector variables.

    Every observation becomes two rows: its y row (``sm`` 0, ``sy`` 1, ``z`` the outcome) and its m row
    (``sm`` 1, ``sy`` 0, ``z`` the mediator). With the products below, the two equations of a 1-1-1 mediation
    model are one mixed model without intercept, ``z ~ sm + smx + sy + sym + syx``.

    Parameters
    ----------
    data : data frame
        Anything narwhals understands (pandas, Polars, Arrow, ...), a row an observation. It is not modified.
    x, m, y : str
        Columns of the predictor, the mediator and the outcome; numeric.
    cluster : str
        Column of the cluster id, of any type.
    covariates : sequence of str, optional
        Further numeric predictors of both equations.
    order : {"stata", "equations"}, default "stata"
        "stata": y row and m row of an observation follow each other, as Stata's ``reshape`` leaves them;
        "equations": all y rows, then all m rows.

    Returns
    -------
    pandas.DataFrame
        Shape (up to 2 n, 10 + 3 k) for n observations and k covariates, with the columns ``fid`` (number
        1..n of the row of `data`), ``sm``, the cluster, x, m and the covariates under their own names, ``z``,
        ``sy``, ``smx`` = sm x, ``sym`` = sy m, ``syx`` = sy x, then ``sm_NAME`` and ``sy_NAME`` for each
        covariate. No value is missing. ``attrs["dropped"]`` counts rows left out: ``"cluster"``, without cluster
        id; ``"m"`` and ``"y"``, of the others, incomplete for that equation.

    Raises
    ------
    DataError
        If a column is unknown, not numeric or infinite, if a name is used twice or is one that `stack`
        generates, if ids are floats too large to be told apart, or if nothing is left of an equation.

    Notes
    -----
    An observation enters an equation if its cluster id, response and predictors of that equation are not missing:
    one with the mediator but no outcome stays as an m row.

    References
    ----------
    Bauer, D. J., Preacher, K. J. and Gil, K. M. (2006). Conceptualizing and testing random indirect effects
    and moderated mediation in multilevel models. Psychological Methods 11, 142-163.

    Examples
    --------
    >>> import pandas as pd
    >>> from mlmed.data.stacking import stack
    >>> data = pd.DataFrame({"id": [1, 1], "x": [2.0, 3.0], "m": [0.5, 0.7], "y": [1.0, 1.5]})
    >>> stack(data, x="x", m="m", y="y", cluster="id")
       fid  sm  id    x    m    z  sy  smx  sym  syx
    0    1   0   1  2.0  0.5  1.0   1  0.0  0.5  2.0
    1    1   1   1  2.0  0.5  0.5   0  2.0  0.0  0.0
    2    2   0   1  3.0  0.7  1.5   1  0.0  0.7  3.0
    3    2   1   1  3.0  0.7  0.7   0  3.0  0.0  0.0
    """
    if not isinstance(covariates, str):
        covariates = check_list(covariates, "covariates", "names of columns", error=DataError)
    covariates = [covariates] if isinstance(covariates, str) else covariates
    for role, name in (("x", x), ("m", m), ("y", y), ("cluster", cluster), *(("covariates", c) for c in covariates)):
        check_text(name, role, "a column", error=DataError)
    one_of(order, STACK_ORDERS, "order", error=DataError)
    _check_names([x, m, *covariates], y, cluster, covariates)
    frame = _columns(data, [cluster, x, m, y, *covariates])
    asked = [cluster, x, m, y, *covariates]
    cells = select_columns(frame, asked, keep=asked)  # also checks every cell
    cluster_codes(cells, (cluster,))  # refuses ids that cannot be told apart
    values = {name: _numbers(frame.get_column(name)) for name in asked[1:]}
    ids = frame.get_column(cluster).to_list()
    in_cluster = ~_missing(ids)
    known = pd.Index(pd.unique(pd.Series(ids, dtype=object)[in_cluster]), dtype=object, name=cluster)
    if doubts := doubtful_ids(data, known, frozenset([x, m, y, cluster, *covariates]), has_term=False):
        warn("; ".join(doubts), IdWarning, stacklevel=2)
    in_m = in_cluster & _present(values, (x, m, *covariates))
    in_y = in_m & _present(values, (y,))
    _check_left(values, in_cluster, {"m": in_m, "y": in_y}, cluster)

    # the y row of an observation before its m row, as `sm` 0 sorts before 1
    rows = np.concatenate([np.flatnonzero(in_y), np.flatnonzero(in_m)])
    sm = np.repeat([0, 1], [int(in_y.sum()), int(in_m.sum())])
    if order == "stata":
        by_observation = np.lexsort((sm, rows))
        rows, sm = rows[by_observation], sm[by_observation]
    stacked = _table(values, rows, sm, roles=(x, m, y), covariates=covariates)
    stacked.insert(2, cluster, pd.Series([ids[row] for row in rows]))
    stacked.attrs["dropped"] = {
        "cluster": int((~in_cluster).sum()),
        "m": int((in_cluster & ~in_m).sum()),
        "y": int((in_cluster & ~in_y).sum()),
    }
    return stacked


def _check_names(carried: list[str], y: str, cluster: str, covariates: list[str]) -> None:
    """Refuse names that are used twice or reserved for columns of the stacked table."""
    asked = [*carried, y, cluster]
    twice = sorted({name for name in asked if asked.count(name) > 1})
    if twice:
        raise DataError(
            f"The columns {twice} are asked for in more than one role. "
            f"x, m, y, cluster and each covariate must be different columns."
        )
    own = ["fid", "sm", "z", "sy", "smx", "sym", "syx"]
    own += [f"{selector}_{name}" for name in covariates for selector in ("sm", "sy")]
    clashes = [name for name in (*carried, cluster) if name in own]
    if clashes:
        raise DataError(
            f"The columns {clashes} have names that the stacked table needs for its own columns "
            f"({', '.join(own)}). Rename them before stacking."
        )


@engine_rows()
def _columns(data: Any, wanted: list[str]) -> nw.DataFrame[Any]:
    """Return the wanted columns of any data frame."""
    try:
        frame = nw.from_native(data)
    except TypeError as error:
        raise DataError(
            f"data is a {type(data).__name__}, not a data frame. Pass a pandas, Polars or Arrow table."
        ) from error
    except DuplicateError as error:
        raise DataError(f"The data have several columns of one name. Rename them. ({error})") from error
    there = schema_names(frame)
    for name in wanted:
        if name not in there:
            if name in index_names(frame):
                raise unknown_column(name, there, index_names(frame))
            close = difflib.get_close_matches(str(name), map(str, there), n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise DataError(f"There is no column {name!r} in the data.{hint} The columns are {there}.")
    chosen = taken(frame, {name: name for name in wanted})
    return chosen.collect() if isinstance(chosen, nw.LazyFrame) else chosen


@engine_rows()
def _numbers(column: nw.Series[Any]) -> np.ndarray:
    """Return a numeric or boolean column as floats, shape (n,), with NaN for what is missing."""
    if column.dtype.is_numeric() or column.dtype == nw.Boolean:
        values = np.asarray(column.cast(nw.Float64()).to_numpy(), dtype=float)
    else:
        values = _untyped_numbers(column)
    infinite = np.flatnonzero(np.isinf(values))
    if infinite.size:
        raise DataError(
            f"Column {column.name!r} is {values[infinite[0]]} in row {infinite[0] + 1} "
            f"({infinite.size} infinite values in all). Correct these values or mark them as missing."
        )
    return values


def _untyped_numbers(column: nw.Series[Any]) -> np.ndarray:
    """Return the numbers of a column of Python objects or of missing values only."""
    items = [None if item is pd.NA else item for item in column.to_list()]
    there = [item for item in items if item is not None]
    typed = column.dtype not in (nw.Object, nw.Unknown)  # categories may be coded 0 and 1, but are no numbers
    wrong = [item for item in there if typed or not isinstance(item, Real | Decimal)]
    if wrong:
        if (found := written_numbers(dict.fromkeys(there))) is not None:
            counts = value_counts(pd.Series(there))
            raise DataError(f"Column {refusal_of_text(found, column.name, counts)}.")
        raise DataError(
            f"Column {column.name!r} holds {column.dtype} and not numbers (for example {wrong[0]!r}). "
            f"Recode it to numbers before stacking."
        )
    return np.array([np.nan if item is None else float(item) for item in items])


def _missing(ids: list[Any]) -> np.ndarray:
    """Return where an id is missing, as booleans of shape (n,)."""
    return np.asarray(pd.isna(pd.Series(ids, dtype=object)), dtype=bool)


def _present(values: dict[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
    """Return the rows where none of the named columns is missing, as booleans of shape (n,)."""
    return ~np.isnan(np.column_stack([values[name] for name in names])).any(axis=1)


def _check_left(
    values: dict[str, np.ndarray], in_cluster: np.ndarray, kept: dict[str, np.ndarray], cluster: str
) -> None:
    """Refuse to return a table in which an equation has no row."""
    if not in_cluster.size:
        raise DataError("The data have no rows, so nothing can be stacked. Check how they were read or filtered.")
    if not in_cluster.any():
        raise DataError(f"The cluster id {cluster!r} is missing in every row. Is it the right column?")
    for equation, rows in kept.items():
        if not rows.any():
            empty = [name for name, column in values.items() if np.isnan(column).all()]
            why = f"all values of {empty} are missing" if empty else "no row has all of its columns"
            raise DataError(
                f"No observation is left for the {equation} equation: {why}. "
                f"Check these columns, or leave out covariates that are mostly missing."
            )


def _table(
    values: dict[str, np.ndarray],
    rows: np.ndarray,
    sm: np.ndarray,
    *,
    roles: tuple[str, str, str],
    covariates: list[str],
) -> pd.DataFrame:
    """Return the stacked table without the cluster, for the given rows and equations (``sm`` 1 for m)."""
    x, m, y = roles
    sy = 1 - sm
    table = {"fid": rows + 1, "sm": sm}
    table |= {name: values[name][rows] for name in (x, m, *covariates)}
    table["z"] = np.where(sm == 1, values[m][rows], values[y][rows])
    table |= {"sy": sy, "smx": sm * table[x], "sym": sy * table[m], "syx": sy * table[x]}
    for name in covariates:
        table |= {f"sm_{name}": sm * table[name], f"sy_{name}": sy * table[name]}
    return pd.DataFrame(table)
