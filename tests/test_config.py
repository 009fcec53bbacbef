"""Configuration: which values are accepted, which are refused, and the messages."""

from __future__ import annotations

import argparse
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from oomwatchd import plugs
from oomwatchd.cli import check_config
from oomwatchd.config import Address, Config, FollowSection, load, parse, parse_listen
from oomwatchd.errors import EX_CONFIG, ConfigError
from oomwatchd.sinks import webhook

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"


def keys_of(kind: type[msgspec.Struct]) -> dict[str, object]:
    """Every key of a section and of those below it, with its default, as TOML would hold it."""
    return msgspec.convert(msgspec.to_builtins(kind()), dict[str, object])


def test_the_example_names_every_key_with_its_default() -> None:
    document = tomllib.loads(EXAMPLE.read_text())
    expected = keys_of(Config)
    expected["sinks"] = {name: keys_of(kind) for name, kind in plugs.options("oomwatchd.sinks").items()}
    # a list of tables: an empty one would be in the way of those that are added
    assert expected.pop("sources") == {"follow": ()}
    for key in FollowSection.__struct_fields__:
        assert re.search(rf"^# {key} = ", EXAMPLE.read_text(), re.M), key
    assert document == expected
    config, read = load(EXAMPLE)
    assert (msgspec.structs.replace(config, sinks={}), read) == (parse({}, "nothing"), EXAMPLE)
    assert config.sinks == {name: kind() for name, kind in plugs.options("oomwatchd.sinks").items()}


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    config, read = load(None, tmp_path / "absent.toml")
    assert config == parse({}, "nothing")
    assert read is None


def test_the_default_file_is_read_when_it_exists(tmp_path: Path) -> None:
    default = tmp_path / "config.toml"
    default.write_text('log_level = "debug"')
    config, read = load(None, default)
    assert (config.log_level, read) == ("debug", default)


def test_a_default_file_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    default = tmp_path / "config.toml"
    default.mkdir()
    with pytest.raises(ConfigError, match=r"config\.toml: Is a directory"):
        load(None, default)
    assert load(None, EXAMPLE / "config.toml")[1] is None


def test_a_sink_gets_its_own_options() -> None:
    config = parse({"sinks": {"jsonl": {"path": "-"}}}, "f")
    assert config.sinks["jsonl"].path == "-"
    assert set(config.sinks) == {"jsonl"}


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("htp = {}", "f.toml: unknown key htp; did you mean http?"),
        ("[http]\nlistn = ''", "f.toml: unknown key http.listn; did you mean http.listen?"),
        ("[sinks.jurnal]", "f.toml: unknown key sinks.jurnal; did you mean sinks.journal?"),
        ("[sinks.jsonl]\npth = ''", "f.toml: unknown key sinks.jsonl.pth; did you mean sinks.jsonl.path?"),
        ('"a\\nb" = 1', "f.toml: unknown key 'a\\nb'; known here: state_directory, log_level, kmsg, http,"),
        ("[store]\nmax_events = 'many'", "f.toml: store.max_events: expected an integer, got a string"),
        ("[store]\nmax_events = 0", "f.toml: store.max_events: expected an integer >= 1"),
        ("[store]\nmax_bytes = true", "f.toml: store.max_bytes: expected an integer, got true or false"),
        ("[sinks.jsonl]\npath = 3", "f.toml: sinks.jsonl.path: expected a string, got an integer"),
        ("sinks = 3", "f.toml: sinks: expected a table, got an integer"),
        ("http = 3", "f.toml: http: expected a table, got an integer"),
        ("sinks.jsonl = 3", "f.toml: sinks.jsonl: expected a table, got an integer"),
        ("log_level = 'loud'", "f.toml: log_level: 'loud' is none of: debug, info,"),
        (
            "[capture]\ncommand_line = 'all'",
            "f.toml: capture.command_line: 'all' is none of: off, executable, full",
        ),
        ('[kmsg]\ndevice = "/dev/\\u0000"', "f.toml: kmsg.device: holds a NUL character"),
        ('[sinks.jsonl]\npath = "\\u0000"', "f.toml: sinks.jsonl.path: holds a NUL character"),
        ('[http]\nlisten = ["h:1", "unix:/\\u0000"]', "f.toml: http.listen.2: holds a NUL character"),
        ("[http]\nlisten = ['h:1', 3]", "f.toml: http.listen.2: expected a string, got an integer"),
        (
            "[sinks.webhook]\ntemplate = 'slak'",
            "f.toml: sinks.webhook.template: no template 'slak': give slack,",
        ),
        ("[http]\nlisten = '10053'", "f.toml: http.listen: '10053' is not host:port"),
        ("[http]\nlisten = ':10053'", "f.toml: http.listen: ':10053' is not host:port"),
        ("[http]\nlisten = 'h:0'", "f.toml: http.listen: '0' is not a port (1 to 65535)"),
        ("[http]\nlisten = 'h:65536'", "f.toml: http.listen: '65536' is not a port (1 to 65535)"),
        ("[http]\nlisten = 'h:\u0661'", "f.toml: http.listen: '\u0661' is not a port (1 to 65535)"),
        ("[http]\nlisten = 'unix:run/x'", "f.toml: http.listen: 'unix:run/x' is not unix:/path of at most"),
        ("[http]\nlisten = ['h:1', 'h']", "f.toml: http.listen: 'h' is not host:port"),
        ("[http]\nlisten = '::1:80'", "f.toml: http.listen: '::1:80' is ambiguous"),
    ],
)
def test_what_is_refused_is_named_with_its_place_and_mend(toml: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(tomllib.loads(toml), "f.toml")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == EX_CONFIG


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = ", "not TOML: Invalid value (at end of document)"),
        (b"a = 1\na = 2", "not TOML: Cannot overwrite a value (at end of document)"),
        (b"\xff", "not UTF-8 at byte 0"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert str(caught.value) == f"{file}: {words}"


def test_the_mark_that_some_editors_begin_a_file_with_is_ignored(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_bytes(b"\xef\xbb\xbf[store]\nmax_events = 5\n")
    assert load(file)[0].store.max_events == 5


def test_the_templates_that_come_along_are_the_files() -> None:
    there = {path.stem for path in (Path(webhook.__file__).parent / "templates").glob("*.json")}
    assert there == set(webhook.TEMPLATES)


def test_a_file_without_end_is_one_line() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: larger than 1 MiB"):
        load(Path("/dev/zero"))


def test_an_absent_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        load(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:10053", Address("127.0.0.1", 10053)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:65535", Address("localhost", 65535)),
        ("unix:/run/oomwatchd/http", Address(path=Path("/run/oomwatchd/http"))),
    ],
)
def test_listen_addresses(listen: str, address: Address) -> None:
    assert parse_listen(listen) == address


@pytest.mark.parametrize(
    ("configured", "environ", "path"),
    [
        ("/data/oom", {"STATE_DIRECTORY": "/var/lib/private/x"}, "/data/oom"),
        ("", {"STATE_DIRECTORY": "/var/lib/private/x:/var/lib/y"}, "/var/lib/private/x"),
        ("", {}, "/var/lib/oomwatchd"),
    ],
)
def test_the_state_directory(configured: str, environ: dict[str, str], path: str) -> None:
    assert Config(state_directory=configured).state_path(environ) == Path(path)


def test_plugs_are_found_by_being_there() -> None:
    found = plugs.plugs("oomwatchd.sinks")
    assert {"journal", "jsonl"} <= set(found)
    assert not any(name.startswith("_") for name in found)


def test_check_config_says_ok(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    check_config.add_parser(parser.add_subparsers())
    file = tmp_path / "c.toml"
    file.write_text("")
    args = parser.parse_args(["check-config", str(file)])
    assert args.run(args) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"
    file.write_text("nonsense = 1")
    with pytest.raises(ConfigError, match="unknown key nonsense"):
        args.run(args)


def test_check_config_names_a_file_that_a_sink_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    check_config.add_parser(parser.add_subparsers())
    file = tmp_path / "c.toml"
    file.write_text(f'[sinks.webhook]\nurl = "https://x.example/"\ntemplate = "{tmp_path}/none.json"\n')
    args = parser.parse_args(["check-config", str(file)])
    assert args.run(args) == 0  # the daemon takes it, and keeps what it cannot send
    shown = capsys.readouterr()
    assert shown.out == f"{file}: ok\n"
    assert shown.err.startswith("oomwatchd: sink webhook cannot work here as this user: ")
    assert f"{tmp_path}/none.json" in shown.err


def test_check_config_takes_a_sink_whose_library_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_options: object) -> None:
        raise ModuleNotFoundError("x", name="urllib3")

    monkeypatch.setattr("oomwatchd.sinks.webhook.open", fails)
    parser = argparse.ArgumentParser()
    check_config.add_parser(parser.add_subparsers())
    file = tmp_path / "c.toml"
    file.write_text('[sinks.webhook]\nurl = "https://x.example/"\n')
    args = parser.parse_args(["check-config", str(file)])
    assert args.run(args) == 0
    assert "needs the Python module urllib3, which is not installed" in capsys.readouterr().err


def test_check_config_without_a_file_says_that_the_defaults_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "config.toml"
    monkeypatch.setattr(check_config, "DEFAULT_PATH", absent)
    monkeypatch.setattr(check_config, "load", lambda path: load(path, absent))
    parser = argparse.ArgumentParser()
    check_config.add_parser(parser.add_subparsers())
    args = parser.parse_args(["check-config"])
    assert args.run(args) == 0
    assert capsys.readouterr().out == f"there is no {absent}: the defaults apply\n"
    # a file that was named must be there
    args = parser.parse_args(["check-config", str(absent)])
    with pytest.raises(ConfigError, match="No such file"):
        args.run(args)
