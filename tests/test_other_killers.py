"""Kills by systemd-oomd, earlyoom and nohang in a pasted journal: events of their own kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomwatchd.event import OomEvent, conclude
from oomwatchd.render.terminal import render_text
from oomwatchd.sources.text import REST_SECONDS, GrowingLog

OOMD = (
    "{} systemd-oomd[659]: Killed /system.slice/web.service due to memory pressure for /system.slice being"
    " 85.03% > 80.00% for > 20s with reclaim activity"
)
MARKED = (
    "{} systemd-oomd[659]: Marked /system.slice/web.service for killing due to memory used (958119936)"
    " / total (1023246336) and swap used (1071677440) / total (1073737728) being more than 90.00%"
)
MANAGER = "{} systemd[1]: web.service: systemd-oomd killed 3 process(es) in this unit."
EARLYOOM = (
    "{} earlyoom[1579]: mem avail:   732 of  5867 MiB (12.48%), swap free:   90 of 5867 MiB ( 1.53%)",
    "{} earlyoom[1579]: low memory! at or below SIGTERM limits: mem 10.00%, swap 10.00%",
    '{} earlyoom[1579]: sending SIGTERM to process 5017 uid 1000 "chrome": oom_score 1100, VmRSS 300 MiB,'
    ' cmdline "/opt/chrome"',
    "{} earlyoom[1579]: process 5017 exited after 0.1 seconds",
)
NOHANG = (
    "{} nohang[629]: Process with highest badness (found in 21 ms):",
    "{} nohang[629]:   PID: 4208, Name: tail, badness: 775",
    "{} nohang[629]: Implementing a corrective action:",
    "{} nohang[629]:   Sending SIGKILL to the victim",
)
STAMPS = ("Jan 04 21:53:13 box", "2024-05-01T10:00:00+0000 box", "[   77.749670]")


def events(text: str) -> list[OomEvent]:
    log = GrowingLog()
    return [conclude(capture).event for capture in [*log.feed(text.encode()), *log.finish()]]


def text_of(*lines: str, stamp: str = STAMPS[0]) -> str:
    return "".join(f"{line.format(stamp)}\n" for line in lines)


@pytest.mark.parametrize("stamp", STAMPS)
@pytest.mark.parametrize("line", [OOMD, MARKED])
def test_systemd_oomd(line: str, stamp: str) -> None:
    (event,) = events(text_of(line, MANAGER, stamp=stamp))
    assert (event.kind, event.kills, event.victims) == ("oomd_kill", 0, ())
    assert event.oomd is not None
    assert (event.oomd.unit, event.oomd.processes) == ("web.service", 3)
    (alone,) = events(text_of(line, stamp=stamp))
    assert alone.oomd is not None and alone.oomd.processes is None
    assert len(events(text_of(line, line.replace("web", "db"), stamp=stamp))) == 2


@pytest.mark.parametrize("stamp", STAMPS)
def test_earlyoom(stamp: str) -> None:
    (event,) = events(text_of(*EARLYOOM, stamp=stamp))
    assert (event.kind, event.kills, event.victims) == ("user_kill", 0, ())
    kill = event.user_kill
    assert kill is not None
    assert (kill.program, kill.pid, kill.comm, kill.uid, kill.signal) == (
        "earlyoom",
        5017,
        "chrome",
        1000,
        "SIGTERM",
    )
    assert (kill.rss_bytes, kill.score, kill.command_line) == (300 << 20, 1100, "/opt/chrome")
    assert (kill.available_ratio, kill.swap_free_bytes) == (0.1248, 90 << 20)
    shown = render_text(event, width=100, color=False)
    assert "chrome" in shown and "SIGTERM by earlyoom" in shown


def test_a_second_signal_to_the_same_process_is_the_same_kill() -> None:
    second = EARLYOOM[2].replace("SIGTERM", "SIGKILL")
    (event,) = events(text_of(*EARLYOOM[:3], second, EARLYOOM[3]))
    assert event.user_kill is not None and event.user_kill.signal == "SIGKILL"
    other = EARLYOOM[2].replace("5017", "5018")
    assert len(events(text_of(*EARLYOOM[:3], other))) == 2


@pytest.mark.parametrize(
    "words",
    [
        'sending SIGTERM to process 5 uid 0 "a": badness 733, VmRSS 3 MiB',
        'sending SIGKILL to process 5 "a": badness 733, VmRSS 3 MiB',
        'sending SIGKILL to process 5 uid 0 "a": oom_score 1, oom_score_adj 0, VmRSS 3 MiB, cmdline "x "y""',
        'sending SIGKILL to process 5 uid 0 "a": oom_score 1, oom_score_adj 0, badness 9 KiB, VmRSS 3 MiB,'
        ' ordering rss, cmdline "x"',
    ],
)
def test_earlyooms_wordings(words: str) -> None:
    (event,) = events(f"Jan 04 21:53:13 box earlyoom[1]: {words}\n")
    assert event.user_kill is not None
    assert (event.user_kill.pid, event.user_kill.comm, event.user_kill.rss_bytes) == (5, "a", 3 << 20)


def test_nohang() -> None:
    (event,) = events(text_of(*NOHANG))
    assert event.user_kill is not None
    kill = event.user_kill
    assert (kill.program, kill.pid, kill.comm, kill.signal) == ("nohang", 4208, "tail", "SIGKILL")
    assert len(events(text_of(*NOHANG, *(line.replace("4208", "4209") for line in NOHANG)))) == 2


def test_a_dry_run_of_earlyoom_kills_nobody() -> None:
    dry = "{} earlyoom[1579]: dryrun, not actually sending any signal"
    assert events(text_of(*EARLYOOM[:3], dry, *EARLYOOM[:3], dry)) == []
    (event,) = events(text_of(*EARLYOOM[:3], dry, EARLYOOM[2].replace("5017", "5018")))
    assert event.user_kill is not None and event.user_kill.pid == 5018


def test_what_they_say_besides_is_no_event() -> None:
    assert events("Jan 04 21:53:13 box earlyoom[1]: process 5017 exited after 0.1 seconds\n") == []
    assert events("Jan 04 21:53:13 box systemd-oomd[1]: Considered 50 cgroups for killing\n") == []
    assert events("the journal says systemd-oomd kills when pressure is high, as earlyoom does\n") == []


def test_they_stand_between_the_kernels_own() -> None:
    kernel = (
        "{} kernel: Out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB,"
        " shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0"
    )
    kinds = [event.kind for event in events(text_of(OOMD, kernel, *EARLYOOM))]
    assert sorted(kinds) == ["oom_kill", "oomd_kill", "user_kill"]


def test_as_it_comes() -> None:
    log, told = GrowingLog(), 0
    told += len(list(log.feed(text_of(*EARLYOOM).encode())))
    for n in range(4):
        told += len(log.rest(n * REST_SECONDS))
    assert told == 1


def test_the_negative_texts_hold_these_alone() -> None:
    directory = Path(__file__).parent / "data" / "negative"
    kinds = {path.name: [event.kind for event in events(path.read_text())] for path in directory.iterdir()}
    assert {name: found for name, found in kinds.items() if found} == {
        "n06b-systemd-oomd-considered.txt": ["oomd_kill"],
        "n10-earlyoom.txt": ["user_kill"],
    }
