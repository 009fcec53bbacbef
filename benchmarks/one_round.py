"""One round of ``benchmarks.compare``: the figures of the commit whose directory is on the path, as JSON.

Uses what its benchmarks had in common since before the rooms were regrouped. Higher is better where a name
ends in /s.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import bench_decode as decoding
from benchmarks import bench_footprint, bench_latency, bench_live, bench_text, footprint


def cpu(work: Callable[[], object], times: int = 1) -> float:
    """Processor time of it, in seconds. It is done once before: what only the first time costs (patterns that
    are compiled when they are used, which older commits did on import) counts as start."""
    work()
    gc.collect()
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def throughput() -> dict[str, float]:
    """From bytes to events, in one thread."""
    raw = decoding.report_lines(500)
    text = decoding.as_dmesg(raw)
    lines = text.count(b"\n") / 1e3
    blocks = decoding.cut(decoding.read_raw(raw))
    rows = "\n".join(bench_text._FORMS["syslog"](n) for n in range(50_000)).encode()
    many = [b"6,%d,%d,-;veth%d: link %d becomes ready\n" % (n, n * 50, n % 97, n) for n in range(200_000)]

    def foreign() -> None:
        assembler, bite = bench_live.Assembler(), bench_live.BITE_RECORDS
        for at in range(0, len(many), bite):
            records = bench_live.parse_records(many[at : at + bite])
            bench_live.feed(assembler, [record for record in records if record])

    found = {
        "one report, dmesg text to event, thousand lines/s": lines / cpu(lambda: decoding.events(text), 10),
        "records to block, thousand lines/s": lines / cpu(lambda: decoding.cut(decoding.read_raw(raw)), 10),
        "block to report, thousand lines/s": lines / cpu(lambda: decoding.decode(blocks[0].records), 20),
        "foreign records, thousand/s": 200 / cpu(foreign),
        "syslog text, thousand lines/s": 50 / cpu(lambda: bench_text._read(rows)),
    }
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        bench_text._log_without_reports(log, 200)
        found["log without reports, MB/s"] = 200 / cpu(lambda: bench_text._skip(log))
    return found


def daemon() -> dict[str, float]:
    """The real daemon as installed, on a pipe: until it is ready, and an idle minute."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        environ = footprint.install(Path(directory))
        for run in ("compiles", "counts"):
            own = Path(directory) / run
            own.mkdir()
            running = footprint.Running(own, environ, bench_footprint.profiles(own)["default"])
            if run == "counts":
                found["start until ready, ms of CPU"] = running.cpu_seconds() * 1e3
                bench_footprint.settle(running)
                memory = running.memory_kib()
                found["resident, MiB"] = memory["Rss"] / 1024
                found["private, MiB"] = bench_footprint.private_mib(memory)
                before, woken = running.cpu_seconds(), sum(running.wakeups().values())
                time.sleep(60)
                found["idle minute, ms of CPU"] = (running.cpu_seconds() - before) * 1e3
                found["idle minute, wakeups"] = sum(running.wakeups().values()) - woken
            running.stop()
    return found


def latency() -> dict[str, float]:
    """Medians from the kernel's stamp of a lone kill line."""
    with bench_latency.silent_console():
        seen = bench_latency.measure(40, "rest", paced=False)
    stations = {name: sorted(seen.get(name, ())) for name in ("victim", "queued", "stored")}
    return {f"kill line to {name}, ms": at[len(at) // 2] for name, at in stations.items() if at}


if __name__ == "__main__":
    figures = throughput()
    for part in sys.argv[1:]:
        figures |= {"daemon": daemon, "latency": latency}[part]()
    print(json.dumps(figures))
