"""Twenty inputs on which other detectors were seen to fail (lost, doubled, fooled), each as a test.

Where a case needs a running daemon it is a test of its own: 3 (ring overrun) and 4 (restart) in
tests/faults and tests/kernel, 20 (time) in tests/test_event.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord, parse_record
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.storms import Fold
from oomwatchd.sources.text import TextReader
from tests.blocks import read_records, scenarios

KERNEL = "kernel/6.1.0-50-cloud-amd64-amd64.kmsg.gz"
BURST = "recordings/k6.18-cgv1-burst40-10blocks.kmsg"
GROUP = "recordings/k6.1-cgv2-group-burst45-global-with-markvictim.kmsg"
CONTAINER = "9f02d9fa0049eb2655fc83c765f142362b2cb403b57b70ba3185071015ca3b64"
POD = "d11ab7b0-d6db-4a24-a7de-4a2faf1e6980"
SIZES = "total-vm:5100kB, anon-rss:3584kB, file-rss:652kB, shmem-rss:0kB, UID:0 pgtables:44kB oom_score_adj:0"


def events(items: Sequence[KmsgRecord | KmsgGap], boot_id: str | None = "b") -> list[OomEvent]:
    """What the live line makes of these records, each report as it was at last."""
    assembler, fold = Assembler(), Fold()
    signals = [signal for item in items for signal in assembler.feed(item)] + assembler.flush()
    folded = [f for s in signals if isinstance(s, OomBlock) for f in fold.take(s)] + fold.flush()
    last = {each.block.records[0].seq or -n: each for n, each in enumerate(folded, 1)}
    return [
        conclude(
            OomCapture(
                source=Source(kind="kmsg", form="kmsg", boot_id=boot_id),
                records=each.block.records,
                first_seq=each.block.records[0].seq,
                last_seq=(each.last or each.block.records[-1]).seq,
                lost_records=each.block.lost_records,
                repeats=each.repeats,
            )
        ).event
        for each in last.values()
    ]


def escaped(name: bytes) -> bytes:
    """As /dev/kmsg prints it (msg_add_ext_text())."""
    return b"".join(bytes((c,)) if 32 <= c < 127 and c != 92 else b"\\x%02x" % c for c in name)


def report(
    comm: bytes = b"x", cgroup: bytes = b"/dt", *, pid: int = 77, seq: int = 100, priority: int = 0
) -> list[KmsgRecord | KmsgGap]:
    """The essential records of a cgroup's OOM, as the device gives them."""
    name, path = escaped(comm), escaped(cgroup)
    lines = [
        b"%s invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0" % name,
        b"CPU: 1 PID: %d Comm: %s Not tainted 6.1.0 #1" % (pid, name),
        b"memory: usage 16384kB, limit 16384kB, failcnt 34",
        b"Memory cgroup stats for %s:" % path,
        b"Tasks state (memory values in pages):",
        b"[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        b"[%7d]     0 %5d     1275     1059    45056        0             0 %s" % (pid, pid, name),
        b"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=%s,"
        b"task_memcg=%s,task=%s,pid=%d,uid=0" % (path, path, name, pid),
        b"Memory cgroup out of memory: Killed process %d (%s) %s" % (pid, name, SIZES.encode()),
    ]
    raw = [b"%d,%d,%d,-;%s" % (priority + 4, seq + n, 1_000_000 + n, line) for n, line in enumerate(lines)]
    return [record for line in raw if (record := parse_record(line))]


def text_events(text: str) -> list[OomEvent]:
    reader = TextReader()
    records = [*reader.feed(text.encode()), *reader.flush()]
    return events(list(records), None)


def between(corpus: Path, name: str) -> list[KmsgRecord | KmsgGap]:
    """The records of one scenario."""
    found = scenarios(corpus / KERNEL)
    number = next(n for n, scenario in enumerate(found) if scenario.name == name)
    end = found[number + 1].after_seq if number + 1 < len(found) else 1 << 60
    return [
        record
        for record in read_records(corpus / KERNEL)
        if record.seq is not None and found[number].after_seq < record.seq <= end
    ]


def test_1_forty_fast_kills_are_forty(corpus: Path) -> None:
    found = events(list(read_records(corpus / BURST)))
    named = [v.pid for event in found for v in event.victims if v.comm.startswith("mv")]
    lines = sum("Killed process" in r.text for r in read_records(corpus / BURST) if r.facility == 0)
    assert sum(event.kills for event in found) == lines >= 40
    assert len(set(named)) == len(named)
    assert sum("header" in event.missing for event in found) >= 20


def test_2_a_group_of_six_is_one_event_of_seven_kill_lines(corpus: Path) -> None:
    group = [e for e in events(list(read_records(corpus / GROUP))) if len(e.victims) == 6]
    assert group
    for event in group:
        assert event.kills == 7  # as the kernel counts: the first victim twice
        assert sorted(v.kills for v in event.victims) == [1, 1, 1, 1, 1, 2]
        assert [v.role for v in event.victims].count("selected") == 1


def test_4_read_again_after_a_restart_the_ids_are_the_same(corpus: Path) -> None:
    records = list(read_records(corpus / GROUP))
    assert [e.id for e in events(records)] == [e.id for e in events(records)]
    assert len({e.id for e in events(records)}) == len(events(records))


@pytest.mark.parametrize("facility", [1, 3, 23])
def test_5_a_fake_report_of_user_space_is_none(facility: int) -> None:
    assert events(report(priority=facility << 3)) == []


HOSTILE_CGROUPS = [
    b"/Killed process 1 (systemd) total-vm:1kB, anon-rss:1kB, file-rss:0kB",
    b"/dt/z,task_memcg=/kubepods/x,task=fake,pid=77,uid=0",
    b"/a,oom_memcg=/b",
    b"/x invoked oom-killer: gfp_mask=0x0(), order=0",
    b"/Out of memory and no killable processes...",
    b"/%s%n%d{0}{x}",
    "/\N{SNOWMAN}\x1b[31m".encode(),
    b"/" + b"n" * 255,
]


@pytest.mark.parametrize("cgroup", HOSTILE_CGROUPS)
def test_6_and_8_the_name_of_a_cgroup_rewrites_nothing(cgroup: bytes) -> None:
    (event,) = events(report(b"leak", cgroup))
    assert [(v.pid, v.comm, v.kills) for v in event.victims] == [(77, "leak", 1)]
    assert event.memcg is not None
    assert event.memcg.oom_path == event.memcg.task_path == cgroup.decode()
    assert event.constraint == "memcg"


HOSTILE_COMMS = [
    b",task=y,pid=1",
    b"a,pid=1,uid=0",
    b"x\ny",
    "caf\u00e9".encode(),
    b"\x1b[31mred",
    b"\xff\xfe\x80",
    b"a) b: c",
    b"(((",
    b"100% %s%n",
    b"\"q'",
    b" lead trail ",
    b"",
    b"oom-kill:",
    b"Killed process",
    b"x=1,task=init",
    b"\\x0a",
]


@pytest.mark.parametrize("comm", HOSTILE_COMMS)
def test_7_9_and_10_the_name_of_a_process_is_only_a_name(comm: bytes) -> None:
    (event,) = events(report(comm))
    shown = comm.decode("utf-8", "backslashreplace")
    assert [(v.pid, v.comm, v.kills) for v in event.victims] == [(77, shown, 1)]
    assert event.trigger.comm == shown
    assert event.memcg is not None and event.memcg.task_path == "/dt"


@pytest.mark.parametrize(
    ("scenario", "constraint"),
    [
        ("cpuset", "cpuset"),
        ("mempolicy", "memory_policy"),
        ("global_many", "none"),
        ("sysrq", "none"),
        ("memcg", "memcg"),
    ],
)
def test_11_each_constraint_has_its_name(corpus: Path, scenario: str, constraint: str) -> None:
    found = events(between(corpus, scenario))
    assert {event.constraint for event in found} == {constraint}
    assert all(
        event.memcg is None or constraint == "memcg" or event.memcg.oom_path is None for event in found
    )


def test_12_no_killable_processes_is_an_event_that_counts_its_repeats(corpus: Path) -> None:
    records = between(corpus, "unkillable")
    found = events(records)
    lines = sum("no killable" in r.text for r in records if isinstance(r, KmsgRecord))
    stormy = [event for event in found if event.kind == "oom_no_victim"]
    assert sum(1 + event.repeats for event in stormy) == lines > 600
    assert len(stormy) < 4
    assert all("no_killable_process" in {finding.id for finding in event.findings} for event in stormy)


@pytest.mark.parametrize("qos", ["", "burstable", "besteffort"])
@pytest.mark.parametrize("driver", ["cgroupfs", "systemd"])
def test_13_and_14_every_class_and_driver_finds_its_pod(qos: str, driver: str) -> None:
    if driver == "cgroupfs":
        path = "/kubepods" + (f"/{qos}" if qos else "") + f"/pod{POD}/{CONTAINER}"
    else:
        slices = f"/kubepods-{qos}.slice/kubepods-{qos}" if qos else "/kubepods"
        path = f"/kubepods.slice{slices}-pod{POD.replace('-', '_')}.slice/cri-containerd-{CONTAINER}.scope"
    owner = owner_of(path)
    assert (owner.pod_uid, owner.container_id) == (POD, CONTAINER)


def test_15_crio_scopes_are_understood() -> None:
    pod = POD.replace("-", "_")
    owner = owner_of(f"/kubepods.slice/kubepods-pod{pod}.slice/crio-{CONTAINER}.scope")
    assert (owner.container_id, owner.container_runtime, owner.pod_uid) == (CONTAINER, "cri-o", POD)


def test_16_a_report_cut_off_costs_not_the_next() -> None:
    found = events([*report(b"first", pid=7)[:5], *report(b"second", pid=8, seq=200)])
    assert [[v.comm for v in event.victims] for event in found] == [[], ["second"]]
    assert not found[0].complete


def test_17_interleaved_reports_are_two(corpus: Path) -> None:
    one, other = report(b"one", b"/1", pid=7), report(b"other", b"/2", pid=8)
    mixed: list[KmsgRecord | KmsgGap] = []
    for n, pair in enumerate(zip(one, other, strict=True)):
        for m, record in enumerate(pair):
            assert isinstance(record, KmsgRecord)
            raw = b"4,%d,%d,-,caller=T%d;" % (100 + 2 * n + m, 1_000_000 + n, 7 + m)
            parsed = parse_record(raw + record.raw.partition(b";")[2])
            assert parsed is not None
            mixed.append(parsed)
    found = events(mixed)
    assert [[(v.pid, v.comm) for v in event.victims] for event in found] == [[(7, "one")], [(8, "other")]]
    assert [event.memcg and event.memcg.oom_path for event in found] == ["/1", "/2"]


def test_18_records_lost_inside_a_report_are_counted_and_reading_goes_on() -> None:
    records = report(b"first", pid=7)
    found = events([*records[:3], KmsgGap(3), *records[6:], *report(b"second", pid=8, seq=200)])
    assert [(e.lost_records, [v.comm for v in e.victims]) for e in found] == [(3, ["first"]), (0, ["second"])]


def test_19_the_kill_line_of_rhel_6_swallows_nothing() -> None:
    found = text_events(
        "[ 1.000000] Killed process 2592, UID 48, (httpd) total-vm:1kB, anon-rss:1kB, file-rss:0kB\n"
        "[ 9.000000] Killed process 2593, UID 48, (httpd) total-vm:1kB, anon-rss:1kB, file-rss:0kB\n"
    )
    assert [(v.pid, v.uid, v.comm) for event in found for v in event.victims] == [
        (2592, 48, "httpd"),
        (2593, 48, "httpd"),
    ]


def test_20_time_is_the_kernels_stamp_and_the_offset_at_reading() -> None:
    records = tuple(record for record in report() if isinstance(record, KmsgRecord))
    for offset in (1_000_000_000.25, 1_000_000_000.25 - 3600):  # the clock was set back in between
        event = conclude(
            OomCapture(
                source=Source(kind="kmsg", form="kmsg", boot_id="b"),
                records=records,
                first_seq=records[0].seq,
                wall_offset=offset,
            )
        ).event
        assert event.time.kernel_seconds == 1.0
        assert event.time.wall is not None and event.time.wall.endswith(":41.250Z")
