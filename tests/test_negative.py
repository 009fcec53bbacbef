"""Texts without a report: none is invented, and similar messages are named."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from oomwatchd.diagnosis.near import KINDS, neighbours
from oomwatchd.event import conclude
from oomwatchd.records.capture import OomCapture
from oomwatchd.sources.text import GrowingLog

NEGATIVE = Path(__file__).parent / "data" / "negative"
KILL = (
    "Out of memory: Killed process 1234 (java) total-vm:100kB, anon-rss:90kB, file-rss:0kB, shmem-rss:0kB,"
    " UID:0 pgtables:1kB oom_score_adj:0"
)
HEADER = "java invoked oom-killer: gfp_mask=0x201da, order=0, oom_score_adj=0"

#: what is near an OOM kill in each text; the first that is told
NEAR = {
    "n02-go-regex-with-examples.txt": "source_code",
    "n04-shell-greps.txt": "source_code",
    "n05-systemd-only.txt": "unit_oom_killed",
    "n07-java.txt": "java_heap",
    "n08-kubelet.txt": "kubelet",
    "n13-kernel-source.txt": "source_code",
    "n15-howto-prose.txt": "source_code",
    "n16-mermaid-doc.txt": "quoted",
    "n17-postgres.txt": "refused",
    "n19-rust-test.txt": "quoted",
    "n21-ki-rule-config.txt": "source_code",
}


def read(data: bytes) -> tuple[list[OomCapture], GrowingLog]:
    log = GrowingLog()
    return [*log.feed(data), *log.finish()], log


@pytest.mark.parametrize("name", sorted(path.name for path in NEGATIVE.iterdir()))
def test_nothing_is_invented(name: str) -> None:
    found, log = read((NEGATIVE / name).read_bytes())
    events = [conclude(capture).event for capture in found]
    # a daemon's kill is told as what it is (tests/test_other_killers.py): the kernel killed nobody
    assert [event.kind for event in events if event.kind not in ("oomd_kill", "user_kill")] == []
    assert sum(event.kills for event in events) == 0
    kinds = [near.kind.id for near in log.neighbours]
    assert bool(kinds) is not bool(events)
    if name in NEAR:
        assert kinds[0] == NEAR[name]


#: what a line stands in that quotes a line of a report
QUOTING = (
    'LINE = "{}"',
    '    line := "[   12.345678] {}"',
    'assert parse("{}") == 3',
    "    parse('Mar 24 18:41:04 host kernel: {}')",
    "// An example is {}\nfunc f() {{",
    "# An example is {}\nx = 1",
    "In dmesg you find {}",
    "You will see a line like: `{}`",
    'echo "{}" > /dev/kmsg',
    '  const char *l = "<4>[    1.200000] {}\\n";',
    "Kernel messages such as `{}` mean",
    'expect(m("{}")).toBe(1);',
    'let s = r#"{}"#;',
    'grep "{}" f',
    '\t\t{{"[  123.456789] {}", 999}},',
    '    {{ "{}", 7 }},',
    "\ub2e4\uc74c \ub85c\uadf8\ub97c \ubcfc \uc218 \uc788\uc2b5\ub2c8\ub2e4: `{}`.",
    "\u5185\u6838\u4f1a\u6253\u5370\u300c{}\u300d",
)
#: what a log has around such a line
CARRYING = (
    "{}",
    "[  100.123456] {}",
    "Mar 24 18:41:04 host kernel: {}",
    "    {}",
    "> {}",
    "2024-01-01T00:00:00Z host kernel: {}",
    "<4>{}",
    "node1: [  100.123456] {}",
    "submit # [  100.123456] {}",
    '{{"message": "{}"}}',
    '"{}",',
    'message: "{}"',
    "host kernel: {}",
    "[web-1] [  100.123456] {}",
    'level=info msg="{}"',
    "kern  :err   : [  100.123456] {}",
    "[Wed May  1 10:00:00 2024] {}",
    "#12 3.45 [    1.234567] {}",
    "pod/foo-abc123 container [  100.123456] {}",
    "root@box:~# dmesg | tail -1\n[  100.123456] {}",
)


@pytest.mark.parametrize("line", [KILL, HEADER], ids=["kill", "header"])
@pytest.mark.parametrize("around", QUOTING)
def test_a_quoted_line_is_no_event(around: str, line: str) -> None:
    text = f"Some words before.\n{around.format(line)}\nand some behind\n"
    assert read(text.encode())[0] == []


@pytest.mark.parametrize("line", [KILL, HEADER], ids=["kill", "header"])
@pytest.mark.parametrize("around", CARRYING)
def test_a_lone_line_of_a_log_is_an_event(around: str, line: str) -> None:
    assert len(read(f"{around.format(line)}\n".encode())[0]) == 1


def test_strings_of_a_program_that_have_names_are_no_event() -> None:
    """Test data: even lines that would prove a report."""
    dump = "CPU: 1 PID: 7 Comm: java Not tainted 6.1.0 #1"
    report = (HEADER, dump, KILL)
    lines = (f'    private const string L{n} = "[1.{n}] {line}";' for n, line in enumerate(report))
    assert read("\n".join(lines).encode())[0] == []
    lines = (f"    b'[    1.00000{n}] {line}\\n'" for n, line in enumerate(report))
    assert len(read("\n".join(lines).encode())[0]) == 1


TITLES = (
    "Tasks state (memory values in pages):",
    "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
    "Mem-Info:",
)


def test_the_words_of_a_report_are_in_source_code_too() -> None:
    """Lines without a figure prove a report only as a log has them."""
    for code in ('\tpr_info("{}\\n");', 'head = "{}"', '    assert is_head("{}")'):
        text = "\n".join(code.format(title) for title in TITLES)
        assert read(text.encode())[0] == [], text
    assert len(read("\n".join(TITLES).encode())[0]) == 1
    row = "[    375]     0   375    14010     2008   102400      256          -250 sh"
    listed = "\n".join(f"  '{line}'," for line in (*TITLES, row))
    assert len(read(listed.encode())[0]) == 1


@pytest.mark.parametrize("mask", ["...", "%#x(%pGg)", "<mask>", "0xNN", "…"])
def test_a_mask_is_a_number(mask: str) -> None:
    text = f"[  100.000000] X invoked oom-killer: gfp_mask={mask}, order=0, oom_score_adj=0\n"
    assert read(text.encode())[0] == []


def test_a_summary_that_names_nobody_is_no_event() -> None:
    text = (
        "You may see:\n\noom-kill:constraint=CONSTRAINT_NONE,...,task=java\nKilled process <pid> (java) ...\n"
    )
    assert read(text.encode())[0] == []
    assert len(read(text.replace("java\n", "java,pid=7,uid=0\n").encode())[0]) == 1


def test_what_leaves_doubt_is_an_event_that_says_so() -> None:
    (bare,) = read(f"{KILL}\n".encode())[0]
    assert conclude(bare).event.doubt is not None
    for certain in (f"[  100.000000] {KILL}\n", f"{HEADER}\nMem-Info:\n{KILL}\n"):
        (capture,) = read(certain.encode())[0]
        assert conclude(capture).event.doubt is None


#: logs with words, commands or fields around them, and whether the text leaves doubt
LOGS = {
    "issue": (
        "The server stops every night since the last update, and I have no idea what the reason may be.\n"
        f"```\nMar 24 18:41:04 host kernel: {HEADER}\nMar 24 18:41:04 host kernel: {KILL}\n```\n"
        "It should run for more than one day without a restart of the whole machine.\n",
        True,
    ),
    "shell": (f"root@box:~# dmesg -t | grep -i kill\n{KILL}\nroot@box:~# free -m\n", True),
    "yaml": (f"status: failed\noutput: |\n  [  100.000000] {KILL}\nexit_code: 137\n", False),
    "json": (
        f'{{\n  "kind": "Event",\n  "message": "{KILL}",\n  "reason": "OOMKilling"\n}}\n',
        False,
    ),
    "build": (
        "Running tests/test_big.py (this may take a while, please be patient and wait)\n"
        f"[ 1234.567890] {KILL}\nmake: *** [Makefile:12: check] Error 137\n",
        False,
    ),
    "many": (
        "These are the lines that we found in the log of this machine after the panic.\n"
        + "".join(f"[ 1234.56789{n}] {KILL.replace('1234', f'12{n}')}\n" for n in range(5))
        + "There is no process left that the kernel may kill, so it had to stop in the end.\n",
        False,
    ),
}


@pytest.mark.parametrize("name", LOGS)
def test_words_around_a_log_do_not_hide_it(name: str) -> None:
    text, doubt = LOGS[name]
    events = [conclude(capture).event for capture in read(text.encode())[0]]
    assert events
    assert all((event.doubt is not None) == doubt for event in events)


def test_a_lone_line_between_sentences_is_no_event() -> None:
    before = "Last week our database was killed in the night, and nobody knew why that happened.\n\n"
    after = "\nSo the kernel had killed it, because there was no swap at all on this machine.\n"
    assert read(f"{before}{KILL}\n{after}".encode())[0] == []
    (timed,) = read(f"{before}[ 1234.567890] {KILL}\n{after}".encode())[0]
    assert conclude(timed).event.doubt is not None
    (whole,) = read(f"{before}{HEADER}\nMem-Info:\n{KILL}\n{after}".encode())[0]
    assert conclude(whole).event.doubt is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_each_kind_knows_its_own_samples(kind: object) -> None:
    for one in KINDS:
        if one is kind:
            for sample in one.samples:
                assert [near.kind.id for near in neighbours(["nothing", sample])] == [one.id]


def test_the_answer_names_what_is_near() -> None:
    command = [sys.executable, "-m", "oomwatchd", "analyze", str(NEGATIVE / "n07-java.txt")]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    assert done.stdout == b""
    said = done.stderr.decode().splitlines()
    assert said[0].startswith("oomwatchd: no OOM report in ")
    assert said[1].startswith("oomwatchd: near it: line 1") and "-Xmx" in said[1]


def test_a_transcript_of_a_dump_without_a_report_is_named() -> None:
    text = "crash> log\n[    1.000000] sysrq: Trigger a crash\ncrash> quit\n"
    found, log = read(text.encode())
    assert found == []
    assert [near.kind.id for near in log.neighbours] == ["dump_tools"]
    with_one = text.replace("sysrq: Trigger a crash", KILL)
    assert len(read(with_one.encode())[0]) == 1


def test_hostile_lines_cost_little() -> None:
    long = ["%s" * 4000, "killed process " * 2000, "[" * 9000, "Killed" + " " * 9000 + "x"]
    assert len(neighbours(long * 50)) <= 4


KILL = (
    "Out of memory: Killed process 11 (a) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0"
    " pgtables:1kB oom_score_adj:0"
)


def cost(text: str) -> float:
    began = time.process_time()
    log = GrowingLog()
    assert [*log.feed(text.encode()), *log.finish()]
    return time.process_time() - began


@pytest.mark.parametrize("word", ["a", "1:", '("', "kernel:"])
def test_what_stands_before_a_kill_line_costs_no_square(word: str) -> None:
    lines = f"{word * (30_000 // len(word))} {KILL}\n" * 4
    assert cost(lines) < 3  # the square: a minute


def test_blanks_behind_a_kill_line_cost_no_square() -> None:
    few, many = (cost(f"{KILL}{'1 ' * count}\n") for count in (4_000, 32_000))
    assert many < 20 * max(few, 0.02)


def test_a_line_that_stands_there_again_and_again_costs_no_square() -> None:
    few, many = ("".join(f"[{n * 10}.000000] {KILL}\n" for n in range(count)) for count in (500, 4000))
    assert cost(many) < 20 * max(cost(few), 0.01)
