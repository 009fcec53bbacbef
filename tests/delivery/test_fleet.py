"""The configurations of docs/fleet.md and docs/delivery.md, run with Debian's Prometheus, Alertmanager and
logrotate. The journal's are in test_journal_remote.py; what was not run the page says."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import time
import tomllib
from pathlib import Path

import msgspec
import pytest
import yaml

from oomwatchd.config import parse
from oomwatchd.event import rfc3339
from oomwatchd.sinks.alertmanager import Alertmanager
from oomwatchd.sinks.alertmanager import Options as AlertOptions
from oomwatchd.sinks.jsonl import JsonLines
from tests.delivery.pages import block, blocks
from tests.delivery.receivers import receiver, until
from tests.kernel.running import wait_for
from tests.prometheus.servers import Server, free_port, program, prometheus, running
from tests.samples import event
from tests.test_daemon import Running, daemon

__all__ = ["daemon"]


def checked(tool: str, *arguments: str) -> None:
    done = subprocess.run([program(tool), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_configuration_of_the_daemon_is_one() -> None:
    shown = [text for page in ("delivery", "fleet", "journal") for text in blocks(page, "toml")]
    assert len(shown) >= 8
    for text in shown:
        parse(tomllib.loads(text), "the documentation")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["scrape", "agent"])
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
    agent = [
        program("prometheus"),
        "--enable-feature=agent",
        f"--config.file={tmp_path}/agent.yml",
        f"--storage.agent.path={tmp_path}/agent",
        f"--web.listen-address=127.0.0.1:{agent_port}",
    ]
    write = "global: { scrape_interval: 1s }\n" + block("fleet", "yaml", "remote_write", changed)
    (tmp_path / "agent.yml").write_text(write)
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
