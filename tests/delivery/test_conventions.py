"""The names that OTLP records carry are those of OpenTelemetry's registry (semantic-conventions)."""

from __future__ import annotations

import importlib
import os
import pkgutil
from types import ModuleType

import pytest

from oomwatchd.sinks import otlp
from tests.samples import event

HOSTS = pytest.importorskip("opentelemetry.semconv._incubating.attributes.host_attributes")
#: what uname(2) says that the registry knows by another name
KNOWN = ("x86_64", "aarch64", "i386", "i686", "armv6l", "armv7l", "ppc64", "ppc64le", "s390x")


def registry() -> dict[str, str]:
    """Each attribute's name, and the module that has it."""
    found: dict[str, str] = {}
    for room in ("opentelemetry.semconv.attributes", "opentelemetry.semconv._incubating.attributes"):
        for module in pkgutil.iter_modules(importlib.import_module(room).__path__, f"{room}."):
            found |= dict.fromkeys(_names(importlib.import_module(module.name)), module.name)
    assert len(found) > 300
    return found


def _names(module: ModuleType) -> list[str]:
    return [value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)]


def test_every_name_is_registered_or_our_own() -> None:
    """``oomwatchd.*`` is a separate namespace, as the conventions require for names that they do not
    define."""
    known = registry()
    sent = otlp.request([event()], otlp.Options(url="http://localhost"), 0.0)["resourceLogs"][0]
    names = {one["key"] for one in sent["resource"]["attributes"]} | otlp.attributes(event()).keys()
    assert {"host.id", "host.arch", "container.id", "k8s.pod.name", "service.name"} <= names
    assert sorted(name for name in names if not name.startswith("oomwatchd.") and name not in known) == []
    assert not [name for name in known if name.startswith("oomwatchd.")]


@pytest.mark.parametrize("machine", KNOWN)
def test_an_architecture_is_called_as_in_the_registry(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Uname:
        release = "6.12"

    Uname.machine = machine  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", Uname)
    resource = otlp.request([], otlp.Options(url="http://localhost"), 0.0)["resourceLogs"][0]["resource"]
    [arch] = [one["value"]["stringValue"] for one in resource["attributes"] if one["key"] == "host.arch"]
    assert arch in {value.value for value in HOSTS.HostArchValues}


def test_the_registry_check_sees_a_name_that_is_none() -> None:
    assert "container.nickname" not in registry()
