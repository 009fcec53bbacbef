"""Hostile log text, for the tests and benchmarks of the text source."""

from __future__ import annotations

HOSTILE = {
    "one long line": b"[ 1" * 30_000,
    "open brackets": b"[" * 90_000,
    "quotes": b"> " * 45_000,
    "bars": b"|" * 90_000 + b"\n",
    "single letters": b"[    1.000000] Normal free:\n" + b"a\n" * 30_000,
    "zone for ever": b"[    1.000000] Normal free:1kB\n" + b"min:0kB\n" * 10_000,
    "headers": b"x invoked oom-killer: " * 5_000,
    "pairs": b"anon 1 file 2 " * 6_000,
    "pairs on lines": b"Memory cgroup stats for /a:\n" + b"anon 1\n" * 10_000,
    "rows": b"[  1]     0\n" * 8_000,
    "kill": b"Killed process 1 (" * 5_000,
    "blanks": b" " * 90_000 + b"x",
    "tags": b"a:" * 45_000,
    "digits": b"1" * 90_000,
    "json": b"{" * 90_000,
    "json lines": b'{"a":\n' * 15_000,
    "dates": b"May  1 10:00:00 " * 6_000,
    "escapes": b"\x1b[" * 45_000,
    "soft breaks": b"a=3D=\n" * 15_000,
    "entities": b"&lt;" * 22_000,
    "carriage returns": b"a\r" * 45_000,
}
