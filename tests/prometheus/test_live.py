"""The whole way: a real OOM kill, the daemon, Debian's Prometheus, the alert, Debian's Alertmanager."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from oomwatchd.cli import throwaway
from tests.kernel.running import RunningDaemon, wait_for
from tests.prometheus.servers import Server, alertmanager, prometheus
from tests.prometheus.test_rules import DASHBOARD, RULES
from tests.test_web_access import PASSWORD, TLS, Certificates
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.oom]


def config(daemon: RunningDaemon, receiver: Server | None = None) -> str:
    alerting = ""
    if receiver is not None:
        host = receiver.address.removeprefix("http://")
        alerting = f'alerting: {{alertmanagers: [{{static_configs: [{{targets: ["{host}"]}}]}}]}}\n'
    return (
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{RULES}]\n{alerting}"
        "scrape_configs:\n- job_name: oomwatchd\n"
        f'  static_configs: [{{targets: ["127.0.0.1:{daemon.port}"]}}]\n'
    )


def value(server: Server, expression: str) -> float | None:
    found = server.query(expression)
    return float(found[0]["value"][1]) if found else None


def kill_one() -> throwaway.Victim:
    with throwaway.victim() as victim:
        victim.exceed()
        victim.wait(PATIENCE)
    return victim


def test_a_kill_becomes_an_alert_and_every_panel_has_an_answer(tmp_path: Path, daemon: RunningDaemon) -> None:
    with alertmanager(tmp_path) as receiver, prometheus(tmp_path, config(daemon, receiver)) as server:
        wait_for("two scrapes", lambda: value(server, 'count_over_time(up{job="oomwatchd"}[1m]) >= 2'))
        assert value(server, 'up{job="oomwatchd"}') == 1
        victim = kill_one()

        def firing() -> set[str]:
            alerts = server.ask("/api/v1/alerts")["data"]["alerts"]
            return {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}

        wait_for("OomKillInCgroup to fire", lambda: "OomKillInCgroup" in firing())
        wait_for("OomKillRecent to fire", lambda: "OomKillRecent" in firing())

        def received() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = receiver.ask("/api/v2/alerts")
            return [one for one in found if one["labels"]["alertname"] == "OomKillInCgroup"]

        (alert,) = wait_for("the Alertmanager to have it", received)
        assert alert["labels"]["job"] == "oomwatchd"
        assert "at its limit" in alert["annotations"]["summary"]
        assert alert["annotations"]["runbook_url"].endswith("#memcg_limit_reached")

        # the exemplar leads from the counter to the event
        def exemplars() -> list[str]:
            found = server.ask(
                "/api/v1/query_exemplars",
                query="oomwatchd_oom_kills_total",
                start=str(time.time() - 3600),
                end=str(time.time() + 60),
            )["data"]
            return [one["labels"]["event_id"] for series in found for one in series["exemplars"]]

        # others may be killed on this machine meanwhile
        named = wait_for("an exemplar", lambda: set(exemplars()))
        assert named <= {line["id"] for line in daemon.lines()}
        assert daemon.lines_of(victim.comm)
        for event_id in named:
            assert daemon.get(f"/events/{event_id}")[0] == 200

        silent = []
        for title, expression in panel_queries():
            if not server.query(expression):
                silent.append(title)
        # what a healthy host with one kill and no unit has nothing to show for
        by_whom = {"OOM kills by unit", "OOM kills by container"}
        calm = {"Parts that are down", "Cgroups closest to their limit", "Time until memory is exhausted"}
        assert set(silent) <= calm | by_whom


def panel_queries() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard as Grafana would send it."""
    values = {"$__rate_interval": "1m", "$__interval": "1m", "$__range": "1h"}
    values |= {"$job": "oomwatchd", "$instance": ".*"}
    dashboard = json.loads(DASHBOARD.read_text())
    targets = [
        (panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]
    ]
    targets += [(one["name"], one["expr"]) for one in dashboard["annotations"]["list"]]
    for title, expression in targets:
        for name, replacement in values.items():
            expression = expression.replace(name, replacement)
        assert "$" not in expression
        yield title, expression


def test_prometheus_scrapes_with_tls_and_a_password(tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    file = tmp_path / "web.yml"
    file.write_text(f"{TLS}basic_auth_users: {{prometheus: {hashed}}}\n")
    daemon = RunningDaemon(tmp_path, None)
    text = daemon.config.read_text().replace("[http]\n", f'[http]\nweb_config = "{file}"\n')
    daemon.config.write_text(text)
    scrape = (
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: oomwatchd\n  scheme: https\n"
        f"  basic_auth: {{username: prometheus, password: {PASSWORD}}}\n"
        f"  tls_config: {{ca_file: {made.directory / 'ca.pem'}, server_name: localhost}}\n"
        f'  static_configs: [{{targets: ["127.0.0.1:{daemon.port}"]}}]\n'
    )
    try:
        daemon.spawn()
        with prometheus(tmp_path, scrape) as server:
            wait_for("a scrape", lambda: value(server, 'up{job="oomwatchd"}') == 1)
            wait_for("the metrics", lambda: value(server, "oomwatchd_kmsg_up") == 1)
            slowest = value(server, "max_over_time(scrape_duration_seconds[1m])")
            assert slowest is not None
            assert slowest < 1
    finally:
        daemon.kill()
