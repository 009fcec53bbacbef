"""Secrets: read from a file or a systemd credential when they are used, and never logged.

A name with a slash is a file; one without is a credential of the service (``LoadCredential=``,
systemd.exec(5)), found in ``$CREDENTIALS_DIRECTORY``. They are read each time, so that a changed secret
counts at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from oomwatchd.sinks._error import SinkError

_MAX_BYTES = 16 * 1024


def secret_path(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the secret is. Raises SinkError for a credential of a service that has none."""
    if "/" in name:
        return Path(name)
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise SinkError(
            f"the credential {name} needs a service with LoadCredential={name}:FILE; by hand: "
            "CREDENTIALS_DIRECTORY=/run/credentials/oomwatchd.service oomwatchd ..."
        )
    return Path(directory) / name


def read_secret(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """The secret without the line break at its end. Raises SinkError, which names the file, never the
    content."""
    path = secret_path(name, environ)
    try:
        # a FIFO in its place would hold up whoever opens it
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SinkError(f"cannot read the secret {path}: {error.strerror}") from None
    text = data.rstrip(b"\r\n")
    if not text or len(data) > _MAX_BYTES or not text.isascii() or not text.decode("ascii").isprintable():
        raise SinkError(f"the secret {path} is not one line of printable ASCII")
    return text.decode("ascii")
