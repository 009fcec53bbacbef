"""Which kernel log is watched: what the service manager passed, the ring buffer, or the journal."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from oomwatchd.config import KmsgSection
from oomwatchd.errors import OomwatchdError, PermissionDeniedError, UnavailableError
from oomwatchd.sources.journal import JournalSource
from oomwatchd.sources.kmsg import KmsgSource
from oomwatchd.words.escape import harmless

log = logging.getLogger(__name__)

_PASSED = "kernel log passed by the service manager"


def open_source(device: str, passed: Sequence[int]) -> KmsgSource | JournalSource:
    """The ring buffer; without the right to read it the journal, in which the same lines arrive later and
    without numbers. Raises what the ring buffer's opening raised when there is no journal either, or when the
    configuration names another device."""
    if passed:
        return KmsgSource.adopt(passed[0], _PASSED)
    try:
        return KmsgSource.open(device)
    except (PermissionDeniedError, UnavailableError) as closed:
        if device != KmsgSection().device:
            raise
        try:
            source = JournalSource.open()
        except OomwatchdError as absent:
            log.debug("no journal instead of %s: %s", device, absent)
            raise closed from None
        log.warning("%s; reading the kernel's lines from the journal instead", closed)
        return source


def cannot_be_polled(device: str, passed: Sequence[int]) -> UnavailableError:
    """The error for a file or a directory in the log's place, which epoll refuses."""
    name, hint = harmless(device), "see `device` in [kmsg]"
    if passed:
        name, hint = _PASSED, "see ListenSpecial= of its socket unit"
    return UnavailableError(f"{name}: not a kernel log: it cannot be polled", hint=hint)
