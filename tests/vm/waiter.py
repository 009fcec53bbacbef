"""packaging/ondemand/oomwatchd-ondemand on a real kernel with BusyBox alone: its cost, and when it wakes."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from tests.vm.kernels import MACHINES, unpacked
from tests.vm.lab import HERE, ROOT, LabError, boot, command


def run(name: str, cache: Path, seconds: float, memory_mib: int) -> dict[str, str]:
    """What the machine said, by part. Raises LabError."""
    machine = MACHINES[name]
    system, kernel = unpacked(machine, cache)
    with tempfile.TemporaryDirectory(prefix="oomwatchd-waiter-") as scratch:
        directory = Path(scratch)
        root = directory / "root"
        for part in ("bin", "dev", "proc", "sys", "tmp"):
            (root / part).mkdir(parents=True)
        busybox = next(path for path in (system / "usr/bin/busybox", system / "bin/busybox") if path.exists())
        shutil.copy(busybox, root / "bin/busybox")
        shutil.copy(ROOT / "packaging/ondemand/oomwatchd-ondemand", root / "bin")
        second = machine.console[:-1] + "1"
        (root / "init").write_text((HERE / "waiter.sh").read_text().replace("@SECOND@", second))
        (root / "init").chmod(0o755)
        archive = directory / "initramfs"
        command("sh", "-c", 'cd "$0" && find . | cpio --quiet -o -H newc > "$1"', root, archive)
        qemu = list(machine.qemu)
        del qemu[qemu.index("-m") :]
        ran = boot(
            [
                *qemu,
                *("-m", str(memory_mib), "-kernel", str(kernel), "-initrd", str(archive), "-no-reboot"),
                *("-append", f"console={machine.console} quiet panic=1"),
            ],
            directory,
            seconds,
        )
    text = ran.results.decode(errors="replace")
    if "@@END" not in text:
        end = ran.console[-600:].decode(errors="replace")
        raise LabError(f"{name}, {memory_mib} MiB: not to its end: {text[-600:]}\nconsole: {end}")
    return dict(re.findall(r"^@@(\w+) ?((?:(?!@@).*\n?)*)", text, re.M))
