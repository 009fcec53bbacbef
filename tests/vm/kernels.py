"""Debian's kernels with an initramfs that runs out of memory in every way, and what we make of their log.

The kernel's own count (``oom_kill`` in /proc/vmstat) says for each scenario what must be found.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import msgspec

from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.records.report import OomReport
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.decode import decode
from oomwatchd.sources.text import TextReader
from tests.vm.lab import HERE, PC, LabError, boot, command, debootstrap, labbox, once


class Machine(msgspec.Struct, frozen=True):
    """A kernel of Debian's and the hardware it gets: ``console`` is its first serial line."""

    suite: str
    arch: str
    package: str
    qemu: tuple[str, ...]
    console: str = "ttyS0"


#: Two NUMA nodes, the second with memory alone.
_PC = (
    *(*PC, "-m", "256"),
    *("-object", "memory-backend-ram,id=m0,size=128M", "-numa", "node,nodeid=0,cpus=0,memdev=m0"),
    *("-object", "memory-backend-ram,id=m1,size=128M", "-numa", "node,nodeid=1,memdev=m1"),
)
MACHINES = {
    "bookworm-amd64": Machine("bookworm", "amd64", "linux-image-cloud-amd64", _PC),
    "trixie-amd64": Machine("trixie", "amd64", "linux-image-cloud-amd64", _PC),
    "bullseye-amd64": Machine("bullseye", "amd64", "linux-image-cloud-amd64", _PC),
    "newest-amd64": Machine("sid", "amd64", "linux-image-cloud-amd64", _PC),
    # more than 896 MiB, for a HighMem zone
    "bookworm-i386": Machine("bookworm", "i386", "linux-image-686-pae", ("qemu-system-i386", "-m", "1100")),
    "bookworm-mipsel": Machine(
        "bookworm",
        "mipsel",
        "linux-image-4kc-malta",
        ("qemu-system-mipsel", "-M", "malta", "-m", "256"),
    ),
    "bookworm-armhf": Machine(
        "bookworm",
        "armhf",
        "linux-image-armmp",
        ("qemu-system-arm", "-M", "virt", "-cpu", "cortex-a15", "-m", "256"),
        "ttyAMA0",
    ),
    "trixie-arm64": Machine(
        "trixie",
        "arm64",
        "linux-image-cloud-arm64",
        ("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-m", "256"),
        "ttyAMA0",
    ),
}


class Scenario(msgspec.Struct, frozen=True):
    """``kills``: by how much the kernel's counter grew over the records after ``after_seq``."""

    name: str
    after_seq: int
    kills: int


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What one boot gave: raw records, the kernel's counts, the console text of the panic."""

    machine: str
    release: str
    kmsg: bytes
    scenarios: tuple[Scenario, ...]
    panic: bytes
    seconds: float

    def save(self, directory: Path) -> None:
        """Keep it as the corpus keeps its recordings."""
        directory.mkdir(parents=True, exist_ok=True)
        stem = directory / f"{self.release}-{self.machine.rpartition('-')[2]}"
        truth = "".join(f"{s.name} after_seq={s.after_seq} kills={s.kills}\n" for s in self.scenarios)
        Path(f"{stem}.kmsg").write_bytes(self.kmsg)
        Path(f"{stem}.truth").write_text(truth)
        Path(f"{stem}.panic").write_bytes(self.panic)


class Compared(msgspec.Struct, frozen=True):
    """One scenario: what the kernel counted, what we read, and how many reports that was in."""

    scenario: Scenario
    kills: int
    reports: int
    undecoded: int

    @property
    def agrees(self) -> bool:
        return self.kills == self.scenario.kills and not self.undecoded


def unpacked(machine: Machine, cache: Path) -> tuple[Path, Path]:
    """The machine's kernel package and BusyBox, unpacked once, and the kernel in it. Raises LabError."""
    system = once(
        cache / f"kernel-{machine.suite}-{machine.arch}",
        lambda to: debootstrap(
            machine.suite, to, (machine.package, "busybox-static"), "extract", arch=machine.arch
        ),
    )
    kernel = next(
        file
        for file in sorted([*system.glob("boot/vmlinu*"), *system.glob("usr/lib/modules/*/vmlinuz")])
        if file.is_file()
    )
    return system, kernel


def record(name: str, cache: Path, seconds: float) -> Recording:
    """Boot a machine of ``MACHINES`` once. Raises LabError."""
    machine = MACHINES[name]
    system, kernel = unpacked(machine, cache)
    with tempfile.TemporaryDirectory(prefix="oomwatchd-lab-") as scratch:
        directory = Path(scratch)
        initramfs = _initramfs(system, labbox(machine.arch, cache), directory)
        ran = boot(
            [
                *machine.qemu,
                *("-kernel", kernel, "-initrd", initramfs),
                *("-append", f"console={machine.console} quiet panic=1 log_buf_len=4M"),
                "-no-reboot",
            ],
            directory,
            seconds,
        )
    records = re.search(rb"@@KMSG\n(.*?)@@END\n", ran.console, re.DOTALL)
    booted = re.search(rb"@@BOOT (\S+)", ran.console)
    if records is None or booted is None:
        end = ran.console[-1500:].decode(errors="replace")
        raise LabError(f"{name}: no log after {ran.seconds:.0f} s; the console ends with:\n{end}")
    scenarios = tuple(
        Scenario(m[1].decode(), int(m[2]), int(m[3]))
        for m in re.finditer(rb"^@@SCENARIO (\S+) after_seq=(\d+) kills=(\d+)$", ran.console, re.MULTILINE)
    )
    first = parse_record(records[1].partition(b"\n")[0])
    if not scenarios or first is None or first.seq is None or first.seq > scenarios[0].after_seq:
        raise LabError(f"{name}: the ring was overrun, the records of the first scenarios are gone")
    return Recording(
        machine=name,
        release=booted[1].decode(),
        kmsg=records[1],
        scenarios=scenarios,
        panic=ran.console.partition(b"@@PANIC\n")[2],
        seconds=ran.seconds,
    )


def _initramfs(system: Path, helper: Path, directory: Path) -> Path:
    root = directory / "root"
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    busybox = next(path for path in (system / "usr/bin/busybox", system / "bin/busybox") if path.exists())
    shutil.copy(busybox, root / "bin/busybox")
    shutil.copy(helper, root / "bin/labbox")
    shutil.copy(HERE / "init.sh", root / "init")
    (root / "init").chmod(0o755)
    archive = directory / "initramfs"
    command("sh", "-c", 'cd "$0" && find . | cpio --quiet -o -H newc > "$1"', root, archive)
    return archive


def compare(recording: Recording) -> list[Compared]:
    """Each scenario's count against the reports in its part of the log."""
    reports = _reports(recording.kmsg)
    ends = [*(scenario.after_seq for scenario in recording.scenarios[1:]), None]
    compared = []
    for scenario, end in zip(recording.scenarios, ends, strict=True):
        found = [
            report for seq, report in reports if seq > scenario.after_seq and (end is None or seq <= end)
        ]
        compared.append(
            Compared(
                scenario,
                kills=sum(report.kills for report in found),
                reports=len(found),
                undecoded=sum(len(report.undecoded) for report in found),
            )
        )
    return compared


def panics(recording: Recording) -> int:
    """How many reports of a panic are found in the console's text of it."""
    reader = TextReader()
    assembler = Assembler(early=False)
    items = [*reader.feed(recording.panic), *reader.flush()]
    signals = [signal for item in items for signal in assembler.feed(item)]
    blocks = [s for s in (*signals, *assembler.flush()) if isinstance(s, OomBlock)]
    return sum(decode(block.records).kind == "oom_panic" for block in blocks)


def _reports(kmsg: bytes) -> list[tuple[int, OomReport]]:
    """Raw records -> the reports with the sequence number of their first record."""
    assembler = Assembler(early=False)
    # a line that begins with a blank belongs to the record's dictionary
    records = [parse_record(line) for line in kmsg.split(b"\n") if not line.startswith(b" ")]
    signals = [s for r in records if isinstance(r, KmsgRecord) for s in assembler.feed(r)]
    return [
        (block.records[0].seq or 0, decode(block.records, lost_records=block.lost_records))
        for block in (*signals, *assembler.flush())
        if isinstance(block, OomBlock)
    ]
