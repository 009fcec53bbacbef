"""How amounts of memory are spelled for people, wherever they are shown."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def kib(amount: int) -> str:
    """Exact, in the kernel's own spelling: ``18276 kB`` (1 kB is 1024 bytes)."""
    return f"{amount // 1024} kB"


def size(amount: int) -> str:
    """Rounded for people: ``512 MiB``, ``7.6 GiB``; below 10 MiB exact in kB."""
    if abs(amount) < 10 << 20:
        return kib(amount)
    value, power = amount / 1024, 0
    while abs(value) >= 1024 and power < len(_UNITS) - 1:
        value, power = value / 1024, power + 1
    digits = 0 if value >= 100 or value == int(value) else 1
    return f"{value:.{digits}f} {_UNITS[power]}"


def percent(part: int, whole: int) -> str:
    """``99.8 %``; a share of nothing is ``0 %``."""
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
