"""How a source is written on the command line and in the configuration: ``[NAME=]KIND:PLACE``."""

from __future__ import annotations

import re
import shlex
import stat
from pathlib import Path
from typing import Literal, get_args

import msgspec

from oomwatchd.config import Address, FollowSection, SourcesSection, parse_listen
from oomwatchd.errors import ConfigError, NoInputError, UsageError
from oomwatchd.records.capture import Via
from oomwatchd.words.escape import harmless

Kind = Literal["serial", "file", "pipe", "command", "netconsole", "syslog-udp", "syslog-tcp", "syslog-tls"]
FORMS = (
    "serial:/dev/ttyUSB0@115200, file:PATH, pipe:PATH, command:WORDS, netconsole:[ADDRESS:]PORT,"
    " syslog-udp:[ADDRESS:]PORT, syslog-tcp:[ADDRESS:]PORT or syslog-tls:[ADDRESS:]PORT"
)
DEFAULT_SPEED = 115200
#: the most characters that are kept of a host's name
NAME_CHARACTERS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One source. Serial, file and pipe have a ``path`` ("-": standard input), a command has ``words``, the
    others have ``listen``; ``name`` is the host's, or None if each sender is a host of its own."""

    kind: Kind
    text: str
    name: str | None = None
    path: str = ""
    speed: int = DEFAULT_SPEED
    words: tuple[str, ...] = ()
    listen: Address = Address()
    section: FollowSection = FollowSection()

    @property
    def via(self) -> Via:
        """The kind of source as events name it."""
        return "syslog" if self.kind.startswith("syslog") else self.kind  # type: ignore[return-value]

    @property
    def called(self) -> str:
        """The source's name for people and metrics."""
        return self.name or self.text[:NAME_CHARACTERS]


def place_of(section: FollowSection) -> Place:
    """Read one section of the configuration. Raises UsageError."""
    kind, colon, rest = section.source.partition(":")
    if not colon or kind not in get_args(Kind):
        raise UsageError(f"{section.source!r} is no source", hint=f"give {FORMS}")
    fields: dict[str, object] = {"kind": kind, "text": section.source, "section": section}
    if not rest:
        raise UsageError(f"{section.source!r} says no place", hint=f"give {FORMS}")
    name = section.name or None
    if name is not None and _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} is not a host's name",
            hint=f"at most {NAME_CHARACTERS} letters, digits, dots, hyphens and underscores",
        )
    if kind == "serial":
        path, at, speed = rest.rpartition("@")
        fields |= {"path": path if at else rest, "speed": _speed(speed) if at else DEFAULT_SPEED}
        name = name or Path(str(fields["path"])).name
    elif kind in ("file", "pipe"):
        fields["path"] = rest
        name = name or (Path(rest).name if rest != "-" else "stdin")
    elif kind == "command":
        try:
            words = tuple(shlex.split(rest)) or ("",)
        except ValueError as error:
            raise UsageError(f"{section.source!r}: {error}", hint="quote as for a shell") from None
        fields["words"] = words
        name = name or Path(words[0]).name
    else:
        fields["listen"] = _listen(rest)
    if kind == "syslog-tls" and not section.tls_cert:
        raise UsageError(f"{section.source!r} has no certificate", hint="give tls_cert, and tls_key")
    return Place(name=name and harmless(name)[:NAME_CHARACTERS], **fields)  # type: ignore[arg-type]


def places_of(section: SourcesSection, name: str = "") -> list[Place]:
    """Read all sources of the configuration, which ``name`` stands for in errors. Raises ConfigError."""
    places = []
    where = f"{name}: " if name else ""
    for number, one in enumerate(section.follow, 1):
        try:
            places.append(place_of(one))
        except UsageError as error:
            raise ConfigError(f"{where}sources.follow.{number}: {error.message}", hint=error.hint) from None
    return places


def place_of_argument(text: str) -> Place:
    """Read an argument of the command line. For a path alone, the file there tells its kind. Raises
    UsageError or NoInputError."""
    name, equals, rest = text.partition("=")
    if not equals or _NAME.fullmatch(name) is None or ":" in name:
        name, rest = "", text
    if rest == "-" or rest.partition(":")[0] not in get_args(Kind):
        rest = f"{_kind_of(rest)}:{rest}"
    return place_of(FollowSection(name=name, source=rest))


def _kind_of(path: str) -> Kind:
    if path == "-":
        return "pipe"
    try:
        mode = Path(re.sub(r"@\d+$", "", path)).stat().st_mode
    except OSError as error:
        raise NoInputError(f"there is no {harmless(path)}: {error.strerror}", hint=f"give {FORMS}") from None
    if stat.S_ISCHR(mode):
        return "serial"
    return "file" if stat.S_ISREG(mode) else "pipe"


def _speed(text: str) -> int:
    import termios

    speeds = sorted(int(name[1:]) for name in dir(termios) if re.fullmatch(r"B[1-9]\d*", name))
    if not text.isdigit() or int(text) not in speeds:
        known = ", ".join(str(one) for one in speeds if one >= 1200)
        raise UsageError(f"{text!r} is not a speed of a serial line", hint=f"one of {known}")
    return int(text)


def _listen(text: str) -> Address:
    try:
        return parse_listen(text if ":" in text else f"[::]:{text}")
    except ValueError as error:
        raise UsageError(str(error).removeprefix("listen: "), hint=f"give {FORMS}") from None
