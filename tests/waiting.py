"""How long a test waits for what must come."""

from typing import Final

#: Seconds. On an idle machine a fraction of one does, and a test that passes never waits this long; but the
#: tests' own kills fill the kernel log, and a busy machine takes its time to read and to store them.
PATIENCE: Final = 60.0
