"""Why a sink did not take an event."""

from __future__ import annotations

from oomwatchd.errors import DeliveryError


class SinkError(DeliveryError):
    """A sink did not take an event; the daemon counts that and continues."""


class NotHereError(SinkError):
    """This host lacks what the sink writes to."""
