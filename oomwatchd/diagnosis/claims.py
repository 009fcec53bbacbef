"""What a finding says beside its text: what refused the request, and what the cause was.

A finding module answers with a :class:`Finding`, or with a :class:`Claim` around it. The line (WHY) and the
advice that is shown first (CHANGE) are made of the claims alone, so that a new finding speaks for itself.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Literal

import msgspec

from oomwatchd.records.report import Finding


class Tier(IntEnum):
    """How near a cause lies to the kill. The first tier that holds enough to decide is named."""

    #: a setting chose who dies or what happens, whoever held the memory
    MANNER = 0
    #: memory was there, and this request was not to have it
    BARRED = 1
    #: the machine, or everybody on it, had less than it could: a setting, a reservation, the kernel itself
    TAKEN = 2
    #: it grew without an end in sight: more memory only postpones the kill
    GREW = 3
    #: somebody holds it
    HELD = 4
    #: nobody stands out
    TOGETHER = 5
    #: what would say so is not in the log; its advice comes after all others
    UNSEEN = 6


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why memory ran out, in one clause, and what would have been without it."""

    tier: Tier
    #: ``shared memory (tmpfs) holds 74 % of RAM``; empty where the advice alone is meant
    text: str
    #: bytes that the whole would have more without it; ranks causes of one tier
    excess_bytes: int = 0


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What said no. The lowest rank is told; ``before`` and ``behind`` are told as well as it."""

    text: str
    rank: int = 50
    #: it explains all: no cause is told behind it
    alone: bool = False
    place: Literal["before", "first", "behind"] = "first"


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A finding with what it says for the line. ``headline`` replaces the whole line."""

    finding: Finding
    refusal: Refusal | None = None
    cause: Cause | None = None
    headline: str | None = None


def ranked(claims: Iterable[Claim]) -> list[Claim]:
    """Those that name a cause, the one to be told first."""
    causes = [c for c in claims if c.cause is not None]
    return sorted(causes, key=lambda c: (c.cause.tier, -c.cause.excess_bytes) if c.cause else (0, 0))
