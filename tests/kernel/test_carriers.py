"""This kernel's own lines with a user's words in them: a crash of nobody's process, a firewall's log rule."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oomwatchd.formats import COMM_BYTES
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.reports.assemble import Assembler
from tests.carriers import BEGINNINGS, SHORT
from tests.test_carriers import KILLED, told

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for the kernel log")

NOBODY = 65534
#: becomes nobody, takes each name, and dies of SIGSEGV
CRASH = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for name in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        os.setresgid(*[int(sys.argv[1])] * 3)
        os.setresuid(*[int(sys.argv[1])] * 3)
        libc.prctl(15, name.encode(), 0, 0, 0)
        ctypes.string_at(0)
    os.waitpid(child, 0)
"""
LOG_PREFIX = 29
ALL_NAMESPACES = Path("/proc/sys/net/netfilter/nf_log_all_netns")
PING = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))"


@contextmanager
def kernel_log() -> Iterator[list[KmsgRecord]]:
    """What the kernel says meanwhile."""
    said: list[KmsgRecord] = []
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        pytest.skip(f"no kernel log: {error}")
    try:
        os.lseek(fd, 0, os.SEEK_END)
        yield said
        time.sleep(0.1)
        while True:
            try:
                record = parse_record(os.read(fd, 8192))
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue
            if record is not None and record.facility == 0:
                said.append(record)
    finally:
        os.close(fd)


def is_nothing(said: list[KmsgRecord]) -> None:
    """No signal alone, nothing new beside a kill line."""
    assembler = Assembler()
    assert [signal for record in said for signal in assembler.feed(record)] + assembler.flush() == []
    assert assembler.forged_records == 0
    texts = [record.text for record in said]
    assert told([*texts, KILLED]) == told([KILLED])


def test_the_name_of_a_process_that_crashes() -> None:
    names = list(dict.fromkeys(text.encode()[:COMM_BYTES].decode(errors="ignore") for text in BEGINNINGS))
    with kernel_log() as said:
        for name in ("Task in /", "1 (", "[1] 1 1 1 1 1 1", *names[::6]):
            # the kernel prints ten of these lines in five seconds
            subprocess.run(
                [sys.executable, "-c", CRASH, str(NOBODY), name],
                check=True,
                restore_signals=True,
                preexec_fn=lambda: signal.signal(signal.SIGSEGV, signal.SIG_DFL),
            )
    crashes = [record for record in said if "]: segfault at " in record.text]
    if not crashes:
        pytest.skip("this kernel does not print crashes (debug.exception-trace)")
    assert any(record.text.startswith(tuple(names)) for record in crashes)
    is_nothing(crashes)


@pytest.fixture
def logged_namespaces() -> Iterator[None]:
    """The kernel logs the packets of other network namespaces too."""
    try:
        before = ALL_NAMESPACES.read_text()
        ALL_NAMESPACES.write_text("1")
    except OSError as error:
        pytest.skip(f"no log of packets of other namespaces: {error}")
    yield
    ALL_NAMESPACES.write_text(before)


@pytest.mark.usefixtures("logged_namespaces")
def test_the_prefix_of_a_log_rule() -> None:
    prefixes = [text[:LOG_PREFIX] for text in SHORT if text.strip() and '"' not in text]
    rules = "\n".join(f'-A OUTPUT -j LOG --log-prefix "{prefix}"' for prefix in prefixes)
    script = f'ip link set lo up && iptables-restore && exec {sys.executable} -c "{PING}"'
    with kernel_log() as said:
        done = subprocess.run(
            ["unshare", "-n", "sh", "-c", script],
            input=f"*filter\n{rules}\nCOMMIT\n",
            text=True,
            capture_output=True,
            check=False,
        )
    if done.returncode:
        pytest.skip(f"no log rule: {done.stderr}")
    packets = [record for record in said if " DST=127.0.0.1 " in record.text]
    assert len(packets) > len(prefixes) // 2
    assert any(record.text.startswith("Killed process 1 (systemd) vm") for record in packets)
    is_nothing(packets)
