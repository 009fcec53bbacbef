"""Kernel lines that carry text which a user chooses, and what an attacker would put there.

Each carrier is the format of the kernel's own message; ``{}`` is the user's text, ``{file}`` the name of a
file that the user ran. Sources: arch/x86/mm/fault.c show_signal_msg(), arch/x86/kernel/traps.c,
kernel/signal.c print_fatal_signal(), net/ipv4/netfilter/nf_log_ipv4.c, include/net/netfilter/nf_log.h,
kernel/audit.c, drivers/usb/core/hub.c, fs/btrfs/volumes.c, fs/exec.c, and others as named.
"""

# ruff: noqa: E501 - the records are as long as the kernel prints them
from __future__ import annotations

from typing import NamedTuple

from oomwatchd.formats import COMM_BYTES
from oomwatchd.formats.recognise import ALL


class Carrier(NamedTuple):
    """``size``: bytes of the user's text that the kernel prints; ``lines``: the records."""

    name: str
    size: int
    lines: tuple[str, ...]

    def records(self, text: str) -> list[str]:
        """What the kernel prints when the user chose ``text``."""
        cut = text.encode()[: self.size].decode(errors="ignore")
        # a file's name has no slash, and 255 bytes
        file = text.replace("/", "_").encode()[:255].decode(errors="ignore")
        return [line.replace("{file}", file).replace("{}", cut) for line in self.lines]


_AT = "ip 000055d0c0de1149 sp 00007ffc0ffee000"
_PACKET = (
    "IN=lo OUT= MAC=00:00:00:00:00:00:00:00:00:00:00:00:08:00 SRC=127.0.0.1 DST=127.0.0.1 LEN=60 TOS=0x00 "
)
_TCP = _PACKET + "PREC=0x00 TTL=64 ID=7 DF PROTO=TCP SPT=1 DPT=2 WINDOW=512 RES=0x00 SYN URGP=0 "
_UDP = _PACKET + "PREC=0x00 TTL=64 ID=7 PROTO=UDP SPT=1 DPT=2 LEN=8 UID=1000 GID=1000 MARK=0x1 "
#: a name that the user may choose at the beginning of a line is a process', a device's, a log prefix, or,
#: with a driver from elsewhere, longer
CARRIERS = (
    Carrier("segfault", COMM_BYTES, (f"{{}}[4242]: segfault at 0 {_AT} error 6 in {{file}}[55d0c0de1000+1000]",)),
    Carrier("segfault, newer", COMM_BYTES, (
        f"{{}}[4242]: segfault at 0 {_AT} error 6 in {{file}}[1149,55d0c0de1000+1000] likely on CPU 1 (core 1, "
        "socket 0)",
        "Code: 90 90 90 90 90 <c7> 00 00 00 00 00",
    )),
    Carrier("segfault, no file", COMM_BYTES, (f"{{}}[4242]: segfault at 0 {_AT} error 6",)),
    Carrier("trap", COMM_BYTES, (f"traps: {{}}[4242] trap int3 {_AT} error:0 in {{file}}[55d0c0de1000+1000]",)),
    Carrier("trap, older", COMM_BYTES, (f"{{}}[4242] trap divide error {_AT} error:0 in {{file}}[400000+1000]",)),
    Carrier("arm64 fault", COMM_BYTES, ("{}[4242]: unhandled exception: DABT (lower EL), ESR 0x92000046, in {file}[1000+1000]",
        "CPU: 1 PID: 4242 Comm: {} Not tainted 6.12.94 #1", "pc : 0000aaaac0de1149", "lr : 0000aaaac0de1149")),
    Carrier("ppc fault", COMM_BYTES, ("{}[4242]: segfault (11) at 0 nip 100 lr 100 code 1 in {file}[1000+1000]",)),
    Carrier("fatal signal", COMM_BYTES, ("potentially unexpected fatal signal 11.",
        "CPU: 1 UID: 65534 PID: 4242 Comm: {} Not tainted 6.12.94 #1 ", "Hardware name: QEMU Standard PC",
        "RIP: 0033:0x55d0c0de1149", "RSP: 002b:00007ffc0ffee000 EFLAGS: 00010246")),
    Carrier("fatal signal, older", COMM_BYTES, ("potentially unexpected fatal signal 11.",
        "Pid: 4242, comm: {} Not tainted 3.2.0 #1")),
    Carrier("warning", COMM_BYTES, ("CPU: 0 PID: 4242 Comm: {} Tainted: G        W          6.12.94 #1 Debian",)),
    Carrier("bad frame", COMM_BYTES, (f"{{}}[4242] bad frame in rt_sigreturn frame:00007ffc {_AT} orax:f",)),
    Carrier("vsyscall", COMM_BYTES, (f"{{}}[4242] vsyscall attempted with vsyscall=none {_AT} ax:0 si:0 di:0",)),
    Carrier("SOCK_PACKET", COMM_BYTES, ("{} uses obsolete (PF_INET,SOCK_PACKET)",)),
    Carrier("sysctl", COMM_BYTES, ("warning: process `{}' used the deprecated sysctl system call with 1.2.",)),
    Carrier("32-bit capabilities", COMM_BYTES, ("warning: `{}' uses 32-bit capabilities (legacy support in use)",)),
    Carrier("remap_file_pages", COMM_BYTES, ("mmap: {} (4242) uses deprecated remap_file_pages() syscall.",)),
    Carrier("drop_caches", COMM_BYTES, ("{} (4242): drop_caches: 3",)),
    Carrier("beyond end", COMM_BYTES, ("{}: attempt to access beyond end of device\nloop0: rw=0, want=8, limit=2",)),
    Carrier("split lock", COMM_BYTES, ("x86/split lock detection: #AC: {}/4242 took a split_lock trap at 0x401136",)),
    Carrier("hung task", COMM_BYTES, ("INFO: task {}:4242 blocked for more than 120 seconds.",)),
    Carrier("lockdown", COMM_BYTES, ("Lockdown: {}: debugfs access is restricted; see man kernel_lockdown.7",)),
    Carrier("ptrace", COMM_BYTES, ('ptrace attach of "{}"[4242] was attempted by "{}"[4243]',)),
    Carrier("launched", 4096, ("process '{}' launched '{}' with NULL argv: empty string added",)),
    Carrier("executable stack", 4096, ("process '{}' started with executable stack",)),
    Carrier("audit", 4096, ('audit: type=1701 audit(1.2:3): auid=1000 uid=1000 comm="{}" exe="{}" sig=11 res=1',)),
    Carrier("device name", COMM_BYTES, ("{}: renamed from eth0",)),
    Carrier("device name, bare", COMM_BYTES, ("device {} entered promiscuous mode",)),
    Carrier("bridge port", COMM_BYTES, ("br0: port 1({}) entered blocking state",)),
    Carrier("LOG", 29, ("{}" + _TCP,)),
    Carrier("LOG, udp", 29, ("{}" + _UDP,)),
    Carrier("nft log", 127, ("{}" + _TCP,)),
    Carrier("nft log, udp", 127, ("{}" + _UDP,)),
    Carrier("module", 55, ("{}: loading out-of-tree module taints kernel.",)),
    Carrier("driver from elsewhere", 400, ("{}: link is up",)),
    Carrier("USB string", 126, ("usb 1-1: Product: {}", "usb 1-1: Manufacturer: {}", "usb 1-1: SerialNumber: {}")),
    Carrier("input device", 80, ("input: {} as /devices/pci0000:00/usb1/1-1/input/input7",)),
    Carrier("btrfs label", 255, ("BTRFS: device label {} devid 1 transid 6 /dev/loop0 scanned by mount (4242)",)),
    Carrier("cgroup", 255, ("cgroup: fork rejected by pids controller in /user.slice/{}",)),
    Carrier("unknown mount option", 255, ("tmpfs: Unknown parameter '{}'",)),
)  # fmt: skip

#: what says most in the few bytes that a carrier has
SHORT = (
    "Task in /", "Task in / killed as a result of limit of /", "Memory limit reached of cgroup /",
    " killed as a result of limit of /", "[1] 1 1 1 1 1 1", "[ 1] 0 1 1 1 1 1 1 1 1 x", "Killed process 1 (a)",
    "Killed process 1 (systemd) vm:", "Killed process 1 () vm:1kB, ", "Kill process 1() score 0 or ",
    "kill process 1(a) score 1", "x: Kill process 1() score 0.", "1 (a) invoked oom-killer in ub ",
    "1 (", "a invoked oom-killer: ", "a invoked oom:", "oom-killer: gfp_mask=0x1", "oom-kill:constraint=A,",
    "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/a,task_memcg=/a,task=a,pid=1,uid=0",
    "Out of memory and no killable processes...", "Tasks in / are going to be killed due to memory.oom.group",
    "memory: usage 1kB, limit 1kB, failcnt 1", "Memory cgroup stats for /:", "Mem-Info:", "anon 1",
    "Memory cgroup stats for /a: cache:0KB ", "Node 0 Normal free:1kB ", "Node 0 active_anon:1kB ", "Normal: 1*4kB ",
    "lowmem_reserve[]: 0 ", "free:1 ", "Free swap = 0kB", "1 pages RAM", "5 pages reserved ",
    "Node 0 hugepages_total=9 hugepages_free=9 hugepages_surp=9 hugepages_size=2048kB", "a mode:0x1",
    "page allocation failure: order:9, mode:0x1", "a: page allocation failure: order:0, mode:0x0(), nodemask=0",
    "oom_reaper: reaped process 7 (x), now anon-rss:0kB", "oom_reaper: unable to reap pid:7 (x)",
    "CPU: 0 PID: 1 Comm: x", "CPU: 0 PID: 1 Comm: x Not tainted 6.1 #1", "Pid: 1, comm: x", "Call Trace:",
    "a+0x1/0x1", " out_of_memory+0x1/0x1 ", "[<c0d0c6a4>] dump_header+0x1/0x1", "x cpuset=a mems_allowed=0",
    "sysrq: Manual OOM execution", "sysrq: OOM request ignored. No task eligible", "__ratelimit: 9 callbacks suppressed",
    "oom_kill_process: 99 callbacks suppressed", "Kernel panic - not syncing: Out of memory: ",
    "Allocation of length 1 from process 1 failed", "Unreclaimable slab info:", "dentry 1KB 1KB", "a  1KB 1KB",
    "Memory allocations:", "1 1 a:1 func:b", "mem_cgroup_out_of_memory", "Would have killed process 1 (a). But ",
    "x: OOM victim 1 (a) is already exiting. Skip killing", "Kill process 1 (a) sharing same memory",
    "oom killer 1 (a) has mm pinned by 1 (b)", "COMPACTION is disabled!!!", "-", "[", "",
)  # fmt: skip

#: every form's samples, which each carrier cuts to its size
BEGINNINGS = tuple(dict.fromkeys((*SHORT, *(sample for form in ALL for sample in form.samples))))
