r"""Escape names for markup: Markdown, HTML, Slack's mrkdwn.

A process may be called ``[click](http://evil)`` or ``@room``. These functions take away the meaning of markup
only; :mod:`oomwatchd.words.escape` must make invisible characters visible first.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re

from oomwatchd.words.deferred import deferred

#: what chat programs may take for a mention: an @ (@room, @channel, @user:server; that of user@1000.service
#: follows a word and is none), and Slack's <!channel>, <@user>, <#channel>
_MENTION = deferred(r"(?<![A-Za-z0-9_])@|@(?=(?:room|all|channel|here|everyone)\b)|<(?=[!@#])")
#: what CommonMark, its tables, Adaptive Cards and mathematics read; a colon that makes a link or an emoji
_MARKDOWN = deferred(r"[\\`*_{}\[\]<>&#|~$!]|:(?=//|[\w+-]+:)", re.ASCII)


def unmentioned(text: str) -> str:
    r"""``text`` that mentions nobody: the @ of a mention is spelled ``\x40``, its < ``\x3c``."""
    return _MENTION.sub(lambda sign: f"\\x{ord(sign[0]):02x}", text)


def markdown(text: str) -> str:
    """As text within a line of Markdown, also in a cell of a table."""
    return _MARKDOWN.sub(r"\\\g<0>", unmentioned(text))


def html(text: str) -> str:
    """As text of an HTML element or attribute."""
    plain = unmentioned(text).replace("&", "&amp;").replace("<", "&lt;")
    return plain.replace(">", "&gt;").replace('"', "&quot;")


def mrkdwn(text: str) -> str:
    """Slack's own three escapes; asterisks and the like only make text bold, and cannot be escaped there."""
    return unmentioned(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
