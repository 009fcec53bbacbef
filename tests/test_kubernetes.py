"""The manifests: rendered by kubectl, valid by the official schemas, and with no more rights than needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("kubernetes_validate")

import kubernetes_validate
import yaml

from oomwatchd import __version__
from oomwatchd.config import load
from oomwatchd.sinks.kubernetes import Options

ROOT = Path(__file__).resolve().parent.parent / "packaging/kubernetes"
#: the oldest and the newest that the schemas are there of
VERSIONS = ("1.25", "1.37")
WAYS = ("privileged", "device-plugin")


def rendered(way: str) -> list[dict[str, Any]]:
    """What ``kubectl apply --kustomize`` sends."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl")
    version = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False)
    if re.search(r"v?1\.(\d|1\d|20)\.", version.stdout):  # Debian 12's has no `patches`
        pytest.skip("needs kubectl 1.21 or newer")
    done = subprocess.run(["kubectl", "kustomize", ROOT / way], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    [found] = [document for document in documents if document["kind"] == kind]
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_file_is_by_the_schema(version: str) -> None:
    files = [path for path in (ROOT / "base").glob("*.yaml") if path.name != "kustomization.yaml"]
    documents = [one for path in files for one in yaml.safe_load_all(path.read_text())]
    assert len(documents) == 5
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_applied_is_by_the_schema(way: str) -> None:
    documents = rendered(way)
    assert len(documents) == 6
    for document in documents:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_refuses_what_is_wrong() -> None:
    document = yaml.safe_load((ROOT / "base/daemonset.yaml").read_text())
    document["spec"]["template"]["spec"]["hostPids"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)


def test_it_may_do_no_more_than_it_needs() -> None:
    documents = rendered("device-plugin")
    pod = of_kind(documents, "DaemonSet")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYSLOG"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [key for key in pod if key.startswith("host")] == ["hostPID"]
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["state"]
    assert container["resources"]["limits"]["squat.ai/kmsg"] == "1"
    rules = of_kind(documents, "ClusterRole")["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}]


def test_the_privileged_way_differs_in_the_privilege_alone() -> None:
    both = [of_kind(rendered(way), "DaemonSet")["spec"]["template"]["spec"] for way in WAYS]
    given = [pod["containers"][0].pop("securityContext") for pod in both]
    for pod in both:
        pod["containers"][0].pop("resources")
    assert both[0] == both[1]
    assert given[0] == {"privileged": True, "runAsUser": 0, "readOnlyRootFilesystem": True}


def test_its_configuration_is_right() -> None:
    config, _ = load(ROOT / "base/config.toml")
    assert config.capture.host_root == "/host"
    assert config.sinks == {"kubernetes": Options(enabled=True)}
    mounts = yaml.safe_load((ROOT / "base/daemonset.yaml").read_text())["spec"]["template"]["spec"]
    paths = {mount["mountPath"] for mount in mounts["containers"][0]["volumeMounts"]}
    assert "/host/var/log/containers" in paths


def test_the_image_is_of_this_version() -> None:
    [image] = yaml.safe_load((ROOT / "base/kustomization.yaml").read_text())["images"]
    assert image["newTag"] == __version__
