"""Layout of UCLA's Stata command ``ml_mediation``: numbers in, text out."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from mlmed.report.stata import format_g

WIDTH = 78


@dataclass(frozen=True, slots=True)
class MlMediation:
    """Everything ``render_ml_mediation`` prints; a NaN is printed as ``.``.

    Attributes
    ----------
    c_path, a_path, b_path : (str, str)
        The three equations and how each was fitted; the last gives b and c'.
    levels : tuple of (str, str, int)
        Role (``iv``, ``mv``, ``dv``), variable and level.
    c, a, b, cprime : float
        The paths.
    indirect, total : float
        a b and a b + c'.
    share, ratio, total_ratio : float
        indirect / total, indirect / direct and total / direct.
    notes : tuple of str
        Printed last, wrapped to 78 columns.
    """

    c_path: tuple[str, str]
    a_path: tuple[str, str]
    b_path: tuple[str, str]
    levels: tuple[tuple[str, str, int], ...]
    c: float
    a: float
    b: float
    cprime: float
    indirect: float
    total: float
    share: float
    ratio: float
    total_ratio: float
    notes: tuple[str, ...] = ()


def _wrapped(text: str, head: str) -> list[str]:
    indent = " " * len(head)
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False)


def render_ml_mediation(report: MlMediation) -> str:
    """Format equations, levels, the seven numbers and the ratios.

    Examples
    --------
    >>> ml = "mixed, ML"
    >>> equations = ("y ~ x + (1 | id)", ml), ("m ~ x + (1 | id)", ml), ("y ~ m + x + (1 | id)", ml)
    >>> numbers = 0.5, 0.4, 0.6, 0.2, 0.24, 0.44, 0.545, 1.2, 2.2
    >>> print(render_ml_mediation(MlMediation(*equations, (("mv", "m", 1),), *numbers)))
    Equation 1 (c_path): y ~ x + (1 | id)
                         mixed, ML
    ...
    mv m: level 1
    <BLANKLINE>
    c_path  = .5
    a_path  = .4
    b_path  = .6
    c_prime = .2  same as dir_eff
    ind_eff = .24
    dir_eff = .2
    tot_eff = .44
    <BLANKLINE>
    proportion of total effect mediated = .545
    ratio of indirect to direct effect  = 1.2
    ratio of total to direct effect     = 2.2
    """
    titles = ("c_path", "a_path", "b_path & c_prime")
    lines: list[str] = []
    for number, (title, (formula, how)) in enumerate(
        zip(titles, (report.c_path, report.a_path, report.b_path), strict=True), start=1
    ):
        head = f"Equation {number} ({title}): "
        lines += [*_wrapped(formula, head), *_wrapped(how, " " * len(head))]
    lines += ["", *(f"{role} {name}: level {level}" for role, name, level in report.levels), ""]
    numbers = {
        "c_path": report.c,
        "a_path": report.a,
        "b_path": report.b,
        "c_prime": report.cprime,
        "ind_eff": report.indirect,
        "dir_eff": report.cprime,
        "tot_eff": report.total,
    }
    beside = {"c_prime": "  same as dir_eff"}
    lines += [f"{name:<7} = {format_g(value, 10)}{beside.get(name, '')}" for name, value in numbers.items()]
    ratios = {
        "proportion of total effect mediated": report.share,
        "ratio of indirect to direct effect": report.ratio,
        "ratio of total to direct effect": report.total_ratio,
    }
    lines += ["", *(f"{name:<35} = {format_g(value, 10)}" for name, value in ratios.items())]
    for note in report.notes:
        lines += ["", *textwrap.wrap(note, width=WIDTH, subsequent_indent="      ")]
    return "\n".join(lines)
