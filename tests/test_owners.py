"""Who keeps a cgroup: its name, and the knob of its limit, for each owner that is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from oomwatchd import plugs
from oomwatchd.diagnosis import owners
from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.findings import diagnose
from oomwatchd.diagnosis.levers import bound_process
from oomwatchd.diagnosis.owners import Limit, called, home_of, owned
from oomwatchd.records.capture import ProcessFacts
from oomwatchd.records.report import Memcg, MemcgCounter, OomReport
from tests.samples import capture

ID = "9f02d9fa0049eb2655fc83c765f142362b2cb403b57b70ba3185071015ca3b64"
SHORT = ID[:12]
UID = "7d1c2c0e-8a53-4a3f-9d5b-2f1d6a7b8c9d"
SLICE = UID.replace("-", "_")
TASK = "0123456789abcdef0123456789abcdef"

#: path, kind, name, what of the advice
KNOWN = [
    (f"/system.slice/docker-{ID}.scope", "container", SHORT, "docker update --memory;"),
    (f"/docker/{ID}", "container", SHORT, "docker update --memory;"),
    (f"/machine.slice/libpod-{ID}.scope", "container", SHORT, "podman update --memory"),
    (
        f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container",
        None,
        None,
        None,
    ),
    (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice/cri-containerd-{ID}.scope",
        "container",
        SHORT,
        f"raise resources.limits.memory of container {SHORT} of pod {UID}",
    ),
    (f"/kubepods/besteffort/pod{UID}", "pod", UID, f"resources.limits.memory of the containers of pod {UID}"),
    (
        f"/docker/{'ab' * 32}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SLICE}.slice/"
        f"cri-containerd-{ID}.scope",
        "container",
        SHORT,
        f"container {SHORT} of pod {UID}",
    ),
    ("/lxc/101", "container", "101", "pct set 101 --memory"),
    ("/lxc/101/ns", "container", "101", "pct set 101 --memory"),
    ("/lxc.payload.web", "container", "web", "config set web limits.memory"),
    ("/lxc.payload.web/system.slice/nginx.service", None, None, None),
    (
        "/machine.slice/machine-qemu\\x2d3\\x2ddb\\x2dprod.scope/libvirt/emulator",
        "virtual machine",
        "db-prod",
        "virsh memtune db-prod --hard-limit",
    ),
    ("/machine/qemu-3-db.libvirt-qemu/emulator", "virtual machine", "db", "virsh setmaxmem db"),
    ("/qemu.slice/100.scope", "virtual machine", "100", "qm set 100 --memory"),
    ("/machine.slice/systemd-nspawn@b.service", "container", "b", "MemoryMax= of systemd-nspawn@b.service"),
    (
        f"/nomad.slice/share.slice/{UID}.redis.scope",
        "Nomad task",
        "redis of 7d1c2c0e",
        "`memory` (or `memory_max`) in the resources of Nomad task redis",
    ),
    (f"/nomad/{UID}.redis", "Nomad task", "redis of 7d1c2c0e", "allocation 7d1c2c0e"),
    (f"/ecs/{TASK}/{ID}", "container", SHORT, f"container {SHORT} in the task definition (task {TASK})"),
    (f"/ecs/{TASK}", "ECS task", TASK, f"task definition of ECS task {TASK}"),
    (
        f"/ecstasks.slice/ecstasks-{TASK}.slice/docker-{ID}.scope",
        "container",
        SHORT,
        "in the task definition",
    ),
    ("/slurm/uid_1000/job_42/step_0/task_1", "Slurm job", "42.0", "sbatch --mem"),
    ("/system.slice/slurmstepd.scope/job_42/step_batch/user", "Slurm job", "42.batch", "job 42.batch"),
    ("/system.slice/slurmstepd.scope/job_42", "Slurm job", "42", "memory of Slurm job 42"),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-flatpak-org.mozilla.firefox-4242.scope",
        "Flatpak",
        "org.mozilla.firefox",
        "systemctl --user set-property app-flatpak-org.mozilla.firefox-4242.scope",
    ),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.gnome.Evolution-77.scope",
        "application",
        "org.gnome.Evolution",
        "memory of application org.gnome.Evolution",
    ),
    (
        f"/user.slice/user-1000.slice/user@1000.service/app.slice/snap.firefox.firefox-{UID}.scope",
        "snap",
        "firefox",
        "memory of snap firefox",
    ),
    ("/system.slice/snap.lxd.daemon.service", "snap", "lxd.daemon", "snap set-quota"),
    ("/machine.slice/1001", "container", "1001", "vzctl set 1001 --ram"),
    ("/system.slice/nginx.service", "unit", "nginx.service", "raise MemoryMax= of nginx.service"),
    ("/system.slice", "unit", "system.slice", "raise MemoryMax= of system.slice"),
    ("/system.slice/nginx.service/worker", None, None, None),
    ("/", None, None, None),
    ("/a/b", None, None, None),
    (f"/x/{ID}", None, None, None),
    ("/machine.slice/web", None, None, None),
    ("/qemu.slice", "unit", "qemu.slice", "MemoryMax= of qemu.slice"),
    ("/job_42", None, None, None),
    (f"/x/{UID}.redis", None, None, None),
]


@pytest.mark.parametrize(("path", "kind", "name", "advice"), KNOWN, ids=[path for path, *_ in KNOWN])
def test_each_owner_is_known_by_its_paths(
    path: str, kind: str | None, name: str | None, advice: str | None
) -> None:
    assert called(path) == (None if kind is None else (kind, name))
    found = owned(path)
    if advice is None:
        assert found is None
    else:
        assert found is not None
        raised = found.raised(Limit(" above 512 MiB", "memory.max"))
        assert advice in raised and raised.startswith("raise ") and " above 512 MiB (" in raised


def test_every_owner_has_a_path_here() -> None:
    asked = set(plugs.names(owners.__name__))
    answering = set()
    for path, *_ in KNOWN:
        place = owners.placed(path)
        answering |= {name for name in asked if plugs.plug(owners.__name__, name).find(place) is not None}
    assert answering == asked


@pytest.mark.parametrize("path", [path for path, kind, *_ in KNOWN if kind not in (None, "unit")])
def test_no_path_is_claimed_by_two(path: str) -> None:
    place = owners.placed(path)
    modules = plugs.plugs(owners.__name__)
    claimed = [n for n, m in modules.items() if m.find(place) is not None and not getattr(m, "LAST", False)]
    assert len(claimed) == 1, claimed


def test_the_name_that_people_know_is_used() -> None:
    pod = f"/kubepods/burstable/pod{UID}/{ID}"
    assert called(pod, {ID: "shop/web-0/app"}) == ("container", "shop/web-0/app")
    found = owned(pod, {ID: "shop/web-0/app"})
    assert found is not None
    assert found.raised(Limit()) == (
        "raise resources.limits.memory of container app of pod shop/web-0 (memory.max)"
    )
    docker = owned(f"/docker/{ID}", {ID: "web\x1b[1m\nraise"})
    assert docker is not None
    raised = docker.raised(Limit(swap=True))
    assert "\x1b" not in raised and "\n" not in raised
    assert "--memory-swap and --memory" in raised


def test_an_owner_is_one_file() -> None:
    """What is known of one stands in its module and in this table alone."""
    room = Path(owners.__file__).parent
    assert {path.stem for path in room.glob("*.py")} - {"__init__"} == set(plugs.names(owners.__name__))


def case_of(path: str, comm: str, name: str | None = None) -> Case:
    facts = ProcessFacts(pid=7, comm=comm, cgroup=path, container_name=name)
    report = OomReport(kind="oom_kill", complete=True, constraint="none", victims=())
    return Case(report, capture(processes=(facts,)))


@pytest.mark.parametrize(
    ("path", "comm", "name", "advice"),
    [
        (f"/docker/{ID}", "java", "web", "Bound java of container web: docker update --memory; compose: "),
        (
            f"/kubepods/besteffort/pod{UID}/{ID}",
            "java",
            "shop/web-0/app",
            "Bound java of container shop/web-0/app: resources.limits.memory of container app of pod ",
        ),
        (
            "/machine.slice/machine-qemu\\x2d3\\x2ddb.scope/libvirt/emulator",
            "qemu-system-x86",
            None,
            "Bound qemu-system-x86 of virtual machine db: virsh memtune db --hard-limit; or give the guest "
            "less: virsh setmaxmem db --config.",
        ),
        (
            "/system.slice/vm.service",
            "qemu-system-x86",
            None,
            "Bound qemu-system-x86: MemoryMax= of vm.service",
        ),
        ("/system.slice/nginx.service", "nginx", None, "Bound nginx: MemoryMax= of nginx.service"),
    ],
)
def test_a_process_is_bounded_by_its_owner(path: str, comm: str, name: str | None, advice: str) -> None:
    text = bound_process(case_of(path, comm, name), comm, 7)
    assert text.startswith(advice)
    assert ("heap" in text) == (not comm.startswith("qemu")), "a guest has no heap to be tuned"


def test_the_line_and_the_advice_call_a_container_by_its_name() -> None:
    counter = MemcgCounter(usage_bytes=512 << 20, limit_bytes=512 << 20)
    path = f"/kubepods/burstable/pod{UID}/{ID}"
    report = OomReport(
        kind="oom_kill", complete=True, constraint="memcg", memcg=Memcg(oom_path=path, memory=counter)
    )
    facts = ProcessFacts(pid=7, comm="a", cgroup=path, container_name="shop/web-0/app")
    diagnosis = diagnose(report, capture(processes=(facts,)))
    texts = [diagnosis.summary, *(finding.advice for finding in diagnosis.findings)]
    assert "container shop/web-0/app at its limit of 512 MiB" in texts[0]
    assert any("container app of pod shop/web-0 above 512 MiB" in text for text in texts)


@pytest.mark.parametrize(
    ("path", "unit", "home"),
    [
        ("/system.slice/slurmstepd.scope/job_42/step_0/user", "slurmstepd.scope", "Slurm job 42.0"),
        ("/machine/qemu-3-db.libvirt-qemu/emulator", None, "virtual machine db"),
        ("/system.slice/nginx.service", "nginx.service", "nginx.service"),
        ("/system.slice/nginx.service/worker", "nginx.service", "nginx.service"),
        ("/a/b", None, "/a/b"),
        (None, "x.service", "x.service"),
    ],
)
def test_a_process_lives_where_people_say(path: str | None, unit: str | None, home: str) -> None:
    assert home_of(Attribution(pid=7, role="victim", cgroup=path, unit=unit)) == home
    assert home_of(None) is None
