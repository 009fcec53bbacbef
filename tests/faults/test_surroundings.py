"""The surroundings of a daemon: limits, permissions, mounts, numbers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.attacked import Attacked, attacked
from tests.faults.tried import tried
from tests.kernel.running import command

NOBODY = 65534
#: Python that gives up root, for root has no limit on processes, and takes one of so many
AS_NOBODY = (
    "import os, resource; resource.setrlimit(resource.RLIMIT_NPROC, ({0}, {0}))\n"
    "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6])
def test_too_few_processes_are_said_with_the_mend(tmp_path: Path, limit: int) -> None:
    """RLIMIT_NPROC counts threads of the user; others of nobody only bring it nearer."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent != Path("/") and not parent.stat().st_mode & 1:
            parent.chmod(parent.stat().st_mode | 0o11)
    with attacked(tmp_path / "one") as one:
        one.directory.chmod(0o777)
        one.config.chmod(0o644)
        one.run(AS_NOBODY.format(limit))
        one.until(lambda: one.process.poll() is not None or "watching since" in one.said(), 60)
        if one.process.poll() is None:
            one.report(7000)
            one.until(lambda: one.told_of(7000))
            assert one.stop() == 0
            return
        assert one.process.returncode == 69
        assert [line for line in one.said().splitlines() if "raise the limit on tasks" in line]
        assert "Traceback" not in one.said()


def test_a_store_that_is_mounted_read_only_and_back(tmp_path: Path) -> None:
    """In a mount namespace of its own, on a tmpfs that is remounted while it runs."""
    state = tmp_path / "state"
    state.mkdir()
    with attacked(tmp_path) as one:
        one.begin(_with_tmpfs(state, "size=64m"))
        one.report(7000)
        one.until(lambda: one.told_of(7000))

        def remount(how: str) -> None:
            subprocess.run([*inside(one), "mount", "-o", f"remount,{how},size=64m", str(state)], check=False)

        remount("ro")  # EBUSY while a file is open for writing: then it stays as it is
        one.report(7100, "/b")
        one.until(lambda: one.told_of(7100), 10)
        subprocess.run(
            [*inside(one), "mount", "--bind", "-o", "ro", state, state],
            check=True,
        )
        one.report(7200, "/c")
        one.until(lambda: one.told_of(7200), 10)
        assert one.kills == 3
        assert one.stop() == 0


def test_a_disk_that_is_full_within_the_write_ahead_log(tmp_path: Path) -> None:
    """There is room for the file, but not for the log of its transactions; later there is room."""
    state = tmp_path / "state"
    state.mkdir()
    with attacked(tmp_path) as one:
        one.begin(_with_tmpfs(state, "size=64m"))
        root = Path(f"/proc/{one.process.pid}/root")
        free = root / str(state).lstrip("/") / "filler"
        one.report(7000)
        one.until(lambda: one.told_of(7000))
        with pytest.raises(OSError, match="No space"), free.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        for n in range(1, 6):
            one.report(7000 + 100 * n, f"/a{n}", rows=500)
            one.until(lambda n=n: one.told_of(7000 + 100 * n), 10)  # type: ignore[misc]
        one.until(lambda: one.metric("oomwatchd_store_up") == 0, 5)
        assert "No space" in one.said() or "full" in one.said()
        free.unlink()
        one.report(7900, "/last")
        one.until(lambda: one.metric("oomwatchd_store_up") == 1, 30)
        assert one.kills == 7
        assert listed(one) == 7
        assert one.stop() == 0


def inside(one: Attacked) -> list[str]:
    """The prefix of a command that must see the daemon's mounts."""
    return ["nsenter", "--mount", f"--target={one.process.pid}"]


def listed(one: Attacked) -> int:
    """Events in a store that only the daemon's mount namespace shows."""
    done = subprocess.run(
        [*inside(one), *command("events", "list", "--config", str(one.config), "--json")],
        capture_output=True,
        check=True,
    )
    return len(json.loads(done.stdout))


def _with_tmpfs(directory: Path, options: str) -> str:
    """Python that has its process see a tmpfs of its own there."""
    return (
        "import ctypes, os, subprocess\n"
        "assert ctypes.CDLL(None, use_errno=True).unshare(0x00020000) == 0\n"
        "subprocess.run(['mount', '--make-rprivate', '/'], check=True)\n"
        f"mount = ['mount', '-t', 'tmpfs', '-o', {options!r}, 'none', {str(directory)!r}]\n"
        "subprocess.run(mount, check=True)\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("processes", 500), ("cgroups", 500), ("uevents", 2000), ("uninterruptible", 5)]
)
def test_many_of_them_hold_up_no_report(tmp_path: Path, name: str, count: int) -> None:
    result = tried(tmp_path, name, count, 10.0, reports=2)
    assert result.made > count // 2
    assert result.slowest_seconds < 10
    assert result.resident_bytes < 64 << 20
