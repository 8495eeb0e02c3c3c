"""Layout of Stata's ``xtmixed``: numbers in, text out, nothing computed.

Columns and blank lines follow published output, ``%9.0g`` follows Stata's manual (two of the nine columns are for a
sign and a decimal point).
"""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import astuple, dataclass

_LINE = "-" * 78


@dataclass(frozen=True, slots=True)
class StataRow:
    """One line of a table, under the `name` printed: ``x``, ``_cons``, ``var(x)``, ``cov(x,_cons)``.

    `statistic` and `p_value` belong to a two-sided z test, None for a variance or covariance; NaN is printed as ``.``.
    `kind` and `of` are the parts of a name such as ``cov(x,_cons)``: long names are abbreviated inside the parentheses.
    """

    name: str
    estimate: float
    std_error: float
    statistic: float | None
    p_value: float | None
    conf_low: float
    conf_high: float
    kind: str = ""
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StataGroup:
    """A grouping variable: number of groups and rows per group (smallest, mean, largest)."""

    name: str
    n_groups: int
    minimum: int
    average: float
    maximum: int


@dataclass(frozen=True, slots=True)
class StataBlock:
    """The variances and covariances of one random-effects equation, titled like ``id: Unstructured``."""

    group: str
    structure: str
    rows: tuple[StataRow, ...]

    @property
    def title(self) -> str:
        """Group and structure."""
        return f"{self.group}: {self.structure}"


@dataclass(frozen=True, slots=True)
class StataEffect:
    """An effect listed below the tables: estimate, standard error, z ratio and limits; NaN is ``.``."""

    label: str
    estimate: float
    std_error: float
    statistic: float
    conf_low: float
    conf_high: float


@dataclass(frozen=True, slots=True)
class StataReport:
    """Everything `render` prints.

    Parameters
    ----------
    method : {"ml", "reml"}
    groups : tuple of StataGroup
        One: inline header. Two or more, outermost first: boxed table.
    llf : float
        Log likelihood, restricted under REML; so are the `iterations`, empty for no log.
    wald_df, wald_chi2, wald_p
        Joint test of the slopes; NaN where there is nothing to test.
    coefficients, blocks, residual
        Rows in the order printed; `residual` is normally the one row ``var(Residual)``.
    lr_df, lr_chi2, lr_p
        Test against the model without random effects. `lr_df` None or 0 leaves it out; 1 is printed as the
        50:50 mixture ``chibar2(01)``, to which `lr_p` must then belong.
    level : float
        Coverage of the intervals as a proportion, e.g. 0.95.
    effects, notes
        Printed after the tables; notes are wrapped to 78 columns.

    Raises
    ------
    ValueError
        `method` or `level` is none of the above.
    """

    method: str
    response: str
    nobs: int
    groups: tuple[StataGroup, ...]
    llf: float
    wald_df: int
    wald_chi2: float
    wald_p: float
    coefficients: tuple[StataRow, ...]
    blocks: tuple[StataBlock, ...]
    residual: tuple[StataRow, ...]
    lr_df: int | None
    lr_chi2: float
    lr_p: float
    level: float = 0.95
    iterations: tuple[float, ...] = ()
    effects: tuple[StataEffect, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in ("ml", "reml"):
            raise ValueError(f"method is {self.method!r}; it must be 'ml' or 'reml'")
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"level is {self.level!r}; give a proportion between 0 and 1, such as 0.95")


def format_g(value: float | None, width: int = 9) -> str:
    """Format a number as Stata's ``%{width}.0g``, without padding.

    Missing values are None, NaN and the infinities. Tables use 9 columns, log likelihoods and ``display`` 10.

    Raises
    ------
    ValueError
        `width` is below 8, which leaves no room for ``-1e+100``.

    Examples
    --------
    >>> [format_g(v) for v in (0.6897692, -0.096852, 1.034313, 311.46, 12, 0)]
    ['.6897692', '-.096852', '1.034313', '311.46', '12', '0']
    >>> [format_g(v) for v in (12345678.9, 0.0000314159, 1e-8, float("nan"))]
    ['1.23e+07', '.0000314', '1.00e-08', '.']
    >>> format_g(0.61185658, width=10)
    '.61185658'
    """
    if width < 8:
        raise ValueError(f"width is {width}; a %g format needs at least 8 columns")
    if value is None or not math.isfinite(value):
        return "."
    digits = width - 2
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    # e-notation has room for width - 6 digits; outside these bounds fixed notation has room for fewer
    if exponent < -5 or exponent >= digits:
        return f"{value:.{width - 7 - (abs(exponent) >= 100)}e}"
    text = f"{value + 0.0:.{digits - max(exponent + 1, 0)}f}"  # the sum makes -0.0 a plain zero
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return re.sub(r"^(-?)0\.", r"\1.", text)


def render(report: StataReport) -> str:
    """Lay a report out as ``xtmixed`` does: 78 columns, no newline at the end.

    Examples
    --------
    >>> nan = float("nan")
    >>> group, constant = StataGroup("id", 10, 8, 8.0, 8), StataRow("_cons", 0.5, 0.1, 5.0, 0.0, 0.304, 0.696)
    >>> residual = StataRow("var(Residual)", 1.0, nan, None, None, nan, nan)
    >>> args = ("ml", "y", 80, (group,), -112.5, 0, nan, nan, (constant,), (), (residual,), None, nan, nan)
    >>> print(render(StataReport(*args)))
    Mixed-effects ML regression                     Number of obs      =        80
    Group variable: id                              Number of groups   =        10
    ...
    """
    interval = f"[{100 * report.level:.4g}% Conf. Interval]".rjust(25)
    lines = [*_iteration_log(report), *_header(report), "", *_coefficients(report, interval), ""]
    lines += _variances(report, interval) + _likelihood_ratio(report)
    for note in report.notes:
        lines += ["", *textwrap.wrap(note, width=78, subsequent_indent="      ")]
    return "\n".join([*lines, *_effects(report)])


def _fixed(value: float | None, width: int, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return ".".rjust(width)
    text = f"{value:.{decimals}f}"
    return (text if len(text) <= width else format_g(value, max(width, 8))).rjust(width)


def _general(value: float | None, width: int = 9) -> str:
    return format_g(value, width).rjust(width)


def _abbreviate(name: str, width: int = 12) -> str:
    return name if len(name) <= width else f"{name[: width - 2]}~{name[-1]}"


def _parameter_name(row: StataRow) -> str:
    """Fit ``var(a)`` or ``cov(a,b)`` into its 28 columns by abbreviating inside the parentheses."""
    if len(row.name) <= 28 or not row.of:
        return _abbreviate(row.name, 28)
    room = (28 - len(row.kind) - 1 - len(row.of)) // len(row.of)
    return f"{row.kind}({','.join(_abbreviate(part, room) for part in row.of)})"


def _loglik_name(report: StataReport) -> str:
    return "log restricted-likelihood" if report.method == "reml" else "log likelihood"


def _iteration_log(report: StataReport) -> list[str]:
    if not report.iterations:
        return []
    # trailing blanks as in Stata
    start = ["Performing EM optimization: ", "", "Performing gradient-based optimization: ", ""]
    name = _loglik_name(report)
    steps = [f"{f'Iteration {i}:':<15}{name} = {_general(v, 10)}  " for i, v in enumerate(report.iterations)]
    return [*start, *steps, "", "Computing standard errors:", ""]


def _pair(left: str, label: str, value: object) -> str:
    return f"{left:<48}{label:<19}={value!s:>10}"


def _header(report: StataReport) -> list[str]:
    lines = [_pair(f"Mixed-effects {report.method.upper()} regression", "Number of obs", report.nobs)]
    if len(report.groups) == 1:
        group = report.groups[0]
        lines += [
            _pair(f"Group variable: {_abbreviate(group.name)}", "Number of groups", group.n_groups),
            "",
            _pair("", "Obs per group: min", group.minimum),
            _pair("", f"{'avg':>18}", _fixed(group.average, 10, 1)),
            _pair("", f"{'max':>18}", group.maximum),
            "",
        ]
    elif report.groups:
        lines += ["", *_group_box(report.groups)]
    loglik = f"{_loglik_name(report).capitalize()} = {_general(report.llf, 10)}"
    wald = _pair("", f"Wald chi2({report.wald_df})", _fixed(report.wald_chi2, 10, 2))
    return [*lines, "", wald, _pair(loglik, "Prob > chi2", _fixed(report.wald_p, 10, 4))]


def _group_box(groups: tuple[StataGroup, ...]) -> list[str]:
    rows = [
        f"{_abbreviate(g.name):>15} |{g.n_groups:>9}{g.minimum:>11}{_fixed(g.average, 11, 1)}{g.maximum:>11}"
        for g in groups
    ]
    above = f"{'|':>17}   No. of       Observations per Group"
    below = " Group Variable |   Groups    Minimum    Average    Maximum"
    return ["-" * 59, above, below, "-" * 16 + "+" + "-" * 42, *rows, "-" * 59]


def _coefficients(report: StataReport, interval: str) -> list[str]:
    heading = f"{_abbreviate(report.response):>12} |      Coef.   Std. Err.      z    P>|z|{interval}"
    rows = (
        f"{_abbreviate(row.name):>12} |  {_general(row.estimate)}  {_general(row.std_error)}"
        f" {_fixed(row.statistic, 8, 2)}   {_fixed(row.p_value, 5, 3)}"
        f"    {_general(row.conf_low)}   {_general(row.conf_high)}"
        for row in report.coefficients
    )
    return [_LINE, heading, "-" * 13 + "+" + "-" * 64, *rows, _LINE]


def _variances(report: StataReport, interval: str) -> list[str]:
    line = "-" * 29 + "+" + "-" * 48
    lines = [_LINE, f"  Random-effects Parameters  |   Estimate   Std. Err.{interval}"]
    for block in report.blocks:
        title = f"{_abbreviate(block.group)}: {block.structure}"
        lines += [line, f"{title:<29}|", *map(_variance_row, block.rows)]
    return [*lines, line, *map(_variance_row, report.residual), _LINE]


def _variance_row(row: StataRow) -> str:
    return (
        f"{_parameter_name(row):>28} |  {_general(row.estimate)}  {_general(row.std_error)}"
        f"     {_general(row.conf_low)}   {_general(row.conf_high)}"
    )


def _likelihood_ratio(report: StataReport) -> list[str]:
    if not report.lr_df:
        return []
    chi2, p_value = _fixed(report.lr_chi2, 8, 2), _fixed(report.lr_p, 6, 4)
    if report.lr_df == 1:
        # for one variance on its boundary the mixture is exact: no note
        return [f"LR test vs. linear regression: chibar2(01) = {chi2} Prob >= chibar2 = {p_value}"]
    test = f"{f'chi2({report.lr_df})':>14} = {chi2}   Prob > chi2 = {p_value}"
    note = "Note: LR test is conservative and provided only for reference."
    return ["LR test vs. linear regression:" + test, "", note]


def _effects(report: StataReport) -> list[str]:
    lines = []
    for effect in report.effects:
        labels = (effect.label, f"standard error {effect.label}", "ratio", "LCL", "UCL")
        shown = zip(labels, astuple(effect)[1:], strict=True)
        # values start in column 30, or one blank after a longer label
        lines += ["", *(f"{label + ': ':<29}{format_g(value, 10)}" for label, value in shown)]
    return lines
