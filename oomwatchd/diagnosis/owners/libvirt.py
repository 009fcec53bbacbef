r"""Virtual machines of libvirt: ``machine-qemu\x2d1\x2dNAME.scope``, ``qemu-1-NAME.libvirt-qemu``, and the
cgroups ``libvirt``, ``emulator``, ``vcpu0`` below them (libvirt ``src/util/vircgroup.c``)."""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import unit_name
from oomwatchd.diagnosis.owners import Owned, Place
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless_name

_MACHINE = deferred(r"(?:machine-)?qemu-\d+-(.+?)(?:\.scope|\.libvirt-qemu)\Z")


def find(place: Place) -> Owned | None:
    for segment in place.segments if "qemu" in place.path else ():
        m = _MACHINE.match(unit_name(segment))
        if m is not None:
            name = harmless_name(m[1])
            return Owned(
                "virtual machine",
                m[1],
                f"the limit of virtual machine {name} beyond its RAM and what QEMU itself needs",
                f"virsh memtune {name} --hard-limit; or give the guest less: virsh setmaxmem {name} --config",
            )
    return None
