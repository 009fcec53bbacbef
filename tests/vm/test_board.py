"""A board with BusyBox alone, followed while it runs out of memory."""

from __future__ import annotations

import pytest

from tests.follow.boards import same
from tests.vm import board
from tests.vm.lab import cache_directory

pytestmark = [pytest.mark.vm, pytest.mark.slow]


def test_console_and_netconsole_tell_what_the_ring_buffer_holds() -> None:
    """On a kernel that the other tests fetch; ``python -m tests.vm board`` has a MIPS and an ARM board."""
    told = board.run("bookworm-amd64", cache_directory(), 600)
    assert told.kernel_kills == sum(event.kills for event in told.own) >= 2
    assert [same(event) for event in told.netconsole] == [same(event) for event in told.own]
    assert [event.summary.partition(": ")[2] for event in told.serial] == [
        event.summary for event in told.own
    ]
    assert all(event.complete for event in told.serial)
