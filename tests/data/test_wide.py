"""Factors with many levels, and many columns: the numbers of a design that is written out, in little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import mlmed
from mlmed.data.columns import Entries, SparseColumn, block_products, completed, pair_at, same_on, sparse_products
from mlmed.data.design import build_design
from mlmed.data.grams import Grams, accumulate, column_sums, pattern_sums, rebased, standardized, total_gram
from mlmed.errors import DataError, NotIdentifiedError
from mlmed.formula import parse_equation
from mlmed.system.system import System

Array = NDArray[np.float64]
#: Sums of the same products in another order.
SUMS = 1e-10
#: Estimates of the same model in other working units, relative to their standard errors.
SAME = 1e-7


def table(levels: int, rows: int = 3000, clusters: int = 60, *, seed: int = 1) -> pd.DataFrame:
    """Rows in clusters, of different sizes, with a factor, a number with a mean far from zero and responses."""
    rng = np.random.default_rng(seed)
    ids = np.sort(rng.integers(0, clusters, rows))
    g = rng.permutation(np.arange(rows) % levels)
    x = rng.normal(50.0, 2.0, rows)
    m = 0.5 * x + rng.normal(size=clusters)[ids] + 0.3 * rng.normal(size=levels)[g] + rng.normal(size=rows)
    slope = 0.2 + 0.5 * rng.normal(size=clusters)[ids]
    y = 0.4 * m + slope * (x - 50.0) + rng.normal(size=clusters)[ids] + rng.normal(size=rows)
    return pd.DataFrame({"id": ids, "g": [f"level {k:03d}" for k in g], "k": g, "x": x, "m": m, "y": y})


def design_of(data: pd.DataFrame, *texts: str):
    return build_design(System(tuple(parse_equation(text, list(data.columns)) for text in texts)), data)


def written_out(design) -> Grams:
    """The Grams of the same columns with their zeros, in the same units."""
    made = accumulate(design)
    whole = replace(design, values=tuple(np.asarray(column) for column in design.values))
    return replace(made, sums=pattern_sums(whole, made.patterns, made.shift, made.scale))


def test_products_of_blocks_are_those_of_loops() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 7, 200)
    codes[codes == 3] = 4  # a cluster without rows
    columns = {k: rng.normal(size=200) for k in range(5)}
    found = block_products(columns, codes, 7)
    for i in range(5):
        for j in range(i + 1):
            expected = [float(np.sum((columns[i] * columns[j])[codes == c])) for c in range(7)]
            np.testing.assert_allclose(found[pair_at(i, j)], expected, rtol=SUMS, atol=SUMS)


def test_products_of_sparse_columns_are_those_of_whole_ones() -> None:
    rng = np.random.default_rng(4)
    codes, n, J = rng.integers(0, 5, 300), 300, 5
    values = {k: rng.normal(size=n) * (rng.random(n) < 0.1) for k in (1, 3, 4)}
    whole = {0: np.ones(n), 2: rng.normal(size=n)}
    at = {k: np.flatnonzero(v) for k, v in values.items()}
    parts = [(at[k], np.full(len(at[k]), k), values[k][at[k]]) for k in values]
    entries = Entries(*(np.concatenate(pieces) for pieces in zip(*parts, strict=True)))
    found = sparse_products(whole, entries, codes, J, (15, J)).toarray()
    expected = block_products(dict(sorted((whole | values).items())), codes, J)
    np.testing.assert_allclose(found, expected, rtol=SUMS, atol=SUMS)


def test_sparse_columns_behave_as_arrays() -> None:
    rows = np.array([True, False, True, True, False, True])
    one = SparseColumn(np.array([1, 3, 5]), np.array([2.0, -1.0, 4.0]), 6)
    whole = np.array([0.0, 2.0, 0.0, -1.0, 0.0, 4.0])
    np.testing.assert_array_equal(np.asarray(one), whole)
    np.testing.assert_array_equal(one[rows], whole[rows])
    np.testing.assert_array_equal(np.asarray(one.among(rows)), whole[rows])
    np.testing.assert_array_equal(np.asarray(one.among(rows).spread(rows)), np.where(rows, whole, 0.0))
    two = SparseColumn(np.array([0, 3, 4, 5]), np.array([7.0, -1.0, 9.0, 4.0]), 6)
    assert same_on(one, two, np.array([False, False, True, True, False, True]))
    assert not same_on(one, two, np.ones(6, dtype=bool))
    assert same_on(one, whole, np.ones(6, dtype=bool))
    np.testing.assert_array_equal(completed(one, two, rows), np.where(rows, whole, np.asarray(two)))


@pytest.mark.parametrize(
    "texts",
    [
        ("y ~ x + g + (1 | id)",),
        ("y ~ x * g + (1 + x | id)",),
        ("y ~ 0 + C(k) + x + (1 | id)",),
        ("m ~ x + g + (1 | id)", "y ~ m + x + g + (1 + m | id)"),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_grams_of_a_factor_with_many_levels(texts: tuple[str, ...], missing: bool) -> None:
    data = table(40)
    if missing:
        data.loc[::7, "y"] = np.nan
        data.loc[3::11, "g"] = None
    design = design_of(data, *texts)
    assert sum(isinstance(column, SparseColumn) for column in design.values) >= 39
    found, expected = accumulate(design), written_out(design)
    assert not isinstance(found.sums, np.ndarray)
    size = np.abs(expected.sums).max()
    np.testing.assert_allclose(found.products, expected.products, rtol=SUMS, atol=SUMS * size)
    for r in range(len(texts)):
        assert found.nobs(r) == expected.nobs(r)
        np.testing.assert_allclose(total_gram(found, r), total_gram(expected, r), rtol=SUMS, atol=SUMS * size)
        np.testing.assert_allclose(column_sums(found, r, 2), column_sums(expected, r, 2), atol=SUMS * size)
    np.testing.assert_array_equal(found.rows_per_cluster, expected.rows_per_cluster)


def test_moving_sparse_grams_to_other_units_and_back() -> None:
    design = design_of(table(40), "y ~ x * g + (1 | id)")
    sparse, dense = accumulate(design), written_out(design)
    rng = np.random.default_rng(5)
    K = len(sparse.shift)
    shift, scale = sparse.shift + rng.normal(size=K), sparse.scale * rng.uniform(0.5, 2.0, K)
    shift[0], scale[0] = 0.0, 1.0
    moved = rebased(sparse, shift, scale)
    expected = rebased(dense, shift, scale)
    size = np.abs(expected).max()
    np.testing.assert_allclose(moved.toarray(), expected[0], rtol=SUMS, atol=SUMS * size)
    back = standardized(replace(sparse, sums=moved, shift=shift, scale=scale))
    assert back.shift[design.layout.columns.index("x")] == pytest.approx(sparse.shift[design.layout.columns.index("x")])


def dummies(data: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Indicators as columns of numbers, and their sum as a formula."""
    known = sorted(data["g"].dropna().unique())[1:]
    columns = {f"d{k}": (data["g"] == level).where(data["g"].notna()).astype(float) for k, level in enumerate(known)}
    return pd.concat([data, pd.DataFrame(columns)], axis=1), " + ".join(columns)


@pytest.mark.parametrize("levels", [2, 31, 33, 100, 200])
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_a_factor_is_its_indicators(levels: int, method: str) -> None:
    data = table(levels)
    data.loc[5::13, "g"] = None
    wide, text = dummies(data)
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        one = mlmed.mixed("y ~ x + g + (1 + x | id)", data, method=method)
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        two = mlmed.mixed(f"y ~ x + {text} + (1 + x | id)", wide, method=method)
    assert one.converged
    assert two.converged
    assert one.llf == pytest.approx(two.llf, abs=1e-7)
    a, b = one.to_table(), two.to_table()
    gap = np.abs(a["estimate"].to_numpy() - b["estimate"].to_numpy()) / b["std_error"].fillna(1.0).to_numpy()
    assert gap.max() < SAME
    np.testing.assert_allclose(a["std_error"], b["std_error"], rtol=1e-6)


def test_the_likelihood_of_a_factor_with_many_levels_is_that_of_the_marginal_covariance() -> None:
    data = table(40, rows=400, clusters=12)
    fit = mlmed.mixed("y ~ x + g + (1 | id)", data)
    X = np.column_stack([np.ones(400), data["x"], pd.get_dummies(data["g"], dtype=float).to_numpy()[:, 1:]])
    Z = pd.get_dummies(data["id"], dtype=float).to_numpy()
    y = data["y"].to_numpy()
    V = float(fit.G.to_numpy()[0, 0]) * Z @ Z.T + fit.sigma2["y"] * np.eye(400)
    inverse = np.linalg.inv(V)
    P = X.T @ inverse @ X
    beta = np.linalg.solve(P, X.T @ inverse @ y)
    rest = y - X @ beta
    value = np.linalg.slogdet(V)[1] + np.linalg.slogdet(P)[1] + rest @ inverse @ rest + (400 - 41) * np.log(2 * np.pi)
    assert fit.llf == pytest.approx(-0.5 * value, abs=1e-7)


def test_everything_that_needs_all_products_has_them_where_they_fit() -> None:
    data = table(40, rows=1500)
    wide, text = dummies(data)
    one = mlmed.mixed("y ~ x + g + (1 | id)", data)
    two = mlmed.mixed(f"y ~ x + {text} + (1 | id)", wide)
    for kind in ("CR0", "CR2"):
        a, b = (np.sqrt(np.diag(fit.vcov(kind)))[:10] for fit in (one, two))
        np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_allclose(one.fitted(), two.fitted(), rtol=1e-8)


def test_repeated_levels_are_refused_by_name() -> None:
    data = table(40)
    data["h"] = data["g"].map(lambda level: f"{level} again")
    with pytest.raises(NotIdentifiedError, match=r"the column 'h\[T.level 001 again\]' is a linear combination of"):
        mlmed.mixed("y ~ x + g + h + (1 | id)", data)


def test_what_would_not_fit_is_refused_before_it_is_made() -> None:
    data = table(10, rows=20_000)
    data["many"] = np.arange(20_000) % 9_900
    said = r"y ~ x.*: 9901 columns of fixed effects would need 14.1 GB of memory .* merge levels of factors"
    for source in (data, data.assign(many="level " + data["many"].astype(str))):
        with pytest.raises(DataError, match=said):
            mlmed.mixed("y ~ x + C(many) + (1 | id)", source)
    data["other"] = np.random.default_rng(1).integers(0, 90, 20_000).astype(str)
    data["one"] = np.random.default_rng(2).integers(0, 90, 20_000).astype(str)
    with pytest.raises(DataError, match="8100 columns of fixed effects would need"):
        mlmed.mixed("y ~ C(one) * C(other) + (1 | id)", data)


def test_numbers_in_too_many_clusters_are_refused_with_their_size() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame(rng.normal(size=(9_000, 400)), columns=[f"v{k}" for k in range(400)])
    data["id"], data["y"] = np.arange(9_000) // 2, rng.normal(size=9_000)
    text = " + ".join(f"v{k}" for k in range(400))
    said = r"all cross-products of 402 columns in each of 4500 clusters would need 2\.92 GB"
    with pytest.raises(DataError, match=said):
        mlmed.mixed(f"y ~ {text} + (1 | id)", data)


PROGRAM = """
import resource, time, numpy as np, pandas as pd, mlmed
rng = np.random.default_rng(1)
ids, g = np.repeat(np.arange(2000), 20), rng.integers(0, 1000, 40_000)
data = pd.DataFrame({"id": ids, "g": g.astype(str), "x": rng.normal(size=40_000)})
data["y"] = 0.3 * data["x"] + rng.normal(size=2000)[ids] + rng.normal(size=1000)[g] + rng.normal(size=40_000)
fit = mlmed.mixed("y ~ x + C(g) + (1 | id)", data)
assert fit.converged and len(fit.fixef()) == 1001 and len(str(fit)) > 0 and len(fit.to_table()) > 1001
asked = {kind: lambda kind=kind: fit.vcov(kind) for kind in ("CR0", "CR1", "CR2")}
asked |= {kind: lambda kind=kind: fit.bootstrap(2, seed=1, kind=kind) for kind in ("case", "parametric", "residual")}
asked |= {
    "within": lambda: fit.bootstrap(2, seed=1, within=True),
    "influence": lambda: fit.influence(refit=False),
    "stored": lambda: mlmed.grams("y ~ x + C(g) + (1 | id)", data).save("never.parquet"),
}
for name, call in asked.items():
    began = time.process_time()
    try:
        call()
        raise SystemExit(f"{name} does not fit and was not refused")
    except mlmed.errors.DataError as error:
        assert "8.04 GB" in str(error), error
        assert time.process_time() - began < 5.0, name
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_thousand_levels_in_two_thousand_clusters_take_little_memory() -> None:
    """Measured: 330 MB and four seconds of one processor."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 2e9


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("C(v):C(w)", 199 * 199 + 1),
        ("bs(x, df=199):bs(w, df=199):bs(v, df=199)", 199**3 + 1),
        ("hashed(x, levels=200):hashed(w, levels=200)", 200 * 200 + 1),
        (" + ".join(f"bs(I(x + {k}*w), df=199)" for k in range(100)), 100 * 199 + 1),
        ("C(g):C(w)", 39 * 199 + 1),
    ],
)
@pytest.mark.parametrize("mode", ["mixed", "causal", "location_scale"])
def test_products_of_factors_and_splines_are_refused_before_they_are_made(mode: str, text: str, columns: int) -> None:
    """Bounds of single splines and factors do not bound their products."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame(rng.normal(size=(200, 5)), columns=["x", "w", "v", "m", "y"])
    data["id"], data["g"] = np.arange(200) // 5, np.arange(200) % 40
    calls: dict[str, Callable[[], Any]] = {
        "mixed": lambda: mlmed.mixed(f"y ~ {text} + (1 | id)", data),
        "causal": lambda: mlmed.causal(f"m ~ x + {text}", "y ~ m + x", data, treatment="x"),
        "location_scale": lambda: mlmed.location_scale("y ~ x + (1 | id)", f"~ {text}", data),
    }
    with pytest.raises(DataError, match=f"{columns + (mode == 'causal')} columns of fixed effects would need .* GB"):
        calls[mode]()


def test_random_effects_that_would_not_fit_are_refused() -> None:
    data = mlmed.simulate.bpg(40, 50, seed=1).data
    with pytest.raises(DataError, match=r"200 random effects would need 51\.2 GB"):
        mlmed.mixed("y ~ x + (bs(x, df=199) | id)", data)
