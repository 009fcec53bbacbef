"""``python -m oomwatchd``."""

import sys

from oomwatchd.cli import main

if __name__ == "__main__":
    sys.exit(main())
