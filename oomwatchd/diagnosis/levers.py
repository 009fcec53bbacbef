"""The words of the advice: which setting to change, to what value, and where to write it so that it lasts.

The advice fits the host: systemd or not, cgroup v1 or v2, the kernel's age, the owner of the cgroup. If one
of these is unknown, the advice names both settings.

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

#: Share of the memory limit. A larger memory limit that gives less, because memory and swap together stay
#: bounded, is not worth setting.
_GAIN = 0.5
#: The kubelet's cgroups above those of the pods.
_ALL_PODS = ("kubepods", "kubepods-burstable", "kubepods-besteffort", "burstable", "besteffort")
#: Names of hypervisor processes. They have no heap and no workers to tune.
_HYPERVISORS = ("qemu-", "kvm", "CPU ", "cloud-hyperviso", "firecracker", "VBoxHeadless", "vmware-vmx")
#: How a vm. setting is made to last.
LASTS = "sysctl -w; /etc/sysctl.d/ keeps it"


#: The memory settings of well-known programs, by process name.
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
    """``its own settings (...)`` with those of a known program. For a hypervisor, which has neither heap nor
    workers, the memory of its guest."""
    if comm.startswith(_HYPERVISORS):
        return "the guest's RAM"
    known = next((words for name, words in _SETTINGS if re.fullmatch(name, comm)), None)
    return f"its own settings ({known or 'heap, cache, number of workers'})"


def bound_process(case: Case, comm: str, pid: int | None) -> str:
    """How to keep one process from using all of the machine's memory."""
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


def make_room(case: Case) -> str:
    """``Add swap (...) or RAM``, for memory that is rightly held: whoever asked beside it needs room, too.
    Without a full stop. The first amount is twice what that one has, between a quarter and half of RAM."""
    swap = case.report.memory.swap if case.report.memory is not None else None
    if swap is None or swap.total_bytes != 0:
        return "Add RAM"
    asked = next((p.bytes for p in case.processes if p.pid == case.report.trigger.pid), 0)
    ram = case.ram_bytes or 0
    begin = min(max(2 * asked, ram // 4), ram // 2)
    return f"Add swap (there is none; begin with {size(begin)}: mkswap, swapon; /etc/fstab keeps it) or RAM"


def setting(case: Case, unit: str, otherwise: str) -> str:
    """``TasksMax= of its unit (pids.max)``; without systemd only the part in parentheses."""
    return otherwise if case.systemd is False else f"{unit} of its unit ({otherwise})"


def cgroup_of(case: Case, pid: int | None) -> str | None:
    """The cgroup of a process, if /proc showed it."""
    if case.capture is None or pid is None:
        return None
    return next((f.cgroup for f in case.capture.processes if f.pid == pid and f.cgroup), None)


def unit_of(case: Case, pid: int | None) -> str | None:
    """The unit of a process, if /proc showed its cgroup."""
    known = cgroup_of(case, pid)
    unit = owner_of(known).unit if known else None
    return None if unit is None else harmless_name(middle_cut(unit, 60))


def is_v1(memcg: Memcg) -> bool | None:
    """Whether the cgroup is v1. Only v1 has counters for memory+swap and kmem, only v2 has one for swap. None
    if the report has none of them and no telling statistics."""
    if memcg.memory_swap is not None or memcg.kmem is not None:
        return True
    if memcg.swap is not None:
        return False
    if any(name in memcg.stat for name in ("total_rss", "rss", "cache")):
        return True
    return False if any(name in memcg.stat for name in ("anon", "file")) else None


def of_all_pods(memcg: Memcg) -> bool:
    """Whether the cgroup is the kubelet's own, above all pods or above all pods of a QoS class."""
    last = (memcg.oom_path or "").rstrip("/").rpartition("/")[2]
    return last.removesuffix(".slice") in _ALL_PODS


def raise_limit(memcg: Memcg, which: str | None, limit: int | None, names: Mapping[str, str]) -> str:
    """``raise WHAT above HOW MUCH``, with the setting of the cgroup's manager. ``names`` are the names of
    containers, by id."""
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
        # the kubelet computes it: node capacity minus reservations, or minus requests of better QoS classes
        now = f" (now {size(limit)})" if limit else ""
        return f"raise the kubelet's bound for all pods{now} with a smaller --kube-reserved"
    found = owned(path, names)
    # systemd has no setting for memory and swap together
    if found is not None and not (found.kind == "unit" and (both or which == "memory+swap")):
        return found.raised(Limit(above, knob, swap=both, swap_alone=which == "memory+swap" and not both))
    if both:
        # EINVAL if the memory limit exceeds the limit of memory and swap together
        where = f" of cgroup {harmless_name(middle_cut(path, 60))}" if path else ""
        most = memcg.memory_swap.limit_bytes if memcg.memory_swap is not None else None
        first = f" above {size(most)}" if most else above
        return f"raise memory.memsw.limit_in_bytes{where}{first} first, then memory.limit_in_bytes"
    where = f" of cgroup {harmless_name(middle_cut(path, 60))}" if path else " of the cgroup"
    return f"raise {file}{where}{above}" if file else f"raise the memory limit{where}{above} ({knob})"


def _swap_tied(memcg: Memcg) -> bool:
    """Whether to double the memory limit alone is of no use: it may not exceed the limit of memory and swap
    together, and what is in swap already counts for that limit."""
    memory, both = memcg.memory, memcg.memory_swap
    if memory is None or both is None or memory.limit_bytes is None or both.limit_bytes is None:
        return False
    left = both.limit_bytes - both.usage_bytes
    return both.limit_bytes < 2 * memory.limit_bytes or left < _GAIN * memory.limit_bytes


def raise_it(case: Case) -> str:
    """``Raise WHAT above HOW MUCH`` for the limit that was hit, without a full stop."""
    memcg = case.report.memcg or Memcg()
    which, counter = limit_hit(case.report)
    limit = counter.limit_bytes if counter is not None else None
    text = raise_limit(memcg, which, limit, case.container_names)
    return text[0].upper() + text[1:]


def raised_first(case: Case, less: str, *, needed: str = "the load needs it") -> str:
    """The advice for a cgroup: raise its limit if ``needed``, else do ``less``, and how to check the result.
    Raising comes first, because using less memory also means doing less work."""
    return f"{raise_it(case)} if {needed}; else {less}.{begin_with(case)}"


def begin_with(case: Case) -> str:
    """A first value for a cgroup's limit, how to make it last, and where to see what is needed; starts with a
    space. Empty if the limit is unknown or not set by a user."""
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
        return ", set where the cgroup is made"
    if found.kind == "unit":
        name = harmless_name(middle_cut(found.name, 60))
        return f": systemctl set-property {name} MemoryMax={limit >> 10}K lasts"
    return ""


def _peak(case: Case, memcg: Memcg, which: str | None) -> str:
    """Where to read the kernel's high-water mark; v2 has one since 5.19."""
    old = is_v1(memcg)
    if old is None or (not old and case.kernel_at_least(5, 19) is not True):
        return "; no further oom_kill in memory.events shows that it suffices" if old is False else ""
    both = which == "memory+swap"
    file = f"memory.{'memsw.' if both else ''}max_usage_in_bytes" if old else "memory.peak"
    return f"; {file} then shows what it needs"


def duration(seconds: float) -> str:
    """``75 s``, ``12 minutes``; at least one second."""
    whole = max(int(seconds), 1)
    return f"{whole} s" if whole < 120 else f"{whole // 60} minutes"
