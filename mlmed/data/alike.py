"""Things of one model that would be printed alike: a column called ``x:w`` beside the interaction of x and w.

Inside, columns are told apart by their expressions (safe names, see ``mlmed.names``). Users, effects and tables know
them by what is printed, so that within a model one label has to mean one thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mlmed.data.layout import EquationLayout
from mlmed.data.terms import Encoding
from mlmed.errors import DataError
from mlmed.formula import Equation, formula_of
from mlmed.names import display_name, labelled, quoted_name, safe_name
from mlmed.system.model import ModelSpec

__all__ = ["Part", "refuse_alike", "refuse_likeness"]

#: An equation and the encodings of its fixed part and of each of its random terms.
Part = tuple[Equation, Sequence[Encoding]]
#: What a column is: the factors of its term, and formulaic's name, in which a level can look like an interaction.
_Meaning = tuple[frozenset[str], str]


def refuse_alike(parts: Iterable[Part]) -> None:
    """Refuse two different columns, variables or responses of a model that have the same label.

    Parameters
    ----------
    parts : iterable of (Equation, sequence of formulaic specs)
        Without specs only the terms of the formula are looked at, not their levels.

    Raises
    ------
    DataError
        If there are any; both are named as they are written in a formula.
    """
    known: dict[str, _Meaning] = {}
    for equation, encodings in parts:
        for meaning in _meanings(equation, encodings):
            label = display_name(meaning[1])
            first = known.setdefault(label, meaning)
            if first != meaning:
                raise _alike(label, _written(first), _written(meaning))


def refuse_likeness(spec: ModelSpec, equations: Sequence[EquationLayout]) -> None:
    """Refuse columns of one model that have the same label, and coefficients that have the same name.

    Parameters
    ----------
    spec : ModelSpec
        The equations as they were asked.
    equations : sequence of EquationLayout
        What was learned of each, in their order.

    Raises
    ------
    DataError
        If there are any.
    """
    refuse_alike(zip(spec.equations, (own.encodings for own in equations), strict=True))
    for part in ("fixed", "random"):
        _refuse_same_labels((own.name, getattr(own, part)) for own in equations)


def _refuse_same_labels(equations: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Refuse equations whose names and columns run together: w in the equation a~b, and b~w in the equation a."""
    known: dict[str, str] = {}
    for name, labels in equations:
        for label in labels:
            whole = labelled(name, label)
            first = known.setdefault(whole, name)
            if first != name:
                raise _alike(whole, f"a coefficient of the equation {first}", f"one of the equation {name}")


def _meanings(equation: Equation, encodings: Sequence[Encoding]) -> Iterator[_Meaning]:
    texts = (equation.fixed, *(term.formula for term in equation.random))
    terms = [(term, [":".join(f.expr for f in term.factors)]) for text in texts for term in formula_of(text)]
    terms += [(part.term, [c.name for c in part.columns]) for encoding in encodings for part in encoding.parts]
    for term, names in terms:
        factors = frozenset(factor.expr for factor in term.factors if factor.eval_method.value != "literal")
        if not factors:  # the constant
            continue
        yield from ((factors, name) for name in names)
    columns = {equation.response, *map(safe_name, equation.predictors | equation.response_columns)}
    yield from ((frozenset({name}), name) for name in sorted(columns))


def _written(meaning: _Meaning) -> str:
    factors, name = meaning
    shown = quoted_name(name)
    if shown == f"`{display_name(name)}`":
        return f"the column {shown}"
    if len(factors) > 1:
        return f"the interaction {shown}"
    return f"the term {shown}" if name in factors else f"{shown} of the factor {quoted_name(min(factors))}"


def _alike(label: str, first: str, second: str) -> DataError:
    return DataError(
        f"{first} and {second} would both be called {label} in the results, where neither could be told from the "
        "other; rename a column (or recode a level)"
    )
