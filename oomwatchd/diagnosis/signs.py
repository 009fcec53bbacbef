"""What the lines of a report tell of the machine beside their figures: its width, its age, its hypervisor.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from oomwatchd.diagnosis.ledger import total
from oomwatchd.formats.dump_stack import HARDWARE
from oomwatchd.records.report import OomReport
from oomwatchd.words.deferred import deferred

#: An address of 32 bit in a call trace (kernels up to 4.9, ARM later too).
_ADDRESS_32 = deferred(r"\[<[0-9a-f]{8}>\]")
#: "Tainted: G           OE": O is a module from out of tree, P a proprietary one, E one without a signature
#: (Documentation/admin-guide/tainted-kernels.rst); 6.11+ spells them out: [O]=OOT_MODULE
_TAINT = deferred(r"\bTainted: (?:\[\w\]=\w+, )*([A-Z ]*[OPE][A-Z ]*)|\[[OE]\]=(?:OOT|UNSIGNED)_MODULE")
_LINKED = deferred(r"\bModules linked in:(.*)")
_MARKED = deferred(r"([\w-]+)\((?=[A-Z]*[OEP])[A-Z]+[+-]?\)")
#: Largest number of modules that are named.
_MODULES = 8
#: The counters of user memory.
_LISTS = ("active_anon", "inactive_anon", "active_file", "inactive_file")
#: The DMI names of virtual machines, with the hypervisor's name.
_BALLOONS = (("Microsoft Corporation Virtual Machine", "Hyper-V"), ("VMware", "VMware"))

Release = tuple[int, int]


def has_32_bit(report: OomReport, text: str) -> bool:
    """Whether the kernel has 32 bit, by a zone HighMem, the addresses of its trace, or more user memory than
    the printed zones of a machine without NUMA could hold. ``text``: all lines of the report."""
    memory = report.memory
    zones = memory.zones if memory is not None else ()
    if any(z.zone == "HighMem" for z in zones) or _ADDRESS_32.search(text):
        return True
    if memory is None or not zones or any(z.node is not None for z in zones):
        return False
    lists = sum(total(memory, name) or 0 for name in _LISTS)
    managed = sum(z.bytes_of("managed") or z.bytes_of("present") or 0 for z in zones)
    normal = any(z.zone == "Normal" for z in zones)
    return bool(memory.highmem_bytes) or (normal and lists > managed > 0)


def is_crash_kernel(report: OomReport) -> bool:
    """Whether a crash kernel (kdump) made the report: of the first megabyte a PC's crash kernel has only what
    the crashed kernel did not need, while every other kernel has all 16 MiB of zone DMA."""
    zones = report.memory.zones if report.memory is not None else ()
    present = [z.bytes_of("present") for z in zones if z.zone == "DMA"]
    pc = any(z.zone == "DMA32" for z in zones)
    return pc and any(amount is not None and 0 < amount < 1 << 20 for amount in present)


def uncounted_balloon(text: str) -> str | None:
    """The hypervisor whose balloon takes pages that no counter includes (hv_balloon.c, vmw_balloon.c);
    virtio's and Xen's balloon make RAM smaller instead (adjust_managed_page_count()). ``text``: all lines of
    the report."""
    found = (HARDWARE.pattern.search(line) for line in _lines_with("Hardware name", text))
    name = next((m["hardware"] for m in found if m is not None), "")
    return next((words for start, words in _BALLOONS if name.startswith(start)), None)


def foreign_modules(text: str) -> tuple[str, ...] | None:
    """The names of out-of-tree or unsigned modules, the last loaded first. () if the kernel says only that it
    has one, None if it reports none. ``text``: all lines of the report."""
    for line in _lines_with("Modules linked in:", text):
        linked = _LINKED.search(line)
        if linked and (names := tuple(m[1] for m in _MARKED.finditer(linked[1]))):
            return names[:_MODULES]
    tainted = (*_lines_with("Tainted: ", text), *_lines_with("_MODULE", text))
    return () if any(map(_TAINT.search, tainted)) else None


def _lines_with(words: str, text: str) -> list[str]:
    return [line for line in text.split("\n") if words in line] if words in text else []


def age(report: OomReport) -> tuple[Release, Release]:
    """The oldest release that prints such lines, and the first that no longer does."""
    memory = report.memory
    oldest, before = (2, 6), (99, 0)
    if memory is not None and memory.nodes:
        oldest = (4, 8)
    named = {name for z in memory.zones for name in z.amounts} if memory is not None else set()
    for name, since in (("reserved_highatomic_bytes", (5, 6)), ("boost_bytes", (5, 16))):
        oldest = max(oldest, since) if name in named else oldest
    if "present_bytes" in named and "managed_bytes" not in named:
        before = (3, 9)
    if "writeback_tmp_bytes" in named:
        before = min(before, (4, 8))  # then the nodes' lines have it
    if report.trigger.oom_adj is not None:
        before = min(before, (3, 7))
    return oldest, before
