"""``oomwatchd doctor``: on hosts of files, and on the real one."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oomwatchd.cli import doctor
from oomwatchd.cli.doctor import Check, as_text, examine

TABLE_TASKS = 100


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host on which all is well."""
    write(tmp_path, "proc/sys/kernel/osrelease", "6.12.94+deb13-amd64\n")
    for name, value in (
        ("oom_dump_tasks", "1"),
        ("panic_on_oom", "0"),
        ("oom_kill_allocating_task", "0"),
        ("overcommit_memory", "0"),
    ):
        write(tmp_path, f"proc/sys/vm/{name}", f"{value}\n")
    write(tmp_path, "proc/vmstat", "pgfault 1\noom_kill 3\n")
    write(tmp_path, "proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
    write(tmp_path, "proc/slabinfo", "slabinfo - version: 2.1\n")
    write(tmp_path, "var/lib/docker/containers/x", "")
    write(tmp_path, "run/oomwatchd-names.socket", "")
    write(tmp_path, "proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n")
    write(tmp_path, "proc/self/mountinfo", f"30 1 0:26 / {tmp_path}/cg rw - cgroup2 cgroup2 rw\n")
    write(tmp_path, "cg/cgroup.controllers", "cpu memory pids\n")
    for pid in range(TABLE_TASKS):
        write(tmp_path, f"proc/{pid + 300}/statm", "1217 328 300 1 0 90 0\n")
    write(tmp_path, "proc/2/statm", "0 0 0 0 0 0 0\n")  # a kernel thread
    write(tmp_path, "sys/devices/system/node/node0/meminfo", "")
    write(tmp_path, "sys/module/pstore/parameters/backend", "ramoops\n")
    write(tmp_path, "sys/kernel/tracing/events/oom/mark_victim/format", "")
    for name in ("run/systemd/journal/socket", "var/log/journal/x", "run/udev/control", "dev/kmsg"):
        write(tmp_path, name, "")
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def examined(root: Path, ring: int | None = 1 << 20) -> dict[str, Check]:
    checks = examine(root, root / "dev/kmsg", lambda: ring)
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    return found


def test_a_host_on_which_all_is_well_needs_no_mend(root: Path) -> None:
    checks = examined(root)
    assert {check.state for check in checks.values()} == {"ok"}
    assert [check for check in checks.values() if check.hint] == []
    assert checks["cgroups"].found == f"memory controller of cgroup v2 at {root}/cg"
    assert checks["swap"].found == "/dev/sda2"


@pytest.mark.parametrize(
    ("name", "text", "check", "found", "hint"),
    [
        ("proc/sys/kernel/osrelease", "4.14.0-3", "kernel", "no summary line", "4.19"),
        ("proc/vmstat", "pgfault 1\n", "kernel's count of kills", "no oom_kill", "4.13"),
        ("proc/sys/vm/oom_dump_tasks", "0\n", "task table", "oom_dump_tasks is 0", "oom_dump_tasks=1"),
        ("proc/sys/vm/oom_kill_allocating_task", "1\n", "choice of the victim", "task that asks", "=0"),
        ("proc/sys/vm/overcommit_memory", "2\n", "overcommit", "allocations fail", "CommitLimit"),
        ("proc/self/mountinfo", "", "cgroups", "no mounted cgroup hierarchy", "cgroup_enable=memory"),
        ("run/oomwatchd-names.socket", None, "container names", "only ids", "oomwatchd-names.socket"),
        ("proc/slabinfo", None, "holders", "no /proc/slabinfo", "CONFIG_SLUB_DEBUG"),
        ("proc/pressure/memory", None, "pressure", "no pressure stall", "psi=1"),
        ("sys/module/pstore/parameters/backend", "(null)\n", "pstore", "no backend", "ramoops"),
        ("run/systemd/journal/socket", None, "journal", "no systemd journal", "enabled = false"),
        ("var/log/journal/x", None, "journal", "lost at each boot", "Storage=persistent"),
        ("run/udev/control", None, "udev", "no udev", "without memory hotplug"),
        ("sys/kernel/tracing/events/oom/mark_victim/format", None, "tracefs", "no second source", "tracefs"),
    ],
)
def test_what_is_missing_is_a_warning_with_its_mend(
    root: Path, name: str, text: str | None, check: str, found: str, hint: str
) -> None:
    path = root / name
    if text is None:
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    else:
        path.write_text(text)
    checks = examined(root)
    assert [each.name for each in checks.values() if each.state != "ok"] == [check]
    assert checks[check].state == "warn"
    assert found in checks[check].found
    assert hint in (checks[check].hint or "")


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_that_was_refused_huge_pages_is_told(root: Path, version: int) -> None:
    """The process gets SIGBUS, and the kernel writes nothing (the figures are of Linux 6.1 and 6.18)."""
    count, limit = (".failcnt", ".limit_in_bytes") if version == 1 else (".events.local", ".max")
    if version == 1:
        table = (root / "proc/self/mountinfo").read_text()
        write(root, "proc/self/mountinfo", f"{table}31 1 0:27 / {root}/huge rw - cgroup cgroup rw,hugetlb\n")
    place = "huge" if version == 1 else "cg"
    for group, refused in (("a/b", 3), ("a", 0), ("c\x1b", 20)):
        write(
            root,
            f"{place}/{group}/hugetlb.2MB{count}",
            f"{refused}\n" if version == 1 else f"max {refused}\n",
        )
        write(root, f"{place}/{group}/hugetlb.2MB{limit}", "20971520\n" if group != "a/b" else "max\n")
    check = examined(root)["huge page limits"]
    assert check.state == "warn"
    # harmless for a terminal, those with most first
    assert (
        "cgroup /c\\x1b 20 times (hugetlb.2MB.max 20 MiB), /a/b 3 times (hugetlb.2MB.max max" in check.found
    )
    assert "/a 0" not in check.found


def test_a_panic_is_a_warning_unless_the_report_survives_it(root: Path) -> None:
    write(root, "proc/sys/vm/panic_on_oom", "2\n")
    assert examined(root)["panic"].state == "ok"
    write(root, "sys/module/pstore/parameters/backend", "(null)\n")
    panic = examined(root)["panic"]
    assert (panic.state, "panic_on_oom=0" in (panic.hint or "")) == ("warn", True)


def test_the_ring_must_hold_a_report_with_all_processes(root: Path) -> None:
    assert examined(root, 64 << 10)["kernel log size"].state == "ok"
    close = examined(root, 32 << 10)["kernel log size"]
    assert (close.state, close.hint) == ("warn", "boot with log_buf_len=128K")
    assert "leaves room for little else" in close.found
    assert "lost in part" in examined(root, 16 << 10)["kernel log size"].found
    assert f"with {TABLE_TASKS} processes" in close.found
    write(root, "proc/sys/vm/oom_dump_tasks", "0\n")
    assert examined(root, 32 << 10)["kernel log size"].state == "ok"
    assert examined(root, None)["kernel log size"].hint == "run as root"


def test_without_the_log_there_is_no_watch(root: Path) -> None:
    (root / "dev/kmsg").unlink()
    check = examined(root)["kernel log"]
    assert (check.state, check.hint is not None) == ("fail", True)
    assert check.found == f"{root}/dev/kmsg: No such file or directory"
    write(root, "proc/sys/kernel/osrelease", "3.2.0\n")
    assert examined(root)["kernel"].state == "fail"


def test_nothing_at_all_is_said_and_not_raised(tmp_path: Path) -> None:
    checks = examined(tmp_path, None)
    assert all(check.hint for check in checks.values() if check.state != "ok")
    assert checks["kernel log"].state == "fail"


def test_text_is_harmless_and_has_the_mend_below() -> None:
    checks = [Check("a", "ok", "fine"), Check("bb", "warn", "x\x1b[31m\ny", "do that")]
    assert as_text(checks) == "ok    a   fine\nwarn  bb  x\\x1b[31m\\x0ay\n          fix: do that"


def test_the_estimate_covers_what_kernels_print(corpus: Path) -> None:
    from oomwatchd.formats.recognise import recognise
    from tests.recorded import captures

    paths = sorted((corpus / "kernel").glob("*.kmsg.gz"))
    assert paths
    for path in paths:
        for capture in captures(path):
            rows = fixed = others = 0
            for record in capture.records:
                taken = (len(record.text.encode()) + 15) // 8 * 8  # its number before it, both aligned
                found = recognise(record.text, raw=True)
                if found is not None and found[0].name == "tasks_row":
                    rows = max(rows, taken)
                else:
                    fixed, others = fixed + taken, others + 1
            assert rows <= doctor.ROW_BYTES
            assert fixed <= doctor.FIXED_BYTES
            assert others <= doctor.FIXED_RECORDS


def test_on_this_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "oomwatchd", "doctor"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    assert shown.returncode in (0, 69), shown.stderr
    machine = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    checks = json.loads(machine.stdout)
    assert [check["name"] for check in checks][:2] == ["kernel", "kernel log"]
    assert (machine.returncode == 69) == any(check["state"] == "fail" for check in checks)
    assert len([line for line in shown.stdout.splitlines() if line[:4].strip()]) == len(checks)

    absent = tmp_path / "config.toml"
    absent.write_text('[kmsg]\ndevice = "/nonexistent"\n')
    shown = subprocess.run([*command, "--config", str(absent)], capture_output=True, text=True, check=False)
    assert shown.returncode == 69
    assert "fail  kernel log" in shown.stdout


def test_the_running_daemon_and_what_it_costs() -> None:
    words = ["oomwatchd", "-c", "import time; time.sleep(60)", "run"]
    with subprocess.Popen(words, executable=sys.executable) as process:
        try:
            check = doctor.daemon(time.time())
        finally:
            process.kill()
    assert check.state == "ok"
    assert "resident" in check.found and "descriptors" in check.found
