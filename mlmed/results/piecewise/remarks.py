"""What to say beside the effects of separate fits."""

from __future__ import annotations

from mlmed.effects.separate import Slopes
from mlmed.formula import formula_variables
from mlmed.notes import joined
from mlmed.results.piecewise.fit import Asked, Fits

__all__ = ["joint_ties_slopes", "remarks"]

#: Structures in which the random effects of a block covary.
TYING = ("unstructured", "exchangeable")
NOT_JOINT = (
    "a and b both vary over clusters: the mean of a_j b_j is a*b + cov(a_j, b_j), which separate fits do not estimate "
    "and a*b leaves out; "
)
HAS_IT = "joint() has it"
NOR_HAS_JOINT = (
    "joint() would hold it at 0, as ||, labels or covariance= keep the slopes apart; mlmed.mediate has it with random "
    "terms like (1 + {x} | {group}) in both equations"
)
BLEND = (
    "a treatment of level 2 moves {m} between clusters only, while b blends its effects between and within clusters "
    "(docs/piecewise.md)"
)
WEIGHTS = (
    "need not equal a*b: each fit weights clusters by its own variances; with the same weights, as in least squares on "
    "the same rows, they would be equal"
)


def joint_ties_slopes(asked: Asked) -> bool:
    """Whether the joint model of the same formulas lets the random slopes of a and b covary."""
    equations = asked.mediator, asked.outcome
    sought = (0, frozenset({asked.treatment})), (1, formula_variables(asked.mediator.response))
    for block in asked.spec(*equations).blocks:
        found = [(e, formula_variables(equations[e].random[t].formula)) for e, t in block.terms]
        tied = all(any(e == k and names & own for e, names in found) for k, own in sought)
        if tied and block.structure in TYING:
            return True
    return False


def remarks(asked: Asked, fits: Fits, slopes: Slopes) -> dict[str, str]:
    """Remarks by term."""
    said = {"c_minus_cprime": WEIGHTS}
    if fits.outcome.nobs != fits.reduced.nobs:
        said["c_minus_cprime"] += f"; c comes from {fits.reduced.nobs} rows, c' from {fits.outcome.nobs}"
    notes = []
    if slopes.both_vary:
        apart = NOR_HAS_JOINT.format(x=asked.treatment, group=":".join(asked.group))
        notes.append(NOT_JOINT + (HAS_IT if joint_ties_slopes(asked) else apart))
    if fits.design == "2-1-1":
        notes.append(BLEND.format(m=asked.mediator.name))
    return {**said, "indirect": joined(*notes)}
