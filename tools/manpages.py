"""Man pages from the parsers and config.example.toml; :mod:`tools.generate` writes them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from tools.commandline import arguments, help_text, subcommands, whole

ROOT = Path(__file__).resolve().parent.parent

_EXIT_STATUS = (
    ("0", "Done."),
    ("1", "The self-test's kill was not reported."),
    ("64", "The arguments are wrong."),
    ("66", "An input is missing or cannot be read; no such event."),
    ("69", "Something needed is missing: the kernel log, a memory cgroup, the store, a daemon."),
    ("70", "A bug in oomwatchd."),
    ("73", "The output file cannot be written."),
    ("74", "Standard output cannot be written."),
    ("77", "No permission."),
    ("78", "The configuration is wrong."),
    ("130", "Interrupted by Ctrl-C."),
    ("141", "The reader closed the pipe (head)."),
)


def roff(text: str) -> str:
    """Text as a line of man(7) that shows it: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`]+)`", r"\\fB\1\\fP", text)
    return f"\\&{text}" if text[:1] in (".", "'") else text


def head(name: str, section: int, about: str) -> list[str]:
    """Title and NAME."""
    return [
        '.\\" Made by python -m tools.generate; changes belong into the sources.',
        f'.TH {roff(name.upper())} {section} "" oomwatchd',
        ".SH NAME",
        f"{roff(name)} \\- {roff(about)}",
    ]


def item(term: str, text: str) -> list[str]:
    """A term and what it means."""
    return [".TP", f"\\fB{term}\\fP", roff(text)]


def spelled(action: argparse.Action) -> str:
    """An argument as it is typed: names bold, values italic."""
    if action.nargs == 0:
        value = ""
    elif action.choices is not None and action.metavar is None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
        value = f"\\fI{roff(metavar)}\\fP"
    many = "\\&..." if action.nargs in ("*", "+") else ""
    if not action.option_strings:
        return f"[{value}{many}]" if action.nargs in ("?", "*") else f"{value}{many}"
    names = ", ".join(roff(name) for name in action.option_strings)
    if not value:
        return names
    return f"{names} [{value}]" if action.nargs == "?" else f"{names} {value}{many}"


def synopsis(parser: argparse.ArgumentParser) -> list[str]:
    """How a command is typed."""
    words = []
    for action in arguments(parser):
        word = spelled(action)
        words.append(f"[\\fB{word}\\fP]" if action.option_strings else word)
    positional = [word for word in words if not word.startswith("[\\fB")]
    options = [word for word in words if word.startswith("[\\fB")]
    if subcommands(parser):
        positional.append("\\fICOMMAND\\fP \\&...")
    return [f".B {roff(parser.prog)}", *options, *positional]


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Each argument and what it does."""
    lines: list[str] = []
    for action in arguments(parser):
        lines += [".TP", f"\\fB{spelled(action)}\\fP", roff(help_text(parser, action))]
    return lines


def exit_status() -> list[str]:
    lines = [".SH EXIT STATUS", "As in sysexits.h:"]
    for status, text in _EXIT_STATUS:
        lines += item(status, text)
    return lines


def daemon_page(top: argparse.ArgumentParser) -> list[str]:
    """oomwatchd(8)"""
    lines = head("oomwatchd", 8, "says why Linux ran out of memory")
    lines += [".SH SYNOPSIS", *synopsis(top)]
    lines += [
        ".SH DESCRIPTION",
        roff(
            "Watches the kernel log for reports of the OOM killer, records the state of the machine at "
            "that moment, explains and stores each report, and serves metrics for Prometheus. "
            "`oomwatchd analyze` explains saved logs in the same way."
        ),
        *options(top),
        ".SH COMMANDS",
    ]
    for name, parser in subcommands(top).items():
        lines += commands(name, parser)
    lines += exit_status()
    lines += [".SH SIGNALS"]
    lines += item(
        "SIGHUP",
        "The daemon reads its configuration again, with the templates and certificates that it names, and"
        " tries again what could not be opened.",
    )
    lines += item("SIGTERM, SIGINT", "The daemon stores what it has and ends.")
    lines += [".SH FILES"]
    lines += item("/etc/oomwatchd/config.toml", "The configuration; absent: the defaults.")
    lines += item("/var/lib/oomwatchd", "The events.")
    lines += [".SH SEE ALSO", ".BR oomwatchd\\-analyze (1),", ".BR oomwatchd.toml (5)"]
    return lines


def commands(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """A command and those below it."""
    lines = [f'.SS "{roff(name)}"', *synopsis(parser)]
    if parser.description:
        lines += [".PP", roff(parser.description)]
    if name == "analyze":
        return [*lines, ".PP", "See", ".BR oomwatchd\\-analyze (1)."]
    lines += options(parser)
    for below, inner in subcommands(parser).items():
        lines += commands(f"{name} {below}", inner)
    return lines


def analyze_page(top: argparse.ArgumentParser) -> list[str]:
    """oomwatchd-analyze(1)"""
    parser = subcommands(top)["analyze"]
    lines = head("oomwatchd-analyze", 1, "explain the OOM reports of a saved or pasted log")
    lines += [".SH SYNOPSIS", *synopsis(parser), ".SH DESCRIPTION", roff(parser.description or "")]
    lines += [".SH OPTIONS", *options(parser), *exit_status(), ".SH EXAMPLES"]
    lines += item("dmesg | oomwatchd analyze", "Explain the reports in this host's kernel log.")
    lines += item(
        "oomwatchd analyze \\-\\-format html \\-\\-output oom.html kern.log.1.gz", "Make a page to send on."
    )
    lines += [".SH SEE ALSO", ".BR oomwatchd (8),", ".BR dmesg (1),", ".BR journalctl (1)"]
    return lines


def config_page(example: str) -> list[str]:
    """oomwatchd.toml(5), from the documented example: comments, then what they are about."""
    lines = head("oomwatchd.toml", 5, "configuration of oomwatchd")
    lines += [".SH SYNOPSIS", ".I /etc/oomwatchd/config.toml", ".SH DESCRIPTION"]
    blocks = [block.splitlines() for block in example.strip().split("\n\n")]
    lines += paragraphs(blocks[0])
    lines += [".SH KEYS"]
    for block in blocks[1:]:
        lines += keys(block)
    lines += [".SH SEE ALSO", ".BR oomwatchd (8)"]
    return lines


def paragraphs(block: list[str]) -> list[str]:
    return [roff(line.removeprefix("#").strip()) for line in block]


def keys(block: list[str]) -> Iterator[str]:
    """One block: a section's head, and keys with the comments before them."""
    comments: list[str] = []
    told = False
    for line in block:
        if line.startswith("#"):
            comments.append(line)
        elif line.startswith("["):
            yield f'.SS "{roff(line)}"'
            yield from paragraphs(comments)
            comments, told = [], False
        else:
            yield from (".TP" if comments or not told else ".TQ", f"\\fB{roff(line)}\\fP")
            if comments:
                yield from paragraphs(comments)
            comments, told = [], True


def pages() -> dict[str, str]:
    """The pages by their file names."""
    top = whole()
    example = (ROOT / "config.example.toml").read_text()
    made = {
        "oomwatchd.8": daemon_page(top),
        "oomwatchd-analyze.1": analyze_page(top),
        "oomwatchd.toml.5": config_page(example),
    }
    return {name: "\n".join(lines) + "\n" for name, lines in made.items()}
