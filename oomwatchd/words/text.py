"""Small parts of the texts of findings."""

from __future__ import annotations


def ratio(part: int, whole: int) -> float:
    """part / whole for evidence, with six decimals, so that rounding it once more gives the figure of the
    text; 0.0 where whole is 0."""
    return round(part / whole, 6) if whole else 0.0


def plural(count: int, noun: str) -> str:
    """``1 process``, ``3 processes``."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{ending}"


def path_cut(path: str, limit: int, most: int) -> str:
    """A cgroup's path in ``limit`` characters: its last segments, as many as there is room for. The very last
    one, which is its name, is kept whole up to ``most`` characters."""
    if len(path) <= limit:
        return path
    segments = path.split("/")
    shown = f".../{segments[-1]}"
    if len(shown) > most:
        return middle_cut(path, limit)
    for segment in reversed(segments[1:-1]):
        longer = f".../{segment}/{shown[4:]}"
        if len(longer) > limit:
            break
        shown = longer
    return shown


def middle_cut(text: str, limit: int) -> str:
    """``text`` with its middle left out where it is longer than ``limit``: both ends of a path tell most."""
    if len(text) <= limit:
        return text
    head = (limit - 3) // 3
    return f"{text[:head]}...{text[len(text) - (limit - 3 - head) :]}"
