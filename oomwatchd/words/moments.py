"""How people name a moment: ``2h`` ago, ``yesterday``, a date.

Core: no clock, no file, no socket; the present is an argument.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

#: the hint for a moment that cannot be read
FORMS = "90m, 2h, 3d (ago), today, yesterday, or a date such as 2026-01-31 or 2026-01-31T12:00"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment(text: str, now: float, *, utc: bool = False) -> float:
    """Seconds since the epoch: ``90m``, ``2h``, ``3d`` before ``now``; the beginning of ``today`` or
    ``yesterday`` (systemd.time(7)); or ISO 8601. Without a zone it is local time, with ``utc`` UTC.
    Raises ValueError."""
    zone = UTC if utc else None
    text = text.strip()
    if match := re.fullmatch(r"(\d{1,9})\s*([smhdw])(?:\s*ago)?", text, re.ASCII):
        return now - int(match[1]) * _UNITS[match[2]]
    try:
        if text in ("today", "yesterday"):
            day = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
            return (day - timedelta(days=text == "yesterday")).timestamp()
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=zone)).timestamp()
    except (OverflowError, OSError) as error:
        raise ValueError(text) from error
