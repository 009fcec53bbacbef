"""Makes docs/screenshots anew: ``python -m tests.browser.screenshots`` (needs the corpus and Chromium).

Look at them afterwards; that is what they are for.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from oomwatchd.daemon.host_memory import HostMemory
from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.event import conclude
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.observe.host import read_host
from oomwatchd.render.html import render_html
from oomwatchd.store import Store
from oomwatchd.web import Access, App, Health, HttpServer, open_listeners
from oomwatchd.web.pages import Pages
from oomwatchd.web.shown import State
from tests.browser import DESKTOP, PHONE, chromium
from tests.conftest import corpus_directory
from tests.recorded import captures
from tests.samples import capture, event

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "screenshots"
#: picture -> log, screen, dark
PICTURES = {
    "mips-highmem-desktop-light": ("seed/mips-3.10-highmem.log", DESKTOP, False),
    "mips-highmem-phone-dark": ("seed/mips-3.10-highmem.log", PHONE, True),
    "server-4-nodes-desktop-dark": ("field/numa4-two-events-deadlocked-panic-58next.log", DESKTOP, True),
    "build-group-kill-phone-light": ("field/oomgroup-41-kills-duplicated-611rc6.log", PHONE, False),
    "slab-124-tasks-desktop-light": ("field/vbox-level-prefix-wrapped-cc1plus-69rc3.log", DESKTOP, False),
}


#: pages of the running daemon: picture -> path, screen, dark
PAGES = {
    "state-desktop-light": ("/", DESKTOP, False),
    "events-phone-dark": ("/events", PHONE, True),
}


def main() -> None:
    """Write one WebP for each of ``PICTURES`` and of ``PAGES``."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, chromium(Path(scratch, "profile")) as browser:
        for name, (log, size, dark) in PICTURES.items():
            one = captures(corpus_directory() / log)[0]
            page = Path(scratch, f"{name}.html")
            page.write_text(render_html(conclude(one).event, one.records), encoding="utf-8")
            browser.shape(size, dark=dark)
            browser.open(page)
            browser.picture(DIRECTORY / f"{name}.webp")
        with served() as address:
            for name, (path, size, dark) in PAGES.items():
                browser.shape(size, dark=dark)
                browser.open(address + path)
                browser.picture(DIRECTORY / f"{name}.webp", tallest=1600)


def crash_loop(store: Store) -> None:
    """A pod's container that is started again and dies, 41 times."""
    uid = "0b8c4a7e-1111-4222-8333-944455566677"
    for n in range(41):
        identifier = f"{n:064x}"
        slice_ = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
        whose = Attribution(
            pid=4242,
            role="victim",
            cgroup=f"/kubepods.slice/kubepods-burstable.slice/{slice_}/cri-containerd-{identifier}.scope",
            container_id=identifier,
            container_name="shop/web-otlp-7f9c5d/app",
            pod_uid=uid,
        )
        summary = "app (pid 4242) killed: container app of shop/web-otlp-7f9c5d at its limit of 512 MiB"
        kept = msgspec.structs.replace(capture(100 + 10 * n), wall_offset=1_790_000_000.0 + 300 * n)
        store.put(kept, event(100 + 10 * n, comm="app", attribution=(whose,), memcg=None, summary=summary))


@contextmanager
def served() -> Iterator[str]:
    """The address of a daemon's pages, with the pictured logs' events behind them and this host's memory."""
    store, health = Store.open(None), Health()
    health.ready()
    for log, _, _ in PICTURES.values():
        for one in captures(corpus_directory() / log):
            store.put(one, conclude(one).event)
    crash_loop(store)
    view = HostMemory(read_host())

    def state() -> State:
        return State(
            started=time.time() - 86400,
            trouble=None,
            kernel_kills=2.0,
            kills=2.0,
            unaccounted=0.0,
            stored=store.events,
            store_failure=None,
            without=(),
            headroom=view(),
        )

    access = Access()
    app = App(registry(Metrics()), health, Pages(state, lambda: store))
    server = HttpServer(open_listeners("127.0.0.1", 0), access.gate(app), access)
    server.start()
    try:
        yield f"http://{server.addresses[0]}"
    finally:
        server.stop()
        store.close()


if __name__ == "__main__":
    main()
