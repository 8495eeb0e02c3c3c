"""Prepare pushed-down sums: complete rows, levels, units, and expressions of all columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.allowed import STATEFUL
from mlmed.data.design import refuse_intercept
from mlmed.data.encoding import encodings_of, response_encoding, stand_in
from mlmed.data.evaluation import reading_of
from mlmed.data.expressions import column_expressions, variable_expression
from mlmed.data.frames import declared_levels, refuse_unknown, taken
from mlmed.data.layout import INTERCEPT, Dropped, EquationLayout, Known, Layout, column_labels, refuse_likeness
from mlmed.data.predictors import (
    MOST_VALUES,
    are_few,
    called_functions,
    coded_variables,
    refuse_many_levels,
    refuse_rounded_levels,
    refuse_written,
    snapped,
    some_values,
    transformed_variables,
)
from mlmed.data.terms import Encoding
from mlmed.data.values import refusal_of_text, written_numbers
from mlmed.errors import DataError, FormulaError, MlmedError, filtering
from mlmed.formula import Equation, formula_variables
from mlmed.limits import LARGEST, unusual_size
from mlmed.names import display_name, safe_name
from mlmed.system.system import System
from mlmed.text import shorten

Array = NDArray[np.float64]
#: Most levels of a factor whose products the engine sums, and of any factor that is not checked for too many levels.
MOST_LEVELS = 200
#: Distinct texts or numbers looked up per column.
MOST_TEXTS = 100_000
#: Rows sampled for units; any constants give the same fit.
SAMPLE = 20_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the summing scan needs."""

    layout: Layout  #: Names, positions, encodings.
    columns: tuple[nw.Expr, ...]  #: Expression of every distinct column but the constant.
    complete: tuple[nw.Expr, ...]  #: Complete rows of each equation.
    #: (K,): Moments of the distinct columns.
    shift: Array
    scale: Array


@dataclass(frozen=True, slots=True)
class Learned:
    """An equation's levels, moments and encodings, before its columns are computed."""

    equation: Equation  #: The equation.
    known: Known  #: Levels and moments of its variables, the response included.
    encodings: tuple[Encoding, ...]  #: Of the fixed part and of each random term.
    response: Encoding | None  #: Of a computed response.

    @property
    def parts(self) -> tuple[Encoding, ...]:
        """Encodings of a computed response, of the fixed part and of each random term."""
        return self.encodings if self.response is None else (self.response, *self.encodings)

    @property
    def columns(self) -> dict[str, bool]:
        """Every column but the constant, the response first, and whether its numbers depend on the equation's rows."""
        columns = [column for part in self.parts for column in part.columns if column.pieces]
        own = {column.name: any(reading_of(piece.factor).calls for piece in column.pieces) for column in columns}
        return {self.equation.response: False} | own

    def expressions(self) -> dict[str, nw.Expr]:
        """Their expressions for an engine."""
        found = {} if self.response is not None else {self.equation.response: variable_expression(self.equation.name)}
        for part in self.parts:
            found |= column_expressions(part, self.known)
        return found

    def layout(self, names: dict[tuple[str, str], int]) -> EquationLayout:
        """The layout of the equation; its new columns are appended to the distinct ones in ``names``."""
        placed = {INTERCEPT: 0}
        for name, is_own in self.columns.items():
            # a centred column differs between equations with different rows, so it is not shared
            placed[name] = names.setdefault((self.equation.name if is_own else "", name), len(names))
        known = self.known.only(self.equation.predictors)
        return EquationLayout.of(self.equation.name, self.encodings, known).placed(placed, self.equation.response)


def laid_out(spec: System, learned: Sequence[Learned]) -> tuple[Layout, list[str]]:
    """Names and positions of the columns of all equations, and the distinct columns by the names of their encodings."""
    names: dict[tuple[str, str], int] = {("", INTERCEPT): 0}
    equations = tuple(own.layout(names) for own in learned)
    refuse_likeness(spec, equations)
    return Layout(spec.equations, column_labels(names), equations, (), 0), [name for _, name in names]


def _present(name: str, schema: Any) -> nw.Expr:
    """Neither null nor NaN."""
    column = nw.col(safe_name(name))
    return ~column.is_null() & ~column.is_nan() if schema[safe_name(name)].is_float() else ~column.is_null()


def safe_frame(spec: System, frame: nw.LazyFrame[Any]) -> nw.LazyFrame[Any]:
    """The columns in use, under names that no engine misreads (dots, spaces)."""
    present = list(frame.collect_schema().names())
    wanted = sorted(frozenset().union(*(e.variables for e in spec.equations)))
    refuse_intercept(frozenset(wanted))
    refuse_unknown(wanted, present, frame)
    made: nw.LazyFrame[Any] = taken(frame, {name: safe_name(name) for name in wanted})
    return made


def complete_rows(spec: System, frame: nw.LazyFrame[Any]) -> tuple[nw.Expr, ...]:
    """Complete rows of each equation."""
    schema = frame.collect_schema()
    known = [_present(g, schema) for g in spec.group]
    return tuple(
        nw.all_horizontal(
            *known,
            *(_present(v, schema) for v in sorted(e.variables - e.group_columns)),
            ignore_nulls=False,
        )
        for e in spec.equations
    )


def learn_equations(spec: System, frame: nw.LazyFrame[Any], *, most: int = MOST_LEVELS) -> tuple[Learned, ...]:
    """Levels, moments and encodings of every equation, before its columns are computed.

    ``spec``: the equations; ``frame``: from ``safe_frame``; ``most``: most levels of a factor.
    """
    found, complete = [], complete_rows(spec, frame)
    for equation, rows in zip(spec.equations, complete, strict=True):
        if not len(frame.filter(rows).head(1).collect()):
            count_rows(spec, frame, complete)  # says what is missing
        found.append(_learn(equation, frame, rows, most))
    return tuple(found)


def plan_sums(spec: System, frame: nw.LazyFrame[Any], learned: tuple[Learned, ...] | None = None) -> Plan:
    """Everything the summing scan needs, from a sample of rows and the levels of factors."""
    complete, learned = complete_rows(spec, frame), learned or learn_equations(spec, frame)
    layout, names = laid_out(spec, learned)
    expressions: list[nw.Expr] = []
    moments = [(0.0, 1.0)]
    for own, equation, rows in zip(learned, layout.equations, complete, strict=True):
        found = own.expressions()
        sizes = _moments(own.equation, frame.filter(rows), found)
        places = {equation.response_at, *equation.fixed_at, *equation.random_at}
        for at in sorted(at for at in places if at > len(expressions)):
            expressions.append(found[names[at]])
            moments.append(sizes[names[at]])
    shift, scale = np.array(moments).T
    return Plan(layout, tuple(expressions), complete, shift, scale)


def one_row(frame: nw.LazyFrame[Any], **expressions: nw.Expr) -> dict[str, float]:
    """Aggregates of a lazy frame as numbers; null becomes NaN."""
    with filtering(ignore=RuntimeWarning):  # our own error explains infinite values
        row = frame.select(**expressions).collect().to_pandas().iloc[0]
    return {str(name): float("nan") if pd.isna(value) else float(value) for name, value in row.items()}


def as_count(condition: nw.Expr) -> nw.Expr:
    """The number of rows where a condition holds."""
    return flag(condition).sum()


def flag(condition: nw.Expr, number: int = 1) -> nw.Expr:
    """``number`` where a condition holds, 0 elsewhere."""
    return nw.when(condition).then(nw.lit(number)).otherwise(nw.lit(0))


def count_rows(
    spec: System, frame: nw.LazyFrame[Any], complete: tuple[nw.Expr, ...]
) -> tuple[tuple[Dropped, ...], int]:
    """Complete rows of each equation, missing values by column; raises if no row is complete."""
    schema = frame.collect_schema()
    known = nw.all_horizontal(*(_present(g, schema) for g in spec.group), ignore_nulls=False)
    asked = {"total": nw.len(), "known": as_count(known)}
    variables = sorted(frozenset().union(*(e.variables - e.group_columns for e in spec.equations)))
    for r, rows in enumerate(complete):
        asked[f"used{r}"] = as_count(rows)
    for v, name in enumerate(variables):
        asked[f"missing{v}"] = as_count(known & ~_present(name, schema))
        if schema[safe_name(name)].is_float():
            asked[f"infinite{v}"] = as_count(_present(name, schema) & ~nw.col(safe_name(name)).is_finite())
    found = one_row(frame, **asked)
    total = int(np.nan_to_num(found["total"]))
    if total and not found["known"]:
        raise DataError(f"the cluster id {':'.join(spec.group)} is missing in every row; check the column")
    if not total:
        raise DataError("the data have no rows; check the file or the filter that made them")
    for v, name in enumerate(variables):
        if found.get(f"infinite{v}", 0.0) > 0:
            raise infinite_column(name, int(found[f"infinite{v}"]))
        if found[f"missing{v}"] == found["known"]:
            raise DataError(f"column {name!r} has only missing values; check how it was read, or remove it")
    dropped = []
    for r, equation in enumerate(spec.equations):
        used = int(found[f"used{r}"])
        if not used:
            raise DataError(f"equation {equation.name} has no complete row; remove a column that is mostly missing")
        own = equation.variables - equation.group_columns
        missing = {
            n: int(found[f"missing{v}"]) for v, n in enumerate(variables) if n in own and found[f"missing{v}"] > 0
        }
        if used < total:
            dropped.append(Dropped(equation.name, total, used, total - int(found["known"]), missing))
    return tuple(dropped), total


def _learn(equation: Equation, frame: nw.LazyFrame[Any], rows: nw.Expr, most: int) -> Learned:
    _check_response(equation, frame)
    known = _known(equation, frame.filter(rows), most)
    made = stand_in(known)
    return Learned(equation, known, encodings_of(equation, made), response_encoding(equation, made))


def _known(equation: Equation, usable: nw.LazyFrame[Any], most: int) -> Known:
    """Levels of factors over all rows; moments of numbers over a sample, or over all rows for center() and scale()."""
    schema, coded, sample = usable.collect_schema(), coded_variables(equation), usable.head(SAMPLE)
    numeric, levels = [], {}
    for name in sorted(equation.predictors | formula_variables(equation.response)):
        kind = schema[safe_name(name)]
        if isinstance(kind, nw.String | nw.Categorical | nw.Enum):
            counts = _text_counts(usable, name)
            if name not in coded:
                refuse_written(name, counts, counts, more=len(counts) > MOST_TEXTS)
            levels[name] = _checked_levels(usable, name, tuple(counts), str, kind, most)
        elif not (kind.is_numeric() or isinstance(kind, nw.Boolean)):
            raise DataError(
                f"column {name!r} has the type {kind}, which is neither numbers nor text; convert it to numbers"
            )
        elif name in coded:
            values = usable.select(variable_expression(name).alias("level")).unique().head(MOST_TEXTS + 1)
            found = sorted(map(float, values.collect().to_pandas()["level"]))
            levels[name] = _checked_levels(usable, name, tuple(found), float, kind, most)
            refuse_rounded_levels(name, max(map(abs, levels[name])))
        else:
            numeric.append(name)
    subtracted = called_functions(equation) & STATEFUL
    moments = mean_and_sd(usable if subtracted else sample, list(map(variable_expression, numeric)))
    for name, (mean, _) in zip(numeric, moments, strict=True):
        if not np.isfinite(mean):
            number = one_row(usable, n=as_count(~variable_expression(name).is_finite()))["n"]
            raise infinite_column(name, int(number)) if number else bad_column(name, equation.name)
    observed, means = _observed(usable, sample, sorted(transformed_variables(equation) & {*numeric}))
    typical = {name: mean for name, (mean, _) in zip(numeric, moments, strict=True)} | means
    typical |= {name: known[0] for name, known in levels.items()}
    # a single row has no standard deviation; in memory it is 0, too
    spread = {name: 0.0 if np.isnan(sd) else sd for name, (_, sd) in zip(numeric, moments, strict=True)}
    return Known(typical, spread, levels, observed)


def _text_counts(rows: nw.LazyFrame[Any], name: str) -> dict[str, int]:
    """Distinct texts of a column, sorted, with their numbers of rows; a part of them if there are very many."""
    texts = rows.select(nw.col(safe_name(name)).cast(nw.String).alias("text")).filter(~nw.col("text").is_null())
    found = texts.group_by("text").agg(nw.len().alias("rows")).head(MOST_TEXTS + 1).collect().to_pandas()
    counts = dict(zip(map(str, found["text"]), map(int, found["rows"]), strict=True))
    return dict(sorted(counts.items()))


def _observed(
    usable: nw.LazyFrame[Any], sample: nw.LazyFrame[Any], names: list[str]
) -> tuple[dict[str, tuple[float, ...]], dict[str, float]]:
    """Observed values of transformed variables, and their means over all rows.

    All values if they are few; of many those of the sample, the ends and the neighbours of the mean.
    """
    if not names:
        return {}, {}
    columns = {f"v{k}": variable_expression(name) for k, name in enumerate(names)}
    some = sample.select(**columns).collect().to_pandas()
    asked = {
        f"{what}{k}": getattr(c, what)() for k, c in enumerate(columns.values()) for what in ("min", "max", "mean")
    }
    whole = one_row(usable, **asked)
    below, above = {}, {}
    for k, column in enumerate(columns.values()):
        mean = whole[f"mean{k}"]
        below[f"below{k}"] = nw.when(column <= mean).then(column).max()
        above[f"above{k}"] = nw.when(column >= mean).then(column).min()
    whole |= one_row(usable, **below, **above)
    found, means = {}, {}
    for k, name in enumerate(names):
        # a mean that was rounded may lie beyond all values
        around = [whole[key] for key in (f"min{k}", f"max{k}", f"below{k}", f"above{k}") if np.isfinite(whole[key])]
        means[name] = snapped(whole[f"mean{k}"], around)
        values = some_values(np.append(some[f"v{k}"].to_numpy(dtype=np.float64), around), means[name])
        if are_few(values):
            more = usable.select(columns[f"v{k}"].alias("value")).unique().head(MOST_VALUES + 1).collect().to_pandas()
            values = some_values(np.append(more["value"].to_numpy(dtype=np.float64), values), means[name])
        found[name] = values
    return found, means


def _checked_levels(
    usable: nw.LazyFrame[Any], name: str, levels: tuple[Any, ...], kind: type, dtype: Any, most: int
) -> tuple[Any, ...]:
    if isinstance(dtype, nw.Enum | nw.Categorical):  # the order of categories decides the reference
        declared, known = declared_levels(usable, safe_name(name)) or (), set(levels)
        levels = tuple(dict.fromkeys([*(level for level in map(kind, declared) if level in known), *levels]))
    if len(levels) > MOST_LEVELS:
        refuse_many_levels(name, levels, int(one_row(usable, n=nw.len())["n"]))
    if len(levels) > most:
        raise DataError(
            f"column {name!r} has more than {most} levels ({shorten(levels, 3)}); convert it if they are numbers, or "
            "give a data frame"
        )
    if len(levels) < 2:
        raise DataError(f"the predictor {name!r} is constant ({shorten(levels)}); remove it")
    return levels


def _check_response(equation: Equation, frame: nw.LazyFrame[Any]) -> None:
    schema = frame.collect_schema()
    for name in sorted(equation.response_columns):
        if isinstance(schema[safe_name(name)], nw.String | nw.Categorical | nw.Enum):
            counts = _text_counts(frame, name)
            if (found := written_numbers(counts)) is not None:
                said = refusal_of_text(found, name, counts, more=len(counts) > MOST_TEXTS)
                raise DataError(f"the response {said}")
    kind = schema.get(equation.response)
    if kind is not None and not (kind.is_numeric() or isinstance(kind, nw.Boolean)):
        raise DataError(
            f"the response {equation.name!r} is not numeric (type {kind}); linear mixed models "
            "need numbers, so convert it"
        )


def _moments(
    equation: Equation, usable: nw.LazyFrame[Any], found: dict[str, nw.Expr]
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of every column in the sample, or in all rows if it does not vary there."""
    names = list(found)
    out = mean_and_sd(usable.head(SAMPLE), [found[name] for name in names])
    flat = [k for k, (mean, sd) in enumerate(out) if not sd > 1e-12 * abs(mean)]
    if flat:
        for k, pair in zip(flat, mean_and_sd(usable, [found[names[k]] for k in flat]), strict=True):
            out[k] = pair
    for k, (name, (mean, sd)) in enumerate(zip(names, out, strict=True)):
        if not np.isfinite(mean) or abs(mean) > LARGEST or sd > LARGEST:
            raise _bad_size(usable, found[name], display_name(name)) or bad_column(display_name(name), equation.name)
        if np.isnan(sd) and (error := _bad_size(usable, found[name], display_name(name))) is not None:
            raise error  # squares that overflow; a single row has no standard deviation either
        if not sd > 1e-12 * abs(mean):  # constant here; whether that is allowed is checked when a model is fitted
            out[k] = (0.0, abs(mean) if mean != 0.0 else 1.0)
    return dict(zip(names, out, strict=True))


def _bad_size(rows: nw.LazyFrame[Any], column: nw.Expr, shown: str) -> DataError | None:
    """The error for finite values of unusual size."""
    ends = one_row(rows.select(v=column), low=nw.col("v").min(), high=nw.col("v").max())
    size = max(abs(float(ends["low"])), abs(float(ends["high"])))
    return unusual_size(shown, size) if np.isfinite(size) else None


def mean_and_sd(rows: nw.LazyFrame[Any], columns: list[nw.Expr]) -> list[tuple[float, float]]:
    """Mean and standard deviation of each column over ``rows``."""
    if not columns:
        return []
    wide = rows.select(**{f"v{k}": column for k, column in enumerate(columns)})
    asked: dict[str, nw.Expr] = {}
    for k in range(len(columns)):
        asked |= {f"m{k}": nw.col(f"v{k}").mean(), f"s{k}": nw.col(f"v{k}").std()}
    found = one_row(wide, **asked)
    return [(found[f"m{k}"], found[f"s{k}"]) for k in range(len(columns))]


def infinite_column(name: str, number: int) -> DataError:
    """The error for a column with infinite values."""
    return DataError(f"column {name!r} has {number} infinite value(s); replace or remove them")


def bad_column(shown: str, equation: str) -> MlmedError:
    """The error for a column with a value that is not finite."""
    kind = FormulaError if "(" in shown else DataError
    return kind(
        f"{shown} in equation {equation} is not a finite number of usual size in some row; check for infinite "
        "values, or the transformation (for example the logarithm of a number that is not positive)"
    )
