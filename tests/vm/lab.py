"""What both kinds of machine need: a cache, packages of Debian's archive, the static helper, QEMU."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMPILERS = {
    "amd64": "x86_64-linux-gnu-gcc",
    "i386": "i686-linux-gnu-gcc",
    "armhf": "arm-linux-gnueabihf-gcc",
    "arm64": "aarch64-linux-gnu-gcc",
    "mipsel": "mipsel-linux-gnu-gcc",
}
#: a PC as every lab's machine has it. One processor: emulating two is not reliable. Without cmpxchg16b: QEMU
#: 7.2 spoils the flags when it emulates that, and the kernel's allocator (mm/slub.c) crashes on them sooner
#: or later; the kernel has another way where the processor lacks it.
PC = ("qemu-system-x86_64", "-cpu", "qemu64,-cx16", "-smp", "1")


class LabError(Exception):
    """The lab itself does not work; what it says is for the person who runs it."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine wrote while it ran: its console and, where it has one, its second serial line."""

    console: bytes
    results: bytes
    seconds: float
    timed_out: bool


def cache_directory() -> Path:
    """Where downloads and images stay: $XDG_CACHE_HOME/oomwatchd, by default ~/.cache/oomwatchd."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oomwatchd"


def command(*words: str | Path) -> str:
    """Run a command to its end; its output. Raises LabError with the end of what it said."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed; docs/vm-lab.md names the package") from error
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise LabError(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{said}")
    return done.stdout


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One thread of one process at a time, for what is made at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def once(path: Path, make: Callable[[Path], object], *, of: Sequence[str] = ()) -> Path:
    """``path``, made by ``make`` if it is not there; it appears whole or not at all, and once, however many
    threads and processes ask for it at a time. What it is made of becomes part of its name."""
    if of:
        digest = hashlib.sha256("\0".join(of).encode()).hexdigest()[:8]
        path = path.with_name(f"{path.stem}-{digest}{path.suffix}")
    with locked(path):
        if not path.exists():
            partial = path.with_name(f"{path.name}.partial")
            if partial.is_dir():
                shutil.rmtree(partial)
            partial.unlink(missing_ok=True)
            make(partial)
            partial.replace(path)
    return path


def debootstrap(
    suite: str, target: Path, packages: Sequence[str], variant: str, *options: str, arch: str = "amd64"
) -> None:
    """A Debian of these packages, only from the archive's own release. So an outdated mirror also works, and
    every run has the same packages until the next point release."""
    command(
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        f"--variant={variant}",
        f"--architectures={arch}",
        f"--include={','.join(packages)}",
        '--aptopt=Acquire::Check-Valid-Until "false"',
        '--aptopt=Acquire::Retries "3"',
        r'--setup-hook=sed -i "/security\|-updates/d" "$1/etc/apt/sources.list"',
        *options,
        suite,
        target,
    )


def labbox(arch: str, cache: Path) -> Path:
    """The static helper, compiled for ``arch``."""
    source = HERE / "labbox.c"
    return once(
        cache / f"labbox-{arch}",
        lambda to: command(COMPILERS[arch], "-O1", "-static", "-pthread", source, "-o", to),
        of=(source.read_text(),),
    )


def boot(
    qemu: Sequence[str | Path],
    directory: Path,
    seconds: float,
    cut: Callable[[bytes], bool] | None = None,
) -> Ran:
    """Run a machine until it powers off, at most ``seconds``, or until ``cut``, which is told over and over
    what is on the second serial line, says that it loses its power. ``directory`` takes what it writes."""
    console, results = directory / "console", directory / "results"
    serial = ("-serial", f"file:{console}", "-serial", f"file:{results}")
    words = [*qemu, "-accel", "tcg", "-nic", "none", "-display", "none", *serial]
    began = time.monotonic()
    timed_out = False
    with (directory / "qemu").open("wb") as said:
        try:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        except FileNotFoundError as error:
            raise LabError(f"{words[0]} is not installed; docs/vm-lab.md names the package") from error
        with process:
            try:
                while process.poll() is None:
                    timed_out = time.monotonic() - began > seconds
                    if timed_out or (cut is not None and cut(_read(results))):
                        break
                    time.sleep(0.05)
            finally:
                killed = process.poll() is None
                process.kill()
    if process.returncode and not killed:
        raise LabError(f"{words[0]}: {(directory / 'qemu').read_text(errors='replace')[-1000:]}")
    return Ran(
        console=_read(console), results=_read(results), seconds=time.monotonic() - began, timed_out=timed_out
    )


def _read(written: Path) -> bytes:
    return written.read_bytes().replace(b"\r\n", b"\n") if written.exists() else b""
