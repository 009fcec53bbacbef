"""mm/slab_common.c: unreclaimable slab caches; lib/alloc_tag.c: memory allocation profiling."""

from __future__ import annotations

from oomwatchd.formats import Copies, Form, Match, Role, Section, marks_a_place, rx
from oomwatchd.formats.parts import Parts
from oomwatchd.records.report import Allocation, SlabCache

SLAB_TITLE = Form(
    name="slab_title",
    section=Section.SLAB,
    role=Role.BODY,
    begins=("Unre", "exce"),
    pattern=rx(r"Unreclaimable slab info:|excessive unreclaimable slab but cannot dump stats"),
    copies=Copies(
        start=r"Unreclaimable slab info:|excessive unreclaimable slab",
        end=r"info:|stats",
        inner=r"Unreclaimable slab info:",
    ),
    reads=marks_a_place,
    samples=("Unreclaimable slab info:", "excessive unreclaimable slab but cannot dump stats"),
    source="mm/slab_common.c dump_unreclaimable_slab(), 4.15+",
)

SLAB_HEADER = Form(
    name="slab_header",
    section=Section.SLAB,
    role=Role.BODY,
    begins=("Name",),
    pattern=rx(r"Name +Used +Total\s*$"),
    copies=Copies(start=r"Name +Used +Total", end=""),
    reads=marks_a_place,
    samples=("Name                      Used          Total",),
    source="mm/slab_common.c dump_unreclaimable_slab(), 4.15+",
)


def _read_slab_row(parts: Parts, m: Match) -> None:
    parts.slab.caches.append(
        SlabCache(name=m["name"], used_bytes=int(m["used"]) * 1024, total_bytes=int(m["total"]) * 1024)
    )


SLAB_ROW = Form(
    name="slab_row",
    section=Section.SLAB,
    role=Role.BODY,
    in_place=True,
    pattern=rx(
        # a cache's name has no blank, except in the name of its memory cgroup (in brackets)
        r"(?P<name>[^\s(]+(?:\(.*?\))?|(?P<loose>\S.*?)(?<! )) +(?P<used>\d+)KB +(?P<total>\d+)KB\s*$"
    ),
    copies=Copies(start=r"\S.{0,63}?  +\d+KB(?: |$)", end=r"\d+KB +\d+KB", words=r"\d+KB"),
    reads=_read_slab_row,
    samples=("dentry                  1203KB       1410KB", "bio(254:1)   1KB  2KB"),
    source="mm/slab_common.c dump_unreclaimable_slab(), 4.15+",
)

ALLOCATIONS_TITLE = Form(
    name="allocations_title",
    section=Section.SLAB,
    role=Role.BODY,
    begins=("Memo",),
    pattern=rx(r"Memory allocations(?: \(profiling is currently turned (?P<state>on|off)\))?:"),
    copies=Copies(start=r"Memory allocations", end=r":"),
    reads=marks_a_place,
    samples=("Memory allocations:", "Memory allocations (profiling is currently turned on):"),
    source="mm/show_mem.c __show_mem(), 6.10+",
)


def _read_allocation(parts: Parts, m: Match) -> None:
    parts.slab.allocations.append(
        parse_allocation(m["size"], m["calls"], m["location"], m["module"], m["function"])
    )


ALLOCATION = Form(
    name="allocation",
    section=Section.SLAB,
    role=Role.BODY,
    in_place=True,
    pattern=rx(
        r"(?P<size>[\d.]{1,20}(?: [KMGTPE]i?B| B)?) +(?P<calls>\d+) (?P<location>\S+:\d+)"
        r"(?: \[(?P<module>[^\]]*)\])? func:(?P<function>\S+)"
        r"\s*(?P<loose>.*)$"
    ),
    copies=Copies(
        start=r"[\d.]{1,12}(?: [KMGTP]iB| B)? +\d+ \w[\w./-]*:\d+(?: |$)",
        end=r"func:\S+",
        words=r"\[\w+\]|func:\S+",
    ),
    reads=_read_allocation,
    samples=(
        "12582912     3072 drivers/gpu/drm/i915/gem/i915_gem_shmem.c:72 [i915] func:shmem_sg_alloc_table",
        "1.20 GiB   314572 mm/filemap.c:1962 func:__filemap_get_folio",
        "0 B        0 mm/filemap.c:1 func:a",
    ),
    source="lib/alloc_tag.c alloc_tag_to_text(), 6.10+",
)

FORMS = (SLAB_TITLE, SLAB_HEADER, ALLOCATIONS_TITLE, ALLOCATION, SLAB_ROW)

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def parse_allocation(size: str, calls: str, location: str, module: str | None, function: str) -> Allocation:
    """An allocation row; sizes come as bytes (6.10) or with three digits and a binary unit (6.12+)."""
    figure, _, unit = size.partition(" ")
    amount = int(float(figure) * (1 << 10 * _UNITS.index(unit))) if unit else int(figure)
    if amount >> 63:
        raise ValueError("no machine has that much memory")
    return Allocation(bytes=amount, calls=int(calls), location=location, module=module, function=function)
