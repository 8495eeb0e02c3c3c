"""What would not fit is refused before memory is asked for it."""

from __future__ import annotations

from mlmed.errors import DataError

__all__ = ["LARGEST_BYTES", "refuse_columns", "refuse_effects", "refuse_products", "refuse_size"]

#: Memory that one table, or one fit, may take.
LARGEST_BYTES = 2e9
#: Matrices with a row and a column for every fixed effect that a fit holds at a time (measured with 1,000 and 3,000
#: columns), and those for every pair of random effects.
MATRICES, MATRICES_BY_PAIR = 14, 4


def refuse_size(needed: float, what: str, remedy: str) -> None:
    """Refuse what needs too many bytes.

    Raises
    ------
    DataError
        More than ``LARGEST_BYTES``.

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
    """Refuse a table of all products of all columns by cluster that does not fit."""
    refuse_size(
        8.0 * patterns * columns * (columns + 1) / 2 * clusters,
        f"all cross-products of {columns} columns in each of {clusters} clusters",
        "what is asked needs them; use fewer columns (merge the levels of factors), or fewer clusters",
    )


def refuse_columns(columns: int, owner: str, random: int = 1) -> None:
    """Refuse fixed effects whose matrices do not fit while a model is fitted.

    Parameters
    ----------
    columns : int
        Fixed effects.
    owner : str
        What has them.
    random : int
        Random effects per cluster: derivatives by their covariances are matrices of that size, too.
    """
    refuse_size(
        8.0 * (MATRICES + MATRICES_BY_PAIR * random**2) * columns**2,
        f"{owner}: {columns} columns of fixed effects",
        "merge levels of factors, or take the factor with the most levels for the cluster variable of a random "
        "intercept",
    )


def refuse_effects(random: int) -> None:
    """Refuse random effects whose second derivatives, by pairs of pairs of them, do not fit."""
    refuse_size(
        8.0 * MATRICES_BY_PAIR * float(random) ** 4,
        f"the covariances of {random} random effects",
        "let fewer effects vary between clusters",
    )
