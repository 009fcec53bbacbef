"""Lines that resemble an OOM report but are none: who writes them, and what to look for.

A text without a report usually has a reason: another killer acted before the kernel, a runtime reached its
own limit, or the pasted line is about a kill whose report is elsewhere.

**To add a kind, add one entry to** :data:`KINDS`.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from oomwatchd.words.deferred import deferred

#: Characters of a line that are searched.
MAX_LINE = 4096
#: Largest number of kinds that are shown for one text.
MAX_TOLD = 4
#: Characters of the line that are shown.
_SHOWN = 80


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of line that may be mistaken for a report: ``what`` it is, and what to ``look_for``.
    ``pattern`` is searched in a line; ``samples`` are real lines."""

    id: str
    what: str
    look_for: str
    pattern: re.Pattern[str]
    samples: tuple[str, ...]


class Near(msgspec.Struct, frozen=True, kw_only=True):
    """A kind that was found: its first line, numbered from 1, and the number of such lines."""

    kind: Kind
    line: int
    text: str
    count: int = 1

    def described(self) -> str:
        """One line in plain words. It is escaped, because the text is not trusted."""
        more = f" and {self.count - 1} more" if self.count > 1 else ""
        return f"line {self.line}{more}: {self.kind.what} ({self.text!r}); {self.kind.look_for}"


def _kind(id_: str, what: str, look_for: str, pattern: str, *samples: str) -> Kind:
    return Kind(id=id_, what=what, look_for=look_for, pattern=deferred(pattern), samples=samples)


_KERNEL_LOG = "the kernel's report is in its own log: journalctl -k or dmesg of that time"

_WORDS = "(?:invoked oom|[Kk]ill(?:ed)? process|oom_reaper)"

#: The more certain kinds come first: a line belongs to the first kind that matches.
KINDS: tuple[Kind, ...] = (
    _kind(
        "source_code",
        "source code or a pattern of such lines, not a log",
        "paste the log itself: dmesg, or journalctl -k",
        rf"(?:%s|%d|\\d[+*]|\(\.[+*]\??\)|\[\^[^\]]+\]|\{{\w*\}}|<\w+>).{{0,200}}{_WORDS}"
        rf"|{_WORDS}.{{0,200}}?(?:%[sdl]|\\d[+*]|\(\.[+*]\??\)|\[\^|\[0-9\]|\\K)"
        r"|grep\b.{0,80}(?:[Oo]ut of memory|oom-kill|[Kk]illed process|invoked oom)",
        'pr_err("%s: Killed process %d (%s) total-vm:%lukB, anon-rss:%lukB\\n",',
        '      "pattern": "Killed process \\\\d+ (.+) total-vm:\\\\d+kB,"',
        'dmesg -T | grep -i -E "out of memory|killed process|invoked oom-killer"',
    ),
    _kind(
        "reaper",
        "the kernel took back the memory of a process that its OOM killer had killed",
        "the report stands up to some seconds before it: 'invoked oom-killer' to 'Killed process'",
        r"oom_reaper: (?:reaped process|unable to reap|giving up)",
        "oom_reaper: reaped process 411 (java), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB",
    ),
    _kind(
        "pids_limit",
        "a cgroup was at its limit of processes and threads, and a fork was refused: nothing was killed",
        "pids.max and pids.events of that cgroup (TasksMax= of its unit) bound how many may run",
        r"cgroup: fork rejected by pids controller in ",
        "cgroup: fork rejected by pids controller in /system.slice/jobs.service",
    ),
    _kind(
        "unit_oom_killed",
        "the service manager saw that the kernel killed a process of a unit",
        _KERNEL_LOG,
        r"A process of this unit has been killed by the OOM killer|Failed with result 'oom-kill'"
        r"|The kernel OOM killer killed some processes in this unit",
        "systemd[1]: jenkins.service: A process of this unit has been killed by the OOM killer.",
        "systemd[1]: jenkins.service: Failed with result 'oom-kill'.",
    ),
    _kind(
        "systemd_oomd",
        "systemd-oomd's watch of memory pressure, which acts before the kernel must",
        "its kills are the lines 'Killed PATH due to' or 'Marked PATH for killing due to':"
        " journalctl -u systemd-oomd",
        r"systemd-oomd(?:\[\d+\])?: |oomd attempting to kill \d+",
        "systemd-oomd[1852]: Considered 50 cgroups for killing, top candidates were:",
    ),
    _kind(
        "earlyoom",
        "earlyoom, which kills before the kernel must",
        "the kernel has no report of it; its limits are -m and -s, --avoid spares a name:"
        " journalctl -u earlyoom",
        r"earlyoom(?:\[\d+\])?: |sending SIG(?:TERM|KILL) to process \d+ "
        r"|low memory! at or below SIG(?:TERM|KILL) limits"
        r"|Out of memory! avail: \d+ MiB|mem avail: +\d+(?: of +\d+)? MiB",
        'earlyoom[1579]: sending SIGTERM to process 5017 uid 1000 "chrome": oom_score 1100, VmRSS 300 MiB',
        "Out of memory! avail: 0 MiB < min: 587 MiB",
    ),
    _kind(
        "nohang",
        "nohang, which kills before the kernel must",
        "the kernel has no report of it; its thresholds are in nohang.conf: journalctl -u nohang",
        r"nohang(?:-desktop)?(?:\[\d+\])?: |Implement(?:ing)? a corrective action:"
        r"|Send(?:ing)? SIG(?:TERM|KILL) to the victim",
        "nohang[629]: Implementing a corrective action:",
        "[ OK ] Sending SIGTERM to the victim",
    ),
    _kind(
        "cgroup_killer",
        "a program that kills whole cgroups under memory pressure before the kernel must",
        "the kernel has no report of it; its trigger is that program's own: Talos has OOMConfig",
        r"[Ss]ending SIGKILL to (?:the )?cgroup\b|OOMController|\boomd\b.{0,80}(?:memory pressure|[Kk]ill)",
        '[talos] Sending SIGKILL to cgroup {"controller": "runtime.OOMController", "cgroup": "/pods/7"}',
    ),
    _kind(
        "lmkd",
        "Android's low memory killer, which kills apps by their importance before the kernel must",
        "the kernel's own kills are 'Out of memory: Killed process' in logcat -b kernel or dmesg",
        r"lowmemorykiller *:|lowmemorykiller|\blmkd\b|send sigkill to \d+ \(|lmk(?:d|_).{0,40}[Kk]ill"
        r"|(?:Kill|Reclaim)(?:ing)? '[^']{1,80}' \(\d+\), uid \d+",
        "lowmemorykiller: Killing 'd.process.acore' (2543), adj 529,",
        "I lowmemorykiller: Kill 'com.android.chrome' (9731), uid 10134, oom_score_adj 900 to free 81000kB",
    ),
    _kind(
        "kubelet",
        "kubelet's word of an eviction or of a kill that it noticed",
        "an eviction is no kill by the kernel: kubectl describe node shows MemoryPressure; for a SystemOOM"
        " or CgroupOOM the kernel's report is in the node's journalctl -k",
        r"\b(?:System|Cgroup) ?OOM\b|Got sys oom event|[Ee]viction manager"
        r"|The node (?:was|had) low on resource: memory"
        r"|\bEvicted\b.{0,120}memory|NodeHasInsufficientMemory|MemoryPressure",
        "Warning  SystemOOM  17m  kubelet, node1  System OOM encountered, victim process: stress, pid: 47",
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 92Mi.",
    ),
    _kind(
        "container_runtime",
        "the container runtime's word that the kernel killed in a container",
        "the kernel's report is in the node's log, not the container's: journalctl -k there, with the limit"
        " and the sizes",
        r"\bOOMKill(?:ed|ing)\b|/tasks/oom|\bTaskOOM\b|container (?:oom|OOM)"
        r"|exit(?:ed|ing)? ?(?:with )?(?:code|Code):? *137|Container killed due to memory usage"
        r"|Exit Code: +137|ExitCode\"?: ?137",
        "      Reason:       OOMKilled",
        '            "OOMKilled": true,',
    ),
    _kind(
        "batch_limit",
        "a batch system's word that a job was at its memory limit",
        "Slurm's steps are killed by the kernel: the node's journalctl -k; YARN and LSF kill by themselves",
        r"oom[-_]kill event|running beyond (?:physical|virtual) memory limits|TERM_MEMLIMIT"
        r"|[Ee]xceeded (?:job|step) memory limit",
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=17.batch. Some of your processes may have",
        "Container [pid=7,containerID=c_1] is running beyond physical memory limits. Current usage: 2.1 GB",
    ),
    _kind(
        "platform_limit",
        "a hosting platform's own memory limit",
        "the platform kills and shows no kernel log: its size of instance, and the program's own peak",
        r"Memory quota (?:vastly )?exceeded|Memory limit of \d+ \w+ exceeded"
        r"|[Ee]xceeded (?:hard|soft) (?:private )?memory limit|Runtime exited with error: signal: killed",
        "heroku[web.1]: Error R15 (Memory quota vastly exceeded)",
        "Memory limit of 512 MiB exceeded with 530 MiB used.",
    ),
    _kind(
        "gpu_memory",
        "a GPU whose own memory was exhausted; the kernel killed nobody",
        "nvidia-smi or rocm-smi shows who holds the device's memory; the host's RAM is not concerned",
        r"(?:CUDA|HIP)(?: error:)? out of memory|OutOfMemoryError: (?:CUDA|HIP)|(?:CUDA|HIP)_ERROR_OUT_OF"
        r"|cudaErrorMemoryAllocation|hipErrorOutOfMemory|OUT_OF_DEVICE_MEMORY|memory for command submission",
        "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "[drm:amdgpu_cs_ioctl] *ERROR* Not enough memory for command submission!",
    ),
    _kind(
        "other_system",
        "the memory killer of another operating system",
        "oomwatchd reads the reports of Linux kernels; see the manual of that system",
        r"was killed: (?:out of swap space|failed to reclaim memory|a thread waited too long)"
        r"|memorystatus(?:_\w+)?: killing|JetsamEvent|Resource-Exhaustion|low virtual memory condition",
        "pid 2543 (mysqld), jid 0, uid 88, was killed: out of swap space",
        "memorystatus: killing_top_process pid 2543 [com.apple.WebKit] (vm-pageshortage)",
        "Windows successfully diagnosed a low virtual memory condition.",
    ),
    _kind(
        "java_heap",
        "the Java machine's own limit, or memory that the system refused it; the kernel killed nobody",
        "see -Xmx, -XX:MaxRAMPercentage and the heap dump; of a process that was killed, journalctl -k tells",
        r"OutOfMemoryError|insufficient memory for the Java Runtime|Out of Memory Error \(\w+\.cpp",
        "java.lang.OutOfMemoryError: Java heap space",
        "# There is insufficient memory for the Java Runtime Environment to continue.",
    ),
    _kind(
        "refused",
        "a program that was refused memory: its own limit, or strict overcommit; the kernel killed nobody",
        "see ulimit -v, vm.overcommit_memory (CommitLimit in /proc/meminfo) and the program's own limits",
        r"\bENOMEM\b|Cannot allocate memory|std::bad_alloc|JavaScript heap out of memory|memory exhausted"
        r"|runtime: out of memory|\bMemoryError\b|(?:ERROR|FATAL): +out of memory|__vm_enough_memory"
        r"|Failed on request of size \d+",
        "ERROR:  out of memory",
        "terminate called after throwing an instance of 'std::bad_alloc'",
    ),
    _kind(
        "killed_by_signal",
        "a process that died of signal 9, which the kernel's OOM killer also sends",
        f"if that was it, {_KERNEL_LOG}",
        r"terminated by signal 9: Killed|code=killed, status=9/KILL|exited on signal 9|signal: killed"
        r"|Killed signal terminated program|internal compiler error: Killed|terminated with signal 9"
        r"|^\s*Killed\s*$",
        "LOG:  server process (PID 68454) was terminated by signal 9: Killed",
        "Killed",
    ),
    _kind(
        "sysrq_show_memory",
        "somebody asked for the memory's state by hand (SysRq m); nobody was killed for it",
        "a kill by hand is 'Manual OOM execution' (SysRq f)",
        r"(?:sysrq|SysRq) ?: .{0,12}Show [Mm]emory",
        "SysRq : Show Memory",
        "sysrq: Show Memory",
    ),
    _kind(
        "memory_dump",
        "a dump of the memory's state without the head that says why: SysRq m, a failed allocation, or the"
        " rest of a report",
        "the line before it: 'invoked oom-killer', 'page allocation failure', or 'Show Memory'",
        r"Mem-[Ii]nfo:|\bactive_anon:\d+ inactive_anon:\d+|\[ *pid *\] +uid +tgid +"
        r"|Tasks state \(memory values",
        "Mem-Info:",
        "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name",
    ),
    _kind(
        "call_trace",
        "a call trace of a failed allocation or of the OOM killer, without the line that says what failed",
        "the line before it: 'page allocation failure' or 'invoked oom-killer', and 'Killed process' behind",
        r"\b(?:warn_alloc(?:_failed)?|oom_kill_process|(?:mem_cgroup_)?out_of_memory|dump_header)"
        r"(?:\.[\w.]{1,32})?(?:\+0x[0-9a-f]|\))",
        "[    8.101]  warn_alloc from __alloc_pages+0xe9c/0xfe8\n dump_stack_lvl from warn_alloc+0x110/0x19c",
        " [<c015a2b4>] (oom_kill_process) from [<c015a738>] (__out_of_memory+0x154/0x178)",
    ),
    _kind(
        "sysrq_refused",
        "the OOM killer was asked by hand and did nothing",
        "OOM request ignored: no task was eligible, or the killer is disabled",
        r"OOM request ignored",
        "sysrq: OOM request ignored. No task eligible",
    ),
    _kind(
        "dump_tools",
        "what crash or drgn shows of a kernel's memory dump, without a report in it",
        "the whole log in the dump: 'crash> log', or makedumpfile --dump-dmesg; "
        "look there for 'invoked oom-killer' and 'Killed process'",
        r"^crash(?:64)?> |^ *DUMPFILE: \S|^(?:>>> |In \[\d+\]: ).*(?:\bdrgn\b|printk_records|print_dmesg)",
        "crash> log",
        "    DUMPFILE: vmcore  [PARTIAL DUMP]",
        ">>> from drgn.helpers.linux.printk import print_dmesg",
    ),
    _kind(
        "quoted",
        "a line of a report, quoted in source code or in a sentence",
        "paste the log itself: dmesg, or journalctl -k",
        r"[Kk]ill(?:ed)? process \d+ ?\(|invoked oom-killer: gfp_mask=0x|oom-kill:constraint=",
        'const SAMPLE: &str = "Out of memory: Killed process 1234 (redis-server) total-vm:100000kB";',
    ),
    _kind(
        "mentioned",
        "words about the OOM killer, not a line of its report",
        "paste the log itself: dmesg, or journalctl -k; look for 'invoked oom-killer: gfp_mask=0x'",
        r"invoked oom-killer|[Oo]ut of memory|[Kk]illed process|\boom-kill|\bOOM\b",
        "The host was out of memory",
    ),
)


#: Lower-case words, one of which is in every line of any kind. This quickly rules out most lines.
_WORDS_OF_ANY = (
    *("oom", "mem", "kill", "137", "evict", "alloc", "anon", "tgid", "lmk", "nohang", "of size", "signal"),
    *("corrective", "victim", "fork rejected", "dump_header", "swap space", "exhaustion", "jetsam"),
    *("crash> ", "crash64> ", "dumpfile: ", "drgn", "print_dmesg", "printk_records"),
)


def neighbours(lines: Iterable[str]) -> list[Near]:
    """The kinds that occur in a text without a report: the first line of each, the most certain kinds first.
    Lines that merely mention an OOM kill count only if there is nothing else."""
    found: dict[str, Near] = {}
    for number, line in enumerate(lines, 1):
        small = line[:MAX_LINE].lower()
        if not any(word in small for word in _WORDS_OF_ANY):
            continue
        kind = next((kind for kind in KINDS if kind.pattern.search(line, 0, MAX_LINE)), None)
        if kind is None:
            continue
        near = found.get(kind.id)
        if near is None:
            near = Near(kind=kind, line=number, text=" ".join(line[:MAX_LINE].split())[:_SHOWN], count=0)
        found[kind.id] = msgspec.structs.replace(near, count=near.count + 1)
    likely = [found[kind.id] for kind in KINDS if kind.id in found]
    return ([near for near in likely if near.kind.id != "mentioned"] or likely)[:MAX_TOLD]
