"""A whole Debian 13 with the built package, which runs one of the scripts beside this file."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from oomwatchd.event import OomEvent, conclude
from oomwatchd.store import FILE_NAME, Store
from tests.readme import system_configuration, system_script
from tests.vm.lab import HERE, PC, ROOT, LabError, boot, command, debootstrap, labbox, locked, once

SUITE = "trixie"
#: what the system has besides the package and what that depends on
PACKAGES = (
    *("systemd-sysv", "systemd-oomd", "dbus", "udev", "kmod", "linux-image-cloud-amd64", "initramfs-tools"),
    *("curl", "podman", "crun", "busybox-static"),
)
#: the memory that ramoops keeps over a restart
RAMOOPS_MIB = 1
#: for images: several GB, which /tmp need not have
SCRATCH = Path("/var/tmp")  # noqa: S108 -- temporary directories are made in it

_HOOKS = (
    # a small initrd, for a small machine
    '--setup-hook=mkdir -p "$1/usr/share/initramfs-tools/modules.d" "$1/etc/initramfs-tools/conf.d"',
    '--setup-hook=printf "virtio_blk\\nramoops\\n" > "$1/usr/share/initramfs-tools/modules.d/lab"',
    '--setup-hook=echo MODULES=list > "$1/etc/initramfs-tools/conf.d/lab"',
    # the lab starts it where it is wanted
    '--customize-hook=chroot "$1" systemctl disable systemd-oomd.service systemd-oomd.socket',
)
_UNIT = """\
[Unit]
Description=What the lab does in this machine
After=multi-user.target
[Service]
Type=exec
ExecStart=/bin/sh /lab/start.sh {idle}
OOMScoreAdjust=-1000
OOMPolicy=continue
[Install]
WantedBy=multi-user.target
"""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine said of itself: ``parts`` by name, as text."""

    memory_mib: int
    parts: dict[str, str]
    seconds: float
    console: str

    def one(self, name: str) -> str:
        """A part without blanks around it. Raises LabError if the machine did not come so far."""
        if name not in self.parts:
            raise LabError(
                f"the machine did not come to {name!r}, only to {list(self.parts)}; after"
                f" {self.seconds:.0f} s its console ends with:\n{self.console[-3000:]}"
            )
        return self.parts[name].strip()

    def json(self, name: str) -> Any:
        return json.loads(self.one(name))

    def json_lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.one(name).splitlines()]

    def kib(self, name: str) -> dict[str, int]:
        """A memory part: each figure in KiB."""
        figures = dict(line.split(":", 1) for line in self.one(name).splitlines())
        return {
            key: int(value.split()[0]) // (1 if "kB" in value else 1024) for key, value in figures.items()
        }

    def metric(self, name: str, part: str = "metrics") -> float:
        """The sum of a metric's series."""
        series = (line.rpartition(" ") for line in self.one(part).splitlines())
        found = [float(value) for key, _, value in series if key.partition("{")[0] == name]
        if not found:
            raise LabError(f"there is no metric {name}")
        return sum(found)


def package(cache: Path, directory: Path) -> Path:
    """Build the Debian package from the working tree, into ``directory``; once of the same files."""
    listed = command("git", "-C", ROOT, "-c", f"safe.directory={ROOT}", *_LISTED).split("\0")
    files = [name for name in listed if not name.startswith("tests/") and (ROOT / name).is_file()]
    content = [f"{name} {hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}" for name in files]

    def build(to: Path) -> None:
        command("env", f"OOMWATCHD_CACHE={cache}", "sh", ROOT / "packaging/debian/build.sh", to)

    made = once(cache / "package", build, of=sorted(content))
    return Path(shutil.copy(next(made.glob("oomwatchd_*_all.deb")), directory))


_LISTED = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")


def install(deb: Path, cache: Path, directory: Path, *, idle: int = 0) -> Path:
    """An image of a system with ``deb`` installed by apt; kernel and initrd lie beside it."""
    base = once(
        cache / f"full-{SUITE}.tar",
        lambda to: debootstrap(SUITE, to, PACKAGES, "minbase", "--format=tar", *_HOOKS),
        of=(*PACKAGES, *_HOOKS),
    )
    root = directory / "root"
    root.mkdir()
    command("tar", "-C", root, "--exclude=./dev/*", "-xf", base)
    lab = root / "lab"
    lab.mkdir()
    shutil.copy(deb, lab / "oomwatchd.deb")
    shutil.copy(labbox("amd64", cache), lab / "labbox")
    for file in (*HERE.glob("*.sh"), HERE / "receiver.py"):
        shutil.copy(file, lab)
    (lab / "readme.sh").write_text(system_script())
    (lab / "readme.toml").write_text(system_configuration("http://127.0.0.1:9099/"))
    archives = cache / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    with locked(archives):  # which apt does, too, but without waiting
        command("unshare", "--mount", "--propagation", "private", "sh", "-ec", _INSTALL, root, archives)
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n")
    (root / "etc/hostname").write_text("lab\n")
    (root / "etc/systemd/system/lab.service").write_text(_UNIT.format(idle=idle))
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "lab.service").symlink_to("/etc/systemd/system/lab.service")
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next(root.glob(f"boot/{name}-*")), directory / name)
    image = directory / "root.img"
    command("truncate", "--size=2G", image)
    command("mke2fs", "-q", "-t", "ext4", "-d", root, image)
    shutil.rmtree(root)
    return image


#: apt with the archives of earlier runs; nothing of it stays mounted
_INSTALL = """
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
mount --bind "$1" "$0/var/cache/apt/archives"
cp -L /etc/resolv.conf "$0/etc/resolv.conf"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
chroot "$0" apt-get -q -y -o Acquire::Retries=3 update
chroot "$0" apt-get -q -y -o Acquire::Retries=3 -o APT::Keep-Downloaded-Packages=true \
    -o APT::Sandbox::User=root install --no-install-recommends /lab/oomwatchd.deb
"""


def run(
    image: Path,
    memory_mib: int,
    seconds: float,
    script: str = "guest",
    *,
    kernel: str = "",
    drive: Sequence[str] | None = None,
    cut: Callable[[bytes], bool] | None = None,
) -> Result:
    """Boot the image for ``script``. The image stays as it is, unless ``drive`` says by QEMU's words what is
    the disk; kernel and initrd lie beside the image. ``cut``: see boot()."""
    # neither where the kernel is put nor at the end, where QEMU puts the initrd again at each start
    keep = (memory_mib * 5 // 8) << 20
    size = RAMOOPS_MIB << 20
    line = (
        "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 panic=3"
        f" memmap={size:#x}${keep:#x} ramoops.mem_address={keep:#x} ramoops.mem_size={size:#x}"
        f" ramoops.record_size=0x20000 ramoops.ecc=1 lab.run={script} {kernel}"
    )
    with tempfile.TemporaryDirectory(prefix="oomwatchd-lab-") as scratch:
        ran = boot(
            [
                *(*PC, "-m", str(memory_mib)),
                *("-kernel", image.parent / "vmlinuz", "-initrd", image.parent / "initrd.img"),
                *("-append", line),
                *(drive or ("-snapshot", "-drive", f"file={image},format=raw,if=virtio")),
            ],
            Path(scratch),
            seconds,
            cut,
        )
    parts: dict[str, str] = {}
    for part in ran.results.decode(errors="replace").split("@@")[1:]:
        name, _, text = part.partition("\n")
        parts[name] = text
    return Result(
        memory_mib=memory_mib,
        parts=parts,
        seconds=ran.seconds,
        console=ran.console.decode(errors="replace"),
    )


def writable(image: Path) -> tuple[str, ...]:
    """QEMU's words for a disk that keeps what is written to it."""
    return ("-drive", f"file={image},format=raw,if=virtio")


def copy(image: Path, to: Path) -> Path:
    """Another image of the same content, as sparse as that one."""
    command("cp", "--sparse=always", image, to)
    return to


def events(image: Path, directory: Path) -> list[OomEvent]:
    """The daemon's store, taken off a disk that no machine uses; oldest first. ``directory`` takes it and
    must not exist. Raises LabError if there is none or it is damaged."""
    # as the next mount would: what the file system's journal holds comes first
    done = subprocess.run(["e2fsck", "-fy", image], capture_output=True, text=True, check=False)
    if done.returncode & ~3:
        raise LabError(f"e2fsck: {done.stdout}{done.stderr}")
    directory.mkdir()
    command("debugfs", "-R", f"rdump /var/lib/private/oomwatchd {directory}", image)
    file = directory / "oomwatchd" / FILE_NAME
    if not file.exists():
        raise LabError(f"{image}: no store, only {[*directory.rglob('*')]}")
    with closing(sqlite3.connect(file)) as connection:
        (said,) = connection.execute("PRAGMA integrity_check").fetchone()
    if said != "ok":
        raise LabError(f"the store is damaged: {said}")
    return [conclude(capture).event for capture in Store.open_reader(file.parent).export(None)]
