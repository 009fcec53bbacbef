"""/dev/kmsg as a source: the real device if it can produce the case, else a packet pipe.

A pipe opened with O_DIRECT gives one written packet for each read (pipe(2)), as the device gives one
record.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.errors import EX_NOPERM, EX_UNAVAILABLE, PermissionDeniedError, UnavailableError
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.sources.kmsg import BITE_RECORDS, BITE_SECONDS, KmsgSource, LogClock, _cannot_open

DEVICE = "/dev/kmsg"


def read_all(source: KmsgSource) -> list[KmsgRecord | KmsgGap]:
    found: list[KmsgRecord | KmsgGap] = []
    while True:
        items, drained = source.read()
        found += items
        if drained:
            return found


class PacketPipe:
    """The kernel's side of a stand-in for the device."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)

    def write(self, *seqs: int, text: str = "x") -> None:
        for seq in seqs:
            os.write(self.writing, f"6,{seq},{seq * 1000},-;{text}\n".encode())


@pytest.fixture
def pipe() -> Iterator[PacketPipe]:
    ends = PacketPipe()
    yield ends
    os.close(ends.reading)
    os.close(ends.writing)


def seqs_and_gaps(items: list[KmsgRecord | KmsgGap]) -> list[int | str | None]:
    return [f"lost {item.lost}" if isinstance(item, KmsgGap) else item.seq for item in items]


# -- the real device -----------------------------------------------------------------------------------


def test_the_real_ring_is_read_to_its_end() -> None:
    source = KmsgSource.open(DEVICE)
    seqs = [item.seq for item in read_all(source) if isinstance(item, KmsgRecord)]
    assert seqs == sorted(set(seqs), key=lambda seq: seq or 0)
    assert source.last_seq == seqs[-1]
    assert source.malformed == 0
    source.close()


def test_a_line_of_user_space_comes_with_its_facility() -> None:
    source = KmsgSource.open(DEVICE)
    read_all(source)
    token = secrets.token_hex(8)
    with open(DEVICE, "wb", buffering=0) as device:
        device.write(f"<2>{token}\n".encode())
    mine = [item for item in read_all(source) if isinstance(item, KmsgRecord) and item.text == token]
    source.close()
    assert len(mine) == 1
    assert (mine[0].facility, mine[0].level) == (1, 2)


def test_records_too_long_for_the_buffer_are_lost_and_counted() -> None:
    """The kernel answers EINVAL and goes on behind the record (devkmsg_read())."""
    small = KmsgSource(os.open(DEVICE, os.O_RDONLY), DEVICE, record_bytes=64)
    read_all(small)
    token = secrets.token_hex(8)
    for line in (f"<14>{token}", f"<14>{token}{'x' * 64}", f"<14>{token}{'x' * 64}", f"<14>{token}"):
        with open(DEVICE, "wb", buffering=0) as device:
            device.write(f"{line}\n".encode())
    items = read_all(small)
    small.close()
    mine = [
        at for at, item in enumerate(items) if isinstance(item, KmsgRecord) and item.text.startswith(token)
    ]
    assert len(mine) == 2
    between = items[mine[0] : mine[1] + 1]
    seqs = [item.seq or 0 for item in between if isinstance(item, KmsgRecord)]
    lost = sum(item.lost or 0 for item in between if isinstance(item, KmsgGap))
    assert lost >= 2
    assert len(seqs) + lost == seqs[-1] - seqs[0] + 1


def test_a_passed_descriptor_is_read_from_its_oldest_record_again() -> None:
    first = KmsgSource.open(DEVICE)
    before = [item.seq for item in read_all(first) if isinstance(item, KmsgRecord)]
    second = KmsgSource.adopt(os.dup(first.fileno()), "passed")
    again = [item.seq for item in read_all(second) if isinstance(item, KmsgRecord)]
    first.close()
    second.close()
    assert again[: len(before)] == before


def test_without_the_right_the_device_is_refused_with_a_mend() -> None:
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() != "1":
        pytest.fail("this test needs kernel.dmesg_restrict=1, else anybody may read the device")
    user = os.geteuid()
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionDeniedError, match="run as root or with CAP_SYSLOG") as caught:
            KmsgSource.open(DEVICE)
    finally:
        os.seteuid(user)
    assert caught.value.exit_status == EX_NOPERM


def test_an_absent_device_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="--device /dev/kmsg") as caught:
        KmsgSource.open(str(tmp_path / "kmsg"))
    assert caught.value.exit_status == EX_UNAVAILABLE


@pytest.mark.parametrize(
    ("sysctls", "hint"),
    [
        ({"printk_devkmsg": "off\n", "dmesg_restrict": "1\n"}, "printk.devkmsg=off"),
        ({"printk_devkmsg": "ratelimit\n", "dmesg_restrict": "1\n"}, "kernel.dmesg_restrict is 1"),
        ({"printk_devkmsg": "on\n", "dmesg_restrict": "0\n"}, "read permission on the device"),
        ({}, "read permission on the device"),
    ],
)
def test_the_mend_fits_the_hosts_settings(tmp_path: Path, sysctls: dict[str, str], hint: str) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    for name, value in sysctls.items():
        (tmp_path / "sys/kernel" / name).write_text(value)
    error = PermissionError(errno.EPERM, "Operation not permitted")
    assert hint in str(_cannot_open(DEVICE, error, tmp_path))


@pytest.mark.parametrize(
    ("capabilities", "namespace", "number", "hint"),
    [
        ("0000000400000000", "user:[4026531837]", errno.EPERM, "the device cgroup of this container refuses"),
        ("0000000400000000", "user:[4026532999]", errno.EPERM, "host's own user namespace alone"),
        ("0000000400000000", "user:[4026531837]", errno.EACCES, "kernel.dmesg_restrict is 1"),
        ("00000000a80425fb", "user:[4026531837]", errno.EPERM, "--cap-add SYSLOG"),
    ],
)
def test_the_mend_fits_the_container(
    tmp_path: Path, capabilities: str, namespace: str, number: int, hint: str
) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/dmesg_restrict").write_text("1\n")
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/status").write_text(f"Name:\tpython3\nCapEff:\t{capabilities}\nSeccomp:\t2\n")
    (tmp_path / "self/ns/user").symlink_to(namespace)
    assert hint in str(_cannot_open(DEVICE, PermissionError(number, "refused"), tmp_path))


# -- gaps, bounds, ends --------------------------------------------------------------------------------


def test_a_jump_of_the_sequence_number_is_a_gap(pipe: PacketPipe) -> None:
    source = KmsgSource(pipe.reading, "pipe")
    pipe.write(7, 8, 11)
    assert seqs_and_gaps(read_all(source)) == [7, 8, "lost 2", 11]
    pipe.write(13)
    assert seqs_and_gaps(read_all(source)) == ["lost 1", 13]


def test_an_overrun_is_counted_at_the_next_record() -> None:
    """EPIPE says that records were overwritten; how many, only the next one tells. A ring cannot be
    overrun here without flooding the whole machine's log, so the answers are given."""
    answers: list[bytes | OSError] = [
        b"6,1,1,-;a\n",
        OSError(errno.EPIPE, "Broken pipe"),
        b"6,101,2,-;b\n",
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    ]
    reading, writing = os.pipe()

    def read(_descriptor: int, _size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    source = KmsgSource(reading, "log", read=read)
    items, drained = source.read()
    assert seqs_and_gaps(items) == [1, "lost 99", 101]
    assert drained
    os.close(reading)
    os.close(writing)


def test_one_bite_is_bounded_by_number(pipe: PacketPipe) -> None:
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, BITE_RECORDS * os.sysconf("SC_PAGE_SIZE"))
    source = KmsgSource(pipe.reading, "pipe", clock=lambda: 0.0)
    pipe.write(*range(BITE_RECORDS))
    items, drained = source.read()
    assert (len(items), drained) == (BITE_RECORDS, False)
    pipe.write(BITE_RECORDS)
    items, drained = source.read()
    assert (len(items), drained) == (1, True)


def test_one_bite_is_bounded_by_time(pipe: PacketPipe) -> None:
    times = iter([0.0, BITE_SECONDS / 2, BITE_SECONDS])
    source = KmsgSource(pipe.reading, "pipe", clock=lambda: next(times))
    fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, 64 * os.sysconf("SC_PAGE_SIZE"))
    pipe.write(*range(48))
    items, drained = source.read()
    assert (seqs_and_gaps(items), drained) == (list(range(32)), False)


def test_what_is_no_report_is_passed_over_by_who_is_idle(pipe: PacketPipe) -> None:
    """Its first and last record tell where it stood and when; nothing is lost, and nothing of a report."""
    source = KmsgSource(pipe.reading, "pipe")
    pipe.write(*range(10))
    items, drained = source.read(idle=True)
    assert (seqs_and_gaps(items), source.passed, drained) == ([0, 9], 8, True)
    pipe.write(*range(10, 15))
    pipe.write(17, 18)
    items, _ = source.read(idle=True)
    assert (seqs_and_gaps(items), source.passed) == ([10, 11, 12, 13, 14, "lost 2", 17, 18], 8)


def test_something_else_than_records_is_counted_and_passed_over(pipe: PacketPipe) -> None:
    source = KmsgSource(pipe.reading, "pipe")
    os.write(pipe.writing, b"no record\n")
    os.write(pipe.writing, b"6,9;short\n")
    pipe.write(1)
    assert seqs_and_gaps(read_all(source)) == [1]
    assert source.malformed == 2


def test_something_else_is_counted_while_nothing_is_under_way_too(pipe: PacketPipe) -> None:
    source = KmsgSource(pipe.reading, "pipe")
    pipe.write(1)
    os.write(pipe.writing, b"x,-;garbage\n")
    pipe.write(3)
    items, _ = source.read(idle=True)
    assert (seqs_and_gaps(items), source.malformed, source.passed) == ([1, "lost 1", 3], 1, 0)


def test_the_end_of_the_log_is_an_error(pipe: PacketPipe) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    source = KmsgSource(reading, "log")
    with pytest.raises(UnavailableError, match="log: end of file"):
        source.read()
    source.close()


# -- the log's clock -----------------------------------------------------------------------------------

S = 1_000_000


def test_the_clocks_agree_until_a_reading_refutes_it() -> None:
    clock = LogClock()
    # an hour passed since the log was last seen empty, and the reading came a minute late
    clock.saw(3540 * S, 3541 * S, 0, 3600 * S)
    assert clock.skew_usec == 0


def test_a_record_from_the_future_moves_the_clock() -> None:
    clock = LogClock()
    clock.saw(500 * S, 500 * S, None, 100 * S)
    assert clock.log_usec(100 * S) == 500 * S


def test_a_record_older_than_the_empty_log_moves_the_clock_back() -> None:
    clock = LogClock()
    clock.saw(500 * S, 500 * S, 900 * S, 901 * S)  # printed after 900, stamped 500
    assert clock.log_usec(901 * S) == 501 * S
    clock.saw(501 * S, 501 * S, 901 * S, 901 * S + 1000)
    assert clock.log_usec(901 * S + 1000) == 501 * S + 1000


@pytest.mark.parametrize("skew", [-400 * S, -1, 0, 3, 400 * S])
def test_the_estimate_finds_any_skew(skew: int) -> None:
    clock = LogClock()
    for now in range(1000 * S, 1100 * S, S):
        clock.saw(now + skew, now + skew, now - 50, now + 100)  # empty 50 us before, read 100 us after
    assert abs(clock.skew_usec - skew) <= 150
