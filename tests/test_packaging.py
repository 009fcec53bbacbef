"""What is shipped besides the modules: units that systemd accepts, a wheel that has everything, and a
bootstrap that refuses what it cannot do in one clear line.
"""

from __future__ import annotations

import compileall
import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from oomwatchd.event import conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.sinks import journal
from oomwatchd.sinks._message_ids import MESSAGE_IDS

ROOT = Path(__file__).resolve().parent.parent
FILE = Source(kind="file", form="other")
UNITS = ROOT / "packaging" / "systemd"
#: systemd's own figure, 0 (tight) to 100 (open); raising it is a decision to give reasons for
EXPOSURE_LIMIT = 10
EXPOSURE_LIMIT_WITH_NETWORK = 18
EXPOSURE_LIMIT_FOLLOWING = 22
EXPOSURE_LIMIT_WITHOUT_CAPABILITY = 6
EXPOSURE_LIMIT_OF_THE_HELPER = 9


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as shipped, but with a program that exists here."""
    for unit in UNITS.iterdir():
        if unit.suffix in {".service", ".socket"}:
            text = unit.read_text().replace("ExecStart=/usr/bin/oomwatchd", f"ExecStart={sys.executable}")
            (tmp_path / unit.name).write_text(text)
    return tmp_path


def with_drop_in(units: Path, name: str) -> None:
    """An optional drop-in, as systemd merges it: its lines come later."""
    service = units / "oomwatchd.service"
    dropin = (UNITS / "oomwatchd.service.d" / name).read_text()
    service.write_text(service.read_text() + dropin)


#: OpenFile= is older than this
OPENS_FILES = 253


def systemd_version() -> int:
    return int(analyze("--version").stdout.split()[1])


def said_of(word: str, done: subprocess.CompletedProcess[str]) -> list[str]:
    """Its messages about our units; messages about other units are ignored."""
    lines = [line for line in done.stderr.splitlines() if word in line]
    if systemd_version() < OPENS_FILES:
        lines = [line for line in lines if "Unknown key 'OpenFile'" not in line]
    return lines


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


def test_systemd_accepts_the_units(units: Path) -> None:
    paths = sorted(str(path) for path in units.iterdir() if path.suffix in {".service", ".socket"})
    assert len(paths) >= 2
    done = analyze("verify", "--man=no", *paths)
    assert (said_of("oomwatchd", done), done.returncode) == ([], 0)


def test_systemd_accepts_the_units_of_the_examples(tmp_path: Path) -> None:
    examples = UNITS / "examples"
    for unit in examples.glob("oom-*.*"):
        text = unit.read_text().replace("/usr/local/sbin/oom-mail", str(examples / "oom-mail"))
        (tmp_path / unit.name).write_text(text)
    paths = sorted(str(path) for path in tmp_path.iterdir())
    assert len(paths) == 3
    done = analyze("verify", "--man=no", *paths)
    own = [line for line in done.stderr.splitlines() if "oom-" in line]
    assert (own, done.returncode) == ([], 0)
    (tmp_path / "oom-mail.service").write_text((examples / "oom-mail.service").read_text())
    assert "oom-mail is not executable" in analyze("verify", "--man=no", *paths).stderr, "it can fail"


def test_systemd_accepts_the_units_on_demand(tmp_path: Path) -> None:
    examples = UNITS / "examples"
    paths = []
    for unit in examples.glob("oomwatchd-ondemand.*"):
        text = unit.read_text().replace("ExecStart=/usr/bin/oomwatchd", f"ExecStart={sys.executable}")
        (tmp_path / unit.name).write_text(text)
        paths.append(str(tmp_path / unit.name))
    assert len(paths) == 2
    done = analyze("verify", "--man=no", *paths)
    assert (said_of("ondemand", done), done.returncode) == ([], 0)


def test_systemd_refuses_a_mistyped_unit(units: Path) -> None:
    """The check above can fail."""
    service = units / "oomwatchd.service"
    service.write_text(service.read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert "ProtectSytem" in analyze("verify", "--man=no", str(service)).stderr


def exposure_within(limit: int, units: Path) -> subprocess.CompletedProcess[str]:
    return analyze("security", "--offline=true", f"--threshold={limit}", str(units / "oomwatchd.service"))


def test_the_service_stays_tight(units: Path) -> None:
    done = exposure_within(EXPOSURE_LIMIT, units)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_helper_for_names_stays_tight(units: Path) -> None:
    helper = units / "oomwatchd-names.service"
    for limit, done in ((EXPOSURE_LIMIT_OF_THE_HELPER, 0), (EXPOSURE_LIMIT_OF_THE_HELPER - 1, 1)):
        found = analyze("security", "--offline=true", f"--threshold={limit}", str(helper))
        assert bool(found.returncode) == bool(done), found.stdout
    unit = helper.read_text()
    assert re.findall(r"^(?:CapabilityBoundingSet|AmbientCapabilities)=(.*)$", unit, re.M) == [""]
    # each of them makes / read-only, and systemd then leaves the empty / out without a word
    assert re.findall(r"^(?:DynamicUser|ProtectSystem|User|RootDirectory)=", unit, re.M) == []


def test_with_a_network_it_is_still_tight(units: Path) -> None:
    assert exposure_within(EXPOSURE_LIMIT, units).returncode == 0
    with_drop_in(units, "network.conf")
    assert analyze("verify", "--man=no", str(units / "oomwatchd.service")).returncode == 0
    assert exposure_within(EXPOSURE_LIMIT, units).returncode != 0
    done = exposure_within(EXPOSURE_LIMIT_WITH_NETWORK, units)
    assert done.returncode == 0, done.stdout + done.stderr


def test_to_follow_other_machines_costs_a_network_and_devices(units: Path) -> None:
    with_drop_in(units, "follow.conf")
    assert analyze("verify", "--man=no", str(units / "oomwatchd.service")).returncode == 0
    assert exposure_within(EXPOSURE_LIMIT_WITH_NETWORK, units).returncode != 0
    done = exposure_within(EXPOSURE_LIMIT_FOLLOWING, units)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_trace_points_cost_no_protection(units: Path) -> None:
    with_drop_in(units, "trace.conf")
    assert analyze("verify", "--man=no", str(units / "oomwatchd.service")).returncode == 0
    done = exposure_within(EXPOSURE_LIMIT, units)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_one_capability_can_be_taken_away(units: Path) -> None:
    assert exposure_within(EXPOSURE_LIMIT_WITHOUT_CAPABILITY, units).returncode != 0
    with_drop_in(units, "no-capability.conf")
    assert analyze("verify", "--man=no", str(units / "oomwatchd.service")).returncode == 0
    assert exposure_within(EXPOSURE_LIMIT_WITHOUT_CAPABILITY, units).returncode == 0


def test_the_one_capability_changes_no_user() -> None:
    """Its calls are in @privileged; the VM's journal by unit shows that it is enough for that."""
    service = (UNITS / "oomwatchd.service").read_text()
    granted = re.findall(r"^(?:CapabilityBoundingSet|AmbientCapabilities)=(.*)$", service, re.M)
    assert granted == ["CAP_SETUID", "CAP_SETUID"]
    assert "\nSystemCallFilter=~@privileged" in service and "\nRestrictNamespaces=yes\n" in service
    closed = analyze("syscall-filter", "@privileged").stdout.split()
    assert {"setuid", "setreuid", "setresuid", "setfsuid", "setgroups", "capset"} <= set(closed)


def test_every_line_of_the_service_is_known_by_name_once() -> None:
    """A key that stands twice by mistake: only the lists of systemd.exec(5) may."""
    keys = re.findall(r"^(\w+)=", (UNITS / "oomwatchd.service").read_text(), re.M)
    assert {key for key in keys if keys.count(key) > 1} <= {"SystemCallFilter", "OpenFile"}


@pytest.mark.oom
def test_device_events_come_without_the_network() -> None:
    """What PrivateNetwork=yes in the unit rests on."""
    program = (
        "import pathlib, pyudev; from oomwatchd.observe.hotplug import Devices; devices = Devices()\n"
        "assert devices.obstacle is None, devices.obstacle\n"
        "devices._monitor.filter_by('mem')\n"
        "pathlib.Path('/sys/devices/virtual/mem/null/uevent').write_text('change')\n"
        "print(devices._monitor.poll(timeout=10).sys_name)"
    )
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "null\n"


def test_the_kernel_log_stays_open_while_the_service_restarts() -> None:
    """systemd closes the descriptor, and with it the place, if the socket unit is part of the service."""
    socket = configparser.ConfigParser(strict=False)
    socket.optionxform = str  # type: ignore[assignment,method-assign]  # configparser's documented way
    socket.read(UNITS / "oomwatchd-kmsg.socket")
    assert socket["Socket"]["ListenSpecial"] == "/dev/kmsg"
    assert socket["Socket"]["FileDescriptorName"] == "kmsg"
    assert not {"PartOf", "StopPropagatedFrom", "BindsTo"} & set(socket["Unit"])


def test_the_catalog_explains_every_message(tmp_path: Path) -> None:
    catalog = UNITS / "oomwatchd.catalog"
    explained = re.findall(r"^-- ([0-9a-f]{32})$", catalog.read_text(), re.M)
    assert sorted(explained) == sorted(MESSAGE_IDS.values())
    fields = {name for name, _ in journal.fields(conclude(OomCapture(source=FILE, records=())).event)}
    assert set(re.findall(r"@(\w+)@", catalog.read_text())) <= fields

    # and systemd can read it
    target = tmp_path / "usr/lib/systemd/catalog"
    target.mkdir(parents=True)
    shutil.copy(catalog, target)
    command = ["journalctl", "--update-catalog", f"--root={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
    listed = subprocess.run(
        ["journalctl", "--list-catalog", f"--root={tmp_path}"], check=True, capture_output=True, text=True
    )
    assert {line.split()[0] for line in listed.stdout.splitlines()} == set(MESSAGE_IDS.values())


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "oomwatchd", source / "oomwatchd", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    shipped = set(zipfile.ZipFile(wheel).namelist())
    wanted = {str(path.relative_to(source)) for path in (source / "oomwatchd").rglob("*") if path.is_file()}
    assert wanted - shipped == set()


def test_compiled_modules_alone_do(tmp_path: Path, corpus: Path) -> None:
    """As Buildroot installs Python packages by default."""
    shutil.copytree(ROOT / "oomwatchd", tmp_path / "oomwatchd", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(tmp_path, quiet=2, legacy=True)
    for source in tmp_path.rglob("*.py"):
        source.unlink()
    log = corpus / "seed" / "mips-3.10-highmem.log"
    command = [sys.executable, "-m", "oomwatchd", "analyze", "--format", "json", str(log)]
    outputs = [subprocess.check_output(command, cwd=directory) for directory in (tmp_path, ROOT)]
    assert outputs[0] == outputs[1]
    assert b"zone_below_watermark" in outputs[0]


def bootstrap(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, "/bin/sh", str(ROOT / "bootstrap.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_bootstrap_without_a_task_says_what_there_is() -> None:
    done = bootstrap()
    assert done.returncode == 64
    assert "sh bootstrap.sh run" in done.stderr
    assert "sh bootstrap.sh test" in done.stderr


def test_bootstrap_needs_root() -> None:
    unprivileged = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    # the checkout itself may be closed to others; the script comes by standard input
    script = (ROOT / "bootstrap.sh").read_text()
    done = subprocess.run(
        [*unprivileged, "/bin/sh", "-s", "run"], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 77
    assert done.stderr.count("\n") == 1
    assert "root" in done.stderr
