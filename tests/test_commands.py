"""Every command and configuration of the documentation is run or checked: here, or by a test that has it.

A page that gains one that nothing runs fails here. NOT_RUN has the few that no test can run, with the reason.
"""

from __future__ import annotations

import ast
import gzip
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from oomwatchd.config import parse
from oomwatchd.event import EventKind
from oomwatchd.follow.address import place_of_argument
from oomwatchd.sinks import journal as journal_sink
from oomwatchd.store import Store
from tests import journals
from tests.kernel.running import wait_for
from tests.pages import ROOT, Block, blocks, inline, pages
from tests.samples import capture, event
from tests.test_cli import oomwatchd
from tools.commandline import arguments, subcommands, whole

#: no test runs them, and why
NOT_RUN = {
    "python -m benchmarks.bench_decoders DIRECTORY": "the other decoder is in no registry",
    "podman push registry.example/oomwatchd:0.2.0": "needs a registry",
    "install -m 755 packaging/procd/oomwatchd /etc/init.d/": "only OpenWrt has procd; the page says so",
    "/etc/init.d/oomwatchd enable": "the same",
    "kubectl apply -k packaging/kubernetes/privileged": "needs a cluster; test_kubernetes.py validates it",
}
#: what runs a command in another spelling: the file, and how it stands there
ELSEWHERE = {
    "sh bootstrap.sh run": ("tests/test_readme.py", '["sh", "bootstrap.sh", "run"]'),
    "sh bootstrap.sh test": (".ci/run", "sh bootstrap.sh test"),
    "sh bootstrap.sh test -m 'not slow and not vm'": (".ci/run", 'sh bootstrap.sh test "$@"'),
    "sh bootstrap.sh lint": ("bootstrap.sh", "    lint || "),
    "make deb": ("tests/test_readme.py", '"make deb"'),
    "pipx run oomwatchd analyze mips.log": ("tests/test_release.py", '"pipx run" in block.text'),
    "oomwatchd analyze mips-3.10-highmem.log": ("tests/test_reading_page.py", 'main(["analyze", '),
    "oomwatchd selftest": ("tests/test_readme.py", '[program, "selftest"]'),
    "oomwatchd analyze --journal --directory /var/log/journal/remote --since 1d": (
        "tests/delivery/test_journal_remote.py",
        '"analyze", "--journal", "--directory"',
    ),
    "systemctl status -l web.service": (
        "tests/vm/guest.sh",
        "systemctl status --no-pager --full greedy.service",
    ),
    "podman build -f packaging/container/Containerfile -t registry.example/oomwatchd:0.2.0 .": (
        "tests/containers/test_image.py",
        '/Containerfile"',
    ),
    "podman run --detach --name oomwatchd --user 65532 --cap-drop all --cap-add SYSLOG --read-only"
    " --security-opt no-new-privileges --device /dev/kmsg:/dev/kmsg:r --pid host --network host --volume"
    " /sys/fs/cgroup:/sys/fs/cgroup:ro,rslave --volume oomwatchd:/var/lib/oomwatchd oomwatchd": (
        "tests/containers/test_image.py",
        '"--cap-drop", "all", "--cap-add", "SYSLOG", "--security-opt", "no-new-privileges", "--read-only"',
    ),
    "apt-get install ./dist/oomwatchd_*.deb": (
        "tests/vm/full.py",
        "install --no-install-recommends /lab/oomwatchd.deb",
    ),
}
#: what no program here reads, and why
NOT_CHECKED = {
    "bitbake": "Yocto is not in Debian; docs/install.md says that it was not run",
    "make": "OpenWrt is not in Debian; docs/install.md says that it was not run",
    "text": "an output",
    "yaml": "test_fleet.py runs all but that of the OpenTelemetry collector, which Debian does not have",
    "": "a picture, or lines of a log (test_reading_page.py)",
}


def commands() -> list[tuple[str, str]]:
    """Page and command of every ``sh`` and ``console`` block."""
    return [(page, command) for page in pages() for block in blocks(page) for command in block.commands()]


@cache
def in_the_system() -> str:
    """What whole systems under QEMU run: the README's commands and the scripts of tests/vm."""
    from tests.readme import system_script

    return "\n".join([system_script(), *(path.read_text() for path in (ROOT / "tests/vm").glob("*.sh"))])


@cache
def taken_by_tests() -> list[tuple[str, str, str, str]]:
    """Page, language and what is in it, of the blocks that tests take from the pages; the test's file."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        if "from tests.pages import" not in text or path == Path(__file__):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "block":
                page, language, holding = (ast.literal_eval(argument) for argument in node.args[:3])
                found.append((f"docs/{page}.md", language, holding, path.name))
    return found


def taken(block: Block) -> bool:
    return any(
        (page, language) == (block.page, block.language) and holding in block.text
        for page, language, holding, _ in taken_by_tests()
    )


def runs_here(command: str) -> bool:
    return _here(command) is not None


def _here(command: str) -> str | None:
    """How this file runs or checks it."""
    command = re.sub(r"^(?:[A-Z_]+=\S+ )*", "", command)
    for kind, pattern in {
        "journal": r"journalctl (?!--update)",
        "events": r"oomwatchd events ",
        "follow": r"oomwatchd follow ",
        "module": r"(?:\S*/)?python3? -m (?:benchmarks|tests|tools|oomwatchd)\b",
        "pytest": r"pytest ",
        "enable": r"systemctl enable --now oomwatchd-near\.path$",
        "drop-in": r"cp /usr/share/doc/oomwatchd/examples/\S+ /etc/systemd/system/oomwatchd\.service\.d/$",
    }.items():
        if re.match(pattern, command):
            return kind
    return None


def test_every_command_is_run_somewhere() -> None:
    unknown = [
        f"{page}: {command}"
        for page, command in commands()
        if not (
            command in NOT_RUN
            or command in ELSEWHERE
            or runs_here(command)
            or any(command in block.commands() and taken(block) for block in blocks(page))
            or re.search(rf"(?m)^ *{re.escape(command)}(?: #.*)?$", in_the_system())
        )
    ]
    assert unknown == [], "run each in a test, or say in NOT_RUN why none can"


def test_no_entry_is_stale() -> None:
    shown = {command for _, command in commands()}
    assert sorted((NOT_RUN.keys() | ELSEWHERE.keys()) - shown) == []
    assert [file for file, how in ELSEWHERE.values() if how not in (ROOT / file).read_text()] == []


def test_every_configuration_is_checked_somewhere() -> None:
    mine = {"sh", "console", "toml", "ini", "promql"}  # commands, and what this file and test_readme.py check
    unknown = [
        f"{block.page}: {block.language}\n{block.text}"
        for page in pages()
        for block in blocks(page)
        if block.language not in mine | NOT_CHECKED.keys() and not taken(block)
    ]
    assert unknown == []


@pytest.mark.parametrize(
    "page", [page for page in pages() if any(b.language == "toml" for b in blocks(page))]
)
def test_each_configuration_of_the_daemon_is_one(page: str) -> None:
    for block in blocks(page):
        if block.language == "toml":
            parse(tomllib.loads(block.text), page)


def units() -> Iterator[tuple[Block, str, str]]:
    """Each block for ``systemctl edit``, the unit, and its text."""
    for page in pages():
        for block in blocks(page):
            if block.language == "ini" and not taken(block):
                edited = re.match(r"# systemctl edit (\S+)\n", block.text)
                # a line alone belongs to the network of the service
                text = block.text if edited else f"[Service]\n{block.text}"
                yield block, edited[1] if edited else "oomwatchd.service", text


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_each_part_of_a_unit_is_one(tmp_path: Path) -> None:
    found = list(units())
    assert len(found) >= 4
    for number, (block, unit, text) in enumerate(found):
        directory = tmp_path / str(number)
        shutil.copytree(ROOT / "packaging/systemd", directory)
        for service in directory.glob("*.service"):
            program = shutil.which("true")
            service.write_text(re.sub(r"(?m)^Exec(\w+)=.*$", rf"Exec\1={program}", service.read_text()))
        drop_in = directory / f"{unit}.d"
        drop_in.mkdir(exist_ok=True)
        (drop_in / "shown.conf").write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", directory / unit],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "shown.conf" not in done.stderr, (block.page, done.stderr)


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_each_expression_is_one(tmp_path: Path) -> None:
    shown = [block.text for page in pages() for block in blocks(page) if block.language == "promql"]
    # one a line, or one over several that are indented
    expressions = [one for text in shown for one in re.split(r"\n(?! )", text.strip())]
    rules = [{"record": f"shown:{n}", "expr": one} for n, one in enumerate(expressions)]
    assert len(rules) >= 3
    import yaml

    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "shown", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def of(kind: str) -> list[str]:
    found = [*commands(), *((page, one) for page in pages() for one in inline(page))]
    return sorted({command for _, command in found if _here(command) == kind})


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with an event, and that one's id."""
    directory = tmp_path_factory.mktemp("state")
    store = Store.open(directory)
    store.put(capture(), event())
    store.close()
    return directory, Store.open_reader(directory).list(limit=1)[0].id


@pytest.mark.parametrize("command", sorted({c for _, c in commands() if _here(c) == "events"}))
def test_the_commands_for_events(command: str, state: tuple[Path, str]) -> None:
    directory, stored = state
    words = [stored if word in ("ID", "2e3e") else word for word in shlex.split(command)[2:]]
    done = oomwatchd("events", "--state-directory", directory, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr == b"oomwatchd: no events\n"


@pytest.mark.parametrize("command", sorted({c for _, c in commands() if _here(c) == "follow"}))
def test_the_sources_that_are_shown_can_be_followed(command: str) -> None:
    parser = subcommands(whole())["follow"]
    args = parser.parse_args(shlex.split(command)[2:])
    for source in args.sources:
        place_of_argument(source.replace("/dev/ttyUSB0", "/dev/null"))  # a device, as that one


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This boot's journal with an event, and with a warning."""
    if not journals.TOOLS:
        pytest.skip("needs systemd-journal-remote")
    directory = tmp_path_factory.mktemp("journal")
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    entries = []
    place = {"OBJECT_SYSTEMD_UNIT": b"web.service", "OOM_MEMCG": b"/system.slice/web.service"}
    kinds: tuple[EventKind, ...] = ("oom_kill", "oom_near")
    for number, kind in enumerate(kinds):
        fields = journal_sink.fields(event(kind=kind, constraint="none"))
        sent = {name: str(value).encode() for name, value in fields if value is not None}
        own = journals.entry(b"killed", boot_id, number * 1_000_000, _TRANSPORT=b"journal", _UID=b"0")
        entries.append({**sent, **own, **place})
    journals.write_journal(directory, entries)
    return directory


@pytest.mark.parametrize("command", sorted({c for _, c in commands() if _here(c) == "journal"}))
def test_the_commands_for_the_journal_find_an_entry(command: str, journal: Path, tmp_path: Path) -> None:
    """One that follows is ended; ``wall`` here writes into a file."""
    stand_in = tmp_path / "wall"
    stand_in.write_text(f'#!/bin/sh\necho "wall $*" >>{tmp_path}/walls\n')
    stand_in.chmod(0o755)
    follows = re.search(r" -(\w*)f\b", command) is not None
    # the journal of this test; from its first entry where only new ones would be shown
    changed = re.sub(r"(-D|--directory) \S+ ", "", command).replace(" -n 0", "")
    changed = changed.replace("journalctl", f"journalctl --directory={journal} --no-pager", 1)
    said = tmp_path / "walls" if "wall" in command else tmp_path / "said"
    with (tmp_path / "said").open("wb") as output:
        process = subprocess.Popen(
            ["sh", "-c", changed],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_for("the entry", lambda: said.exists() and b"killed" in said.read_bytes())
            assert follows or process.wait(30) == 0, said.read_text()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


@pytest.mark.parametrize("command", of("module"))
def test_each_module_has_the_options_that_are_shown(command: str) -> None:
    words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S+ )*", "", command))
    name, rest = words[2], words[3:]
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    if spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{name}.__main__")
    assert spec is not None and spec.origin is not None, f"{name} cannot be run"
    source = Path(spec.origin).read_text()
    assert "__main__" in source or spec.origin.endswith("__main__.py"), f"{name} cannot be run"
    assert [word for word in rest if word.startswith("--") and f'"{word}"' not in source] == []


@pytest.mark.parametrize("command", of("pytest"))
def test_each_file_that_pytest_is_given_exists(command: str) -> None:
    settings = re.findall(r"([A-Z_]+)=", command)
    files = [word for word in shlex.split(command) if word.startswith("tests/")]
    assert [file for file in files if not (ROOT / file).exists()] == []
    sources = "".join(path.read_text() for path in (ROOT / "tests/faults").glob("*.py")) if settings else ""
    assert [name for name in settings if f'"{name}"' not in sources] == []


@pytest.mark.skipif(not shutil.which("systemctl"), reason="needs systemctl")
def test_the_path_unit_can_be_enabled(tmp_path: Path) -> None:
    (command,) = of("enable")
    shutil.copytree(ROOT / "packaging/systemd", tmp_path / "usr/lib/systemd/system")
    words = [word for word in shlex.split(command) if word != "--now"]
    subprocess.run([words[0], f"--root={tmp_path}", *words[1:]], check=True, capture_output=True)
    assert "oomwatchd-near.path" in [path.name for path in tmp_path.rglob("*.wants/*")]


@pytest.mark.parametrize("command", of("drop-in"))
def test_each_drop_in_is_in_the_package(command: str) -> None:
    name = Path(command.split()[1]).name
    assert (ROOT / "packaging/systemd/oomwatchd.service.d" / name).exists()
    examples = (ROOT / "packaging/debian/oomwatchd.examples").read_text().splitlines()
    assert "packaging/systemd/oomwatchd.service.d/*.conf" in examples


def test_the_examples_of_the_man_page_work(tmp_path: Path, corpus: Path) -> None:
    page = (ROOT / "packaging/man/oomwatchd-analyze.1").read_text().partition(".SH EXAMPLES")[2]
    examples = [
        found.replace("\\-", "-") for found in re.findall(r"^\\fB(.*oomwatchd analyze.*)\\fP$", page, re.M)
    ]
    assert len(examples) >= 2
    log = (corpus / "seed" / "mips-3.10-highmem.log").read_bytes()
    (tmp_path / "kern.log.1.gz").write_bytes(gzip.compress(log))
    dmesg = tmp_path / "dmesg"  # this machine's may be for root alone, or hold nothing
    dmesg.write_text(f"#!/bin/sh\ncat {corpus}/seed/mips-3.10-highmem.log\n")
    dmesg.chmod(0o755)
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = ""
    for example in examples:
        done = subprocess.run(
            ["sh", "-ec", example],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, ""), example
        said += done.stdout
    assert "DIED     min_free_kbytes" in said
    assert "min_free_kbytes" in (tmp_path / "oom.html").read_text()


def test_the_commands_in_the_text_exist() -> None:
    """Command, action and options; values and places are for the reader."""
    wrong = []
    for page in pages():
        for command in inline(page):
            if command.startswith("oomwatchd "):
                parser, words = whole(), re.findall(r"[\w-]+", command)[1:]
                chosen = subcommands(parser)
                if words[0] in chosen:
                    parser = chosen[words[0]]
                known = {name for one in arguments(parser) for name in one.option_strings}
                for below in subcommands(parser).values():
                    known |= {name for one in arguments(below) for name in one.option_strings}
                bad = [w for w in words if w.startswith("--") and w not in known | {"--help"}]
                if bad or not (words[0] in chosen or words[0].startswith("-")):
                    wrong.append(f"{page}: {command}")
    assert wrong == []


if __name__ == "__main__":
    for where, one in commands():
        sys.stdout.write(f"{where}: {one}\n")
