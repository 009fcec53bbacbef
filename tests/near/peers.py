"""When systemd-oomd and earlyoom would have killed, on the same loads: ``python -m tests.near.peers``.

A whole Debian 13 with the package under QEMU: cgroup v2, systemd, PSI. Both are told to kill nobody. The hook
of warnings (oomwatchd-near@.service) is at work. With no NAME all loads run, which takes some 20 minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.vm import full
from tests.vm.full import Result
from tests.vm.lab import cache_directory, command

HERE = Path(__file__).parent
LOADS = ("leak", "swap", "machine", "machineswap", "high", "cache", "pile")


def image(directory: Path) -> Path:
    """The lab's system, with earlyoom and the loads; made only if it is not in ``directory`` yet."""
    made, cache = directory / "root.img", cache_directory()
    if not made.exists():
        full.install(full.package(cache, directory), cache, directory)
    earlyoom = shutil.which("earlyoom")
    assert earlyoom is not None, "earlyoom is not installed"
    for source, mode in ((HERE / "peers.sh", "0755"), (HERE / "load.py", "0644"), (Path(earlyoom), "0755")):
        for words in (
            f"rm /lab/{source.name}",
            f"write {source} /lab/{source.name}",
            f"set_inode_field /lab/{source.name} mode 010{mode}",
        ):
            command("debugfs", "-w", "-R", words, made)
    return made


def rows(result: Result) -> list[str]:
    """A row for each load: when each of the three spoke, in seconds before the kill (or the end)."""
    events = result.json_lines("events")
    peers = result.one("peers").splitlines() if "peers" in result.parts else []
    kernel = _times(result.parts.get("kernel", "").splitlines(), "killed process")
    found = []
    for part in [name for name in result.parts if name.startswith("load_")]:
        times = [float(line) for line in re.findall(r"^\d+\.\d+$", result.parts[part], re.MULTILINE)]
        if len(times) < 2:
            found.append(f"| {part} | did not end |")
            continue
        began, ended = times
        killed = next((at for at in kernel if began <= at <= ended + 2), None)
        end = killed or ended
        near = [e["near"] for e in events if e["kind"] == "oom_near" and _within(e, began, ended)]
        oomd = [at for at in _times(peers, "systemd-oomd") if began <= at <= ended + 2]
        early = [at for at in _times(peers, "low memory") if began <= at <= ended + 2]
        said = (
            ", ".join(f"{one['state']} {one['passed'] or ''} {one['lead_seconds']} s" for one in near)
            or "nothing"
        )
        found.append(
            f"| {part[5:]} | {'yes' if killed else 'no'} | {end - began:.0f} | {said or 'nothing'} |"
            f" {_before(end, oomd)} | {_before(end, early)} | {_first(result.parts[part], end)} |"
        )
    return found


def _first(part: str, end: float) -> str:
    """When the kernel's own counts first grew."""
    counts = [line.split()[1:] for line in part.splitlines() if line.startswith("count ")]
    said = []
    for name in ("max", "high", "allocstall"):
        seen = [(float(c[0]), int(c[c.index(name) + 1])) for c in counts if name in c]
        grown = next((at for at, count in seen if count > seen[0][1]), None)
        if grown is not None:
            said.append(f"{name} {end - grown:.0f} s before")
    return ", ".join(said) or "nothing"


def _before(end: float, times: list[float]) -> str:
    return f"{end - times[0]:.0f} s before" if times else "nothing"


def _times(lines: list[str], word: str) -> list[float]:
    found = (re.match(r"\[ *(\d+\.\d+)\]", line) for line in lines if word in line.lower())
    return [float(one[1]) for one in found if one]


def _within(event: dict[str, Any], began: float, ended: float) -> bool:
    return began - 5 <= float(event["time"]["kernel_seconds"] or 0) <= ended + 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.near.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(LOADS)}")
    parser.add_argument("--image", type=Path, help="a directory where the image is kept for the next run")
    parser.add_argument("--memory", type=int, default=768, help="MiB")
    parser.add_argument("--seconds", type=int, default=1500, help="until the machine is stopped")
    parser.add_argument("--parts", type=Path, help="a file for everything that the machine said")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=full.SCRATCH) as scratch:
        directory = args.image or Path(scratch)
        directory.mkdir(exist_ok=True)
        made = image(directory)
        if args.names == ["none"]:
            return
        loads = ",".join(args.names or LOADS)
        result = full.run(made, args.memory, args.seconds, "peers", kernel=f"near.loads={loads}")
    if args.parts:
        args.parts.write_text(json.dumps(result.parts, indent=1) + "\n" + result.console)
    print("\n".join(rows(result)))
    print(result.parts.get("load_pile", ""), result.parts.get("counting_pile", ""))
    print(result.parts.get("hooked", "no hook"), result.parts.get("hook", ""))


if __name__ == "__main__":
    main()
