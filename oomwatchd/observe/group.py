"""What is known of one cgroup."""

from __future__ import annotations

from oomwatchd.observe.growth import GrowthRate


class Group:
    """One cgroup. ``path`` is the kernel's; ``number`` identifies it in samples and is never reused; amounts
    are bytes, None where the kernel has none."""

    __slots__ = (
        *("children", "claims", "counted", "directory", "growth", "held", "inode", "kills", "left_seconds"),
        *("limit", "links", "number", "parent_of_some", "path", "usage", "watch", "watched_until"),
    )

    def __init__(self, directory: str, path: str, number: int) -> None:
        self.directory = directory
        self.path = path
        self.number = number
        self.children: dict[str, Group] = {}
        #: had cgroups below it at some time
        self.parent_of_some = False
        self.inode = 0
        self.links = 0
        #: the number of its directory's watch (:mod:`oomwatchd.observe.inotify`)
        self.watch: int | None = None
        self.usage: int | None = None
        self.limit: int | None = None
        #: of the usage, and of what of it cannot be dropped; only where there is a limit that may matter
        self.growth: GrowthRate | None = None
        self.held: GrowthRate | None = None
        #: until it reaches its limit at the present growth rate; None where that is not near
        self.left_seconds: float | None = None
        self.watched_until = -1
        #: the kernel's count of kills when the books were opened and now, and the kill lines that were
        #: attributed to it since (:mod:`oomwatchd.observe.kills`)
        self.kills: int | None = None
        self.counted = 0
        self.claims = 0

    @property
    def unclaimed(self) -> int:
        """Kills that it counted and to which no kill line was attributed yet."""
        return self.counted - (self.kills or 0) - self.claims
