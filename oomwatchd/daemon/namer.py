"""The helper that reads names of containers from files that only root may read.

It is started by its socket (``oomwatchd-names.socket``) and ends when nobody asks. A request is one line for
each id, the answer one JSON object of ids and names. Its unit says what it may see and do. (``python3 -Im
oomwatchd.daemon.namer``)
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from time import monotonic

from oomwatchd.observe.runtimes import name_of

IDLE_SECONDS = 5.0
QUESTION_SECONDS = 5.0
#: Where containers come all the time it is never idle. It ends by itself before the service manager ends it
#: (RuntimeMaxSec=), which would leave a failed unit; the next request starts it again.
LIFE_SECONDS = 30.0
_QUESTION_BYTES = 128 * 1024
#: the first passed descriptor (sd_listen_fds(3))
_LISTENING = 3


def main(root: Path = Path("/"), descriptor: int = _LISTENING) -> int:
    """Serve until it is idle; the exit status."""
    try:
        listening = socket.socket(fileno=descriptor)
    except OSError as error:
        print(f"oomwatchd names: no socket was passed: {error.strerror}", file=sys.stderr)
        return 69
    with listening:
        listening.settimeout(IDLE_SECONDS)
        until = monotonic() + LIFE_SECONDS
        while monotonic() < until:
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                return 0
            with connection:
                try:
                    _answer(connection, root)
                except OSError:
                    continue  # the client is gone, or never ends its request
    return 0


def _answer(connection: socket.socket, root: Path) -> None:
    until = monotonic() + QUESTION_SECONDS
    connection.settimeout(QUESTION_SECONDS)
    question = b""
    while len(question) < _QUESTION_BYTES and (piece := connection.recv(65536)):
        question += piece
        if monotonic() > until:
            raise TimeoutError
    ids = question.decode("ascii", "replace").split()
    names = ((container_id, name_of(container_id, root)) for container_id in ids)
    connection.sendall(json.dumps({one: name for one, name in names if name is not None}).encode())


if __name__ == "__main__":
    sys.exit(main())
