"""What is plainly a secret in a command line, taken out of it.

Only the obvious is found: values of options and variables whose names say so, passwords in URLs, tokens of
well-known shape. A secret that stands alone under an innocent name stays: who cannot have that keeps
``command_line = "executable"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = "***"

#: names of options, variables and query fields whose values are secrets
_WORD = (
    r"(?:pass(?:wd|word|phrase)?|pwd|secret|token|api[-_.]?key|access[-_.]?key|private[-_.]?key|auth|"
    r"credentials?|cookie|session[-_.]?key|encryption[-_.]?key|signature|bearer)"
)
#: such a word at the end of a name, or followed by what only narrows it
_NAME = rf"(?:[\w.-]{{0,40}}[-_.])?{_WORD}(?:[-_.]?(?:id|value|data|string))?"
_NAME += r"|[A-Za-z]{0,40}(?:Password|Secret|Token|ApiKey)"
_VALUE = r"(?:\"[^\"]{0,1024}\"|'[^']{0,1024}'|[^\s;,&\"']+)"
_ASSIGNED = re.compile(
    rf"((?:^|[\s;,&?{{\"'(-])(?:{_NAME})[\"']?\s{{0,2}}[=:]\s{{0,2}}){_VALUE}", re.IGNORECASE
)
_OPTION = re.compile(rf"--?(?:{_NAME})\Z", re.IGNORECASE)
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://[^/\s:@]{0,256}:)[^/\s@]{1,1024}@")
_SCHEME = re.compile(r"\b(bearer|basic|negotiate)\s+[A-Za-z0-9+/=._~-]{6,}", re.IGNORECASE)
_SHAPES = re.compile(
    r"\b(?:eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"  # JSON Web Token (RFC 7519)
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[abpors]-[\w-]{8,}|sk-[\w-]{16,})"
)
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL)
#: programs whose -p takes the password itself, joined to it
_JOINED = re.compile(r"(?:mysql|mysqldump|mysqladmin|mariadb|mariadb-dump|mariadb-admin|sshpass)\Z")


def redact(arguments: Iterable[str]) -> str:
    """The arguments as one line, a blank between them, secrets replaced by ``***``."""
    shown: list[str] = []
    hide, joined = False, False
    for number, argument in enumerate(arguments):
        if number == 0:
            joined = bool(_JOINED.match(argument.rpartition("/")[2]))
        elif hide:
            # what follows an option without a value is another option
            if not argument.startswith("-"):
                shown.append(MASK)
                hide = False
                continue
        elif joined and argument.startswith("-p") and len(argument) > 2:
            shown.append(f"-p{MASK}")
            continue
        hide = bool(number) and bool(_OPTION.match(argument))
        shown.append(_inner(argument))
    return " ".join(shown)


def _inner(argument: str) -> str:
    argument = _KEY_BLOCK.sub(MASK, argument)
    argument = _URL.sub(rf"\g<1>{MASK}@", argument)
    argument = _SCHEME.sub(rf"\g<1> {MASK}", argument)
    argument = _ASSIGNED.sub(rf"\g<1>{MASK}", argument)
    return _SHAPES.sub(MASK, argument)
