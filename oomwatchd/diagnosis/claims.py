"""What a finding adds to its text: what refused the request, and what the cause was.

A finding module returns a :class:`Finding`, or a :class:`Claim` around it. The summary line (WHY) and the
advice that is shown first (CHANGE) use the claims alone, so a new finding needs no change elsewhere.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Literal

import msgspec

from oomwatchd.records.report import Finding


class Tier(IntEnum):
    """How close a cause is to the kill. The cause with the lowest tier is named."""

    #: A setting decided what happens or who is killed, no matter what held the memory.
    MANNER = 0
    #: Memory was free, but this request could not use it.
    BARRED = 1
    #: Something reduced the memory available to all: a setting, a reservation, the kernel itself.
    TAKEN = 2
    #: Something grew steadily; more memory only postpones the kill.
    GREW = 3
    #: One holder has the memory.
    HELD = 4
    #: No single holder stands out.
    TOGETHER = 5
    #: The log lacks the figures; this advice comes after all others.
    UNSEEN = 6


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why memory ran out, in one clause, and how much memory there would be without this cause."""

    tier: Tier
    #: ``shared memory (tmpfs) holds 74 % of RAM``; empty if only the finding's advice counts.
    text: str
    #: Bytes that would be free without this cause; ranks the causes of one tier.
    excess_bytes: int = 0


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What refused the request. The refusal with the lowest rank is shown. Those with the place ``before`` or
    ``behind`` are shown in addition."""

    text: str
    rank: int = 50
    #: It explains everything: no cause is shown after it.
    alone: bool = False
    place: Literal["before", "first", "behind"] = "first"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A finding with its parts of the summary line. ``headline`` replaces the whole line."""

    finding: Finding
    refusal: Refusal | None = None
    cause: Cause | None = None
    headline: str | None = None


def ranked(claims: Iterable[Claim]) -> list[Claim]:
    """The claims that have a cause, the most important first."""
    causes = [c for c in claims if c.cause is not None]
    return sorted(causes, key=lambda c: (c.cause.tier, -c.cause.excess_bytes) if c.cause else (0, 0))
