"""The journal as a source: real journal files, made from recorded kernels, and a journald run by hand."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from oomwatchd.cli import throwaway
from oomwatchd.config import parse
from oomwatchd.daemon.clocks import now
from oomwatchd.daemon.watch import Watch
from oomwatchd.daemon.worker import Worker
from oomwatchd.errors import NoInputError, OomwatchdError, PermissionDeniedError, UnavailableError
from oomwatchd.event import OomEvent
from oomwatchd.metrics import Metrics
from oomwatchd.observe.host import read_host
from oomwatchd.observe.snapshot import Snapshots
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgGap, KmsgRecord, parse_record
from oomwatchd.records.report import OomReport
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.sources.journal import Journal, JournalSource, read_journal
from oomwatchd.sources.manager import ManagerJournal
from oomwatchd.sources.text import TextReader
from oomwatchd.store import Store
from tests.blocks import blocks_of, read_records, report_of, scenarios
from tests.conftest import corpus_directory
from tests.journals import REALTIME, TOOLS, Entry, entry, kernel_entry, write_journal
from tests.waiting import PATIENCE

if not TOOLS:
    pytest.skip("systemd-journal-remote is not installed", allow_module_level=True)

BOOT_A = "a" * 32
BOOT_B = "b" * 32
HOUR = 3_600_000_000
JOURNALD = Path("/lib/systemd/systemd-journald")
NOBODY = 65534

Item = KmsgRecord | KmsgGap


def raw_lines(recording: Path) -> list[bytes]:
    data = recording.read_bytes()
    lines = (gzip.decompress(data) if recording.suffix == ".gz" else data).splitlines()
    return [line for line in lines if not line.startswith(b" ") and parse_record(line)]


def entries(recording: Path, boot_id: str = BOOT_A, *, offset_usec: int = 0) -> list[Entry]:
    return [kernel_entry(line, boot_id, offset_usec=offset_usec) for line in raw_lines(recording)]


def read(directory: Path, **wanted: str | int | float) -> dict[str, list[Item]]:
    """Boot id -> what was read of it."""
    # each test passes some of read_journal()'s keywords, which have different types
    return {boot.id: list(items) for boot, items in read_journal(directory=directory, **wanted)}  # type: ignore[arg-type]


def reports(items: list[Item]) -> list[OomReport]:
    assembler = Assembler(early=False)
    signals = [signal for item in items for signal in assembler.feed(item)] + assembler.flush()
    # wall-clock time is what the journal adds
    return [replace(report_of(block), first_wall=None) for block in signals if isinstance(block, OomBlock)]


@pytest.mark.parametrize(
    "recording",
    [
        *sorted((corpus_directory() / "kernel").glob("*.kmsg.gz")),
        *sorted((corpus_directory() / "samples").glob("*.kmsg.gz")),
    ],
    ids=lambda path: path.name,
)
def test_the_journal_tells_what_the_ring_told(recording: Path, tmp_path: Path) -> None:
    write_journal(tmp_path, entries(recording))
    found = reports(read(tmp_path)[BOOT_A])
    assert found == [report_of(block) for block in blocks_of(read_records(recording))]
    if recording.parent.name == "kernel":
        # the recording ends with the last scenario, the counts are the kernel's own
        assert sum(report.kills for report in found) == sum(one.kills for one in scenarios(recording))


def test_records_keep_stamp_level_and_bytes(tmp_path: Path) -> None:
    line = rb"3,7,1500000,-;name \x0a \xff\xfe \x1b[31m \x5cx41 \xc3\xa4 \x00 end"
    write_journal(tmp_path, [kernel_entry(line, BOOT_A)])
    (record,) = read(tmp_path)[BOOT_A]
    raw = parse_record(line)
    assert isinstance(record, KmsgRecord) and raw is not None
    assert record.text == raw.text
    assert (record.usec, record.level, record.facility) == (1_500_000, 3, FACILITY_KERN)
    assert record.wall == (REALTIME + 1_500_000) / 1e6
    assert record.seq is None and record.is_whole


def test_it_equals_the_export_text_of_the_same_journal(corpus: Path, tmp_path: Path) -> None:
    write_journal(tmp_path, entries(corpus / "samples" / "6.12-cg2.kmsg.gz"))
    text = subprocess.run(
        ["journalctl", "-D", tmp_path, "-o", "export", "--all"], check=True, capture_output=True
    ).stdout
    reader = TextReader()
    exported = reader.feed(text) + reader.flush()
    mine = [item for item in read(tmp_path)[BOOT_A] if isinstance(item, KmsgRecord)]
    assert [(r.text, r.usec, r.wall, r.level, r.facility) for r in mine] == [
        (r.text, r.usec, r.wall, r.level, r.facility) for r in exported
    ]


def test_entries_of_user_space_make_no_report(corpus: Path, tmp_path: Path) -> None:
    lines = raw_lines(corpus / "samples" / "6.12-cg2.kmsg.gz")
    forged = [
        # a client that takes the kernel's name
        entry(one["MESSAGE"], BOOT_A, n, _TRANSPORT=b"syslog", SYSLOG_IDENTIFIER=b"kernel", PRIORITY=b"3")
        for n, one in enumerate(kernel_entry(line, BOOT_A) for line in lines)
    ]
    # a client that writes to /dev/kmsg: journald says kernel, and which facility it was
    forged += [
        {**kernel_entry(line, BOOT_A), "SYSLOG_FACILITY": b"1", "SYSLOG_IDENTIFIER": b"unknown"}
        for line in lines
    ]
    # a client that says journald missed records
    forged.append(
        entry(b"Missed 9 kernel messages", BOOT_A, 9, _TRANSPORT=b"journal",
              MESSAGE_ID=b"e9bf28e6e834481bb6f48f548ad13606")
    )  # fmt: skip
    write_journal(tmp_path, forged)
    items = read(tmp_path)[BOOT_A]
    assert len(items) == len(lines)
    assert all(isinstance(item, KmsgRecord) and item.facility == 1 for item in items)
    assert reports(items) == []


def test_kern_is_the_facility_where_old_journald_left_it_out(tmp_path: Path) -> None:
    old = kernel_entry(b"3,7,1500000,-;text", BOOT_A)
    del old["SYSLOG_FACILITY"]
    write_journal(tmp_path, [old])
    (record,) = read(tmp_path)[BOOT_A]
    assert isinstance(record, KmsgRecord) and record.facility == FACILITY_KERN


def test_what_journald_missed_is_a_gap_inside_the_report(corpus: Path, tmp_path: Path) -> None:
    one = entries(corpus / "samples" / "6.12-cg2.kmsg.gz")
    header = next(n for n, each in enumerate(one) if b"invoked oom-killer" in each["MESSAGE"])
    at = header + 20
    usec = int(one[at - 1]["__MONOTONIC_TIMESTAMP"])
    missed = entry(
        b"Missed 5 kernel messages", BOOT_A, usec, _TRANSPORT=b"driver", PRIORITY=b"4",
        MESSAGE_ID=b"e9bf28e6e834481bb6f48f548ad13606",
    )  # fmt: skip
    write_journal(tmp_path, [*one[:at], missed, *one[at + 5 :]])
    items = read(tmp_path)[BOOT_A]
    assert [item for item in items if isinstance(item, KmsgGap)] == [KmsgGap(5)]
    first = reports(items)[0]
    assert first.lost_records == 5 and not first.complete


def two_boots(corpus: Path, directory: Path) -> tuple[list[OomReport], list[OomReport]]:
    """Boot B of another host began an hour after A; one file each, as rotation and merging leave them."""
    first, second = (corpus / "samples" / name for name in ("6.12-cg2.kmsg.gz", "5.4-cg2.kmsg.gz"))
    write_journal(directory, entries(second, BOOT_B, offset_usec=HOUR), "system.journal")
    write_journal(directory / ("2" * 32), [
        {**one, "_HOSTNAME": b"elsewhere"} for one in entries(first, BOOT_A)
    ], "a.journal")  # fmt: skip
    expected = [[report_of(block) for block in blocks_of(read_records(one))] for one in (first, second)]
    return expected[0], expected[1]


def test_boots_are_told_apart(corpus: Path, tmp_path: Path) -> None:
    first, second = two_boots(corpus, tmp_path)
    found = read(tmp_path)
    assert list(found) == [BOOT_A, BOOT_B]
    assert reports(found[BOOT_A]) == first
    assert reports(found[BOOT_B]) == second
    journal = Journal.open(tmp_path)
    assert [boot.hostname for boot in journal.boots()] == ["elsewhere", "board"]
    journal.close()


@pytest.mark.parametrize(
    ("boot", "chosen"),
    [
        (None, [BOOT_A, BOOT_B]),
        (0, [BOOT_B]),
        (-1, [BOOT_A]),
        (1, [BOOT_A]),
        (2, [BOOT_B]),
        (BOOT_B, [BOOT_B]),
        ("AAAAAAAA-aaaa-aaaa-aaaa-aaaaaaaaaaaa", [BOOT_A]),
    ],
)
def test_a_boot_is_chosen_as_journalctl_does(
    boot: str | int | None, chosen: list[str], tmp_path: Path
) -> None:
    write_journal(
        tmp_path,
        [
            kernel_entry(b"3,7,1500000,-;text", BOOT_A),
            kernel_entry(b"3,7,1500000,-;text", BOOT_B, offset_usec=HOUR),
        ],
    )
    journal = Journal.open(tmp_path)
    assert [one.id for one in journal.select(boot)] == chosen
    journal.close()


@pytest.mark.parametrize("boot", [3, -2, "c" * 32, "nonsense", "\x1b[31m"])
def test_a_boot_that_is_not_there_is_one_clear_line(boot: str | int, tmp_path: Path) -> None:
    write_journal(tmp_path, [kernel_entry(b"3,7,1500000,-;text", BOOT_A)])
    with pytest.raises(NoInputError, match="has no boot") as raised:
        list(read_journal(boot=boot, directory=tmp_path))
    assert raised.value.hint and "\x1b" not in str(raised.value)


def test_since_leaves_out_what_is_older(corpus: Path, tmp_path: Path) -> None:
    recording = corpus / "samples" / "6.12-cg2.kmsg.gz"
    write_journal(tmp_path, entries(recording))
    every = [r for r in read_records(recording) if r.usec is not None]
    middle = every[len(every) // 2].usec
    assert middle is not None
    found = read(tmp_path, since=(REALTIME + middle) / 1e6)[BOOT_A]
    assert len(found) == sum(1 for r in every if (r.usec or 0) >= middle)
    assert read(tmp_path, since=(REALTIME + 100 * HOUR) / 1e6) == {}


def test_a_damaged_file_gives_what_can_be_read(corpus: Path, tmp_path: Path) -> None:
    file = write_journal(tmp_path, entries(corpus / "samples" / "6.12-cg2.kmsg.gz"))
    whole = len(read(tmp_path)[BOOT_A])
    data = bytearray(file.read_bytes())
    middle = data.find(b"MESSAGE=Memory cgroup out of memory")
    data[middle : middle + 20_000] = b"\xa5" * 20_000
    file.write_bytes(data)
    assert 0 < len([item for item in read(tmp_path)[BOOT_A] if isinstance(item, KmsgRecord)]) < whole


def test_a_field_whose_name_is_no_text_costs_its_entry_only(corpus: Path, tmp_path: Path) -> None:
    file = write_journal(tmp_path, entries(corpus / "samples" / "6.12-cg2.kmsg.gz"))
    whole = len(read(tmp_path)[BOOT_A])
    data = file.read_bytes()
    file.write_bytes(data.replace(b"MESSAGE=Memory cgroup out", b"\xff\xfeSSAGE=Memory cgroup out"))
    found = read(tmp_path)[BOOT_A]
    gaps = sum(isinstance(item, KmsgGap) for item in found)
    assert len(found) == whole and 0 < gaps < whole


class Broken:
    """A reader none of whose entries can be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def fileno(self) -> int:
        return -1

    def process(self) -> None: ...

    def get_next(self) -> dict[str, object]:
        raise self.error


@pytest.mark.parametrize("error", [OSError(74, "Bad message"), UnicodeError("no text")])
def test_a_journal_of_which_nothing_can_be_read_is_given_up(error: Exception) -> None:
    with pytest.raises(UnavailableError, match="the journal is damaged"):
        JournalSource(Broken(error), "the journal").read()
    with pytest.raises(UnavailableError, match="the journal is damaged"):
        ManagerJournal(Broken(error), "the journal").read()


def test_no_journal_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no directory"):
        Journal.open(tmp_path / "absent")
    with pytest.raises(NoInputError, match="no journal files"):
        Journal.open(tmp_path)


def as_nobody(call: Callable[[], None]) -> str:
    """What the call says of its failure in a process without rights."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "no error"
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            call()
        except OomwatchdError as error:
            said = f"{error.exit_status} {error}"
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give up its rights")
def test_a_closed_journal_names_the_group_that_may_read_it() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        file = write_journal(directory, [kernel_entry(b"3,7,1500000,-;text", BOOT_A)])
        directory.chmod(0o755)
        file.chmod(0o640)
        said = as_nobody(lambda: Journal.open(directory).close())
        assert said.startswith(f"{PermissionDeniedError.exit_status} ")
        assert "systemd-journal" in said
        directory.chmod(0o700)
        said = as_nobody(lambda: Journal.open(directory).close())
        assert said.startswith(f"{PermissionDeniedError.exit_status} ")


# -- live: journald itself, in a mount namespace of its own ------------------------------------------


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Path]:
    """The directory of a running journald that reads the kernel log of this machine."""
    if os.geteuid() != 0 or not JOURNALD.exists() or shutil.which("unshare") is None:
        pytest.skip("needs root, systemd-journald and unshare")
    script = tmp_path / "journald.sh"
    script.write_text(
        "set -e\n"
        "mount --make-rprivate /\n"
        "mount -t tmpfs tmpfs /run\n"
        "mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log\n"
        # auditing is the machine's, and not ours to switch on
        "printf '[Journal]\\nAudit=no\\nStorage=volatile\\nReadKMsg=yes\\n' "
        "> /run/systemd/journald.conf.d/test.conf\n"
        f"exec {JOURNALD}\n"
    )
    process = subprocess.Popen(["unshare", "-m", "sh", script], stderr=subprocess.PIPE)
    directory = Path(f"/proc/{process.pid}/root/run/log/journal")
    try:
        deadline = time.monotonic() + PATIENCE
        while not list(directory.glob("*/system.journal")):
            if process.poll() is not None or time.monotonic() > deadline:
                assert process.stderr is not None
                process.kill()
                pytest.skip(f"journald does not run here: {process.stderr.read()!r}")
            time.sleep(0.05)
        # it reads the whole ring first, which the kills of other tests may have filled
        source = JournalSource.open(directory)
        mark = f"oomwatchd test {os.getpid()} {time.monotonic_ns()}: journald reads"
        write_kmsg(mark)
        follow(source, lambda record: record.text == mark)
        source.close()
        yield directory
    finally:
        process.terminate()
        process.wait()


def follow(
    source: JournalSource, until: Callable[[KmsgRecord], bool], seconds: float = PATIENCE
) -> list[KmsgRecord]:
    """What comes, woken by the descriptor alone, up to the record that is waited for."""
    found: list[KmsgRecord] = []
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        drained = False
        while True:
            if drained and not selector.select(max(0.0, deadline - time.monotonic())):
                raise AssertionError(f"not seen within {seconds} s, but {found[-3:]}")
            items, drained = source.read()
            for item in items:
                if isinstance(item, KmsgRecord):
                    found.append(item)
                    if until(item):
                        return found


def write_kmsg(text: str) -> None:
    descriptor = os.open("/dev/kmsg", os.O_WRONLY)
    try:
        os.write(descriptor, f"<3>{text}\n".encode())
    finally:
        os.close(descriptor)


def test_what_user_space_writes_is_followed_and_is_not_the_kernels(journald: Path) -> None:
    source = JournalSource.open(journald)
    mark = f"oomwatchd test {os.getpid()} {time.monotonic_ns()}"
    write_kmsg(f"{mark} first")
    follow(source, lambda record: record.text == f"{mark} first")
    write_kmsg(f"{mark} invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0")
    last = follow(source, lambda record: record.text.startswith(f"{mark} invoked"))[-1]
    assert last.facility == 1
    assert blocks_of([last]) == []
    source.close()


def test_every_start_reads_the_whole_boot(journald: Path) -> None:
    first = JournalSource.open(journald)
    mark = f"oomwatchd test {os.getpid()} {time.monotonic_ns()}"
    write_kmsg(mark)
    once = follow(first, lambda record: record.text == mark)
    first.close()
    second = JournalSource.open(journald)
    again = follow(second, lambda record: record.text == mark)
    assert again == once
    second.close()


def test_what_was_read_long_ago_is_passed_over(journald: Path) -> None:
    first = JournalSource.open(journald)
    mark = f"oomwatchd test {os.getpid()} {time.monotonic_ns()}"
    write_kmsg(f"{mark} 1")
    follow(first, lambda record: record.text == f"{mark} 1")
    first.close()
    time.sleep(0.1)
    between = time.monotonic_ns() // 1000
    time.sleep(0.1)
    write_kmsg(f"{mark} 2")
    whole = JournalSource.open(journald)
    whole.skip_to(-5)
    # and journald has taken the second: a place behind all entries is none
    assert any(r.text == f"{mark} 1" for r in follow(whole, lambda record: record.text == f"{mark} 2"))
    whole.close()
    second = JournalSource.open(journald)
    second.skip_to(between)
    found = [record.text for record in follow(second, lambda record: record.text == f"{mark} 2")]
    assert f"{mark} 1" not in found
    second.close()


@pytest.mark.oom
def test_a_real_kill_comes_through_journald(journald: Path) -> None:
    source = JournalSource.open(journald)
    with throwaway.victim() as victim:
        victim.exceed()
        victim.wait(20)
        name = victim.comm
        records = follow(source, lambda r: "Killed process" in r.text and name in r.text)
    (block,) = [
        b for b in blocks_of(records) if report_of(b).victims and report_of(b).victims[0].comm == name
    ]
    report = report_of(block)
    assert report.kills == 1 and report.constraint == "memcg"
    source.close()


@pytest.mark.oom
def test_the_watch_goes_on_in_the_journal_where_the_ring_is_closed(journald: Path, tmp_path: Path) -> None:
    """A real kill is stored and counted once, though every start reads the whole boot."""
    host = read_host()
    state = parse({"state_directory": str(tmp_path), "sinks": {"journal": {"enabled": False}}}, "test")
    began: int | None = None
    name = ""
    for start in (1, 2):
        metrics, seen = Metrics(), list[OomEvent]()
        worker = Worker(state, metrics, seen.append)
        worker.open()
        metrics.load(worker.earlier(host.boot_id).counters())
        worker.start()
        source = JournalSource.open(journald)
        watch = Watch(source, host, Snapshots(host), metrics, worker.submit, now, began_seq=began)
        while not watch.read():
            pass
        watch.catch_up_done()
        began = watch.began_seq
        if start == 1:
            with throwaway.victim() as victim:
                victim.exceed()
                victim.wait(20)
                name = victim.comm
            deadline = time.monotonic() + PATIENCE
            while not any(name in event.summary for event in seen):
                assert time.monotonic() < deadline, "the kill was not told"
                watch.read()
                watch.tick()
        watch.flush()
        assert worker.stop(10)
        source.close()
        with contextlib.closing(Store.open_reader(tmp_path)) as store:
            [row] = [row for row in store.list(limit=1000) if row.victim_comm == name]
            capture = store.get(row.id)
        assert capture is not None and not capture.historical
        assert (capture.source.kind, capture.first_seq) == ("journal", None)
        mine = [event for event in seen if name in event.summary]
        assert len(mine) == (1 if start == 1 else 0)


# -- the command -------------------------------------------------------------------------------------


def analyze(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [
        sys.executable,
        "-m",
        "oomwatchd",
        "analyze",
        "--format",
        "jsonl",
        "--journal",
        *map(str, words),
    ]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)


def test_analyze_reads_the_boot_that_is_asked_for(corpus: Path, tmp_path: Path) -> None:
    first, second = two_boots(corpus, tmp_path)
    for words, boots in (
        ((), [*[BOOT_A] * len(first), *[BOOT_B] * len(second)]),
        (("--boot", "0"), [BOOT_B] * len(second)),
        (("--boot", "-1"), [BOOT_A] * len(first)),
        (("--since", "2100-01-01"), []),
    ):
        shown = analyze("--directory", tmp_path, *words)
        assert shown.returncode == 0
        events = [json.loads(line) for line in shown.stdout.splitlines()]
        assert [event["source"]["boot_id"] for event in events] == boots
        assert {event["source"]["kind"] for event in events} <= {"journal"}
    again = analyze("--directory", tmp_path)
    ids = [json.loads(line)["id"] for line in again.stdout.splitlines()]
    assert len(set(ids)) == len(ids) == len(first) + len(second)


@pytest.mark.parametrize(
    ("words", "status"),
    [(("--boot", "-7"), 66), (("--pstore",), 64), (("file",), 64), (("--since", "yore"), 64)],
)
def test_analyze_says_in_one_line_what_is_wrong(words: tuple[str, ...], status: int, tmp_path: Path) -> None:
    write_journal(tmp_path, [kernel_entry(b"3,7,1500000,-;text", BOOT_A)])
    shown = analyze("--directory", tmp_path, *words)
    assert shown.returncode == status
    assert len(shown.stderr.splitlines()) == 1
