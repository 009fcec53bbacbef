"""``python -m tests.vm``: run machines of the lab and print what they showed as a table."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.vm import board, full, kernels, large, ondemand, power, small, trouble, waiter
from tests.vm.checks import Claim, check
from tests.vm.lab import LabError, cache_directory

#: what the whole system can do, by the scripts beside this file, and with how much memory
SCRIPTS = {"guest": (768, 128), "trouble": (trouble.LARGE_MIB,), "power": (768,)}


def main() -> int:
    """Run what the command line asks for; 1 if anything was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=cache_directory(), metavar="DIR", help="downloads and images"
    )
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="of one machine")
    commands = parser.add_subparsers(required=True)
    small = commands.add_parser("kernels", help="every scenario on Debian's kernels")
    small.add_argument(
        "names", nargs="*", default=[*kernels.MACHINES], metavar="NAME", help=", ".join(kernels.MACHINES)
    )
    small.add_argument("--keep", type=Path, metavar="DIR", help="keep the recordings here")
    small.add_argument("--jobs", type=int, default=1, metavar="N", help="machines at a time")
    small.set_defaults(run=run_kernels)
    boards = commands.add_parser("board", help="a board's console and netconsole, followed from here")
    boards.add_argument("names", nargs="*", default=["bookworm-mipsel", "bookworm-armhf"], metavar="NAME")
    boards.set_defaults(run=run_boards)
    small_waiter = commands.add_parser("waiter", help="the script that waits for kills, with BusyBox")
    small_waiter.add_argument(
        "names", nargs="*", default=["bookworm-amd64", "bookworm-mipsel"], metavar="NAME"
    )
    small_waiter.add_argument("--memory", type=int, default=128, metavar="MIB")
    small_waiter.set_defaults(run=run_waiter)
    called = commands.add_parser("ondemand", help="the profile without a process, in a whole Debian 13")
    called.add_argument("--memory", type=int, default=256, metavar="MIB")
    called.set_defaults(run=run_on_demand)
    tiny = commands.add_parser("small", help="the real daemon on a board without systemd")
    tiny.add_argument("arch", nargs="?", default="arm64", choices=("arm64", "amd64"))
    tiny.add_argument("--memory", type=int, default=128, metavar="MIB")
    tiny.set_defaults(run=run_small)
    crowded = commands.add_parser("large", help="reports of 30 000 tasks under the unit's memory limit")
    crowded.add_argument("--memory", type=int, default=768, metavar="MIB")
    crowded.set_defaults(run=run_large)
    whole = commands.add_parser("full", help="the package in a whole Debian 13")
    whole.add_argument("scripts", nargs="*", default=[*SCRIPTS], metavar="SCRIPT", help=", ".join(SCRIPTS))
    whole.add_argument("--memory", type=int, nargs="+", metavar="MIB")
    whole.add_argument("--idle", type=int, default=0, metavar="SECONDS", help="time to watch it do nothing")
    whole.add_argument("--deb", type=Path, metavar="FILE", help="default: built from the working tree")
    whole.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="for images, several GB (default: that for temporary files)",
    )
    whole.set_defaults(run=run_full)
    args = parser.parse_args()
    try:
        good: bool = args.run(args)
    except LabError as error:
        print(f"tests.vm: {error}", file=sys.stderr)
        return 1
    return 0 if good else 1


def run_boards(args: argparse.Namespace) -> bool:
    """One line for each board."""
    print("| board | kills counted | own | serial | netconsole | same | slowest s | lost | seconds |")
    print("|---|--:|--:|--:|--:|---|--:|--:|--:|", flush=True)
    good = True
    for name in args.names:
        told = board.run(name, args.work, args.timeout)
        kills = [sum(event.kills for event in events) for events in (told.own, told.serial, told.netconsole)]
        same = [event.summary for event in told.own] == [
            event.summary.partition(": ")[2] for event in told.netconsole
        ]
        good = good and same and kills == [told.kernel_kills] * 3
        figures = (name, told.kernel_kills, *kills, "yes" if same else "no")
        print("|", *(f"{one} |" for one in (*figures, f"{told.slowest:.2f}", told.lost, round(told.seconds))))
    return good


def run_waiter(args: argparse.Namespace) -> bool:
    """What each machine said, a line a part."""
    for name in args.names:
        for part, text in waiter.run(name, args.work, args.timeout, args.memory).items():
            print(f"{name} {part}: {' | '.join(text.split(chr(10)))}", flush=True)
    return True


def run_on_demand(args: argparse.Namespace) -> bool:
    """Each claim on a line."""
    return _claims(args, lambda image: ondemand.test(image, args.memory, args.timeout))


def run_small(args: argparse.Namespace) -> bool:
    """Each claim on a line."""
    return _said(small.test(args.arch, args.memory, args.work, args.timeout))


def run_large(args: argparse.Namespace) -> bool:
    """Each claim on a line."""
    return _claims(args, lambda image: large.test(image, args.memory, args.timeout))


def _claims(args: argparse.Namespace, test: Callable[[Path], list[Claim]]) -> bool:
    with tempfile.TemporaryDirectory(prefix="oomwatchd-lab-", dir=full.SCRATCH) as scratch:
        directory = Path(scratch)
        claims = test(full.install(full.package(args.work, directory), args.work, directory))
    return _said(claims)


def _said(claims: list[Claim]) -> bool:
    for claim in claims:
        print(f"{'yes' if claim.holds else 'NO '} {claim.text}")
    return all(claim.holds for claim in claims)


def run_kernels(args: argparse.Namespace) -> bool:
    """One line for each machine."""
    for name in args.names:
        if name not in kernels.MACHINES:
            raise LabError(f"there is no machine {name}; there are {', '.join(kernels.MACHINES)}")
    print("| machine | kernel | scenarios | kills counted | kills read | reports | panic | seconds |")
    print("|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        return all([*pool.map(lambda name: _kernel(name, args), args.names)])


def _kernel(name: str, args: argparse.Namespace) -> bool:
    try:
        recording = kernels.record(name, args.work, args.timeout)
    except LabError as error:
        print(f"tests.vm: {error}", file=sys.stderr)
        return False
    if args.keep:
        recording.save(args.keep)
    compared = kernels.compare(recording)
    panics = kernels.panics(recording)
    figures = (
        *(name, recording.release, len(compared)),
        *(sum(each.scenario.kills for each in compared), sum(each.kills for each in compared)),
        *(sum(each.reports for each in compared), panics, round(recording.seconds)),
    )
    print("| " + " | ".join(map(str, figures)) + " |", flush=True)
    differing = [each for each in compared if not each.agrees]
    for each in differing:
        print(f"tests.vm: {name}: {each}", file=sys.stderr)
    return not differing and panics == 1


def run_full(args: argparse.Namespace) -> bool:
    """All claims of each script for each amount of memory."""
    for name in args.scripts:
        if name not in SCRIPTS:
            raise LabError(f"there is no script {name}; there are {', '.join(SCRIPTS)}")
    good = True
    with tempfile.TemporaryDirectory(prefix="oomwatchd-lab-", dir=args.scratch) as scratch:
        began = time.monotonic()
        deb = args.deb or full.package(args.work.absolute(), Path(scratch))
        built = time.monotonic()
        image = full.install(deb, args.work, Path(scratch), idle=args.idle)
        print(f"package {built - began:.0f} s, image {time.monotonic() - built:.0f} s", flush=True)
        for name in args.scripts:
            for memory in args.memory or SCRIPTS[name]:
                good = _script(name, image, memory, args.timeout) and good
    return good


def _script(name: str, image: Path, memory: int, timeout: float) -> bool:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=image.parent) as scratch:
        try:
            if name == "guest":
                claims = check(full.run(image, memory, timeout))
            elif name == "trouble":
                claims = trouble.test(image, Path(scratch), memory, timeout)
            else:
                claims = power.test(image, Path(scratch), memory, timeout)
        except LabError as error:
            print(f"tests.vm: {name}, {memory} MiB: {error}", file=sys.stderr)
            return False
    print(f"\n{name}, {memory} MiB, {time.monotonic() - began:.0f} s:\n")
    for claim in claims:
        print(f"- {'yes' if claim.holds else 'NO'}: {claim.text}", flush=True)
    return all(claim.holds for claim in claims)


if __name__ == "__main__":
    sys.exit(main())
