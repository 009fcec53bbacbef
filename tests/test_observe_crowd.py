"""Which cgroups the processes of a task table are in: real processes in a real cgroup, and hostile files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from oomwatchd.cli import throwaway
from oomwatchd.observe.host import Host, read_host
from oomwatchd.observe.members import LEAST, MOST_ASKED, crowds


@pytest.mark.oom
def test_real_processes_are_found_by_their_cgroup() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    children: list[subprocess.Popen[bytes]] = []
    with throwaway._directory("oomwatchd-crowd") as directory:
        try:
            for _ in range(LEAST + 5):
                children.append(subprocess.Popen(["sleep", "60"]))
                (directory / "cgroup.procs").write_text(str(children[-1].pid))
            pids = [child.pid for child in children]
            (found,) = crowds(read_host(), [1, os.getpid(), *pids, 999_999_999])
            assert found.cgroup.endswith("/oomwatchd-crowd")
            assert found.pids == tuple(pids)
            assert crowds(read_host(), pids[: LEAST - 1]) == ()
        finally:
            for child in children:
                child.kill()
                child.wait()


def test_the_table_may_be_long_and_the_files_strange(tmp_path: Path) -> None:
    for pid in range(100):
        (tmp_path / str(pid)).mkdir()
        text = b"0::/a\x1b[31m\xff\n" if pid < 60 else b"nonsense\n" if pid < 80 else b""
        (tmp_path / str(pid) / "cgroup").write_bytes(text)
    (found,) = crowds(Host(proc=tmp_path), range(MOST_ASKED * 3))
    assert (found.cgroup, len(found.pids)) == ("/a\x1b[31m\\xff", 60)
    assert crowds(Host(proc=tmp_path), range(MOST_ASKED, MOST_ASKED * 2)) == ()
