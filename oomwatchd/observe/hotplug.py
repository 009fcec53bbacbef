"""Memory and swap that are added or removed: marks on the time line.

Memory blocks and zram devices come from udev (pyudev's monitor), swap areas from the kernel's /proc/swaps,
which can be polled; udev's links give them their usual names. What a hypervisor's
balloon or virtio-mem does shows in MemTotal, which the flight recorder reads. Each of them may be missing.

Sources: Documentation/admin-guide/mm/memory-hotplug.rst, proc_swaps(5), udev(7), libudev(3).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from oomwatchd.observe.host import Host, read_whole
from oomwatchd.procfs.mounts import mounts, swap_areas
from oomwatchd.records.capture import Mark
from oomwatchd.records.kmsg import to_text

#: Events taken in one go; a storm of uevents must not delay the watch.
_BITE = 64
#: udev's links in order of preference
_LINKS = ("/dev/mapper/", "/dev/disk/by-label/", "/dev/disk/by-partlabel/", "/dev/disk/by-id/")
#: file systems that answer without a network or a server process
_LOCAL = frozenset(
    b"bcachefs btrfs devtmpfs erofs ext2 ext3 ext4 f2fs jffs2 overlay proc ramfs rootfs squashfs sysfs tmpfs "
    b"ubifs vfat xfs zfs".split()
)


class Devices:
    """udev's monitor for memory blocks, and its names for block devices. ``obstacle`` says why there is
    none, None while there is."""

    def __init__(self) -> None:
        self._monitor: Any = None
        self._context: Any = None
        self._devices: Any = None
        self.obstacle: str | None = None
        #: the kernel dropped uevents because they were not read in time
        self.overruns = 0
        try:
            import pyudev  # needs libudev, which small boards leave out
        except Exception as error:
            self.obstacle = f"pyudev: {error}"
            return
        try:
            self._context = pyudev.Context()
            self._devices = pyudev.Devices
            # the kernel's own messages: boards without a running udevd have them too
            monitor = pyudev.Monitor.from_netlink(self._context, source="kernel")
            monitor.filter_by("memory")
            monitor.filter_by("block")
            monitor.start()
        except Exception as error:
            self.obstacle = f"udev: {error or 'no netlink socket'}"
            return
        self._monitor = monitor

    def fileno(self) -> int:
        return int(self._monitor.fileno())

    def read(self, usec: int, wall: float) -> Iterator[Mark]:
        """The events since the last call. It ends quietly when the monitor fails, which is read again at the
        next event."""
        for _ in range(_BITE):
            try:
                device = self._monitor.poll(timeout=0)
            except OSError as error:
                # ENOBUFS: more came than the socket holds
                self.overruns += 1
                if error.errno is None:
                    return
                continue
            if device is None:
                return
            mark = _mark(device, usec, wall)
            if mark is not None:
                yield mark

    def name_of(self, path: str) -> str:
        """The usual name of this block device; ``path`` itself where udev has none."""
        if self._devices is None:
            return path
        try:
            links = sorted(self._devices.from_device_file(self._context, path).device_links)
        except Exception:  # the device is gone, is a file, or is none of udev's
            return path
        for prefix in _LINKS:
            for link in links:
                if link.startswith(prefix):
                    return to_text(os.fsencode(link))
        return path

    def close(self) -> None:
        self._monitor = None  # libudev closes the socket with the last reference


def _mark(device: Any, usec: int, wall: float) -> Mark | None:
    action, name = str(device.action), str(device.sys_name)
    kind: Literal["memory_online", "memory_offline", "device_added", "device_removed"]
    if device.subsystem == "memory":
        # a block that appears is offline until it is put on line
        if action == "online":
            kind = "memory_online"
        elif action in ("offline", "remove"):
            kind = "memory_offline"
        else:
            return None
    elif name.startswith("zram") and action in ("add", "remove"):
        kind = "device_added" if action == "add" else "device_removed"
        name = f"/dev/{name}"
    else:
        return None
    return Mark(usec=usec, wall=wall, kind=kind, name=to_text(os.fsencode(name)))


class Swaps:
    """The swap areas in use."""

    def __init__(self, host: Host, devices: Devices) -> None:
        self._path = host.proc / "swaps"
        self._devices = devices
        self._areas = self._read()
        self._names = {path: devices.name_of(path) for path in self._areas}

    def changes(self, usec: int, wall: float) -> list[Mark]:
        """What was added and removed since the last call."""
        areas, old = self._read(), self._areas
        if areas == old:
            return []
        marks = []
        for path in old.keys() - areas.keys():
            name = self._names.pop(path, path)
            marks.append(Mark(usec=usec, wall=wall, kind="swap_off", name=name, before_bytes=old[path]))
        for path in areas.keys() - old.keys():
            name = self._names[path] = self._devices.name_of(path)
            marks.append(Mark(usec=usec, wall=wall, kind="swap_on", name=name, after_bytes=areas[path]))
        self._areas = areas
        return marks

    def _read(self) -> dict[str, int]:
        """Path -> bytes."""
        return {to_text(path): size for path, size in swap_areas(read_whole(self._path, 64 * 1024))}


class Tmpfs:
    """What the tmpfs mounts of a process's mount namespace hold; ours by default."""

    #: containers bring one or more each
    MOST = 64

    def __init__(self, host: Host, process: str = "self") -> None:
        self._mountinfo: Path = host.proc / process / "mountinfo"
        self._root = "" if process == "self" else f"{host.proc}/{process}/root"
        self.mounts: list[str] = []

    def find(self) -> None:
        """Read the table of mounts; a directory mounted twice is one. A tmpfs below a file system whose
        server may hang is left out: asking it could hang too."""
        devices: dict[bytes, bytes] = {}
        servers: list[bytes] = []
        for mount in mounts(read_whole(self._mountinfo, 1024 * 1024)):
            if mount.kind == b"tmpfs":
                devices.setdefault(mount.device, mount.point)
            elif mount.kind not in _LOCAL:
                servers.append(mount.point.rstrip(b"/") + b"/")
        points = [point for point in devices.values() if not (point + b"/").startswith(tuple(servers))]
        # of mounts on the same point the last one is visible
        self.mounts = list(dict.fromkeys(map(os.fsdecode, points[: self.MOST])))

    def used(self) -> list[tuple[str, int]]:
        """Mount point and bytes, the largest first; empty ones left out."""
        found = []
        for mount in self.mounts:
            try:
                status = os.statvfs(self._root + mount)
            except OSError:
                continue
            used = (status.f_blocks - status.f_bfree) * status.f_frsize
            if used > 0:
                found.append((to_text(os.fsencode(mount)), used))
        return sorted(found, key=lambda pair: -pair[1])
