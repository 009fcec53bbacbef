"""An API server of Kubernetes, only for Events: it validates them by the API's official schema and rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec

from oomwatchd.sinks.kubernetes import Options
from tests.delivery.receivers import Receiver, Request

#: the oldest and the newest that the schemas are there of
VERSIONS = ("1.25", "1.37")


class ApiServer:
    """Events as an API server takes them (``pkg/apis/core/validation/events.go``, its first rules)."""

    def __init__(self, at: Receiver, directory: Path, ca_file: Path) -> None:
        self.at = at
        at.decide = self._decide
        self.token = "first-token"  # noqa: S105
        self.ending: set[str] = set()
        self.gone: set[str] = set()
        self.allowed = True
        self.events: dict[str, dict[str, Any]] = {}
        self.directory = directory
        self.ca_file = ca_file
        (directory / "token").write_text(self.token)
        (directory / "namespace").write_text("monitoring")

    def options(self, **fields: Any) -> Options:
        given = {"url": self.at.url, "token_file": f"{self.directory}/token", "ca_file": str(self.ca_file)}
        return Options(enabled=True, **(given | fields))

    def _decide(self, request: Request) -> tuple[int, bytes]:
        path = re.fullmatch(r"/api/v1/namespaces/([a-z0-9-]+)/events", request.path)
        if request.method != "POST" or path is None:
            return self._status(404, "NotFound")
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return self._status(401, "Unauthorized")
        if not self.allowed:
            return self._status(403, "Forbidden")
        namespace = path[1]
        if namespace in self.gone:
            return self._status(404, "NotFound")
        if namespace in self.ending:
            return self._status(403, "Forbidden", "NamespaceTerminating")
        made = request.json()
        try:
            for version in VERSIONS:
                kubernetes_validate.validate(made, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return self._status(422, str(error))
        name = made["metadata"]["name"]
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name) or len(made["message"]) > 1024:
            return self._status(422, "Invalid")
        if not made["metadata"]["namespace"] == made["involvedObject"]["namespace"] == namespace:
            return self._status(422, "Invalid")
        if name in self.events:
            return self._status(409, "AlreadyExists")
        self.events[name] = made
        return 201, request.body

    @staticmethod
    def _status(code: int, reason: str, cause: str = "") -> tuple[int, bytes]:
        details = {"causes": [{"reason": cause}]} if cause else {}
        status = {"kind": "Status", "code": code, "reason": reason, "details": details}
        return code, msgspec.json.encode(status)
