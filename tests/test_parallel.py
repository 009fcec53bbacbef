"""A large log is explained by several processes: the same bytes as by one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from oomwatchd.cli import _parallel
from oomwatchd.cli._output import Format, Made, Writer
from oomwatchd.errors import OomwatchdError
from oomwatchd.records.capture import OomCapture
from oomwatchd.sources.text import open_log
from oomwatchd.sources.text.growing import GrowingLog

COPIES = 30


@pytest.fixture(scope="module")
def log(corpus: Path) -> str:
    """Reports of two kernels in turns, each of another time and another process; every seventh lost the
    lines that tell the size of a page."""
    kinds = [_texts(corpus / "seed/mips-3.10-highmem.log"), _texts(corpus / "samples/6.8-cg1.kmsg.gz")]
    written = []
    for number in range(COPIES):
        bare = kinds[number % 2]
        if number % 7 == 3:
            bare = [line for line in bare if "kB" not in line or "Killed process" in line]
        lines = [f"[{number * 600 + at / 1e4:12.6f}] {line}" for at, line in enumerate(bare)]
        written.append("\n".join(lines).replace("Killed process ", f"Killed process {number + 1}"))
    return "\n".join(written) + "\n"


def _texts(file: Path) -> list[str]:
    """The lines of a recorded log's first report."""
    log = GrowingLog(str(file), None)
    with open_log(file) as stream:
        found = [*log.feed(stream.read()), *log.finish()]
    return [line for record in found[0].records for line in record.text.split("\n")]


@pytest.fixture(scope="module")
def captures(log: str) -> Sequence[OomCapture]:
    growing = GrowingLog("log", None)
    return [*growing.feed(log.encode()), *growing.finish()]


@pytest.fixture(autouse=True)
def early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parallel, "BEGIN", 3)
    monkeypatch.setattr(_parallel, "_BATCH", 2)
    monkeypatch.setattr(_parallel, "helpers_worth", lambda: 2)


def serial(captures: Sequence[OomCapture], form: Format) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream, form)
    for capture in captures:
        writer.write(capture)
    writer.close()
    return stream.getvalue()


def parallel(captures: Iterator[OomCapture] | Sequence[OomCapture], form: Format) -> bytes:
    stream = io.BytesIO()
    writer = Writer(stream, form)
    try:
        _parallel.write_all(captures, writer)
    except OomwatchdError:
        stream.write(b"failed")
    writer.close()
    return stream.getvalue()


@pytest.mark.parametrize("form", ["jsonl", "json", "text", "markdown"])
def test_the_same_bytes(captures: Sequence[OomCapture], form: Format) -> None:
    assert len(captures) >= COPIES
    assert parallel(captures, form) == serial(captures, form)


def test_what_a_later_report_needs_of_an_earlier_one(
    captures: Sequence[OomCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper does not know the page sizes that were told before its batch."""
    told = [capture for capture in captures if Writer(io.BytesIO(), "jsonl").made(capture) is not None]
    sizes = [made.page_size for c in told if (made := Writer(io.BytesIO(), "jsonl").made(c)) is not None]
    assert None in sizes[4:] and sizes[0] is not None
    here: list[OomCapture] = []
    real = Writer.write

    def write(self: Writer, capture: OomCapture, following: Sequence[OomCapture] = ()) -> None:
        here.append(capture)
        real(self, capture, following)

    monkeypatch.setattr(Writer, "write", write)
    assert parallel(captures, "jsonl") == serial(captures, "jsonl")
    assert len(here) > _parallel.BEGIN


def test_a_fault_is_told_by_this_process(
    captures: Sequence[OomCapture], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(*_: object) -> object:
        raise LookupError("injected")

    monkeypatch.setattr("oomwatchd.event.attribute", raises)
    expected = serial(captures, "jsonl")
    said = capsys.readouterr().err
    assert said.count("injected") == len(captures)
    assert parallel(captures, "jsonl") == expected
    assert capsys.readouterr().err == said


def test_a_helper_that_dies_costs_nothing(
    captures: Sequence[OomCapture], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = serial(captures, "text")
    this, real = os.getpid(), Writer.made

    def dies(self: Writer, capture: OomCapture, following: Sequence[OomCapture] = ()) -> Made | None:
        if os.getpid() != this:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, capture, following)

    monkeypatch.setattr(Writer, "made", dies)
    assert parallel(captures, "text") == expected


def test_no_process_can_be_made(captures: Sequence[OomCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> int:
        raise BlockingIOError

    expected = serial(captures, "jsonl")
    monkeypatch.setattr(os, "fork", refuses)
    assert parallel(captures, "jsonl") == expected


def test_all_before_a_fault_of_the_log_is_written(captures: Sequence[OomCapture]) -> None:
    def broken() -> Iterator[OomCapture]:
        yield from captures[:18]
        raise OomwatchdError("the file is damaged")

    assert parallel(broken(), "jsonl") == serial(captures[:18], "jsonl") + b"failed"


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


def test_no_helper_is_left(captures: Sequence[OomCapture]) -> None:
    before = children()
    open_files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the names alone
    parallel(captures, "jsonl")
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) == open_files  # noqa: PTH208 - the names alone


SCRIPT = """
import sys
from oomwatchd.cli import _parallel, main
_parallel.BEGIN, _parallel._BATCH, _parallel.helpers_worth = 3, 2, lambda: 2
sys.exit(main(["analyze", "--format", "jsonl", sys.argv[1]]))
"""


def test_the_command_and_its_interruption(log: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(log)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "log")]
    whole = subprocess.run(command, capture_output=True, check=True).stdout
    with open_log(tmp_path / "log") as stream:
        growing = GrowingLog(str(tmp_path / "log"), None)
        found = [*growing.feed(stream.read()), *growing.finish()]
    assert whole == serial(found, "jsonl")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()  # the pipe is soon full
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.read()
        assert process.wait(30) in (130, 0)
        assert b"Traceback" not in process.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
