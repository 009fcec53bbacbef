"""Fuzz every target for some seconds: ``python -m tests.fuzz.run --seconds 60 [TARGET ...]``.

Each target runs in a process of its own under atheris (libFuzzer), which ends on an exception, on an input
that takes longer than a bound, and on growing memory; the input is then left in the directory given by
``--keep``. Without atheris (it has wheels for few Pythons and machines), the same targets run on randomly
mutated seeds, without coverage, and the run says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.conftest import corpus_directory
from tests.fuzz.targets import TARGETS

#: an input that takes longer is a hang; instrumented code is some ten times slower
HANG_SECONDS = 10
MAX_BYTES = 16_384
MEMORY_MB = 1024


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target; default: 60")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="default: fuzz-found")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.targets if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}")
    status = 0
    for name in args.targets or TARGETS:
        if not fuzz(name, args.seconds, args.keep):
            status = 1
    return status


def fuzz(name: str, seconds: int, keep: Path) -> bool:
    """Fuzz one target; whether it withstood."""
    if not _has_atheris():
        version = ".".join(map(str, sys.version_info[:3]))
        print(
            f"{name}: atheris is not installed for Python {version}: seeds are mutated at random instead,"
            " not guided by coverage",
            flush=True,
        )
        return without_atheris(name, seconds, keep)
    with tempfile.TemporaryDirectory() as work:
        for n, seed in enumerate(TARGETS[name].seeds(corpus_directory())):
            Path(work, f"seed{n}").write_bytes(seed[:MAX_BYTES])
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.child",
            name,
            work,
            f"-max_total_time={seconds}",
            f"-timeout={HANG_SECONDS}",
            f"-max_len={MAX_BYTES}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-artifact_prefix={work}/found-",
            "-print_final_stats=1",
        ]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        found = list(Path(work).glob("found-*"))
        if done.returncode == 0 and not found:
            stats = dict(
                line.removeprefix("stat::").split(":", 1)
                for line in done.stderr.splitlines()
                if line.startswith("stat::")
            )
            print(
                f"{name}: {stats.get('number_of_executed_units', '?').strip()} inputs, nothing found",
                flush=True,
            )
            return True
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
        keep.mkdir(parents=True, exist_ok=True)
        for file in found:
            (keep / f"{name}-{file.name}").write_bytes(file.read_bytes())
            print(f"{name}: the input is in {keep / f'{name}-{file.name}'}", flush=True)
        return False


def _has_atheris() -> bool:
    try:
        return importlib.util.find_spec("atheris") is not None
    except ValueError:  # barred by hand
        return False


def without_atheris(name: str, seconds: int, keep: Path) -> bool:
    """Fuzz one target with mutated seeds; whether it withstood."""
    target = TARGETS[name]
    seeds = [seed[:MAX_BYTES] for seed in target.seeds(corpus_directory())]
    choose = random.Random(0)  # repeatable, not secret
    until = time.monotonic() + seconds
    count = 0
    while time.monotonic() < until:
        data = _mutated(choose, seeds)
        count += 1
        began = time.monotonic()
        try:
            target.run(data)
        except Exception:
            traceback.print_exc()
        else:
            if time.monotonic() - began < HANG_SECONDS:
                continue
            print(f"{name}: an input took longer than {HANG_SECONDS} s")
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{name}-found").write_bytes(data)
        print(f"{name}: the input is in {keep / f'{name}-found'}")
        return False
    print(f"{name}: {count} inputs, nothing found")
    return True


def _mutated(choose: random.Random, seeds: list[bytes]) -> bytes:
    """Two seeds crossed, with a few bytes and stretches changed."""
    first, second = choose.choice(seeds), choose.choice(seeds)
    data = bytearray(first[: choose.randint(0, len(first))] + second[choose.randint(0, len(second)) :])
    for _ in range(choose.randint(0, 20)):
        at = choose.randint(0, len(data))
        what = choose.randint(0, 3)
        if what == 0:
            data[at : at + 1] = choose.randbytes(1)
        elif what == 1:
            del data[at : at + choose.randint(1, 40)]
        elif what == 2:
            data[at:at] = choose.randbytes(choose.randint(1, 8))
        else:
            begin = choose.randint(0, len(data))
            data[at:at] = data[begin : begin + choose.randint(1, 200)]
    return bytes(data[:MAX_BYTES])


if __name__ == "__main__":
    sys.exit(main())
