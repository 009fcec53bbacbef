"""Log text, in any form that people have it, as a stream of kernel records.

:func:`open_log` opens a file or standard input, :func:`records` reads it in constant memory,
:class:`TextReader` does the same for data that is fed to it. :class:`GrowingLog` makes captures of data as
it comes, which :func:`pieces` reads of a pipe and :class:`FollowedFile` of a file that grows;
:func:`check_whole` says at the end whether all could be read.
"""

from __future__ import annotations

from oomwatchd.sources.text.following import FollowedFile
from oomwatchd.sources.text.growing import REST_SECONDS, GrowingLog
from oomwatchd.sources.text.prefilter import records
from oomwatchd.sources.text.reader import TextReader
from oomwatchd.sources.text.streams import Progress, check_whole, open_log, pieces

__all__ = [
    "REST_SECONDS", "FollowedFile", "GrowingLog", "Progress", "TextReader", "check_whole", "open_log",
    "pieces", "records",
]  # fmt: skip
