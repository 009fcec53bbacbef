"""A daemon that the kernel itself chose: the next one says so, of that kill alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomwatchd.daemon.own_deaths import OwnDeaths
from oomwatchd.event import conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.store import Store

BOOT, SECOND = "0123456789abcdef0123456789abcdef", 1_000_000


def killed(pid: int, usec: int) -> OomCapture:
    text = (
        f"Out of memory: Killed process {pid} (oomwatchd) total-vm:90000kB, anon-rss:24000kB, file-rss:0kB, "
        "shmem-rss:0kB, UID:0 pgtables:100kB oom_score_adj:-900"
    )
    return OomCapture(
        source=Source(kind="kmsg", form="kmsg"), records=(KmsgRecord(text=text, seq=5, usec=usec),)
    )


@pytest.mark.parametrize(
    ("pid", "usec", "ended", "said"),
    [
        (107, 30 * SECOND, False, True),
        (108, 30 * SECOND, False, False),  # another process
        (107, 3 * SECOND, False, False),  # the number was another's then
        (107, 90 * SECOND, False, False),  # the daemon of now was there already
        (107, 30 * SECOND, True, False),  # it had ended by itself
    ],
)
def test_the_next_start_tells_that_the_kernel_chose_the_daemon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, pid: int, usec: int, ended: bool, said: bool
) -> None:
    store = Store.open(tmp_path)
    first = OwnDeaths(store, BOOT, 20 * SECOND, 107)
    if ended:
        first.ended()
    second = OwnDeaths(store, BOOT, 40 * SECOND, 205)
    capture = killed(pid, usec)
    event = conclude(capture)[0]
    for _ in range(2):  # a later revision of the same report
        second.reported(capture, event)
    store.close()
    lines = [r.getMessage() for r in caplog.records if "the last daemon (pid 107)" in r.getMessage()]
    assert len(lines) == int(said)
