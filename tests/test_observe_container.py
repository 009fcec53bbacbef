"""Names of containers: out of their runtimes' files, of the kubelet's links, of conmon, by the helper."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from oomwatchd.daemon import namer
from oomwatchd.daemon.naming import AFTER_KILL_USEC, LATEST_SECONDS, TOGETHER_SECONDS, Naming
from oomwatchd.diagnosis.attribution import attribute
from oomwatchd.observe.container import MOST, ContainerNames, ask_helper
from oomwatchd.observe.runtimes import DIRECTORIES, conmon_names, kubernetes_names, name_of
from oomwatchd.records.capture import ProcessFacts
from oomwatchd.records.report import Memcg, OomReport, Victim
from tests.samples import capture

ROOT = Path(__file__).parent.parent
ID = "9f02d9fa0049eb2655fc83c765f142362b2cb403b57b70ba3185071015ca3b64"
OTHER = "0" * 64
DOCKER = f"var/lib/docker/containers/{ID}/config.v2.json"
CONTAINERD = f"run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
K3S = f"run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/config.json"
NERDCTL = f"run/containerd/io.containerd.runtime.v2.task/default/{ID}/config.json"
CRIO = f"run/containers/storage/overlay-containers/{ID}/userdata/config.json"
PODMAN = "var/lib/containers/storage/overlay-containers/containers.json"
CRI_NOTES = {
    "io.kubernetes.cri.container-name": "app",
    "io.kubernetes.cri.sandbox-name": "web-0",
    "io.kubernetes.cri.sandbox-namespace": "shop",
}


def nobody(_ids: Iterable[str], _address: str) -> dict[str, str]:
    raise FileNotFoundError(2, "No such file or directory")


def write(root: Path, file: str, content: object) -> None:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    ("file", "content", "name"),
    [
        (DOCKER, {"Name": "/web", "ID": ID}, "web"),
        (DOCKER, {"Name": "/k8s_app_web-0_shop_7d1c_3"}, "shop/web-0/app"),
        (CONTAINERD, {"annotations": CRI_NOTES}, "shop/web-0/app"),
        (K3S, {"annotations": CRI_NOTES}, "shop/web-0/app"),
        (NERDCTL, {"annotations": {"nerdctl/name": "cache", "nerdctl/namespace": "default"}}, "cache"),
        (
            CRIO,
            {"annotations": {"io.kubernetes.container.name": "app", "io.kubernetes.pod.name": "p"}},
            "p/app",
        ),
        (PODMAN, [{"id": OTHER, "names": ["no"]}, {"id": ID, "names": ["db"], "layer": "x"}], "db"),
        (PODMAN, [{"id": ID}], None),
        (PODMAN, {"id": ID}, None),
        (DOCKER, {"Name": 7}, None),
        (DOCKER, ["no object"], None),
        (DOCKER, {}, None),
    ],
)
def test_the_runtime_tells_the_name(tmp_path: Path, file: str, content: object, name: str | None) -> None:
    write(tmp_path, file, content)
    assert name_of(ID, tmp_path) == name


def test_an_id_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "var/lib/docker/containers").mkdir(parents=True)
    write(tmp_path, "var/lib/docker/config.v2.json", '{"Name": "/x"}')
    assert name_of("..", tmp_path) is None


def test_the_kubelets_links_name_pod_and_namespace(tmp_path: Path) -> None:
    for link in (
        f"web-0_shop_app-{ID}.log",
        f"web-0_app-{OTHER}.log",
        f"a_b_c-{ID[:63]}.log",
        f"_shop_app-{OTHER}.log",
    ):
        write(tmp_path, f"var/log/containers/{link}", "")
    assert kubernetes_names(tmp_path) == {ID: "shop/web-0/app"}


def test_conmon_is_believed_of_its_own_user_alone(tmp_path: Path) -> None:
    for pid, comm in ((7, "conmon"), (8, "other")):
        write(tmp_path, f"{pid}/comm", f"{comm}\n")
        words = ("/usr/bin/conmon", "-c", ID, "-u", ID, "-r", "/usr/bin/crun", "-n", "we b", "-s")
        write(tmp_path, f"{pid}/cmdline", "\0".join(words) + "\0")
    own = os.geteuid()
    assert conmon_names(tmp_path, [(ID, own)]) == {ID: "we b"}
    assert conmon_names(tmp_path, [(ID, own + 1)]) == {}
    assert conmon_names(tmp_path, [(OTHER, own)]) == {}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oomwatchd.observe.container.AGAIN_SECONDS", 0.0)


# -- what is kept --------------------------------------------------------------------------------------

PATH = f"/system.slice/docker-{ID}.scope"


def facts(cgroup: str = PATH) -> ProcessFacts:
    return ProcessFacts(pid=1, cgroup=cgroup)


def named(names: ContainerNames, *processes: ProcessFacts) -> list[str | None]:
    return [one.container_name for one in names.with_names(capture(processes=processes)).processes]


def test_a_capture_learns_the_names(tmp_path: Path) -> None:
    write(tmp_path, DOCKER, {"Name": "/web"})
    names = ContainerNames(tmp_path, tmp_path / "proc", nobody)
    assert named(names, facts(), facts("/system.slice/x.service")) == ["web", None]
    assert names.obstacle is None


def test_a_name_that_was_learnt_outlives_its_file(tmp_path: Path) -> None:
    write(tmp_path, DOCKER, {"Name": "/web"})
    names = ContainerNames(tmp_path, tmp_path / "proc", nobody)
    names.learn(["/", PATH])
    (tmp_path / DOCKER).unlink()
    names.learn(["/"])
    assert named(names, facts()) == ["web"]


def test_the_helper_is_asked_for_what_nobody_else_tells_and_never_for_a_kill(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(ids: Iterable[str], _address: str) -> dict[str, str]:
        asked.append(list(ids))
        return {ID: "web"}

    names = ContainerNames(tmp_path, tmp_path / "proc", ask)
    assert named(names, facts()) == [None]
    assert asked == []
    names.learn(["/", PATH, "/system.slice/x.service", f"/docker/{OTHER}"])
    names.wait()
    assert [sorted(one) for one in asked] == [sorted((ID, OTHER)), [OTHER]], "its file may come later"
    assert named(names, facts(), facts(f"/docker/{OTHER}")) == ["web", None]
    names.learn([PATH, f"/docker/{OTHER}"])
    names.wait()
    assert len(asked) == 2, "what is known to be there is not asked for again"


def test_a_container_without_a_name_is_looked_for_once_in_a_storm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    monkeypatch.setattr(
        "oomwatchd.observe.container.name_of", lambda container_id, _root: looks.append(container_id)
    )
    names = ContainerNames(tmp_path, tmp_path / "proc", nobody)
    for _ in range(3):
        assert named(names, facts()) == [None]
    assert looks == [ID]
    names.learn([])
    assert named(names, facts()) == [None]
    assert looks == [ID, ID, ID], "with others, and after they were learnt: it may be there"


def test_a_container_that_was_gone_before_its_cgroup_was_seen_is_asked_for_with_the_next(
    tmp_path: Path,
) -> None:
    """It was killed at once after its start. Its runtime keeps the file for a while, its cgroup is gone."""
    asked: list[list[str]] = []

    def ask(ids: Iterable[str], _address: str) -> dict[str, str]:
        asked.append(sorted(ids))
        return {ID: "web"}

    names = ContainerNames(tmp_path, tmp_path / "proc", ask)
    assert named(names, facts()) == [None]
    names.learn(["/", "/docker"])
    names.wait()
    assert (asked, named(names, facts())) == ([[ID]], ["web"])
    # who was there at the last call was asked for then
    names.learn(["/", f"/docker/{OTHER}"])
    names.wait()
    assert named(names, facts(f"/docker/{OTHER}")) == [None]
    names.learn(["/"])
    names.wait()
    assert asked == [[ID], [OTHER], [OTHER]], "twice: its file may come later"


def test_where_there_is_no_helper_that_is_said(tmp_path: Path) -> None:
    names = ContainerNames(tmp_path, tmp_path / "proc", nobody)
    names.learn([PATH])
    names.wait()
    helper = f"{tmp_path}/run/oomwatchd-names.socket"
    assert names.obstacle == f"{helper}: No such file or directory; oomwatchd doctor says how to mend it"


def test_names_are_bounded_and_the_used_ones_stay(tmp_path: Path) -> None:
    def ask(ids: Iterable[str], _address: str) -> dict[str, str]:
        return {one: f"n{int(one, 16)}" for one in ids}

    names = ContainerNames(tmp_path, tmp_path / "proc", ask)
    for number in range(MOST + 100):
        names.learn([f"/docker/{number:064x}"])
        names.wait()
        assert names.get(f"{0:064x}") == "n0"
    assert names.get(f"{1:064x}") is None
    assert names.get(f"{MOST + 99:064x}") == f"n{MOST + 99}"


# -- the helper ----------------------------------------------------------------------------------------


def test_the_helper_answers_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namer, "IDLE_SECONDS", 0.5)
    write(tmp_path, DOCKER, {"Name": "/wéb"})
    address = str(tmp_path / "names.socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        status: list[int] = []
        descriptor = os.dup(listening.fileno())
        thread = threading.Thread(target=lambda: status.append(namer.main(tmp_path, descriptor)))
        thread.start()
        assert ask_helper([ID, OTHER, "../x"], address) == {ID: "wéb"}
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(address)
            rude.sendall(b"\xff\n")
        assert ask_helper([], address) == {}
        thread.join(10)
    assert status == [0]
    with pytest.raises(FileNotFoundError):
        ask_helper([ID], str(tmp_path / "absent"))


def test_the_helper_ends_by_itself_where_it_is_never_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else RuntimeMaxSec= ends it, and the unit is a failed one."""
    unit = (ROOT / "packaging/systemd/oomwatchd-names.service").read_text()
    assert "\nRuntimeMaxSec=1min\n" in unit
    assert namer.LIFE_SECONDS + namer.IDLE_SECONDS + namer.QUESTION_SECONDS < 60
    monkeypatch.setattr(namer, "LIFE_SECONDS", 0.5)
    monkeypatch.setattr(namer, "QUESTION_SECONDS", 0.5)
    address = str(tmp_path / "names.socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        listening.settimeout(5)
        descriptor = os.dup(listening.fileno())
        status: list[int] = []
        thread = threading.Thread(target=lambda: status.append(namer.main(tmp_path, descriptor)))
        thread.start()
        with socket.socket(socket.AF_UNIX) as slow:  # a question that never comes to its end
            slow.connect(address)
            with suppress(OSError):
                for _ in range(40):
                    slow.sendall(b"\n")
                    time.sleep(0.1)
                    if not thread.is_alive():
                        break
        thread.join(5)
        assert status == [0]


def test_the_unit_of_the_helper_shows_it_what_it_reads_and_no_more() -> None:
    unit = (ROOT / "packaging/systemd/oomwatchd-names.service").read_text()
    shown = re.findall(r"^BindReadOnlyPaths=-/(\S+):/(\S+):norbind$", unit, re.M)
    assert all(source == target for source, target in shown)
    assert sorted(source for source, _ in shown) == sorted(DIRECTORIES)
    assert re.findall(r"^BindReadOnlyPaths=(?!.*norbind)(.*)$", unit, re.M) == [
        "/usr -/lib -/lib64 -/etc/ld.so.cache"
    ]
    assert "\nTemporaryFileSystem=/:ro\n" in unit


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up root's capabilities, which only root has")
def test_the_helper_reads_names_without_a_capability(tmp_path: Path) -> None:
    """Root without a capability; what its mounts hide is another test's."""
    write(tmp_path, f"root/{DOCKER}", {"Name": "/web"})
    for directory in ("root", "root/var", "root/var/lib", "root/var/lib/docker"):
        (tmp_path / directory).chmod(0o700)
    probe = (
        "import sys; from pathlib import Path; from oomwatchd.observe.runtimes import name_of;"
        f"print(name_of({ID!r}, Path({str(tmp_path / 'root')!r})))"
    )
    environ = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    command = [os.path.realpath(sys.executable), "-c", probe]
    tmp_path.chmod(0o755)
    found = []
    for user in (("--reuid=65534", "--regid=65534"), ("--reuid=0", "--regid=0")):
        unprivileged = ["setpriv", *user, "--clear-groups", "--no-new-privs"]
        unprivileged += ["--inh-caps=-all", "--bounding-set=-all"]
        found.append(subprocess.check_output([*unprivileged, *command], text=True, env=environ).strip())
    assert found == ["None", "web"]


def test_names_are_learnt_soon_after_a_container_appears_but_not_after_a_kill(tmp_path: Path) -> None:
    learnt: list[Callable[[], None]] = []
    cgroups = SimpleNamespace(made=3, table={})
    # of the cgroups it asks for these two alone; a real tree would have to be mounted
    naming = Naming(ContainerNames(tmp_path, tmp_path, nobody), cgroups, learnt.append)  # type: ignore[arg-type]
    naming.run(10.0, usec_since_kill=10**9)
    assert naming.seconds_until_due(10.0) == pytest.approx(TOGETHER_SECONDS)
    assert learnt == []
    naming.run(10.0 + TOGETHER_SECONDS, usec_since_kill=AFTER_KILL_USEC - 1)
    assert learnt == []
    naming.run(11.0, usec_since_kill=AFTER_KILL_USEC)
    assert len(learnt) == 1 and naming.seconds_until_due(11.5) is None
    naming.run(30.0, usec_since_kill=10**9)
    assert len(learnt) == 1, "nothing is new"
    cgroups.made = 4
    naming.run(31.0, usec_since_kill=10**9)
    naming.run(32.0, usec_since_kill=10**9)
    assert len(learnt) == 2
    # one kill a second: later, but not never
    cgroups.made = 5
    for tenths in range(int(LATEST_SECONDS * 10)):
        naming.run(40.0 + tenths / 10, usec_since_kill=tenths % 10 * 100_000)
        assert len(learnt) == 2
    naming.run(40.0 + LATEST_SECONDS, usec_since_kill=0)
    assert len(learnt) == 3


def test_a_container_is_named_though_nobody_saw_its_processes_alive() -> None:
    """The report tells the cgroup; what was learnt while the container lived tells its name."""
    names = ContainerNames(ask=lambda ids, _address: dict.fromkeys(ids, "shop-db"))
    path = f"/docker/{'ab' * 32}"
    names.learn([path])
    names.wait()
    told = names.named([path, "/system.slice/a.service"])
    assert told == {"ab" * 32: "shop-db"}
    report = OomReport(
        kind="oom_kill",
        victims=(Victim(pid=7, comm="x", role="selected"),),
        memcg=Memcg(oom_path=path, task_path=path),
        chosen_pid=7,
        complete=False,
    )
    assert attribute(report, (), told)[-1].container_name == "shop-db"
    assert attribute(report)[-1].container_name is None
