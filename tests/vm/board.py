"""A board with BusyBox alone runs out of memory. Its serial console and its netconsole are followed from here
while it does; what they tell is compared with its own /dev/kmsg."""

from __future__ import annotations

import gzip
import lzma
import re
import select
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

from oomwatchd.config import FollowSection
from oomwatchd.event import OomEvent, conclude
from oomwatchd.follow.address import place_of
from oomwatchd.follow.follower import Follower
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import parse_record
from oomwatchd.reports.captures import captures_of
from tests.vm.kernels import MACHINES, Machine, unpacked
from tests.vm.lab import HERE, LabError, command

#: the network card that QEMU's machine has, by the module that drives it
_CARDS = {
    "amd64": ("virtio_net", "virtio-net-pci"),
    "mipsel": ("pcnet32", "pcnet"),
    "armhf": ("virtio_net", "virtio-net-device"),
}
_MEMORY_MIB = {"mipsel": 64, "armhf": 128, "amd64": 96}


class Told(msgspec.Struct, kw_only=True):
    """What one boot gave: the events as followed, and those of the board's own records."""

    machine: str
    kernel_kills: int
    own: list[OomEvent] = []
    serial: list[OomEvent] = []
    netconsole: list[OomEvent] = []
    #: seconds from the last byte of a report's text until it was told
    slowest: float = 0.0
    #: records that netconsole's sequence numbers show as missing
    lost: int = 0
    seconds: float = 0.0


def run(name: str, cache: Path, seconds: float, *, extended: bool = True) -> Told:
    """Boot a machine of ``kernels.MACHINES`` as a board. Raises LabError."""
    machine = MACHINES[name]
    system, kernel = unpacked(machine, cache)
    with tempfile.TemporaryDirectory(prefix="oomwatchd-board-") as scratch:
        directory = Path(scratch)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        second = machine.console[:-1] + "1"
        script = (HERE / "board.sh").read_text().replace("@SECOND@", second).replace("@PORT@", str(port))
        script = script.replace("@PLUS@", "+" if extended else "")
        initramfs = _initramfs(system, script, machine.arch, directory)
        return _followed(name, machine, [str(kernel), str(initramfs)], directory, port, seconds)


def _followed(
    name: str, machine: Machine, images: list[str], directory: Path, port: int, seconds: float
) -> Told:
    qemu = list(machine.qemu)
    if "-m" in qemu:
        at = qemu.index("-m")
        del qemu[at:]
    results = directory / "results"
    words = [
        *qemu,
        *("-m", str(_MEMORY_MIB[machine.arch]), "-kernel", images[0], "-initrd", images[1], "-no-reboot"),
        *("-append", f"console={machine.console},115200 loglevel=8 panic=1 log_buf_len=1M"),
        *("-accel", "tcg", "-display", "none", "-serial", "pty", "-serial", f"file:{results}"),
        *("-netdev", "user,id=n", "-device", f"{_CARDS[machine.arch][1]},netdev=n"),
    ]
    told = Told(machine=name, kernel_kills=0)
    began = time.monotonic()
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as board:
        try:
            line = _pty_of(board)
            found: list[tuple[float, OomCapture]] = []
            last: dict[str, float] = {}

            def take(capture: OomCapture) -> bool:
                followed = capture.source.followed
                assert followed is not None
                waited = time.monotonic() - last.get(followed.name, time.monotonic())
                told.slowest = max(told.slowest, waited)
                found.append((waited, capture))
                return True

            def came(host: str, _: bytes) -> None:
                last[host] = time.monotonic()

            sections = [
                FollowSection(source=f"serial:{line}@115200", name="serial"),
                FollowSection(source=f"netconsole:127.0.0.1:{port}", hosts={"127.0.0.1": "netconsole"}),
            ]
            follower = Follower([place_of(one) for one in sections], take, say=lambda _: None, raw=came)
            follower.open(strict=True)
            while board.poll() is None:
                follower.turn(0.2)
                if time.monotonic() - began > seconds:
                    raise LabError(f"{name}: not ended after {seconds:.0f} s")
            follower.finish()
            told.lost = follower.dropped().get(("netconsole", "lost"), 0)
            follower.close()
        finally:
            board.kill()
    told.seconds = time.monotonic() - began
    for _, capture in found:
        event = conclude(capture).event
        assert event.host is not None
        (told.serial if event.host.name == "serial" else told.netconsole).append(event)
    written = results.read_bytes().replace(b"\r\n", b"\n") if results.exists() else b""
    records = [record for one in written.split(b"\n") if (record := parse_record(one)) is not None]
    own = (record for record in records if record.facility == 0)
    told.own = [conclude(one).event for one in captures_of(own, Source(kind="file", form="kmsg"))]
    count = re.search(rb"@@KILLS oom_kill (\d+)", written)
    if count is None:
        raise LabError(f"{name}: the board said no count; its second line ends with {written[-500:]!r}")
    told.kernel_kills = int(count[1])
    return told


def _pty_of(board: subprocess.Popen[bytes]) -> str:
    """Where QEMU says that its first serial line is."""
    assert board.stdout is not None
    said = b""
    while select.select([board.stdout], [], [], 30)[0] and (part := board.stdout.read1(4096)):  # type: ignore[attr-defined]
        said += part
        match = re.search(rb"redirected to (/dev/pts/\d+)", said)
        if match is not None:
            return match[1].decode()
    raise LabError(f"QEMU did not start: {said.decode(errors='replace')}")


def _initramfs(system: Path, script: str, arch: str, directory: Path) -> Path:
    root = directory / "root"
    for name in ("bin", "dev", "proc", "sys", "tmp", "lib"):
        (root / name).mkdir(parents=True)
    busybox = next(path for path in (system / "usr/bin/busybox", system / "bin/busybox") if path.exists())
    shutil.copy(busybox, root / "bin/busybox")
    (root / "init").write_text(script)
    (root / "init").chmod(0o755)
    wanted = with_needed(
        system,
        [
            _CARDS[arch][0],
            *(["virtio_mmio"] if arch == "armhf" else []),
            *(["virtio_pci"] if arch == "amd64" else []),
            "netconsole",
        ],
    )
    names = []
    for path in wanted:
        name = re.sub(r"\.ko.*", ".ko", path.name)
        data = path.read_bytes()
        if path.suffix == ".xz":
            data = lzma.decompress(data)
        elif path.suffix == ".gz":
            data = gzip.decompress(data)
        (root / "lib" / name).write_bytes(data)
        names.append(name)
    (root / "modules").write_text("\n".join(name for name in names if name != "netconsole.ko") + "\n")
    archive = directory / "initramfs"
    command("sh", "-c", 'cd "$0" && find . | cpio --quiet -o -H newc > "$1"', root, archive)
    return archive


def with_needed(system: Path, names: list[str]) -> list[Path]:
    """Modules with those that they need, in the order in which they are to be loaded; one that is not there
    is built in."""
    modules = next(iter(sorted([*system.glob("lib/modules/*"), *system.glob("usr/lib/modules/*")])))
    files = {re.sub(r"\.ko.*", "", path.name): path for path in modules.rglob("*.ko*")}
    order: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name) or files.get(name.replace("_", "-"))
        if path is None or path in order:
            return
        data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        match = re.search(rb"\0?depends=([^\0]*)\0", data)
        for needed in match[1].decode().split(",") if match else ():
            if needed:
                add(needed)
        order.append(path)

    for name in names:
        add(name)
    return order
