"""Run the numerical core under several kernels of OpenBLAS: ``python tests/kernels.py [KERNEL ...]``.

OpenBLAS takes its kernels from the processor, and different kernels round differently: what passes on one machine may
fail on the next. ``OPENBLAS_CORETYPE`` asks for those of another processor, as far as this one can run them. Two BLAS
threads, because sums over threads are sums in another order, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: From old to new; the last two are not x86.
KERNELS = ("Prescott", "Sandybridge", "Haswell", "Zen", "SkylakeX", "ARMV8", "NEOVERSEN1")
#: What OpenBLAS calls itself with the kernels of Prescott, which serve every older processor, too.
NAMES = {"Prescott": {"Prescott", "Katmai"}}
#: Criterion, derivatives, optimum, decisions, covariances, corrections for small samples, quadrature.
CORE = (
    "tests/lmm/test_certificate.py",
    "tests/lmm/test_criterion.py",
    "tests/lmm/test_equivalence.py",
    "tests/glm/test_glm.py",
    "tests/data/test_grams.py",
    "tests/lmm/test_identified.py",
    "tests/results/test_influence.py",
    "tests/intervals/test_profile.py",
    "tests/lmm/test_row_order.py",
    "tests/lmm/test_sandwich.py",
    "tests/data/test_shifted_columns.py",
    "tests/lmm/test_singular.py",
    "tests/lmm/test_smallsample.py",
    "tests/intervals/test_smallsample_effects.py",
    "tests/quadrature/test_locscale.py",
    "tests/quadrature/test_locscale_exact.py",
    "tests/quadrature/test_locscale_far.py",
    "tests/quadrature/test_locscale_likelihood.py",
    "tests/quadrature/test_locscale_nodes.py",
    "tests/multivariate/test_criterion.py",
    "tests/multivariate/test_fit.py",
    "tests/multivariate/test_inference.py",
    "tests/multivariate/test_nearly_repeated.py",
    "tests/multivariate/test_sigma_boundary.py",
    "tests/multivariate/test_smallsample.py",
)
ROOT = Path(__file__).resolve().parent.parent
PROBE = """
import numpy as np
from threadpoolctl import threadpool_info
a = np.random.default_rng(1).normal(size=(60, 60))
assert np.allclose(a @ np.linalg.inv(a), np.eye(60), atol=1e-6) and np.linalg.eigvalsh(a @ a.T)[0] > 0
print(*(info.get("architecture") for info in threadpool_info() if info["internal_api"] == "openblas"))
"""


def environment(kernel: str) -> dict[str, str]:
    """Of a process whose OpenBLAS uses a kernel."""
    return {**os.environ, "OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}


def runs_here(kernel: str) -> bool:
    """Whether the processor has what a kernel needs: OpenBLAS takes another one, or dies, if not."""
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env=environment(kernel), capture_output=True, text=True, check=False)
    found = set(done.stdout.split())
    return done.returncode == 0 and bool(found) and found <= NAMES.get(kernel, {kernel})


def main(asked: Sequence[str]) -> int:
    """Exit status: 0 if the core passes under every kernel that runs here, and at least one does."""
    kernels = [kernel for kernel in asked or KERNELS if runs_here(kernel)]
    sys.stdout.write(f"kernels: {', '.join(kernels) or 'none'} of {', '.join(asked or KERNELS)}\n")
    failed = []
    for kernel in kernels:
        sys.stdout.write(f"\n{kernel}\n")
        sys.stdout.flush()
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *CORE]
        if subprocess.run(command, env=environment(kernel), cwd=ROOT, check=False).returncode:
            failed.append(kernel)
    sys.stdout.write(f"\nfailed under: {', '.join(failed) or 'none'}\n")
    return 1 if failed or not kernels else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
