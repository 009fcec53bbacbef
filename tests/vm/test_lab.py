"""What several machines of the lab share."""

from __future__ import annotations

import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.vm.lab import once
from tests.vm.power import DISCARD, FLUSH, apply, entries


def test_machines_that_start_at_a_time_make_a_shared_part_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(to: Path) -> None:
        time.sleep(0.05)
        to.write_text(str(len(made)))
        made.append(to)

    with ThreadPoolExecutor(4) as pool:
        (part,) = set(pool.map(lambda _: once(tmp_path / "cache" / "part", make, of=("a",)), range(4)))
    assert [part.read_text(), len(made)] == ["0", 1]


def test_a_shared_part_is_another_when_it_is_made_of_something_else(tmp_path: Path) -> None:
    def made_of(of: str) -> Path:
        return once(tmp_path / "part.tar", lambda to: to.write_text(of), of=(of,))

    parts = [made_of("a"), made_of("b"), made_of("a")]
    assert [part.read_text() for part in parts] == ["a", "b", "a"]
    assert {part.suffix for part in parts} == {".tar"}


def test_a_log_of_writes_is_read_to_its_last_whole_entry(tmp_path: Path) -> None:
    def sectors(*fields: int, data: bytes = b"") -> bytes:
        head = struct.pack("<QQQQ", *fields)
        return head.ljust(512, b"\0") + data

    log = tmp_path / "log"
    superblock = struct.pack("<QQQI", 0x6A736677736872, 1, 0, 512).ljust(512, b"\0")
    log.write_bytes(
        superblock
        + sectors(8, 2, 0, 0, data=b"a" * 1024)
        + sectors(0, 0, FLUSH, 0)
        + sectors(0, 4, DISCARD, 0)
        + sectors(9, 1, 0, 0, data=b"b" * 512)
        + sectors(9, 1, 0, 0, data=b"c" * 511)  # cut off
    )
    writes = list(entries(log))
    assert [(write.sector, write.count, write.flags) for write in writes] == [
        (8, 2, 0),
        (0, 0, FLUSH),
        (0, 4, DISCARD),
        (9, 1, 0),
    ]
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(10 * 512))
    apply(writes, log, disk)
    assert disk.read_bytes() == bytes(8 * 512) + b"a" * 512 + b"b" * 512
