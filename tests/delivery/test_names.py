"""What people call a container, a pod and a test, in everything that is sent."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from oomwatchd.cli.notify_test import test_event as a_test_event
from oomwatchd.diagnosis.attribution import Attribution, Names, names_of
from oomwatchd.diagnosis.owners import home_of
from oomwatchd.event import OomEvent
from oomwatchd.render import fields
from oomwatchd.sinks import alertmanager, journal, otlp, webhook
from oomwatchd.sinks._message_ids import MESSAGE_IDS
from oomwatchd.sinks._payload import particulars
from tests.samples import WALL, event

ID = "75269d3c5c23" + "0" * 52
POD = "0b8c4a7e-1111-4222-8333-944455566677"
CGROUP = f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{ID}.scope"


def owner(name: str | None, **more: Any) -> Attribution:
    return Attribution(
        pid=4242, role="victim", cgroup=CGROUP, container_id=ID, container_name=name, learnt="proc", **more
    )


def sent(event: OomEvent) -> dict[str, object]:
    """The attributes of the only OTLP record, by name."""
    request = otlp.request([event], otlp.Options(url="http://x"), WALL)
    [resource] = request["resourceLogs"]
    [record] = resource["scopeLogs"][0]["logRecords"]
    pairs: Sequence[dict[str, Any]] = [*resource["resource"]["attributes"], *record["attributes"]]
    return {pair["key"]: next(iter(pair["value"].values())) for pair in pairs} | {
        "severityText": record["severityText"],
        "eventName": record["eventName"],
    }


@pytest.mark.parametrize(
    ("name", "more", "names", "place"),
    [
        ("shop/web-otlp/app", {"pod_uid": POD}, Names("app", "web-otlp", "shop"), "shop/web-otlp/app"),
        (
            "k8s_app_web-otlp_shop_0b8c4a7e-1111-4222-8333-944455566677_3",
            {"pod_uid": POD},
            Names("app", "web-otlp", "shop"),
            "shop/web-otlp/app",
        ),
        ("web", {}, Names("web"), "container web"),
        ("a_b_c", {}, Names("a_b_c"), "container a_b_c"),
        ("//", {}, Names("//"), "container //"),
        (None, {"pod_uid": POD}, Names(), f"container 75269d3c5c23, pod {POD}"),
        (None, {}, Names(), "container 75269d3c5c23"),
    ],
)
def test_names_of_a_container(name: str | None, more: dict[str, Any], names: Names, place: str) -> None:
    whose = owner(name, **more)
    assert names_of(whose) == names
    assert home_of(whose) == place


def test_a_container_is_called_by_its_name_in_everything_that_is_sent() -> None:
    told = event(attribution=(owner("shop/web-otlp/app", pod_uid=POD),))
    entry = dict(journal.fields(told))
    assert entry["OOM_CONTAINER_NAME"] == "app"
    assert (entry["OOM_POD_NAME"], entry["OOM_POD_NAMESPACE"]) == ("web-otlp", "shop")
    assert (entry["OOM_CONTAINER_ID"], entry["OOM_POD_UID"]) == (ID, POD)
    labels = alertmanager.alert(told, alertmanager.Options(), WALL)["labels"]
    assert (labels["namespace"], labels["pod"], labels["container"]) == ("shop", "web-otlp", "app")
    attributes = sent(told)
    assert attributes["k8s.container.name"] == "app"
    assert (attributes["k8s.pod.name"], attributes["k8s.namespace.name"]) == ("web-otlp", "shop")
    assert (attributes["container.id"], attributes["k8s.pod.uid"]) == (ID, POD)
    assert "container.name" not in attributes, "the runtime's own name of it is not known"
    values = particulars(told, "")
    assert values["where"] == "shop/web-otlp/app"
    assert (values["namespace"], values["pod"], values["container"]) == ("shop", "web-otlp", "app")
    assert webhook.cloud_event(told, "small")["subject"] == "shop/web-otlp/app"
    for template in ("slack", "mattermost", "matrix", "teams"):
        body = webhook.read_template(template).fill(values, {})
        assert "shop/web-otlp/app" in json.dumps(json.loads(body)).replace("\\\\", ""), template
    assert "shop/web-otlp/app" in fields.died(told)


def test_a_container_outside_of_kubernetes() -> None:
    told = event(attribution=(owner("web", container_runtime="docker"),))
    attributes = sent(told)
    assert attributes["container.name"] == "web" and attributes["container.runtime.name"] == "docker"
    assert not any(name.startswith("k8s.") for name in attributes)
    labels = alertmanager.alert(told, alertmanager.Options(), WALL)["labels"]
    assert labels["container"] == "web" and "pod" not in labels


def test_labels_are_bounded() -> None:
    told = event(attribution=(owner("n" * 9000),))
    labels = alertmanager.alert(told, alertmanager.Options(), WALL)["labels"]
    assert max(len(value) for value in labels.values()) == 256


def test_the_host_by_the_semantic_conventions() -> None:
    attributes = sent(event())
    assert attributes["host.name"] == socket.gethostname()
    known = {"x86_64": "amd64", "aarch64": "arm64"}
    assert attributes["host.arch"] == known.get(platform.machine(), platform.machine())


def test_a_test_says_so_in_kind_and_severity() -> None:
    told = a_test_event(WALL)
    assert told.kind == "test" and told.kills == 0
    entry = dict(journal.fields(told))
    assert (entry["OOM_KIND"], entry["OOM_TEST"], entry["PRIORITY"]) == ("test", 1, 5)
    assert entry["MESSAGE_ID"] == MESSAGE_IDS["test"] != MESSAGE_IDS["oom_kill"]
    labels = alertmanager.alert(told, alertmanager.Options(), WALL)["labels"]
    assert (labels["alertname"], labels["severity"], labels["test"]) == ("OomwatchdTest", "test", "true")
    attributes = sent(told)
    assert (attributes["oomwatchd.kind"], attributes["severityText"]) == ("test", "TEST")
    assert attributes["eventName"] == "oomwatchd.test"
    made = webhook.cloud_event(told, "small")
    assert (made["type"], made["severity"], made["data"]["kind"]) == ("oomwatchd.test", "test", "test")
    values = particulars(told, "")
    assert (values["kind"], values["severity"]) == ("test", "test")
