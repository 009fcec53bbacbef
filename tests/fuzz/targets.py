"""What is fuzzed, and what must hold for any input. A target raises when it does not."""

from __future__ import annotations

import gzip
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from oomwatchd.config import load
from oomwatchd.delivery.outbox import Receiver
from oomwatchd.delivery.policy import LONGEST_RETRY_AFTER_SECONDS, pause
from oomwatchd.diagnosis.headroom import Headroom
from oomwatchd.errors import ConfigError, DeliveryError
from oomwatchd.event import OomEvent, conclude
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord, parse_record
from oomwatchd.render.json import encode
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.sinks import alertmanager, otlp, webhook
from oomwatchd.sources.text import TextReader
from oomwatchd.store import Store
from oomwatchd.web import App, Health, Later
from oomwatchd.web.messages import BadRequest, compose, parse
from oomwatchd.web.pages import Pages
from oomwatchd.web.shown import State
from oomwatchd.words.escape import harmless
from tests import samples, test_carriers
from tests.carriers import BEGINNINGS

ROOT = Path(__file__).parents[2]


def conclude_all(items: Iterable[KmsgRecord | KmsgGap], *, early: bool = False) -> list[OomEvent]:
    """Records -> events; with ``early`` as the daemon does it, every revision."""
    assembler = Assembler(early=early)
    signals = []
    for item in items:
        signals += assembler.feed(item)
        if early and isinstance(item, KmsgRecord) and item.usec is not None:
            signals += assembler.tick(item.usec + 10_000)
    signals += assembler.flush()
    return [
        conclude(
            OomCapture(
                source=Source(kind="file", form="other", boot_id="b" * 32),
                records=block.records,
                first_seq=block.records[0].seq,
                last_seq=block.records[-1].seq,
                lost_records=block.lost_records,
                revision=block.revision,
                settled=block.settled,
            )
        ).event
        for block in signals
        if isinstance(block, OomBlock)
    ]


def read_text(data: bytes, cuts: Iterable[int] = ()) -> list[KmsgRecord]:
    """A log's records, fed in pieces that end at ``cuts``."""
    reader = TextReader()
    records = []
    at = 0
    for cut in (*sorted(cuts), len(data)):
        records += reader.feed(data[at:cut])
        at = cut
    return records + reader.flush()


def fuzz_record(data: bytes) -> None:
    """One read of /dev/kmsg."""
    record = parse_record(data)
    if record is not None:
        assert record.seq is not None and record.seq >= 0
        assert record.usec is not None and record.usec >= 0
        assert record.level is not None and 0 <= record.level <= 7
        record.text.encode("utf-8")  # no lone surrogates: any medium takes it


def fuzz_blocks(data: bytes) -> None:
    """Records of /dev/kmsg, one a line: offline, live, and again."""
    records = [record for line in data.split(b"\n") if (record := parse_record(line))]
    events = conclude_all(records)
    for event in events:
        encode(event)
    assert [event.id for event in conclude_all(records)] == [event.id for event in events]
    conclude_all(records, early=True)


def fuzz_lines(data: bytes) -> None:
    """Lines without any frame, as whole records and as text."""
    lines = [line.decode("utf-8", "backslashreplace") for line in data.split(b"\n")]
    for event in conclude_all(
        KmsgRecord(text=line, facility=0, seq=n, usec=n) for n, line in enumerate(lines)
    ):
        encode(event)
    for event in conclude_all(KmsgRecord(text=line) for line in lines):
        encode(event)


def fuzz_text(data: bytes) -> None:
    """A log in any form. Where the data is cut on its way must not matter."""
    records = read_text(data)
    if data:
        first = data[0] * len(data) // 256
        assert read_text(data, (first, (first + len(data)) // 2)) == records
    for event in conclude_all(records):
        encode(event)


@cache
def _file() -> int:
    """A file without a name, to be read by its descriptor."""
    return os.memfd_create("configuration")


def fuzz_config(data: bytes) -> None:
    """A configuration file: taken, or refused in one line that can be printed."""
    os.ftruncate(_file(), 0)
    os.pwrite(_file(), data, 0)
    try:
        config, _ = load(Path(f"/proc/self/fd/{_file()}"))
    except ConfigError as refused:
        assert str(refused) and str(refused) == harmless(str(refused)), refused
        assert refused.exit_status == 78
    else:
        assert config.http.addresses is not None


@cache
def _app() -> App:
    """All that the daemon serves, over a store with one event."""
    store = Store.open(None)
    store.put(samples.capture(7), samples.event(7))
    state = State(
        started=1.0,
        trouble=None,
        kernel_kills=3.0,
        kills=2.0,
        unaccounted=1.0,
        stored=1,
        store_failure=None,
        without=(),
        headroom=Headroom(),
    )
    health = Health(clock=lambda: 0.0)
    health.ready()
    return App(registry(Metrics()), health, Pages(lambda: state, lambda: store))


def fuzz_http(data: bytes) -> None:
    """What a client sends: answered with one whole answer, or refused."""
    head, end, _ = data.partition(b"\r\n\r\n")
    try:
        request, stays = parse(head)
    except BadRequest as refused:
        assert 400 <= refused.status < 600
        return
    assert request.method in ("GET", "HEAD")
    assert request.path.startswith("/") or not request.path
    made = _app()(request)
    while isinstance(made, Later):
        made = made.make()
    head, end, body = compose(made, request, stays).partition(b"\r\n\r\n")
    assert end and made.status < 500, made.status
    first, *lines = head.split(b"\r\n")
    assert first.startswith(b"HTTP/1.1 ") and all(b": " in line for line in lines)
    assert not any(c < 32 or c == 127 for line in lines for c in line)
    if request.method == "GET":
        assert b"Content-Length: %d" % len(body) in lines


def fuzz_carriers(data: bytes) -> None:
    """A user's words in a line of the kernel's: which line, where in a report, and the words."""
    if len(data) < 3:
        return
    carrier = test_carriers.KNOWN[data[0] % len(test_carriers.KNOWN)]
    report = test_carriers.genuine("5.0-cg1")[0]
    at = data[1] % (len(report) + 1)
    words = data[2:].decode("utf-8", "backslashreplace").replace("\0", "").replace("\n", " ")
    lines = carrier.records(words)
    signals, forged = test_carriers.signals_of(lines)
    assert signals == [] and forged == 0
    assert test_carriers.told([*lines, test_carriers.KILLED]) == test_carriers.told([test_carriers.KILLED])
    assert test_carriers.told([*report[:at], *lines, *report[at:]]) == test_carriers.told(report)


class Peer:
    """A receiver on this machine that reads what it is sent and answers with ``says``, whatever that is."""

    def __init__(self) -> None:
        self.says = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            client, _ = self._listening.accept()
            with client, suppress(OSError):
                client.settimeout(5)
                head = b""
                while b"\r\n\r\n" not in head and (piece := client.recv(65536)):
                    head += piece
                client.sendall(self.says)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):  # else the connection is reset, and the answer lost
                    pass


#: what a receiver might have, and no line of ours may repeat
SAID = b"zq7secretzq7"


@cache
def _receivers() -> tuple[Peer, tuple[Callable[[], object], ...]]:
    """The peer, and what sends to it: each sink across the network."""
    peer = Peer()
    url = f"http://127.0.0.1:{peer.port}"
    event = samples.event(7)

    def sends(open_sink: Callable[[], Receiver]) -> Callable[[], object]:
        def send() -> None:
            sink = open_sink()
            try:
                sink.deliver([event])
            finally:
                sink.close()

        return send

    def hook(template: str = "", method: Literal["POST", "PUT"] = "POST") -> Callable[[], Receiver]:
        options = webhook.Options(url=url, timeout_seconds=1.0, template=template, method=method)
        return lambda: webhook.Webhook(options)

    return peer, (
        sends(hook()),
        *(sends(hook(template=name)) for name in ("slack", "mattermost", "teams")),
        sends(hook(template="matrix", method="PUT")),
        sends(lambda: alertmanager.Alertmanager(alertmanager.Options(urls=[url], timeout_seconds=1.0))),
        sends(lambda: otlp.Otlp(otlp.Options(url=url, timeout_seconds=1.0))),
        sends(lambda: otlp.Otlp(otlp.Options(url=url, timeout_seconds=1.0, encoding="json"))),
    )


def fuzz_receivers(data: bytes) -> None:
    """A receiver's answer: success, or an error in our own words that shows nothing of the answer and asks
    for a bounded pause."""
    peer, senders = _receivers()
    peer.says = data[1:]
    try:
        senders[data[0] % len(senders) if data else 0]()
    except DeliveryError as error:
        assert str(error) == harmless(str(error)) and SAID.decode() not in str(error), error
        seconds = pause(1, 0.0, retry_after=error.retry_after_seconds)
        assert 0 < seconds <= LONGEST_RETRY_AFTER_SECONDS, seconds


class Target(NamedTuple):
    """``seeds`` gives inputs to begin with, out of the corpus directory."""

    run: Callable[[bytes], None]
    seeds: Callable[[Path], Iterator[bytes]]


def _kmsg(corpus: Path) -> Iterator[bytes]:
    for path in sorted(corpus.glob("samples/*.kmsg.gz")):
        yield gzip.decompress(path.read_bytes())


def _reports(corpus: Path) -> Iterator[bytes]:
    """A report or two of each kernel: small inputs are mutated better."""
    for data in _kmsg(corpus):
        lines = data.split(b"\n")
        heads = [n for n, line in enumerate(lines) if b"invoked oom-killer" in line]
        for head in (*heads[:1], *heads[-1:]):
            yield b"\n".join(lines[head : head + 150])
    for path in sorted(corpus.glob("recordings/*.kmsg")):
        yield path.read_bytes()[-16_000:]


def _beginnings(corpus: Path) -> Iterator[bytes]:
    for n, text in enumerate(BEGINNINGS):
        yield bytes((n % 251, 7 * n % 256)) + text.encode()


def _record_lines(corpus: Path) -> Iterator[bytes]:
    for data in _reports(corpus):
        yield from data.split(b"\n")[::10]


def _texts(corpus: Path) -> Iterator[bytes]:
    for data in _reports(corpus):
        yield b"\n".join(line.partition(b";")[2] for line in data.split(b"\n"))


def _logs(corpus: Path) -> Iterator[bytes]:
    for path in sorted([*corpus.glob("field/*.log"), *corpus.glob("seed/*.log")]):
        yield path.read_bytes()[:16_000]


def _configurations(corpus: Path) -> Iterator[bytes]:
    for path in sorted(ROOT.glob("*.toml")) + sorted(ROOT.glob("packaging/**/*.toml")):
        yield path.read_bytes()
    yield from (
        b'[http]\nlisten = "127.0.0.1:1"\n',
        b'[[sinks.webhook]]\nname = "a"\nurl = "http://a/"\ntemplate = "{}"\n',
        b'[sinks.jsonl]\npath = "/x"\n[sinks.alertmanager]\nurl = "http://[::1]:9093"\n',
        b"[store]\nmax_events = 1\nmax_age_days = 1e300\n[recorder]\nminutes = -1\n",
        b"a = " + b"[" * 2000 + b"]" * 2000,
    )


def _requests(corpus: Path) -> Iterator[bytes]:
    pages = (
        b"",
        b"events",
        b"events?before=1&comm=a%00",
        b"api/v1/events?limit=2&since=2020-01-01",
        b"metrics",
    )
    one = samples.event(7).id.encode()
    for page in (*pages, b"events/" + one, b"api/v1/events/" + one, b"-/ready", b"..%2f..%2fetc/passwd"):
        yield b"GET /%s HTTP/1.1\r\nHost: x\r\nAccept: */*;q=0.1\r\nAccept-Encoding: gzip\r\n\r\n" % page
    yield b"HEAD http://h/metrics?a#b HTTP/1.0\r\nAuthorization: Basic YTpi\r\n\r\n"
    yield b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


def _answers(corpus: Path) -> Iterator[bytes]:
    body = b'{"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": "%s"}}' % SAID
    heads = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/json\r\n\r\n%s"
        % (len(body), body),
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\x0a\x02\x08\x01",
        b"HTTP/1.1 429 %s\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n" % SAID,
        b"HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n" + SAID,
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/%s\r\n\r\n" % SAID,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\nffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"0" * 100_000),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
        b"HTTP/1.1 -1 \xff\r\n\r\n",
        b"HTTP/0.9\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail ESMTP %s\r\n" % SAID,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"",
    ]
    for n, head in enumerate(heads):
        yield bytes((n,)) + head
        yield bytes((n + 7,)) + head


TARGETS = {
    "record": Target(fuzz_record, _record_lines),
    "blocks": Target(fuzz_blocks, _reports),
    "lines": Target(fuzz_lines, _texts),
    "text": Target(fuzz_text, _logs),
    "carriers": Target(fuzz_carriers, _beginnings),
    "config": Target(fuzz_config, _configurations),
    "http": Target(fuzz_http, _requests),
    "receivers": Target(fuzz_receivers, _answers),
}
