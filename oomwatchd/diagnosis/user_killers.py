"""Kills by daemons that act before the kernel has to: earlyoom and nohang, by their log lines.

They watch how much memory and swap is left and send a signal to one process. The kernel counts no OOM kill.
systemd-oomd, which kills whole cgroups, has its own module (:mod:`.oomd`).

Sources: earlyoom ``kill.c`` (``kill_process()``, 1.0 to 1.8) and ``main.c``; nohang ``src/nohang``
(``implement_corrective_action()``).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import Part
from oomwatchd.words.amounts import size
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name

#: Parts after a name are anchored at the end of the line, because a name may contain anything.
_EARLYOOM = deferred(
    r"sending (?P<signal>SIG[A-Z]{3,4}) to process (?P<pid>\d{1,10})(?: uid (?P<uid>\d{1,10}))?"
    r" \"(?P<comm>.{0,80})\": (?:oom_score|badness) (?P<score>-?\d{1,6})"
    r"(?:, [a-z_]+ [^,]{1,40})*?, VmRSS (?P<rss>\d{1,12}) MiB"
    r"(?:, (?:ordering \S+, )?cmdline \"(?P<cmdline>.*)\")?\s*\Z",
    re.DOTALL,
)
_LEFT = deferred(
    r"mem avail: *(?P<mem>\d{1,12})(?: of +\d+)? MiB \( ?(?P<mem_share>[\d.]{1,6}) ?%\),"
    r" swap free: *(?P<swap>\d{1,12})(?: of +\d+)? MiB \( ?(?P<swap_share>[\d.]{1,6}) ?%\)"
)
#: After the line that names the victim, with ``--dryrun``: there was no kill.
_NOT_SENT = "dryrun, not actually sending any signal"
_NOHANG = deferred(r"\s*(?:\[ OK \] )?Sending (?P<signal>SIG[A-Z]{3,4}) to the victim\b")
_NOHANG_VICTIM = deferred(
    r"\s*(?:PID|Pid): (?P<pid>\d{1,10}), [Nn]ame: (?P<comm>.{1,80}?), [Bb]adness: (?P<score>-?\d{1,6})"
)


class UserKill(Part, frozen=True, kw_only=True):
    """One process that a daemon killed. A field is None if the daemon did not log it.

    ``signal`` is the last signal that was sent, ``score`` the badness of the process. ``available_bytes`` and
    ``swap_free_bytes`` are what was left, with their shares of the whole.
    """

    program: str
    pid: int | None = None
    comm: str | None = None
    uid: int | None = None
    signal: str | None = None
    score: int | None = None
    rss_bytes: int | None = None
    command_line: str | None = None
    available_bytes: int | None = None
    available_ratio: float | None = None
    swap_free_bytes: int | None = None
    swap_free_ratio: float | None = None


def kills(program: str, text: str) -> bool:
    """Whether the program says in this line that it sends a signal to a process."""
    return (_EARLYOOM if program == "earlyoom" else _NOHANG).match(text) is not None


def tells(program: str, text: str) -> bool:
    """Whether this line names the victim or the memory that was left, or says that no signal was sent."""
    return (_LEFT if program == "earlyoom" else _NOHANG_VICTIM).match(text) is not None or _is_dry(
        program, text
    )


def _is_dry(program: str, text: str) -> bool:
    return program == "earlyoom" and text.startswith(_NOT_SENT)


#: Largest number of lines of one kill.
_MAX_LINES = 8


class Kills:
    """Groups the lines of these programs by kill: what was left, the chosen process, then the signal.

    A second signal to the same process belongs to the same kill. A kill is therefore returned when something
    else follows it, or by :meth:`end`.
    """

    def __init__(self) -> None:
        self._announced: dict[str, list[KmsgRecord]] = {}
        self._sent: dict[str, list[KmsgRecord]] = {}

    def feed(self, program: str, record: KmsgRecord) -> list[KmsgRecord]:
        """The lines of the previous kill if this line ends it, else nothing."""
        if kills(program, record.text):
            sent = self._sent.get(program)
            earlier = self._announced.pop(program, [])
            if sent is not None and _pid(program, [record]) in (None, _pid(program, sent)) and not earlier:
                sent.append(record)
                return []
            out = self.end(program)
            self._sent[program] = [*earlier, record]
            return out
        if _is_dry(program, record.text):
            self.end(program)
            return []
        if tells(program, record.text):
            out = self.end(program) if program == "nohang" else []
            self._announced[program] = [*self._announced.get(program, []), record][-_MAX_LINES:]
            if program == "earlyoom":
                self._announced[program] = [record]  # the program logs what is left every few seconds
            return out
        return []

    @property
    def under_way(self) -> list[tuple[str, KmsgRecord]]:
        """The programs that have sent a signal, with the last line of each."""
        return [(program, records[-1]) for program, records in self._sent.items()]

    def end(self, program: str) -> list[KmsgRecord]:
        """The lines of the program's current kill, when no more lines follow."""
        return self._sent.pop(program, [])


def _pid(program: str, records: list[KmsgRecord]) -> int | None:
    return read(program, records).pid


def read(program: str, records: Iterable[KmsgRecord]) -> UserKill:
    """The kill that these lines of the program describe."""
    fields: dict[str, str | int | float | None] = {}
    for record in records:
        if program == "earlyoom" and (m := _EARLYOOM.match(record.text)):
            fields |= {
                "pid": int(m["pid"]),
                "comm": m["comm"],
                "uid": None if m["uid"] is None else int(m["uid"]),
                "signal": m["signal"],
                "score": int(m["score"]),
                "rss_bytes": int(m["rss"]) << 20,
                "command_line": m["cmdline"],
            }
        elif program == "earlyoom" and (m := _LEFT.match(record.text)):
            fields |= {"available_bytes": int(m["mem"]) << 20, "swap_free_bytes": int(m["swap"]) << 20}
            fields |= {"available_ratio": _ratio(m["mem_share"]), "swap_free_ratio": _ratio(m["swap_share"])}
        elif program == "nohang" and (m := _NOHANG_VICTIM.match(record.text)):
            fields |= {"pid": int(m["pid"]), "comm": m["comm"], "score": int(m["score"])}
        elif program == "nohang" and (m := _NOHANG.match(record.text)):
            fields |= {"signal": m["signal"]}
    return UserKill(program=program, **fields)  # type: ignore[arg-type]


def _ratio(percent: str) -> float | None:
    try:
        return round(float(percent) / 100, 6)
    except ValueError:
        return None


def summarize(kill: UserKill) -> str:
    """What was killed and why, in one line that is safe to print."""
    who = harmless_name(kill.comm) if kill.comm is not None else "a process"
    pid = "" if kill.pid is None else f" (pid {kill.pid})"
    left = ""
    if kill.available_bytes is not None and kill.swap_free_bytes is not None:
        left = f": {size(kill.available_bytes)} of memory and {size(kill.swap_free_bytes)} of swap were left"
    return f"{kill.program} sent {who}{pid} {kill.signal or 'a signal'}{left}"
