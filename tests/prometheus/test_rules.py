"""The alert rules, the dashboard and the examples as they are shipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.prometheus.servers import program

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "packaging/prometheus"
RULES = SHIPPED / "oomwatchd.rules.yml"
DASHBOARD = SHIPPED / "grafana-dashboard.json"


def promtool(*arguments: str, directory: Path = SHIPPED) -> str:
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alerts() -> list[dict[str, object]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, object]] = group["rules"]
    return rules


def test_promtool_has_no_complaint() -> None:
    assert "SUCCESS" in promtool("check", "rules", RULES.name)
    assert "FAILED" not in promtool("test", "rules", "oomwatchd.rules.test.yml")


def test_each_rule_is_tested_to_fire_and_to_be_silent() -> None:
    tests = yaml.safe_load((SHIPPED / "oomwatchd.rules.test.yml").read_text())["tests"]
    fires: set[str] = set()
    silent: set[str] = set()
    for test in tests:
        for case in test["alert_rule_test"]:
            (fires if case["exp_alerts"] else silent).add(case["alertname"])
    names = {rule["alert"] for rule in alerts()}
    assert fires == silent == names


def test_runbooks_are_there() -> None:
    anchors = {}
    for name in ("findings", "operations", "delivery", "warnings"):
        titles = re.findall(r"^#+ (.*)$", (ROOT / f"docs/{name}.md").read_text(), re.MULTILINE)
        anchors[name] = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    for rule in alerts():
        annotations = rule["annotations"]
        assert isinstance(annotations, dict)
        found = re.fullmatch(
            r"file:///usr/share/doc/oomwatchd/(\w+)\.md#([\w-]+)", annotations["runbook_url"]
        )
        assert found, rule["alert"]
        assert found[2] in anchors[found[1]], rule["alert"]
    # and the package leaves the pages as they are
    assert "dh_compress --exclude=.md" in (ROOT / "packaging/debian/rules").read_text()


def test_rules_and_dashboard_use_metrics_that_exist() -> None:
    known = set(re.findall(r"^\| `(oomwatchd_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    used = re.findall(r"\boomwatchd_\w+", RULES.read_text() + DASHBOARD.read_text())
    assert used
    assert {re.sub(r"_bucket$", "", name) for name in used} <= known


def test_examples_are_what_prometheus_takes(tmp_path: Path) -> None:
    promtool("check", "config", "--syntax-only", "scrape.example.yml")
    key = ["-keyout", "oomwatchd.key", "-out", "oomwatchd.pem", "-subj", "/CN=x"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *key],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    shutil.copy(SHIPPED / "web-config.example.yml", tmp_path)
    promtool("check", "web-config", "web-config.example.yml", directory=tmp_path)
    from oomwatchd.web.webconfig import read_web_config

    read = read_web_config(tmp_path / "web-config.example.yml")
    assert read.context is not None
    assert list(read.users) == ["prometheus"]


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert panel["targets"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
