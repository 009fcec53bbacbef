"""Who may hold the kernel memory that no counter names: what a live host says, and what taints say offline.

Some facts are amounts (BPF's memlock, vmalloc by caller, sockets' pages), some are counts alone: a process
with thousands of pipes or sockets open. A kernel with modules from out of tree says so in every dump.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Container

import msgspec

from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.facts import Held
from oomwatchd.diagnosis.levers import setting
from oomwatchd.words.amounts import size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import plural

#: kind -> (fewer have no memory behind them that matters; what one is called; a hint)
_KINDS = {
    "pipe": (500, "pipe", "fs.pipe-user-pages-soft bounds their buffers"),
    "socket": (500, "socket", "ss -xtm shows what is queued; net.core.wmem_max bounds one"),
    "io_uring": (32, "io_uring", "RLIMIT_MEMLOCK bounds rings of older kernels"),
    "bpf": (32, "BPF object", "memlock in fdinfo, bpftool map"),
    "all": (1000, "descriptor", "ls -l /proc/PID/fd shows of what kind"),
}
#: "Tainted: G           OE": O is a module from out of tree, P a proprietary one (Documentation/admin-guide/
#: tainted-kernels.rst); 6.11+ spells them out: [O]=OOT_MODULE
_TAINT = re.compile(r"\bTainted: (?:\[\w\]=\w+, )*([A-Z ]*[OP][A-Z ]*)|\[O\]=OOT_MODULE")
_BPF = re.compile(r"bpf_map_|array_map_|htab_|bpf_prog_|queue_stack_map_|ringbuf_map_|trie_")
_MODULE = re.compile(r"\[([\w-]+)\]$")


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody, in words, and what is done about it; ``amount`` is 0 where only a count is known."""

    amount: int
    text: str
    lever: str


def by_amount(case: Case) -> list[Suspect]:
    """Those whose amount is known, the largest first."""
    facts, page = case.facts, case.report.page_size_bytes or 4096
    found = [
        _held(h, f"BPF of {_who(h)}", "bpftool map, or memlock in its fdinfo; end it or bound its maps")
        for h in facts.bpf[:1]
    ]
    found += [
        _held(h, f"packet rings of {_who(h)}", "ss -0mp; end it, or give it smaller rings")
        for h in facts.packet[:1]
    ]
    zram = sum(h.amount for h in facts.zram) or facts.zspages * page
    if zram:
        lever = "zramctl shows it; lower disksize or mem_limit of the zram device, or add RAM"
        found.append(Suspect(amount=zram, text="compressed swap (zram, zswap)", lever=lever))
    sockets = sum(facts.sockets.values()) * page
    if sockets:
        lever = "ss -tump shows whose; have it read what is queued, or bound net.ipv4.tcp_mem"
        found.append(Suspect(amount=sockets, text="buffers of network sockets", lever=lever))
    for h in facts.vmalloc[:1]:
        module, bpf = _MODULE.search(h.name), _BPF.match(h.name)
        if h.name.startswith("pcpu_"):
            continue  # per-CPU data, which has a counter of its own
        lever = "/proc/vmallocinfo shows it"
        if module:
            lever = f"unload or update that module (rmmod {module[1]})"
        elif bpf:
            lever = "bpftool map shows whose; end it or make its maps smaller"
        found.append(_held(h, f"vmalloc by {harmless_name(h.name)}{' (BPF maps)' if bpf else ''}", lever))
    return sorted(found, key=lambda s: -s.amount)


def by_count(case: Case, of: Container[int | str] | None = None) -> Suspect | None:
    """Who has many descriptors of a kind, of these processes (by pid or name: a daemon in a container
    sees other pids than the log has); None where nobody has many."""
    held = [
        (h.amount / _KINDS[kind][0], kind, h)
        for kind, h in case.facts.descriptors.items()
        if kind in _KINDS and (of is None or h.pid in of or h.name in of)
    ]
    most = max(held, key=lambda one: one[0], default=None)
    if most is None or most[0] < 1:
        return None
    _, kind, h = most
    _, noun, hint = _KINDS[kind]
    limit = setting(case, "LimitNOFILE=", "ulimit -n")
    name, opened = harmless_name(h.name), plural(h.amount, noun)
    return Suspect(
        amount=0,
        text=f"{name} has {opened} open",
        lever=f"see ls -l /proc/{h.pid}/fd of {name}, which has {opened} open; end it, or bound it ({limit}; "
        f"{hint})",
    )


def modules(case: Case) -> tuple[str, ...] | None:
    """Modules from out of tree by name; () where the kernel only says that it has one, None where it does "
    "not."""
    named = case.facts.modules
    records = case.capture.records if case.capture is not None else ()
    tainted = any(_TAINT.search(record.text) for record in records)
    return named if named or tainted else None


def _held(held: Held, text: str, lever: str) -> Suspect:
    return Suspect(amount=held.amount, text=text, lever=lever)


def _who(held: Held) -> str:
    return f"{harmless_name(held.name)} (pid {held.pid})"


def told(suspect: Suspect) -> str:
    """``BPF of tracer (pid 7) 256 MiB``."""
    return f"{suspect.text} {size(suspect.amount)}" if suspect.amount else suspect.text
