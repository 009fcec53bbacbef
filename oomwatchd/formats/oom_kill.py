"""mm/oom_kill.c: the header, the task table, the summary line, the kill lines, the reaper.

Also the panic that may end a report (kernel/panic.c) and the rate limit's own line (lib/ratelimit.c).
The longest module of the room, because that file prints most of a report: one form after the other, and each
can be read alone.
"""

from __future__ import annotations

import re

import msgspec

from oomwatchd.formats import (
    COMM_BYTES,
    QUOTES,
    Copies,
    Form,
    Match,
    Proof,
    Role,
    Section,
    Unspaced,
    marks_a_place,
    printed_bytes,
    rx,
)
from oomwatchd.formats.parts import Parts
from oomwatchd.records.report import Role as VictimRole
from oomwatchd.words.deferred import deferred

#: what stands behind the name of a header
HEADER_MARK = " invoked oom"


def _read_header(parts: Parts, m: Match) -> None:
    comm = m["comm"]
    parts.trigger.comm = comm if parts.raw or not comm else comm.lstrip(QUOTES) or comm
    parts.trigger.requests(m["rest"] or "")


HEADER = Form(
    name="header",
    section=Section.HEADER,
    role=Role.HEADER,
    # the mask is a number, or the line is cut before it; anything else is source code or prose about such a
    # line
    pattern=rx(
        r"(?P<comm>.{0,80}?) invoked oom(?:-killer)?(?!.*?gfp_mask=(?!0x[0-9a-f]|[0-9a-f]+\b|0?x?$))"
        r"(?:: ?(?P<rest>gfp_mask=0x[0-9a-f]+(?:\([^)]*\))?(?:, *\w+=[^\s,]*(?:,[\d-]+)*)*\s*$|(?P<loose>.+))"
        r"|: ?$|$)"
    ),
    marks=(HEADER_MARK,),
    opens=True,
    proof=Proof.ALONE,
    needles=(HEADER_MARK,),
    copies=Copies(
        start=r"\S.{0,63}? invoked(?: oom\b|$)|\S{1,15} invoked oom",
        end=r"oom_score_adj=-?\d+|oom_adj=-?\d+|oomkilladj=-?\d+|oom-killer",
        words=r"gfp_mask=0x[0-9a-f]+(?:\([^\s)]*\))?,?|order=-?\d+,?|nodemask=[^\s,]+,?|oom_(?:score_)?adj=-?\d+,?"
        r"|oomkilladj=-?\d+|oom-killer:|invoked",
        mends=True,
        inner=r"\S{1,15} invoked oom-killer: ",
        unspaced=Unspaced(
            r".{1,15}?invokedoom-killer:",
            (
                ("invokedoom-killer:", " invoked oom-killer: "),
                (r",(?=(?:order|nodemask|oom_score_adj|oom_adj|oomkilladj)=)", ", "),
            ),
        ),
    ),
    reads=_read_header,
    samples=(
        "stress invoked oom-killer: gfp_mask=0x201da, order=0, oomkilladj=0",
        "stress invoked oom-killer: gfp_mask=0x201da, order=0, oom_adj=0",
        "stress invoked oom-killer: gfp_mask=0x201da, order=0, oom_adj=0, oom_score_adj=0",
        "min_free_kbytes invoked oom-killer: gfp_mask=0x200da, order=0, oom_score_adj=0",
        "dd invoked oom-killer: gfp_mask=0x14280ca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), nodemask=(null),  "
        "order=0, oom_score_adj=0",
        "kworker/0:1 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0",
        "a b invoked oom-killer: gfp_mask=0x0(), nodemask=0, order=0, oom_score_adj=0",
        "main invoked oom: gfp_mask=0x100dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), order=0",
    ),
    source='mm/oom_kill.c dump_header(), 2.6.27 to 7.3; EulerOS without "-killer"',
)

#: a vendor's own verb, then the request as any kernel prints it
VENDOR_HEADER = Form(
    name="vendor_header",
    section=Section.HEADER,
    role=Role.HEADER,
    marks=("gfp_mask=0x",),
    pattern=rx(
        r"(?!.{0,80} invoked oom)(?P<comm>\S.{0,30}?) (?=[^:]*(?:\boom\b|out of mem))"
        r"(?P<words>[a-z][A-Za-z ()_-]{2,80}): ?"
        r"(?P<rest>gfp_mask=0x[0-9a-f]+(?:\([^)]*\))?,?(?: +nodemask=\S+)? +order=-?\d+,"
        r" *oom(?:_score)?_adj=-?\d+)$"
    ),
    opens=True,
    proof=Proof.ALONE,
    needles=("gfp_mask=0x",),
    copies=Copies(
        start=r"\S{1,15} (?:[a-z()]{1,20} ){2,12}[a-z()]{1,20}: gfp_mask=0x",
        end=r"oom_(?:score_)?adj=-?\d+",
        words=r"order=-?\d+,?|nodemask=[^\s,]+,?|oom_(?:score_)?adj=-?\d+",
    ),
    reads=_read_header,
    samples=(
        "aaews triggered out of memory codition (oom killer not called): gfp_mask=0x201da, order=0, "
        "oom_score_adj=0",
    ),
    source="Broadcom's kernels of ASUS routers",
)

#: headers of old kernels, which name no task
BARE_HEADER = Form(
    name="bare_header",
    section=Section.HEADER,
    role=Role.HEADER,
    begins=("oom-",),
    pattern=rx(
        r"(?P<comm>(?!))?oom-killer: (?P<rest>gfp_mask=0x[0-9a-f]+(?:, *order=-?\d+)?\s*(?P<loose>.*))$"
    ),
    opens=True,
    proof=Proof.ALONE,
    needles=("oom-killer: gfp_mask=",),
    copies=Copies(
        start=r"oom-killer: gfp_mask=0x", end=r"gfp_mask=0x[0-9a-f]+|order=\d+", words=r"order=\d+"
    ),
    reads=_read_header,
    samples=("oom-killer: gfp_mask=0x1d2", "oom-killer: gfp_mask=0x201d2, order=0"),
    source="mm/oom_kill.c out_of_memory(), 2.6.9 to 2.6.20; RHEL 4",
)


def _in_beancounter(parts: Parts, number: str | None) -> None:
    """Note the OpenVZ container, which is known by the number of its user beancounter; 0 is the host."""
    if number is not None and int(number):
        parts.memcg.beancounter = f"UB {int(number)}"


def _read_openvz_header(parts: Parts, m: Match) -> None:
    parts.trigger.comm, parts.trigger.pid = m["comm"], int(m["pid"])
    parts.trigger.request = f"gfp_mask={m['mask']}"
    _in_beancounter(parts, m["ub"])


OPENVZ_HEADER = Form(
    name="openvz_header",
    section=Section.HEADER,
    role=Role.HEADER,
    pattern=rx(
        r"(?P<pid>\d+) \((?P<comm>.*)\) invoked oom-killer in ub (?P<ub>\d+) "
        r"generation \d+ gfp (?P<mask>0x[0-9a-f]+)"
    ),
    marks=(HEADER_MARK,),
    opens=True,
    proof=Proof.ALONE,
    needles=(HEADER_MARK,),
    copies=Copies(
        start=r"\d+ \(.{1,64}?\) invoked(?: oom-killer in ub\b|$)",
        end=r"gfp 0x[0-9a-f]+",
        words=r"invoked|oom-killer|in|ub|generation|gfp|\d+|0x[0-9a-f]+",
    ),
    reads=_read_openvz_header,
    samples=("12 (httpd) invoked oom-killer in ub 101 generation 3 gfp 0x200da",),
    source="OpenVZ 2.6.32-042stab, mm/oom_kill.c",
)

COMPACTION = Form(
    name="compaction_disabled",
    section=Section.HEADER,
    role=Role.BODY,
    begins=("COMP",),
    pattern=rx(r"COMPACTION is disabled!!!"),
    copies=Copies(start=r"COMPACTION is\b", end=r"disabled!!!", words=r"is|disabled!!!"),
    reads=marks_a_place,
    samples=("COMPACTION is disabled!!!",),
    source="mm/oom_kill.c dump_header(), 4.9+",
)


def _read_cpuset(parts: Parts, m: Match) -> None:
    parts.trigger.cpuset, parts.trigger.mems = m["cpuset"], m["mems"]


CPUSET = Form(
    name="cpuset",
    section=Section.CPUSET,
    role=Role.BODY,
    pattern=rx(r"(?P<comm>.{0,80}?) cpuset=(?P<cpuset>.*) mems_allowed=(?P<mems>[\d,-]*)$"),
    marks=("mems_allowed=",),
    repeats_comm=True,
    copies=Copies(
        start=r"[^\s=]{1,15}(?: [^\s=]{1,14})? cpuset=",
        end=r"mems_allowed=[\d,-]+",
        words=r"cpuset=\S+|mems_allowed=[\d,-]+",
        inner=r"\S{1,15} cpuset=\S{1,255} mems_allowed=",
        unspaced=Unspaced(
            r".{1,15}?cpuset=\S*mems_allowed=[\d,-]+$", (("(?=cpuset=)|(?=mems_allowed=)", " "),)
        ),
    ),
    reads=_read_cpuset,
    samples=("min_free_kbytes cpuset=/ mems_allowed=0", "a) b cpuset=a b mems_allowed=0-1,3"),
    source="kernel/cpuset.c cpuset_print_task_mems_allowed(), 2.6.29 to 4.20",
)

TASKS_TITLE = Form(
    name="tasks_title",
    section=Section.TASKS,
    role=Role.BODY,
    begins=("Task",),
    pattern=rx(r"Tasks state \(memory values in pages\):"),
    opens=True,
    proof=Proof.IN_TEXT,
    once=True,
    copies=Copies(start=r"Tasks state \(memory", end=r"pages\):", inner=r"Tasks state \(memory"),
    reads=marks_a_place,
    samples=("Tasks state (memory values in pages):",),
    source="mm/oom_kill.c dump_tasks(), 4.19+",
)


def _read_tasks_header(parts: Parts, m: Match) -> None:
    parts.table.header(m["columns"].split()[:-1])


TASKS_HEADER = Form(
    name="tasks_header",
    section=Section.TASKS,
    role=Role.BODY,
    begins=("[ pi", "[  p", "[pid"),
    pattern=rx(r"\[ *pid *\] +(?P<columns>uid +tgid +(?:\w+ +){2,24}name) *$"),
    opens=True,
    proof=Proof.IN_TEXT,
    once=True,
    copies=Copies(
        start=r"\[ *pid *\](?: |$)",
        end=r"\bname",
        words=r"uid|tgid|total_vm|rss|rss_anon|rss_file|rss_shmem|cpu|oom_adj|nr_ptes|nr_pmds|nr_puds"
        r"|pgtables_bytes|swapents|oom_score_adj|name",
        inner=r"\[ *pid *\] +uid",
    ),
    reads=_read_tasks_header,
    samples=(
        "[ pid ]   uid  tgid total_vm      rss cpu oom_adj name",
        "[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name",
        "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
        "[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name",
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents "
        "oom_score_adj name",
        "[ pid ]   uid  tgid  ppid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name",
    ),
    source="mm/oom_kill.c dump_tasks(), 2.6.27 to 7.3",
)


def _read_tasks_row(parts: Parts, m: Match) -> None:
    text = m.string.lstrip(" \t")
    if not parts.table.takes(text):
        parts.table.take_without_header(text)


TASKS_ROW = Form(
    name="tasks_row",
    section=Section.TASKS,
    open_ended=True,
    role=Role.BODY,
    begins=("[",),
    pattern=rx(r"\[ *(?P<pid>\d+)\](?P<figures>(?:\s+-?\d+(?=\s|$)){6,}) ?(?P<comm>.*)$"),
    opens=True,
    copies=Copies(
        start=r"\[ *\d{1,7}\] +\d+ +\d+(?: |$)",
        words=r"-?\d+",
        closed=False,
        inner=r"\[ *\d{1,7}\] +\d+ +\d+ +\d+ +\d+ +\d",
    ),
    reads=_read_tasks_row,
    samples=(
        "[  118]     0   118   120817   120018     121        0             0 min_free_kbytes",
        "[   2543]  1000  2543  2066407  1967899 15904768        0             0 a b",
        "[ 2543]  1000  2543  2066407  1967899   3       0 stress",
    ),
    source="mm/oom_kill.c dump_task(), 2.6.27 to 7.3",
)


def _read_summary(parts: Parts, m: Match) -> None:
    parts.outcome.summary = (m["constraint"], m["rest"])


SUMMARY = Form(
    name="summary",
    section=Section.SUMMARY,
    role=Role.VICTIM,
    begins=("oom-",),
    pattern=rx(
        # the kernel cuts a record with long paths at 976 bytes or more (LOG_LINE_MAX)
        r"oom-kill: ?constraint=(?P<constraint>[A-Z_]+)"
        r"(?P<rest>,.*,pid=\d+,uid=\d+\s*$|,.{900,}|(?P<loose>,.*)|$)"
    ),
    opens=True,
    proof=Proof.ALONE,
    needles=("oom-kill:",),
    copies=Copies(start=r"oom-kill:", end=r",uid=\d+", free=True, inner=r"oom-kill:constraint="),
    reads=_read_summary,
    samples=(
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
        "task_memcg=/user.slice,task=stress,pid=2543,uid=1000",
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0-1,oom_memcg=/a,"
        "task_memcg=/a/b,task=x=1,task=init,pid=80,uid=0",
        "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=0,2,cpuset=cs,mems_allowed=0,2,global_oom,"
        "task_memcg=/,task=dd,pid=7,uid=0",
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),task=dd,pid=7,uid=0",
    ),
    source="mm/oom_kill.c dump_oom_summary(), 5.0+ (dump_oom_victim() 6.8+)",
)

#: the words before "Killed process" and "Kill process"; a path never stands there
_MESSAGE = r"(?:(?P<message>[A-Z][A-Za-z ()_-]{0,60}): ?)?"
#: the same as it is looked for in copies
_OF_MEMORY = (
    r"(?:Memory cgroup out of memory|Out of [Mm]emory(?: \([a-z_]+\))?|No available memory \(MPOL_BIND\))"
)
_UNSPACED_KILL = Unspaced(
    r"(?:Memorycgroupoutofmemory|Outofmemory):[Kk]ill|[Kk]illedprocess\d",
    (
        ("^Memorycgroupoutofmemory:", "Memory cgroup out of memory: "),
        ("^Outofmemory:", "Out of memory: "),
        (r"([Kk]ill(?:ed)?)process(\d+)(,?)", r"\1 process \2\3 "),
        (r"\)(?=total-vm:|vsz:)", ") "),
        (r",(?=(?:anon|file|shmem)-rss:|UID:)", ", "),
        (r"(?<=\d)(?=pgtables:\d+kB)|(?<=kB)(?=oom_score_adj:)", " "),
        (r"\)score(-?\d+)or(sacrifice|a)child$", r") score \1 or \2 child"),
    ),
)


def _read_intent(parts: Parts, m: Match) -> None:
    pid, comm, score = int(m["pid"]), m["comm"], m["score"]
    if comm is None:
        comm = _name_of_cut(parts, pid, m["cut"])
    parts.outcome.chosen = (pid, comm, None if score is None else int(score))
    parts.outcome.message = parts.outcome.message or m["message"]


INTENT = Form(
    name="intent",
    section=Section.INTENT,
    role=Role.VICTIM,
    begins=("Out ", "Memo", "No a", "Kill", "kill"),
    pattern=rx(
        _MESSAGE
        + r"[Kk]ill process {1,8}(?P<pid>\d+)(?: ?\((?P<comm>.*)\),?(?: with)? score (?P<score>-?\d+)"
        r"(?: or (?:a|sacrifice) child\s*| and children\.|\.|(?P<loose> or .*))?$"
        r"|(?P<cut>(?(message) \([^()]{0,15}(?:\),?(?: (?:with )?(?:s(?:c(?:o(?:re?)?)?)? ?)?)?)?|(?!)))$)"
    ),
    opens=True,
    proof=Proof.ALONE,
    needles=("ill process ",),
    copies=Copies(
        start=rf"{_OF_MEMORY}: [Kk]ill process|{_OF_MEMORY}:?$",
        end=r"or a child|or sacrifice child|and children\.",
        free=True,
        so_far=rf"{_OF_MEMORY}:(?: [Kk]ill)?(?: process)?(?: \d+)?(?: ?\((?:(?!\),? score)[^\n]){{0,64}}?)?"
        r"(?:\),?(?: with)?(?: score)?(?: -?\d+)?(?: or| and)?(?: a| sacrifice)?"
        r"(?: child(?:ren)?(?:\.|\s.*)?)?)?",
        unspaced=_UNSPACED_KILL,
    ),
    reads=_read_intent,
    samples=(
        "Out of memory: kill process 2543 (stress) score 901 or a child",
        "Out of memory: Kill process 118 (min_free_kbytes) score 922 or sacrifice child",
        "Memory cgroup out of memory: Kill process 114 (dd) score 1048 or sacrifice child",
        "Out of memory (oom_kill_allocating_task): Kill process 126 (dd) score 0 or sacrifice child",
        "No available memory (MPOL_BIND): kill process 12 (a) score 3 or a child",
        "Out of Memory: Kill process 4521 (httpd) score 12345 and children.",
        "Out of memory: Kill process 2525 (malloc) with score 967 or sacrifice child",
    ),
    source="mm/oom_kill.c oom_kill_process(), 2.6.15 to 5.0",
)


def _name_of_cut(parts: Parts, pid: int, cut: str) -> str:
    """The name for a line about a kill that is cut after its pid: from the task table, else from the line
    that chose the process, else what is left of the name (maybe nothing). ValueError if nothing stands behind
    the pid: that may be cut, too."""
    chosen = parts.outcome.chosen
    listed = dict(zip(parts.table.pids, parts.table.names, strict=True))
    if pid in listed:
        return listed[pid]
    if chosen is not None and chosen[0] == pid:
        return chosen[1]
    if not cut.strip():
        raise ValueError("whose pid it is, and whether all of it, is nowhere")
    return cut.strip(" (").partition(")")[0]


def _read_killed(parts: Parts, m: Match) -> None:
    role: VictimRole = "group" if parts.memcg.group_path is not None else "selected"
    pid, comm = int(m["pid"]), m["comm"]
    if comm is None:
        comm = _name_of_cut(parts, pid, m["cut"])
    victim = parts.outcome.victim(pid, comm, role)
    figures = sizes(m["sizes"] or "")
    uid = figures.pop("UID", None) if "UID" in figures else m["uid_before"] or m["uid_after"]
    if len(figures) > len(victim.figures) or victim.kills == 0:  # the first whole line counts
        victim.figures = figures
        victim.uid = int(uid) if uid is not None else victim.uid
    victim.kills += 1
    _in_beancounter(parts, m["ub"])
    parts.outcome.kills += 1
    parts.outcome.message = parts.outcome.message or m["message"]


KILLED = Form(
    name="killed",
    section=Section.KILL,
    role=Role.KILL,
    begins=("Out ", "Memo", "No a", "Kill", "kill", "OOM ", "memo"),
    pattern=rx(
        r"(?:"
        + _MESSAGE
        + r"[Kk]illed process {1,8}|(?P<openvz>(?:Out of memory in UB (?P<ub>\d+): )?OOM killed process ))"
        r"(?P<pid>\d+)"
        r"(?:(?:, UID (?P<uid_before>\d+),)? ?\((?P<comm>.{0,80})\)(?:, UID (?P<uid_after>\d+))?"
        r"(?:(?: score \d+)?,?\s+(?P<sizes>(?:total-vm|vsz|vm|(?:anon|file|shmem)-rss):"
        r"(?:-?\d+kB(?:,? [A-Za-z_-]+:-?\d+(?:kB)?)*\s*$|(?P<loose>.*)))"
        r"|(?:\s*\.{3}|\s*\u2026|\.)?\s*)$|(?P<cut>(?: \([^()]{0,15}| \(?)?)$)"
    ),
    opens=True,
    proof=Proof.ALONE,
    needles=("illed process ",),
    copies=Copies(
        start=rf"(?:{_OF_MEMORY}: |(?:Out of memory in UB \d+: )?OOM )?[Kk]illed process\b",
        end=r"oom_score_adj:-?\d+|(?:file|shmem)-rss:\d+kB|swap:\d+kB|\d+,? \([^()]*\)",
        words=r"score|(?:total-vm|vsz|vm|rss|swap|anon-rss|file-rss|shmem-rss):\d+kB,?|UID:\d+|pgtables:\d+kB"
        r"|oom_score_adj:-?\d+",
        mends=True,
        inner=r"(?<!y: )(?<!OOM )[Kk]illed process \d+[ ,]",
        unspaced=_UNSPACED_KILL,
    ),
    reads=_read_killed,
    samples=(
        "Killed process 2543 (stress)",
        "Killed process 2543 (stress) vsz:8265628kB, anon-rss:7871596kB, file-rss:0kB",
        "Killed process 118 (min_free_kbytes) total-vm:483268kB, anon-rss:480072kB, file-rss:0kB",
        "Killed process 2543 (x) total-vm:1kB) total-vm:8265628kB, anon-rss:7871596kB, file-rss:0kB, "
        "shmem-rss:0kB",
        "Out of memory: Killed process 106 (dd) total-vm:2050268kB, anon-rss:186272kB, file-rss:0kB, "
        "shmem-rss:1020kB, UID:0 pgtables:416kB oom_score_adj:0",
        "Memory cgroup out of memory: Killed process 80 (dd) total-vm:63028kB, anon-rss:20256kB, "
        "file-rss:4kB, shmem-rss:1028kB, UID:0 pgtables:28kB oom_score_adj:-998",
        "Killed process 2543, UID 48, (httpd) total-vm:1kB, anon-rss:1kB, file-rss:0kB",
        "Killed process 2543 (httpd), UID 48, total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
        "OOM killed process 2543 (httpd) vm:1kB, rss:1kB, swap:0kB",
        "Out of memory in UB 101: OOM killed process 2543 (httpd) score 0 vm:1kB, rss:1kB, swap:0kB",
        "Out of Memory: Killed process 4712 (gnome-panel).",
    ),
    source="mm/oom_kill.c __oom_kill_process(), 2.6.27 to 7.3; RHEL 6 and 7.9, OpenVZ",
)


def _read_sharing(parts: Parts, m: Match) -> None:
    parts.outcome.victim(int(m["pid"]), m["comm"], "shares_mm")


SHARING = Form(
    name="kill_sharing",
    section=Section.KILL,
    role=Role.EXTRA,
    begins=("Kill",),
    pattern=rx(r"Kill process (?P<pid>\d+) \((?P<comm>.*)\) sharing same memory"),
    copies=Copies(start=r"Kill process \d+ \(", end=r"sharing same memory", words=r"sharing|same|memory"),
    reads=_read_sharing,
    samples=("Kill process 2544 (stress) sharing same memory",),
    source="mm/oom_kill.c oom_kill_process(), 2.6.37 to 4.3",
)


def _read_already_exiting(parts: Parts, m: Match) -> None:
    outcome = parts.outcome
    outcome.outcome = "already exiting"
    outcome.message = outcome.message or m["message"]
    outcome.chosen = outcome.chosen or (int(m["pid"]), m["comm"], 0)


ALREADY_EXITING = Form(
    name="already_exiting",
    section=Section.KILL,
    role=Role.OUTCOME,
    begins=("Out ", "Memo"),
    pattern=rx(
        _MESSAGE + r"OOM victim (?P<pid>\d+) \((?P<comm>.*)\) is already exiting\. Skip killing(?: the task)?"
    ),
    opens=True,
    proof=Proof.ALONE,
    needles=(": OOM victim ",),
    copies=Copies(
        start=rf"{_OF_MEMORY}: OOM(?: victim\b|$)",
        end=r"Skip killing the task",
        words=r"is|already|exiting\.|Skip|killing|the|task",
    ),
    reads=_read_already_exiting,
    samples=(
        "Memory cgroup out of memory: OOM victim 2543 (stress) is already exiting. Skip killing the task",
    ),
    source="mm/oom_kill.c __oom_kill_process(), 5.9+",
)


def _read_spared(parts: Parts, m: Match) -> None:
    parts.outcome.outcome = "spared"
    parts.outcome.chosen = parts.outcome.chosen or (int(m["pid"]), m["comm"], 0)


SPARED = Form(
    name="spared",
    section=Section.KILL,
    role=Role.OUTCOME,
    begins=("Woul",),
    pattern=rx(r"Would have killed process (?P<pid>\d+) \((?P<comm>.*)\)\. But continuing instead\.?"),
    opens=True,
    proof=Proof.ALONE,
    needles=("Would have killed process ",),
    copies=Copies(
        start=r"Would have(?: killed\b|$)",
        end=r"But continuing instead\.?",
        words=r"killed|process|But|continuing|instead\.?",
    ),
    reads=_read_spared,
    samples=("Would have killed process 2543 (httpd). But continuing instead.",),
    source="RHEL 6 2.6.32, mm/oom_kill.c",
)


def _read_group(parts: Parts, m: Match) -> None:
    parts.memcg.group_path = m["path"]


GROUP = Form(
    name="group",
    section=Section.KILL,
    role=Role.EXTRA,
    begins=("Task",),
    pattern=rx(r"Tasks in (?P<path>.*) are going to be killed due to memory\.oom\.group(?: set)?\s*$"),
    opens=True,
    proof=Proof.ALONE,
    needles=("to be killed due to memory.oom.group",),
    copies=Copies(
        start=r"Tasks in /",
        end=r"memory\.oom\.group(?: set)?",
        words=r"are|going|to|be|killed|due|memory\.oom\.group|set",
        free=True,
        inner=r"Tasks in /\S+ are going",
        unspaced=Unspaced(
            r"Tasksin/\S*aregoingtobekilled",
            (
                ("Tasksin", "Tasks in "),
                (
                    r"aregoingtobekilledduetomemory\.oom\.groupset",
                    " are going to be killed due to memory.oom.group set",
                ),
            ),
        ),
    ),
    reads=_read_group,
    samples=("Tasks in /system.slice/foo.service are going to be killed due to memory.oom.group set",),
    source="mm/memcontrol.c mem_cgroup_print_oom_group(), 4.19+",
)

MM_PINNED = Form(
    name="mm_pinned",
    section=Section.KILL,
    role=Role.EXTRA,
    begins=("oom ",),
    pattern=rx(r"oom killer (?P<pid>\d+) \((?P<comm>.*)\) has mm pinned by (?P<by_pid>\d+) \((?P<by>.*)\)"),
    copies=Copies(
        start=r"oom killer \d+ \(", end=r"pinned by \d+ \([^()]*\)", words=r"has|mm|pinned|by|\d+|\([^()]*\)"
    ),
    reads=marks_a_place,
    samples=("oom killer 2543 (stress) has mm pinned by 1 (systemd)",),
    source="mm/oom_kill.c __oom_kill_process(), 4.8+",
)


def _read_reaped(parts: Parts, m: Match) -> None:
    pid = int(m["pid"])
    if pid in parts.outcome.victims or not parts.outcome.victims:  # its kill line may have been left out
        parts.outcome.victim(pid, m["comm"], "selected").reaped = True


REAPED = Form(
    name="reaped",
    section=Section.AFTER,
    role=Role.AFTER,
    begins=("oom_",),
    pattern=rx(
        r"oom_reaper: reaped process (?P<pid>\d+) \((?P<comm>.*)\),? now "
        r"(?P<sizes>anon-rss:\d+[kl]*B(?:, \w+-rss:\d+[kl]*B)*(?P<loose>.*))$"
    ),
    copies=Copies(
        start=r"oom_reaper: reaped\b|oom_reaper:$",
        end=r"shmem-rss:\d+kB",
        words=r"(?:anon|file|shmem)-rss:\d+[kl]+B,?|now|reaped|process",
        inner=r"oom_reaper: reaped",
        unspaced=Unspaced(
            r"oom_reaper:reapedprocess\d",
            (
                (r"oom_reaper:reapedprocess(\d+)", r"oom_reaper: reaped process \1 "),
                (r"\),now(?=anon-rss:)", "), now "),
                (r",(?=(?:file|shmem)-rss:)", ", "),
            ),
        ),
    ),
    reads=_read_reaped,
    samples=("oom_reaper: reaped process 2543 (stress), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",),
    source="mm/oom_kill.c oom_reap_task_mm(), 4.6+",
)


def _read_reap_failed(parts: Parts, m: Match) -> None:
    if victim := parts.outcome.victims.get(int(m["pid"])):
        victim.reaped = False


REAP_FAILED = Form(
    name="reap_failed",
    section=Section.AFTER,
    role=Role.AFTER,
    begins=("oom_",),
    pattern=rx(r"oom_reaper: (?:unable to reap|giving up) pid:(?P<pid>\d+) \((?P<comm>.*)\)"),
    copies=Copies(
        start=r"oom_reaper: (?:unable|giving)\b",
        end=r"pid:\d+ \([^()]*\)",
        words=r"to|up|reap|pid:\d+",
        inner=r"oom_reaper: unable",
    ),
    reads=_read_reap_failed,
    samples=("oom_reaper: unable to reap pid:2543 (stress)",),
    source="mm/oom_kill.c oom_reap_task(), 4.6+",
)


def _read_no_killable(parts: Parts, m: Match) -> None:
    parts.outcome.outcome = "no killable processes"


NO_KILLABLE = Form(
    name="no_killable",
    section=Section.KILL,
    role=Role.OUTCOME,
    begins=("Out ",),
    pattern=rx(r"Out of memory and no killable processes(?:\.\.\.)?"),
    opens=True,
    proof=Proof.ALONE,
    needles=("no killable processes",),
    copies=Copies(
        start=r"Out of memory and(?: no killable|$)",
        end=r"processes\.\.\.",
        words=r"no|killable|processes\.\.\.",
        unspaced=Unspaced(
            "Outofmemoryandnokillable", (("Outofmemoryandnokillable", "Out of memory and no killable "),)
        ),
    ),
    reads=_read_no_killable,
    samples=("Out of memory and no killable processes...",),
    source="mm/oom_kill.c out_of_memory(), 4.19+",
)


def _read_panic(parts: Parts, m: Match) -> None:
    parts.outcome.panic = True
    parts.outcome.outcome = m["why"].removesuffix("]---").strip()


PANIC = Form(
    name="panic",
    section=Section.KILL,
    role=Role.OUTCOME,
    begins=("Kern",),
    pattern=rx(
        r"Kernel panic - not syncing: (?P<why>(?:[Oo]ut of memory(?: and no killable processes\.\.\."
        r"|(?:\(memcg\))?[:.] (?:compulsory |system-wide )?panic_on_oom is (?:enabled|selected)\.?)"
        r"|System is deadlocked on memory)\s*$"
        r"|Reboot due to persistent out of memory.{0,20}$"
        r"|(?P<loose>(?:[Oo]ut of memory|System is deadlocked on memory).*|.*\bout of memory\b.*))"
    ),
    opens=True,
    proof=Proof.ALONE,
    needles=("Kernel panic - not syncing: ",),
    copies=Copies(
        start=r"Kernel panic - not syncing: (?:[Oo]ut of memory|System is deadlocked|Reboot due)",
        end=r"processes\.\.\.|codition\.*|is enabled|is selected\.?|on memory",
        words=r"[Oo]ut|of|memory[:.]?|and|no|killable|processes\.\.\.|compulsory|system-wide|panic_on_oom|is|enabled"
        r"|selected\.?|System|deadlocked|on|Reboot|due|to|persistent|codition\.*",
        closed=False,
        inner=r"Kernel panic - not syncing",
        unspaced=Unspaced(
            r"Kernelpanic-notsyncing:",
            (
                ("Kernelpanic-notsyncing:", "Kernel panic - not syncing: "),
                ("Outofmemoryandnokillable", "Out of memory and no killable "),
                ("Outofmemory:", "Out of memory: "),
                ("system-widepanic_on_oomisenabled", "system-wide panic_on_oom is enabled"),
                ("compulsorypanic_on_oomisenabled", "compulsory panic_on_oom is enabled"),
                ("Systemisdeadlockedonmemory", "System is deadlocked on memory"),
            ),
        ),
    ),
    reads=_read_panic,
    samples=(
        "Kernel panic - not syncing: Out of memory and no killable processes...",
        "Kernel panic - not syncing: System is deadlocked on memory",
        "Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled",
        "Kernel panic - not syncing: out of memory. panic_on_oom is selected",
        "Kernel panic - not syncing: out of memory(memcg). panic_on_oom is selected.",
    ),
    source="mm/oom_kill.c check_panic_on_oom(), out_of_memory(), 2.6.27 to 7.3",
)


def _read_sysrq(parts: Parts, m: Match) -> None:
    parts.trigger.sysrq = True


SYSRQ = Form(
    name="sysrq",
    section=Section.BEFORE,
    role=Role.BEFORE,
    begins=("sysr", "SysR"),
    pattern=rx(r"(?:sysrq: )?(?:SysRq : )?Manual OOM execution"),
    opens=True,
    copies=Copies(
        start=r"(?:sysrq: )?SysRq : Manual|sysrq: Manual", end=r"OOM execution", words=r"Manual|OOM|execution"
    ),
    reads=_read_sysrq,
    samples=(
        "sysrq: Manual OOM execution",
        "sysrq: SysRq : Manual OOM execution",
        "SysRq : Manual OOM execution",
    ),
    source="drivers/tty/sysrq.c sysrq_handle_moom(), 2.6.27 to 7.3",
)


def _read_refused(parts: Parts, m: Match) -> None:
    parts.trigger.sysrq = True
    parts.outcome.outcome = parts.outcome.outcome or f"request ignored: {m['why'] or 'no task eligible'}"


SYSRQ_REFUSED = Form(
    name="sysrq_refused",
    section=Section.KILL,
    role=Role.REFUSED,
    begins=("sysr", "OOM "),
    pattern=rx(
        r"(?:sysrq: )?OOM request ignored(?: because (?P<why>killer is disabled)|\. No task eligible)"
    ),
    opens=True,
    proof=Proof.ALONE,
    needles=("OOM request ignored",),
    copies=Copies(
        start=r"sysrq: OOM request\b",
        end=r"No task eligible|killer is disabled",
        words=r"ignored\.?|because|killer|is|disabled|No|task|eligible",
    ),
    reads=_read_refused,
    samples=(
        "sysrq: OOM request ignored. No task eligible",
        "sysrq: OOM request ignored because killer is disabled",
    ),
    source="drivers/tty/sysrq.c moom_callback(), 4.1+",
)


def _read_suppressed(parts: Parts, m: Match) -> None:
    parts.outcome.suppressed = int(m["count"])


SUPPRESSED = Form(
    name="suppressed",
    section=Section.BEFORE,
    role=Role.BEFORE,
    begins=("oom_", "out_", "dump", "__ra"),
    pattern=rx(
        r"(?P<function>oom_kill_process|out_of_memory|dump_header|__ratelimit): "
        r"(?P<count>\d+) callbacks suppressed"
    ),
    opens=True,
    copies=Copies(
        start=r"(?:oom_kill_process|out_of_memory|dump_header|__ratelimit): \d+(?: |$)",
        end=r"callbacks suppressed",
        words=r"callbacks|suppressed",
    ),
    reads=_read_suppressed,
    samples=("oom_kill_process: 31 callbacks suppressed", "__ratelimit: 7 callbacks suppressed"),
    source="lib/ratelimit.c ___ratelimit(), 2.6.27 to 7.3",
)

FORMS = (
    OPENVZ_HEADER, HEADER, VENDOR_HEADER, BARE_HEADER, COMPACTION, CPUSET, TASKS_TITLE, TASKS_HEADER,
    TASKS_ROW, SUMMARY, SHARING, INTENT, KILLED, ALREADY_EXITING, SPARED, GROUP, MM_PINNED,
    REAPED, REAP_FAILED, NO_KILLABLE, PANIC, SYSRQ, SYSRQ_REFUSED, SUPPRESSED,
)  # fmt: skip


_SIZE = rx(r"([A-Za-z_-]{1,64}+): ?(-?\d{1,20}+)(k[Bb]?)?(?!\w)")
_WITHOUT_UNIT = frozenset({"UID", "oom_score_adj"})


def sizes(text: str) -> dict[str, int]:
    """``total-vm:1kB, anon-rss:2kB, UID:0 pgtables:3kB`` -> figures by name, units as printed. An amount
    without its unit was cut, perhaps inside the figure: it is left out."""
    return {name: int(figure) for name, figure, unit in _SIZE.findall(text) if unit or name in _WITHOUT_UNIT}


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the summary line; None where the kernel did not print one."""

    constraint: str
    nodemask: str | None = None
    cpuset: str | None = None
    mems_allowed: str | None = None
    global_oom: bool = False
    oom_memcg: str | None = None
    task_memcg: str | None = None
    task: str | None = None
    pid: int | None = None
    uid: int | None = None


#: a line without the uid is cut, perhaps inside the pid
_SUMMARY_END = rx(r",pid=(\d+),uid=(\d+)\s*$")
#: a copy that was laid out for reading has blanks after its commas
_SUMMARY_SPACED = deferred(
    r",\s+(?=(?:nodemask|cpuset|mems_allowed|oom_memcg|task_memcg|task|pid|uid)=|global_oom)"
)
#: fields that a copy left out
_SUMMARY_ELIDED = deferred(r",\s*(?:\.{3}|\u2026),\s*(?=global_oom|oom_memcg=|task_memcg=|task=)")
_SUMMARY_CUT = deferred(r",p(?:i(?:d(?:=\d*)?)?)?$")
_NEXT = r"(?=,cpuset=|,global_oom|,oom_memcg=|,task_memcg=|,task=|$)"
_NODEMASK = deferred(r",nodemask=(\(null\)|[\d,-]*?)" + _NEXT)
_CPUSET = deferred(r",cpuset=(.*?),mems_allowed=([\d,-]*?)" + _NEXT, re.DOTALL)


def parse_summary(constraint: str, rest: str, known_comm: str | None = None) -> Summary:
    """Split the summary line. Names in it are hostile, so it is split from both ends towards the middle.

    From the right: ``,pid=N,uid=N``, then the process name (15 bytes; ``known_comm``, from the kill
    line or the task table, settles where it begins). From the left: nodemask, cpuset and
    mems_allowed. What remains are the cgroup paths. The victim's cgroup lies in the tree of the cgroup at
    its limit, and this tells where the first path ends.
    """
    fields: dict[str, str | int | bool | None] = {}
    if rest[1:2].isspace():
        rest = _SUMMARY_SPACED.sub(",", rest)
    if ",..." in rest or ",\u2026" in rest:
        rest = _SUMMARY_ELIDED.sub(",", rest)
    end = _SUMMARY_END.search(rest)
    if end:
        fields["pid"] = int(end[1])
        fields["uid"] = int(end[2])
        rest = rest[: end.start()]
    else:
        rest = _SUMMARY_CUT.sub("", rest)
    rest, fields["task"] = _cut_task(rest, known_comm)
    cut = end is None and fields["task"] is None
    if m := _NODEMASK.match(rest):
        fields["nodemask"] = None if m[1] == "(null)" else m[1].strip(",")
        rest = rest[m.end() :]
    if m := _CPUSET.match(rest):
        fields["cpuset"] = m[1]
        fields["mems_allowed"] = m[2].strip(",")
        rest = rest[m.end() :]
    if rest.startswith(",global_oom"):
        fields["global_oom"] = True
        rest = rest[len(",global_oom") :]
        if rest.startswith(",task_memcg="):
            fields["task_memcg"] = rest[len(",task_memcg=") :]
    elif rest.startswith(",oom_memcg="):
        fields["oom_memcg"], fields["task_memcg"] = _cut_paths(rest[len(",oom_memcg=") :])
    elif rest.startswith(",task_memcg="):
        fields["task_memcg"] = rest[len(",task_memcg=") :]
    for field in ("oom_memcg", "task_memcg"):
        # a path begins with "/"; in a line that lost its end, the last path may be cut anywhere
        path = fields.get(field)
        if isinstance(path, str) and (path[:1] != "/" or (cut and field == "task_memcg")):
            fields[field] = None
    return msgspec.convert({"constraint": constraint, **fields}, Summary)


def _cut_task(rest: str, known_comm: str | None) -> tuple[str, str | None]:
    mark = ",task="
    if known_comm is not None and rest.endswith(mark + known_comm):
        return rest[: -len(mark + known_comm)], known_comm
    # a byte is printed as at most four characters
    at = rest.find(mark, max(0, len(rest) - len(mark) - 4 * COMM_BYTES))
    while at >= 0:
        comm = rest[at + len(mark) :]
        if printed_bytes(comm) <= COMM_BYTES:
            return rest[:at], comm
        at = rest.find(mark, at + 1)
    at = rest.rfind(mark)
    return (rest[:at], rest[at + len(mark) :]) if at >= 0 else (rest, None)


def _cut_paths(paths: str) -> tuple[str, str | None]:
    mark = ",task_memcg="
    at = paths.find(mark)
    first = at
    while at >= 0:
        oom, task = paths[:at], paths[at + len(mark) :]
        if task == oom or task.startswith(oom if oom.endswith("/") else oom + "/"):
            return oom, task
        at = paths.find(mark, at + 1)
    return (paths[:first], paths[first + len(mark) :]) if first >= 0 else (paths, None)
