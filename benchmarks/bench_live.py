"""Reading the ring live: ``python -m benchmarks.bench_live [--quick]`` (root).

Foreign records: the ring of this machine is filled through ``/dev/kmsg`` and read through fresh descriptors,
by the source and the assembler as the daemon has them, and by a C program that does nothing but ``read()``
(compiled here). Dense storm: 500-task reports back to back, from the bytes of the device to reports.
Kills: real ones in throw-away cgroups as fast as one process after the other can be killed, while the source
follows; what it lost shows as gaps.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.bench_decode import TASKS, report_lines
from benchmarks.bench_latency import kill_one, limit, silent_console
from oomwatchd.cli.throwaway import _directory
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord, parse_records
from oomwatchd.reports.assemble import Assembler, OomBlock, Signal
from oomwatchd.reports.decode import decode
from oomwatchd.sources.kmsg import BITE_RECORDS, KmsgSource

#: ours, as a part of the C loop's
FOREIGN_BOUND = 0.6
#: records of a dense storm a second, on one core
STORM_BOUND = 400_000

_C = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
int main(void) {
    static char record[8192];
    struct timespec a, b;
    long count = 0;
    int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
    if (log < 0) return 1;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    for (;;) {
        if (read(log, record, sizeof record) > 0) count++;
        else if (errno == EAGAIN) break;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    printf("%ld %.9f\n", count, (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9);
    return 0;
}
"""


def compile_reader(directory: Path) -> Path:
    """The C program; raises when there is no compiler."""
    source, program = directory / "reader.c", directory / "reader"
    source.write_text(_C)
    subprocess.run(["cc", "-O2", "-o", program, source], check=True)
    return program


def fill_ring() -> None:
    """More foreign records than any usual ring holds; a descriptor of its own each, for writes are rate
    limited by descriptor (devkmsg_write())."""
    for n in range(4000):
        with open("/dev/kmsg", "wb", buffering=0) as log:
            log.write(
                f"<14>benchmark: veth{n % 97}: entered promiscuous mode, link {n} becomes ready\n".encode()
            )


def feed(assembler: Assembler, items: list[KmsgRecord | KmsgGap]) -> list[Signal]:
    """As the watch does."""
    signals: list[Signal] = []
    at = 0
    while at < len(items):
        rows = assembler.take_run(items, at)
        if rows:
            at += rows
        else:
            signals += assembler.feed(items[at])
            at += 1
    return signals


def read_ours() -> tuple[int, float]:
    """Records of the ring and seconds of processor time, read and classified."""
    source, assembler = KmsgSource.open("/dev/kmsg"), Assembler()
    count, drained = 0, False
    began = time.process_time()
    while not drained:
        passed = source.passed
        items, drained = source.read(idle=assembler.idle)
        count += len(items) + source.passed - passed
        feed(assembler, items)
    spent = time.process_time() - began
    source.close()
    return count, spent


def foreign(rounds: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        program = compile_reader(Path(name))
        ours, theirs = [], []
        for _ in range(rounds):
            fill_ring()
            count, seconds = read_ours()
            ours.append(count / seconds)
            said = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
            theirs.append(int(said[0]) / float(said[1]))
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    best = max(ours) / max(theirs)
    _row("foreign records, C read() alone", theirs)
    _row("foreign records, read and classified", ours)
    print(f"{'':40}ratio {ratio:.2f}, of the best rounds {best:.2f} (bound {FOREIGN_BOUND})")
    return int(max(ratio, best) < FOREIGN_BOUND)


def _row(name: str, values: list[float]) -> None:
    least, median, most = min(values), statistics.median(values), max(values)
    print(f"{name:40}{least / 1000:9.0f}{median / 1000:9.0f}{most / 1000:9.0f}")


def storm(rounds: int, reports: int = 20) -> int:
    """From the device's bytes to reports, in bites as the source has them."""
    pieces = []
    for n in range(reports):
        for line in report_lines(TASKS):
            head, _, text = line.partition(b";")
            priority, _, usec, rest = head.split(b",", 3)
            later = (
                int(usec) % 1_000_000 // 10 + n * 20_000
            )  # 2 us between records, as the kernel prints them
            pieces.append(b"%s,%d,%d,%s;%s\n" % (priority, len(pieces), later, rest, text))
    rates: dict[str, list[float]] = {"storm, bytes to reports": [], "  of it: bytes to records": []}
    for _ in range(rounds):
        assembler, found = Assembler(), 0
        began = time.process_time()
        for at in range(0, len(pieces), BITE_RECORDS):
            signals = feed(assembler, [r for r in parse_records(pieces[at : at + BITE_RECORDS]) if r])
            for signal in signals:
                if isinstance(signal, OomBlock) and signal.revision == 0:
                    found += decode(signal.records).kills
        for signal in assembler.flush():
            if isinstance(signal, OomBlock) and signal.revision == 0:
                found += decode(signal.records).kills
        rates["storm, bytes to reports"].append(len(pieces) / (time.process_time() - began))
        if found < reports:
            raise RuntimeError(f"{found} reports of {reports}")
        began = time.process_time()
        for at in range(0, len(pieces), BITE_RECORDS):
            parse_records(pieces[at : at + BITE_RECORDS])
        rates["  of it: bytes to records"].append(len(pieces) / (time.process_time() - began))
    for name, values in rates.items():
        _row(name, values)
    print(f"{'':40}bound {STORM_BOUND / 1000:.0f}")
    return int(max(rates["storm, bytes to reports"]) < STORM_BOUND)


def kills(count: int) -> int:
    """Real kills at full speed while the ring is followed: how many were seen, how many records were lost."""
    source, assembler = KmsgSource.open("/dev/kmsg"), Assembler()
    while not source.read(idle=True)[1]:
        pass
    lost = records = 0
    pids: set[int] = set()
    named: set[int] = set()
    done = threading.Event()

    def kill() -> None:
        with _directory(f"oomwatchd-bench-{os.getpid()}") as cgroup:
            limit(cgroup)
            for _ in range(count):
                pids.add(kill_one(cgroup))
        done.set()

    with ExitStack() as stack:
        stack.enter_context(silent_console())
        thread = threading.Thread(target=kill)
        began = time.monotonic()
        thread.start()
        while True:
            over = done.is_set()
            items, drained = source.read(idle=assembler.idle)
            records += len(items)
            lost += sum(item.lost or 1 for item in items if isinstance(item, KmsgGap))
            for signal in feed(assembler, items):
                if hasattr(signal, "pid"):
                    named.add(signal.pid)
            if drained and over:
                break
            if drained:
                time.sleep(0.001)
        thread.join()
    seconds = time.monotonic() - began
    source.close()
    missed = len(pids - named)
    print(
        f"{count} kills in {seconds:.1f} s ({count / seconds:.0f}/s): {missed} not seen, {lost} records lost"
    )
    return int(missed > 0 or lost > 0)


def main(*, quick: bool = False) -> int:
    """Print the table; 1 if a bound is broken."""
    rounds = 7 if quick else 25
    print(f"{'thousand records a second':40}{'least':>9}{'median':>9}{'most':>9}")
    return max(foreign(rounds), storm(rounds), kills(100 if quick else 400))


if __name__ == "__main__":
    sys.exit(main(quick="--quick" in sys.argv[1:]))
