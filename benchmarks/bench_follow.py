"""``python -m benchmarks.bench_follow``: a hundred boards followed at once: memory, time, and what one noisy
board costs the others.

Each board is an address of 127.0.0.0/8 that sends netconsole's extended datagrams of a real kernel's log.
First all are quiet, then all talk (a line a second), then all run out of memory at the same moment, then one
floods.
"""

from __future__ import annotations

import argparse
import resource
import socket
import time
from pathlib import Path

from oomwatchd.config import FollowSection
from oomwatchd.event import conclude
from oomwatchd.follow.address import place_of
from oomwatchd.follow.follower import Follower
from oomwatchd.records.capture import OomCapture
from tests.follow.boards import datagrams, raw_records, records


def resident_mib() -> float:
    """Of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def one_report() -> list[bytes]:
    """The datagrams of one whole report."""
    raw = raw_records()
    begin = next(at for at, one in enumerate(records(raw)) if "invoked oom-killer" in one.text)
    end = next(at for at, one in enumerate(records(raw)) if at > begin and "Killed process" in one.text)
    return list(datagrams(raw[begin : end + 1]))


def text_report() -> list[bytes]:
    """The same as text, which costs more."""
    raw = raw_records()
    all_of = records(raw)
    begin = next(at for at, one in enumerate(all_of) if "invoked oom-killer" in one.text)
    end = next(at for at, one in enumerate(all_of) if at > begin and "Killed process" in one.text)
    lines = [line for one in all_of[begin : end + 1] for line in one.text.split("\n")]
    return [f"[  100.{number:06}] {line}\n".encode() for number, line in enumerate(lines)]


class Measured:
    """A follower with ``boards`` senders."""

    def __init__(self, boards: int) -> None:
        self.captures: dict[str, list[float]] = {}
        section = FollowSection(source="netconsole:127.0.0.1:46666")
        self.follower = Follower([place_of(section)], self._take, say=print)
        self.follower.open(strict=True)
        self.senders = []
        for number in range(boards):
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender.bind((f"127.0.1.{number + 1}", 0))
            sender.connect(("127.0.0.1", 46666))
            sender.setblocking(False)
            self.senders.append(sender)

    def _take(self, capture: OomCapture) -> bool:
        assert capture.source.followed is not None
        conclude(capture)
        self.captures.setdefault(capture.source.followed.name, []).append(time.monotonic())
        return True

    def run(self, seconds: float, until: int | None = None) -> float:
        """Turn for so long, or until so many boards were told of; the processor's time."""
        began, end = time.process_time(), time.monotonic() + seconds
        while time.monotonic() < end and (until is None or len(self.captures) < until):
            self.follower.turn(0.05)
        return time.process_time() - began


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=100)
    count = parser.parse_args().boards
    before = resident_mib()
    one = Measured(count)
    for sender in one.senders:
        sender.send(b"6,1,1000,-;hello\n")
    one.run(1.0)
    print(f"{count} boards, quiet: +{resident_mib() - before:.1f} MiB over {before:.1f}")
    spent = 0.0
    for turn in range(10):
        for sender in one.senders:
            sender.send(b"6,%d,%d,-;usb 1-1: new high-speed USB device number 5\n" % (turn + 2, 2000 + turn))
        spent += one.run(1.0)
    print(f"a line a second from each: {spent / 10 * 100:.1f} % of a core")
    for name, pieces in (("netconsole, extended", one_report()), ("text", text_report())):
        one.captures.clear()
        sent = time.monotonic()
        began = time.process_time()
        for piece in pieces:
            for sender in one.senders:
                sender.send(piece)
            one.follower.turn(0.0)
        one.run(120.0, count)
        times = sorted(moment - sent for found in one.captures.values() for moment in found)
        print(
            f"{name}: all run out of memory at once: {len(one.captures)} of {count} told, first after"
            f" {times[0]:.2f} s, last {times[-1]:.2f} s, {time.process_time() - began:.2f} s of processor,"
            f" resident {resident_mib():.1f} MiB"
        )
        one.run(2.0)
    slow = []
    noise = b"".join(text_report())[:8000]
    for turn in range(5):
        one.captures.clear()
        sent = time.monotonic()
        for line in text_report():
            one.senders[1].send(line.replace(b"[  100.", b"[  %d." % (200 + turn)))
        name = "127.0.1.2"
        while name not in one.captures and time.monotonic() - sent < 60:
            for _ in range(200):
                one.senders[0].send(noise)
            one.follower.turn(0.0)
        slow.append(one.captures[name][0] - sent)
    dropped = {key: value for key, value in one.follower.dropped().items() if key[1] != "lost" and value}
    print(
        f"one floods: another's report is told after {min(slow):.2f} to {max(slow):.2f} s; dropped: {dropped}"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"most resident: {peak:.1f} MiB")


if __name__ == "__main__":
    main()
