from mlmed import datasets as datasets
from mlmed import errors as errors
from mlmed import reproduce as reproduce
from mlmed import simulate as simulate
from mlmed.data.stacking import stack as stack
from mlmed.modes.causal import CausalResults as CausalResults
from mlmed.modes.causal import causal as causal
from mlmed.modes.comparison import Comparison as Comparison
from mlmed.modes.comparison import compare as compare
from mlmed.modes.grams import Grams as Grams
from mlmed.modes.grams import grams as grams
from mlmed.modes.grams import grams_sql as grams_sql
from mlmed.modes.location_scale import LocationScaleResults as LocationScaleResults
from mlmed.modes.location_scale import location_scale as location_scale
from mlmed.modes.mediation import MediationResults as MediationResults
from mlmed.modes.mediation import mediate as mediate
from mlmed.modes.mixed import mixed as mixed
from mlmed.modes.piecewise import PiecewiseResults as PiecewiseResults
from mlmed.modes.piecewise import piecewise as piecewise
from mlmed.modes.results import MixedResults as MixedResults
from mlmed.replication import replicate as replicate

__version__: str
__all__: list[str]
