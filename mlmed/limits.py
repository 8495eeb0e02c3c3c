"""Bounds of a formula, of the memory of a fit, of the size of numbers.

Each is far above what a model can use and far below what takes seconds or exhausts memory.
"""

from __future__ import annotations

import numpy as np

from mlmed.errors import DataError

#: Letters of a formula: 1,000 terms of 50 letters. Formulaic reads letter by letter.
MAX_CHARACTERS = 50_000
#: Letters of a name; formulaic's time grows with the square.
MAX_NAME = 1_000
#: Names, numbers and signs of a formula: ten for each term.
MAX_TOKENS = 10_000
#: Letters of one expression, of I(...) or nlcom(): a thousand codes in isin([...]).
MAX_EXPRESSION = 10_000
#: Brackets inside brackets; Python itself reads 200.
MAX_NESTED = 50
#: Operations inside operations. A sum of k columns has depth k, and Python's stack (1,000 calls) holds 300 of them.
MAX_DEPTH = 200
#: Terms of one formula once products are written out; a factor is one term, whatever its levels.
MAX_TERMS = 1_000
#: Products in the expansion of a power or product of sums, before equal ones are merged: (a+b+c)**8 has 3**8.
MAX_PRODUCTS = 10_000
#: Variables of one interaction. k factors have 2**k codings, from which formulaic chooses: 1 s for 8, 150 s for 10.
MAX_ORDER = 8
#: Columns of one spline, polynomial or hashed factor (df, degree, levels, knots).
MAX_BASIS = 200
#: Whole numbers have 64 bits, as in columns: with longer ones Python computes all digits.
MAX_INTEGER = 2**63 - 1
#: The largest number; products of two of them are still finite.
MAX_NUMBER = 1e100
#: The largest constant exponent.
MAX_POWER = 1_000
#: Routes from the treatment to the outcome; ten mediators that all depend on each other make 1,024.
MAX_ROUTES = 2_000

#: Memory that one table, or one fit, may take.
LARGEST_BYTES = 2e9
#: Matrices a fit holds at a time: square in the fixed effects (measured with 1,000 and 3,000 columns), and further ones
#: per pair of random effects.
MATRICES, MATRICES_BY_PAIR = 14, 4


def refuse_size(needed: float, what: str, remedy: str) -> None:
    """Refuse a request for too many bytes.

    Examples
    --------
    >>> refuse_size(1e9, "a small table", "nothing")
    >>> refuse_size(1.2e10, "10000 columns", "remove some")
    Traceback (most recent call last):
    mlmed.errors.DataError: 10000 columns would need 12 GB of memory (at most 2 GB are taken); remove some
    """
    if needed > LARGEST_BYTES:
        raise DataError(
            f"{what} would need {needed / 1e9:.3g} GB of memory (at most {LARGEST_BYTES / 1e9:g} GB are taken); "
            f"{remedy}"
        )


def refuse_products(columns: int, patterns: int, clusters: int) -> None:
    """Refuse a table of products of all columns by cluster that does not fit into memory."""
    refuse_size(
        8.0 * patterns * columns * (columns + 1) / 2 * clusters,
        f"all cross-products of {columns} columns in each of {clusters} clusters",
        "what is asked needs them; use fewer columns (merge the levels of factors), or fewer clusters",
    )


def refuse_columns(columns: int, owner: str, random: int = 1) -> None:
    """Refuse fixed effects whose matrices do not fit into memory during a fit.

    ``columns``: fixed effects; ``owner``: for messages; ``random``: random effects per cluster, as derivatives by their
    covariances are matrices of that size, too.
    """
    refuse_size(
        8.0 * (MATRICES + MATRICES_BY_PAIR * random**2) * columns**2,
        f"{owner}: {columns} columns of fixed effects",
        "merge levels of factors, or take the factor with the most levels for the cluster variable of a random "
        "intercept",
    )


def refuse_effects(random: int) -> None:
    """Refuse random effects whose second derivatives, by pairs of covariances, do not fit into memory."""
    refuse_size(
        8.0 * MATRICES_BY_PAIR * float(random) ** 4,
        f"the covariances of {random} random effects",
        "let fewer effects vary between clusters",
    )


#: Bounds for columns, and for a response over a predictor: the variance of a variance, a fourth power, then stays
#: within 1e-308 to 1e308 and keeps its digits with a residual sd of a millionth of the response.
SMALLEST, LARGEST = 1e-70, 1e70


def rescaled_by(size: float) -> str:
    """The power of ten that scales a size to about 1."""
    return f"1e{-int(np.floor(np.log10(size))):d}"


def unusual_size(name: str, size: float) -> DataError | None:
    """The error for a column whose largest absolute value ``size`` is out of bounds; otherwise None."""
    if size == 0.0 or SMALLEST <= size <= LARGEST:
        return None
    return DataError(
        f"column {name!r} has values of size {size:.3g}, which is not a usual size ({SMALLEST:g} to {LARGEST:g}): "
        "standard errors of variances take fourth powers of such numbers, which overflow or vanish; multiply it by "
        f"{rescaled_by(size)}"
    )
