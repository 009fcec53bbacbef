"""What stands in the kernel's files is read in one place each: procfs and cgroupfs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import oomwatchd
from oomwatchd import cgroupfs, procfs
from oomwatchd.cgroupfs import FILES, Hierarchy
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.host import Host
from oomwatchd.procfs import mounts
from oomwatchd.procfs.process import Stat, stat
from oomwatchd.records.capture import Snapshot

PACKAGE = Path(oomwatchd.__file__).parent


def snapshot(**parts: str) -> Snapshot:
    return Snapshot(usec=0, wall=0.0, parts=parts)


# -- /proc ---------------------------------------------------------------------------------------------

ZONEINFO = """\
Node 0, zone      DMA
  per-node stats
      nr_inactive_anon 12
  pages free     3840
        boost    0
        min      66
        low      82
        high     98
        spanned  4095
        present  3998
        managed  3840
        cma      0
        protection: (0, 2994, 24005, 24005, 24005)
      nr_free_pages 3840
  pagesets
    cpu: 0
              count:    0
              high:     14
Node 1, zone   Normal
  pages free     7
        min      9
        managed  100
        protection: (0, 0)
"""


def test_a_zone_is_read_without_its_page_sets() -> None:
    dma, normal = procfs.zoneinfo(snapshot(zoneinfo=ZONEINFO))
    assert (dma.node, dma.zone) == (0, "DMA")
    assert dma.pages == {"free": 3840, "min": 66, "low": 82, "high": 98, "managed": 3840}
    assert dma.protection == (0, 2994, 24005, 24005, 24005)
    assert (normal.node, normal.pages["free"], normal.protection) == (1, 7, (0, 0))


def test_meminfo_has_bytes_and_counts() -> None:
    text = "MemTotal:  2 kB\nActive(anon):   1 kB\nHugePages_Total:   3\nnonsense\n"
    assert procfs.meminfo(snapshot(meminfo=text)) == {
        "MemTotal": 2048,
        "Active(anon)": 1024,
        "HugePages_Total": 3,
    }
    assert procfs.amount_of(text.encode(), b"MemTotal") == 2048
    assert procfs.amount_of(b"XMemTotal: 2 kB\nMemTotal: 3 kB\n", b"MemTotal") == 3072
    assert procfs.amount_of(text.encode(), b"MemFree") is None


def test_blocks_and_pressure() -> None:
    blocks = "Node 0, zone      DMA      1      0      2\nNode 1, zone   Normal    5    6    7\n"
    assert procfs.buddyinfo(snapshot(buddyinfo=blocks)) == {(0, "DMA"): (1, 0, 2), (1, "Normal"): (5, 6, 7)}
    pressure = "some avg10=1.50 avg60=0.00 avg300=20.00 total=5\nfull avg10=0.25 avg60=0 avg300=0 total=1\n"
    found = procfs.memory_pressure(snapshot(pressure_memory=pressure))
    assert (found["some", 10], found["some", 300], found["full", 10]) == (0.015, 0.2, 0.0025)


def test_what_was_not_read_is_empty() -> None:
    assert procfs.meminfo(snapshot()) == {}
    assert procfs.buddyinfo(snapshot()) == {}
    assert procfs.memory_pressure(snapshot()) == {}
    assert procfs.zoneinfo(snapshot()) == ()
    assert procfs.oom_kills("") is None


def test_mounts_are_told_by_their_names_as_they_are() -> None:
    table = (
        b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n"
        b"37 35 0:27 / /a\\134b rw - tmpfs tmpfs rw\n"
        b"38 35 0:28 / /c rw - \n"
        b"nonsense\n"
    )
    assert list(mounts.mounts(table)) == [
        mounts.Mount(b"98:0", b"/mnt1", b"/mnt 2", b"ext3", b"rw,errors=continue", b"36"),
        mounts.Mount(b"0:27", b"/", b"/a\\b", b"tmpfs", b"rw", b"37"),
    ]
    swaps = b"Filename Type Size Used Priority\n/a\\040b file 4 0 -2\n/dev/x partition ? 0 -2\n"
    assert list(mounts.swap_areas(swaps)) == [(b"/a b", 4096)]


def test_a_process_is_read_behind_its_name() -> None:
    fields = " ".join(["S", "7", *["0"] * 4, "4", *["0"] * 12, "99", "0"])
    assert stat(f"1 (a) R 2 3 (b)) {fields}".encode()) == Stat("S", 7, 99, exiting=True)
    assert stat(b"1 (cut off) S 7") == Stat()


# -- cgroups -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "bytes_"),
    [
        (b"4096\n", 4096),
        (b"0\n", 0),
        (b"max\n", None),
        (b"9223372036854771712\n", None),  # v1's "no limit"
        (b"-1\n", None),
        (b"", None),
        (None, None),
    ],
)
def test_an_amount_or_no_limit(data: bytes | None, bytes_: int | None) -> None:
    assert cgroupfs.amount(data) == bytes_


def test_an_entry_is_found_by_its_whole_name() -> None:
    events = b"low 0\noom_group_kill 9\noom_kill 3\n"
    assert cgroupfs.entry(events, b"oom_kill") == 3
    assert cgroupfs.entry(events, b"low") == 0
    assert cgroupfs.entry(events, b"kill") is None
    assert cgroupfs.entry(None, b"low") is None


def test_a_path_of_the_log_does_not_lead_out_of_the_mount() -> None:
    seen = Hierarchy("/sys/fs/cgroup", "/docker/x", 2)
    assert seen.directory("/docker/x/a b") == "/sys/fs/cgroup/a b"
    assert seen.directory("/docker/x") == "/sys/fs/cgroup"
    for path in ("/docker/xy", "/docker", "/docker/x/../y", "/docker/x/a\0b", ""):
        assert seen.directory(path) is None
    assert Hierarchy("/m", "", 1).directory("/") == "/m"


def test_the_memory_controller_is_found_in_either_hierarchy(tmp_path: Path) -> None:
    unified, mountinfo = tmp_path / "unified", tmp_path / "self/mountinfo"
    unified.mkdir()
    mountinfo.parent.mkdir()
    (unified / "cgroup.controllers").write_text("cpu memory pids\n")
    mountinfo.write_text(f"30 25 0:26 / {unified} rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n")
    host = Host(proc=tmp_path)
    assert memory_hierarchy(host) == Hierarchy(str(unified), "", 2)

    (unified / "cgroup.controllers").write_text("\n")  # hybrid: it is in a v1 hierarchy
    with mountinfo.open("a") as file:
        file.write("31 25 0:27 / /sys/fs/cgroup/cpu rw shared:10 - cgroup cgroup rw,cpu,cpuacct\n")
        file.write("32 25 0:28 / /sys/fs/cgroup/memory rw shared:11 - cgroup cgroup rw,memory\n")
    assert memory_hierarchy(host) == Hierarchy("/sys/fs/cgroup/memory", "", 1)

    mountinfo.write_text("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n")
    assert memory_hierarchy(host) is None


# -- one place -----------------------------------------------------------------------------------------

#: who talks of a limit names the file to the reader
ADVISES = ("diagnosis", "render", "formats", "reports", "sinks")
NAMES = {name for files in FILES.values() for name in (files.usage, files.limit, files.stat, *files.kills)}


def code_strings(tree: ast.Module) -> set[str]:
    """String constants that are no docstrings."""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef)
    documented = {
        ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, described)
    }
    found = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {text for text in found if isinstance(text, str)} - documented


def test_files_of_cgroups_are_named_in_one_place() -> None:
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "cgroupfs.py" and path.relative_to(PACKAGE).parts[0] not in ADVISES
        for text in code_strings(ast.parse(path.read_text()))
        for name in NAMES
        if text.strip("/") == name or text.endswith(f"/{name}")
    ]
    assert elsewhere == []
    assert "memory.limit_in_bytes" in code_strings(ast.parse((PACKAGE / "cgroupfs.py").read_text()))
