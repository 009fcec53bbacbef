"""Why a sink did not take an event."""

from __future__ import annotations

from oomwatchd.errors import DeliveryError


class SinkError(DeliveryError):
    """A sink did not take an event; the daemon counts it and goes on."""


class NotHereError(SinkError):
    """This host has not what the sink writes to."""
