"""``oomwatchd explain [ID]``: what a finding means. The pages are the findings' own docstrings."""

from __future__ import annotations

import argparse
import difflib
import sys
from types import SimpleNamespace

from oomwatchd.diagnosis.findings import Diagnostic, diagnostics
from oomwatchd.errors import UsageError

_PREFACE = """\
# Findings

What `oomwatchd` may say about an out-of-memory report, by id. This page is generated from the findings
themselves (`oomwatchd explain --markdown`); `oomwatchd explain ID` prints one of them.

A finding has a severity (`critical`: this is why, or it goes on; `warning`: it adds to it; `info`: good to
know), the figures that it rests on (`evidence`, amounts in bytes), an explanation, and advice where the
figures carry one.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    parser = subparsers.add_parser(
        "explain",
        help="say what a finding means",
        description="Say what a finding means. Without an id: list all.",
    )
    parser.add_argument("id", nargs="?", help="a finding's id, as reports give it")
    parser.add_argument("--markdown", action="store_true", help="all pages as one Markdown document")
    parser.set_defaults(run=run)


def run(args: SimpleNamespace) -> int:
    """Print the list, one page or the document; returns the exit status."""
    if args.markdown:
        sys.stdout.write(document())
    elif args.id is None:
        width = max(len(d.id) for d in diagnostics())
        for diagnostic in diagnostics():
            print(f"{diagnostic.id:<{width}}  {diagnostic.title}")
    else:
        print(page(_find(args.id)))
    return 0


def page(diagnostic: Diagnostic) -> str:
    """One finding's page for a terminal."""
    return f"{diagnostic.id}\n\n{diagnostic.page}".replace("``", "'")


def document() -> str:
    """docs/findings.md."""
    parts = [_PREFACE]
    for diagnostic in diagnostics():
        head, _, rest = diagnostic.page.partition("\n\n")
        parts.append(
            f"## {diagnostic.id}\n\n**{head}**\n\n{rest}\n" if rest else f"## {diagnostic.id}\n\n{head}\n"
        )
    return "\n".join(parts).replace("``", "`")


def _find(wanted: str) -> Diagnostic:
    known = {d.id: d for d in diagnostics()}
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "'oomwatchd explain' lists all"
    raise UsageError(f"no finding is called {wanted!r}", hint=hint)
