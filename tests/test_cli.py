"""The command line as users have it: a process, its output, its exit status."""

from __future__ import annotations

import gzip
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from oomwatchd import __version__
from oomwatchd.cli import COMMANDS, main
from oomwatchd.cli._output import seen
from oomwatchd.cli.events import since
from oomwatchd.event import conclude
from oomwatchd.event.groups import grouped
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import parse_record
from oomwatchd.reports.assemble import Assembler, OomBlock, Signal
from oomwatchd.reports.storms import Fold
from oomwatchd.store import Store
from tests.samples import BOOT, WALL

COMMAND = [sys.executable, "-m", "oomwatchd"]
KERNELS = ("5.10.0-32-cloud-amd64-amd64", "6.1.0-50-cloud-amd64-amd64", "6.12.94+deb13-cloud-amd64-amd64")


def oomwatchd(
    *words: str | Path, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        input=stdin,
        capture_output=True,
        check=False,
        env=os.environ | environment,
        timeout=60,
    )


def on_terminal(*words: str | Path, **environment: str) -> bytes:
    """What a command shows on a terminal."""
    controller, terminal = pty.openpty()
    environment = {"TERM": "xterm", "COLUMNS": "100"} | environment
    with subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"} | environment,
    ):
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(controller, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(controller)
    return shown


@pytest.fixture(scope="module")
def seed(corpus: Path) -> Path:
    return corpus / "seed" / "mips-3.10-highmem.log"


@pytest.fixture(scope="module")
def hostile(corpus: Path) -> Path:
    """A recording with hostile process names."""
    return corpus / "kernel" / f"{KERNELS[1]}.kmsg.gz"


def captures(recording: Path) -> list[OomCapture]:
    """A recording as the daemon would store it."""
    assembler = Assembler()
    blocks: dict[int, OomBlock] = {}
    fold = Fold()
    signals: list[Signal] = []
    for line in gzip.decompress(recording.read_bytes()).split(b"\n"):
        record = None if line.startswith(b" ") else parse_record(line)
        if record is not None:
            signals += assembler.feed(record)
    for issued in (*signals, *assembler.flush()):
        if isinstance(issued, OomBlock):
            blocks |= {folded.block.records[0].seq or 0: folded.block for folded in fold.take(issued)}
    return [
        OomCapture(
            source=Source(kind="kmsg", form="kmsg", boot_id=BOOT),
            records=block.records,
            first_seq=block.records[0].seq,
            last_seq=block.records[-1].seq,
            revision=block.revision,
            settled=True,
            wall_offset=WALL,
        )
        for block in blocks.values()
    ]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, hostile: Path) -> Path:
    """A state directory with the recording's events."""
    directory = tmp_path_factory.mktemp("state")
    store = Store.open(directory)
    for capture in captures(hostile):
        store.put(capture, conclude(capture).event)
    store.close()
    return directory


def test_version_loads_nothing_heavy() -> None:
    shown = oomwatchd("--version")
    assert (shown.returncode, shown.stdout) == (0, f"oomwatchd {__version__}\n".encode())
    script = """
import sys
from oomwatchd.cli import main
main(["--version"])
heavy = {"rich", "prometheus_client", "msgspec", "sqlite3", "http", "psutil", "pyudev", "systemd", "logging"}
print(sorted(heavy & set(sys.modules)))
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command() -> None:
    shown = oomwatchd("--help")
    assert shown.returncode == 0
    for name in COMMANDS:
        assert f"\n    {name}".encode() in shown.stdout
        helped = oomwatchd(name, "--help")
        assert helped.returncode == 0, helped.stderr
        assert helped.stdout.startswith(f"usage: oomwatchd {name} ".encode())


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nonsense",),
        ("--nonsense",),
        ("analyze", "--format", "yaml"),
        ("events",),
        ("events", "list", "--limit", "0"),
        ("events", "list", "--since", "yesterday\x1b[2J"),
        ("events", "list", "--nonsense", "x"),
        ("selftest", "--timeout", "0"),
        ("selftest", "--timeout", "nan"),
        ("events", "--state-directory", "x", "--config", "y", "list"),
    ],
)
def test_wrong_arguments_are_one_line_and_64(words: tuple[str, ...]) -> None:
    shown = oomwatchd(*words)
    assert shown.returncode == 64
    assert shown.stdout == b""
    assert re.fullmatch(rb"oomwatchd: [^\n\x1b]+\n", shown.stderr)


def test_debug_shows_where_an_error_comes_from() -> None:
    for words in (("--debug", "analyze", "/nonexistent"), ("analyze", "--debug", "/nonexistent")):
        shown = oomwatchd(*words)
        assert shown.returncode == 66
    quiet = oomwatchd("events", "--state-directory", "/nonexistent", "list")
    loud = oomwatchd("--debug", "events", "--state-directory", "/nonexistent", "list")
    assert quiet.returncode == loud.returncode == 69
    assert b"Traceback" not in quiet.stderr
    assert b"Traceback" in loud.stderr


def test_an_internal_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise ZeroDivisionError("evil \x1b[31m")

    monkeypatch.setattr("oomwatchd.cli.explain.run", fail)
    assert main(["explain"]) == 70
    said = capsys.readouterr().err
    assert said.startswith("oomwatchd: internal error: ZeroDivisionError: evil \\x1b[31m; ")
    assert said.count("\n") == 1


def test_seed_log_in_every_format(seed: Path) -> None:
    truth = json.loads(seed.with_suffix(".truth.json").read_text())
    shown = oomwatchd("analyze", "--format", "json", seed)
    assert shown.returncode == 0
    (event,) = json.loads(shown.stdout)
    # tests/test_event.py compares the whole event
    assert (event["kind"], event["kills"]) == (truth["kind"], truth["kills"])
    assert truth["trigger"].items() <= event["trigger"].items()
    assert event["source"] == {
        "kind": "file",
        "form": "dmesg",
        "boot_id": None,
        "first_seq": None,
        "last_seq": None,
        "name": str(seed),
    }
    lines = oomwatchd("analyze", "--format", "jsonl", seed).stdout.splitlines()
    assert [json.loads(line) for line in lines] == [event]
    text = oomwatchd("analyze", seed).stdout.decode()
    assert "min_free_kbytes" in text
    assert "\x1b" not in text


def test_html_is_one_page_of_all_events(seed: Path, state: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    shown = oomwatchd("analyze", "--format", "html", "--output", output, seed, seed)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"", b"")
    page = output.read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "min_free_kbytes" in page
    assert "invoked oom-killer" in page, "the raw report is part of the page"
    row = Store.open_reader(state).list(limit=1)[0]
    single = oomwatchd("events", "--state-directory", state, "show", row.id, "--format", "html")
    assert single.returncode == 0, single.stderr
    assert row.id.encode() in single.stdout


def test_standard_input_is_the_default(seed: Path) -> None:
    data = seed.read_bytes()
    for words in (("analyze",), ("analyze", "-")):
        shown = oomwatchd(*words, "--format", "json", stdin=data)
        (event,) = json.loads(shown.stdout)
        assert event["source"]["name"] is None
        assert event["kills"] == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_kills_are_those_of_the_kernels_own_count(corpus: Path, kernel: str) -> None:
    shown = oomwatchd("analyze", "--format", "jsonl", corpus / "kernel" / f"{kernel}.kmsg.gz")
    events = [json.loads(line) for line in shown.stdout.splitlines()]
    truth = (corpus / "kernel" / f"{kernel}.truth").read_text()
    assert sum(event["kills"] for event in events) == sum(map(int, re.findall(r"kills=(\d+)", truth)))


def test_several_files_in_order_and_one_that_is_not_there(seed: Path, hostile: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    shown = oomwatchd("analyze", "--format", "json", seed, tmp_path / "empty", tmp_path / "none", hostile)
    assert shown.returncode == 66
    events = json.loads(shown.stdout)
    names = list(dict.fromkeys(event["source"]["name"] for event in events))
    assert names == [str(seed), str(hostile)]
    assert shown.stderr.decode().splitlines() == [
        f"oomwatchd: no OOM report in {tmp_path}/empty",
        f"oomwatchd: there is no file {tmp_path}/none; check the name, or give - for standard input",
    ]


def test_nothing_found_is_an_empty_array_and_no_failure() -> None:
    shown = oomwatchd("analyze", "--format", "json", stdin=b"nothing of interest\n")
    assert (shown.returncode, shown.stdout) == (0, b"[]\n")
    assert shown.stderr == b"oomwatchd: no OOM report in standard input\n"


def test_the_boot_id_gives_the_daemons_event_ids(hostile: Path) -> None:
    dashed = f"{BOOT[:8]}-{BOOT[8:12]}-{BOOT[12:16]}-{BOOT[16:20]}-{BOOT[20:]}".upper()
    shown = oomwatchd("analyze", "--format", "jsonl", "--boot-id", dashed, hostile)
    ids = {json.loads(line)["id"] for line in shown.stdout.splitlines()}
    assert ids == {conclude(capture).event.id for capture in captures(hostile)}


def test_output_goes_to_a_file_or_fails_with_73(seed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    shown = oomwatchd("analyze", "--format", "json", "--output", output, seed)
    assert (shown.returncode, shown.stdout) == (0, b"")
    assert len(json.loads(output.read_bytes())) == 1
    for bad, why in ((tmp_path, "Is a directory"), (tmp_path / "no" / "x", "No such file or directory")):
        shown = oomwatchd("analyze", "--output", bad, seed)
        assert shown.returncode == 73
        assert shown.stderr.decode() == f"oomwatchd: cannot write {bad}: {why}\n"


def test_a_full_standard_output_is_one_line(seed: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "analyze", str(seed)], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 74
    assert done.stderr == b"oomwatchd: cannot write standard output: No space left on device\n"
    # what goes elsewhere does not touch it
    output = tmp_path / "out"
    with open("/dev/full", "wb") as full:
        command = [*COMMAND, "analyze", "--output", str(output), str(seed)]
        assert subprocess.run(command, stdout=full, check=False, timeout=60).returncode == 0
    assert output.read_bytes().startswith(b"DIED")


@pytest.mark.parametrize(
    ("closed", "words", "status", "said"),
    [
        (">&-", "analyze LOG", 74, "oomwatchd: cannot write standard output: Bad file descriptor\n"),
        (">&-", "--version", 74, "oomwatchd: cannot write standard output: Bad file descriptor\n"),
        (">&-", "analyze --output OUT LOG", 0, ""),
        ("<&-", "analyze LOG", 0, ""),
        ("<&-", "analyze -", 66, "oomwatchd: standard input cannot be read: Bad file descriptor\n"),
        ("2>&-", "analyze --nonsense", 64, ""),
        ("<&- >&- 2>&-", "analyze LOG", 74, ""),
    ],
)
def test_closed_standard_streams(
    seed: Path, tmp_path: Path, closed: str, words: str, status: int, said: str
) -> None:
    words = words.replace("LOG", str(seed)).replace("OUT", str(tmp_path / "out"))
    script = f"{' '.join(COMMAND)} {words} {closed}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (status, said)


def test_the_output_is_not_written_over_the_log(seed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(seed.read_bytes())
    for words, stdin in (((log,), None), ((), log), (("-", tmp_path / "none"), log)):
        with open(stdin or os.devnull, "rb") as given:
            done = subprocess.run(
                [*COMMAND, "analyze", "--output", str(log), *map(str, words)],
                stdin=given,
                stderr=subprocess.PIPE,
                check=False,
                timeout=60,
            )
        assert done.returncode == 64
        assert done.stderr.decode().startswith(f"oomwatchd: --output {log} would overwrite the input; ")
    assert log.read_bytes() == seed.read_bytes()


def test_the_export_is_not_written_over_the_store(state: Path) -> None:
    for words in (("export",), ("show", "0")):
        shown = oomwatchd("events", *words, "--state-directory", state, "--output", state / "events.sqlite")
        assert shown.returncode == 64, shown.stderr
    assert oomwatchd("events", "--state-directory", state, "list").returncode == 0


@pytest.mark.parametrize("action", ["list", "export", "deliveries"])
def test_the_store_may_be_named_behind_the_action(state: Path, action: str) -> None:
    before = oomwatchd("events", "--state-directory", state, action)
    behind = oomwatchd("events", action, "--state-directory", state)
    assert (behind.returncode, behind.stdout) == (0, before.stdout)


def test_a_boot_id_is_one(seed: Path) -> None:
    shown = oomwatchd("analyze", "--boot-id", "0a1b", seed)
    assert shown.returncode == 64
    assert b"'0a1b' is not a boot id: 32 hexadecimal digits" in shown.stderr


def test_notify_test_without_a_sink_is_no_success(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[sinks.journal]\nenabled = false\n")
    shown = oomwatchd("notify-test", "--config", config)
    assert (shown.returncode, shown.stdout) == (69, b"")
    assert shown.stderr.startswith(b"oomwatchd: no sink is switched on: nothing was sent; ")


def test_a_file_does_not_get_the_number_of_a_closed_standard_stream(seed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *COMMAND, "analyze", "--output", output, "/nonexistent", seed],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (66, b"")
    assert output.read_bytes() == oomwatchd("analyze", seed).stdout


def test_a_reader_that_has_enough_is_no_error(hostile: Path) -> None:
    script = (
        f"{shutil.which('env')} {' '.join(COMMAND)} analyze --format jsonl {hostile} | head -c 100 | wc -c"
    )
    shown = subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=60)
    assert shown.stdout.strip() == b"100"
    assert shown.stderr == b""


def test_an_interrupt_is_130() -> None:
    # a shell's background jobs ignore the signal, and so would their children
    command = ["env", "--default-signal=INT", *COMMAND, "analyze"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"x" * (8 << 20))  # returns when the command has begun to read
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, b"")


def invisible(text: str) -> list[str]:
    """Characters that a terminal obeys; its own line ends and colours are left out."""
    text = re.sub(r"\x1b\[[0-9;]*m|\r\n", "", text)
    return [c for c in text if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
def test_nothing_on_a_terminal_but_what_can_be_seen(hostile: Path, form: str) -> None:
    shown = on_terminal("analyze", "--format", form, hostile).decode()
    assert "red" in shown
    assert "\x1b[31mred" not in shown
    assert invisible(shown) == []
    if form == "text":
        assert "\x1b[" in shown, "colour is wanted on a terminal"
    else:
        plain = oomwatchd("analyze", "--format", form, hostile).stdout
        if form == "json":
            assert json.loads(shown) == json.loads(plain)


def test_no_color_is_obeyed(seed: Path) -> None:
    assert b"\x1b[" not in on_terminal("analyze", seed, NO_COLOR="1")


def test_json_for_a_terminal_is_the_same_json() -> None:
    names = ["\x9b31m", "‮gpj.exe", "\x7f", "日本語", "\U0001f600", "\u200b", "\U000e0041", "é"]
    data = json.dumps(names, ensure_ascii=False).encode()
    shown = seen(data).decode()
    assert json.loads(shown) == names
    assert invisible(shown) == []
    assert "日本語" in shown


def test_a_big_file_shows_a_bar_and_then_only_the_result(seed: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.log"
    with big.open("wb") as file:
        file.write(seed.read_bytes())
        file.write(b"[1.000000] usb 1-1: new device\n" * (34 * (1 << 20) // 31))
    shown = on_terminal("analyze", "--format", "json", big).decode()
    assert "big.log" in shown.partition("[{")[0] or "MB" in shown
    assert '"kills": 1' in shown


def test_events_list_is_a_table_with_one_line_an_event(state: Path) -> None:
    shown = oomwatchd("events", "--state-directory", state, "list", "--limit", "100000", "--each")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.decode().splitlines()
    heads = ["ID", "TIME", "TIMES", "FIRST", "KIND", "CONSTRAINT", "VICTIM", "WHERE", "WHY"]
    assert lines[0].split() == heads
    reader = Store.open_reader(state)
    rows = reader.list(limit=100_000)
    assert [line.split()[0] for line in lines[1:]] == [row.id for row in rows]
    assert invisible("".join(lines)) == []
    assert any("\\x1b[31mred" in line for line in lines)


def test_events_list_tells_what_repeats_once(state: Path) -> None:
    rows = Store.open_reader(state).list(limit=100_000)
    groups, _ = grouped(rows, 100_000)
    shown = oomwatchd("events", "--state-directory", state, "list", "--limit", "100000")
    lines = shown.stdout.decode().splitlines()[1:]
    assert [line.split()[0] for line in lines] == [group.newest.id for group in groups]
    assert sum(int(line.split()[3]) for line in lines) == len(rows)


def test_events_list_on_a_narrow_terminal_loses_nothing(state: Path) -> None:
    """At 80 columns the table does not fit: a few lines a row, each within the width, all of it there."""
    words = ("events", "--state-directory", state, "list", "--limit", "3")
    shown = on_terminal(*words, COLUMNS="80").decode().replace("\r", "")
    assert all(len(line) <= 80 for line in shown.splitlines())
    rows = Store.open_reader(state).list(limit=100)
    joined = " ".join(shown.split())
    for group in grouped(rows, 3)[0]:
        assert f"ID {group.newest.id}" in joined
        assert "".join((group.newest.place or "-").split()) in joined.replace(" ", "")


def test_events_list_filters_and_json(state: Path) -> None:
    shown = oomwatchd(
        "events", "--state-directory", state, "list", "--json", "--limit", "3", "--kind", "oom_kill"
    )
    entries: list[dict[str, Any]] = json.loads(shown.stdout)
    assert len(entries) == 3
    assert {entry["kind"] for entry in entries} == {"oom_kill"}
    assert all(entry["kills"] and entry["victims"][0]["pid"] and entry["summary"] for entry in entries)
    shown = oomwatchd("events", "--state-directory", state, "list", "--since", "2100-01-01")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"", b"oomwatchd: no events\n")


def test_events_show(state: Path) -> None:
    reader = Store.open_reader(state)
    row = next(row for row in reader.list(limit=100_000) if row.kind == "oom_kill")
    shown = oomwatchd("events", "--state-directory", state, "show", row.id[:12], "--format", "json")
    event = json.loads(shown.stdout)
    assert (event["id"], event["kills"]) == (row.id, row.kills)
    text = oomwatchd("events", "--state-directory", state, "show", row.id)
    assert row.id.encode() in text.stdout
    missing = oomwatchd("events", "--state-directory", state, "show", "zzzz")
    assert missing.returncode == 66
    assert missing.stderr == b"oomwatchd: there is no event zzzz; `oomwatchd events list` shows the ids\n"


def test_events_export_is_everything_oldest_first(state: Path, tmp_path: Path) -> None:
    output = tmp_path / "events.jsonl"
    shown = oomwatchd("events", "--state-directory", state, "export", "--output", output)
    assert shown.returncode == 0, shown.stderr
    exported = [json.loads(line)["id"] for line in output.read_text().splitlines()]
    assert exported == [conclude(capture).event.id for capture in Store.open_reader(state).export()]
    assert len(set(exported)) == len(exported) > 20


def test_the_configuration_says_where_the_store_is(state: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'state_directory = "{state}"\n')
    named = oomwatchd("events", "--config", config, "list", "--json")
    assert json.loads(named.stdout)
    from_systemd = oomwatchd("events", "--config", os.devnull, "list", "--json", STATE_DIRECTORY=str(state))
    assert json.loads(from_systemd.stdout) == json.loads(named.stdout)


def test_a_store_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    shown = oomwatchd("events", "--state-directory", tmp_path, "list")
    assert shown.returncode == 69
    assert shown.stderr.decode().startswith(f"oomwatchd: no store at {tmp_path}/events.sqlite; ")


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 910.0), ("2m", 880.0), ("1970-01-02T00:00+00:00", 86400.0)]
)
def test_since(text: str, expected: float) -> None:
    assert since(text, lambda: 1000.0) == expected


def test_a_module_that_a_board_left_out_costs_what_needs_it(seed: Path) -> None:
    """docs/install.md: all but msgspec may be missing."""
    program = (
        "import sys\n"
        "names = 'bcrypt jinja2 prometheus_client psutil pyudev rich systemd urllib3 yaml zstandard'\n"
        "for name in names.split():\n"
        "    sys.modules[name] = None\n"
        "from oomwatchd.cli import main\n"
        "sys.exit(main())"
    )
    command = [sys.executable, "-c", program]
    minimal = Path(__file__).parent.parent / "packaging" / "minimal.toml"
    assert subprocess.check_output([*command, "check-config", minimal], text=True).endswith(": ok\n")
    assert (
        json.loads(subprocess.check_output([*command, "analyze", "--format", "json", seed]))[0]["kills"] == 1
    )
    text = subprocess.check_output([*command, "analyze", seed], text=True)
    assert text.startswith("DIED     min_free_kbytes (pid 118")
    html = subprocess.run(
        [*command, "analyze", "--format", "html", seed], capture_output=True, text=True, check=False
    )
    assert html.returncode == 69
    assert html.stderr.startswith("oomwatchd: this needs the Python module jinja2, which is not installed; ")
    assert html.stderr.count("\n") == 1
