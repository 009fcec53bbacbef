"""Restore the blanks of a kernel line whose copy lost all of them.

Some web forms and text copied from PDFs lose every blank. The form of a line says which blanks it had. Rows
of a task table cannot be restored: nothing separates their numbers any more.
"""

from __future__ import annotations

import re
from typing import Final

from oomwatchd.formats.recognise import ALL
from oomwatchd.words.deferred import deferred

# (how the line begins without blanks, substitutions that put them back)
_LINES: Final = tuple(
    (deferred(unspaced.start), tuple((pattern, by) for pattern, by in unspaced.blanks))
    for unspaced in dict.fromkeys(
        form.copies.unspaced for form in ALL if form.copies is not None and form.copies.unspaced is not None
    )
)


def restore_blanks(text: str) -> str:
    """The line with its blanks restored, if it has none and its form must have some; else unchanged."""
    for line, marks in _LINES:
        if line.match(text) is not None:
            for pattern, by in marks:
                text = re.sub(pattern, by, text)
            return text.strip(" ")
    return text
