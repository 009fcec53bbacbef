"""Much of RAM was reserved at boot.

A zone line prints what is ``present`` and what is ``managed``. The difference was reserved before the page
allocator started and never comes back. A few percent are normal (the kernel itself, the page structures).
More comes from a crash kernel (``crashkernel=``), reserved regions of the device tree or the firmware,
``memmap=``, or a debugging kernel (KASAN takes an eighth). Huge pages reserved at boot are not included.

The first lines of the boot log show it: "Memory: ...K/...K available".
"""

from __future__ import annotations

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless

ID = "ram_reserved_large"
TITLE = "Much of RAM was set aside at boot"

#: Shares of RAM.
_LARGE, _HUGE = 0.25, 0.40
#: What every machine reserves: a share of RAM for page structures (64 bytes a page) and hash tables, and
#: bytes for the kernel's image, firmware and initial data.
_USUAL, _IMAGE = 0.02, 80 << 20
#: Parameters of the command line that reserve memory.
_RESERVES = ("crashkernel", "memmap", "cma", "movablecore", "swiotlb", "log_buf_len", "reserve_mem")


def find(case: Case) -> Claim | None:
    if case.in_cgroup:
        return None
    whole, reserved = case.ledger.whole_bytes, case.ledger.held("reserved")
    bare = case.report.memory is None
    if whole is None or reserved is None or bare:
        return None
    limit = _limited(case)
    if reserved < _LARGE * whole and limit is None:
        return None
    excess = reserved - int(_USUAL * whole) - _IMAGE
    why = _why(case)
    text = f"{case.ledger.percent(reserved)} {case.of} is reserved"
    others = "not handed over yet, or crashkernel= ..." if case.early else "crashkernel=, balloon ..."
    if case.is_crash_kernel:
        others = f"of the {size(whole)} that crashkernel= gave this crash kernel"
    text += f" ({why or others})"
    if limit is not None:
        text = f"the kernel may use {size(whole)} only ({limit})"
    return Claim(
        finding=Finding(
            id=ID,
            severity="warning" if reserved >= _HUGE * whole or limit else "info",
            title=TITLE if limit is None else "The command line limits RAM",
            explanation=f"Of {size(whole)}, {size(reserved)} ({percent(reserved, whole)}) are not the page "
            "allocator's: reserved at boot (crashkernel=, memmap=, firmware, the kernel itself), taken out "
            "since by the hypervisor's balloon, or, in the first seconds, not handed over yet."
            + (f" The command line has {limit}: the machine may have more RAM." if limit else "")
            + (f" The command line has {why}." if why and limit is None else "")
            + case.spare(excess),
            evidence={
                "present_bytes": whole,
                "reserved_bytes": reserved,
                "reserved_share_ratio": case.ledger.share(reserved),
            },
            advice=_advice(case, limit, why) if reserved >= _LARGE * whole or limit else "",
        ),
        cause=Cause(
            tier=Tier.TAKEN,
            text=text,
            # what a crash kernel lacks is RAM, whoever has the rest of it
            excess_bytes=whole if limit is not None or case.is_crash_kernel else excess,
        )
        if limit is not None or (reserved >= _LARGE * whole and case.decides(excess))
        else None,
    )


def _limited(case: Case) -> str | None:
    """Live: ``mem=`` on the kernel command line. The kernel does not count RAM above it."""
    value = case.facts.command_line.get("mem")
    return f"mem={harmless(value)}" if value and value != "nopentium" else None


def _why(case: Case) -> str:
    """Live: the parameters of the kernel command line that reserve memory."""
    line, whole = case.facts.command_line, case.ledger.whole_bytes or 0
    return ", ".join(
        f"{n}={harmless(line[n])}"
        for n in _RESERVES
        if n in line and (n != "log_buf_len" or _bytes(line[n]) > _USUAL * whole)
    )


def _bytes(text: str) -> int:
    """``4M`` (memparse()); 0 for what is no size."""
    number, unit = text.rstrip("KMGkmg"), text[-1:].upper()
    return (
        int(number) << {"K": 10, "M": 20, "G": 30}.get(unit, 0)
        if number.isdecimal() and len(number) < 20
        else 0
    )


def _advice(case: Case, limit: str | None, why: str) -> str:
    if limit is not None:
        return f"Take {limit} away from the kernel's command line (boot loader; /proc/cmdline shows it)."
    if case.is_crash_kernel:
        return (
            "Reserve more for the crash kernel: a larger crashkernel= on the command line of the kernel that "
            f"crashes (now about {size(case.ledger.whole_bytes or 0)}), or have it need less (nr_cpus=1, "
            "swiotlb=, fewer drivers in its initramfs)."
        )
    if why:
        return f"See the boot log and lower {why} on the kernel's command line (boot loader), or add RAM."
    if case.early:
        caller = f" ({harmless(case.caller)}, by the call trace)" if case.caller else ""
        return (
            "See the boot log (Memory: ...K available, crashkernel=, memmap=) for what is reserved. Where "
            "struct pages are initialised late (CONFIG_DEFERRED_STRUCT_PAGE_INIT) most of RAM is handed over "
            f"a moment later: what asks before{caller} has to ask for less."
        )
    return (
        "See the boot log (Memory: ...K available), crashkernel=, memmap= and swiotlb= (/proc/cmdline), the "
        "device tree's reserved-memory and, in a virtual machine, the hypervisor's balloon; lower what takes "
        "most."
    )
