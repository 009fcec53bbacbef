"""mm/show_mem.c (mm/page_alloc.c and lib/show_mem.c before 6.2): the Mem-Info part; hugepages of
mm/hugetlb.c; swap of mm/swap_state.c; ARM's own show_mem (arch/arm/mm/init.c, up to 3.19).

Longer than others because a form says everything that is known of its wording.
"""

from __future__ import annotations

from oomwatchd.formats import Copies, Form, Match, Role, Section, Unspaced, marks_a_place, rx
from oomwatchd.formats.parts import Parts
from oomwatchd.records.report import FreeBlocks, Hugepages, Node
from oomwatchd.words.deferred import deferred

_ZONE = r"(?:Node (?P<node>\d+) )?(?P<zone>DMA32|DMA|Normal|HighMem|Movable|Device)"
ZONES = r"(?:DMA32|DMA|Normal|HighMem|Movable|Device)"
#: the node, in the patterns for copies
_OF_NODE = r"(?:Node \d+,? ?)?"
_AMOUNT_WORD = r"[\w()]+:-?\d+[kK]B"
#: what follows the first amount of a node or zone; a key without figure ends it
_AMOUNTS = r"(?: +[A-Za-z_]+(?:\((?:anon|file)\))?: ?-?\d+(?:[kK]B)?| +all_unreclaimable\? (?:yes|no))*+\s*"
_UNSPACED_AMOUNTS = Unspaced(
    rf"(?:Node\d+)?{ZONES}free:\d|Node\d+active_anon:",
    (
        (r"^Node(\d+)", r"Node \1 "),
        ("(?=free:)", " "),
        (r"(?<=[kK]B)(?=[a-zA-Z])", " "),
        (r"(?<=\d)(?=all_unreclaimable)", " "),
        (r"unreclaimable\?(yes|no)", r"unreclaimable? \1 "),
    ),
)

MEM_INFO = Form(
    name="mem_info",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("Mem-",),
    pattern=rx(r"Mem-[Ii]nfo:"),
    opens=True,
    once=True,
    copies=Copies(start=r"Mem-[Ii]nfo:", end="", inner=r"Mem-[Ii]nfo:"),
    reads=marks_a_place,
    samples=("Mem-Info:", "Mem-info:"),
    source="show_mem(), 2.6.27 to 7.3; ARM up to 3.19",
)

PCP_ZONE = Form(
    name="pcp_zone",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("Node", "DMA ", "DMA3", "Norm", "High", "Mova"),
    pattern=rx(_ZONE + r" per-cpu:"),
    copies=Copies(
        start=rf"{_OF_NODE}\w+ per-cpu:",
        end=r"per-cpu:",
        inner=rf"(?:Node \d+ )?{ZONES} per-cpu:",
    ),
    reads=marks_a_place,
    samples=("Node 0 Normal per-cpu:", "Normal per-cpu:"),
    source="show_free_areas(), 2.6.27 to 4.0",
)

PCP_CPU = Form(
    name="pcp_cpu",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("CPU ", "cpu "),
    pattern=rx(
        r"CPU +(?P<cpu>\d+): +(?:Hot: +)?hi: *\d+, +btch: *\d+ +usd: *\d+"
        r"(?: +Cold: +hi: *\d+, +btch: *\d+ +usd: *\d+)?"
        r"|cpu \d+ (?:hot|cold): (?:low \d+, )?high \d+, batch \d+(?: used:\d+)?"
    ),
    copies=Copies(
        start=r"CPU +\d+: (?:hi|Hot):|cpu \d+ (?:hot|cold):",
        end=r"usd: *\d+|batch \d+(?: used:\d+)?",
        words=r"(?:CPU|Hot:|Cold:|hi:|btch:|usd:|low|high|batch|hot:|cold:|\d+,?|used:\d+)",
        inner=r"CPU +\d+: hi:",
    ),
    reads=marks_a_place,
    samples=(
        "CPU    0: hi:  186, btch:  31 usd: 170",
        "CPU    0: Hot: hi:  186, btch:  31 usd:  30   Cold: hi:   62, btch:  15 usd:  52",
        "cpu 0 hot: low 2, high 6, batch 1",
        "cpu 0 cold: high 0, batch 1 used:0",
    ),
    source="show_free_areas(), 2.6.9 to 4.0",
)

FREE_PAGES = Form(
    name="free_pages",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("Free",),
    pattern=rx(r"Free pages: +\d+kB \(\d+kB HighMem\)"),
    copies=Copies(start=r"Free pages: ", end=r"HighMem\)", words=r"\(?\d+kB|HighMem\)"),
    reads=marks_a_place,
    samples=("Free pages:        3060kB (0kB HighMem)",),
    source="show_free_areas(), up to 2.6.19",
)


def _read_totals(parts: Parts, m: Match) -> None:
    parts.memory.totals.update(parse_totals(m[0]))
    parts.elided = parts.elided or "..." in m[0] or "\u2026" in m[0]


TOTALS = Form(
    name="totals",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("acti", "Acti", "inac", "unev", "free", "slab", "mapp", "sec_", "kern"),
    pattern=rx(r"(?:[A-Za-z_]+:-?\d+(?:\s+|$)(?:(?:\.\.\.|\u2026)(?:\s+|$))?)+$"),
    copies=Copies(
        start=r"[Aa]ctive(?:_anon)?:\d+ (?:in)?active\S*:\d+(?: |$)"
        r"|active_file:\d+ inactive\S*:\d+(?: isolated\S*:\d+)?$"
        r"|inactive_file:\d+ unevictable:\d+ d|unevictable:\d+ dirty:\d+(?: |$)"
        r"|slab_reclaimable:\d+ slab_unreclaimable:\d+$|mapped:\d+ (?:shmem|pagetables):\d+(?: |$)"
        r"|free:\d+ (?:slab|slab_reclaimable|free_pcp):\d+(?: |$)"
        r"|kernel_misc_reclaimable:\d+$|sec_pagetables:\d+ bounce:\d+$|free_cma:\d+$",
        end=r"\w:\d+",
        words=r"[\w()]+:\d+(?:#012)?",
        inner=r"active_anon:\d+ inactive_anon:\d+(?: |$)",
        unspaced=Unspaced(
            r"(?:active_anon|active_file|unevictable|slab_reclaimable|mapped|sec_pagetables|free):\d+[a-z]",
            ((r"(?<=\d)(?=[a-z])", " "),),
        ),
    ),
    reads=_read_totals,
    samples=(
        "active_anon:120239 inactive_anon:11 isolated_anon:0",
        " free:4617 slab_reclaimable:150 slab_unreclaimable:600",
        " free_cma:0",
        "active_anon:1 inactive_anon:2\n free:3 free_pcp:4 free_cma:5",
        "Active:17392 inactive:17948 dirty:10288 writeback:33488 unstable:19576",
    ),
    source="show_free_areas(), 2.6.27 to 7.3",
)


def _read_node(parts: Parts, m: Match) -> None:
    node = int(m["node"])
    parts.memory.nodes[node] = Node(node=node, amounts=parse_amounts(m["amounts"]))


NODE = Form(
    name="node",
    section=Section.MEM_INFO,
    role=Role.BODY,
    once_by=("node",),
    begins=("Node",),
    pattern=rx(r"Node (?P<node>\d+) (?P<amounts>active_anon: ?\d+kB" + _AMOUNTS + r"(?P<loose>.*))$"),
    opens=True,
    copies=Copies(
        start=r"Node \d+ active_anon:",
        end=r"all_unreclaimable\? (?:yes|no)(?: \w+:\d+[kK]B)*",
        words=rf"{_AMOUNT_WORD}|Node|\d+|\d+[kK]B|{ZONES}|shmem_thp:|shmem_pmdmapped:|anon_thp:|pages_scanned:\d+"
        r"|all_unreclaimable\?|yes|no",
        mends=True,
        inner=r"Node \d+ active_anon:\d+kB",
        unspaced=_UNSPACED_AMOUNTS,
    ),
    reads=_read_node,
    samples=(
        "Node 0 active_anon:1184kB inactive_anon:4kB shmem_thp: 0kB anon_thp: 0kB kernel_stack:1kB "
        "all_unreclaimable? no Balloon:0kB",
    ),
    source="show_node_info(), show_free_areas(), 4.8+",
)


def _read_zone(parts: Parts, m: Match) -> None:
    zone = parts.memory.last_zone = parts.memory.zone(m["node"], m["zone"])
    zone.amounts = zone.amounts or parse_amounts(m["amounts"])  # a second line is another report's


ZONE = Form(
    name="zone",
    section=Section.MEM_INFO,
    role=Role.BODY,
    once_by=("node", "zone"),
    begins=("Node", "DMA ", "DMA3", "Norm", "High", "Mova", "Devi"),
    pattern=rx(_ZONE + r" (?P<amounts>free: ?\d+(?:[kK]B)?" + _AMOUNTS + r"(?P<loose>.*))$"),
    opens=True,
    copies=Copies(
        start=rf"{_OF_NODE}(?:{ZONES}|\w{{2,16}}) free:|{_OF_NODE}{ZONES}$",
        end=r"all_unreclaimable\? (?:yes|no)|free_cma:\d+kB",
        words=rf"{_AMOUNT_WORD}|Node|\d+|{ZONES}|pages_scanned:\d+|all_unreclaimable\?|yes|no",
        mends=True,
        inner=rf"(?:Node \d+ )?{ZONES} free:\d+kB",
        unspaced=_UNSPACED_AMOUNTS,
    ),
    reads=_read_zone,
    samples=(
        "Node 0 DMA32 free:1996kB min:2048kB low:2560kB high:3072kB reserved_highatomic:0KB",
        "HighMem free:224kB min:256kB low:2984kB high:5716kB pages_scanned:31 all_unreclaimable? yes",
    ),
    source="show_free_areas(), 2.6.27 to 7.3",
)


def _read_lowmem_reserve(parts: Parts, m: Match) -> None:
    if parts.memory.last_zone is not None:
        parts.memory.last_zone.reserve = tuple(int(pages) for pages in m["pages"].split())


LOWMEM_RESERVE = Form(
    name="lowmem_reserve",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("lowm", "prot"),
    pattern=rx(r"(?:lowmem_reserve|protections)\[\]:(?P<pages>(?:\s+-?\d+)*)\s*$"),
    opens=True,
    copies=Copies(
        start=r"(?:lowmem_reserve|protections)\[\]:", end=r"\d", words=r"\d+", inner=r"lowmem_reserve\[\]:"
    ),
    reads=_read_lowmem_reserve,
    samples=("lowmem_reserve[]: 0 2991 7946 7946 7946",),
    source="show_free_areas(), 2.6.27 to 7.3",
)


def _read_buddy(parts: Parts, m: Match) -> None:
    blocks, total, page_size = parse_buddy(m["orders"])
    zone = parts.memory.zone(m["node"], m["zone"])
    if zone.blocks is None:
        zone.blocks, zone.blocks_total = blocks, total
    parts.memory.buddy_page_size = parts.memory.buddy_page_size or page_size


BUDDY = Form(
    name="buddy",
    section=Section.MEM_INFO,
    role=Role.BODY,
    once_by=("node", "zone"),
    begins=("Node", "DMA:", "DMA3", "Norm", "High", "Mova", "Devi"),
    pattern=rx(
        _ZONE + r": (?P<orders>\d+\*\d+ ?kB(?: ?\([A-Z]{1,8}\))?"
        r"(?: +\d+\*\d+ ?kB(?: ?\([A-Z]{1,8}\))?)*+ *=? *(?:\d+ ?kB)?\s*(?P<loose>.*))$"
    ),
    opens=True,
    copies=Copies(
        start=rf"{_OF_NODE}(?:{ZONES}|\w{{2,16}}): (?:\d+\*\d+kB|$)|{_OF_NODE}{ZONES}:$",
        end=r"= \d+kB",
        words=r"\d+\*\d+kB|\([A-Z]{1,8}\)|=|\d+kB",
        mends=True,
        inner=rf"(?:Node \d+ )?{ZONES}: \d+\*\d+kB",
        unspaced=Unspaced(
            rf"(?:Node\d+)?{ZONES}:\d+\*\d+kB",
            (
                (r"^Node(\d+)", r"Node \1 "),
                (r"(?<=[A-Za-z0-9]):(?=\d)", ": "),
                (r"(?<=kB)(?=[\d(=])|(?<=\))(?=[\d=])", " "),
                (r"=(?=\d)", "= "),
            ),
        ),
    ),
    reads=_read_buddy,
    samples=(
        "Node 0 DMA: 1*4kB (M) 2*8kB (UM) 0*16kB = 20kB",
        "Normal: 1*4kB 0*8kB = 4kB",
    ),
    source="show_free_areas(), 2.6.27 to 7.3",
)


def _read_hugepages(parts: Parts, m: Match) -> None:
    parts.memory.hugepages.append(
        Hugepages(
            node=int(m["node"]) if m["node"] else None,
            total=int(m["total"]),
            free=int(m["free"]),
            surplus=int(m["surplus"]),
            size_bytes=int(m["size"]) * 1024,
        )
    )


HUGEPAGES = Form(
    name="hugepages",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("Node", "huge"),
    pattern=rx(
        r"(?:Node (?P<node>\d+) )?hugepages_total=(?P<total>\d+) hugepages_free=(?P<free>\d+) "
        r"hugepages_surp=(?P<surplus>\d+) hugepages_size=(?P<size>\d+) ?kB"
    ),
    copies=Copies(
        start=r"(?:Node \d+ )?hugepages_total=",
        end=r"hugepages_size=\d+kB",
        words=r"hugepages_\w+=\d+(?:kB)?",
        mends=True,
        inner=r"(?:Node \d+ )?hugepages_total=\d+",
        unspaced=Unspaced(
            r"(?:Node\d+)?hugepages_total=\d",
            ((r"^Node(\d+)", r"Node \1 "), (r"(?<=\d)(?=hugepages_)", " ")),
        ),
    ),
    reads=_read_hugepages,
    samples=("Node 0 hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB",),
    source="mm/hugetlb.c hugetlb_show_meminfo_node(), 3.10+",
)


def _read_swap_kb(parts: Parts, m: Match) -> None:
    parts.memory.swap_kb[m["what"]] = int(m["kb"])


SWAP_KB = Form(
    name="swap_kb",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("Free", "Tota"),
    pattern=rx(r"(?P<what>Free|Total) swap *[=:] *(?P<kb>-?\d+) ?kB"),
    copies=Copies(
        start=r"(?:Free|Total) swap(?: +=|:)",
        end=r"\d+kB",
        words=r"=|\d+kB",
        inner=r"Free swap += |Total swap = ",
        unspaced=Unspaced(
            r"(?:Free|Total)swap=\d+kB$", (("Freeswap=", "Free swap  = "), ("Totalswap=", "Total swap = "))
        ),
    ),
    reads=_read_swap_kb,
    samples=("Free swap  = 0kB", "Total swap = 524284kB", "Free swap:            0kB"),
    source="mm/swap_state.c show_swap_cache_info(), 2.6.9 to 7.3",
)

SWAP_CACHE_STATS = Form(
    name="swap_cache_stats",
    section=Section.MEM_INFO,
    role=Role.BODY,
    begins=("Swap",),
    pattern=rx(r"Swap cache(?: stats)?: add \d+, delete \d+, find \d+/\d+(?:, race \d+\+\d+)?"),
    copies=Copies(
        start=r"Swap cache(?: stats)?: add",
        end=r"find \d+/\d+(?:, race \d+\+\d+)?",
        words=r"add|delete|find|\d+,|\d+/\d+,?|race|\d+\+\d+",
        inner=r"Swap cache stats: ",
        unspaced=Unspaced(
            r"Swapcachestats:add",
            (("Swapcachestats:add", "Swap cache stats: add "), (",(delete|find)", r", \1 ")),
        ),
    ),
    reads=marks_a_place,
    samples=(
        "Swap cache stats: add 1204, delete 1204, find 88/97",
        "Swap cache: add 226413, delete 226413, find 56113/77134, race 0+0",
    ),
    source="mm/swap_state.c show_swap_cache_info(), 2.6.9 to 5.19",
)

_PAGE_LINES = {
    "total pagecache pages": "pagecache",
    "pages RAM": "ram",
    "pages of RAM": "ram",
    "pages HighMem": "highmem",
    "pages HighMem/MovableOnly": "highmem",
    "pages reserved": "reserved",
    "reserved pages": "reserved",
    "pages cma reserved": "cma_reserved",
    "pages hwpoisoned": "hwpoisoned",
    "pages in swap cache": "swap_cache",
    "pages swap cached": "swap_cache",
}


def _read_pages(parts: Parts, m: Match) -> None:
    name = _PAGE_LINES.get(m["what"])
    if name:
        parts.memory.pages[name] = int(m["pages"])
    else:
        parts.memory.other_pages[m["what"]] = int(m["pages"])


PAGES = Form(
    name="pages",
    section=Section.MEM_INFO,
    role=Role.BODY,
    pattern=rx(
        r"(?P<pages>-?\d+) (?P<what>total pagecache pages|pages in swap cache|pages RAM|pages of RAM|"
        r"pages HighMem(?:/MovableOnly)?|pages reserved|reserved pages|pages cma reserved|"
        r"pages in pagetable cache|pages hwpoisoned|pages shared|pages non-shared|free pages|slab pages|"
        r"pages swap cached)\s*$"
    ),
    copies=Copies(
        start=r"\d+ total pagecache pages"
        r"|\d+ pages (?:in |RAM|of RAM|High|reserved|shared|non-shared|swap|cma|hwp|pag)"
        r"|\d+ (?:free|reserved|slab) pages",
        end="",
        words=r"pages|in|of|swap|cache|pagecache|total|RAM|HighMem\S*|MovableOnly|reserved|shared|non-shared|cma"
        r"|hwpoisoned|pagetable",
        inner=r"\d+ total pagecache pages"
        r"|\d+ pages (?:in swap cache|RAM|reserved|shared|non-shared|HighMem|cma|hwpoisoned)",
        unspaced=Unspaced(
            r"\d+(?:totalpagecachepages|pagesinswapcache|pagescmareserved"
            r"|pages(?:RAM|HighMem\S*|reserved|shared|non-shared|hwpoisoned))$",
            (
                ("totalpagecachepages", " total pagecache pages"),
                ("pagesinswapcache", " pages in swap cache"),
                ("pagescmareserved", " pages cma reserved"),
                (r"(?<=\d)pages(?=\S)", " pages "),
            ),
        ),
    ),
    reads=_read_pages,
    samples=(
        "22 total pagecache pages",
        "0 pages in swap cache",
        "262144 pages RAM",
        "131072 pages HighMem",
        "0 pages HighMem/MovableOnly",
        "136074 pages reserved",
        "0 pages cma reserved",
        "0 pages in pagetable cache",
        "0 pages hwpoisoned",
        "30 pages shared",
        "121318 pages non-shared",
        "131072 pages of RAM",
        "1234 free pages",
        "12 slab pages",
        "3 reserved pages",
        "0 pages swap cached",
    ),
    source="show_mem(), mm/swap_state.c, 2.6.27 to 7.3; arch/arm/mm/init.c up to 3.19",
)

FORMS = (
    MEM_INFO, PCP_ZONE, PCP_CPU, FREE_PAGES, TOTALS, NODE, ZONE, LOWMEM_RESERVE, BUDDY, HUGEPAGES, SWAP_KB,
    SWAP_CACHE_STATS, PAGES,
)  # fmt: skip

#: names and figures are bounded: otherwise a long word would be tried again from each of its letters
_AMOUNT = rx(r"([A-Za-z_]{1,64}+(?:\((?:anon|file)\))?): ?(-?\d{1,20}+)([kK]B)?")
_UNRECLAIMABLE = deferred(r"all_unreclaimable\? (yes|no)")


def parse_amounts(text: str) -> dict[str, int | bool]:
    """``free:1kB isolated(anon):2kB pages_scanned:3 all_unreclaimable? no`` -> contract names.

    Amounts in kB (also printed ``KB``) become ``<name>_bytes``; figures without unit keep the
    printed name. The kernel's counts are unsigned long: one that went below 0 (present pages of a zone all of
    which ZONE_MOVABLE took, up to 4.8) reads as nearly 2^64, and is given as the negative that it is.
    """
    amounts: dict[str, int | bool] = {}
    for name, figure, unit in _AMOUNT.findall(text):
        key = name.replace("(", "_").replace(")", "")
        if unit:
            kb = int(figure)
            amounts[f"{key}_bytes"] = (kb - (1 << 64) if kb >= 1 << 63 else kb) * 1024
        else:
            amounts[key] = int(figure)
    if m := _UNRECLAIMABLE.search(text):
        amounts["all_unreclaimable"] = m[1] == "yes"
    return amounts


_TOTAL = rx(r"([A-Za-z_]{1,64}+):(-?\d{1,20}+)")


def parse_totals(text: str) -> dict[str, int]:
    """``active_anon:1 inactive_anon:2`` (one line or many) -> pages by lower-case name."""
    return {name.lower(): int(pages) for name, pages in _TOTAL.findall(text)}


_ORDER = rx(r"(\d{1,20}+)\*(\d{1,20}+) ?kB(?: ?\(([A-Z]+)\))?")
_TOTAL_KB = rx(r"= ?(\d+) ?kB")


def parse_buddy(text: str) -> tuple[tuple[FreeBlocks, ...], int | None, int | None]:
    """A buddy line's orders -> (blocks, printed total in bytes, size of the first item in bytes).

    The first item is order 0: its size is the page size.
    """
    blocks = tuple(
        FreeBlocks(order=order, count=int(count), migratetypes=letters or None)
        for order, (count, _, letters) in enumerate(_ORDER.findall(text))
    )
    first = _ORDER.search(text)
    total = _TOTAL_KB.search(text)
    return blocks, int(total[1]) * 1024 if total else None, int(first[2]) * 1024 if first else None
