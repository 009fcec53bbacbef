"""Growth and attribution on real kills: a leak with its rate, and a storm whose victims the kernel names
without their cgroups."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from oomwatchd.cli import throwaway
from tests.kernel.running import RunningDaemon, wait_for
from tests.kernel.storm import KILLS, SHARE, storm
from tests.waiting import PATIENCE

pytestmark = pytest.mark.oom

LIMIT = 96 << 20
#: bytes a second
RATE = 5 << 20
#: private memory, so that it is the process's own; a step each tenth of a second, by the clock
LEAK = """
import mmap, sys, time
open("/proc/self/comm", "w").write("leaky")
open("/proc/self/oom_score_adj", "w").write("1000")
sys.stdin.readline()
kept, began = [], time.monotonic()
for step in range(1, 600):
    kept.append(mmap.mmap(-1, 524288, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    for offset in range(0, 524288, 4096): kept[-1][offset] = 1
    time.sleep(max(0.0, began + step / 10 - time.monotonic()))
"""


@contextlib.contextmanager
def leaky_unit() -> Iterator[subprocess.Popen[bytes]]:
    """A child in a cgroup that is named like a unit; it leaks once it is told."""
    hierarchy = throwaway.memory_hierarchy()
    parent = Path(hierarchy.mount) / "oomwatchd-test.slice"
    directory = parent / "leaky.service"
    parent.mkdir(exist_ok=True)
    if hierarchy.version == 2:
        if "memory" not in (parent / "cgroup.controllers").read_text().split():
            pytest.skip("the root of cgroup v2 does not hand the memory controller down")
        (parent / "cgroup.subtree_control").write_text("+memory")
    directory.mkdir(exist_ok=True)
    (directory / hierarchy.files.limit).write_text(str(LIMIT))
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", LEAK], stdin=subprocess.PIPE)
    try:
        (directory / "cgroup.procs").write_text(str(child.pid))
        yield child
    finally:
        child.kill()
        child.wait()
        wait_for("the cgroup to be empty", partial(removed, directory))
        removed(parent)


def removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()


def climbs(page: str) -> None:
    """The chart of the largest users has the victim's line, which goes up to the end."""
    chart = page[page.index("The largest processes, cgroups and tmpfs mounts") :]
    (points,) = re.findall(r'<polyline class="l-killed" points="([^"]+)"', chart)[:1]
    drawn = [tuple(map(float, point.split(","))) for point in points.split()]
    assert len(drawn) >= 5
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    heights = [-y for _, y in drawn]  # SVG counts downward
    assert heights == sorted(heights) and heights[-1] > heights[0]
    assert "leaky" in chart


@pytest.mark.slow
def test_a_leak_is_named_with_its_rate_and_shown_climbing(daemon: RunningDaemon) -> None:
    with leaky_unit() as child:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
        child.wait(2 * PATIENCE)
        (event,) = wait_for("the event", lambda: daemon.lines_of("leaky"))
    suspects = [f["evidence"] for f in event["findings"] if f["id"] == "leak_suspect"]
    evidence = next(e for e in suspects if e.get("unit") == "leaky.service")
    assert (evidence["pid"], evidence["comm"]) == (child.pid, "leaky")
    assert evidence["unit"] == "leaky.service"
    assert evidence["growth_per_minute_bytes"] == pytest.approx(60 * RATE, rel=0.2)
    whose = {a["role"]: a for a in event["attribution"]}["victim"]
    assert (whose["pid"], whose["unit"], whose["slice"]) == (
        child.pid,
        "leaky.service",
        "oomwatchd-test.slice",
    )
    (track,) = [t for t in event["tracks"] if t["kind"] == "cgroup" and t["name"].endswith("/leaky.service")]
    assert track["limit_bytes"] == LIMIT
    amounts = [amount for _, amount in track["points"]]
    assert len(amounts) >= 5
    assert amounts == sorted(amounts)
    assert event["snapshots"]["before"]
    page = daemon.events("show", "--format", "html", event["id"]).stdout
    climbs(page)
    # the settled report knows that the victim is gone
    (stored,) = [e for e in daemon.stored_of("leaky") if e["id"] == event["id"]]
    assert not [f for f in stored["findings"] if f["id"] == "victim_did_not_die"]


@pytest.mark.slow
def test_a_storm_of_lone_kill_lines_is_attributed(daemon: RunningDaemon) -> None:
    """40 kills at once: the kernel prints few of their cgroups, the rest is found otherwise."""
    outcome = storm(daemon)
    assert outcome.lone, "the kernel dropped no header: this was no storm"
    assert outcome.wrong == []
    assert outcome.right.total() >= SHARE * KILLS, str(outcome)
