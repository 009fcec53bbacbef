"""The same report from several outputs of one paste is one event."""

from __future__ import annotations

from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import OomCapture
from oomwatchd.sources.text import REST_SECONDS, GrowingLog


def lines(pid: int) -> list[str]:
    return [
        f"app{pid} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        f"CPU: 1 PID: {pid} Comm: app{pid} Not tainted 6.1.0 #1",
        "Mem-Info:",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        f"[{pid:7}]     0 {pid:5}    26000    25000   225280        0             0 app{pid}",
        f"Out of memory: Killed process {pid} (app{pid}) total-vm:104000kB, anon-rss:9{pid}kB,"
        " file-rss:10000kB, shmem-rss:0kB, UID:0 pgtables:220kB oom_score_adj:0",
    ]


def dmesg(pid: int, at: int = 100) -> list[str]:
    return [f"[{at + pid:5}.{n:06}] {line}" for n, line in enumerate(lines(pid))]


def syslog(pid: int, path: str = "") -> list[str]:
    return [f"{path}May  1 10:00:{pid:02} box kernel: {line}" for line in dmesg(pid)]


def journal(pid: int) -> list[str]:
    return [f"May 01 10:00:{pid:02} box kernel: {line}" for line in lines(pid)]


def events(*outputs: list[str]) -> list[OomEvent]:
    log = GrowingLog()
    text = "\n\n".join("\n".join(output) for output in outputs) + "\n"
    return [conclude(capture).event for capture in [*log.feed(text.encode()), *log.finish()]]


def test_outputs_of_one_paste() -> None:
    for outputs in (
        (dmesg(11), dmesg(11)),
        (dmesg(11), journal(11)),
        (journal(11), dmesg(11)),
        (journal(11), journal(11)),
        (syslog(11, "/var/log/kern.log:"), syslog(11, "/var/log/syslog:"), dmesg(11)),
        (syslog(11, "kern.log:"), syslog(11, "messages:"), journal(11)),
    ):
        found = events(*outputs)
        assert [event.victims[0].comm for event in found] == ["app11"]
        assert (found[0].trigger.comm, len(found[0].tasks)) == ("app11", 1)


def test_the_copy_with_most_lines_is_told() -> None:
    for outputs in (
        (journal(11)[-1:], dmesg(11)),
        (dmesg(11), journal(11)[-1:]),
        (dmesg(11)[-1:], dmesg(11)),
    ):
        (event,) = events(*outputs)
        assert event.trigger.comm == "app11"


def test_reports_and_their_copies_keep_their_order() -> None:
    first = [line for pid in (11, 12, 13) for line in dmesg(pid)]
    second = [line for pid in (11, 12, 13) for line in journal(pid)]
    assert [event.victims[0].pid for event in events(first, second)] == [11, 12, 13]


def test_a_process_that_is_killed_again_is_another_kill() -> None:
    # the same pid and sizes, minutes later: another process, or another boot
    assert len(events(dmesg(11), dmesg(11, at=900))) == 2
    assert len(events(dmesg(11), dmesg(11, at=900), dmesg(11), dmesg(11, at=900))) == 2


def test_kill_lines_without_sizes_are_no_copies() -> None:
    line = "Out of Memory: Killed process 4712 (gnome-panel)."
    assert len(events([f"[  100.000000] {line}"], [f"[  200.000000] {line}"])) == 2


def test_headers_alone_are_told_by_their_stamp() -> None:
    header = [dmesg(11)[0]]
    assert len(events(header, header)) == 1
    assert len(events(header, [dmesg(11, at=300)[0]])) == 2


def test_what_was_told_is_not_told_again_as_it_comes() -> None:
    log, now = GrowingLog(), 0.0
    told: list[OomCapture] = []
    for output in (dmesg(11), dmesg(12), journal(11), dmesg(11)):
        told += log.feed(("\n".join(output) + "\n").encode())
        for _ in range(3):
            now += REST_SECONDS
            told += log.rest(now)
    told += log.finish()
    assert [conclude(capture).event.victims[0].pid for capture in told] == [11, 12]


def test_memory_is_bounded() -> None:
    log = GrowingLog()
    found = 0
    for n in range(300):
        text = "\n".join(line.replace("app11", f"app{n}") for line in dmesg(11, at=n * 20)) + "\n"
        found += len(list(log.feed(text.encode() * 1)))
    found += len(list(log.finish()))
    assert found == 300
