"""The trace point as a second witness: the ring buffer's binary pages, and what the two tell together."""

from __future__ import annotations

import re
import select
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from oomwatchd.cli import throwaway
from oomwatchd.daemon.crosscheck import MAX_REMEMBERED, PATIENCE_USEC, Witness
from oomwatchd.errors import UnavailableError
from oomwatchd.sources.tracefs import (
    BUFFER_KIB,
    FIRST_LINE,
    HANDED,
    INSTANCE,
    ROOTS,
    Layout,
    Marked,
    MarkedVictims,
    parse_layout,
    parse_page,
)

PAGE_HEADER = """\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;
"""
EVENT = """name: mark_victim
ID: 609
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;
\tfield:__data_loc char[] comm;\toffset:12;\tsize:4;\tsigned:0;
\tfield:unsigned long total_vm;\toffset:16;\tsize:8;\tsigned:0;
"""
OLD_EVENT = EVENT[: EVENT.index("\tfield:__data_loc")]
LAYOUT = parse_layout(EVENT, PAGE_HEADER)


def entry(pid: int, comm: bytes, delta: int = 1000, kind: int = 609) -> bytes:
    """One event as the ring buffer holds it."""
    body = struct.pack("<HBBiiI", kind, 0, 0, 1, pid, 24 | len(comm) + 1 << 16) + bytes(8) + comm + b"\0"
    body += bytes(-len(body) % 4)
    return struct.pack("<I", len(body) // 4 | delta << 5) + body


def page(*entries: bytes, time: int = 5_000_000, flags: int = 0) -> bytes:
    data = b"".join(entries)
    return struct.pack("<QQ", time, len(data) | flags) + data + bytes(4080 - len(data))


def test_the_layout_is_the_kernels_word() -> None:
    assert (
        Layout(event_id=609, pid=8, comm=12, commit=8, commit_size=8, data=16, little_endian=True) == LAYOUT
    )
    assert parse_layout(OLD_EVENT, PAGE_HEADER).comm is None
    for wrong in ("", "ID: 1\n", EVENT.replace("ID", "DI")):
        with pytest.raises(ValueError, match="not known"):
            parse_layout(wrong, PAGE_HEADER)


@pytest.mark.parametrize(
    ("comm", "shown"),
    [
        (b"plain", "plain"),
        (b"x\ny", "x\ny"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"\x1b[31m pid=1", "\x1b[31m pid=1"),
        (b"", ""),
        (b"q" * 40, "q" * 16),
    ],
)
def test_names_come_raw(comm: bytes, shown: str) -> None:
    assert parse_page(page(entry(42, comm)), LAYOUT) == ([Marked(5001, 42, shown)], False)


def test_events_follow_each_other_and_others_are_left_out() -> None:
    extend = struct.pack("<II", 30 | 7 << 5, 1)
    found, missed = parse_page(
        page(entry(1, b"a"), entry(2, b"b", kind=7), extend, entry(3, b"c"), flags=1 << 31), LAYOUT
    )
    assert [(victim.pid, victim.comm) for victim in found] == [(1, "a"), (3, "c")]
    assert found[1].usec == (5_000_000 + 3000 + (1 << 27) + 7) // 1000
    assert missed


@pytest.mark.parametrize("cut", range(0, 120, 3))
def test_a_damaged_page_is_no_error(cut: int) -> None:
    whole = page(entry(1, b"a"), entry(2, b"b"))
    found, _ = parse_page(whole[:cut], LAYOUT)
    assert [victim.pid for victim in found] in ([], [1], [1, 2])
    parse_page(whole[:cut] + b"\xff" * (4096 - cut), LAYOUT)


def test_a_host_without_tracefs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="mount tracefs"):
        MarkedVictims.open((tmp_path,))


def test_whom_the_log_names_is_not_missing_in_whatever_order_they_come() -> None:
    witness = Witness()
    witness.named(1, 1000)
    ahead = witness.marked([Marked(900, 1, "a"), Marked(950, 2, "b"), Marked(960, 3, "c")])
    assert [victim.pid for victim in ahead] == [2, 3]
    witness.named(2, 2000)
    assert witness.missing(960 + PATIENCE_USEC - 1) == []
    assert witness.missing(960 + PATIENCE_USEC) == [Marked(960, 3, "c")]
    assert witness.missing(1 << 40) == []
    assert (witness.victims, witness.unreported) == (3, 1)


def test_a_pid_that_was_named_long_ago_is_another_process() -> None:
    witness = Witness()
    witness.named(1, 1000)
    witness.marked([Marked(1000 + 2 * PATIENCE_USEC, 1, "a")])
    assert [victim.pid for victim in witness.missing(1 << 40)] == [1]


def test_what_is_remembered_is_bounded() -> None:
    witness = Witness()
    for pid in range(3 * MAX_REMEMBERED):
        witness.named(-pid - 1, 0)
        witness.marked([Marked(0, pid, "a")])
    assert len(witness.missing(1 << 40)) == MAX_REMEMBERED
    assert witness.unreported == 3 * MAX_REMEMBERED


@pytest.mark.oom
@pytest.mark.usefixtures("tracefs")
def test_the_kernel_marks_each_real_victim() -> None:
    marks = MarkedVictims.open()
    try:
        names = []
        for _ in range(3):
            with throwaway.victim() as victim:
                victim.exceed()
                victim.wait(30)
            names.append((victim.pid, victim.comm))
        found = marks.read()
        assert set(names) <= {(marked.pid, marked.comm) for marked in found}
        assert found == sorted(found, key=lambda marked: marked.usec)
    finally:
        marks.close()
    assert not any((root / "instances" / INSTANCE).exists() for root in ROOTS)


@pytest.mark.oom
@pytest.mark.usefixtures("tracefs")
def test_the_first_line_of_a_report_wakes_at_once() -> None:
    """... and nothing else that the kernel prints."""
    marks = MarkedVictims.open()
    try:
        root = next(root for root in ROOTS if (root / "instances" / INSTANCE).exists())
        events = root / "instances" / INSTANCE / "events"
        (events / "oom/mark_victim/enable").write_text("0")
        Path("/dev/kmsg").write_text("<5>another line than that of a report\n")
        assert select.select(marks.descriptors(), [], [], 0.3)[0] == []
        with throwaway.victim() as victim:
            victim.exceed()
            victim.wait(30)
        assert select.select(marks.descriptors(), [], [], 10)[0]
        assert marks.read() == []  # no victim
        assert select.select(marks.descriptors(), [], [], 0)[0] == []
    finally:
        marks.close()


#: an unprivileged user in a mount namespace that has the instance, as the service has
NOBODY = """
import os, re, sys
from pathlib import Path
from oomwatchd.sources.tracefs import MarkedVictims
assert os.getuid() == 65534
marks = MarkedVictims.open()
print("open", flush=True)
sys.stdin.readline()
print(*(f"{marked.pid}:{marked.comm}" for marked in marks.read()))
root = Path("/run/oomwatchd-trace")
for file in root.rglob("*"):
    for mode, what in ((os.W_OK, "write"), (os.R_OK, "read")):
        if not file.is_dir() and os.access(file, mode):
            print("may", what, re.sub("[0-9]+", "N", str(file.relative_to(root))))
marks.close()
"""


@pytest.mark.oom
@pytest.mark.usefixtures("tracefs")
def test_a_daemon_without_rights_is_handed_an_instance() -> None:
    """The commands of the drop-in, run as the service manager runs them."""
    unit = Path(__file__).parent.parent / "packaging/systemd/oomwatchd.service.d/trace.conf"
    text = unit.read_text().replace("\\\n", "").replace(r"\\", "\\")
    before = re.findall(r"^ExecStartPre=-\+/bin/sh -c '(.*)'$", text, re.MULTILINE)
    after = re.findall(r"^ExecStopPost=-\+(.*)$", text, re.MULTILINE)
    (bind,) = re.findall(r"^BindReadOnlyPaths=-(.*):(.*)$", text, re.MULTILINE)
    assert bind == (f"{ROOTS[0]}/instances/{INSTANCE}", str(HANDED))
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c"]
    if not (ROOTS[0] / "instances").exists():
        pytest.skip("tracefs is mounted elsewhere")
    if subprocess.run([*nobody, "import oomwatchd.sources"], capture_output=True, check=False).returncode:
        pytest.skip("this checkout is closed to other users")
    command = 'mkdir -p "$2" && mount -o bind,ro "$1" "$2" && shift 2 && exec "$@"'
    arguments = ["unshare", "--mount", "sh", "-c", command, "sh", *bind, *nobody, NOBODY]
    instance = Path(bind[0])
    process = None
    try:
        subprocess.run(["/bin/sh", "-c", *before], check=True)
        assert FIRST_LINE in (instance / "events/printk/console/filter").read_text()
        assert BUFFER_KIB <= int((instance / "buffer_size_kb").read_text()) < 2 * BUFFER_KIB
        # whatever the mount is
        files = (file for file in instance.rglob("*") if not file.is_symlink())
        assert not [file for file in files if file.stat().st_mode & stat.S_IWOTH]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with throwaway.victim() as victim:
            victim.exceed()
            victim.wait(30)
        said, _ = process.communicate("\n", timeout=30)
        assert f"{victim.pid}:{victim.comm}" in said.split()
        assert {line for line in said.splitlines() if line.startswith("may ")} == {
            "may read events/header_page",
            "may read events/oom/mark_victim/format",
            "may read per_cpu/cpuN/trace_pipe_raw",
        }
        assert process.returncode == 0
    finally:
        if process is not None:
            process.kill()
            process.wait()
        subprocess.run(after[0].split(), check=True)
        HANDED.rmdir()
    assert not Path(bind[0]).exists()
