"""System: the whole question in one frozen value; change it with ``dataclasses.replace``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlmed.errors import FormulaError
from mlmed.formula import Equation
from mlmed.options import METHODS, RESIDUALS, STRUCTURES, Method, Residual, Structure, one_of
from mlmed.system.graph import refuse_cycles


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """Random terms that share a covariance matrix.

    Attributes
    ----------
    label : str
        The brms label, or a number for unlabelled terms.
    terms : tuple of (int, int)
        (equation, random term) pairs.
    structure : str
        One of ``STRUCTURES``.
    """

    label: str
    terms: tuple[tuple[int, int], ...]
    structure: Structure


@dataclass(frozen=True, slots=True)
class System:
    """Specification of a mixed model.

    Attributes
    ----------
    equations : tuple of Equation
        One per response.
    method : {"reml", "ml"}
        Criterion.
    covariance : str or mapping of label to str
        Structure of the random-effects blocks; ``||`` is always diagonal.
    residual : {"diagonal", "unstructured"}
        Whether the residuals of a row are correlated across equations.
    shared : bool
        Whether unlabelled terms of different equations share a covariance matrix (the Bauer-Preacher-Gil model) or
        are independent (brms).

    Raises
    ------
    FormulaError
        No random term, different cluster variables, an unknown structure, equations that feed back into each other, or
        correlated residuals of a response and its predictor.
    """

    equations: tuple[Equation, ...]
    method: Method = "reml"
    covariance: str | Mapping[str, str] = "unstructured"
    residual: Residual = "diagonal"
    shared: bool = True

    def __post_init__(self) -> None:
        """Check everything that needs no data."""
        one_of(self.method, METHODS, "method", error=FormulaError)
        self._check_residual()
        for equation in self.equations:
            if not equation.random:
                raise FormulaError(
                    f"{equation.text!r} has no random term, so rows are not nested in anything; add one such as "
                    "(1 + x | id), or use statsmodels' OLS for a model without clusters"
                )
        asked_groups = [(term.group, equation.text) for equation in self.equations for term in equation.random]
        groups = {frozenset(group): (group, text) for group, text in asked_groups}
        if len(groups) > 1:
            found = "; ".join(f"({':'.join(group)}) in {text!r}" for group, text in groups.values())
            raise FormulaError(
                f"different cluster variables: {found}. All random terms of a model must have the same one"
            )
        names = [equation.name for equation in self.equations]
        if len(set(names)) < len(names):
            raise FormulaError(f"two equations have the same response ({names[0]}); each needs its own")
        refuse_cycles(self.equations)
        if not isinstance(self.covariance, str | Mapping):
            one_of(self.covariance, STRUCTURES, "covariance", error=FormulaError, also="a mapping of label to one")
        asked = [self.covariance] if isinstance(self.covariance, str) else list(self.covariance.values())
        for structure in asked:
            one_of(structure, STRUCTURES, "covariance", error=FormulaError)
        if not isinstance(self.covariance, str):
            unknown = set(self.covariance) - {block.label for block in self.blocks}
            if unknown:
                raise FormulaError(
                    f"covariance names the block {', '.join(sorted(unknown))}, but the random terms have the labels "
                    f"{', '.join(block.label for block in self.blocks)}; write (1 + x |label| id)"
                )

    def _check_residual(self) -> None:
        one_of(self.residual, RESIDUALS, "residual", error=FormulaError)
        if self.residual == "diagonal":
            return
        for equation in self.equations:
            for other in self.equations:
                used = other.response_columns & equation.predictors
                if used:
                    raise FormulaError(
                        f"the response {', '.join(sorted(used))} is also a predictor in "
                        f"{equation.text!r}: its effect there cannot be told from a residual correlation with it, as "
                        "both are the same association within rows. Use residual='diagonal', or remove it there"
                    )

    @property
    def correlated(self) -> bool:
        """Whether residuals are correlated across equations."""
        return self.residual == "unstructured" and len(self.equations) > 1

    @property
    def group(self) -> tuple[str, ...]:
        """Columns whose combination names the cluster."""
        return self.equations[0].random[0].group

    @property
    def blocks(self) -> tuple[BlockSpec, ...]:
        """Random terms by covariance matrix.

        Terms with the same label share one. With ``shared``, so do unlabelled terms, if no equation has more than one
        (the Bauer-Preacher-Gil model). ``||`` terms stand alone.
        """
        plain = [sum(term.label is None and term.correlated for term in equation.random) for equation in self.equations]
        joined: dict[str, list[tuple[int, int]]] = {}
        diagonal: set[str] = set()
        for e, equation in enumerate(self.equations):
            for t, term in enumerate(equation.random):
                own = f"{equation.name}.{t + 1}"
                alone = max(plain) > 1 or not (self.shared or len(self.equations) == 1)
                label = term.label or (own if alone or not term.correlated else "all")
                joined.setdefault(label, []).append((e, t))
                if not term.correlated:
                    diagonal.add(label)
        return tuple(
            BlockSpec(label, tuple(terms), "diagonal" if label in diagonal else self._structure(label))
            for label, terms in joined.items()
        )

    def _structure(self, label: str) -> Structure:
        asked = self.covariance if isinstance(self.covariance, str) else self.covariance.get(label, "unstructured")
        return asked  # type: ignore[return-value]  # checked in __post_init__
