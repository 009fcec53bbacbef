"""The same of whole machines and of cgroup v2, under QEMU: ``python -m tests.near.machine [NAME ...]``.

A Debian kernel with 512 MiB, the daemon as its unit has it (tests/advice has the machine).
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.advice import machine
from tests.advice.run import Order, Ran
from tests.vm.lab import cache_directory

_NOW = "$(cut -d ' ' -f 1 /proc/uptime)"


class Load(NamedTuple):
    """Shell for the machine; whether the kernel is expected to kill."""

    name: str
    work: str
    kills: bool
    append: str = ""


LOADS = (
    Load("machine: leak", "causes leak 5 leaky", True),
    Load("machine: slow leak", "causes leak 2 leaky", True),
    Load("machine: leak into swap", "swap_on 102400; causes leak 6 leaky", True),
    Load(
        "machine: leak into zram",
        "insmod /modules/zsmalloc.ko; insmod /modules/zram.ko; echo 150M > /sys/block/zram0/disksize; "
        "mkswap /dev/zram0 > /dev/null; swapon /dev/zram0; causes leak 6 leaky",
        True,
    ),
    Load(
        "machine: tmpfs filling",
        "mkdir -p /big; mount -t tmpfs -o size=2g big /big; i=0; "
        "while [ $i -lt 120 ]; do dd if=/dev/zero of=/big/$i bs=1M count=5 2> /dev/null || break; "
        "sleep 1; i=$((i + 1)); done",
        True,
    ),
    Load("machine: page cache", "disk_at /d; i=0; while [ $i -lt 60 ]; do "
        "dd if=/dev/zero of=/d/$((i % 12)) bs=1M count=30 2> /dev/null; cat /d/* > /dev/null; sleep 1; "
        "i=$((i + 1)); done", False),
    Load("machine: large and calm", "causes anon 250 2 steady & sleep 90", False),
    Load("v2: leak", "group a 128M; within a causes leak 2 leaky", True),
    Load("v2: page cache", "disk_at /d; group a 64M; i=0; while [ $i -lt 60 ]; do "
        "within a dd if=/dev/zero of=/d/$((i % 8)) bs=1M count=16 2> /dev/null; "
        "within a cat /d/* > /dev/null; sleep 1; i=$((i + 1)); done", False),
    Load("v2: start", "group a 128M; within a causes anon 90 8 starts & sleep 70", False),
)  # fmt: skip


def order(load: Load) -> Order:
    work = f'echo "@@BEGAN {_NOW}"; {load.work}; rc=$?; echo "@@ENDED {_NOW}"; return $rc'
    return Order(
        work=work, looks={}, env={}, memory=512, append=load.append, devices=(), seconds=600, looking=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.near.machine", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--suite", default="bookworm", help="whose kernel; default: bookworm")
    args = parser.parse_args()
    print("| load | killed | growth, s | lead, s | share | warnings |")
    print("|---|---|--:|--:|--:|---|")
    with tempfile.TemporaryDirectory(prefix="near-", dir="/var/tmp") as directory:
        lab = machine.prepare(cache_directory(), Path(directory) / "lab", suite=args.suite, live=True)
        for load in LOADS:
            if not args.names or load.name in args.names:
                print(row(load, machine.run(lab, order(load))), flush=True)


def row(load: Load, ran: Ran) -> str:
    times = [float(found) for found in re.findall(r"@@(?:BEGAN|ENDED) (\d+\.\d+)", ran.console)]
    growth = times[1] - times[0] if len(times) == 2 else 0.0
    warnings = [event["near"] for event in ran.live if event["kind"] == "oom_near"]
    killed = any(event["kind"] == "oom_kill" for event in ran.live)
    lead = max((near["lead_seconds"] or 0.0 for near in warnings), default=0.0)
    said = ", ".join(
        f"{near['passed'] or near['state']} at {100 * near['used_bytes'] / near['capacity_bytes']:.0f} %, "
        f"{near['soonest_seconds']} to {near['latest_seconds']} s"
        for near in warnings
    )
    share = f"{100 * lead / growth:.0f} %" if killed and growth else ""
    return (
        f"| {load.name} | {'yes' if killed else 'no'} | {growth:.0f} | {lead:.0f} | {share} | "
        f"{said or ('none' if ran.rc is not None else 'none (the work did not end)')} |"
    )


if __name__ == "__main__":
    main()
