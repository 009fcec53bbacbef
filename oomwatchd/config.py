"""The configuration file: TOML into typed, checked, immutable sections.

Every key has a default, so no file is needed. An unknown key is an error: a mistyped one must not silently
leave the default in force. The documented list of all keys is
``config.example.toml``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec

from oomwatchd import plugs
from oomwatchd.errors import ConfigError

#: Read when no file is named and this one exists.
DEFAULT_PATH = Path("/etc/oomwatchd/config.toml")
_MOST_BYTES = 1 << 20
#: How many sinks of one kind there may be: each costs a thread, and a label in the metrics.
MAX_OF_A_KIND = 8
#: The store's directory when neither the configuration nor systemd (``StateDirectory=``) names one.
DEFAULT_STATE_DIRECTORY = Path("/var/lib/oomwatchd")


class Address(msgspec.Struct, frozen=True):
    """Where to listen: ``host`` and ``port``, or ``path`` of a socket in the file system."""

    host: str = ""
    port: int = 0
    path: Path | None = None


def parse_listen(listen: str) -> Address:
    """``host:port``, ``[v6]:port`` or ``unix:/path``; ValueError says what is wrong."""
    if listen.startswith("unix:"):
        # sun_path of unix(7) holds 108 bytes and its end
        if not listen.startswith("unix:/") or len(os.fsencode(listen)) - 5 > 107:
            raise ValueError(f"listen: {listen!r} is not unix:/path of at most 107 bytes")
        return Address(path=Path(listen[5:]))
    host, colon, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"listen: {listen!r} is ambiguous; write an IPv6 address as [address]:port")
    if not colon or not host:
        raise ValueError(f"listen: {listen!r} is not host:port (every address: 0.0.0.0:port or [::]:port)")
    if not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"listen: {port!r} is not a port (1 to 65535)")
    return Address(host, int(port))


Positive = Annotated[int, msgspec.Meta(ge=1)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the configuration's sections."""


class KmsgSection(Section, frozen=True, kw_only=True):
    """``[kmsg]``: where the kernel log is read."""

    device: str = "/dev/kmsg"


class HttpSection(Section, frozen=True, kw_only=True):
    """``[http]``: metrics and pages. ``listen`` is one address or several, each ``host:port``,
    ``[v6]:port`` or ``unix:/path``; empty: no server. ``web_config`` is a file for TLS and passwords;
    without authentication ``expose_pages`` opens the pages to other hosts."""

    listen: str | tuple[str, ...] = "127.0.0.1:10053"
    web_config: str = ""
    expose_pages: bool = False

    def __post_init__(self) -> None:
        _ = self.addresses

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All of ``listen``."""
        listen = (self.listen,) if isinstance(self.listen, str) else self.listen
        return tuple(parse_listen(one) for one in listen if one)

    @property
    def web_config_path(self) -> Path | None:
        return Path(self.web_config) if self.web_config else None


class StoreSection(Section, frozen=True, kw_only=True):
    """``[store]``: how much is kept; the oldest goes first when any of the bounds is passed. ``in_use`` says
    what to do when another daemon uses the state directory: exit, or watch with events in memory only."""

    max_events: Positive = 10_000
    max_bytes: Annotated[int, msgspec.Meta(ge=256 * 1024)] = 64 * 1024 * 1024
    max_age_days: Positive = 365
    in_use: Literal["end", "memory"] = "end"


class CaptureSection(Section, frozen=True, kw_only=True):
    """``[capture]``: what is recorded of a victim. Command lines may hold secrets, hence the default.
    In a container, ``host_root`` is where the host's files are mounted; names of containers are read
    there."""

    command_line: Literal["off", "executable", "full"] = "executable"
    host_root: str = "/"


class RecorderSection(Section, frozen=True, kw_only=True):
    """``[recorder]``: how often memory is sampled while all is calm, and how many minutes are kept."""

    enabled: bool = True
    interval_seconds: Annotated[int, msgspec.Meta(ge=1, le=300)] = 10
    minutes: Annotated[int, msgspec.Meta(ge=1, le=60)] = 15


class WarningSection(Section, frozen=True, kw_only=True):
    """``[warning]``: the event ``oom_near``, before anybody is killed; it needs the flight recorder. Of ends
    that are further away than ``horizon_seconds`` nothing is said, nor of what matches one of ``quiet``:
    patterns (``*``, ``?``) for cgroups, units, slices, containers' and pods' names, or "machine". In
    ``hook_directory`` an empty file is left for each warning, named by its event's id."""

    enabled: bool = True
    horizon_seconds: Annotated[int, msgspec.Meta(ge=10, le=86400)] = 1800
    quiet: list[str] = []
    hook_directory: str = ""


class WitnessSection(Section, frozen=True, kw_only=True):
    """``[witness]``: ``mark_victim`` compares the log with the trace point oom:mark_victim."""

    mark_victim: bool = False


class MetricsSection(Section, frozen=True, kw_only=True):
    """``[metrics]``: ``textfile`` is a file for node_exporter's textfile collector; its name ends in
    ``.prom``."""

    textfile: str = ""

    def __post_init__(self) -> None:
        if self.textfile and not (self.textfile.startswith("/") and self.textfile.endswith(".prom")):
            raise ValueError("textfile: not a whole path that ends in .prom, which node_exporter reads")


class FollowSection(Section, frozen=True, kw_only=True):
    """``[[sources.follow]]``: the log of another machine (``follow.address``). ``hosts`` names senders by
    their address, and then there are no others; ``relay``: the sender is whom a syslog message names, for
    its address is a relay's; ``tls_*`` are files for syslog-tls."""

    source: str = ""
    name: str = ""
    hosts: dict[str, str] = {}
    relay: bool = False
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""


class SourcesSection(Section, frozen=True, kw_only=True):
    """``[sources]``: what is read besides this host's own kernel log."""

    follow: Annotated[tuple[FollowSection, ...], msgspec.Meta(max_length=128)] = ()


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration. ``exit_after_idle_seconds``: end when nothing was under way for so long, 0:
    never (``daemon.on_demand``). ``sinks`` maps the name of each sink that is mentioned to its
    ``Options``. The name is its kind, followed by a hyphen and its own ``name`` where it has one."""

    state_directory: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kmsg: KmsgSection = KmsgSection()
    http: HttpSection = HttpSection()
    metrics: MetricsSection = MetricsSection()
    store: StoreSection = StoreSection()
    capture: CaptureSection = CaptureSection()
    recorder: RecorderSection = RecorderSection()
    warning: WarningSection = WarningSection()
    witness: WitnessSection = WitnessSection()
    sources: SourcesSection = SourcesSection()
    exit_after_idle_seconds: Annotated[int, msgspec.Meta(ge=0, le=86400)] = 0
    sinks: dict[str, Any] = {}

    def state_path(self, environ: Mapping[str, str] = os.environ) -> Path:
        """The directory of the store: the configured one, else systemd's first ``$STATE_DIRECTORY``
        (systemd.exec(5)), else /var/lib/oomwatchd."""
        if self.state_directory:
            return Path(self.state_directory)
        systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
        return Path(systemd) if systemd else DEFAULT_STATE_DIRECTORY


def load(path: Path | None, default: Path = DEFAULT_PATH) -> tuple[Config, Path | None]:
    """The configuration in ``path``, or in ``default`` if no path is given and that file exists, or else
    the defaults; with the file that was read. Raises ConfigError."""
    import tomllib  # the daemon drops it between two reads

    asked, path = path is not None, path or default
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{path}: larger than {_MOST_BYTES >> 20} MiB: no configuration")
        document = tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        if not asked and isinstance(error, FileNotFoundError | NotADirectoryError):
            return parse({}, "defaults"), None
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except RecursionError:  # tomllib recurses once for each opening bracket
        raise ConfigError(f"{path}: nested too deeply") from None
    return parse(document, str(path)), path


def parse(document: dict[str, Any], name: str) -> Config:
    """A read TOML document as Config; ``name`` stands for it in errors. Raises ConfigError."""
    given = document.get("sinks", {})
    if isinstance(given, dict):
        _refuse_unknown(given, plugs.names("oomwatchd.sinks"), "sinks.", name)
    _check_names(document, Config, "", name)
    if (key := _key_of_nul(document)) is not None:
        raise ConfigError(f"{name}: {_shown(key)}: holds a NUL character, which no path, address or name can")
    config = _convert(document, Config, "", name)
    sinks: dict[str, Any] = {}
    for kind, value in config.sinks.items():
        sinks |= _sinks_of(kind, value, plugs.plug("oomwatchd.sinks", kind).Options, name)
    return msgspec.structs.replace(config, sinks=sinks)


def _sinks_of(kind: str, value: Any, options: type[msgspec.Struct], name: str) -> dict[str, msgspec.Struct]:
    """The sinks of one kind by name: a table is one sink, a list of tables several."""
    path = f"sinks.{kind}"
    if not isinstance(value, list) or "name" not in options.__struct_fields__:
        sections = [_section(value, options, path, name)]
    elif len(value) > MAX_OF_A_KIND:
        raise ConfigError(f"{name}: {path}: at most {MAX_OF_A_KIND} of a kind, not {len(value)}")
    else:
        sections = [_section(one, options, f"{path}.{n}", name) for n, one in enumerate(value, 1)]
    found: dict[str, msgspec.Struct] = {}
    for section in sections:
        own = getattr(section, "name", "")
        called = f"{kind}-{own}" if own else kind
        if called in found:
            raise ConfigError(f"{name}: {path}: two have the name {own!r}", hint="give each one of its own")
        found[called] = section
    return found


def _section(value: Any, kind: type[msgspec.Struct], path: str, name: str) -> msgspec.Struct:
    if isinstance(value, dict):
        _check_names(value, kind, f"{path}.", name)
    return _convert(value, kind, path, name)


def _check_names(table: dict[str, Any], kind: type[msgspec.Struct], prefix: str, name: str) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    _refuse_unknown(table, list(fields), prefix, name)
    for key, value in table.items():
        inner = fields[key]
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            _check_names(value, inner, f"{prefix}{key}.", name)


def _refuse_unknown(table: dict[str, Any], known: list[str], prefix: str, name: str) -> None:
    for key in table:
        if key not in known:
            import difflib  # only for this

            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            names = ", ".join(known) or "nothing"
            hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {names}"
            raise ConfigError(f"{name}: unknown key {_shown(prefix + key)}", hint=hint)


def _key_of_nul(value: Any, key: str = "") -> str | None:
    """The key of the first string with a NUL character, which no system call accepts."""
    if isinstance(value, str):
        return key if "\0" in value else None
    inner: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inner = ((f"{key}.{name}" if key else name, one) for name, one in value.items())
    elif isinstance(value, list):
        inner = ((f"{key}.{number}", one) for number, one in enumerate(value, 1))
    return next((found for at, one in inner if (found := _key_of_nul(one, at)) is not None), None)


def _shown(key: str) -> str:
    return key if re.fullmatch(r"[\w.-]+", key, re.ASCII) else repr(key)


_T = TypeVar("_T", bound=msgspec.Struct)

#: msgspec's closing words of a message: where the value stands.
_AT = re.compile(r" - at `\$\.?([^`]*)`$")
#: A check in ``__post_init__`` begins its message with the key that it is about.
_OWN_CHECK = re.compile(r"([a-z_]+): ")
#: msgspec's type names as TOML calls them.
_TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "a table",
    "array": "a list",
}


def _convert(value: Any, kind: type[_T], path: str, name: str) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text = _AT.sub("", str(error))
        at = _AT.search(str(error))
        # the first of a list is 1, as in all messages
        inside = re.sub(r"\[(\d+)\]", lambda number: f".{int(number[1]) + 1}", at[1]) if at else ""
        keys = [*path.split("."), *inside.split(".")]
        if own := _OWN_CHECK.match(text):
            keys.append(own[1])
            text = text[own.end() :]
        if text.startswith("Invalid enum value"):
            wrong = text.removeprefix("Invalid enum value ")
            text = f"{wrong} is none of: {', '.join(_choices(kind, at[1] if at else ''))}"
        text = re.sub(r"`(\w+)`", lambda word: _TYPES.get(word[1], word[0]), text)
        key = ".".join(filter(None, keys))
        raise ConfigError(f"{name}: {key}: {text[0].lower()}{text[1:]}") from error


def _choices(kind: Any, path: str) -> list[str]:
    """The values of the ``Literal`` at a key path below ``kind``."""
    for key in path.split("."):
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == key)
    return [str(choice) for choice in get_args(kind)]
