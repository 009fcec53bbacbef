"""Log text, in any form that people have it, as a stream of kernel records.

:func:`open_log` opens a file or standard input, :func:`records` reads it in constant memory,
:class:`TextReader` does the same for data that is fed to it.
"""

from __future__ import annotations

from oomwatchd.sources.text.opening import Progress, open_log
from oomwatchd.sources.text.reader import TextReader
from oomwatchd.sources.text.skip import records

__all__ = ["Progress", "TextReader", "open_log", "records"]
