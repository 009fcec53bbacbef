"""The recipes of CONTRIBUTING.md, each done on a copy of the checkout: one file and its sample are enough.

If a second place had to change, the tests or the program would fail here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import corpus_directory

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("oomwatchd", "tests", "tools", "docs", "packaging", "pyproject.toml", "config.example.toml")
#: written by ``python -m tools.generate``, not by hand
GENERATED = re.compile(
    r"docs/(?:findings\.md|metrics\.md|support-matrix\.md|event\.schema\.json)|packaging/(?:man|completions)/"
)

pytestmark = pytest.mark.slow


class Copy:
    """A checkout that a newcomer works in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in PARTS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        self._before = self._digests()

    def _digests(self) -> dict[str, str]:
        found = (path for name in PARTS for path in (self.root / name, *(self.root / name).rglob("*")))
        files = (path for path in found if path.is_file() and "__pycache__" not in path.parts)
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    def python(self, *arguments: str) -> str:
        """Run it in the copy; its output. It must end well."""
        ran = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env={**os.environ, "OOMWATCHD_CORPUS": str(self.root / "tests/data/corpus")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
        return ran.stdout

    def tests(self, *arguments: str) -> None:
        self.python("-m", "tools.generate")
        self.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not vm", *arguments)

    def add_behind(self, path: str, anchor: str, text: str) -> None:
        """Write into a file, behind the one place that reads so."""
        file = self.root / path
        before = file.read_text()
        assert before.count(anchor) == 1
        file.write_text(before.replace(anchor, anchor + text))

    def written(self, recipe: str) -> set[str]:
        """What a person wrote, as many files as CONTRIBUTING.md says; what ``tools.generate`` made is not."""
        now = self._digests()
        changed = {path for path in now.keys() | self._before if now.get(path) != self._before.get(path)}
        by_hand = {path for path in changed if GENERATED.match(path) is None}
        [row] = re.findall(rf"^\| {recipe} \| (\d)\b", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
        assert len(by_hand) == int(row)
        return by_hand


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    if corpus_directory() != ROOT / "tests/data/corpus":
        pytest.skip("the recipes are tried with the corpus of the checkout")  # CI has no other
    return Copy(tmp_path / "checkout")


FORM = """

def _read_tired(parts: Parts, m: Match) -> None:
    parts.outcome.outcome = f"tired after {m['tries']} tries"


TIRED = Form(
    name="tired",
    section=Section.KILL,
    role=Role.OUTCOME,
    begins=("OOM ",),
    pattern=rx(r"OOM killer is tired after (?P<tries>\\d+) tries$"),
    copies=Copies(start=r"OOM killer is tired\\b", end=r"tries", words=r"after|tries|\\d+"),
    reads=_read_tired,
    samples=("OOM killer is tired after 16 tries",),
    source="a recipe's example",
)
"""


def test_a_kernel_wording(copy: Copy, tmp_path: Path) -> None:
    file = "oomwatchd/formats/oom_kill.py"
    head, title, rest = (copy.root / file).read_text().partition("\nFORMS = (")
    (copy.root / file).write_text(f"{head}{FORM}\n{title}TIRED, {rest}")
    copy.tests("tests/test_forms.py")
    log = tmp_path / "log"
    log.write_text(
        "[    1.000000] stress invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
        "[    1.000100] CPU: 0 PID: 7 Comm: stress Not tainted 6.1.0 #1\n"
        "[    1.000200] OOM killer is tired after 16 tries\n"
    )
    [event] = json.loads(copy.python("-m", "oomwatchd", "analyze", "--format", "json", str(log)))
    assert event["outcome"] == "tired after 16 tries"
    assert event["undecoded"] == []
    assert copy.written("a kernel wording") == {file}


FINDING = '''"""The whole machine ran out at the stroke of an hour of its clock.

An example of a finding: what is said here is its page.

It rests on the stamp of the first line, in seconds since the machine started.
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.records.report import Finding

ID = "at_the_full_hour"
TITLE = "It happened at a full hour"


def find(case: Case) -> Finding | None:
    usec = case.report.first_usec
    if usec is None or usec // 1_000_000 % 3600:
        return None
    return Finding(
        id=ID,
        severity="info",
        title=TITLE,
        explanation="The report began at a full hour since the machine started.",
        evidence={"hours": usec // 3_600_000_000},
        advice="See what starts each hour: systemctl list-timers.",
    )
'''


def test_a_finding(copy: Copy) -> None:
    file, sample = "oomwatchd/diagnosis/findings/at_the_full_hour.py", "tests/test_findings.py"
    (copy.root / file).write_text(FINDING)
    copy.add_behind(
        sample,
        "CASES: dict[str, list[tuple[Given, Given]]] = {\n",
        '    "at_the_full_hour": [\n'
        "        (report(first_usec=3_600_000_000), report(first_usec=3_601_000_000)),\n"
        "        (report(first_usec=7_200_500_000), report(first_usec=7_199_000_000)),\n"
        "    ],\n",
    )
    copy.tests(sample, "tests/test_findings_docs.py", "tests/test_imports.py", "-k", "not field and not seed")
    assert "systemctl" not in copy.python("-m", "oomwatchd", "explain", "at_the_full_hour")
    assert "at_the_full_hour" in (copy.root / "docs/findings.md").read_text()
    assert copy.written("a finding") == {file, sample}


SINK = '''"""FIFO: a line with each event's summary, for a program that reads a named pipe (fifo(7)).

``path`` is the pipe; empty (the default) switches the sink off. It does not wait for a program to read.
"""

from __future__ import annotations

import os

import msgspec

from oomwatchd.event import OomEvent
from oomwatchd.sinks._error import SinkError
from oomwatchd.words.escape import harmless


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sinks.fifo]``"""

    path: str = ""


class Fifo:
    """The named pipe; see the module."""

    name = "fifo"

    def __init__(self, path: str) -> None:
        self._path = path

    def emit(self, event: OomEvent) -> None:
        """Write one line. Raises SinkError where nobody reads."""
        try:
            pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(pipe, harmless(event.summary).encode("utf-8", "replace") + b"\\n")
            finally:
                os.close(pipe)
        except OSError as error:
            raise SinkError(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Nothing is held."""


def open(options: Options) -> Fifo | None:
    return Fifo(options.path) if options.path else None
'''


def test_a_sink(copy: Copy, tmp_path: Path) -> None:
    file, sample = "oomwatchd/sinks/fifo.py", "config.example.toml"
    (copy.root / file).write_text(SINK)
    # a blank line parts the sections
    copy.add_behind(
        sample,
        'socket = "/run/systemd/journal/socket"\n',
        '\n[sinks.fifo]\n# A line an event to the reader of this named pipe; "": none.\npath = ""\n',
    )
    copy.tests("tests/test_config.py", "tests/test_sinks.py", "tests/test_tools.py", "tests/test_imports.py")
    pipe, settings = tmp_path / "pipe", tmp_path / "config.toml"
    os.mkfifo(pipe)
    settings.write_text(f'[sinks.fifo]\npath = "{pipe}"\n')
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        said = copy.python("-m", "oomwatchd", "notify-test", "--config", str(settings))
        assert said.startswith("fifo: ok")
        assert b"TEST of oomwatchd" in os.read(reader, 4096)
    finally:
        os.close(reader)
    assert copy.written("a sink") == {file, sample}


TRUTH = {
    "source": "a recipe's example",
    "kernel": None,
    "series": "5.x",
    "arch": None,
    "form": "dmesg",
    "kind": "kill-lines-only",
    "copy": "exact",
    "events": [
        {
            "trigger_comm": None,
            "order": None,
            "constraint": "none",
            "victims": [
                {"pid": 2543, "comm": "worker", "total_vm_kb": 81920, "anon_rss_kb": 40960, "uid": 1000}
            ],
            "outcome": "killed",
            "zones": 0,
            "tasks": 0,
            "complete": False,
        }
    ],
}


def test_a_log_from_the_field(copy: Copy) -> None:
    log, truth = (f"tests/data/corpus/field/recipe-kill-line.{kind}" for kind in ("log", "json"))
    (copy.root / log).write_text(
        "[  812.345678] Out of memory: Killed process 2543 (worker) total-vm:81920kB, anon-rss:40960kB, "
        "file-rss:0kB, shmem-rss:0kB, UID:1000 pgtables:120kB oom_score_adj:0\n"
    )
    (copy.root / truth).write_text(json.dumps(TRUTH))
    said = copy.python("-m", "tests.field_score", "recipe-kill-line")
    assert "100.00 %" in said
    copy.tests("tests/test_field_corpus.py::test_field_corpus")
    assert "recipe-kill-line" in (copy.root / "docs/support-matrix.md").read_text()
    assert copy.written("a log from the field") == {log, truth}
