"""Findings of real OOM kills, provoked in a throw-away cgroup of 16 MiB, each for its own reason."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.cli import throwaway
from oomwatchd.diagnosis.findings import diagnose
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.records.report import Finding, OomReport
from oomwatchd.reports.decode import decode
from tests.recorded import blocks

pytestmark = pytest.mark.oom

#: the kernel prints at most ten reports in five seconds, whoever provokes them
ATTEMPTS, PAUSE = 4, 5.5

# Every child waits for a line, so that it is in its cgroup before it begins, and ends by itself in time.
# ``take`` touches so many KiB.
PREAMBLE = """
import ctypes, mmap, os, signal, sys
libc = ctypes.CDLL(None)
def take(kib):
    memory = mmap.mmap(-1, kib << 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for offset in range(0, len(memory), mmap.PAGESIZE): memory[offset] = 1
    return memory
def adjust(value):
    with open("/proc/self/oom_score_adj", "w") as file: file.write(str(value))
signal.alarm(20)
sys.stdin.readline()
"""
ONE = "take(40000)"
LOCKED = "libc.mlockall(3); take(40000)"
SHARED = """
descriptor = os.memfd_create("segment")
for _ in range(40): os.write(descriptor, bytes(1 << 20))
"""
# the parent holds most, the child is small and is preferred; it begins when the parent is done
PREFERRED = """
begin, done = os.pipe()
if os.fork() == 0:
    adjust(1000)
    os.read(begin, 1)
    take(40000)
else:
    held = take(8000)
    os.write(done, b"x")
    os.wait()
"""
MANY = """
children = []
for _ in range(100):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        held = take(300)
        signal.pause()
    children.append(child)
for child in children:
    os.kill(child, signal.SIGKILL) if os.waitpid(child, os.WNOHANG)[0] == 0 else None
"""


@contextlib.contextmanager
def cgroup(name: str) -> Iterator[Path]:
    """A memory cgroup of LIMIT_BYTES without swap."""
    with throwaway._directory(name) as directory:
        for file in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
            if (directory / file).exists():
                (directory / file).write_text(str(throwaway.LIMIT_BYTES) if "memsw" in file else "0")
        yield directory


def run(script: str, directory: Path) -> None:
    """The script in the cgroup, until it ended or was killed."""
    command = [sys.executable, "-I", "-S", "-c", PREAMBLE + script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        (directory / "cgroup.procs").write_text(str(process.pid))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"go\n")
            process.stdin.close()
        process.wait(30)
        for pid in (directory / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), 9)


def read(descriptor: int) -> Iterator[KmsgRecord]:
    while True:
        try:
            record = parse_record(os.read(descriptor, 8192))
        except BlockingIOError:
            return
        except BrokenPipeError:  # records were overwritten
            continue
        if record is not None:
            yield record


def provoke(script: str) -> tuple[OomReport, dict[str, Finding]]:
    """The first complete report of the script's cgroup, and its findings by id."""
    for _ in range(ATTEMPTS):
        name = f"oomwatchd-findings-{secrets.token_hex(4)}"
        descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.lseek(descriptor, 0, os.SEEK_END)
            with cgroup(name) as directory:
                run(script, directory)
            for block in blocks(read(descriptor)):
                source = Source(kind="kmsg", form="kmsg")
                capture = OomCapture(source=source, records=block.records)
                report = decode(block.records, page_size_bytes=os.sysconf("SC_PAGESIZE"))
                if report.memcg and (report.memcg.oom_path or "").endswith(name) and report.complete:
                    return report, {f.id: f for f in diagnose(report, capture).findings}
        finally:
            os.close(descriptor)
        time.sleep(PAUSE)  # the report was left out for others of the same seconds
    pytest.fail(f"no complete report in {ATTEMPTS} attempts")


@pytest.fixture(autouse=True)
def rights() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


def test_one_process_fills_its_cgroup() -> None:
    report, said = provoke(ONE)
    limit = said["memcg_limit_reached"].evidence
    assert limit["limit_bytes"] == throwaway.LIMIT_BYTES
    assert isinstance(limit["anon_bytes"], int)
    assert limit["anon_bytes"] > 0.7 * throwaway.LIMIT_BYTES
    assert "memcg_swap_limited" in said
    assert not {"shmem_large", "mlocked_or_unevictable", "protected_giant", "victim_not_largest"} & set(said)
    assert report.victims


def test_locked_memory() -> None:
    _, said = provoke(LOCKED)
    assert "mlocked_or_unevictable" in said


def test_shared_memory() -> None:
    _, said = provoke(SHARED)
    assert said["shmem_large"].severity == "critical"
    assert "mlocked_or_unevictable" not in said


def test_a_small_process_is_preferred() -> None:
    _, said = provoke(PREFERRED)
    why = said["victim_not_largest"].evidence
    assert (why["reason"], why["victim_rank"], why["victim_oom_score_adj"]) == ("oom_score_adj", 1, 1000)
    assert "protected_giant" not in said


def test_many_small_processes() -> None:
    _, said = provoke(MANY)
    assert "many_small_processes" in said
    assert "single_process_dominates" not in said
