"""``python -m mlmed.cli``."""

import sys

from mlmed.cli import main

sys.exit(main())
