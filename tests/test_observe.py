"""Looking at the host: fake /proc trees for what a host may show, the real one for what it does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oomwatchd.cgroupfs import memory_cgroup
from oomwatchd.observe.host import Host, read_host, read_text
from oomwatchd.observe.process import look_at
from oomwatchd.observe.snapshot import PART_BYTES, PARTS, Snapshots
from oomwatchd.records.kmsg import to_text


def fake_proc(root: Path, **files: str) -> Host:
    for part, text in files.items():
        file = root / PARTS[part]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Host(proc=root)


# -- snapshots -----------------------------------------------------------------------------------------


def test_a_snapshot_holds_what_the_files_say_at_that_moment(tmp_path: Path) -> None:
    snapshots = Snapshots(fake_proc(tmp_path, meminfo="MemFree: 1 kB\n", pressure_memory="some avg10=0.00\n"))
    first = snapshots.take(5, 7.0)
    assert (first.usec, first.wall) == (5, 7.0)
    assert first.parts == {"meminfo": "MemFree: 1 kB\n", "pressure_memory": "some avg10=0.00\n"}
    (tmp_path / "meminfo").write_text("MemFree: 2 kB\n")  # the same file, kept open
    assert snapshots.take(6, 8.0).parts["meminfo"] == "MemFree: 2 kB\n"
    snapshots.close()


def test_what_the_host_does_not_show_is_absent_and_named(tmp_path: Path) -> None:
    snapshots = Snapshots(
        fake_proc(tmp_path, meminfo="x", zoneinfo="", buddyinfo="x", vmstat="x", overcommit_memory="0\n")
    )
    assert snapshots.absent == (f"{tmp_path}/pressure/memory",)
    assert set(snapshots.take(0, 0.0).parts) == {
        "meminfo",
        "buddyinfo",
        "vmstat",
        "overcommit_memory",
    }
    snapshots.close()


def test_a_part_is_bounded(tmp_path: Path) -> None:
    snapshots = Snapshots(fake_proc(tmp_path, zoneinfo="z" * (PART_BYTES + 1)))
    assert len(snapshots.take(0, 0.0).parts["zoneinfo"]) == PART_BYTES
    snapshots.close()


def test_the_real_files_are_read_whole_and_again() -> None:
    snapshots = Snapshots(read_host())
    assert snapshots.absent == ()
    for _ in range(3):
        parts = snapshots.take(0, 0.0).parts
        assert set(parts) == set(PARTS)
        assert parts["meminfo"].startswith("MemTotal:")
        assert parts["zoneinfo"].count("\n") == Path("/proc/zoneinfo").read_text().count("\n")
        assert parts["vmstat"].splitlines()[-1] == Path("/proc/vmstat").read_text().splitlines()[-1]
    snapshots.close()


@pytest.mark.parametrize(
    ("vmstat", "count"),
    [
        ("nr_free_pages 5\noom_kill 17\nnuma_hit 3\n", 17),
        ("oom_kill 0\n", 0),
        ("nr_free_pages 5\n", None),  # before 4.13
        ("oom_kill x\n", None),
        ("xoom_kill 4\n", None),
    ],
)
def test_the_kernels_own_count(tmp_path: Path, vmstat: str, count: int | None) -> None:
    snapshots = Snapshots(fake_proc(tmp_path, vmstat=vmstat))
    assert snapshots.oom_kills() == count
    snapshots.close()


def test_without_vmstat_there_is_no_count(tmp_path: Path) -> None:
    assert Snapshots(Host(proc=tmp_path)).oom_kills() is None


# -- the host ------------------------------------------------------------------------------------------


def test_the_host_names_itself() -> None:
    host = read_host()
    assert host.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert len(host.boot_id) == 32
    assert (host.kernel, host.machine) == (os.uname().release, os.uname().machine)
    assert host.page_size_bytes == os.sysconf("SC_PAGE_SIZE")


def test_a_host_that_shows_no_boot_id_has_none(tmp_path: Path) -> None:
    assert read_host(tmp_path).boot_id is None


def test_small_files_are_read_harmlessly(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"a\xff\0b" + b"x" * 100)
    assert read_text(file, 4) == "a\\xff\\x00b"
    assert read_text(tmp_path / "absent", 4) is None
    assert read_text(tmp_path, 4) is None


# -- processes -----------------------------------------------------------------------------------------

HOST = read_host()


def start(name: bytes) -> subprocess.Popen[bytes]:
    """A real process that carries this name and one secret argument."""
    code = "import sys; f = open('/proc/self/comm', 'wb', 0); f.write(sys.stdin.buffer.readline()[:-1]);"
    process = subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            code + "print('named', flush=True); sys.stdin.read()",
            "--pass=word",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(name + b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"named\n"
    return process


@pytest.mark.parametrize(
    "name", [b"plain", b"a) S 1 (b", b"Killed process", b"\xff\x1b[31m", b"12 34 56 7 8 9"]
)
def test_a_real_process_of_any_name(name: bytes) -> None:
    with start(name) as process:
        facts = look_at(HOST, process.pid, to_text(name), "full")
        assert facts is not None
        assert facts.comm == to_text(name)
        assert facts.parent_pid == os.getpid()
        assert facts.executable == str(Path(sys.executable).resolve())
        assert facts.command_line is not None and facts.command_line.endswith(" --pass=***")
        assert facts.start_usec is not None
        assert abs(time.clock_gettime(time.CLOCK_BOOTTIME) - facts.start_usec / 1e6) < 30
        assert facts.cgroup == memory_cgroup(Path(f"/proc/{process.pid}/cgroup").read_bytes())
        assert facts.cgroup is not None
        assert facts.learnt == "proc"
        process.kill()


def test_how_much_of_the_command_line_is_taken() -> None:
    with start(b"quiet") as process:
        executable = look_at(HOST, process.pid, "quiet", "executable")
        nothing = look_at(HOST, process.pid, "quiet", "off")
        process.kill()
    assert executable is not None and executable.executable is not None and executable.command_line is None
    assert nothing is not None and nothing.executable is None and nothing.command_line is None


def test_a_dead_process_keeps_what_a_zombie_shows_and_then_nothing() -> None:
    with start(b"mortal") as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, not yet buried
        zombie = look_at(HOST, process.pid, "mortal", "full")
        assert zombie is not None
        assert (zombie.executable, zombie.command_line) == (None, None)
        assert zombie.parent_pid == os.getpid()
        assert zombie.cgroup != "/"  # what v1 says of all that exit
        process.wait()
        assert look_at(HOST, process.pid, "mortal", "full") is None


def test_another_process_under_that_number_is_not_believed() -> None:
    assert look_at(HOST, os.getpid(), "somebody else", "full") is None


def test_a_process_that_vanishes_half_way_keeps_what_was_learnt(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/comm").write_text("half\n")
    facts = look_at(Host(proc=tmp_path), 7, "half", "full")
    assert facts is not None
    assert (facts.pid, facts.comm, facts.cgroup, facts.parent_pid, facts.start_usec) == (
        7,
        "half",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"0::/system.slice/x.service\n", "/system.slice/x.service"),
        (b"9:memory:/m\n1:name=systemd:/s\n0::/u\n", "/m"),
        (b"4:cpu,memory,pids:/joint\n0::/u\n", "/joint"),
        (b"9:memorylike:/m\n0::/u\n", "/u"),
        (b"0::/a:b:memory:/c\n", "/a:b:memory:/c"),
        (b"9:memory:/Killed process 1 (systemd) total-vm:1kB\n", "/Killed process 1 (systemd) total-vm:1kB"),
        (b"0::/\xff\x1b[0m\n", "/\\xff\x1b[0m"),
        (b"", None),
        (b"nonsense\n", None),
    ],
)
def test_the_cgroup_that_counts_for_memory(text: bytes, path: str | None) -> None:
    assert memory_cgroup(text) == path
    assert memory_cgroup(text, exiting=True) == path


def test_the_cgroup_of_an_exiting_process_is_not_the_root() -> None:
    assert memory_cgroup(b"9:memory:/\n0::/u\n", exiting=True) == "/u"  # systemd keeps both alike
    assert memory_cgroup(b"9:memory:/\n0::/\n", exiting=True) is None
    assert memory_cgroup(b"0::/a (deleted)\n") == "/a"
    assert memory_cgroup(b"9:memory:/\n0::/u\n") == "/"
    assert memory_cgroup(b"0::/\n", exiting=True) == "/"  # v2 keeps it
