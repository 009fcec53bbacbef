#!/bin/sh
# Reports of 30 000 tasks without end, read by the packaged program in a memory cgroup of the unit's size.
. /lab/common.sh
systemctl stop oomwatchd.service oomwatchd-kmsg.socket
part version; stat --file-system --format=%T /sys/fs/cgroup
cat > /tmp/feed.py <<'PY'
import os, pathlib, re, socket, subprocess, sys, time, urllib.request

root = pathlib.Path("/sys/fs/cgroup")
group = root / "large"
group.mkdir()
(group / "memory.max").write_text(str(96 << 20))
(group / "memory.swap.max").write_text("0")
state = pathlib.Path("/tmp/large")
state.mkdir()
config = state / "config.toml"
config.write_text(f'state_directory = "{state}/state"\n[http]\nlisten = "127.0.0.1:10054"\n')
mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
mine.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)


def enter():
    (group / "cgroup.procs").write_text("0")
    os.dup2(theirs.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="kmsg", MALLOC_ARENA_MAX="1")


program = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid()); os.execvp(sys.argv[1], sys.argv[1:])"
environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "kmsg", "MALLOC_ARENA_MAX": "1"}
daemon = subprocess.Popen(
    [sys.executable, "-c", program, "oomwatchd", "run", "--config", str(config)],
    preexec_fn=enter, pass_fds=(3, theirs.fileno()), env=environ,
    stdout=sys.stderr, stderr=sys.stderr,
)
theirs.close()
seq = 1000


def say(text):
    global seq
    mine.send(f"6,{seq},{time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000},-;{text}\n".encode())
    seq += 1


def metrics():
    with urllib.request.urlopen("http://127.0.0.1:10054/metrics", timeout=60) as answer:
        return answer.read().decode()


def kills():
    found = re.findall(r'^oomwatchd_oom_kills_total\{constraint="memcg"\} (\S+)', metrics(), re.M)
    return float(found[0]) if found else 0.0


def until(what, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if what():
                return
        except OSError:
            pass
        time.sleep(1)


until(lambda: metrics(), 120)
reports = int(sys.argv[1])
for number in range(reports):
    pid = 100000 + number
    say("victim invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0")
    say(f"CPU: 0 UID: 0 PID: {pid} Comm: victim Not tainted 6.18.44 #1")
    say("memory: usage 16384kB, limit 16384kB, failcnt 26")
    say("Tasks state (memory values in pages):")
    say("[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents"
        " oom_score_adj name")
    for task in range(30000):
        rss = 200 + task % 3000
        say(f"[{task + 10:7d}]     0 {task + 10:5d}     5000 {rss:8d} {rss:8d}        0         0    57344        0"
            f"             0 task{task}")
    say(f"[{pid:7d}]     0 {pid:5d}     5000     9000     9000        0         0    57344        0             0 victim")
    say(f"oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a{number},"
        f"task_memcg=/a{number},task=victim,pid={pid},uid=0")
    say(f"Memory cgroup out of memory: Killed process {pid} (victim) total-vm:20000kB, anon-rss:36000kB,"
        " file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:56kB oom_score_adj:0")
until(lambda: kills() == reports, 300)
status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
print("kills", int(kills()), "of", reports)
print("rss_kib", re.search(r"VmHWM:\s+(\d+)", status)[1])
print("peak_bytes", (group / "memory.peak").read_text().strip())
print("refused", re.search(r"^max (\d+)", (group / "memory.events").read_text(), re.M)[1])
print("alive", int(daemon.poll() is None))
daemon.terminate()
print("ended", daemon.wait(120))
PY
part large; /usr/bin/python3 /tmp/feed.py 6
part end
sync
systemctl --force poweroff
