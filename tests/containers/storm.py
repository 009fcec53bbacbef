"""``python -m tests.containers.storm [ENGINE ...]``: which containers are named when many are killed at once,
and when they die at once after their start.

The daemon and its helper are as in test_names. The kernel prints the head of at most ten reports in 5 s; of
the others only the kill line is left, or nothing.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.containers.engines import Containerd, Docker, Engine, Podman, missing
from tests.containers.test_names import Helper, Journal, Service, told_of, victim_of
from tests.kernel.running import command, wait_for

ENGINES = {kind.__name__.lower(): kind for kind in (Podman, Containerd, Docker)}
#: killed together
CROWD = 16
#: killed one after the other
SINGLE = 5
#: a container is started within so many seconds
_START_SECONDS = 2.5


def measure(kind: type[Engine]) -> list[str]:
    """A row of figures for each way to die."""
    place = Path(tempfile.mkdtemp(prefix="o", dir="/var/tmp"))
    try:
        place.chmod(0o755)
        (place / "h/run").mkdir(parents=True)
        helper, journal = Helper(place / "h", place), Journal(place / "journal")
        service = Service(place, None)
        service.write_config(f'socket = "{journal.path}"', f'[capture]\nhost_root = "{place / "h"}"\n')
        service.state.mkdir()
        for path in (service.state, service.jsonl):
            shutil.chown(path, 65534, 65534)
        service.start()
        engine = kind(place / "h", place / "engine")
        try:
            engine.start()
            return [
                row(kind, "one by one, 3 s after the start", service, lambda: singly(engine, 3)),
                row(kind, "one by one, at once after the start", service, lambda: singly(engine, 0)),
                row(kind, f"{CROWD} at once", service, lambda: together(engine)),
            ]
        finally:
            engine.stop()
            service.kill()
            helper.stop()
            journal.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def singly(engine: Engine, after_seconds: float) -> list[tuple[str, str]]:
    """Containers that are killed one after the other: id and name of each."""
    started = []
    for _ in range(SINGLE):
        started.append(engine.run(after_seconds))
        time.sleep(after_seconds + 1)
    return started


def together(engine: Engine) -> list[tuple[str, str]]:
    """Containers that all begin to grow at the same moment."""
    begin = time.monotonic() + CROWD * _START_SECONDS
    return [engine.run(max(begin - time.monotonic(), 1)) for _ in range(CROWD)]


def row(kind: type[Engine], way: str, service: Service, start: Callable[[], list[tuple[str, str]]]) -> str:
    """How many of the started containers were told, and how many of these by name."""
    started = start()
    with contextlib.suppress(AssertionError):
        wait_for("all to be told", lambda: all(told_of(service, c) for c, _ in started), 40)
    time.sleep(7)  # a report settles after 5 s
    told = [(name, event) for container, name in started if (event := told_of(service, container))]
    last = stored(service)
    figures = (
        len(started),
        len(told),
        sum(bool(event["trigger"].get("comm")) for _, event in told),
        sum(
            victim_of(event).get("container_name") == name and name in event["summary"]
            for name, event in told
        ),
        sum(name in last.get(event["id"], {}).get("summary", "") for name, event in told),
    )
    return f"| {' | '.join(map(str, (kind.__name__, way, *figures)))} |"


def stored(service: Service) -> dict[str, Any]:
    """The last revision of each event, by id: sinks get the first."""
    words = command("events", "export", "--config", str(service.config))
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return {event["id"]: event for event in map(json.loads, lines)}


def main(names: list[str]) -> int:
    """Print the table."""
    print("| engine | killed | containers | told | with a head | named at once | named when settled |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in names or list(ENGINES):
        lacks = missing(ENGINES[name])
        rows = [f"| {name} | not here: {', '.join(lacks)} |"] if lacks else measure(ENGINES[name])
        print("\n".join(rows), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
