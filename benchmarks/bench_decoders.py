"""The other decoder beside ours, in one run: ``python -m benchmarks.bench_decoders DIRECTORY [--rounds N]``.

DIRECTORY holds OOMAnalyser's ``OOMAnalyser.py``, which is in no package registry. Each of its own examples
is read ``COPIES`` times, by whole processes that take turns: with a kernel stamp before each line, and bare.
Each copy has its own stamps and process ids, because the same report twice is one event. The other decoder
takes one report at a time; one process of it reads all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

COPIES = 400
#: the bound: our time to JSON Lines against the other decoder's, whole process
BOUND = 0.5
TEXT_MS = 2.0

_EXAMPLES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import OOMAnalyser
shown = OOMAnalyser.OOMDisplay
found = {name: getattr(shown, name) for name in dir(shown) if name.startswith("example_")}
print(json.dumps(found))
"""
_THEIRS = """
import sys
sys.path.insert(0, sys.argv[1])
import OOMAnalyser
for text in open(sys.argv[2], encoding="utf-8").read().split("\\n\\x0c\\n"):
    if not OOMAnalyser.OOMAnalyser(OOMAnalyser.OOMEntity(text)).analyse():
        sys.exit("a report was not understood")
"""
_STAMP = re.compile(r"^\[[^\]]*\d:\d[^\]]*\] ", re.MULTILINE)


def copies(example: str, *, stamped: bool) -> list[str]:
    """The report ``COPIES`` times, each of another process and, with stamps, of another time."""
    bare = _STAMP.sub("", example).strip("\n")
    victim = re.findall(r"Killed process (\d+)", bare)
    made = []
    for number in range(COPIES):
        text = bare
        for pid in victim:
            text = re.sub(rf"\b{pid}\b", str(400_000 + number), text)
        if stamped:
            lines = text.split("\n")
            text = "\n".join(f"[{number * 60 + at / 1000:12.6f}] {line}" for at, line in enumerate(lines))
        made.append(text)
    return made


def _spent() -> float:
    """Processor time of all processes that were waited for, seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(*command: object, compiled: Path, events: int | None = None) -> float:
    """Processor time of a whole process, of whose modules the compiled form is kept in ``compiled``;
    ``events``: as many lines it must print."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = str(compiled)
    began = _spent()
    done = subprocess.run([str(word) for word in command], capture_output=True, check=True, env=environ)
    took = _spent() - began
    printed = done.stdout.count(b"\n")
    if events is not None and printed != events:
        raise RuntimeError(f"{printed} events instead of {events}")
    return took


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_decoders", description=__doc__)
    parser.add_argument("directory", type=Path, help="where OOMAnalyser.py is")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(arguments)
    python = sys.executable
    found: dict[str, str] = json.loads(
        subprocess.run([python, "-c", _EXAMPLES, args.directory], capture_output=True, check=True).stdout
    )
    broken = False
    print(f"{COPIES} reports, whole process, processor time, best of {args.rounds} rounds")
    print(f"{'':34}{'theirs s':>10}{'jsonl s':>10}{'ratio':>8}{'text ms a report':>18}")
    ours = [python, "-m", "oomwatchd", "analyze", "--format"]
    with tempfile.TemporaryDirectory() as made:
        for name, example in found.items():
            for stamped in (True, False):
                texts = copies(example, stamped=stamped)
                log, apart = Path(made) / "log", Path(made) / "apart"
                log.write_text("\n".join(texts) + "\n")
                apart.write_text("\n\f\n".join(texts))
                theirs, jsonl, text = [], [], []
                measured = partial(seconds, compiled=Path(made) / "compiled")
                for _ in range(args.rounds):
                    theirs.append(measured(python, "-c", _THEIRS, args.directory, apart))
                    jsonl.append(measured(*ours, "jsonl", log, events=COPIES))
                    text.append(measured(*ours, "text", log))
                ratio = min(jsonl) / min(theirs)
                each = min(text) / COPIES * 1000
                broken |= ratio > BOUND or each > TEXT_MS
                label = f"{name.removeprefix('example_')}, {'stamped' if stamped else 'bare'}"
                print(
                    f"{label:34}{min(theirs):10.2f}{min(jsonl):10.2f}{ratio:8.2f}{each:18.2f}",
                    flush=True,
                )
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
