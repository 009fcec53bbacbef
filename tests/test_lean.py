"""Which modules the daemon's process has, and that leaving out the others changes nothing that it serves."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.bench_footprint import PORT, profiles, reports
from benchmarks.footprint import Running, install
from tests import journals

#: no .pth file of the environment, which a host has not and which imports much
AS_INSTALLED = ["-S"]
SEEN = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
#: the daemon's own beginning, without its run
PRELUDE = """
import sys
from oomwatchd.daemon import imports
imports.install()
imports.install()  # once is enough
"""
SERVE = """
import json, time
time.perf_counter = lambda: 0.0  # how long a part took is in the metrics
import prometheus_client.exposition as exposition
from oomwatchd.daemon.warmup import RECORDS
from oomwatchd.delivery.policy import Delivery
from oomwatchd.event import conclude
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import _example, registry
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import parse_record

assembler = Assembler()
records = [record for line in RECORDS.splitlines() if (record := parse_record(line.encode()))]
signals = [signal for record in records for signal in assembler.feed(record)]
block = next(s for s in [*signals, *assembler.flush()] if isinstance(s, OomBlock))
capture = OomCapture(source=Source(kind="kmsg", form="kmsg"), records=block.records, settled=True)
event = conclude(capture).event
metrics = Metrics(sinks=("journal",))
metrics.delivery(Delivery(sink="webhook", position=0))
metrics.kernel_kills(7)
metrics.store(up=True, events=1, size=4096, failures=0)
metrics.part("recorder", up=True, seconds=0.25)
metrics.observe(_example)
metrics.count(event, 1, 1, 0)
served = {}
openmetrics = "application/openmetrics-text;version=1.0.0"
for accept in ("", "*/*", "text/plain", "text/plain;version=1.0.0", openmetrics):
    encode, content_type = exposition.choose_encoder(accept)
    served[accept] = content_type, encode(registry(metrics)).decode()
print(json.dumps(served))
"""


def python(script: str, *arguments: str) -> str:
    command = [sys.executable, *AS_INSTALLED, "-c", script, *arguments]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | SEEN)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metrics_are_the_same_to_the_byte_as_with_the_whole_library() -> None:
    whole = python("from email import message\nimport prometheus_client\n" + SERVE)
    spared = python(PRELUDE + SERVE + "assert not hasattr(sys.modules['prometheus_client'], 'Counter')\n")
    assert json.loads(spared) == json.loads(whole)
    assert len({text for _, text in json.loads(whole).values()}) >= 2


def test_hashes_are_the_same_without_openssl() -> None:
    script = """
import hashlib, hmac
data = b"oomwatchd" * 1000
print(hashlib.blake2b(data, digest_size=10).hexdigest(), hashlib.sha256(data).hexdigest(),
      hmac.new(b"key", data, hashlib.sha256).hexdigest(), hmac.digest(b"key", data, hashlib.sha256).hex())
"""
    spared = python(PRELUDE + script + "assert sys.modules.get('_hashlib') is None\n")
    assert spared == python(script)


def test_events_and_their_schema_are_the_same_without_types_that_none_has() -> None:
    script = """
import msgspec
from oomwatchd.event import OomEvent, conclude
from oomwatchd.render.schema import event_schema
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.config import Config
from oomwatchd.daemon.warmup import RECORDS
from oomwatchd.records.kmsg import parse_record

records = tuple(record for line in RECORDS.splitlines() if (record := parse_record(line.encode())))
capture = OomCapture(source=Source(kind="kmsg", form="kmsg"), records=records, settled=True)
packed = msgspec.msgpack.encode(capture)
assert msgspec.msgpack.decode(packed, type=OomCapture) == capture
print(packed.hex(), msgspec.json.encode(conclude(capture).event).decode())
print(msgspec.toml.decode('log_level = "debug"', type=Config))
"""
    absent = "assert not {'uuid', 'decimal', 'msgspec.inspect', 'msgspec._json_schema'} & set(sys.modules)\n"
    schema = """
print(event_schema(), msgspec.json.schema_components([int]))
import msgspec.inspect
print(msgspec.inspect.type_info(int), msgspec.inspect.is_struct_type(int))
"""
    assert python(PRELUDE + script + absent + schema) == python(script + schema)


def test_paths_and_tracebacks_are_the_same_when_they_are_asked_for() -> None:
    script = """
import logging, sys
from pathlib import Path
logging.basicConfig(level="DEBUG", stream=sys.stdout, format="%(message)s")
def fails(): raise ValueError("an example")
try: fails()
except ValueError: logging.exception("failed")
logging.debug("where", stack_info=True)
print(Path("/tmp/ä b").as_uri(), Path("/a/../b").parts)
"""
    absent = """
import logging, pathlib
assert not {'traceback', 'tokenize', 'urllib.parse', 'ipaddress'} & set(sys.modules)
"""
    spared, whole = (re.sub(r"line \d+", "line", python(one)) for one in (PRELUDE + absent + script, script))
    assert spared == whole
    assert "ValueError: an example" in spared and "file:///tmp/%C3%A4%20b" in spared


@pytest.mark.skipif(not journals.TOOLS, reason="needs systemd-journal-remote")
def test_a_journal_is_read_without_uuid_even_beside_threads(tmp_path: Path) -> None:
    """The daemon looks for the journal in a thread of its own."""
    pytest.importorskip("systemd.journal")
    boot = "0123456789abcdef0123456789abcdef"
    message_id = b"39f53479d3a045ac8e11786248231fbf"
    entry = journals.entry(
        b"Started a.", boot, 1_000_000, _PID=b"1", MESSAGE_ID=message_id, UNIT=b"a.service"
    )
    journals.write_journal(tmp_path / "journal", [entry])
    script = f"""
import threading, time
from pathlib import Path
from oomwatchd.sources.manager import ManagerJournal
threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
print(ManagerJournal.open({boot!r}, Path({str(tmp_path / "journal")!r})).read())
"""
    absent = "assert not {'uuid', 'platform', 'traceback', 'systemd.id128'} & set(sys.modules)\n"
    used = """
from systemd import id128, journal
print(id128.get_boot(), journal._uuid.UUID(int=1), journal._id128.get_boot() == id128.get_boot())
"""
    assert python(PRELUDE + script + absent + used) == python(script + used)
    assert "a.service" in python(script)


def test_what_was_stood_in_for_can_be_imported_afterwards() -> None:
    """TLS and the sinks across the network ask for the real modules later."""
    python(
        PRELUDE
        + """
import prometheus_client.exposition as exposition
assert not {"ssl", "http.server", "gzip", "base64", "urllib.parse"} & set(sys.modules)
assert exposition.gzip.decompress(exposition.gzip.compress(b"page")) == b"page"
assert exposition.base64.b64encode(b"a") == b"YQ==" and exposition.quote_plus("a b") == "a+b"
assert exposition.parse_qs("a=b") == {"a": ["b"]}
import http.server, socketserver, ssl, subprocess, urllib.request, urllib3
ssl.create_default_context()
assert issubclass(http.server.HTTPServer, socketserver.TCPServer)
assert subprocess.run([sys.executable, "-c", ""]).returncode == 0
"""
    )


def test_pyudev_finds_its_library_without_a_search() -> None:
    pytest.importorskip("pyudev")
    script = """
import sys
before = set(sys.modules)
import pyudev
print(pyudev.Context().sys_path, pyudev.udev_version.__name__)
"""
    loaded = "print(sorted({'ctypes.util', 'subprocess', 'shutil'} & (set(sys.modules) - before)))\n"
    assert python(PRELUDE + script + loaded) == python(script) + "[]\n"


def test_a_library_that_wants_more_than_a_stand_in_is_imported_as_it_is(tmp_path: Path) -> None:
    """Another version of a library may do what no empty class can stand for."""
    package = tmp_path / "prometheus_client"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('not needed')\n")
    (package / "exposition.py").write_text(
        "import ssl\nfrom http.server import HTTPServer\nFLAGS = ssl.OP_ALL - 1\n"
    )
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from oomwatchd.daemon import imports
imports.install()
import prometheus_client.exposition as exposition
import ssl, http.server
assert exposition.ssl is ssl and exposition.HTTPServer is http.server.HTTPServer
print(exposition.FLAGS == ssl.OP_ALL - 1)
"""
    assert python(script) == "True\n"


class Loaded(NamedTuple):
    """What a daemon's process has."""

    modules: set[str]
    #: imported after it was ready
    late: set[str]
    #: of what parsed its command line
    left: set[str]


def loaded(toml: str, directory: Path) -> Loaded:
    """Of a daemon with this configuration that saw a report and then read its configuration again."""
    config = directory / "config.toml"
    config.write_text(f'state_directory = "{directory}"\n[sinks.journal]\nenabled = false\n{toml}')
    script = """
import argparse, atexit, gc, gettext, json, os, sys, weakref
parsing = argparse, argparse.ArgumentParser, argparse.Namespace, argparse.HelpFormatter, gettext
parsing = [weakref.ref(one) for one in parsing]
del argparse, gettext
os.dup2(int(sys.argv[2]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "kmsg"}

class Late:
    imported = None
    def find_spec(self, name, path, target=None):
        if self.imported is not None:
            self.imported.append(name)

def freeze(real=gc.freeze):
    real()
    late.imported = []

late, gc.freeze = Late(), freeze
sys.meta_path.insert(0, late)

def tell():
    left = [str(one()) for one in parsing if one() is not None]
    print(json.dumps([list(sys.modules), late.imported, left]))

atexit.register(tell)
from oomwatchd.cli import main
main(["run", "--config", sys.argv[1]])
"""
    reading, writing = os.pipe2(os.O_DIRECT | os.O_CLOEXEC)
    environ = {**SEEN, "PATH": "/usr/bin:/bin"}
    # a file, for Python 3.13 keeps the text of -c, by linecache
    (directory / "daemon.py").write_text(script)
    command = [sys.executable, *AS_INSTALLED, str(directory / "daemon.py"), str(config), str(reading)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environ,
        pass_fds=(reading,),
    ) as daemon:
        os.close(reading)
        assert daemon.stdout is not None and daemon.stderr is not None
        log, said = daemon.stderr, ""

        def until(words: str) -> None:
            nonlocal said
            while words not in said:
                line = log.readline()
                assert line, said
                said += line

        until("watching since")
        for record in reports(1, 1):
            os.write(writing, f"{record}\n".encode())
        until("(pid ")
        daemon.send_signal(signal.SIGHUP)
        until("configuration reloaded")
        daemon.terminate()
        told = json.loads(daemon.stdout.read())
    os.close(writing)
    assert daemon.returncode == 0, said
    return Loaded(*map(set, told))


#: to read the configuration again; a report needs nothing that is not there
AGAIN = {"tomllib", "tomllib._parser", "tomllib._re", "tomllib._types"}
#: what no daemon loads before somebody asks for it
NEVER = {
    *(
        "ssl",
        "_ssl",
        "http.server",
        "http.client",
        "urllib.request",
        "urllib3",
        "email",
        "email.utils",
        "html",
    ),
    *(
        "inspect",
        "ast",
        "dis",
        "pkgutil",
        "difflib",
        "subprocess",
        "shutil",
        "tempfile",
        "importlib.resources",
    ),
    *(
        "asyncio",
        "concurrent.futures",
        "multiprocessing",
        "unittest",
        "xml",
        "dataclasses",
        "typing_extensions",
        "decimal",
        "uuid",
    ),
    *("prometheus_client.metrics", "prometheus_client.values", "psutil", "rich", "jinja2", "yaml", "bcrypt"),
    *("argparse", "gettext", "locale", "oomwatchd.cli._arguments", "tomllib", "tomllib._parser"),
    *("ipaddress", "urllib.parse", "base64", "gzip", "random", "secrets", "platform"),
    *("traceback", "linecache", "tokenize", "textwrap", "msgspec.inspect", "msgspec._json_schema"),
    *("oomwatchd.render.schema", "oomwatchd.render.html.page", "oomwatchd.render.terminal"),
    *(
        "oomwatchd.sinks.webhook",
        "oomwatchd.sinks.otlp",
        "oomwatchd.sinks.kubernetes",
        "oomwatchd.sinks.alertmanager",
        "oomwatchd.sources.text",
    ),
}


def test_the_default_profile_loads_no_more_than_it_uses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    modules, late, left = loaded(f'[http]\nlisten = "127.0.0.1:{port}"\n', tmp_path)
    assert modules >= {"prometheus_client.exposition", "oomwatchd.web.server", "sqlite3", "oomwatchd.event"}
    assert modules & NEVER == set()
    assert late == AGAIN
    assert left == set()


def test_the_minimal_profile_loads_nothing_of_what_is_off(tmp_path: Path) -> None:
    minimal = Path(__file__).parent.parent / "packaging/minimal.toml"
    modules, late, left = loaded(minimal.read_text(), tmp_path)
    assert modules >= {
        *("oomwatchd.reports.decode", "oomwatchd.event"),
        *("oomwatchd.diagnosis.findings.swap_absent", "sqlite3"),
    }
    assert {
        module for module in modules if module.startswith(("prometheus_client", "pyudev", "http"))
    } == set()
    assert {module for module in modules if module.startswith("oomwatchd.web")} == set()
    assert modules & NEVER == set()
    assert late == AGAIN
    assert left == set()


@pytest.mark.parametrize(
    ("profile", "resident_mib", "private_mib"),
    [
        # what docs/footprint.md says, one more for Python 3.13, and 0.7 by which a busy machine differs
        ("default", 23.75, 15.0),
        ("minimal", 21.75, 13.0),
    ],
)
def test_memory_of_the_profiles(
    profile: str, resident_mib: float, private_mib: float, tmp_path: Path
) -> None:
    environ = install(tmp_path)
    own = tmp_path / "run"
    own.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = profiles(own)[profile].replace(str(PORT), str(port))
    Running(own, environ, config).stop()  # compiles
    running = Running(own, environ, config)
    try:
        time.sleep(1)
        memory = running.memory_kib()
    finally:
        running.stop()
    assert memory["Rss"] / 1024 <= resident_mib
    assert memory["Anonymous"] / 1024 <= private_mib


def test_modules_without_documentation_still_have_their_files() -> None:
    """Templates of webhooks, and the style of the pages, lie beside the modules."""
    script = """
from oomwatchd.sinks.webhook import TEMPLATES, read_template
from oomwatchd.web.pages import _ASSETS, _asset
assert all(read_template(name) for name in TEMPLATES)
assert all(len(_asset(path).body) > 100 for path in _ASSETS)
import oomwatchd.web
from importlib.resources import files
print(type(files(oomwatchd.web)).__name__, oomwatchd.sinks.webhook.__doc__ is None)
"""
    assert python(PRELUDE + "imports.install(bare=True)\n" + script).split() == ["PosixPath", "True"]
    assert python(script).split() == ["PosixPath", "False"]
