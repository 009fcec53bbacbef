"""How the knobs are turned, in words: which, to what, where it is written so that it lasts.

Advice fits the host: what it runs (systemd or not, cgroup v1 or v2), how old its kernel is, who owns the
cgroup. Where that is not known the wording names both.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.growth import climb_of
from oomwatchd.diagnosis.memcg import limit_hit
from oomwatchd.diagnosis.owners import Limit, owned
from oomwatchd.records.report import Memcg
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut

#: the kubelet's cgroups above those of the pods
_ALL_PODS = ("kubepods", "kubepods-burstable", "kubepods-besteffort", "burstable", "besteffort")
#: a virtual machine's process has no heap and no workers to be tuned
_HYPERVISORS = ("qemu-", "kvm", "CPU ", "cloud-hyperviso", "firecracker", "VBoxHeadless", "vmware-vmx")
#: where a setting of vm. lasts
LASTS = "sysctl -w; /etc/sysctl.d/ keeps it"


#: how programs that people know call what bounds them, by the name of the process
_SETTINGS = (
    (r"java", "-Xmx or -XX:MaxRAMPercentage, and room beside the heap"),
    (r"node(?:js)?", "--max-old-space-size"),
    (r"mysqld|mariadbd", "innodb_buffer_pool_size, max_connections"),
    (r"postgres|postmaster", "shared_buffers, work_mem, max_connections"),
    (r"redis-server|valkey-server|memcached", "maxmemory, memcached -m"),
    (r"mongod", "wiredTiger cacheSizeGB"),
    (r"php.*|apache2|httpd", "pm.max_children or MaxRequestWorkers, memory_limit"),
    (r"gunicorn.*|uwsgi.*|celery.*|python[\d.]*|ruby.*|puma.*", "number of workers and what each keeps"),
    (r"prometheus|etcd|influxd|dockerd|containerd|kubelet|kube-\w+|go\w*", "GOMEMLIMIT, what it keeps"),
    (r"cc1|cc1plus|rustc|ld|ld\.\w+|lld|clang\S*", "number of jobs (-j)"),
)


def own_settings(comm: str) -> str:
    """``its own settings (...)`` with those that a known program has; of a hypervisor, which has neither heap
    nor workers, what its guest is given."""
    if comm.startswith(_HYPERVISORS):
        return "the guest's RAM"
    known = next((words for name, words in _SETTINGS if re.fullmatch(name, comm)), None)
    return f"its own settings ({known or 'heap, cache, number of workers'})"


def bound_process(case: Case, comm: str, pid: int | None) -> str:
    """How one process is kept from taking all of the machine."""
    name = harmless_name(comm)
    if pid == 1:
        return (
            "Give the machine more RAM or a smaller initramfs: process 1 itself held the memory, and it "
            "cannot be bounded."
        )
    own = own_settings(comm)
    path = cgroup_of(case, pid)
    found = owned(path, case.container_names) if path else None
    if found is not None and found.kind != "unit":
        whose = f"{found.kind} {harmless_name(found.name)}"
        more = "" if found.kind == "virtual machine" else f", or {own}"
        return f"Bound {name} of {whose}: {found.how or found.what}{more}."
    unit = unit_of(case, pid)
    if unit is not None:
        return f"Bound {name}: MemoryMax= of {unit} (systemctl set-property {unit} MemoryMax=), or {own}."
    if case.systemd is False:
        return f"Bound {name}: {own}, or a cgroup's limit."
    return f"Bound {name}: MemoryMax= of its unit, a container limit, or {own}."


def setting(case: Case, unit: str, otherwise: str) -> str:
    """``TasksMax= of its unit (pids.max)``; where no systemd runs only what is in brackets."""
    return otherwise if case.systemd is False else f"{unit} of its unit ({otherwise})"


def cgroup_of(case: Case, pid: int | None) -> str | None:
    """The cgroup of a process where /proc told it."""
    if case.capture is None or pid is None:
        return None
    return next((f.cgroup for f in case.capture.processes if f.pid == pid and f.cgroup), None)


def unit_of(case: Case, pid: int | None) -> str | None:
    """The unit of a process where /proc told its cgroup."""
    known = cgroup_of(case, pid)
    unit = owner_of(known).unit if known else None
    return None if unit is None else harmless_name(middle_cut(unit, 60))


def is_v1(memcg: Memcg) -> bool | None:
    """Whether the cgroup is of version 1: memory+swap and kmem have counters of their own there alone, swap
    in version 2 alone. None where the report has neither."""
    if memcg.memory_swap is not None or memcg.kmem is not None:
        return True
    if memcg.swap is not None:
        return False
    if any(name in memcg.stat for name in ("total_rss", "rss", "cache")):
        return True
    return False if any(name in memcg.stat for name in ("anon", "file")) else None


def of_all_pods(memcg: Memcg) -> bool:
    """The cgroup is the kubelet's own, above all pods or all of a class."""
    last = (memcg.oom_path or "").rstrip("/").rpartition("/")[2]
    return last.removesuffix(".slice") in _ALL_PODS


def raise_limit(memcg: Memcg, which: str | None, limit: int | None, names: Mapping[str, str]) -> str:
    """``raise WHAT above HOW MUCH``: the knob that whoever manages the cgroup turns. ``names`` are those of
    containers by their ids."""
    above = f" above {size(limit)}" if limit else ""
    if which == "kmem":
        return f"raise or lift memory.kmem.limit_in_bytes{above} (deprecated)"
    old = is_v1(memcg)
    both = old is True and _swap_tied(memcg)
    file = "memory.limit_in_bytes" if old else None if old is None else "memory.max"
    if which == "memory+swap":
        file = "memory.memsw.limit_in_bytes"
    knob = file or "memory.max; cgroup v1: memory.limit_in_bytes"
    path = memcg.oom_path or ""
    if of_all_pods(memcg):
        # the kubelet's own: node capacity less what is reserved, or less what better pods requested
        now = f" (now {size(limit)})" if limit else ""
        return f"raise the kubelet's bound for all pods{now} with a smaller --kube-reserved"
    found = owned(path, names)
    # systemd has no setting for memory and swap together
    if found is not None and not (found.kind == "unit" and (both or which == "memory+swap")):
        return found.raised(Limit(above, knob, swap=both, swap_alone=which == "memory+swap" and not both))
    if both:
        # the memory limit may not be above that of memory and swap together: EINVAL
        where = f" of cgroup {harmless_name(middle_cut(path, 60))}" if path else ""
        most = memcg.memory_swap.limit_bytes if memcg.memory_swap is not None else None
        first = f" above {size(most)}" if most else above
        return f"raise memory.memsw.limit_in_bytes{where}{first} first, then memory.limit_in_bytes"
    where = f" of cgroup {harmless_name(middle_cut(path, 60))}" if path else " of the cgroup"
    return f"raise {file}{where}{above}" if file else f"raise the memory limit{where}{above} ({knob})"


def _swap_tied(memcg: Memcg) -> bool:
    """The memory limit may not be above that of memory and swap together: to double the former alone is
    refused."""
    memory, both = memcg.memory, memcg.memory_swap
    if memory is None or both is None or memory.limit_bytes is None or both.limit_bytes is None:
        return False
    return both.limit_bytes < 2 * memory.limit_bytes


def raise_it(case: Case) -> str:
    """The same for the limit that was hit, as a sentence without its end."""
    memcg = case.report.memcg or Memcg()
    which, counter = limit_hit(case.report)
    limit = counter.limit_bytes if counter is not None else None
    text = raise_limit(memcg, which, limit, case.container_names)
    return text[0].upper() + text[1:]


def raised_first(case: Case, less: str, *, needed: str = "the load needs it") -> str:
    """Of a cgroup: its limit is raised if ``needed``, else ``less`` is done, and how one sees it. The limit
    comes first: with less the work is less, too."""
    return f"{raise_it(case)} if {needed}; else {less}.{begin_with(case)}"


def begin_with(case: Case) -> str:
    """How far a cgroup's limit is raised to begin with, how that lasts, and where one sees what is needed;
    with a blank before it. Empty where the limit is not known or nobody's own."""
    memcg = case.report.memcg or Memcg()
    which, counter = limit_hit(case.report)
    limit = counter.limit_bytes if counter is not None else None
    if not limit or of_all_pods(memcg) or which == "kmem":
        return ""
    spare = case.meminfo_at.get("MemAvailable")
    room = "" if spare is None or spare >= limit else f" (the host has {size(spare)} available)"
    climb = climb_of(case)
    if climb is not None and climb.per_minute:
        longer = duration(60 * limit / climb.per_minute)
        room += f", which at {size(climb.per_minute)} a minute lasts {longer} longer"
    return f" Begin with {size(2 * limit)}{room}{_lasts(case, memcg, 2 * limit)}{_peak(case, memcg, which)}."


def _lasts(case: Case, memcg: Memcg, limit: int) -> str:
    found = owned(memcg.oom_path or "", case.container_names)
    if found is None:
        return ", set where the cgroup is made (it is lost with it)"
    if found.kind == "unit":
        name = harmless_name(middle_cut(found.name, 60))
        return f": systemctl set-property {name} MemoryMax={limit >> 10}K lasts"
    return ""


def _peak(case: Case, memcg: Memcg, which: str | None) -> str:
    """The kernel's own high-water mark; version 2 has it from 5.19 on."""
    old = is_v1(memcg)
    if old is None or (not old and case.kernel_at_least(5, 19) is not True):
        return "; no further oom_kill in memory.events shows that it suffices" if old is False else ""
    both = which == "memory+swap"
    file = f"memory.{'memsw.' if both else ''}max_usage_in_bytes" if old else "memory.peak"
    return f"; {file} then shows what it needs"


def duration(seconds: float) -> str:
    """``75 s``, ``12 minutes``; one second at least."""
    whole = max(int(seconds), 1)
    return f"{whole} s" if whole < 120 else f"{whole // 60} minutes"
