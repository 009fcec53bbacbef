"""pstore as a source: the panics of real kernels, cut into parts as the kernel's backends keep them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatchd.errors import NoInputError
from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.sources.pstore import PstoreDump, read_directory, read_pstore
from tests.blocks import blocks_of, report_of
from tests.conftest import corpus_directory

PANICS = sorted((corpus_directory() / "kernel").glob("*.panic.gz"))
SYSTEMD_PSTORE = Path("/lib/systemd/systemd-pstore")
NO_MOUNTS = Path("/dev/null")
#: when the board panicked, seconds since the epoch
WHEN = 1_760_000_000
EFI_BYTES = 1024
RAMOOPS_BYTES = 4096


def log_of(panic: Path) -> list[bytes]:
    """The console text as the kernel hands it to pstore."""
    lines = gzip.decompress(panic.read_bytes()).replace(b"\r", b"").rstrip(b"\n").split(b"\n")
    return [b"<4>" + line for line in lines if line.startswith(b"[")]


def parts_of(lines: Iterable[bytes], size: int, reason: bytes = b"Panic#1") -> list[bytes]:
    """Part 1, part 2 ... as pstore_dump() makes them: whole lines from the end of the log backwards."""
    rest = list(lines)
    parts: list[bytes] = []
    while rest:
        taken: list[bytes] = []
        while rest and (not taken or sum(len(line) + 1 for line in (*taken, rest[-1])) <= size):
            taken.insert(0, rest.pop())
        parts.append(b"%s Part%d\n" % (reason, len(parts) + 1) + b"\n".join(taken) + b"\n")
    return parts


def write_efi(directory: Path, parts: Iterable[bytes], when: int = WHEN, count: int = 1) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for n, text in enumerate(parts, 1):
        file = directory / f"dmesg-efi-{(when * 100 + n) * 1000 + count}"
        file.write_bytes(text)
        os.utime(file, (when, when))


def write_ramoops(directory: Path, parts: Iterable[bytes], first: int = 0, when: int = WHEN) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for n, text in enumerate(parts):
        file = directory / f"dmesg-ramoops-{first + n}"
        file.write_bytes(text)
        os.utime(file, (when, when))


def read(*roots: Path) -> list[PstoreDump]:
    return list(read_pstore(roots, mounts=NO_MOUNTS))


def events(dump: PstoreDump) -> list[OomEvent]:
    assembler = Assembler(early=False)
    signals = [signal for item in dump.records for signal in assembler.feed(item)] + assembler.flush()
    return [
        conclude(
            OomCapture(
                source=Source(kind="file", form="dmesg", name=dump.name),
                records=block.records,
                lost_records=block.lost_records,
                wall_offset=dump.wall_offset,
            )
        ).event
        for block in signals
        if isinstance(block, OomBlock)
    ]


def the_event(*roots: Path) -> OomEvent:
    (dump,) = read(*roots)
    (event,) = events(dump)
    return event


def whole_report(panic: Path) -> object:
    """The same text without ever having been in pstore."""
    records = []
    for line in log_of(panic):
        stamp, _, text = line[len(b"<4>[") :].partition(b"] ")
        seconds, _, fraction = stamp.decode().strip().partition(".")
        records.append(
            KmsgRecord(text=text.decode(), facility=0, usec=int(seconds) * 1_000_000 + int(fraction))
        )
    (block,) = blocks_of(records)
    return report_of(block)


@pytest.mark.parametrize("panic", PANICS, ids=lambda path: path.name)
def test_a_panic_is_reported_whole_whatever_the_backend(panic: Path, tmp_path: Path) -> None:
    write_efi(tmp_path / "efi", parts_of(log_of(panic), EFI_BYTES))
    write_ramoops(tmp_path / "ramoops", parts_of(log_of(panic), RAMOOPS_BYTES))
    efi, ramoops = the_event(tmp_path / "efi"), the_event(tmp_path / "ramoops")
    assert efi.kind == "oom_panic" and efi.kills == 0
    assert efi.complete and efi.missing == ()
    assert efi.id == ramoops.id
    assert len(efi.tasks) > 150
    (dump,) = read(tmp_path / "efi")
    (block,) = blocks_of(record for record in dump.records if isinstance(record, KmsgRecord))
    assert report_of(block) == whole_report(panic)


@pytest.mark.parametrize("panic", PANICS, ids=lambda path: path.name)
@pytest.mark.parametrize("kept", [1, 3, 5])
def test_the_last_parts_alone_still_tell_the_panic(panic: Path, kept: int, tmp_path: Path) -> None:
    """kmsg_bytes is ten KiB by default: the head of a long report is not saved."""
    write_ramoops(tmp_path, parts_of(log_of(panic), 3500)[:kept])
    event = the_event(tmp_path)
    assert event.kind == "oom_panic"
    assert not event.complete and "header" in event.missing


def test_a_part_that_is_missing_is_a_gap(tmp_path: Path) -> None:
    parts = parts_of(log_of(PANICS[0]), RAMOOPS_BYTES)
    write_ramoops(tmp_path, parts)
    (tmp_path / "dmesg-ramoops-1").unlink()
    (dump,) = read(tmp_path)
    assert [item for item in dump.records if isinstance(item, KmsgGap)] == [KmsgGap(None)]
    event = the_event(tmp_path)
    assert event.kind == "oom_panic" and event.lost_records == 1 and not event.complete


def test_a_line_that_was_cut_and_ramoops_own_note_are_not_of_the_log(tmp_path: Path) -> None:
    """copy_kmsg_to_buffer() cuts where compression failed; ramoops adds a line on error correction."""
    whole = parts_of(log_of(PANICS[0]), RAMOOPS_BYTES)
    header, _, text = whole[1].partition(b"\n")
    cut = header + b"\n" + text[30:]
    write_ramoops(tmp_path, [whole[0] + b"\nECC: No errors detected\n", cut, *whole[2:]])
    (dump,) = read(tmp_path)
    texts = [item.text for item in dump.records if isinstance(item, KmsgRecord)]
    assert len(texts) == len(log_of(PANICS[0])) - 1
    assert not any("ECC" in text for text in texts)
    assert sum(isinstance(item, KmsgGap) for item in dump.records) == 1


def test_dumps_of_two_boots_are_two(tmp_path: Path) -> None:
    """Both are ``Panic#1``: the count begins anew with each boot."""
    first, second = (parts_of(log_of(panic), RAMOOPS_BYTES) for panic in PANICS[:2])
    write_ramoops(tmp_path, first)
    write_ramoops(tmp_path, second, first=len(first), when=WHEN + 90)
    assert [events(dump)[0].kernel for dump in read(tmp_path)] == [
        panic.name.removesuffix("-amd64.panic.gz").removesuffix("-mipsel.panic.gz") for panic in PANICS[:2]
    ]
    # copied about, so that the files' times say nothing
    for file in tmp_path.iterdir():
        os.utime(file, (WHEN, WHEN))
    assert [len(events(dump)) for dump in read(tmp_path)] == [1, 1]


def test_an_oops_before_the_panic_is_a_dump_of_its_own(tmp_path: Path) -> None:
    lines = log_of(PANICS[0])
    write_efi(tmp_path, parts_of(lines[:40], EFI_BYTES, b"Oops#1"), when=WHEN - 1, count=1)
    write_efi(tmp_path, parts_of(lines, EFI_BYTES, b"Panic#2"), count=2)
    assert [dump.reason for dump in read(tmp_path)] == ["Oops", "Panic"]


def test_what_the_kernel_could_not_decompress(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = parts_of(log_of(PANICS[0]), RAMOOPS_BYTES)
    write_ramoops(tmp_path, parts)
    expected = the_event(tmp_path).id
    for n, window_bits in ((0, zlib.MAX_WBITS), (1, -zlib.MAX_WBITS)):
        compressor = zlib.compressobj(wbits=window_bits)
        plain = tmp_path / f"dmesg-ramoops-{n}"
        plain.with_name(f"{plain.name}.enc.z").write_bytes(
            compressor.compress(plain.read_bytes()) + compressor.flush()
        )
        os.utime(plain.with_name(f"{plain.name}.enc.z"), (WHEN, WHEN))
        plain.unlink()
    assert the_event(tmp_path).id == expected
    (tmp_path / "dmesg-ramoops-0.enc.z").write_bytes(b"\x28\xb5\x2f\xfd something else")
    assert read(tmp_path)[0].records[-1] == KmsgGap(None)
    assert "cannot be read" in caplog.text


def test_what_user_space_wrote_makes_no_report(tmp_path: Path) -> None:
    """Records of /dev/kmsg keep their facility in a dump; console and pmsg records are not read."""
    lines = [line.replace(b"<4>", b"<12>") for line in log_of(PANICS[0])]
    write_efi(tmp_path, parts_of(lines, EFI_BYTES))
    (tmp_path / "console-ramoops-0").write_bytes(b"\n".join(log_of(PANICS[0])))
    (tmp_path / "pmsg-ramoops-0").write_bytes(b"Panic#1 Part1\n" + b"\n".join(log_of(PANICS[0])))
    (dump,) = read(tmp_path)
    assert events(dump) == []


def test_the_time_is_known_where_something_tells_it(tmp_path: Path) -> None:
    parts = parts_of(log_of(PANICS[0]), RAMOOPS_BYTES)
    write_efi(tmp_path / "efi", parts)
    (dump,) = read(tmp_path / "efi")
    (event,) = events(dump)
    assert event.time.wall is not None and event.time.wall.startswith("2025-10-09T08:53:19")
    write_ramoops(tmp_path / "pstore", parts)
    assert the_event(tmp_path / "pstore").time.wall is None
    mounts = tmp_path / "mounts"
    mounts.write_text(f"sysfs /sys sysfs rw 0 0\npstore {tmp_path / 'pstore'} pstore rw 0 0\n")
    (dump,) = read_pstore([tmp_path / "pstore"], mounts=mounts)
    assert events(dump)[0].time.wall == event.time.wall


def test_of_too_many_dumps_the_newest_are_read_and_each_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10):
        lines = [b"<4>[%5d.000000] boot %d %s" % (n, number, b"x" * 80) for n in range(100)]
        write_efi(tmp_path, parts_of(lines, 2000), when=WHEN + 3600 * number)
    whole = read(tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    for share in (0.25, 0.5, 0.75):
        found = list(read_pstore([tmp_path], most_bytes=int(size * share)))
        assert 10 * share - 2 <= len(found) <= 10 * share
        assert [dump.records for dump in found] == [dump.records for dump in whole][-len(found) :]
    assert "files are not read" in caplog.text
    assert len(list(read_pstore([tmp_path], most_bytes=size))) == 10


def test_roots_that_are_not_there_have_no_dumps(tmp_path: Path) -> None:
    assert read(tmp_path / "absent", tmp_path) == []
    with pytest.raises(NoInputError, match="no directory"):
        list(read_directory(tmp_path / "absent"))


@pytest.mark.skipif(
    os.geteuid() != 0 or not SYSTEMD_PSTORE.exists() or not shutil.which("unshare"),
    reason="needs root, systemd-pstore and unshare",
)
@pytest.mark.parametrize("panic", PANICS[:2], ids=lambda path: path.name)
@pytest.mark.parametrize("write", [write_efi, write_ramoops])
def test_what_systemd_pstore_archived_is_the_same_event(panic: Path, write: object, tmp_path: Path) -> None:
    store, archive, before = tmp_path / "store", tmp_path / "archive", tmp_path / "before"
    archive.mkdir()
    assert callable(write)
    write(store, parts_of(log_of(panic), RAMOOPS_BYTES))
    shutil.copytree(store, before)
    expected = the_event(store).id
    subprocess.run(
        ["unshare", "-m", "sh", "-ec", f"mount --bind {store} /sys/fs/pstore\n"
         f"mount --bind {archive} /var/lib/systemd/pstore\nexec {SYSTEMD_PSTORE}"], check=True
    )  # fmt: skip
    assert list(store.iterdir()) == []
    assert the_event(archive).id == expected
    # before and after the move at once, as with Unlink=no
    assert the_event(before, archive).id == expected
    if write is write_efi:
        # what systemd joined, alone
        joined = [file for file in archive.rglob("*") if file.is_file() and file.name != "dmesg.txt"]
        for file in joined:
            file.unlink()
        assert the_event(archive).id == expected


@settings(max_examples=200, deadline=None)
@given(
    files=st.lists(
        st.tuples(st.sampled_from(["dmesg-efi-1", "dmesg-ramoops-0.enc.z", "dmesg.txt"]), st.binary())
    )
)
def test_nothing_that_a_file_holds_raises(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, bytes]]
) -> None:
    root = tmp_path_factory.mktemp("pstore")
    for n, (name, data) in enumerate(files):
        (root / str(n)).mkdir()
        (root / str(n) / name).write_bytes(b"Panic#1 Part1\n" + data)
    for dump in read(root):
        events(dump)


def test_analyze_reports_the_panic(tmp_path: Path) -> None:
    write_efi(tmp_path, parts_of(log_of(PANICS[0]), EFI_BYTES))
    command = [sys.executable, "-m", "oomwatchd", "analyze", "--format", "json", "--pstore", str(tmp_path)]
    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=60)
    (event,) = json.loads(shown.stdout)
    assert event["kind"] == "oom_panic" and event["id"] == the_event(tmp_path).id
    assert event["source"]["name"].endswith("(Panic#1)")
    shutil.rmtree(tmp_path)
    shown = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    assert shown.returncode == NoInputError.exit_status
