"""Applications of a user's session: Flatpak, snap, and what a desktop starts (systemd's
``DESKTOP_ENVIRONMENTS.md``, "XDG standardization for applications")."""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import unit_name
from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name

#: app[-LAUNCHER]-APPLICATION-RANDOM.scope, app[-LAUNCHER]-APPLICATION[@RANDOM].service
_APP = deferred(
    r"app-(?:(flatpak|gnome|kde|dbus)-)?(.+?)(?:-[0-9a-f]+\.scope|(?:@[^@]*)?\.(?:service|slice))\Z"
)
_SNAP = deferred(r"snap\.([^.]+)\.(.+?)(?:-[0-9a-f-]{36})?\.(?:scope|service)\Z")


def find(place: Place) -> Owned | None:
    # systemd escapes the characters of a name that have a meaning in unit names
    if place.last != place.owner.unit:
        return None
    name = unit_name(place.last)
    snap, app = _SNAP.match(name), _APP.match(name)
    user = place.owner.user_uid is not None
    unit = harmless_name(place.last)
    how = f"systemctl {'--user ' if user else ''}set-property {unit} MemoryMax="
    if snap is not None:
        called = snap[1] if snap[1] == snap[2] else f"{snap[1]}.{snap[2]}"
        how = f"snap set-quota; {how}"
        return Owned("snap", called, f"the memory of snap {harmless_name(called)}", how)
    if app is not None and user:
        kind = "Flatpak" if app[1] == "flatpak" else "application"
        return Owned(kind, app[2], f"the memory of {kind} {harmless_name(app[2])}", how)
    return None
