"""systemd-journal-remote as docs/fleet.md configures it: two hosts send their journals to a third, by TLS and
each in a network of its own; what was merged there is read back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomwatchd.daemon.warmup import RECORDS
from oomwatchd.sinks import journal as journal_sink
from oomwatchd.sinks._message_ids import MESSAGE_IDS
from tests.delivery.receivers import until
from tests.journals import TOOLS, entry, kernel_entry, write_journal
from tests.pages import block
from tests.samples import event
from tests.test_daemon import RUN

SYSTEMD = Path("/lib/systemd")
PORTS = (19531, 19532)
HOSTS = {"left": "a" * 32, "right": "b" * 32}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0
        or not TOOLS
        or not (SYSTEMD / "systemd-journal-upload").exists()
        or shutil.which("stunnel") is None,
        reason="needs root, systemd-journal-remote and stunnel4",
    ),
]


def run(*command: str | Path, timeout: float = 30) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, timeout=timeout)


@pytest.fixture
def networks() -> Iterator[dict[str, str]]:
    """A network namespace each for collector and hosts, and a cable from each host to the collector."""
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    names = {role: f"oom{os.getpid()}{role}" for role in ("hub", *HOSTS)}
    with contextlib.ExitStack() as cleanup:
        for name in names.values():
            if run("ip", "netns", "add", name).returncode:
                pytest.skip("cannot make network namespaces here")
            cleanup.callback(run, "ip", "netns", "del", name)
        for number, role in enumerate(HOSTS, 1):
            here, there = f"h{number}", f"c{number}"
            cable = ["type", "veth", "peer", "name", there, "netns", names["hub"]]
            commands = [
                ["link", "add", here, "netns", names[role], *cable],
                ["-n", names[role], "addr", "add", f"10.99.{number}.2/24", "dev", here],
                ["-n", names["hub"], "addr", "add", f"10.99.{number}.1/24", "dev", there],
                ["-n", names[role], "link", "set", here, "up"],
                ["-n", names["hub"], "link", "set", there, "up"],
            ]
            for command in commands:
                done = run("ip", *command)
                assert done.returncode == 0, (command, done.stderr)
        run("ip", "-n", names["hub"], "link", "set", "lo", "up")
        yield names


def host_journal(directory: Path, name: str, boot_id: str) -> None:
    """What a host's journald keeps: the kernel's report, and the entry that oomwatchd sent of it."""
    lines = [line.encode() for line in RECORDS.strip().splitlines()]
    entries = [kernel_entry(line, boot_id, hostname=name) for line in lines]
    sent = {
        field: str(value).encode()
        for field, value in journal_sink.fields(event(comm=name))
        if value is not None and field != "MESSAGE"
    }
    own = entry(b"killed", boot_id, 80_000_000, _TRANSPORT=b"journal", _HOSTNAME=name.encode())
    entries.append(own | sent)
    write_journal(directory, entries)


def authority(directory: Path) -> None:
    """fleet-ca.pem, and by it collector.pem and host.pem; stranger.pem signs itself."""
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]

    def certificate(name: str, *more: str) -> None:
        command = [*made, "-subj", f"/CN={name}", "-keyout", f"{directory}/{name}.key"]
        done = run(*command, "-out", f"{directory}/{name}.pem", *more)
        assert done.returncode == 0, done.stderr

    certificate("fleet-ca", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    by = ["-CA", f"{directory}/fleet-ca.pem", "-CAkey", f"{directory}/fleet-ca.key"]
    by += ["-addext", "basicConstraints=critical,CA:FALSE"]
    addresses = ",".join(f"IP:10.99.{number}.1" for number, _ in enumerate(HOSTS, 1))
    certificate("collector", *by, "-addext", f"subjectAltName={addresses}")
    certificate("stranger")
    certificate("host", *by)


def analyze(directory: Path) -> list[dict[str, object]]:
    command = [sys.executable, "-c", RUN, "analyze", "--journal", "--directory", str(directory)]
    done = run(*command, "--format", "jsonl", timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_two_hosts_journals_are_merged_and_read_back(networks: dict[str, str], tmp_path: Path) -> None:
    merged = tmp_path / "remote"
    merged.mkdir()
    tmp_path.chmod(0o755)
    authority(tmp_path)
    places = {"/etc/ssl/private/": f"{tmp_path}/", "/etc/ssl/": f"{tmp_path}/"}
    collector = {"/lib/systemd": "exec /lib/systemd", "/var/log/journal/remote/": f"{merged}/"}
    command = block("fleet", "sh", "--listen-http", collector)
    (tmp_path / "stunnel.conf").write_text("foreground = yes\n" + block("fleet", "ini", "accept", places))
    at_hub = ["ip", "netns", "exec", networks["hub"]]
    said = (tmp_path / "said").open("wb")
    hub = [
        subprocess.Popen([*at_hub, *words], stdout=said, stderr=said)
        for words in (["sh", "-c", command], ["stunnel", str(tmp_path / "stunnel.conf")])
    ]

    def listens() -> bool:
        assert [process.poll() for process in hub] == [None, None], (tmp_path / "said").read_text()
        shown = run(*at_hub, "ss", "-ltn").stdout
        return all(f":{port} ".encode() in shown for port in PORTS)

    try:
        until(listens)
        for number, (role, boot_id) in enumerate(HOSTS.items(), 1):
            host_journal(tmp_path / role, role, boot_id)
            address = {"collector.example": f"10.99.{number}.1"}
            (tmp_path / f"{role}.conf").write_text(block("fleet", "ini", "[Upload]", address | places))
            # in a mount namespace of its own, which `ip netns exec` makes
            configured = 'mount --bind "$0" /etc/systemd/journal-upload.conf && exec "$@"'
            upload: list[str | Path] = ["ip", "netns", "exec", networks[role], "sh", "-c", configured]
            upload += [tmp_path / f"{role}.conf", SYSTEMD / "systemd-journal-upload"]
            upload += [
                "--follow=no",
                f"--directory={tmp_path / role}",
                f"--save-state={tmp_path / role}.state",
            ]
            cable = ("ip", "-n", networks[role], "link", "set", f"h{number}")
            run(*cable, "down")
            assert run(*upload).returncode != 0  # an outage; the place is kept
            run(*cable, "up")
            done = run(*upload)
            assert done.returncode == 0, done.stderr
            again = run(*upload)  # goes on where it was
            assert again.returncode == 0, again.stderr
            stranger = address | {"private/host.key": "stranger.key", "host.pem": "stranger.pem"}
            stranger["/etc/ssl/"] = f"{tmp_path}/"
            (tmp_path / f"{role}.conf").write_text(block("fleet", "ini", "[Upload]", stranger))
            assert run(*upload).returncode != 0
    finally:
        for process in hub:
            process.terminate()
            process.wait(10)
        said.close()
    events = analyze(merged)
    alone = [found for role in HOSTS for found in analyze(tmp_path / role)]
    assert len(alone) == len(events) == 2
    assert {found["id"] for found in events} == {found["id"] for found in alone}
    assert {found["source"]["boot_id"] for found in events} == set(HOSTS.values())  # type: ignore[index]
    shown = run(
        "journalctl", "-D", merged, "-o", "json", "--no-pager", f"MESSAGE_ID={MESSAGE_IDS['oom_kill']}"
    )
    entries = [json.loads(line) for line in shown.stdout.splitlines()]
    # after a restart systemd-journal-upload sends the last entry once more: the id tells it is the same
    assert {found["_HOSTNAME"] for found in entries} == set(HOSTS)
    assert len(entries) <= 2 * len(HOSTS)
    kernel = run("journalctl", "-D", merged, "-o", "json", "--no-pager", "_TRANSPORT=kernel")
    assert len(kernel.stdout.splitlines()) == len(HOSTS) * len(RECORDS.strip().splitlines())
    assert all(found["OOM_EVENT_ID"] == event().id for found in entries)
