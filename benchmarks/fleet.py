"""What a fleet costs: ``python -m benchmarks.fleet [--events N] [--hosts N]``; ClickHouse and promtool.

Events as the packaged template writes them, from recorded reports, with the hosts, pools, pods and times of a
made-up fleet: most hosts never kill, a few containers are killed again and again, some storms hit many hosts
at once. Loaded into a ClickHouse of its own; bytes a row and the time of each question. And the samples of
one host's /metrics, over two hours and many hosts, as Prometheus stores them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import generate_latest

from oomwatchd.event import OomEvent, conclude
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.sinks._payload import document, particulars
from oomwatchd.sinks.webhook import read_template

ROOT = Path(__file__).parents[1]
PACKAGED = ROOT / "packaging" / "clickhouse"
WEEK = 7 * 86400
POOLS = ("general", "batch", "gpu", "spot", "edge", "db")
CONFIG = """<yandex>
<logger><level>error</level><console>1</console></logger>
<http_port>{port}</http_port><listen_host>127.0.0.1</listen_host>
<path>{directory}/data/</path><tmp_path>{directory}/tmp/</tmp_path>
<users_config>users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database><mark_cache_size>268435456</mark_cache_size>
</yandex>"""
USERS = """<yandex><profiles><default/></profiles><quotas><default/></quotas><users><default>
<password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
</default></users></yandex>"""


class ClickHouse:
    """A server's HTTP interface."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, query: str, data: bytes = b"", **settings: str) -> str:
        """The answer; HTTPError with the server's words if it refuses."""
        parameters = urllib.parse.urlencode({"query": query, **settings})
        request = urllib.request.Request(f"{self.address}/?{parameters}", data=data)  # noqa: S310 - our own address
        with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text

    def run(self, script: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Each statement of a script: what its comment calls it, and its rows."""
        for title, statement in statements(script):
            said = self.ask(f"{statement} FORMAT JSON" if statement.startswith("SELECT") else statement)
            yield title, json.loads(said)["data"] if said else []


def statements(script: str) -> Iterator[tuple[str, str]]:
    """The statements of a script, each with the first line of the comment before it."""
    for part in re.sub(r"(?m)^--(.*);", r"--\1,", script).split(";"):
        lines = part.strip().splitlines()
        said = [line.removeprefix("-- ") for line in lines if line.startswith("--")]
        if statement := "\n".join(line for line in lines if not line.startswith("--")).strip():
            yield (said[0] if said else "", statement)


@contextmanager
def clickhouse(directory: Path) -> Iterator[ClickHouse]:
    """Debian's clickhouse-server, with its data in ``directory``. Raises FileNotFoundError without it."""
    if (program := shutil.which("clickhouse-server", path="/usr/sbin:/usr/bin")) is None:
        raise FileNotFoundError("no clickhouse-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (directory / "config.xml").write_text(CONFIG.format(port=port, directory=directory))
    (directory / "users.xml").write_text(USERS)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config-file={directory}/config.xml"], cwd=directory, stdout=log, stderr=log
        )
    server = ClickHouse(f"http://127.0.0.1:{port}")
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError((directory / "log").read_text()[-2000:])
            try:
                server.ask("SELECT 1")
                break
            except OSError:
                time.sleep(0.1)
        yield server
    finally:
        process.kill()
        process.wait()


def recorded() -> list[OomEvent]:
    """The events of all recorded kernels."""
    found = []
    for path in sorted((ROOT / "tests/data/corpus/samples").glob("*.kmsg.gz")):
        assembler = Assembler()
        lines = gzip.decompress(path.read_bytes()).split(b"\n")
        signals = [
            signal for line in lines if (record := parse_record(line)) for signal in assembler.feed(record)
        ]
        signals += assembler.flush()
        blocks = [signal for signal in signals if isinstance(signal, OomBlock) and signal.settled]
        found += [conclude(_capture(block.records)).event for block in blocks[:20]]
    return found


def _capture(records: tuple[KmsgRecord, ...]) -> OomCapture:
    return OomCapture(
        source=Source(kind="kmsg", form="kmsg", boot_id="b" * 32),
        records=records,
        first_seq=records[0].seq,
        last_seq=records[-1].seq,
        settled=True,
    )


def rows(count: int, hosts: int, now: float, chance: random.Random) -> Iterator[dict[str, Any]]:
    """``count`` rows of the last four weeks. 1 % of the containers have half of the kills; one in fifty
    events is one of a storm that hits its pool within ten minutes."""
    template = read_template(str(PACKAGED / "event.json"))
    bodies = [
        json.loads(template.fill(particulars(event, ""), document(event, "small"))) for event in recorded()
    ]
    storms = [now - chance.random() * 4 * WEEK for _ in range(20)]
    for _ in range(count):
        row = dict(chance.choice(bodies))
        service = chance.randrange(20) if chance.random() < 0.5 else chance.randrange(2000)
        host = chance.randrange(hosts)
        at = now - chance.random() * 4 * WEEK
        if chance.random() < 0.02:
            at = min(now, chance.choice(storms) + chance.random() * 600)
        row |= {
            "event_id": f"{chance.getrandbits(80):020x}",
            "time": int(at),
            "host": f"node-{host:06d}",
            "pool": POOLS[host % len(POOLS)],
        }
        if row["oom_constraint"] == "memcg":
            row |= {
                "namespace": f"team-{service % 60}",
                "container": f"service-{service}",
                "pod": f"service-{service}-{chance.getrandbits(32):08x}-{chance.getrandbits(20):05x}",
            }
        yield row


def load(server: ClickHouse, made: Iterator[dict[str, Any]], batch: int = 20_000) -> float:
    """Insert; the seconds that the server took."""
    spent = 0.0
    waiting: list[bytes] = []

    def flush() -> None:
        nonlocal spent
        began = time.monotonic()
        server.ask("INSERT INTO oom.events FORMAT JSONEachRow", b"\n".join(waiting))
        spent += time.monotonic() - began
        waiting.clear()

    for row in made:
        waiting.append(msgspec.json.encode(row))
        if len(waiting) >= batch:
            flush()
    if waiting:
        flush()
    return spent


def events_in_clickhouse(count: int, hosts: int) -> None:
    with tempfile.TemporaryDirectory() as directory, clickhouse(Path(directory)) as server:
        list(server.run((PACKAGED / "schema.sql").read_text()))
        images = "\n".join(
            json.dumps(
                {
                    "namespace": f"team-{n % 60}",
                    "container": f"service-{n}",
                    "image": f"registry/service-{n}:1",
                }
            )
            for n in range(2000)
        )
        server.ask("INSERT INTO oom.images FORMAT JSONEachRow", images.encode())
        seconds = load(server, rows(count, hosts, time.time(), random.Random(1)))
        server.ask("OPTIMIZE TABLE oom.events FINAL")
        sized = "SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'oom'"
        stored, size = map(int, server.ask(f"{sized} AND table = 'events'").split())
        print(
            f"ClickHouse {server.ask('SELECT version()').strip()}: {stored} events of {hosts} hosts,"
            f" {size / stored:.0f} bytes each, {count / seconds:.0f} inserted a second"
        )
        pod = server.ask("SELECT pod FROM oom.events WHERE pod != '' LIMIT 1").strip()
        rollout = time.strftime("%Y-%m-%d 12:00:00", time.gmtime(time.time() - 2 * WEEK))
        for title, statement in statements((PACKAGED / "questions.sql").read_text()):
            statement = statement.replace("'shop'", "'team-3'").replace("cart-7d9f4-x2x1z", pod)
            statement = statement.replace("2026-11-20 12:00:00", rollout)
            took = []
            for _ in range(3):
                began = time.monotonic()
                answer = server.ask(statement)
                took.append(time.monotonic() - began)
            print(f"  {min(took):.2f} s  {title} ({len(answer.splitlines())} rows)")


def samples_in_prometheus(hosts: int = 20, hours: int = 2, every: int = 30) -> None:
    """Bytes that a sample of ours takes in a block of Prometheus."""
    page = [
        line
        for line in generate_latest(registry(Metrics())).decode().splitlines()
        if not line.startswith("#")
    ]
    with tempfile.TemporaryDirectory() as directory:
        text, blocks = Path(directory) / "metrics", Path(directory) / "blocks"
        begin, chance = int(time.time()) - 86_400, random.Random(1)
        with text.open("w") as file:
            for line in page:
                series, _, value = line.rpartition(" ")
                name, brace, labels = series.partition("{")
                moves = chance.random() < 0.3  # counters of records, CPU, memory; the others stand still
                for host in range(hosts):
                    all_labels = f'{{instance="node-{host:06d}:10053",job="oomwatchd"' + (
                        f",{labels}" if brace else "}"
                    )
                    figure = float(value)
                    for at in range(begin, begin + hours * 3600, every):
                        figure += chance.randrange(5) if moves else 0
                        file.write(f"{name}{all_labels} {figure} {at}\n")
            file.write("# EOF\n")
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(text), str(blocks)]
        subprocess.run(command, check=True, capture_output=True)
        size = sum(path.stat().st_size for path in blocks.rglob("*") if path.is_file())
        count = len(page) * hosts * hours * 3600 // every
        print(f"Prometheus: {len(page)} series a host, {size / count:.2f} bytes a sample ({hours} hours)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--hosts", type=int, default=100_000)
    args = parser.parse_args()
    samples_in_prometheus()
    events_in_clickhouse(args.events, args.hosts)


if __name__ == "__main__":
    main()
