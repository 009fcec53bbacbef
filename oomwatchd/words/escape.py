"""Names from the kernel made harmless for text media: terminal, journal, plain text, summary lines.

A process or cgroup may be called anything: an escape sequence that recolours the terminal, a newline
that forges the next line, a bidirectional override that shows the text backwards, an invisible
character that makes two names look the same. Whatever is not plainly visible is spelled out.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import unicodedata

#: letters and symbols by category that show as nothing (Hangul fillers, the blank Braille pattern)
_INVISIBLE = frozenset("\u115f\u1160\u2800\u3164\uffa0")


def _spelled(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _is_harmless(character: str) -> bool:
    if character == " ":
        return True
    # C*: control, format (bidi, zero width), surrogate, private, unassigned; Z*: separators;
    # M*: marks that stack on the neighbour
    return unicodedata.category(character)[0] not in "CZM" and character not in _INVISIBLE


def harmless(text: str) -> str:
    r"""``text`` with every character that is not plainly visible spelled ``\xNN``, ``\uNNNN`` or
    ``\UNNNNNNNN``; the blank stays. The result holds no line break and no escape sequence.

    The result is for people: it cannot be parsed back, because a backslash stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else _spelled(c) for c in text)


def harmless_name(text: str) -> str:
    """A process or cgroup name for people: :func:`harmless`, and in quotes where it would otherwise
    not be seen (empty) or not be seen whole (blanks at an end)."""
    shown = harmless(text)
    return f'"{shown}"' if not shown or shown != shown.strip(" ") else shown
