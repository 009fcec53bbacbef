"""lib/dump_stack.c: who was running on which kernel; arch stack dumps, of which only symbols matter."""

from __future__ import annotations

from oomwatchd.formats import QUOTES, Copies, Form, Match, Role, Section, Unspaced, marks_a_place, rx
from oomwatchd.formats.parts import Parts
from oomwatchd.words.deferred import deferred

#: taint letters stand in fixed columns; the release is the first word that begins with a digit
_KERNEL = (
    r"(?:Kdump: loaded )?(?:Not tainted\s*|Tainted:[A-Z\s()\-]*)"
    r"(?P<release>\d+\.\d\S*)(?: (?P<build>.*))?$"
)

_BUILD_END = r"#\d+[^#]{0,120}"
_DUMP_WORDS = r"Comm:|PID:|UID:|Tainted:|Not|tainted|Kdump:|loaded|#\d+\S*|\d+\.\d+\.\d\S*|PREEMPT\S*"
_UNSPACED_DUMP = Unspaced(
    r"(?:CPU:\d+(?:UID:\d+)?PID:\d+Comm:|Pid:\d+,comm:)",
    (
        (r"^(CPU|Pid):", r"\1: "),
        (r"(?<=\d)(PID|UID):", r" \1: "),
        (r"(?<=\d)Comm:", " Comm: "),
        (r",comm:", ", comm: "),
        (r"Nottainted", " Not tainted "),
        (r"(?=Tainted:)", " "),
        (r"(?=#\d)", " "),
        (r"(?<=: \d)UID", " UID"),
    ),
)


def is_named(header: str | None, comm: str) -> bool:
    """Whether a raw record that names a task can belong to the report with this header."""
    return header is None or header.strip(" \t") == comm.strip(" \t")


#: what a copy's line has behind the release: quotation marks, commas
_BEHIND_RELEASE = deferred(r"[\"',;`\u201d].*")


def _read_dump(parts: Parts, m: Match) -> None:
    trigger, dump = parts.trigger, parts.dump
    if parts.raw and not is_named(trigger.comm, m["comm"]):
        return  # another process' dump (of a fatal signal), which broke into this report
    if trigger.pid is not None and dump.release is not None:
        return  # a second dump_stack() inside the block is not the trigger's
    if parts.outcome.panic:
        dump.release = dump.release or m["release"]
        trigger.panicked = trigger.panicked or (m["comm"], int(m["pid"]))
        return  # panic()'s own
    groups = m.groupdict()
    trigger.pid = int(m["pid"])
    trigger.cpu = int(groups["cpu"]) if groups.get("cpu") else None
    trigger.uid = int(groups["uid"]) if groups.get("uid") else None
    dump.release = m["release"]
    if dump.release is not None and not parts.raw:
        dump.release = _BEHIND_RELEASE.sub("", dump.release)
    # the header has the same name; in a text, one of the two may have lost its first word to a prefix, or
    # may still hold part of one
    header, name = trigger.comm, m["comm"]
    if header is None or (
        not parts.raw
        and (name.endswith(f" {header}") or header.endswith(f" {name}") or name.lstrip(QUOTES) == header)
    ):
        trigger.comm = name


CPU = Form(
    name="cpu",
    section=Section.STACK,
    open_ended=True,
    role=Role.DUMP,
    begins=("CPU:",),
    pattern=rx(
        r"CPU: ?(?P<cpu>\d+) (?:UID: ?(?P<uid>\d+) )?PID: ?(?P<pid>\d+) Comm: (?P<comm>.*?)"
        r"(?: " + _KERNEL + r"|$)"
    ),
    repeats_comm=True,
    copies=Copies(
        start=r"CPU: \d+ (?:UID|PID)",
        end=_BUILD_END,
        words=_DUMP_WORDS,
        closed=False,
        inner=r"CPU: \d+ (?:UID: \d+ )?PID: ",
        unspaced=_UNSPACED_DUMP,
    ),
    reads=_read_dump,
    samples=(
        "CPU: 0 PID: 118 Comm: min_free_kbytes Not tainted 3.10.14-00062-g277665d-dirty #322",
        "CPU: 1 UID: 0 PID: 167 Comm: labbox Tainted: G        W          6.12.94+deb13-cloud-amd64 #1  "
        "Debian 6.12.94-1",
        "CPU: 3 PID: 5 Comm: a b Kdump: loaded Not tainted 4.18.0-147.el8.x86_64 #1",
    ),
    source="lib/dump_stack.c dump_stack_print_info(), 3.10+",
)

PID = Form(
    name="pid",
    section=Section.STACK,
    open_ended=True,
    role=Role.DUMP,
    begins=("Pid:",),
    pattern=rx(r"Pid: ?(?P<pid>\d+), comm: +(?P<comm>.*?)(?: " + _KERNEL + r"|$)"),
    repeats_comm=True,
    copies=Copies(
        start=r"Pid: \d+, comm:",
        end=_BUILD_END,
        words=_DUMP_WORDS,
        closed=False,
        inner=r"Pid: \d+, comm: ",
        unspaced=_UNSPACED_DUMP,
    ),
    reads=_read_dump,
    samples=("Pid: 2543, comm: stress Not tainted 2.6.32-5-amd64 #1",),
    source="arch show_regs_common(), dump_stack(), 2.6.29 to 3.9",
)

HARDWARE = Form(
    name="hardware",
    section=Section.STACK,
    open_ended=True,
    role=Role.BODY,
    begins=("Hard",),
    pattern=rx(r"Hardware name: (?P<hardware>.*)$"),
    copies=Copies(
        start=r"Hardware name:",
        end=r"\d\d/\d\d/\d{4}|\((?:DT|Flattened Device Tree|LPAR|z/VM)[^()]*\)",
        inner=r"Hardware name: ",
    ),
    reads=marks_a_place,
    samples=("Hardware name: QEMU Standard PC (i440FX + PIIX, 1996), BIOS 1.16.2-1 04/01/2014",),
    source="lib/dump_stack.c dump_stack_print_info(), 3.10+",
)

CALL_TRACE = Form(
    name="call_trace",
    section=Section.STACK,
    role=Role.BODY,
    begins=("Call", "Back"),
    pattern=rx(r"(?:Call [Tt]race|Backtrace):.*"),
    copies=Copies(start=r"Call [Tt]race:|Backtrace:|</?(?:TASK|IRQ|NMI)>", end="", inner=r"Call [Tt]race:"),
    reads=marks_a_place,
    samples=("Call Trace:", "Call trace:", "Backtrace: "),
    source="arch show_stack()",
)

FORMS = (CPU, PID, HARDWARE, CALL_TRACE)

#: begins at the beginning of a word, so that a long word is tried only once
_SYMBOL = deferred(r"(\?\s*)?(?<![\w.$])[\d.$]*([A-Za-z_][\w.$]*)\+0x[0-9a-f]+/0x[0-9a-f]+")
#: scripts/decode_stacktrace.sh puts the source line in the place of the offset
_DECODED = deferred(r"^\s*(\? )?([A-Za-z_][\w.$]*) \([\w./-]+:\d+(?: [^)]*)?\)")
_ARM = deferred(r"(?:\(([\w.]+)\) from|^\s*([\w.]+) from [\w.]+\+0x)")
_X86_64 = deferred(r"\bR(?:IP|SP|AX|BP): ")
#: registers, or entries that the unwinder is unsure of (only x86 marks those), in the kernel's part
_I386 = deferred(r"\bE(?:IP|AX): |\[<[c-f][0-9a-f]{7}>\] \? [a-z_]")


#: a line of a call trace on any architecture: addresses, functions, modules, and what stands between
_TRACE = deferred(
    r"[ \t]*(?:(?:\(?\[<?[0-9a-f]{4,16}>?\]|<[0-9a-f]{4,16}>|\(?[\w.$]{1,200}\+0x[0-9a-f]+/0x[0-9a-f]+\)?"
    r"|\([\w.$]{1,200}\)|\[\w[\w .-]{0,120}\]|\?|from|[ER]?IP:|[0-9a-f]{4}:|NIP|LR|pc|lr|:)"
    r"(?:[ \t]+|$|(?=[\w\[(])))+$"
)


def is_trace(text: str) -> bool:
    """Whether the whole record is a line of a call trace."""
    return _TRACE.match(text) is not None


#: what any line of a stack dump holds: an address, a word of the stack, an offset, a decoded source line
_DUMPED = deferred(
    r"(?<![\w.-])(?:0x)?(?:[0-9a-f]{8}|[0-9a-f]{16})(?![\w.-])|\+0x[0-9a-f]+/0x|\([\w./-]+\.[chS]:\d+"
)


def is_dumped(text: str) -> bool:
    """Whether the line may be one of a stack dump: others' lines stand between those of a report too."""
    return _DUMPED.search(text) is not None


def symbols(text: str, *, raw: bool = False, unsure: bool = False) -> list[str]:
    """The functions of one stack line, in order (re-flowed text has several). Registers and addresses give
    none; entries that the unwinder marks as unsure (``?``) only if ``unsure`` asks for them. ``raw``: the
    text is a whole record, so it gives none if it holds words that no call trace has."""
    if raw and not is_trace(text):
        return []
    if " from" in text and (found := _ARM.findall(text)):
        return [bracketed or plain for bracketed, plain in found]
    if " (" in text and (decoded := _DECODED.match(text)):
        return [] if decoded[1] else [decoded[2]]
    return [name for mark, name in _SYMBOL.findall(text) if unsure or not mark] if "+0x" in text else []


def unsure_symbols(text: str) -> list[str]:
    """The functions of a stack line that the unwinder marks as unsure (``?``): found on the stack, perhaps
    left there by an earlier call."""
    return (
        [name for unsure, name in _SYMBOL.findall(text) if unsure] if "? " in text and "+0x" in text else []
    )


_ARCH_SUFFIX = deferred(
    r"(?:^|[.\-_+])(x86_64|amd64|aarch64|arm64|ppc64le|ppc64|s390x|i[3-6]86|riscv64|loongarch64|sparc64|armv7hl|armmp)(?:$|[.\-_+])"
)
_ARCH = {"amd64": "x86_64", "arm64": "aarch64", "armv7hl": "arm", "armmp": "arm"}


def architecture(release: str | None, stack: list[str]) -> str | None:
    """The machine as ``uname -m`` names it, from the release's own suffix or the register names in
    the stack dump; None when neither tells."""
    if release and (m := _ARCH_SUFFIX.search(release)):
        return _ARCH.get(m[1], m[1])
    for line in stack:
        if _X86_64.search(line):
            return "x86_64"
        if _I386.search(line):
            return "i686"
        if ") from [<" in line:
            return "arm"
    return None
