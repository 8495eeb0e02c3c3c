"""The script that runs the numerical core under several BLAS kernels."""

from __future__ import annotations

from tests.kernels import CORE, ROOT, main, runs_here


def test_a_kernel_that_does_not_exist_does_not_run():
    assert not runs_here("Nonsense")
    assert main(["Nonsense"]) == 1


def test_the_core_is_there():
    assert len(set(CORE)) == len(CORE)
    assert all((ROOT / path).exists() for path in CORE)
