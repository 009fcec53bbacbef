"""``python -m oomwatchd.metrics > docs/metrics.md``."""

import sys

from oomwatchd.metrics.families import document

sys.stdout.write(document())
