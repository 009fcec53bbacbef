"""Names of containers out of their runtimes' files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oomwatchd.observe.container import container_name, with_container_names
from oomwatchd.records.capture import ProcessFacts
from tests.samples import capture

ID = "9f02d9fa0049eb2655fc83c765f142362b2cb403b57b70ba3185071015ca3b64"
DOCKER = f"var/lib/docker/containers/{ID}/config.v2.json"
CONTAINERD = f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
CRIO = f"run/containers/storage/overlay-containers/{ID}/userdata/config.json"


@pytest.mark.parametrize(
    ("file", "content", "name"),
    [
        (DOCKER, {"Name": "/web", "ID": ID}, "web"),
        (
            CONTAINERD,
            {
                "annotations": {
                    "io.kubernetes.cri.container-name": "app",
                    "io.kubernetes.cri.sandbox-name": "web-0",
                    "io.kubernetes.cri.sandbox-namespace": "shop",
                }
            },
            "shop/web-0/app",
        ),
        (
            CRIO,
            {"annotations": {"io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "p"}},
            "p/app",
        ),
        (DOCKER, {"Name": 7}, None),
        (DOCKER, ["no object"], None),
        (DOCKER, {}, None),
    ],
)
def test_the_runtime_tells_the_name(tmp_path: Path, file: str, content: object, name: str | None) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(json.dumps(content))
    assert container_name(ID, tmp_path) == name


def test_an_id_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "var/lib/docker/containers").mkdir(parents=True)
    (tmp_path / "var/lib/docker/config.v2.json").write_text('{"Name": "/x"}')
    assert container_name("..", tmp_path) is None


def test_a_capture_learns_the_names(tmp_path: Path) -> None:
    (tmp_path / DOCKER).parent.mkdir(parents=True)
    (tmp_path / DOCKER).write_text('{"Name": "/web"}')
    inside = ProcessFacts(pid=1, cgroup=f"/system.slice/docker-{ID}.scope")
    outside = ProcessFacts(pid=2, cgroup="/system.slice/x.service")
    named = with_container_names(capture(processes=(inside, outside)), tmp_path)
    assert [facts.container_name for facts in named.processes] == ["web", None]
