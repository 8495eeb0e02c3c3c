"""``python -m mlmed.cli``."""

import sys

from mlmed.cli.run import main

sys.exit(main())
