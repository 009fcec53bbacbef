"""Inputs that an attacker would like to be slow, in any size; a step of size n does n times the work."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterable

from oomwatchd.formats.recognise import ALL, recognise
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.reports.assemble import Assembler, Signal
from tests.fuzz.targets import conclude_all, read_text

HEADER = "{0} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
COLUMNS = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
ROW = "[{0:7d}]     0 {0:5d}     1000      900    45056        0             0 task"
SUMMARY = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,"
    "task=task,pid={0},uid=0"
)
KILLED = (
    "Memory cgroup out of memory: Killed process {0} (task) total-vm:4000kB, anon-rss:3600kB, file-rss:0kB, "
    "shmem-rss:0kB, UID:0 pgtables:44kB oom_score_adj:0"
)
REAPED = "oom_reaper: reaped process {0} (task), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"
GROUP = "Tasks in /a are going to be killed due to memory.oom.group set"

Work = Callable[[int], Callable[[], object]]


def _raw(lines: Iterable[str], *, callers: int = 1) -> list[KmsgRecord]:
    return [
        KmsgRecord(
            text=text, facility=0, seq=n, usec=n * 10, caller=f"T{n % callers}" if callers > 1 else None
        )
        for n, text in enumerate(lines)
    ]


def _assemble(records: Iterable[KmsgRecord]) -> list[Signal]:
    """What the daemon's watch thread does with them."""
    assembler = Assembler()
    return [signal for record in records for signal in assembler.feed(record)] + assembler.flush()


def _records(make: Callable[[int], Iterable[str]], *, callers: int = 1) -> Work:
    def prepared(n: int) -> Callable[[], object]:
        records = _raw(make(n), callers=callers)
        return lambda: (conclude_all(records), _assemble(records))

    return prepared


def _text(make: Callable[[int], str]) -> Work:
    def prepared(n: int) -> Callable[[], object]:
        data = make(n).encode()
        return lambda: conclude_all(read_text(data))

    return prepared


def _pieces(make: Callable[[int], str]) -> Work:
    def prepared(n: int) -> Callable[[], object]:
        data = make(n).encode()
        return lambda: read_text(data, range(1, len(data)))

    return prepared


def _report(pid: int, middle: Iterable[str] = ()) -> list[str]:
    return [HEADER.format("x"), COLUMNS, ROW.format(pid), *middle, SUMMARY.format(pid), KILLED.format(pid)]


#: streams of records: every kind of flood
FLOODS: dict[str, Work] = {
    "reports": _records(lambda n: [line for pid in range(n) for line in _report(pid)]),
    "headers": _records(lambda n: [HEADER.format("x")] * n),
    "headers of many callers": _records(lambda n: [HEADER.format("x")] * n, callers=64),
    "rows": _records(lambda n: [HEADER.format("x"), COLUMNS, *(ROW.format(pid) for pid in range(n))]),
    "rows without a header": _records(lambda n: [ROW.format(pid) for pid in range(n)]),
    "kills": _records(lambda n: [KILLED.format(pid) for pid in range(n)]),
    "kills of one": _records(lambda n: [KILLED.format(7)] * n),
    "summaries": _records(lambda n: [SUMMARY.format(pid) for pid in range(n)]),
    "a group": _records(lambda n: [
        HEADER.format("x"), COLUMNS, *(ROW.format(pid) for pid in range(n)), SUMMARY.format(0),
        KILLED.format(0),
        GROUP, *(KILLED.format(pid) for pid in range(n)),
    ]),
    "interleaved tables": _records(lambda n: [
        *[HEADER.format("x"), COLUMNS] * 8, *(ROW.format(pid) for pid in range(n)),
        *(SUMMARY.format(pid) for pid in range(n)),
    ]),
    "stack": _records(lambda n: [HEADER.format("x"), *[" ? symbol+0x1/0x2"] * n]),
    "foreign lines": _records(lambda n: _report(7, ["usb 1-1: new device"] * n)),
    "no killable process": _records(lambda n: ["Out of memory and no killable processes..."] * n),
    "reaped": _records(lambda n: [KILLED.format(7), *[REAPED.format(7)] * n]),
    "statistics": _records(lambda n: [
        HEADER.format("x"), "memory: usage 4kB, limit 4kB, failcnt 1", "Memory cgroup stats for /a:",
        *(f"name{i} {i}" for i in range(n)), SUMMARY.format(7), KILLED.format(7),
    ]),
    "zones": _records(lambda n: [
        HEADER.format("x"), "Mem-Info:", *(f"Node {i} Normal free:4kB min:4kB low:4kB" for i in range(n)),
    ]),
    "continuations": lambda n: (lambda records: lambda: conclude_all(records))([
        KmsgRecord(text=text, facility=0, seq=i, usec=i, flag="c" if i else "-")
        for i, text in enumerate([HEADER.format("x"), *["a"] * n])
    ]),
}  # fmt: skip

#: log text: what may be wrapped, joined, nested
TEXTS: dict[str, Work] = {
    "one long line": _text(lambda n: "x" * n * 100),
    "blanks": _text(lambda n: " " * n * 100),
    "stamps in one line": _text(lambda n: "[    1.000000] a " * n),
    "wrapped for ever": _text(lambda n: "[    1.000000] Node 0 Normal free:1kB\n" + "min:1kB low:1kB\n" * n),
    "a summary for ever": _text(lambda n: "[    1.000000] " + SUMMARY.format(7)[:60] + "\n"
                                + ("a" * 79 + "\n") * n),
    "quoted": _text(lambda n: "> > > [    1.000000] x invoked oom-killer: gfp_mask=0x0, order=0\n" * n),
    "quotes": _text(lambda n: ">" * n + "\n" + "> " * n + "\n"),
    "braces": _text(lambda n: "{" * n + "\n" + '{"a":' * n + "\n"),
    "open JSON": _text(lambda n: "{\n" + '"MESSAGE" : "x",\n' * n),
    "JSON lines": _text(lambda n: '{"MESSAGE":"x","_TRANSPORT":"kernel"}\n' * n),
    "export": _text(lambda n: "__CURSOR=1\n" + "A=b\n" * n + "MESSAGE=x\n\n"),
    "escapes": _text(lambda n: "\x1b[31m" * n + "\n" + "\x1b" * n + "\n"),
    "carriage returns": _text(lambda n: "\r" * n + "\n" + "a\r" * n + "\n"),
    "quoted printable": _text(lambda n: "=3D=\n" * n),
    "entities": _text(lambda n: "&amp;&lt;" * n + "\n"),
    "empty lines": _text(lambda n: "\n" * n),
    "byte by byte": _pieces(lambda n: "[    1.000000] Out of memory: Killed process 1 (a)\n" * (n // 10 + 1)),
    "byte by byte, no end": _pieces(lambda n: "x" * n * 10),
}  # fmt: skip

_FILLERS = (" ", "0", "a", "(", ",", "=", "a,", "/", ")", ":", "\n", "] ", "[", "? ", "deadbeef ", ".", "...")
_TOKEN = re.compile(r"\w+\W*|\W+")


def _fillers(sample: str) -> list[str]:
    """Single characters, and every word of the line."""
    return sorted({*_FILLERS, *_TOKEN.findall(sample)})


def _in_a_report(text: str) -> Callable[[], object]:
    """The line as a whole record of a report, and as text."""
    records = _raw([HEADER.format("x"), text, KILLED.format(7)])
    return lambda: (recognise(text), conclude_all(records))


def line_floods() -> dict[str, Work]:
    """Every form's sample, with a stretch of what its pattern may take put in: so many characters of it."""
    works: dict[str, Work] = {}
    for name, sample in [("unknown", "some words of 0x1f a line"), *((f.name, f.samples[0]) for f in ALL)]:
        for filler in _fillers(sample):

            def prepared(n: int, sample: str = sample, filler: str = filler) -> Callable[[], object]:
                stretch = filler * (n // len(filler))
                texts = [sample[:at] + stretch + sample[at:] for at in (0, 5, len(sample) // 2, len(sample))]
                works = [_in_a_report(text) for text in texts]
                return lambda: [work() for work in works]

            works[f"{name} {filler!r}"] = prepared
    works["record escapes"] = lambda n: lambda: parse_record(b"3,1,1,-;" + b"\\x0a" * n)
    works["record fields"] = lambda n: lambda: parse_record(b"3,1,1,-" + b",a=b" * n + b";x")
    return works


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """The best processor time of a few: other processes do not count."""
    best = float("inf")
    for _ in range(repeats):
        gc.collect()
        gc.disable()  # its passes come at some sizes and not at others
        try:
            began = time.process_time()
            work()
            best = min(best, time.process_time() - began)
        finally:
            gc.enable()
    return best


def growth(work: Work, *, enough: float = 0.05, largest: int = 1 << 20) -> tuple[float, int, float]:
    """The factor by which the time grows when the input doubles, the size, and the time at that size. At that
    size the time is long enough to be measured; a step that is fast even for large inputs does not grow."""
    n = 64
    time_n = seconds(work(n), 1)
    while time_n < enough and n < largest:
        n *= 2
        time_n = seconds(work(n), 1)
    if time_n < enough:
        return 1.0, n, time_n
    half = seconds(work(n // 2))
    whole = min(time_n, seconds(work(n)))
    return whole / half, n, whole
