"""A real leak is announced before the kernel kills, a start that stops is not: two loads of tests.near."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.near.__main__ import measure

pytestmark = [pytest.mark.oom, pytest.mark.slow]


def test_a_leak_is_announced_and_a_start_is_not(tmp_path: Path) -> None:
    leak, start = measure(["faster leak", "short start"], 96 << 20, tmp_path)
    assert leak.killed
    assert leak.lead > 0
    assert leak.kill_told is not None
    assert leak.kill_told["warned"]["id"] == leak.warnings[0]["id"]
    assert (start.killed, start.warnings) == (False, [])
