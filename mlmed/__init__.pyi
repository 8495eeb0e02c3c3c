from mlmed import datasets as datasets
from mlmed import errors as errors
from mlmed import reproduce as reproduce
from mlmed import simulate as simulate
from mlmed.api.causal import causal as causal
from mlmed.api.grams import Grams as Grams
from mlmed.api.grams import grams as grams
from mlmed.api.grams import grams_sql as grams_sql
from mlmed.api.location_scale import location_scale as location_scale
from mlmed.api.mediate import mediate as mediate
from mlmed.api.mixed import mixed as mixed
from mlmed.api.piecewise import piecewise as piecewise
from mlmed.data.stacking import stack as stack
from mlmed.intervals.values import Bootstrap as Bootstrap
from mlmed.intervals.values import Delta as Delta
from mlmed.intervals.values import MonteCarlo as MonteCarlo
from mlmed.intervals.values import Product as Product
from mlmed.intervals.values import Profile as Profile
from mlmed.replication import replicate as replicate
from mlmed.results.comparison import Comparison as Comparison
from mlmed.results.comparison import compare as compare
from mlmed.results.results import Results as Results

__version__: str
__all__: list[str]
