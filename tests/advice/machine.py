"""Scenarios in a machine under QEMU: cgroup v2, a kernel of Debian's, the program as its unit has it.

A machine of one kind boots once. When the daemon is ready its state is saved, and each scenario begins with
that state: the scenario comes on a disk, what happens goes to the serial lines.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from tests.advice.run import Order, Ran, ran, script
from tests.vm.lab import COMPILERS, PC, ROOT, LabError, command, debootstrap, locked, once

HERE = Path(__file__).resolve().parent
#: what the program depends on (pyproject.toml), as Debian 13 calls it
PYTHON = (
    *("python3", "python3-psutil", "python3-pyudev", "python3-systemd", "python3-prometheus-client"),
    *("python3-msgspec", "python3-rich", "python3-jinja2", "python3-yaml", "python3-bcrypt"),
    *("python3-urllib3", "python3-zstandard"),
)
_UNUSED = ("doc", "locale", "man", "info")
FIRST = (
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
)
LATER = (
    *("virtio_balloon", "zsmalloc", "lzo", "lzo-rle", "zram", "brd"),
    *("libcrc32c", "nf_defrag_ipv4", "nf_defrag_ipv6", "nf_conntrack", "nfnetlink", "nf_tables"),
)
_BOOT_SECONDS = 600
#: How much longer than on a processor of its own a machine may take.
_CROWDED = 6


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """What all machines are made of."""

    kernel: Path
    initramfs: Path
    #: Debian's Python and the program's libraries; the program
    userland: Path
    program: Path
    scratch: Path


#: a kernel for each processor: that of tests/vm/kernels.py
KERNELS = {"amd64": "linux-image-cloud-amd64", "i386": "linux-image-686-pae"}


def prepare(
    cache: Path, scratch: Path, *, suite: str, live: bool, arch: str = "amd64", driver: bool = True
) -> Lab:
    """Everything that is not made yet. Only amd64 has the daemon and the driver. Raises LabError."""
    scratch.mkdir(exist_ok=True)
    driver = driver and arch == "amd64"
    system = once(
        cache / f"kernel-{suite}-{arch}",
        lambda to: debootstrap(suite, to, (KERNELS[arch], "busybox-static"), "extract", arch=arch),
    )
    userland = program = scratch / "empty"
    userland.write_bytes(bytes(1 << 20))
    live = live and arch == "amd64"
    if live:
        base, userland = _userland(cache)
        program = _program(base, scratch)
    kernel = next((system / "boot").glob("vmlinuz-*"))
    return Lab(
        kernel=kernel,
        initramfs=_initramfs(system, suite, arch, kernel.name, cache, scratch, live=live, driver=driver),
        userland=userland,
        program=program,
        scratch=scratch,
    )


def causes(cache: Path, arch: str = "amd64") -> Path:
    """The static helper."""
    source = HERE / "causes.c"
    return once(
        cache / f"causes-{arch}",
        lambda to: command(COMPILERS[arch], "-O1", "-Wall", "-static", "-pthread", source, "-o", to),
        of=(source.read_text(),),
    )


def _driver(suite: str, release: str, cache: Path) -> Path:
    """The kernel module, built in a Debian of its kernel's."""
    tools = once(
        cache / f"advice-build-{suite}",
        lambda to: debootstrap(suite, to, ("linux-headers-cloud-amd64", "make"), "apt"),
    )
    sources = [HERE / "driver" / name for name in ("Kbuild", "oomlab.c")]

    def build(to: Path) -> None:
        with tempfile.TemporaryDirectory(dir=tools / "tmp") as directory:
            for source in sources:
                shutil.copy(source, directory)
            inside = f"/tmp/{Path(directory).name}"  # noqa: S108 -- of the chroot
            command(
                "chroot",
                tools,
                "make",
                "-s",
                "-C",
                f"/usr/src/linux-headers-{release}",
                f"M={inside}",
                "modules",
            )
            command("strip", "--strip-debug", f"{directory}/oomlab.ko", "-o", to)

    return once(cache / f"oomlab-{release}.ko", build, of=[s.read_text() for s in sources])


def _userland(cache: Path) -> tuple[Path, Path]:
    base = once(
        cache / "advice-userland-trixie",
        lambda to: debootstrap(
            "trixie", to, PYTHON, "apt", *(f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in _UNUSED)
        ),
    )
    image = once(
        cache / "advice-userland-trixie.img",
        lambda to: command("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", base, to, "900M"),
    )
    return base, image


def _program(base: Path, scratch: Path) -> Path:
    """The working tree's package, compiled ahead: nothing is written in the machine."""
    tree, image = scratch / "program", scratch / "program.img"
    shutil.copytree(ROOT / "oomwatchd", tree / "oomwatchd", ignore=shutil.ignore_patterns("__pycache__"))
    with locked(base):
        target = base / "mnt"
        command("mount", "--bind", tree, target)
        try:
            command("chroot", base, "python3", "-m", "compileall", "-q", "/mnt")
        finally:
            command("umount", target)
    command("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, image, "24M")
    return image


def _initramfs(
    system: Path,
    suite: str,
    arch: str,
    kernel: str,
    cache: Path,
    scratch: Path,
    *,
    live: bool,
    driver: bool,
) -> Path:
    root = scratch / "initramfs"
    for directory in ("bin", "modules", "proc", "sys", "dev"):
        (root / directory).mkdir(parents=True)
    shutil.copy(
        system / "usr/bin/busybox" if (system / "usr/bin/busybox").exists() else system / "bin/busybox",
        root / "bin/busybox",
    )
    shutil.copy(causes(cache, arch), root / "bin/causes")
    if driver:
        built = _driver(suite, kernel.removeprefix("vmlinuz-"), cache)
        shutil.copy(built, root / "modules/oomlab.ko")
    present = {p.name.partition(".")[0]: p for p in system.glob("lib/modules/*/kernel/**/*.ko*")}
    present |= {p.name.partition(".")[0]: p for p in system.glob("usr/lib/modules/*/kernel/**/*.ko*")}
    for name in (*FIRST, *LATER):
        if name in present:
            data = present[name].read_bytes()
            (root / f"modules/{name}.ko").write_bytes(
                lzma.decompress(data) if present[name].suffix == ".xz" else data
            )
    (root / "modules/first").write_text("\n".join(name for name in FIRST if name in present))
    for name in ("init.sh", "common.sh"):
        shutil.copy(HERE / name, root / name)
    (root / "init.sh").rename(root / "init")
    (root / "init").chmod(0o755)
    if live:
        (root / "program").touch()
    command(
        "sh", "-c", f"cd {root} && find . | cpio -o -H newc 2>/dev/null | gzip -1 > {scratch}/initramfs.gz"
    )
    return scratch / "initramfs.gz"


# ---- running


def run(lab: Lab, order: Order) -> Ran:
    """Run one scenario in a machine that is ready. Raises LabError if no machine becomes ready."""
    state = _ready(lab, order)
    with tempfile.TemporaryDirectory(dir=lab.scratch) as directory:
        here = Path(directory)
        throttle = order.env.get("THROTTLE")
        words = _words(lab, order, here, f",throttling.bps-write={throttle}" if throttle else "")
        text = script(order).encode()
        (here / "scenario").write_bytes(text + bytes((1 << 20) - len(text)))
        with _running([*words, "-incoming", f"exec:cat {state}"], here) as (machine, qmp):
            _resume(qmp, here)
            began, inflated = time.monotonic(), False
            while machine.poll() is None and not _over(machine.pid, order.seconds, began):
                if "BALLOON" in order.env and not inflated and "@@BALLOON" in _console(here):
                    inflated = True
                    qmp("balloon", value=int(order.env["BALLOON"]) << 20)
                time.sleep(0.1)
            timed_out = machine.poll() is None
        live = (here / "events").read_text(errors="replace").splitlines()
        return ran(_console(here), (here / "kmsg").read_bytes(), live, timed_out=timed_out)


def _over(pid: int, seconds: int, began: float) -> bool:
    """Whether a machine had its time: of the processor, which it shares, or much more by the clock."""
    with suppress(OSError):
        spent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if sum(map(int, spent[11:13])) / os.sysconf("SC_CLK_TCK") > seconds:
            return True
    return time.monotonic() - began > _CROWDED * seconds


def _resume(qmp: _Qmp, here: Path) -> None:
    """A machine that was stopped when its state was saved is also stopped when the state is restored."""
    deadline = time.monotonic() + _BOOT_SECONDS
    while not (here / "qmp").exists() or qmp("query-status")["status"] == "inmigrate":
        if time.monotonic() > deadline:
            raise LabError(f"the saved state cannot be read: {(here / 'qemu').read_text()[-500:]}")
        time.sleep(0.1)
    qmp("cont")


def _ready(lab: Lab, order: Order) -> Path:
    """The saved state of a machine of this kind."""
    kind = json.dumps([order.memory, order.append, order.devices])
    state = lab.scratch / f"state-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
    with locked(state):
        if not state.exists():
            _boot(lab, order, state)
    return state


def _boot(lab: Lab, order: Order, state: Path) -> None:
    with tempfile.TemporaryDirectory(dir=lab.scratch) as directory:
        here = Path(directory)
        (here / "scenario").write_bytes(bytes(1 << 20))
        with _running(_words(lab, order, here, ""), here) as (machine, qmp):
            deadline = time.monotonic() + _BOOT_SECONDS
            while "@@READY" not in _console(here):
                if machine.poll() is not None or time.monotonic() > deadline:
                    said = (here / "qemu").read_text(errors="replace")
                    raise LabError(f"the machine was not ready:\n{_console(here)[-1500:]}{said[-500:]}")
                time.sleep(0.2)
            if "@@NO DAEMON" in _console(here):
                raise LabError(f"the daemon does not start there:\n{_console(here)[-1500:]}")
            time.sleep(3)  # it has come to rest
            qmp("stop")
            qmp("migrate", uri=f"exec:cat > {state}.partial")
            while qmp("query-migrate").get("status") not in ("completed", "failed"):
                time.sleep(0.2)
            qmp("quit")
    Path(f"{state}.partial").rename(state)


def _words(lab: Lab, order: Order, here: Path, throttle: str) -> list[str]:
    command("truncate", "-s", "640M", here / "disk")
    drives = (
        f"file={lab.userland},format=raw,if=virtio,readonly=on",
        f"file={lab.program},format=raw,if=virtio,readonly=on",
        f"file={here}/disk,format=raw,if=virtio,cache=unsafe{throttle}",
        f"file={here}/scenario,format=raw,if=virtio,readonly=on",
    )
    return [
        *(*PC, "-accel", "tcg", "-m", str(order.memory), "-nic", "none", "-display", "none", "-no-reboot"),
        *order.devices,
        *(word for drive in drives for word in ("-drive", drive)),
        *(word for name in ("console", "kmsg", "events") for word in ("-serial", f"file:{here}/{name}")),
        *("-qmp", f"unix:{here}/qmp,server=on,wait=off"),
        *("-kernel", str(lab.kernel), "-initrd", str(lab.initramfs)),
        *("-append", f"console=ttyS0 quiet panic=1 log_buf_len=4M {order.append}".rstrip()),
    ]


class _Qmp:
    """Commands to a machine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def __call__(self, name: str, **arguments: object) -> dict[str, object]:
        if self._socket is None:
            self._socket = self._connected()
            self._stream = self._socket.makefile("rw")
            self._stream.readline()
            self("qmp_capabilities")
        self._stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline() or '{"error": "the machine has ended"}')
            if "error" in answer:
                raise LabError(f"{name}: {answer['error']}")
            if "return" in answer:
                return dict(answer["return"])

    def _connected(self) -> socket.socket:
        """The file is there a moment before somebody listens."""
        for _ in range(100):
            opened = socket.socket(socket.AF_UNIX)
            opened.settimeout(20)
            try:
                opened.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                opened.close()
                time.sleep(0.1)
            else:
                return opened
        raise LabError("the machine does not answer")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


@contextmanager
def _running(words: list[str], here: Path) -> Iterator[tuple[subprocess.Popen[bytes], _Qmp]]:
    for name in ("console", "kmsg", "events"):
        (here / name).touch()
    qmp = _Qmp(here / "qmp")
    with (here / "qemu").open("wb") as said:
        try:
            machine = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        except FileNotFoundError as error:
            raise LabError(f"{words[0]} is not installed; docs/vm-lab.md names the package") from error
        with machine:
            try:
                yield machine, qmp
            finally:
                qmp.close()
                machine.kill()


def _console(here: Path) -> str:
    return (here / "console").read_bytes().decode(errors="replace").replace("\r\n", "\n")
