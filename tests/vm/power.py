"""A power cut during a storm of kills: what the disk holds at any moment of it.

QEMU writes down every write and flush of the guest in their order (its ``blklogwrites`` driver). What a disk
holds when the power goes is then everything up to the last flush, and of the writes since any part: its own
cache is lost too. Images of such moments are made from that log, and the store is read from each.

Format of the log: drivers/md/dm-log-writes.c.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from oomwatchd.event import OomEvent
from tests.vm import full
from tests.vm.checks import Claim
from tests.vm.lab import LabError

#: events that have been seen in the journal when the power goes
SEEN = 60
#: moments before that are looked at
MOMENTS = 12
_SECTOR = 512
FLUSH, FUA, DISCARD = 1, 2, 4


class Write(msgspec.Struct, frozen=True):
    """One entry of the log: ``at`` is where its data begin in the log, ``end`` where the next entry does."""

    sector: int
    count: int
    flags: int
    at: int
    end: int


def test(image: Path, directory: Path, memory_mib: int, seconds: float) -> list[Claim]:
    """Cut the power in the storm, look at ``MOMENTS`` of the disk, and boot the last of them."""
    disk, log = full.copy(image, directory / "disk"), directory / "log"
    log.touch()
    seen: list[tuple[int, str]] = []  # length of the log when an event was seen outside at the latest, its id

    def cut(said: bytes) -> bool:
        ids = [line[3:].decode() for line in said.split(b"\n")[:-1] if line.startswith(b"id ")]
        written = log.stat().st_size
        seen.extend((written, event) for event in ids[len(seen) :])
        return len(seen) >= SEEN

    drive = (
        *("-blockdev", f"driver=file,node-name=disk,filename={disk}"),
        *("-blockdev", f"driver=file,node-name=log,filename={log}"),
        *("-blockdev", "driver=blklogwrites,node-name=logged,file=disk,log=log"),
        *("-device", "virtio-blk-pci,drive=logged"),
    )
    first = full.run(image, memory_mib, seconds, "power", drive=drive, cut=cut)
    first.one("ids")
    if len(seen) < SEEN:
        raise LabError(f"only {len(seen)} events seen; the console ends with {first.console[-2000:]}")
    writes = list(entries(log))
    chosen = _moments(writes, seen)
    kept = full.copy(image, directory / "kept")  # grows to what was flushed for certain
    cutting = full.copy(image, directory / "cut")
    claims = []
    done = 0
    for number, moment in enumerate(chosen):
        flushed = max((n for n in range(moment) if writes[n].flags & FLUSH), default=0)
        apply(writes[done:flushed], log, kept)
        done = max(done, flushed)
        _apply_some(writes[flushed:moment], log, full.copy(kept, cutting), number)
        acknowledged = {event for at, event in seen if at <= writes[moment - 1].end}
        found = full.events(cutting, directory / f"store{number}")
        if number == 0:
            early = {event.id for event in found}
        claims.append(_claim(number, moment, moment - flushed, acknowledged, found))
    before = {event.id for event in found}
    second = full.run(image, memory_mib, seconds, "power", drive=full.writable(cutting))
    after = full.events(cutting, directory / "after")
    return [
        *claims,
        Claim("an early cut lacks what was seen later", bool({event for _, event in seen} - early)),
        Claim("after the cut: the service is active", second.one("active_after_cut") == "active"),
        Claim("after the cut: the store was not given up", "corrupt" not in second.one("log").lower()),
        *_once(after),
        Claim("after the cut: the events from before are there", before <= {event.id for event in after}),
        Claim("after the cut: a new kill is stored", _comms(after)["after"] == 1),
        Claim(f"two boots in {first.seconds:.0f} and {second.seconds:.0f} s", bool(second.one("end") == "")),
    ]


def entries(log: Path) -> Iterator[Write]:
    """All whole entries; QEMU was killed, so the superblock's count of them is not to be believed."""
    size = log.stat().st_size
    with log.open("rb") as stream:
        magic, version, _, sector_size = struct.unpack("<QQQI", stream.read(28))
        if (magic, version, sector_size) != (0x6A736677736872, 1, _SECTOR):
            raise LabError(f"{log} is no log of writes: {magic:#x} {version} {sector_size}")
        at = _SECTOR
        while at + _SECTOR <= size:
            stream.seek(at)
            sector, count, flags, _ = struct.unpack("<QQQQ", stream.read(32))
            data = 0 if flags & DISCARD else count * _SECTOR
            at += _SECTOR
            if (not count and not flags) or at + data > size:
                return
            yield Write(sector, count, flags, at, at + data)
            at += data


def _moments(writes: list[Write], seen: list[tuple[int, str]]) -> list[int]:
    """Numbers of entries, spread over the storm; the last is the last."""
    first = next(n for n, write in enumerate(writes) if write.end >= seen[0][0])
    middle = random.Random(len(writes)).sample(range(first, len(writes)), MOMENTS - 1)
    return [*sorted(middle), len(writes)]


def apply(writes: list[Write], log: Path, image: Path) -> None:
    """Do these writes to the image, with their data out of the log."""
    with log.open("rb") as stream, image.open("r+b") as disk:
        for write in writes:
            if not write.flags & DISCARD:
                stream.seek(write.at)
                disk.seek(write.sector * _SECTOR)
                disk.write(stream.read(write.count * _SECTOR))


def _apply_some(writes: list[Write], log: Path, image: Path, number: int) -> None:
    """The writes that were not flushed: none, all, or any part; and the writes that had to be on disk at
    once."""
    chance = random.Random(number)  # the same in each run
    share = (0.0, 1.0, 0.5)[number % 3]
    apply([write for write in writes if write.flags & FUA or chance.random() < share], log, image)


def _claim(number: int, moment: int, unflushed: int, acknowledged: set[str], found: list[OomEvent]) -> Claim:
    ids = {event.id for event in found}
    once = all(claim.holds for claim in _once(found))
    missing = acknowledged - ids
    return Claim(
        f"cut {number} at write {moment} ({unflushed} after the last flush): {len(acknowledged)} events had"
        f" been seen, {len(ids)} are stored, missing {sorted(missing)},"
        f" {'each once' if once else 'SOME TWICE'}",
        not missing and once,
    )


def _once(found: list[OomEvent]) -> list[Claim]:
    """No event twice, by its id nor by its victim: the lab gives each a name of its own."""
    ids = Counter(event.id for event in found)
    doubled = [name for name, count in (ids | _comms(found)).items() if count > 1]
    return [Claim(f"no event twice: {doubled or len(found)}", not doubled)]


def _comms(found: list[OomEvent]) -> Counter[str]:
    return Counter(str(victim.comm) for event in found for victim in event.victims)
