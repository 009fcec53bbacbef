"""Two commits against each other in one run: ``python -m benchmarks.compare OLD [NEW] [--rounds N]`` (root).

Each is taken out of git into a directory of its own and measured with its own benchmarks (``one_round``), in
turns, so that what else happens on the machine meets both. Throughput is by processor time (user and system),
not by the time that passed. Of all rounds the best counts: other work can only take away from it. Latency is
the best round's median of real kills, the daemon before all else (SCHED_FIFO).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def check_out(commit: str, directory: Path) -> Path:
    """The files of a commit."""
    tree = directory / commit.replace("/", "_")
    tree.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "x"], cwd=tree, input=archive, check=True)
    return tree


def measure(tree: Path, what: list[str]) -> dict[str, float]:
    """One round of one commit."""
    environ = os.environ | {"OOMWATCHD_CORPUS": str(ROOT / "tests/data/corpus"), "PYTHONPATH": str(tree)}
    ran = subprocess.run(
        [sys.executable, "-P", str(ROOT / "benchmarks/one_round.py"), *what],
        cwd=tree,
        env=environ,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def best(name: str, values: list[float]) -> float:
    """The round that other work took least from."""
    return max(values) if name.endswith("/s") else min(values)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new", nargs="?", default="HEAD")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only-throughput", action="store_true", help="no daemon, no kills: needs no root")
    args = parser.parse_args()
    what = [] if args.only_throughput else ["daemon", "latency"]
    seen: dict[str, dict[str, list[float]]] = {args.old: {}, args.new: {}}
    with tempfile.TemporaryDirectory() as name:
        trees = {commit: check_out(commit, Path(name)) for commit in seen}
        for _ in range(args.rounds):
            for commit, tree in trees.items():
                for figure, value in measure(tree, what).items():
                    seen[commit].setdefault(figure, []).append(value)
    print(f"best of {args.rounds} rounds, in turns{'':15} {args.old[:10]:>10} {args.new[:10]:>10}   new/old")
    for figure, values in seen[args.old].items():
        old, new = best(figure, values), best(figure, seen[args.new].get(figure, [float("nan")]))
        print(f"{figure:45} {old:10.2f} {new:10.2f} {new / old if old else 1:9.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
