"""Write events as text or JSON; on a terminal every character is visible."""

from __future__ import annotations

import os
import stat
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import msgspec

from oomwatchd.cli import EX_SOFTWARE, columns, complain
from oomwatchd.diagnosis.case import Case
from oomwatchd.errors import OomwatchdError, UsageError
from oomwatchd.event import Conclusion, OomEvent, conclude_case, unexplained
from oomwatchd.event.storm import KEPT, asked_of, is_open, together, with_later
from oomwatchd.records.capture import Asked, OomCapture
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.render.json import encode, event_document
from oomwatchd.words.escape import harmless
from oomwatchd.words.text import plural

Format = Literal["text", "json", "jsonl", "html", "markdown"]
_MAX_WIDTH = 120
#: whose page sizes are remembered
_MOST_LOGS = 64
#: reports of one HTML page, and lines of theirs: a browser shows 60 MB of it
PAGE_REPORTS, PAGE_RECORDS = 1000, 250_000


class OutputError(OomwatchdError):
    """An output file cannot be written."""

    exit_status = 73  # EX_CANTCREAT


def keep(output: str | None, *inputs: str | Path) -> None:
    """Refuse an output file that is also an input; ``-`` is standard input. Raises UsageError."""
    for name in inputs if output not in (None, "-") else ():
        with suppress(OSError):
            given = os.fstat(0) if name == "-" else Path(name).stat()
            if stat.S_ISREG(given.st_mode) and os.path.samestat(given, Path(output or "").stat()):
                raise UsageError(f"--output {output} would overwrite the input", hint="name another file")


@contextmanager
def opened(path: str | None) -> Iterator[BinaryIO]:
    """The output: a file, or standard output for None and ``-``. Raises OutputError."""
    if path is None or path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with Path(path).open("wb") as file:
            yield file
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


#: what stands before the first event, and between two
_BETWEEN: dict[Format, tuple[bytes, bytes]] = {
    "json": (b"[", b",\n"),
    "jsonl": (b"", b""),
    "markdown": (b"", b"\n"),
    "text": (b"", b"\n\n"),
}


class Made(NamedTuple):
    """An event as it is written, with its page size and kernel, which later events may need."""

    page_size: int | None
    kernel: str | None
    data: bytes


class Writer:
    """Writes the events of captures one after another; ``close`` ends the document. HTML, which begins with
    a table of contents, is written at the end."""

    def __init__(self, stream: BinaryIO, name: Format, host: str | None = None) -> None:
        """``host``: the machine that the events are of, where that is known."""
        self._stream = stream
        self._host = host
        self._format = name
        self._terminal = stream.isatty()
        self._count = 0
        #: the exit status that what was written calls for
        self.status = 0
        self._pages: list[OomEvent] = []
        self._room = PAGE_RECORDS
        self._records: dict[str, tuple[KmsgRecord, ...]] = {}
        #: of a log's reports the last page size that one told, with its kernel, by the log's name
        self._page_sizes: dict[str | None, tuple[int, str | None]] = {}
        #: who asked in reports that are not written yet
        self._asked: deque[tuple[OomCapture, Asked | None]] = deque(maxlen=KEPT)

    def write(self, capture: OomCapture, following: Sequence[OomCapture] = ()) -> None:
        """The next event; ``following`` are reports of the log behind it, as far as they are known: of one
        exhaustion, they tell who asked."""
        if self._format == "html" and (len(self._pages) >= PAGE_REPORTS or self._room <= 0):
            self._count += 1  # neither kept nor explained
            return
        (event, error), case = self._explained(capture, following)
        self.status = self.status or (EX_SOFTWARE if error is not None else 0)
        if self._format == "html":
            self._count += 1
            self._pages.append(event)
            self._records[event.id] = capture.records
            self._room -= len(capture.records)
        else:
            self._put(self._rendered(event, case))

    def made(self, capture: OomCapture, following: Sequence[OomCapture] = ()) -> Made | None:
        """The event for :meth:`take`, which need not be called in this process; None where only
        :meth:`write` can make it."""
        (event, error), case = self._after(capture, conclude_case(capture), following)
        if error is not None or self._format == "html":
            return None
        return Made(event.page_size_bytes, event.kernel, self._rendered(event, case))

    def take(self, capture: OomCapture, made: Made | None) -> None:
        """The next event, as :meth:`write` would write it."""
        log = capture.source.name
        if made is None or (made.page_size is None and log in self._page_sizes):
            self.write(capture)
            return
        if made.page_size is not None:
            self._remember(log, made.page_size, made.kernel)
        self._put(made.data)

    def _rendered(self, event: OomEvent, case: Case | None) -> bytes:
        match self._format:
            case "markdown":
                from oomwatchd.render.markdown import render_markdown

                return render_markdown(event, host=self._host).encode("utf-8", "backslashreplace")
            case "text":
                from oomwatchd.render.terminal import render_text

                color = self._terminal and wants_color()
                text = render_text(event, width=terminal_width(), color=color, case=case)
                return text.encode("utf-8", "backslashreplace")
            case "json":
                return self._json(event)
            case _:
                return self._seen(encode(event)) + b"\n"

    def _put(self, data: bytes) -> None:
        before, between = _BETWEEN[self._format]
        self._stream.write((between if self._count else before) + data)
        self._stream.flush()  # the next event may take long, and somebody waits for this one
        self._count += 1

    def _remember(self, log: str | None, page_size: int, kernel: str | None) -> None:
        if len(self._page_sizes) >= _MOST_LOGS:
            self._page_sizes.clear()
        self._page_sizes[log] = page_size, kernel

    def _after(
        self, capture: OomCapture, found: tuple[Conclusion, Case | None], following: Sequence[OomCapture]
    ) -> tuple[Conclusion, Case | None]:
        """What was found, or what is found with those who asked in the reports that followed."""
        if not following or capture.at is not None or not is_open(found[0].event):
            return found
        near = [one for one in following[:KEPT] if together(capture, one)]
        more = with_later(capture, [asked for asked in map(self._asked_of, near) if asked is not None])
        return found if more is capture else conclude_case(more)

    def _asked_of(self, capture: OomCapture) -> Asked | None:
        """The request of a report; the newest are kept, for each is asked for by all before it."""
        for known, asked in self._asked:
            if known is capture:
                return asked
        asked = asked_of(capture, conclude_case(capture)[0].event)
        self._asked.append((capture, asked))
        return asked

    def _explained(
        self, capture: OomCapture, following: Sequence[OomCapture] = ()
    ) -> tuple[Conclusion, Case | None]:
        """The event; where a report does not tell its page size, with that of an earlier one of its log."""
        found, log = _explained(capture), capture.source.name
        event = found[0].event
        if event.page_size_bytes is not None:
            self._remember(log, event.page_size_bytes, event.kernel)
        elif log in self._page_sizes:
            size, kernel = self._page_sizes[log]
            if event.kernel in (None, kernel):  # of another machine otherwise
                capture = msgspec.structs.replace(capture, page_size_bytes=size)
                found = _explained(capture)
        return self._after(capture, found, following)

    def close(self) -> None:
        """End the document; nothing may be written after it."""
        if self._format == "json":
            self._stream.write(b"]\n" if self._count else b"[]\n")
        elif self._format == "html":
            from oomwatchd.render.html import render_html_page

            page = render_html_page(self._pages, self._records)
            self._stream.write(page.encode("utf-8", "backslashreplace"))
            if (more := self._count - len(self._pages)) > 0:
                complain(
                    f"{plural(more, 'more report')} would not fit into one page, which has the first"
                    f" {len(self._pages)}; write --format jsonl or text, or give the log in parts"
                )
                self.status = self.status or OutputError.exit_status

    def _json(self, event: OomEvent) -> bytes:
        return self._seen(pretty(event)) if self._terminal else encode(event)

    def _seen(self, data: bytes) -> bytes:
        return seen(data) if self._terminal else data


def explained(capture: OomCapture) -> Conclusion:
    """The event of a capture; a fault of the explanation is reported on standard error."""
    return _explained(capture)[0]


def _explained(capture: OomCapture) -> tuple[Conclusion, Case | None]:
    conclusion, case = conclude_case(capture)
    if conclusion.error is not None:
        complain(f"event {conclusion.event.id}: {unexplained(conclusion.error)}; please report it")
    return conclusion, case


def pretty(event: OomEvent) -> bytes:
    """An event as JSON for people."""
    return msgspec.json.format(msgspec.json.encode(event_document(event)), indent=2)


def seen(data: bytes) -> bytes:
    r"""The same JSON with every character that a terminal obeys or hides spelled ``\uNNNN``."""
    text = data.decode("utf-8", "replace")
    if text.isascii() and "\x7f" not in text:
        return data
    return "".join(
        c if c in "\n " or (c.isprintable() and harmless(c) == c) else _escaped(c) for c in text
    ).encode()


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[n]:02x}{units[n + 1]:02x}" for n in range(0, len(units), 2))


def terminal_width() -> int:
    """Columns to write for: the terminal's, or 80 where there is none."""
    return min(columns(), _MAX_WIDTH)


def wants_color() -> bool:
    """Whether the user's environment allows colour (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
