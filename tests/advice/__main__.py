"""``python -m tests.advice [NAME ...]``: run scenarios, follow the advice, run them again, print the table.

A NAME is a scenario or the beginning of several (``cg-``, ``g-driver``). Results are kept and ``--table``
prints them again; a new run of a scenario replaces its old runs, unless ``--more`` adds to them.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from tests.advice import host, judge, machine
from tests.advice.judge import Outcome
from tests.advice.run import Ran, order, ran
from tests.advice.scenarios import HOST, SCENARIOS, VM, Change, Scenario
from tests.vm.lab import LabError, cache_directory


class Bench:
    """Where scenarios run."""

    def __init__(
        self,
        cache: Path,
        labs: dict[tuple[str, str], machine.Lab],
        daemon: Path | None,
        keep: Path | None,
        suite: str,
    ) -> None:
        self._cache, self._labs, self._daemon, self._keep = cache, labs, daemon, keep
        self._suite = suite

    def measure(self, scenario: Scenario, where: str) -> Outcome:
        """Run it, judge the verdict, follow the advice, run it again. Raises LabError."""
        name = f"{scenario.name}.{where}"
        for _ in range(1 + (where == HOST)):
            first = self._run(scenario, where, None)
            offline = judge.counted(judge.analyze(first.kmsg), scenario, first)
            if offline or not first.rc:
                break
            # others of this host used up the kernel's ten heads in 5 s
            time.sleep(6)
        live = judge.counted(first.live, scenario, first)
        if self._keep is not None:
            (self._keep / f"{name}.kmsg").write_bytes(first.kmsg)
            (self._keep / f"{name}.console").write_text(first.console)
            (self._keep / f"{name}.live.jsonl").write_bytes(
                b"".join(msgspec.json.encode(e) + b"\n" for e in live)
            )
        out = Outcome(name=name, cause=scenario.cause, rc=first.rc, reports=len(offline))
        if first.timed_out:
            out.note = "timed out"
        if not offline:
            out.end = "no OOM" if first.started else "did not start"
            return out
        # of several the first is what the work died of
        out.offline = judge.verdict(offline[0], scenario, first.group)
        out.live = judge.verdict(live[0], scenario, first.group) if live else None
        out.lever = judge.lever(out.best.change)
        step = scenario.follow.get(out.lever)
        if out.lever == "unmapped":
            out.end = "unmapped"
        elif step is None:
            out.end = "not followable"
        elif isinstance(step, Change):
            out.did = step.did
            again = self._run(scenario, where, judge.begun(out.best.change, step))
            bad = judge.counted(judge.analyze(again.kmsg), scenario, again)
            out.end = judge.cured(again, bad, scenario, step)
            if self._keep is not None:
                (self._keep / f"{name}.again.console").write_text(again.console)
            second = scenario.follow.get(judge.next_lever(out.best.change) or "")
            if out.end == "not cured" and isinstance(second, Change):
                out.did += f"; then {second.did}"
                again = self._run(scenario, where, second)
                bad = judge.counted(judge.analyze(again.kmsg), scenario, again)
                if judge.cured(again, bad, scenario, second) != "not cured":
                    out.end = "by the next step"
        else:
            places = judge.looked(scenario, out.best.change, first)
            out.did = "looked at " + (", ".join(places) or "nothing that is here")
            out.end = "leads there" if any(places.values()) else "leads nowhere"
        return out

    def _run(self, scenario: Scenario, where: str, change: Change | None) -> Ran:
        wanted = order(scenario, change, looking=change is None)
        if where == HOST:
            return host.run(wanted, self._cache, scenario.name, self._daemon if change is None else None)
        return machine.run(self._labs[_kind(scenario, self._suite)], wanted)


def _kind(scenario: Scenario, suite: str) -> tuple[str, str]:
    """The processor and the Debian of a scenario's machine."""
    return scenario.arch, scenario.suite or suite


def wanted(names: list[str], where: str | None, *, small: bool) -> Iterator[tuple[Scenario, str]]:
    """Scenarios and places that the command line asks for."""
    for scenario in SCENARIOS:
        for place in scenario.where:
            if (where and place != where) or (small and not scenario.small):
                continue
            if place == HOST and host.version() is None:
                continue
            if scenario.name == "cg-memsw" and host.version() != 1:
                continue
            if not names or any(
                scenario.name.startswith(n) or f"{scenario.name}.{place}" == n for n in names
            ):
                yield scenario, place


def main() -> int:
    """Run the scenarios asked for; 1 if the bench itself does not work."""
    parser = argparse.ArgumentParser(prog="python -m tests.advice", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--where", choices=(HOST, VM))
    parser.add_argument("--small", action="store_true", help="the representative part")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="of each scenario")
    parser.add_argument("--more", action="store_true", help="keep old runs; run until each has N")
    parser.add_argument("--suite", default="bookworm", help="the Debian whose kernel the machines have")
    parser.add_argument("--no-live", action="store_true", help="no daemon: what analyze says alone")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep raw records, consoles and live events here"
    )
    parser.add_argument(
        "--results", type=Path, metavar="FILE", default=cache_directory() / "advice-results.json"
    )
    parser.add_argument("--table", action="store_true", help="print what was found, run nothing")
    parser.add_argument(
        "--judge", type=Path, metavar="DIR", help="name causes again in what --keep kept there"
    )
    args = parser.parse_args()
    results = _load(args.results)
    if args.judge:
        results = [_named_again(outcome, args.judge) for outcome in results]
    elif not args.table:
        try:
            results = _measure(args, results)
        except LabError as error:
            print(f"tests.advice: {error}", file=sys.stderr)
            return 1
    print(judge.table(results))
    return 0


def _measure(args: argparse.Namespace, results: list[Outcome]) -> list[Outcome]:
    cache = cache_directory()
    todo = list(wanted(args.names, args.where, small=args.small))
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="advice-", dir="/var/tmp")))
        daemon = None
        labs = {
            kind: machine.prepare(
                cache,
                scratch / "-".join(kind),
                suite=kind[1],
                live=not args.no_live,
                arch=kind[0],
                driver=any("oomlab" in s.work for s, _ in todo if _kind(s, args.suite) == kind),
            )
            for kind in sorted({_kind(s, args.suite) for s, place in todo if place == VM})
        }
        if not args.no_live and any(place == HOST for _, place in todo):
            daemon = stack.enter_context(host.watching())
        bench = Bench(cache, labs, daemon, args.keep, args.suite)
        for scenario, place, first in rounds(todo, [o.name for o in results] if args.more else [], args.runs):
            try:
                done = bench.measure(scenario, place)
            except LabError as error:
                name = f"{scenario.name}.{place}"
                done = Outcome(name=name, cause=scenario.cause, end=f"bench: {error}"[:300])
            said = (done.name, done.best.named, done.lever, done.end, done.best.why, done.best.change)
            print(*said, sep=" | ", file=sys.stderr, flush=True)
            results = _order([o for o in results if not first or o.name != done.name] + [done])
            args.results.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1))
    return results


def rounds(
    todo: list[tuple[Scenario, str]], had: list[str], runs: int
) -> Iterator[tuple[Scenario, str, bool]]:
    """What to run, each once before any twice, until each has ``runs``; and whether it had none before."""
    for done in range(runs):
        for scenario, place in todo:
            if had.count(f"{scenario.name}.{place}") <= done:
                yield scenario, place, done == 0


def _named_again(outcome: Outcome, kept: Path) -> Outcome:
    """``outcome`` by the patterns as they are now; of several runs the last is kept."""
    scenario = next(s for s in SCENARIOS if s.name == outcome.name.rpartition(".")[0])
    kmsg = kept / f"{outcome.name}.kmsg"
    if not outcome.reports or not kmsg.exists():
        return outcome
    group = next(iter(re.findall(r"advice-\d+-\w+-\d+", kmsg.read_text(errors="replace"))), "")
    first = ran(
        "", kmsg.read_bytes(), (kept / f"{outcome.name}.live.jsonl").read_text().splitlines(), group=group
    )
    offline = judge.counted(judge.analyze(first.kmsg), scenario, first)
    live = judge.counted(first.live, scenario, first)
    return msgspec.structs.replace(
        outcome,
        offline=judge.verdict(offline[0], scenario, group) if offline else outcome.offline,
        live=judge.verdict(live[0], scenario, group) if live else outcome.live,
    )


def _order(results: list[Outcome]) -> list[Outcome]:
    place = {f"{s.name}.{w}": at for at, (s, w) in enumerate((s, w) for s in SCENARIOS for w in s.where)}
    return sorted((o for o in results if o.name in place), key=lambda o: place[o.name])


def _load(file: Path) -> list[Outcome]:
    return msgspec.json.decode(file.read_bytes(), type=list[Outcome]) if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
