"""The text source: every prefix form, mended wraps, structured logs, compressed files, the skipping."""

from __future__ import annotations

import bz2
import gzip
import html
import io
import json
import lzma
import quopri
import re
import sys
import textwrap
import zipfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from oomwatchd.errors import NoInputError, PermissionDeniedError
from oomwatchd.formats import Proof, Role
from oomwatchd.formats.recognise import ALL
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.records.report import OomReport
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.decode import decode
from oomwatchd.sources.text import TextReader, check_whole, decoration, encodings, open_log, records
from oomwatchd.sources.text.learn import learn
from oomwatchd.sources.text.needles import NEEDLES, has_needle, spells_needle
from oomwatchd.sources.text.prefilter import CHUNK, SMALL
from tests.text_hostile import HOSTILE

KILL = (
    "Out of memory: Killed process 649 (fio) total-vm:216868kB, anon-rss:896kB, file-rss:128kB, "
    "shmem-rss:2176kB, UID:0 pgtables:100kB oom_score_adj:0"
)


def read(data: bytes | str) -> list[KmsgRecord]:
    reader = TextReader()
    data = data.encode() if isinstance(data, str) else data
    return reader.feed(data) + reader.flush()


def texts(data: bytes | str) -> list[str]:
    return [record.text for record in read(data)]


def form_of(data: str) -> str:
    reader = TextReader()
    reader.feed(data.encode())
    reader.flush()
    return reader.form


# -- prefixes ----------------------------------------------------------------------------------------

# physical line -> form, (facility, level, usec, caller, wall); the text behind is KILL
PREFIXES: list[tuple[str, str, tuple[int | None, int | None, int | None, str | None, float | None]]] = [
    ("", "other", (None, None, None, None, None)),
    ("[ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("[4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("    [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("\t[ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("> [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("> > [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    (">> [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    (" | [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("[ 4843.939001][ T5241] ", "dmesg", (None, None, 4843939001, "T5241", None)),
    ("[ 4843.939001] [ T5241] ", "dmesg", (None, None, 4843939001, "T5241", None)),
    ("[ 4843.939001][    C0] ", "dmesg", (None, None, 4843939001, "C0", None)),
    ("<3>[ 4843.939001] ", "dmesg", (0, 3, 4843939001, None, None)),
    ("<3>[ 4843.939001][  T248] ", "dmesg", (0, 3, 4843939001, "T248", None)),
    ("<3>", "dmesg", (0, 3, None, None, None)),
    ("<12>", "dmesg", (1, 4, None, None, None)),
    ("3,1234,4843939001,-;", "kmsg", (0, 3, 4843939001, None, None)),
    ("3,1234,4843939001,-,caller=T12845;", "kmsg", (0, 3, 4843939001, "T12845", None)),
    ("kern  :err   : [ 4843.939001] ", "dmesg", (0, 3, 4843939001, None, None)),
    ("kern  :err   : [Sat Mar 11 00:19:43 2017] ", "dmesg", (0, 3, None, None, None)),
    ("daemon:warn  : [ 4843.939001] ", "dmesg", (3, 4, 4843939001, None, None)),
    ("[Sat Mar 11 00:19:43 2017] ", "dmesg-T", (None, None, None, None, None)),
    ("[金  1月 26 01:49:41 2026] ", "dmesg-T", (None, None, None, None, None)),
    ("[sam. mars 11 00:19:43 2017] ", "dmesg-T", (None, None, None, None, None)),
    ("[ 4843.939001 <    0.000123>] ", "dmesg", (None, None, 4843939001, None, None)),
    ("[<    0.000123>] ", "dmesg", (None, None, None, None, None)),
    ("[  +0.000123] ", "dmesg", (None, None, None, None, None)),
    ("[Mar11 00:19] ", "dmesg", (None, None, None, None, None)),
    ("2017-03-11T00:19:43,939001+00:00 ", "dmesg", (None, None, None, None, 1489191583.939001)),
    ("Mar 11 00:19:43 web-1 kernel: ", "journal", (0, None, None, None, None)),
    ("Mar 11 00:19:43 web-1 kernel: [ 4843.939001] ", "syslog", (0, None, 4843939001, None, None)),
    ("Mar 11 00:19:43 web-1 kernel: [ 4843.939001][ T12] ", "syslog", (0, None, 4843939001, "T12", None)),
    ("Mar  1 00:19:43 web-1 kernel: [ 4843.939001] ", "syslog", (0, None, 4843939001, None, None)),
    ("Mar 11 00:19:43 kernel: ", "journal", (0, None, None, None, None)),
    ("Mar 11 00:19:43.123456 web-1 kernel: ", "journal", (0, None, None, None, None)),
    ("Sat 2017-03-11 00:19:43 UTC web-1 kernel: ", "journal", (0, None, None, None, 1489191583.0)),
    ("mars 11 00:19:43 web-1 kernel: ", "journal", (0, None, None, None, None)),
    ("00:19:43 kernel: ", "journal", (0, None, None, None, None)),
    ("2017-03-11T00:19:43+0000 web-1 kernel: ", "journal", (0, None, None, None, 1489191583.0)),
    ("2017-03-11T00:19:43.939001+02:00 web-1 kernel: [ 4843.939001] ", "syslog", None),  # type: ignore[list-item]
    ("2017-03-11 00:19:43 web-1 kernel: ", "journal", (0, None, None, None, None)),
    ("1489191583.939001 web-1 kernel: ", "journal", (0, None, None, None, 1489191583.939001)),
    ("[ 4843.939001] web-1 kernel: ", "journal", (0, None, 4843939001, None, None)),
    ("kernel: ", "syslog", (0, None, None, None, None)),
    ("kernel: [ 4843.939001] ", "syslog", (0, None, 4843939001, None, None)),
    ("<3>Mar 11 00:19:43 web-1 kernel: [ 4843.939001] ", "syslog", (0, 3, 4843939001, None, None)),
    ("<3>1 2017-03-11T00:19:43Z web-1 kernel - - - ", "syslog", (0, 3, None, None, 1489191583.0)),
    ('<3>1 2017-03-11T00:19:43Z web-1 kernel - - [x@1 a="b"] [ 4843.939001] ', "syslog", None),  # type: ignore[list-item]
    ("2017-03-11 00:19:43 192.168.17.23:6665 [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("2017-03-11T00:19:43.939001Z stdout F ", "other", (None, None, None, None, 1489191583.939001)),
    ("[pod/probe-x/main] [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("web_1  | [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("node7.rack2: [ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("\x1b[32m[ 4843.939001] \x1b[0m\x1b[31m", "dmesg", (None, None, 4843939001, None, None)),
    (
        "Jan  1 00:00:00 OpenWrt kern.warn kernel: [ 4843.939001] ",
        "syslog",
        (0, None, 4843939001, None, None),
    ),
    (
        "Thu Jan  1 00:00:00 2024 kern.warn kernel: [ 4843.939001] ",
        "syslog",
        (0, None, 4843939001, None, None),
    ),
    ("12:[ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("   12\t[ 4843.939001] ", "dmesg", (None, None, 4843939001, None, None)),
    ("/var/log/messages-12:Mar 11 00:19:43 a kernel: ", "journal", (0, None, None, None, None)),
    ("kern.log.1:Mar 11 00:19:43 a kernel: [ 4843.939001] ", "syslog", (0, None, 4843939001, None, None)),
    ("[ 4843.939001@2] ", "dmesg", (None, None, 4843939001, None, None)),
    ("[ 4843.939001] (0)[123:kworker/0:1]", "dmesg", (None, None, 4843939001, "T123", None)),
    ("[ 4843.939001] [0:  kworker/0:1:  123] ", "dmesg", (None, None, 4843939001, "T123", None)),
    ("    [ 4843.939001] (0)[123:kworker/0:1]", "dmesg", (None, None, 4843939001, "T123", None)),
    ("2017-03-11T00:19:43Z web-1 odd stuff kernel: ", "other", None),  # type: ignore[list-item]
    (
        "2017-03-11T00:19:43Z,dev7,4,1,kernel:, [ 4843.939001] ",
        "dmesg",
        (None, None, 4843939001, None, 1489191583.0),
    ),
    ("Received from a  <4>Mar 11 00:19:43 web-1 kernel: [ 4843.939001] ", "syslog", None),  # type: ignore[list-item]
    ("[2017-03-11 00:19:43 UTC] kernel: ", "syslog", (0, None, None, None, 1489191583.0)),
    ("node-1: kern: warning: [2017-03-11T00:19:43.5Z]: ", "dmesg", (0, 4, None, None, 1489191583.5)),
    (" kern:     err: [2017-03-11T00:19:43.5Z]: ", "dmesg", (0, 3, None, None, 1489191583.5)),
    ("2017-03-11T00:19:43Z web-1 kernel - - - ", "journal", (0, None, None, None, 1489191583.0)),
    ("2017-03-11T00:19:43Z web-1 kernel - - - [ 4843.939001] ", "syslog", None),  # type: ignore[list-item]
    ("2017-03-11 00:19:43.939 CEST ", "other", (None, None, None, None, None)),
    ("Mar 11 00:19:43.939 web-1 kernel ", "syslog", (0, None, None, None, None)),
    ("Mar 11, 2017 @ 00:19:43.939\tweb-1\tkernel\t", "journal", None),  # type: ignore[list-item]
    ("<4>[ 4843.939001]  (0)[123:kworker/0:1]", "dmesg", (0, 4, 4843939001, "T123", None)),
    ("[ 4843.939001]<0>-(0)[123:kworker/0:1]", "dmesg", (None, None, 4843939001, "T123", None)),
]


@pytest.mark.parametrize(("prefix", "form", "expected"), PREFIXES, ids=[repr(p[0]) for p in PREFIXES])
def test_prefix(
    prefix: str,
    form: str,
    expected: tuple[int | None, int | None, int | None, str | None, float | None] | None,
) -> None:
    found = read(prefix + KILL + "\n")
    assert found[-1].text == KILL
    if expected is not None:
        record = found[-1]
        assert (record.facility, record.level, record.usec, record.caller, record.wall) == expected
        assert form_of(prefix + KILL + "\n") in (form, "console")


def test_several_forms_in_one_file() -> None:
    lines = [prefix + KILL for prefix, _, _ in PREFIXES]
    found = [record.text for record in read("\n".join(lines)) if "Killed" in record.text]
    assert found == [KILL] * len(PREFIXES)


def test_a_year_and_a_zone_are_never_guessed() -> None:
    for line in (
        "Mar 11 00:19:43 a kernel: x",
        "[Sat Mar 11 00:19:43 2017] x",
        "2017-03-11 00:19:43 a kernel: x",
    ):
        assert read(line)[0].wall is None


def test_userspace_is_told_from_the_kernel_only_where_the_kernel_is_marked() -> None:
    marked = read(
        "Jun 24 18:49:43 n kernel: [ 8341.856870] " + KILL + "\n"
        "Jun 24 18:49:43 n npd[6018]: Message:" + KILL + "\n"
    )
    assert [record.facility for record in marked] == [0, 1]
    strange = read("Jun 24 18:49:43 n netlog: " + KILL + "\nJun 24 18:49:44 n netlog[3]: " + KILL + "\n")
    assert [record.facility for record in strange] == [None, None]


def test_raw_records_are_exactly_those_of_the_device(corpus: Path) -> None:
    for path in sorted((corpus / "kernel").glob("*.kmsg.gz")):
        data = gzip.decompress(path.read_bytes())
        expected = [record for line in data.split(b"\n") if (record := parse_record(line)) is not None]
        assert read(data) == expected


def test_dictionary_lines_belong_to_their_record() -> None:
    found = read("6,1,2,-;pci 0000:00: x\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00\n6,2,3,-;y\n")
    assert [record.text for record in found] == ["pci 0000:00: x", "y"]


def test_rsyslog_escapes_come_back_as_lines_of_one_record() -> None:
    line = "Jul 28 05:06:23 a kernel: active_anon:1 inactive_anon:2#012 active_file:3 inactive_file:4#011x"
    assert texts(line) == ["active_anon:1 inactive_anon:2\n active_file:3 inactive_file:4\tx"]


# -- fields ------------------------------------------------------------------------------------------


def test_journal_json() -> None:
    entries: list[dict[str, Any]] = [
        {
            "MESSAGE": KILL,
            "PRIORITY": "3",
            "_TRANSPORT": "kernel",
            "SYSLOG_IDENTIFIER": "kernel",
            "SYSLOG_FACILITY": "0",
            "__REALTIME_TIMESTAMP": "1700000000123456",
            "_SOURCE_MONOTONIC_TIMESTAMP": "4843939001",
        },
        {"MESSAGE": [79, 111, 109, 255], "_TRANSPORT": "kernel"},
        {"MESSAGE": "fake", "_TRANSPORT": "journal", "SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel"},
        {"MESSAGE": None, "_TRANSPORT": "kernel"},
    ]
    flat = "\n".join(json.dumps(entry) for entry in entries)
    pretty = "\n".join(
        json.dumps(entry, indent="\t") for entry in entries if not isinstance(entry["MESSAGE"], list)
    )
    found = read(flat)
    assert (found[0].text, found[0].facility, found[0].level) == (KILL, 0, 3)
    assert (found[0].usec, found[0].wall) == (4843939001, 1700000000.123456)
    assert (found[1].text, found[1].facility) == ("Oom\\xff", 0)
    assert (found[2].text, found[2].facility) == ("fake", 1)
    assert form_of(flat) == "journal-json"
    assert [record.text for record in read(pretty)] == [KILL, "fake"]


def test_journal_export() -> None:
    value = b"active_anon:1\n active_file:2"
    data = (
        b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1700000000123456\n_TRANSPORT=kernel\nPRIORITY=4\nMESSAGE\n"
        + len(value).to_bytes(8, "little")
        + value
        + b"\n\n__CURSOR=s=2\nMESSAGE=two\n_TRANSPORT=kernel\nSYSLOG_FACILITY=1\n"
    )
    found = read(data)
    assert [(record.text, record.facility, record.level) for record in found] == [
        (value.decode(), 0, 4),
        ("two", 1, None),
    ]
    reader = TextReader()
    piecewise = [record for byte in data for record in reader.feed(bytes((byte,)))] + reader.flush()
    assert piecewise == found


def test_dmesg_json() -> None:
    text = """{
   "dmesg": [
      {
         "pri": 6,
         "time":     4843.936881,
         "msg": "oom-kill:constraint=CONSTRAINT_NONE"
      },{
         "fac": "kern",
         "pri": "err",
         "time":     4843.939001,
         "caller": "T649",
         "msg": "Out of memory: \\"x\\""
      },{
         "fac": "user",
         "pri": "notice",
         "time":     4843.940000,
         "msg": "forged"
      }
   ]
}
"""
    found = read(text)
    assert [(r.facility, r.level, r.usec, r.caller, r.text) for r in found] == [
        (0, 6, 4843936881, None, "oom-kill:constraint=CONSTRAINT_NONE"),
        (0, 3, 4843939001, "T649", 'Out of memory: "x"'),
        (1, 5, 4843940000, None, "forged"),
    ]
    assert form_of(text) == "dmesg"


def test_container_log_lines() -> None:
    line = json.dumps({"log": f"[ 4843.939001] {KILL}\n", "stream": "stdout", "time": "2024-01-01T00:00:00Z"})
    found = read(line)
    assert (found[0].text, found[0].usec) == (KILL, 4843939001)


# -- what carried the text ---------------------------------------------------------------------------


def test_serial_console() -> None:
    data = f"login: \r\n\x1b[0;32m[ 4843.939001] {KILL}\x1b[0m\r\r\n** 12 printk messages dropped **\r\n"
    assert texts(data) == ["login: ", KILL, "** 12 printk messages dropped **"]
    overwritten = f"10%\r20%\r[    1.000000] {KILL}\n"
    assert texts(overwritten) == ["10%", "20%", KILL]


def test_program_output_before_the_stamp() -> None:
    found = read("Creating journal (131072 blocks): [   31.251333] mkfs.ext4 invoked oom-killer: x\n")
    assert [(record.text, record.usec) for record in found] == [
        ("Creating journal (131072 blocks):", None),
        ("mkfs.ext4 invoked oom-killer: x", 31251333),
    ]


def test_utf16_and_byte_order_marks() -> None:
    text = f"[ 4843.939001] {KILL}\r\n"
    for encoding in ("utf-16", "utf-8-sig"):
        assert texts(text.encode(encoding)) == [KILL]
    assert texts(b"\xfe\xff" + text.encode("utf-16-be")) == [KILL]


def test_utf16_that_does_not_say_so() -> None:
    for name in ("utf-16-le", "utf-16-be"):
        data = f"[    1.000000] {KILL}\n".encode(name)
        assert texts(data) == [KILL]
        reader = TextReader()
        found = [record.text for at in range(len(data)) for record in reader.feed(data[at : at + 1])]
        assert found + [record.text for record in reader.flush()] == [KILL]


def test_stars_that_a_page_made_signs_of() -> None:
    line = "Normal: 95*4kB (UMEH) 59*8kB (UMEH) 0*4096kB = 852kB"
    for sign in ("\u00d7", "\u2217"):
        assert texts(line.replace("*", sign)) == [line]


def test_bytes_that_are_no_text() -> None:
    assert texts(b"[    1.000000] Killed process 1 (\xff\xfe\x00)\n") == [
        "Killed process 1 (\\xff\\xfe\\x00)"
    ]


def test_newest_first_is_turned_round() -> None:
    lines = [
        "19:50:58 kernel: dnsmasq invoked oom-killer: x",
        "19:50:58 kernel:  dump",
        "19:50:59 kernel: " + KILL,
    ]
    assert texts("\n".join(reversed(lines))) == ["dnsmasq invoked oom-killer: x", " dump", KILL]
    assert texts("\n".join(lines)) == ["dnsmasq invoked oom-killer: x", " dump", KILL]


def test_logs_of_two_hosts_in_one_mail_stay_in_their_order() -> None:
    lines = [
        "Nov 14 15:23:48 old kernel: [337631.991218] Out of memory: Kill process 9 (a) score 17 or a child",
        "Nov 14 15:23:48 old kernel: [337631.991237] Killed process 9 (a) total-vm:5400kB, anon-rss:252kB",
        "Jul 22 10:42:40 new kernel: oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=b,pid=3,uid=0",
        "Jul 22 10:42:40 new kernel: Out of memory: Killed process 3 (b) total-vm:1056kB, anon-rss:8kB",
        "Jul 22 10:42:40 new kernel: oom_reaper: reaped process 3 (b), now anon-rss:0kB, file-rss:0kB",
    ]
    assert [[victim.pid for victim in report.victims] for report in reports("\n".join(lines).encode())] == [
        [9],
        [3],
    ]


@pytest.mark.parametrize(
    "text",
    [
        "CPU: 1 PID: 9 Comm: a Not tainted 6.1.0 #1",
        "Hardware name: QEMU Standard PC",
        "memory: usage 20480kB, limit 20480kB, failcnt 82",
        "oom_reaper: reaped process 1 (a), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
        "Call Trace:",
        "Normal per-cpu:",
        "Node 0 DMA32: 1*4kB = 4kB",
    ],
)
@pytest.mark.parametrize(
    "time", ["2017-03-11T00:19:43,939001+00:00 ", "2017-03-11T00:19:43.939001Z ", "00:19:43 "]
)
def test_a_line_behind_a_bare_time_is_no_host_and_tag(time: str, text: str) -> None:
    (record,) = read(time + text)
    assert (record.text, record.facility) == (text, None)


def test_a_task_in_capitals_is_no_zone() -> None:
    header = "CRON invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0"
    for time in ("00:19:43 ", "2017-03-11 00:19:43 ", "2017-03-11 00:19:43 CET ", "Mar 11 00:19:43 CET "):
        assert texts(time + header) == [header]


def test_what_stands_twice_is_read_once() -> None:
    stamped = f"[    1.000001] a invoked oom-killer: x\n[    1.000002] {KILL}\n[    1.000002] {KILL}\n"
    assert texts(stamped) == ["a invoked oom-killer: x", KILL]
    rows = [f"Mar 11 00:19:43 web-1 kernel: [ {pid}]     0  {pid}   10   5   0   0 a" for pid in range(5)]
    twice = [line for row in rows for line in (row, row)]
    assert len(texts("\n".join(twice))) == 5
    assert len(texts("\n".join([*rows, rows[-1]]))) == 6  # once is no rule
    broken = f"[    1.000002] {KILL[:29]}\n{KILL[30:]}\n[    1.000002] {KILL[:29]}\n{KILL[30:]}\n"
    assert texts(broken) == [KILL, KILL]  # equal beginnings of broken lines are not equal lines


@pytest.mark.parametrize(
    "behind",
    ["```", "~~~", "</pre>", "This was not ordinary exhaustion of the whole machine."],
)
@pytest.mark.parametrize(
    "cut",
    [
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom",
        "Out of memory: Kill process 9 (a) score 4",
    ],
)
def test_what_stands_behind_a_line_that_was_cut_is_not_its_rest(cut: str, behind: str) -> None:
    assert texts(f"[    1.000000] {cut}\n{behind}\n") == [cut, behind]


def test_a_program_that_quotes_the_kernel_is_not_the_kernel() -> None:
    quotes = (
        f"Jun 24 18:49:43 web-1 node-problem-detector[6018]: I0624 log_monitor.go:160] New status: {KILL}"
    )
    lines = [f"Jun 24 18:49:43 web-1 kernel: {KILL}", quotes]
    for width in (500, 100, 84):
        text = "\n".join(part for line in lines for part in textwrap.wrap(line, width))
        assert [report.kills for report in reports(text.encode())] == [1], width


def test_what_a_program_wrote_over_several_lines_is_all_its_own() -> None:
    prefix = "Jun 24 18:49:43 web-1 app[6018]: "
    lines = [
        f"Jun 24 18:49:43 web-1 kernel: {KILL}",
        f"{prefix}first",
        " " * len(prefix) + KILL.replace("649", "1"),
        " " * len(prefix) + "a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "Jun 24 18:49:44 web-1 kernel: eth0: link up",
    ]
    text = "\n".join(lines)
    assert [[victim.pid for victim in report.victims] for report in reports(text.encode())] == [[649]]
    assert all(line.strip().encode() in b"".join(r.raw for r in read(text)) for line in lines)


HEADER = "a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=-17"
CPU = "CPU: 1 PID: 9 Comm: a Not tainted 6.1.0 #1"
REPORT = [
    HEADER,
    CPU,
    "Call Trace:",
    " out_of_memory+0x1/0x2",
    "Mem-Info:",
    "2003 total pagecache pages",
    KILL,
]

#: what people and programs put around the lines of a log
DRESSES: dict[str, Callable[[list[str]], list[str]]] = {
    "cat -n": lambda lines: [f"{n:6}\t{line}" for n, line in enumerate(lines, 1)],
    "less -N": lambda lines: [f"{n:7} {line}" for n, line in enumerate(lines, 1)],
    "grep -n": lambda lines: [f"{n * n}:{line}" for n, line in enumerate(lines, 20)],
    "a list": lambda lines: [f"{n}. {line}" for n, line in enumerate(lines, 1)],
    "bullets": lambda lines: ["- " + line for line in lines],
    "round bullets": lambda lines: ["\u2022 " + line for line in lines],
    "a patch": lambda lines: ["+" + line for line in lines],
    "a comment": lambda lines: [" * " + line for line in lines],
    "a shell's comment": lambda lines: ["# " + line for line in lines],
    "code": lambda lines: [f"`{line}`" for line in lines],
    "bullets of code": lambda lines: [f"- `{line}`" for line in lines],
    "emphasis": lambda lines: [f"**{line}**" for line in lines],
    "quotation marks": lambda lines: [f"\u201c{line}\u201d" for line in lines],
    "a list of Python's": lambda lines: [f"    '{line}'," for line in lines],
    "a table": lambda lines: [f"| {line} |" for line in lines],
    "cat -A": lambda lines: [line + "$" for line in lines],
    "priorities": lambda lines: [line + " [kern.warning]" for line in lines],
    "a box": lambda lines: ["[code]" + lines[0], *lines[1:-1], lines[-1] + "[/code]"],
    "a quoted patch": lambda lines: ["> +" + line for line in lines],
    "a coloured box": lambda lines: [f'[COLOR="red"]{line}[/COLOR]' for line in lines],
    "paragraphs of HTML": lambda lines: [f"<p>{html.escape(line)}</p>" for line in lines],
    "one line of HTML": lambda lines: ["<p>" + "<br>".join(map(html.escape, lines)) + "</p>"],
    "Markdown": lambda lines: [re.sub(r"([_\[\]*])", r"\\\1", line) for line in lines],
    "dashes": lambda lines: [re.sub(r"(?<=[a-z])-(?=[a-z])", "\u2013", line) for line in lines],
    "a printed page": lambda lines: [line.replace("fi", "\ufb01").replace("-r", "\u2010r") for line in lines],
    "a soft hyphen": lambda lines: [line.replace("process", "pro\u00adcess") for line in lines],
    "zero width blanks": lambda lines: ["\u200e" + line.replace("kB", "\u200ckB") for line in lines],
    "colours written out": lambda lines: [f"\\x1b[31m{line}\\x1b[0m" for line in lines],
    "colours that lost their escape": lambda lines: [f"[0;1;31m{line}[0m" for line in lines],
}


@pytest.mark.parametrize("worn", DRESSES)
def test_what_stands_around_every_line_is_taken_off(worn: str) -> None:
    for behind in ([], ["", "What can I do?"]) if worn not in ("cat -A", "priorities") else ([],):
        found = texts("\n".join([*DRESSES[worn](REPORT), *behind]))
        assert [line.strip() for line in found[: len(REPORT)]] == [line.strip() for line in REPORT]


def test_what_the_kernel_prints_is_no_decoration() -> None:
    for lines in (
        ["** 12 printk messages dropped **", KILL, "** 3 printk messages dropped **"],
        ["1 pages in swap cache", "2 pages RAM", "3 pages reserved", KILL],
        ["- 4kB", "--- a", "-1 reserved pages", KILL],
        ["'a' invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0", KILL],
    ):
        assert texts("\n".join(lines)) == lines


def test_a_task_may_be_named_like_a_colour() -> None:
    lines = [rf"Killed process {pid} (\x1b[31m) total-vm:1kB, anon-rss:1kB, file-rss:0kB" for pid in (1, 2)]
    assert texts("\n".join([*lines, "Mem-Info:", "Mem-Info:", "Mem-Info:"]))[:2] == lines


def test_lines_that_were_run_together_have_their_own_headers() -> None:
    head = "Apr  9 16:00:14 web-1 kernel: "
    assert texts(" ".join(head + line for line in REPORT)) == REPORT
    other = "Apr  9 16:00:14 web-2 kernel: "
    assert len(texts(f"{head}said {other}{KILL}")) == 1  # of another host: a message that quotes it
    program = "Apr  9 16:00:14 web-1 app[7]: "
    assert reports(f"{head}x\n{program}read {head}{KILL}\n".encode()) == []


def test_line_ends_that_were_written_out() -> None:
    lines = [f"[    1.00000{n}] {line}" for n, line in enumerate(REPORT)]
    assert [line.strip() for line in texts("\\n".join(lines))] == [line.strip() for line in REPORT]
    assert [line.strip() for line in texts(f"'{chr(92)}n'".join(lines).join("''"))][-1] == KILL


def test_kill_lines_without_a_line_end() -> None:
    line = "Out of memory: kill process 12 (b) score 7 or a child"
    text = f"Killed process 19 (a){line}{line}Killed process 12 (b)Killed process 12 (b)"
    assert [[victim.comm for victim in report.victims] for report in reports(text.encode())] == [
        ["a"],
        ["b"],
        ["b"],
    ]


@pytest.mark.parametrize(
    "comm", ["Web Content", "CPU 0/KVM", "tmux: server", "C2 CompilerThre", "IPC I/O Large"]
)
def test_a_name_of_two_words_is_one_name(comm: str) -> None:
    header = f"{comm} invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0"
    for before in ("", "> ", "kernel: ", "Mar 11 00:19:43 web-1 kernel: ", "[    1.000000] "):
        assert texts(before + header) == [header]


def test_a_kill_line_broken_before_the_name() -> None:
    at = KILL.index(" (")
    assert texts(f"{KILL[:at]}\n{KILL[at + 1 :]}\n") == [KILL]
    reaped = "oom_reaper: reaped process 649 (fio), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB"
    at = reaped.index(" (")
    assert texts(f"{reaped[:at]}\n{reaped[at + 1 :]}\n") == [reaped]
    assert texts(f"{KILL}\n(it was not the first)\n") == [KILL, "(it was not the first)"]


def test_soft_breaks_with_blanks_behind() -> None:
    text = HEADER.replace("=", "=3D").replace("order", "or=   \r\nder") + "\n" + KILL + "\n"
    assert texts(text) == [HEADER, KILL]


def test_journal_verbose() -> None:
    head = (
        "Thu 2023-02-02 11:49:13.015489 CET [s="
        + "1d" * 16
        + ";i=1f;b="
        + "2e" * 16
        + ";m=1;t=5f3b550c118c1;x=1]"
    )
    kernel = [
        head,
        "    _TRANSPORT=kernel",
        "    SYSLOG_IDENTIFIER=kernel",
        f"    MESSAGE={KILL}",
        "    PRIORITY=3",
    ]
    forged = [
        head,
        "    _TRANSPORT=stdout",
        "    MESSAGE=first",
        f"{'':12}_TRANSPORT=kernel",
        f"{'':12}MESSAGE={KILL}",
        "    PRIORITY=6",
    ]
    alone = [head, f"    MESSAGE={KILL}"]
    for entries in ([kernel, forged], [forged, kernel], [forged, alone], [alone, forged]):
        text = "\n".join(line for entry in entries for line in entry)
        assert [report.kills for report in reports(f"# journalctl\n{text}\n".encode())] == [1]
    first, second = read("\n".join([*kernel, *forged]))
    assert (first.text, first.facility, first.level, first.wall) == (KILL, 0, 3, 1675334953.015489)
    assert (second.text, second.facility) == (f"first\n_TRANSPORT=kernel\nMESSAGE={KILL}", 1)


@pytest.mark.parametrize(
    "entry",
    [
        {"jsonPayload": {"MESSAGE": KILL, "_TRANSPORT": "kernel"}, "timestamp": "2023-02-02T00:00:00Z"},
        {"_index": "k", "_source": {"@timestamp": "2023-02-02T00:00:00Z", "message": KILL}},
        {"streams": [{"stream": {"job": "k"}, "values": [["1700000000000000000", KILL]]}]},
        {"verb": "ADDED", "event": {"reason": "OOMKilling", "message": KILL}},
        {"resourceLogs": [{"logRecords": [{"timeUnixNano": "1", "body": {"stringValue": KILL}}]}]},
        {"time": 1700000000.5, "host": "a", "event": KILL},
        {"items": [{"reason": "Pulled", "message": "x"}, {"reason": "OOMKilling", "message": KILL}]},
    ],
)
def test_what_log_stores_wrap_around_a_line(entry: dict[str, Any]) -> None:
    assert [report.kills for report in reports(json.dumps(entry).encode())] == [1]


def test_a_stored_line_of_a_program_is_not_the_kernels() -> None:
    entry = {"jsonPayload": {"MESSAGE": KILL, "_TRANSPORT": "stdout", "SYSLOG_IDENTIFIER": "app"}}
    assert reports(json.dumps(entry).encode()) == []


def test_a_kubernetes_event_carries_its_line() -> None:
    event = {"verb": "ADDED", "event": {"reason": "OOMKilling", "message": KILL, "source": {"host": "a"}}}
    for text in (json.dumps(event["event"]), json.dumps(event, indent=2), json.dumps([event], indent=1)):
        (report,) = reports(text.encode())
        assert [victim.pid for victim in report.victims] == [649]


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_a_list_of_lines(indent: int | None) -> None:
    lines = ["a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0", KILL]
    text = (
        json.dumps(lines, indent=indent)
        if indent is not None
        else "\n".join(f'  "{line}",' for line in lines)
    )
    (report,) = reports(text.encode())
    assert (report.trigger.comm, [victim.pid for victim in report.victims]) == ("a", [649])


# -- unwrapping --------------------------------------------------------------------------------------

SEED = {
    128754330: (
        "Normal free:18244kB min:10084kB low:12604kB high:15124kB active_anon:219220kB inactive_anon:0kB "
        "active_file:20kB inactive_file:8kB unevictable:0kB isolated(anon):0kB isolated(file):0kB "
        "present:262144kB managed:241940kB mlocked:0kB dirty:0kB writeback:0kB mapped:4kB shmem:0kB "
        "slab_reclaimable:600kB slab_unreclaimable:2400kB kernel_stack:320kB pagetables:600kB unstable:0kB "
        "bounce:0kB free_cma:0kB writeback_tmp:0kB pages_scanned:426 all_unreclaimable? yes"
    ),
    128807365: (
        "HighMem free:224kB min:256kB low:2984kB high:5716kB active_anon:261736kB inactive_anon:44kB "
        "active_file:0kB inactive_file:0kB unevictable:0kB isolated(anon):0kB isolated(file):0kB "
        "present:262144kB managed:262144kB mlocked:0kB dirty:0kB writeback:0kB mapped:0kB shmem:60kB "
        "slab_reclaimable:0kB slab_unreclaimable:0kB kernel_stack:0kB pagetables:0kB unstable:0kB bounce:0kB "
        "free_cma:0kB writeback_tmp:0kB pages_scanned:31 all_unreclaimable? yes"
    ),
    128858541: (
        "Normal: 1*4kB (R) 0*8kB 0*16kB 0*32kB 1*64kB (R) 0*128kB 1*256kB (R) 1*512kB (R) 1*1024kB (R) "
        "0*2048kB 0*4096kB 2*8192kB (R) 0*16384kB 0*32768kB 0*65536kB = 18244kB"
    ),
    128896190: (
        "HighMem: 0*4kB 0*8kB 0*16kB 1*32kB (R) 1*64kB (R) 1*128kB (R) 0*256kB 0*512kB 0*1024kB 0*2048kB "
        "0*4096kB 0*8192kB 0*16384kB 0*32768kB 0*65536kB = 224kB"
    ),
}


def test_seed_log_is_mended(corpus: Path) -> None:
    data = (corpus / "seed" / "mips-3.10-highmem.log").read_bytes()
    found = {record.usec: record.text for record in read(data) if record.usec in SEED}
    assert found == SEED
    stamps = len(re.findall(rb"(?m)^\[ *\d+\.\d{6}\]", data))
    assert sum(record.usec is not None for record in read(data)) == stamps


@pytest.mark.parametrize(
    ("wrapped", "whole"),
    [
        # broken between words, before a blank, inside a word, inside a number
        ("Out of memory: kill process 2 (httpd) score 1285879\nor a child\n", None),
        (
            "Killed process 1917 (php-cgi) vsz:467184kB, anon-\nrss:101196kB, file-rss:204kB\n",
            "anon-rss:101196kB,",
        ),
        (
            "Killed process 5538 (sh) total-vm:7192kB, anon-rss:0kB, file-rss:2976kB, shme\nm-rss:0kB\n",
            "shmem-rss:0kB",
        ),
        (
            "Killed process 4736 (make) total-vm:1kB, anon-rss:1kB, file-rss:2984kB\n, shmem-rss:0kB\n",
            "2984kB, shmem",
        ),
        (
            "DMA free:4kB min:0kB low:0kB high:0kB active_anon:1\n2kB unevictable:0kB free_cma:0kB\n",
            "active_anon:12kB",
        ),
        ("Normal: 1*4kB (R) 0*40\n96kB = 4kB\n", "0*4096kB"),
        ("Node 0\nNormal free:828kB boost:1024kB all_unreclaimable? no\n", "Node 0 Normal free"),
        ("Node 0 Normal\nfree:828kB boost:1kB all_unreclaimable? no\n", "Normal free:828kB"),
        ("java invoked\noom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n", "java invoked oom-killer:"),
        ("java invoked oom-killer: gfp_mask=0xd0,\norder=0, oom_score_adj=0\n", "0xd0, order=0"),
        ("Memory cgroup out of memory:\nKilled process 4 (a) total-vm:1kB, file-rss:0kB\n", "memory: Killed"),
        (
            "Out of memory: Killed\nprocess 4 (a) total-vm:1kB, anon-rss:0kB, file-rss:0kB\n",
            "Killed process 4 (a)",
        ),
        (
            "CPU: 4 PID: 354 Comm: NetworkManager Tainted: G      D\n         5.4.114-rc1 #1\n",
            "D 5.4.114",
        ),
        ("[  pid  ]   uid  tgid total_vm      rss\nswapents oom_score_adj name\n", "rss swapents"),
        ("[ 1]     0   225     3425     1294    24576\n0             0 systemd-journal\n", "24576 0"),
        ("Swap cache stats: add 0, delete 0,\nfind 0/0\n", "0, find"),
        ("hierarchical_memsw_limit\n9223372036854771712\n", "limit 9223"),
        ("Task in /a/b killed as a result of\nlimit of /a\n", "of limit"),
    ],
)
def test_broken_lines_are_joined(wrapped: str, whole: str | None) -> None:
    """Behind a stamp, quoted again on the second line, and quoted once less on it."""
    first, second = wrapped.rstrip("\n").split("\n")
    for before, behind in (
        ("[    1.000000] ", ""),
        ("> [    1.000000] ", "> "),
        ("> > [    1.000000] ", "> "),
    ):
        found = texts(f"{before}{first}\n{behind}{second}\n{before}Mem-Info:\n")
        assert len(found) == 2
        assert (whole or "") in found[0]
        assert found[0].replace(" ", "") == (first + second).replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "[    1.000000] Killed process 4 (a) total-vm:1kB, file-rss:0kB\n# not ok 7 test_memcg_max\n",
        "[    1.000000] x invoked oom-killer: gfp_mask=0x0(), oom_score_adj=0\n     oom_policy=default\n",
        "[    1.000000] Mem-Info:\n...\n",
        "[    1.000000] active_anon:1 inactive_anon:2 isolated_anon:0\n    active_file:2 inactive_file:1\n",
        "[    1.000000] oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=in\n[    1.000001] =====\n",
        "Killed process 2188 (mysqld) total-vm:3330016kB, file-rss:8072kB\n\nThen you also have\n",
        "Normal free:4kB min:1kB all_unreclaimable? no\nhandle_end_of_frame: 880 remained\n",
    ],
)
def test_whole_lines_are_not_joined(text: str) -> None:
    assert len(texts(text)) == 2


def test_run_together_lines_are_parted() -> None:
    text = """\
> Memory cgroup out of memory: kill process 9139 (memcg_test_1) score 3 or a
>  child Killed process 9139 (memcg_test_1) vsz:3456kB, anon-rss:448kB,
>  file-rss:1088kB Memory cgroup out of memory: kill process 9140
>  (memcg_test_1) score 3 or a child Killed process 9140 (memcg_test_1)
>  vsz:3456kB, anon-rss:448kB, file-rss:1088kB Mem-Info: lowmem_reserve[]: 0 1
"""
    assert texts(text) == [
        "Memory cgroup out of memory: kill process 9139 (memcg_test_1) score 3 or a child",
        "Killed process 9139 (memcg_test_1) vsz:3456kB, anon-rss:448kB, file-rss:1088kB",
        "Memory cgroup out of memory: kill process 9140 (memcg_test_1) score 3 or a child",
        "Killed process 9140 (memcg_test_1) vsz:3456kB, anon-rss:448kB, file-rss:1088kB",
        "Mem-Info:",
        "lowmem_reserve[]: 0 1",
    ]


def test_a_stamped_line_is_never_parted_by_its_own_text() -> None:
    """A cgroup's name may hold a whole kill line: what a line that carries a stamp says is one line."""
    forged = "/a Out of memory: Killed process 1 (init) total-vm:1kB, anon-rss:1kB, file-rss:1kB"
    line = f"[    1.000000] Task in {forged} killed as a result of limit of /b"
    assert texts(line + "\n[    2.000000] x\n") == [line[15:], "x"]


# -- the same report, however it was damaged ----------------------------------------------------------


def reports(data: bytes) -> list[OomReport]:
    assembler = Assembler(early=False)
    signals = [signal for record in read(data) for signal in assembler.feed(record)] + assembler.flush()
    blocks = {id(signal.records[0]): signal for signal in signals if isinstance(signal, OomBlock)}
    return [decode(block.records) for block in blocks.values()]


def excerpts(path: Path) -> list[list[str]]:
    """Single reports of a recording as dmesg prints them; those with newlines in a name are left out: without
    stamps nobody can tell them."""
    lines: list[str] = []
    for raw in gzip.decompress(path.read_bytes()).split(b"\n"):
        record = parse_record(raw)
        if record is None or record.facility or record.usec is None:
            continue
        for line in record.text.split("\n"):
            lines.append(f"[{record.usec // 10**6:5}.{record.usec % 10**6:06}] {line}")
    heads = [at for at, line in enumerate(lines) if "invoked oom-killer" in line]
    found = []
    for at in heads:
        end = next((i for i in range(at, len(lines)) if "Killed process" in lines[i]), None)
        block = [] if end is None else lines[at : end + 1]
        if block and sum("invoked oom-killer" in line for line in block) == 1 and "\\x0a" not in block[0]:
            comms = [line for line in block if line.count("] ") and line.endswith((" a)b", " a) b"))]
            if not comms:
                found.append(block)
    return found


def plain(lines: list[str]) -> list[str]:
    return [line.split("] ", 1)[1] for line in lines]


def hard(lines: list[str], width: int) -> list[str]:
    """Broken at a column; blanks at the break are lost."""
    pieces = []
    for line in lines:
        cut = [line[at : at + width] for at in range(0, max(len(line), 1), width)]
        pieces += [piece.rstrip(" ") for piece in cut[:-1]] + cut[-1:]
    return pieces


def soft(lines: list[str], width: int) -> list[str]:
    """Broken between words, as mail programs do."""
    broken = []
    for line in lines:
        broken += textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
    return broken


def syslog(lines: list[str]) -> list[str]:
    return [f"May  1 10:00:00 host kernel: {line}" for line in lines]


DAMAGES: dict[str, Callable[[list[str]], list[str]]] = {
    "plain": plain,
    "indented": lambda lines: ["\t" + line for line in plain(lines)],
    "quoted": lambda lines: ["> > " + line for line in lines],
    "crlf": lambda lines: [line + "\r" for line in lines],
    "syslog": syslog,
    "journal": lambda lines: syslog(plain(lines)),
    "html": lambda lines: [html.escape(line) for line in lines],
    "qp": lambda lines: quopri.encodestring("\n".join(lines).encode()).decode().split("\n"),
    "no-break": lambda lines: [line.replace("  ", "\xa0 ") for line in lines],
    "docker": lambda lines: [json.dumps({"log": line + "\n", "stream": "stdout"}) for line in lines],
    "squeezed": lambda lines: [re.sub(r" +", " ", line) for line in lines],
    "squeezed-plain": lambda lines: [re.sub(r" +", " ", line).strip() for line in plain(lines)],
    "numbered": lambda lines: [f"{number:6}\t{line}" for number, line in enumerate(lines, 1)],
    "grep": lambda lines: [
        f"/var/log/kern.log-{number}-{line}" for number, line in enumerate(syslog(lines), 1)
    ],
    "color": lambda lines: [f"\x1b[32m{line[:15]}\x1b[0m{line[15:]}\x1b[0m" for line in lines],
    "soft72-hyphens": lambda lines: [part for line in lines for part in textwrap.wrap(line, 72) or [""]],
    "flowed": lambda lines: [part + " " for line in lines for part in soft([line], 70)],
    "soft72": lambda lines: soft(lines, 72),
    "soft72-quoted": lambda lines: ["> " + line for line in soft(lines, 72)],
    "soft72-plain": lambda lines: soft(plain(lines), 72),
    "soft76-syslog": lambda lines: soft(syslog(lines), 76),
    "hard61": lambda lines: hard(lines, 61),
    "hard80": lambda lines: hard(lines, 80),
    "hard80-plain": lambda lines: hard(plain(lines), 80),
    "hard132": lambda lines: hard(lines, 132),
    "hard90-syslog": lambda lines: hard(syslog(lines), 90),
    "hard120-soft72": lambda lines: soft(hard(lines, 120), 72),
    "together": lambda lines: [" ".join(lines)],
    "together-plain": lambda lines: soft([" ".join(plain(lines))], 76),
}


@pytest.fixture(scope="module")
def clean(corpus: Path) -> list[tuple[list[str], dict[str, Any]]]:
    found = []
    for path in sorted((corpus / "samples").glob("*.kmsg.gz")):
        for lines in excerpts(path)[:3]:
            (report,) = reports("\n".join(lines).encode())
            found.append((lines, figures(report)))
    assert len(found) > 20
    return found


def figures(report: OomReport) -> dict[str, Any]:
    """A report without what a damaged copy cannot have: its stamps, and how its stack was laid out."""
    fields: dict[str, Any] = msgspec.to_builtins(report)
    for name in ("undecoded", "first_usec", "kill_usec", "first_wall"):
        fields.pop(name)
    fields["trigger"].pop("call_trace")
    return fields


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_copy_says_the_same(damage: str, clean: list[tuple[list[str], dict[str, Any]]]) -> None:
    for lines, expected in clean:
        data = "\n".join(DAMAGES[damage](lines)).encode()
        assert [figures(report) for report in reports(data)] == [expected]


def test_a_copy_without_blanks_names_trigger_victim_and_zones(
    clean: list[tuple[list[str], dict[str, Any]]],
) -> None:
    for lines, expected in clean:
        (report,) = reports("\n".join(line.replace(" ", "") for line in plain(lines)).encode())
        got = figures(report)
        for field in ("comm", "pid", "gfp_mask", "order", "oom_score_adj"):
            assert got["trigger"][field] == expected["trigger"][field]
        for field in ("kernel", "constraint", "kills", "chosen_pid", "outcome"):
            assert got[field] == expected[field]
        assert [victim["anon_rss_bytes"] for victim in got["victims"]] == [
            victim["anon_rss_bytes"] for victim in expected["victims"]
        ]
        if expected["memory"] is not None:
            assert got["memory"]["totals"] == expected["memory"]["totals"]
            for zone, truth in zip(got["memory"]["zones"], expected["memory"]["zones"], strict=True):
                assert (zone["zone"], zone["amounts"]) == (truth["zone"], truth["amounts"])
                assert zone["free_blocks"] == truth["free_blocks"]


@pytest.mark.parametrize("character", ["\x0b", "\x1c", "\x85", "\u2028", "\0"])
def test_odd_white_space_is_text(character: str) -> None:
    assert texts(f"[    1.000000] Normal free:1kB\n{character}\nmin:0kB{character}\n")[0].startswith("Normal")


# -- properties --------------------------------------------------------------------------------------

FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            *("\n", "\r\n", "\r", " ", "> ", "| ", "\t", "<4>", "=3D", "=\n", "&lt;", "#012", "\x1b[31m"),
            *(
                "[    1.000000] ",
                "[    2.5][ T1] ",
                "May  1 10:00:00 host kernel: ",
                "May  1 10:00:00 h sshd[1]: ",
            ),
            *("6,1,2,-;", " SUBSYSTEM=x\n", "{", "}", '"msg": "x"', '{"log":"x\\n"}', "__CURSOR=1\n"),
            *("Out of memory: Killed process 1 (a) total-vm:1kB,", " anon-rss:1kB, file-rss:0kB", "Killed"),
            *(
                "Node 0 Normal free:1kB",
                "Node 0",
                "1*4kB",
                "active_anon:1 inactive_anon:1 ",
                "anon 12",
                "...",
            ),
            *(
                "[  123]     0   123     1",
                "[ pid ]   uid  tgid",
                "x invoked oom-killer: gfp_mask=0x0",
                "Mem-Info:",
            ),
        ]
    ),
    st.text(max_size=12),
    st.integers(min_value=0, max_value=10**9).map(str),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS, max_size=60).map("".join), st.data())
def test_piecewise_is_whole(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    whole = read(raw)
    reader = TextReader()
    found = []
    at = 0
    while at < len(raw):
        step = data.draw(st.integers(min_value=1, max_value=max(1, len(raw) - at)))
        found += reader.feed(raw[at : at + step])
        at += step
    assert found + reader.flush() == whole


def test_piecewise_is_whole_behind_the_head() -> None:
    lines = [
        f"[{n:5}.{n:06}] line {n}" if n % 3 else f"      plain {n} " + "x" * (n % 200) for n in range(40_000)
    ]
    raw = "\n".join(lines).encode()
    assert len(raw) > CHUNK
    reader = TextReader()
    found = []
    for at in range(0, len(raw), 7919):
        found += reader.feed(raw[at : at + 7919])
    assert found + reader.flush() == read(raw)


_WORD = re.compile(r"\w+")


_WORDS = (
    *(
        "alpha",
        "Killed process 7 (x)",
        "Mem-Info:",
        "42",
        "kB",
        "(UE)",
        "= 4kB",
        "order=0,",
        "Node 0",
        "free:",
    ),
    *("oom-kill:", "name", "[   12]"),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(_WORDS), min_size=1, max_size=8).map(" ".join), max_size=12))
def test_no_word_is_lost(lines: list[str]) -> None:
    text = "\n".join(line for line, _ in groupby(lines))  # a log whose lines all stand twice is read once
    assume(not learn(text.split("\n")))  # a word before all kernel lines is a prefix
    joined = "".join(_WORD.findall("\n".join(texts(text))))
    assert joined == "".join(_WORD.findall(text))


def test_every_line_of_the_field_corpus_is_in_a_record(corpus: Path) -> None:
    for path in sorted((corpus / "field").glob("*.log")):
        data = path.read_bytes()
        decorated = (
            decoration.judge([line for line in data.split(b"\n") if line.strip()], data)
            is not decoration.NONE
        )
        if decorated or encodings.judge(data) is not encodings.PLAIN:
            continue  # the record holds the line as it was before it was carried so
        kept = b"".join(b"".join(record.raw.split()) for record in read(data))
        for line in re.split(rb"[\r\n]", data.replace(b"\xc2\xa0", b" ")):
            assert b"".join(re.sub(rb"\x1b\[[0-9;=]*[A-Za-z]", b"", line).split()) in kept, path.name


def _calls(data: bytes) -> int:
    """How many calls, of Python and C functions, reading this takes."""
    count = 0

    def hook(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(hook)
    try:
        read(data)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", HOSTILE)
def test_work_is_linear_on_hostile_input(name: str) -> None:
    """Double the input, at most double the calls (benchmarks/bench_text.py measures the time)."""
    data = HOSTILE[name][:6_000]
    if b"\n" in data:
        data = data[: data.rindex(b"\n") + 1]  # half a line before the next would be a prefix of it
    read(data * 2)  # patterns are compiled when they are first used
    assert _calls(data * 2) < 2.5 * _calls(data) + 1000


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_of_any_size_is_read(name: str) -> None:
    assert len(read(HOSTILE[name])) <= len(HOSTILE[name])


def test_memory_is_bounded_for_a_line_without_end() -> None:
    reader = TextReader()
    for _ in range(200):
        reader.feed(b"x" * 65_536)
    assert len(reader._rest) <= 65_536
    assert reader._head is None


# -- opening and skipping ----------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_compressed_files(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = f"[    1.000000] {KILL}\n".encode() * 1000
    path.write_bytes(compress(data))
    seen: list[int] = []
    with open_log(path, seen.append) as stream:
        assert stream.read() == data
    assert seen[-1] == path.stat().st_size
    assert seen == sorted(seen)
    with open_log(io.BytesIO(compress(data))) as stream:
        assert stream.read() == data


def test_two_compressed_frames(tmp_path: Path) -> None:
    for compress in (gzip.compress, bz2.compress, lzma.compress, zstandard.compress):
        path = tmp_path / "log"
        path.write_bytes(compress(b"one\n") + compress(b"two\n"))
        with open_log(path) as stream:
            assert stream.read() == b"one\ntwo\n"


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstandard.compress])
def test_truncated_compressed_files(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = tmp_path / "log"
    data = b"".join(b"%d %d\n" % (n, n * n) for n in range(20_000))
    whole = compress(data)
    path.write_bytes(whole[: len(whole) // 2])
    with open_log(path) as stream:
        found = stream.read()
        with pytest.raises(NoInputError, match=r"only the beginning of .* could be decompressed"):
            check_whole(stream)
    assert data.startswith(found)
    path.write_bytes(whole)
    with open_log(path) as stream:
        stream.read()
        check_whole(stream)
    path.write_bytes(whole[:12] if compress is not zstandard.compress else whole[:4] + b"\xff" * 200)
    with pytest.raises(NoInputError, match="cannot be decompressed"), open_log(path) as stream:
        stream.read()


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (b"PK\x03\x04\x14\0\0\0\x08\0", "is a zip archive; try: unzip -p "),
        (b"\x04\x22\x4d\x18", "is compressed with lz4; try: lz4 -dc "),
        (b"LPKSHHRH", "is a journal file; try: oomwatchd analyze --journal --directory "),
    ],
)
def test_what_is_no_text_is_said_so(first: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(first + bytes(100))
    with pytest.raises(NoInputError, match=re.escape(f"{path} {what}")):
        open_log(path)


def test_an_archive_that_is_not_compressed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("log", f"[    1.000000] {KILL}\n")
    with open_log(path) as stream:
        assert KILL.encode() in stream.read()


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="there is no file"):
        open_log(tmp_path / "none")
    with pytest.raises(NoInputError, match="is a directory"):
        open_log(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionDeniedError, match="run as root"):
        open_log(tmp_path / "log")


def _large(*marks: tuple[int, bytes]) -> bytes:
    """A log without reports of several chunks, with lines put in at about these offsets."""
    filler = b"May  1 10:00:00 host sshd[12]: Accepted publickey for deploy from 10.0.3.17\n"
    size = SMALL + 6 * CHUNK
    lines = [filler] * (size // len(filler))
    for offset, line in marks:
        lines[offset // len(filler)] = line
    return b"".join(lines)


@pytest.mark.parametrize(
    "offset", [0, SMALL - 40, SMALL, SMALL + CHUNK - 40, SMALL + CHUNK, SMALL + 3 * CHUNK + 5000]
)
def test_nothing_is_missed_in_a_large_file(offset: int) -> None:
    kill = f"May  1 10:00:00 host kernel: [ 4843.939001] {KILL}\n".encode()
    for shift in range(0, 400, 80):
        found = [r for r in records(io.BytesIO(_large((offset + shift, kill)))) if r.text == KILL]
        assert len(found) == 1


def test_what_stands_before_a_report_is_read_too() -> None:
    at = SMALL + 2 * CHUNK
    data = _large(
        (at - 300, b"May  1 10:00:00 host kernel: oom_kill_process: 7 callbacks suppressed\n"),
        (at, b"May  1 10:00:00 host kernel: java invoked oom-killer: gfp_mask=0xd0, order=0\n"),
    )
    found = [record.text for record in records(io.BytesIO(data))]
    assert "oom_kill_process: 7 callbacks suppressed" in found
    # and most of the rest is not
    assert len(found) < 0.8 * data.count(b"\n")


def test_a_consumer_that_waits_gets_every_line() -> None:
    data = _large()
    assert sum(1 for _ in records(io.BytesIO(data), idle=lambda: False)) == data.count(b"\n")


def test_every_report_of_the_corpus_has_a_needle(corpus: Path) -> None:
    """A block opens at a line with one of the needles, or at one that such a line follows at once."""
    for path in sorted((corpus / "kernel").glob("*.kmsg.gz")):
        for line in gzip.decompress(path.read_bytes()).split(b"\n"):
            if any(
                mark in line for mark in (b"invoked oom-killer", b"Killed process ", b"oom-kill:constraint")
            ):
                assert any(needle in line for needle in NEEDLES)


PIECES = [
    "lowmem_reserve[]:", " 0", " 808", " 3849",
    "Node 0 DMA: ", "4*4kB ", "(U) ", "1*8kB ", "(E) ", "= 24kB",
]  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        "[  431.123456] {}",
        "Jan  1 00:00:01 host kernel: {}",
        '{{"_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "MESSAGE": "{}"}}',
    ],
)
def test_pieces_of_a_line_that_the_kernel_printed_as_records(line: str) -> None:
    text = "\n".join(line.format(piece) for piece in [*PIECES, "0 pages in swap cache"])
    assert texts(text) == [
        "lowmem_reserve[]: 0 808 3849",
        "Node 0 DMA: 4*4kB (U) 1*8kB (E) = 24kB",
        "0 pages in swap cache",
    ]


SUMMARY = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=abc,mems_allowed=0,oom_memcg=/docker/abc,"
    "task_memcg=/docker/abc/def,task=python,pid=5,uid=0"
)


@pytest.mark.parametrize("sign", ["", "\\", " \\"])
@pytest.mark.parametrize("indent", ["", "    "])
def test_a_summary_broken_behind_its_commas(sign: str, indent: str) -> None:
    broken = SUMMARY.replace(",", f",{sign}\n{indent}" if sign or indent else ",\n")
    (report,) = reports(f"[1.0] {broken}\n[1.0] {KILL}\n".encode())
    assert report.memcg is not None
    assert (report.memcg.oom_path, report.memcg.task_path) == ("/docker/abc", "/docker/abc/def")


def test_words_that_were_made_bold() -> None:
    line = "Out of memory: Killed process 649 (**fio**) total-vm:1kB, anon-rss:**896kB**, file-rss:1kB"
    assert texts(f"**java** invoked oom-killer: gfp_mask=0xcc0, order=0\n{line}") == [
        "java invoked oom-killer: gfp_mask=0xcc0, order=0",
        line.replace("**", ""),
    ]
    assert texts("** 7 printk messages dropped **") == ["** 7 printk messages dropped **"]


def test_quoted_printable_of_latin_1() -> None:
    lines = [f"[    1.00000{n}]=A0{line.replace('=', '=3D')}" for n, line in enumerate(REPORT)]
    assert [line.strip() for line in texts("\n".join(lines))] == [line.strip() for line in REPORT]


def test_every_report_has_a_needle() -> None:
    without = {
        form.name
        for form in ALL
        if form.needles and form.role in (Role.HEADER, Role.KILL)
        for sample in form.samples
        if not has_needle(sample.encode())
    }
    assert without == set()


def test_a_needle_is_found_however_its_line_is_broken() -> None:
    for form in ALL:
        if form.proof is not Proof.ALONE:
            continue
        for sample in form.samples:
            for at in range(1, len(sample)):
                broken = f"{sample[:at]}\n> {sample[at:]}".encode()
                assert spells_needle(broken), (form.name, broken)


def test_a_text_that_spells_no_needle_is_not_read() -> None:
    assert list(records(io.BytesIO(b"x\n" * (CHUNK // 2)))) == []
    wrapped = b"x\n" * 1000 + b"Out of memory: Killed\nprocess 12 (a) total-vm:4kB, anon-rss:4kB\n"
    assert "Killed process 12 (a)" in list(records(io.BytesIO(wrapped)))[-1].text


def test_a_vendors_clock_behind_the_stamp() -> None:
    """Unisoc's kernels print the time of day there."""
    reader = TextReader()
    lines = (
        "[   36.172486] [03-19 10:05:52.172] worker: page allocation failure: order:4, mode:0xc0d0",
        "[   36.172600] [03-19 10:05:52.173] DMA32: 0*4kB 447*8kB (C) 20*16kB (C) 0*32kB = 3896kB",
    )
    found = reader.feed("\n".join(lines).encode()) + reader.flush()
    said = [(record.usec, record.text[:7]) for record in found]
    assert said == [(36172486, "worker:"), (36172600, "DMA32: ")]


def test_two_stamped_lines_in_one_among_whole_lines() -> None:
    reader = TextReader()
    lines = (
        "[16680.926212] Mem-Info:",
        "[16680.926214] Out of memory: Kill process 167 (mysqld) score 176 or sacrifice child "
        "[16680.935614] Killed process 167 (mysqld) total-vm:101kB, anon-rss:17kB, file-rss:0kB",
        "[16720.992415] Killed process 225 (php) total-vm:101kB, anon-rss:17kB, file-rss:0kB",
    )
    found = reader.feed("\n".join(lines).encode()) + reader.flush()
    assert [record.usec for record in found] == [16680926212, 16680926214, 16680935614, 16720992415]
