"""The configurations of docs/fleet.md and docs/delivery.md, run with Debian's Prometheus, Alertmanager and
logrotate. test_journal_remote.py has those of the journal; the page says what was not run."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
import socket
import subprocess
import time
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from benchmarks.fleet import PACKAGED, clickhouse, statements
from oomwatchd.event import OomEvent, rfc3339
from oomwatchd.sinks import webhook
from oomwatchd.sinks._payload import particulars
from oomwatchd.sinks.alertmanager import Alertmanager
from oomwatchd.sinks.alertmanager import Options as AlertOptions
from oomwatchd.sinks.jsonl import JsonLines
from tests.delivery.receivers import receiver, until
from tests.kernel.running import wait_for
from tests.pages import block
from tests.prometheus.servers import Server, free_port, program, prometheus, running
from tests.samples import event
from tests.test_daemon import Running, daemon

__all__ = ["daemon"]

#: of Grafana's ClickHouse data source
MACROS = {
    "$__timeFilter(time)": "time >= now() - 86400",
    "$__fromTime": "(now() - 86400)",
    "$__toTime": "now()",
    "${pod}": "x",
    "${rollout}": "2026-11-20 12:00:00",
}


def checked(tool: str, *arguments: str) -> None:
    done = subprocess.run([program(tool), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("by", ["scrape", "agent", "vmagent"])
def test_counts_reach_prometheus(daemon: Running, tmp_path: Path, by: str) -> None:
    """Scraped as listed in a file; or by an agent on the host that writes to the centre."""
    daemon.start()
    daemon.until(daemon.ready, 60)
    target = f"localhost:{daemon.port}"
    (tmp_path / "hosts.json").write_text(json.dumps([{"targets": [target]}]))
    faster = {"scrape_interval: 30s": "scrape_interval: 1s"}
    scrape = block("fleet", "yaml", "file_sd_configs", faster)
    query = 'sum(oomwatchd_oom_kills_total{job="oomwatchd"})'

    def there(server: Server) -> bool:
        return len(server.query(query)) == 1

    if by == "scrape":
        with prometheus(tmp_path, scrape) as server:
            checked("promtool", "check", "config", str(tmp_path / "prometheus.yml"))
            wait_for("the counters", lambda: there(server))
        return
    port = free_port()
    centre = [
        program("prometheus"),
        f"--config.file={tmp_path}/centre.yml",
        f"--storage.tsdb.path={tmp_path}/centre",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
    ]
    (tmp_path / "centre.yml").write_text("{}")
    changed = {"localhost:10053": target, "https://metrics.example": f"http://127.0.0.1:{port}"}
    agent_port = free_port()
    if by == "agent":
        agent = [
            program("prometheus"),
            "--enable-feature=agent",
            f"--config.file={tmp_path}/agent.yml",
            f"--storage.agent.path={tmp_path}/agent",
            f"--web.listen-address=127.0.0.1:{agent_port}",
        ]
        write = "global: { scrape_interval: 1s }\n" + block("fleet", "yaml", "remote_write", changed)
        (tmp_path / "agent.yml").write_text(write)
    else:
        if shutil.which("vmagent") is None:
            pytest.skip("needs vmagent (Debian: victoria-metrics)")
        (tmp_path / "scrape.yml").write_text(
            "global: { scrape_interval: 1s }\n"
            + block("fleet", "yaml", "/etc/vmagent/scrape.yml", {"localhost:10053": target})
        )
        shown = block(
            "fleet",
            "sh",
            "-promscrape.config",
            {
                "/etc/vmagent/scrape.yml": tmp_path / "scrape.yml",
                "127.0.0.1:8429": f"127.0.0.1:{agent_port}",
                "https://metrics.example": f"http://127.0.0.1:{port}",
                "/var/lib/vmagent": tmp_path / "vmagent",
            },
        )
        agent = shlex.split(shown.replace("\\\n", " "))
    with (
        running(centre, port, tmp_path / "centre.log") as server,
        running(agent, agent_port, tmp_path / "agent.log"),
    ):
        wait_for("the counters", lambda: there(server))
    assert daemon.end() == 0


@pytest.mark.slow
def test_a_storm_is_one_message_by_the_route_that_is_shown(tmp_path: Path) -> None:
    port, config = free_port(), tmp_path / "alertmanager.yml"
    route = block("delivery", "yaml", "KernelOom", {"group_wait: 10s": "group_wait: 5s"})
    with receiver() as people, receiver() as nobody:
        receivers = [
            {"name": name, "webhook_configs": [{"url": one.url}]}
            for name, one in (("memory", people), ("default", nobody))
        ]
        config.write_text(route + yaml.safe_dump({"receivers": receivers}))
        checked("amtool", "check-config", str(config))
        command = [
            program("prometheus-alertmanager", "alertmanager"),
            f"--config.file={config}",
            f"--storage.path={tmp_path}/alerts",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
        with running(command, port, tmp_path / "alertmanager.log") as server:
            sink = Alertmanager(AlertOptions(urls=[server.address]))
            # now: what has begun longer ago than group_wait is told of at once
            happened = msgspec.structs.replace(event().time, wall=rfc3339(time.time()))
            storm = [event(seq, time=happened) for seq in range(1000, 1025)]
            sink.deliver(storm)
            sink.deliver(storm[:5])  # once more, as after a restart
            until(lambda: people.taken(), 60)
        [message] = [request.json() for request in people.taken()]
        assert {alert["labels"]["event_id"] for alert in message["alerts"]} == {one.id for one in storm}
        assert len(message["alerts"]) == len(storm)
        assert nobody.requests == []


def told(number: int, **changes: Any) -> OomEvent:
    """An event of now, as a daemon would send it."""
    happened = msgspec.structs.replace(event().time, wall=rfc3339(time.time()))
    return event(number, time=happened, **changes)


@pytest.mark.slow
def test_events_in_clickhouse(tmp_path: Path) -> None:
    """Inserted as shown, by the packaged body, twice: one row each, the one with more kills."""
    template = tmp_path / "event.json"
    template.write_text((PACKAGED / "event.json").read_text().replace('"default"', '"batch"'))
    with ExitStack() as stack:
        try:
            server = stack.enter_context(clickhouse(tmp_path))
        except FileNotFoundError:
            pytest.skip("needs clickhouse-server")
        list(server.run((PACKAGED / "schema.sql").read_text()))
        for name in ("user", "key"):
            (tmp_path / f"clickhouse-{name}").write_text("default" if name == "user" else "")
        shown = block("fleet", "toml", "oom.events", {"https://clickhouse.example:8443": server.address})
        section = tomllib.loads(shown)["sinks"]["webhook"]
        section |= {"template": str(template)}
        del section["secret_headers"], section["ca_file"]
        sink = webhook.Webhook(msgspec.convert(section, webhook.Options))
        first, second = told(1000), told(2000, summary='it\'s "quoted"\t\\ \u2028 <b>')
        grown = msgspec.structs.replace(first, kills=first.kills + 2)
        for one in (first, second, first, grown, second):
            sink.deliver([one])
        sink.close()
        found = json.loads(server.ask("SELECT * FROM oom.events FINAL ORDER BY event_id FORMAT JSON"))["data"]
        assert sorted(row["event_id"] for row in found) == sorted((first.id, second.id))
        by_id = {row["event_id"]: row for row in found}
        assert by_id[first.id]["kills"] == grown.kills
        assert by_id[first.id]["pool"] == "batch"
        assert by_id[second.id]["summary"] == particulars(second, "")["summary"]
        answers = dict(server.run((PACKAGED / "questions.sql").read_text()))
        assert len(answers) == 5
        [reason] = answers["Top reasons this week"]
        assert int(reason["killed"]) == grown.kills + second.kills
        dashboard = json.loads((PACKAGED / "grafana-dashboard.json").read_text())
        queries = [target["rawSql"] for panel in dashboard["panels"] for target in panel["targets"]]
        assert len(queries) == 5
        for query in queries:
            for macro, words in MACROS.items():
                query = query.replace(macro, words)
            server.ask(query)


def test_the_questions_in_the_newest_engine() -> None:
    """The embedded one of PyPI, only if it was installed by hand: it is larger than everything else
    together."""
    engine = pytest.importorskip("chdb.session", reason="needs chdb").Session()
    for name in ("schema.sql", "questions.sql"):
        for _, statement in statements((PACKAGED / name).read_text()):
            engine.query(statement, "CSV")
    first = json.loads((PACKAGED / "event.json").read_text())
    row = dict.fromkeys(first, "") | {"event_id": "a", "time": "2026-11-30T14:00:00.123Z", "victim_pid": 1}
    for kills in (1, 3, 1):
        said = json.dumps(row | {"kills": kills, "repeats": 0})
        into = "INSERT INTO oom.events SETTINGS date_time_input_format='best_effort' FORMAT JSONEachRow"
        engine.query(f"{into} {said}")
    assert str(engine.query("SELECT kills FROM oom.events FINAL")).strip() == "3"


def test_rsyslog_as_it_is_shown(tmp_path: Path) -> None:
    """The lines of the JSON Lines sink arrive as they were written, those from before it began, too."""
    if shutil.which("rsyslogd", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("needs rsyslog")
    path, (host, port) = tmp_path / "events.jsonl", ("127.0.0.1", free_port())
    shown = block(
        "fleet",
        "conf",
        "imfile",
        {"/var/log/oomwatchd/events.jsonl": path, "logs.example": host, '"6514"': f'"{port}"'},
    )
    config = tmp_path / "rsyslog.conf"
    config.write_text(f'global(workDirectory="{tmp_path}" maxMessageSize="256k")\n{shown}')
    sink = JsonLines(str(path))
    sink.emit(event(1))
    with socket.create_server((host, port)) as listening:
        listening.settimeout(30)
        pid = tmp_path / "pid"
        with subprocess.Popen(["/usr/sbin/rsyslogd", "-n", "-f", str(config), "-i", str(pid)]) as process:
            try:
                client, _ = listening.accept()
                with client, client.makefile("rb") as lines:
                    client.settimeout(30)
                    assert lines.readline() == path.read_bytes()
                    sink.emit(event(2))
                    assert json.loads(lines.readline())["source"]["first_seq"] == 2
            finally:
                process.kill()
    sink.close()


def test_nats_as_it_is_shown(tmp_path: Path) -> None:
    """rsyslog, mosquitto_pub and the MQTT of nats-server, to a subscriber by NATS's own protocol."""
    where = "/usr/sbin:/usr/bin"
    if missing := [
        x for x in ("nats-server", "mosquitto_pub", "rsyslogd") if not shutil.which(x, path=where)
    ]:
        pytest.skip(f"needs {', '.join(missing)}")
    path, mqtt, port = tmp_path / "events.jsonl", free_port(), free_port()
    shown = block("fleet", "conf", "imfile", {"/var/log/oomwatchd/events.jsonl": path})
    here = {"nats.example": f"127.0.0.1 -p {mqtt}"}
    module, _, action = block("fleet", "conf", "omprog", here).partition("\n")
    head, _, _ = shown.partition("    action(")
    config = tmp_path / "rsyslog.conf"
    config.write_text(
        f'global(workDirectory="{tmp_path}" maxMessageSize="256k")\n{module}\n{head}{action}}}\n'
    )
    server = tmp_path / "nats.conf"
    listen = {"/var/lib/nats": tmp_path / "nats", "port: 1883": f"host: 127.0.0.1, port: {mqtt}"}
    server.write_text(f"listen: 127.0.0.1:{port}\n{block('fleet', 'conf', 'jetstream', listen)}")
    commands: list[list[str | Path]] = [
        ["/usr/sbin/nats-server", "-c", server],
        ["/usr/sbin/rsyslogd", "-n", "-f", config, "-i", tmp_path / "pid"],
    ]
    sink = JsonLines(str(path))
    with ExitStack() as stack:
        said = stack.enter_context((tmp_path / "said").open("wb"))

        def begun(command: list[str | Path]) -> None:
            process = stack.enter_context(subprocess.Popen(command, stdout=said, stderr=said))
            stack.callback(process.kill)

        begun(commands[0])
        wait_for("the server", lambda: listens(port) and listens(mqtt))
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
        lines = stack.enter_context(client.makefile("rwb"))
        lines.write(b'CONNECT {"verbose":false}\r\nSUB oom.events 1\r\nPING\r\n')
        lines.flush()
        while lines.readline().strip() != b"PONG":
            pass
        begun(commands[1])
        sink.emit(event(1))
        while not (line := lines.readline()).startswith(b"MSG oom.events "):
            assert line, (tmp_path / "said").read_text()
        assert lines.read(int(line.split()[-1])) == path.read_bytes().rstrip(b"\n")
    sink.close()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_logrotate_as_it_is_shown(tmp_path: Path) -> None:
    if shutil.which("logrotate") is None:
        pytest.skip("needs logrotate")
    path, state = tmp_path / "events.jsonl", tmp_path / "state"
    config = tmp_path / "logrotate.conf"
    config.write_text(block("delivery", "logrotate", "rotate", {"/var/log/oomwatchd/events.jsonl": path}))
    config.chmod(0o644)
    tmp_path.chmod(0o755)
    sink = JsonLines(str(path))
    for seq in range(1, 4):
        sink.emit(event(seq))
        done = subprocess.run(
            ["logrotate", "--force", f"--state={state}", str(config)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "error" not in done.stderr
    sink.emit(event(4))
    sink.close()
    kept = [path.read_text(), (tmp_path / "events.jsonl.1").read_text()]
    kept += [gzip.decompress((tmp_path / f"events.jsonl.{n}.gz").read_bytes()).decode() for n in (2, 3)]
    assert [[json.loads(line)["source"]["first_seq"] for line in text.splitlines()] for text in kept] == [
        [4],
        [3],
        [2],
        [1],
    ]
