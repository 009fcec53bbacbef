"""A small board that is no PC and has no systemd, with the real daemon: Debian's Python on Debian's kernel.

Debian 13 has python3-msgspec for arm64 and amd64, none for armhf; of MIPS it has no release any more.
"""

from __future__ import annotations

import json
import lzma
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.vm.board import with_needed
from tests.vm.checks import Claim
from tests.vm.kernels import MACHINES, unpacked
from tests.vm.lab import HERE, ROOT, LabError, boot, command, debootstrap, once

SUITE = "trixie"
PACKAGES = ("python3", "python3-msgspec", "python3-prometheus-client", "busybox-static")
_MODULES = ("virtio_mmio", "virtio_pci", "virtio_blk", "ext4", "crc32c_generic", "libcrc32c")
_DISKS = {"arm64": "virtio-blk-device", "amd64": "virtio-blk-pci"}
_FLASH_MIB = 8

_INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules); do insmod "/lib/$module"; done
tries=0
until [ -b /dev/vdb ] || [ $((tries += 1)) -gt 60 ]; do sleep 1; done
root=/dev/vda flash=/dev/vdb
# the order in which disks are found differs
mount -t ext4 -o ro $root /root
if ! [ -e /root/usr/sbin/small ]; then
    umount /root
    root=/dev/vdb flash=/dev/vda
    mount -t ext4 -o ro $root /root
fi
mount -t tmpfs -o size=8M run /root/run && mkdir /root/run/bin
echo $flash > /root/run/flash
umount /proc /dev
exec switch_root /root /sbin/small
"""
#: compiles for another architecture: modules of the same Python are the same everywhere
_COMPILE = """
mount --bind "$1" "$0/mnt"
chroot "$0" python3 -m compileall -q -j 1 -s /mnt -p / --invalidation-mode unchecked-hash \
    /mnt/usr/lib/python3.13 /mnt/usr/lib/python3 >/dev/null || true
"""


def test(arch: str, memory_mib: int, cache: Path, seconds: float) -> list[Claim]:
    """Boot it and look."""
    said, took = run(arch, memory_mib, cache, seconds)
    return _claims(said, took)


def run(arch: str, memory_mib: int, cache: Path, seconds: float) -> tuple[dict[str, str], float]:
    """What the machine said, by part, and how long it ran. Raises LabError."""
    machine = MACHINES[f"{SUITE}-{arch}"]
    system, kernel = unpacked(machine, cache)
    base = once(
        cache / f"small-{SUITE}-{arch}.tar",
        lambda to: debootstrap(SUITE, to, PACKAGES, "extract", "--format=tar", arch=arch),
        of=PACKAGES,
    )
    builder = cache / f"build-{SUITE}"
    if not (builder / ".complete").exists():
        raise LabError("needs the system in which the package is built: sh packaging/debian/build.sh")
    with tempfile.TemporaryDirectory(prefix="oomwatchd-small-", dir="/var/tmp") as scratch:
        directory = Path(scratch)
        # QEMU's ARM machine has one serial line
        output = machine.console if arch == "arm64" else "ttyS1"
        image, flash = directory / "root.img", directory / "flash.img"
        _root(base, builder, output, directory / "root", image)
        command("truncate", f"--size={_FLASH_MIB}M", flash)
        command("mke2fs", "-q", "-t", "ext4", flash)
        disks: list[str | Path] = []
        for name, file in (("a", image), ("b", flash)):
            disks += ["-drive", f"file={file},format=raw,if=none,id={name}"]
            disks += ["-device", f"{_DISKS[arch]},drive={name}"]
        qemu = list(machine.qemu)
        del qemu[qemu.index("-m") :]
        ran = boot(
            [
                *(*qemu, "-m", str(memory_mib)),
                *("-kernel", kernel, "-initrd", _initramfs(system, directory), "-no-reboot", *disks),
                *("-append", f"console={machine.console} loglevel=1 panic=1"),
            ],
            directory,
            seconds,
        )
    parts: dict[str, str] = {}
    for part in (ran.results or ran.console).decode(errors="replace").split("@@")[1:]:
        name, _, text = part.partition("\n")
        parts[name] = text.strip()
    if "end" not in parts:
        console = ran.console[-2000:].decode(errors="replace")
        raise LabError(f"{arch}, {memory_mib} MiB: only {parts}; the console ends with:\n{console}")
    return parts, ran.seconds


def _root(base: Path, builder: Path, output: str, root: Path, image: Path) -> None:
    root.mkdir()
    command("tar", "-C", root, "--exclude=./dev/*", "--exclude=./usr/share/*", "-xf", base)
    shutil.copytree(
        ROOT / "oomwatchd",
        root / "usr/lib/python3/dist-packages/oomwatchd",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("data", "run", "sys", "proc", "dev", "etc", "usr/libexec", "root", "tmp"):
        (root / name).mkdir(exist_ok=True, parents=True)
    start = root / "usr/bin/oomwatchd"
    start.write_text("#!/usr/bin/python3 -sE\nimport sys\nfrom oomwatchd.cli import main\nsys.exit(main())\n")
    script = root / "usr/sbin/small"
    config = (HERE / "small.toml").read_text()
    config = config.replace("@STATE@", "/data/oomwatchd").replace("@LOG@", "/run/events.jsonl")
    script.write_text((HERE / "small.sh").read_text().replace("@OUTPUT@", output).replace("@CONFIG@", config))
    shutil.copy(ROOT / "packaging/ondemand/oomwatchd-ondemand", root / "usr/libexec")
    for path in (start, script):
        path.chmod(0o755)
    for name, to in (("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")):
        if not (root / name).exists():
            (root / name).symlink_to(to)
    if not (root / "usr/bin/sh").exists():
        (root / "usr/bin/sh").symlink_to("busybox")
    command("unshare", "--mount", "--propagation", "private", "sh", "-ec", _COMPILE, builder, root)
    command("truncate", "--size=256M", image)
    command("mke2fs", "-q", "-t", "ext4", "-d", root, image)


def _initramfs(system: Path, directory: Path) -> Path:
    root = directory / "initramfs"
    for name in ("bin", "dev", "proc", "sys", "lib", "root"):
        (root / name).mkdir(parents=True)
    busybox = next(path for path in (system / "usr/bin/busybox", system / "bin/busybox") if path.exists())
    shutil.copy(busybox, root / "bin/busybox")
    names = []
    for path in with_needed(system, [*_MODULES]):
        data = path.read_bytes()
        name = re.sub(r"\.ko.*", ".ko", path.name)
        (root / "lib" / name).write_bytes(lzma.decompress(data) if path.suffix == ".xz" else data)
        names.append(name)
    (root / "modules").write_text("\n".join(names) + "\n")
    (root / "init").write_text(_INIT)
    (root / "init").chmod(0o755)
    archive = directory / "initramfs.cpio"
    command("sh", "-c", 'cd "$0" && find . | cpio --quiet -o -H newc > "$1"', root, archive)
    return archive


def _figures(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in re.findall(r"([A-Za-z_]+):?\s+(-?\d+)", text)}


def _events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _claims(said: dict[str, str], took: float) -> list[Claim]:
    events = _events(said["resident_events"])
    walls = [event["time"]["wall"][:4] for event in events]
    revisions = [(event["id"], event["revision"]) for event in events]
    kills = {event["id"]: event["kills"] for event in _events(said["events"])}
    told, restarted = _figures(said["resident_told"]), _figures(said["restarted"])
    written, waiting, last = (_figures(said[name]) for name in ("written", "waiting", "all_told"))
    none, ready = _figures(said["none"]), _figures(said["ready"])
    store = int(said["store"].split()[0])
    kill = written["bytes"] // written["kills"]
    kernel = said["kernel"].splitlines()
    return [
        Claim(f"{kernel[0]}, {kernel[1]}, {kernel[2]}, {took:.0f} s", True),
        Claim("the root is read-only", "ead-only" in said["kernel"]),
        Claim(f"resident: {ready['VmRSS']} KiB, anonymous {ready['Anonymous']}", ready["VmRSS"] < 32 << 10),
        Claim(f"resident: all kills are told ({told})", told["lines"] >= told["kernel"] > 12),
        Claim(f"no revision twice ({len(revisions)})", len({*revisions}) == len(revisions) > 12),
        Claim(f"the clock: the first event is of {walls[:1]}, the next of {walls[1:2]}",
              walls[:2] == ["1970", "2026"]),
        Claim(f"a restart tells nothing again ({restarted})", restarted["lines"] == told["lines"]),
        Claim(f"the store takes {store} KiB", store <= 400),
        Claim(f"a kill writes {kill} bytes, a start {written['start']}, 20 s after it {written['idle']}",
              kill < 400_000 and written["idle"] < 100_000),
        Claim(
            f"on demand: waiting takes {none['free'] - waiting['free']} KiB of memory,"
            f" of it {waiting['slab'] - none['slab']} slab",
            True,
        ),
        Claim(f"on demand: all kills are told and counted ({last})", last["told"] == last["kernel"]),
        Claim(f"on demand: {sum(kills.values())} kills in {len(kills)} events", sum(kills.values()) == 13),
    ]  # fmt: skip
