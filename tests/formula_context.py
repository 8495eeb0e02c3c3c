"""What the names of formulas mean to Python, so that formulaic itself can evaluate them: an oracle."""

from types import SimpleNamespace

import numpy as np
from formulaic.transforms import ContrastsRegistry

from mlmed.allowed import CONSTANTS, CONTRASTS, MATRICES, NUMPY

CONTEXT = {
    "np": SimpleNamespace(**{name: getattr(np, name) for name in sorted({*NUMPY, *CONSTANTS, *MATRICES})}),
    "contr": SimpleNamespace(**{name: getattr(ContrastsRegistry, name) for name in CONTRASTS}),
    "abs": abs,
    "round": round,
}
