"""The most that a process will hold because its runtime was told so at its start: Java, and Node.

A heap that fills up to there and stays is no exhaustion. Only the command line is read, which everybody may
read; options in the environment or in files are not known.

Sources: java(1) (-Xmx, -XX:MaxHeapSize, -XX:MaxRAMPercentage, which is of the container's limit); ``node
--v8-options`` (--max-old-space-size, in MiB).
"""

from __future__ import annotations

from collections.abc import Iterator

_MIB = 1 << 20
#: What such a process holds beside its heap (code, threads, classes, the collector's tables): this share of
#: the heap, but at least so many bytes.
_BESIDE_SHARE, _BESIDE_BYTES = 8, 64 * _MIB
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
#: options whose value is the next word (java(1))
_TWO_WORDS = frozenset(
    {
        *("-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path"),
        *("--add-modules", "--add-exports", "--add-opens", "--add-reads", "--limit-modules"),
    }
)


def most_held(command: bytes, limit: int | None) -> int | None:
    """Bytes that a process with this command line (words end with NUL) holds at most, heap and all beside it;
    ``limit`` is its cgroup's. None: it was not told."""
    heap: int | None = None
    for option in _options(command):
        name, _, value = option.partition("=")
        if name.startswith("-Xmx"):
            heap = _size(name[4:])
        elif name == "-XX:MaxHeapSize":
            heap = _size(value)
        elif name == "-XX:MaxRAMPercentage":
            heap = None if limit is None else _share(value, limit)
        elif name.replace("_", "-") == "--max-old-space-size":
            heap = _size(value + "m")
    return None if not heap else heap + max(_BESIDE_BYTES, heap // _BESIDE_SHARE)


def _options(command: bytes) -> Iterator[str]:
    """The words before the program that the runtime runs."""
    words = iter(command.decode("ascii", "replace").split("\0")[1:])
    for word in words:
        if not word.startswith("-") or word == "-jar":
            return
        if word in _TWO_WORDS:
            next(words, None)
        yield word


def _size(text: str) -> int | None:
    unit = _UNITS.get(text[-1:].lower())
    number = text[:-1] if unit else text
    return int(number) * (unit or 1) if _is_number(number) else None


def _share(text: str, limit: int) -> int | None:
    whole, _, part = text.partition(".")
    if not _is_number(whole) or (part and not _is_number(part)):
        return None
    return int(limit * min(100.0, float(text)) / 100)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 15
