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
    "numbered": b"".join(b"%6d\tNode\n" % n for n in range(9_000)),
    "code marks": b"`a" * 45_000 + b"\n" + b"`a`\n" * 20_000,
    "bars on lines": b"|  a  |\n" * 11_000,
    "boxes": b"[/code][code=" * 7_000,
    "kernel headers": b"May  1 10:00:00 h kernel: " * 3_500,
    "written line ends": b"[    1.000000] " + rb"\n[    1.000000] " * 5_000,
    "escaped": rb"a\_b\*" * 15_000,
    "markup": b"<p>a</p><br>" * 7_500,
    "verbose": b"Thu 2024-02-01 10:00:00 UTC [s="
    + b"0" * 32
    + b";i=1;t=1;]\n    MESSAGE=a\n"
    + b" " * 12
    + b"b\n"
    + (b" " * 13 + b"c\n") * 6_000,
    "nested json": b'{"a":{"b":[' + b'["1","x"],' * 9_000 + b'["1","x"]]}}\n',
    "blanks in a field": b'"message": "x' + b" " * 60_000 + b"y\n",
    "blanks in a frame": b" " * 30_000 + b"}" + b" " * 30_000 + b"x\n",
    "colours": rb"\x1b[31ma\x1b[0m" * 5_000,
}
