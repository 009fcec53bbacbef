"""analyze as the log comes: a pipe, a terminal, a file that grows and is rotated."""

from __future__ import annotations

import json
import os
import pty
import random
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from oomwatchd.event.identity import event_id
from oomwatchd.records.capture import OomCapture
from oomwatchd.sources.text import REST_SECONDS, GrowingLog

COMMAND = [sys.executable, "-m", "oomwatchd", "analyze"]
#: within a second of its last line, and what a busy machine may add
SECONDS = 1.0
BOOT = "[    1.000000] Linux version 6.1.0 (gcc) #1 SMP\n[    1.100000] Memory: 512M available\n"


def report(pid: int, at: int = 100) -> str:
    return (
        f"[  {at}.000001] app{pid} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
        f"[  {at}.000002] CPU: 1 PID: {pid} Comm: app{pid} Not tainted 6.1.0 #1\n"
        f"[  {at}.000003] Mem-Info:\n"
        f"[  {at}.000004] [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj"
        f" name\n"
        f"[  {at}.000005] [  {pid:>5}]     0 {pid:>5}    26000    25000   225280        0             0"
        f" app{pid}\n"
        f"[  {at}.000006] Out of memory: Killed process {pid} (app{pid}) total-vm:104000kB, anon-rss:90000kB,"
        f" file-rss:10000kB, shmem-rss:0kB, UID:0 pgtables:220kB oom_score_adj:0\n"
    )


class Told:
    """What a command wrote, as it came."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._selector = selectors.DefaultSelector()
        self._selector.register(descriptor, selectors.EVENT_READ)
        self._rest = b""

    def line(self, seconds: float) -> str | None:
        """The next line, None if there is none in this time."""
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                return None
            part = os.read(self._descriptor, 65536)
            if not part:
                return None
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def victim(self, seconds: float = SECONDS) -> str | None:
        line = self.line(seconds)
        return json.loads(line)["victims"][0]["comm"] if line else None


@contextmanager
def analyze(*words: str | Path, stdin: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*COMMAND, "--format", "jsonl", *map(str, words)],
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def told(process: subprocess.Popen[bytes]) -> Told:
    assert process.stdout is not None
    return Told(process.stdout.fileno())


def say(process: subprocess.Popen[bytes], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text.encode())


def test_a_pipe_tells_each_report_when_it_is_complete() -> None:
    with analyze("-") as process:
        out = told(process)
        say(process, BOOT + report(11))
        assert out.victim(10) == "app11"  # the process has to start, too
        for pid in (12, 13):
            say(process, report(pid, 100 + pid))
            assert out.victim() == f"app{pid}"
        # a report that stops in its middle is not told, and then as a whole
        first, second = report(14, 200)[:300], report(14, 200)[300:]
        say(process, first)
        assert out.victim(1.5) is None
        say(process, second)
        assert out.victim() == "app14"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
        assert out.line(0.1) is None


def test_other_lines_that_come_all_the_time_hold_nothing_up() -> None:
    with analyze("-") as process:
        out = told(process)
        say(process, report(11))
        assert out.victim(10) == "app11"
        say(process, report(12, 130))
        began = time.monotonic()
        for n in range(30):
            say(process, f"[  131.{n:06}] usb 1-1: device descriptor read/64, error -110\n")
            if out.victim(0.05) == "app12":
                break
        else:
            pytest.fail("it was not told while other lines came")
        assert time.monotonic() - began < SECONDS


def test_a_paste_on_a_terminal_is_answered_at_once() -> None:
    controller, terminal = pty.openpty()
    with analyze("-", stdin=terminal) as process:
        out = told(process)
        for pid in (21, 22):
            for line in report(pid).splitlines(keepends=True):
                os.write(controller, line.encode())
            assert out.victim(10 if pid == 21 else SECONDS) == f"app{pid}"
        # the next paste is judged by itself: it was carried in another way
        pasted = "".join(f"> box kernel: {line}\n" for line in report(23).splitlines())
        os.write(controller, pasted.encode())
        assert out.victim() == "app23"
    os.close(controller)
    os.close(terminal)


def test_a_file_that_grows_and_is_rotated(tmp_path: Path) -> None:
    log, other = tmp_path / "kern.log", tmp_path / "other.log"
    log.write_text(BOOT + report(31))
    other.write_text(BOOT)
    with analyze("--follow", log, other) as process:
        out = told(process)
        assert out.victim(10) == "app31"
        with log.open("a") as file:
            file.write(report(32, 200))
        assert out.victim() == "app32"
        with other.open("a") as file:
            file.write(report(33, 200))
        assert out.victim() == "app33"
        # renamed in the middle of a report, which goes on in the new file
        whole = report(34, 300)
        with log.open("a") as file:
            file.write(whole[:200])
        log.rename(tmp_path / "kern.log.1")
        log.write_text(whole[200:])
        assert out.victim() == "app34"
        # cut short and written anew
        with log.open("r+") as file:
            file.truncate(0)
            time.sleep(2 * REST_SECONDS)
            file.write(report(35, 400))
        assert out.victim() == "app35"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--follow", "-"], 64),
        (["--follow", "--journal"], 64),
        (["--follow", "/nonexistent/log"], 66),
        (["--follow", "/dev/null"], 66),
    ],
)
def test_what_cannot_be_followed_is_one_line(words: list[str], status: int) -> None:
    done = subprocess.run([*COMMAND, *words], capture_output=True, check=False, timeout=30)
    assert done.returncode == status
    assert done.stderr.count(b"\n") == 1


def fed(data: bytes, cuts: list[int], rests: bool) -> list[OomCapture]:
    """What a log says that comes in these pieces, with a long rest after each or none."""
    log, now = GrowingLog(), 0.0
    found: list[OomCapture] = []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += log.feed(data[begin:end])
        for _ in range(3 if rests else 0):
            now += REST_SECONDS
            found += log.rest(now)
    return [*found, *log.finish()]


def test_the_events_do_not_depend_on_how_the_log_came(corpus: Path) -> None:
    chance = random.Random(1)  # no secret
    compared = 0
    for path in sorted((corpus / "field").glob("*.log")):
        data = path.read_bytes()
        if len(data) > 60_000:
            continue
        whole = {event_id(capture) for capture in fed(data, [], rests=False)}
        assert {event_id(capture) for capture in fed(data, [], rests=True)} == whole, path.name
        cuts = sorted(chance.randrange(len(data)) for _ in range(20))
        assert {event_id(capture) for capture in fed(data, cuts, rests=False)} == whole, path.name
        compared += len(whole)
    assert compared > 20


def test_a_log_without_reports_is_not_kept() -> None:
    log = GrowingLog()
    line = b"[    1.000000] usb 1-1: new high-speed USB device number 5 using xhci_hcd\n"
    for n in range(200):
        assert not list(log.feed(line * 500))
        assert not log.rest(n * REST_SECONDS)
    assert not log.waits
    assert [capture.records[0].text[:5] for capture in log.feed(report(41).encode())] == []
    told_now = [*log.rest(100.0), *log.rest(100.3)]
    assert len(told_now) == 1
