"""What several machines of the lab share."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.vm.lab import once


def test_machines_that_start_at_a_time_make_a_shared_part_once(tmp_path: Path) -> None:
    source, part = tmp_path / "source", tmp_path / "cache" / "part"
    source.touch()
    made: list[Path] = []

    def make(to: Path) -> None:
        time.sleep(0.05)
        to.write_text(str(len(made)))
        made.append(to)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: once(part, make, newer_than=source), range(4))) == {part}
    assert len(made) == 1
    os.utime(part, ns=(0, 0))
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: once(part, make, newer_than=source).read_text(), range(4))) == {"1"}
    assert len(made) == 2
