"""Process 1 of a PID namespace of its own: it runs journald, and writes to the journal what it is told to.

journald vouches for its sender's number, unit and cgroup; entries that a test writes this way are therefore
the service manager's, or systemd-oomd's, as far as any reader can tell. A line of JSON on standard input is
an entry; with ``"_from": "other"`` another process sends it, with ``"_from": CGROUP`` one in that cgroup of
systemd's own hierarchy. Each is answered with a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

JOURNALD = "/lib/systemd/systemd-journald"
SOCKET = "/run/systemd/journal/socket"
SEND = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
    journal.connect("/run/systemd/journal/socket")
    journal.send(sys.stdin.buffer.read())
# journald looks the sender up when it reads: be there still
sys.stdout.close()
import time
time.sleep(1)
"""


def prepare() -> None:
    """Mounts of this namespace alone, then journald."""
    for words in (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "proc", "proc", "/proc"],
        ["mount", "-t", "tmpfs", "tmpfs", "/run"],
    ):
        subprocess.run(words, check=True)
    for path in ("/run/systemd/journal", "/run/systemd/journald.conf.d", "/run/log/journal"):
        Path(path).mkdir(parents=True)
    Path("/run/systemd/journald.conf.d/own.conf").write_text(
        "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n"
    )
    subprocess.Popen([JOURNALD])


def send(entry: dict[str, str]) -> None:
    sender = entry.pop("_from", None)
    data = "".join(f"{name}={value}\n" for name, value in entry.items()).encode()
    if sender is None:
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
            journal.connect(SOCKET)
            journal.send(data)
        return

    def move() -> None:
        if sender != "other":
            Path(sender, "cgroup.procs").write_text(str(os.getpid()))

    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SEND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=move,
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(data)
    child.stdin.close()
    child.stdout.read()


def main() -> None:
    prepare()
    while not Path(SOCKET).exists():
        os.sched_yield()
    print("ready", flush=True)
    for line in sys.stdin:
        send(json.loads(line))
        print("sent", flush=True)


if __name__ == "__main__":
    main()
