"""Names that statsmodels users type, for every fit that has ``params``, ``bse`` and ``fixef``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from mlmed.options import check_level

__all__ = ["Coefficients"]


class Coefficients:
    """Tests and intervals of the fixed effects."""

    if TYPE_CHECKING:
        params: Any
        bse: Any
        fixef: Any

    @property
    def tvalues(self) -> pd.Series:
        """The z statistics of the fixed effects."""
        found: pd.Series = self.params / self.bse
        return found.rename("statistic")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p values of the fixed effects, those of ``fixef()``."""
        found: pd.Series = self.fixef().set_index("term")["p_value"]
        return found

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Intervals of the fixed effects, columns 0 and 1 (statsmodels' shape)."""
        alpha = check_level(alpha, "alpha")
        table: pd.DataFrame = self.fixef(level=1.0 - alpha).set_index("term")[["conf_low", "conf_high"]]
        return table.set_axis([0, 1], axis=1).rename_axis(None)
