"""The pages of a running server in a real browser."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import msgspec
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import url_contains
from selenium.webdriver.support.wait import WebDriverWait

from oomwatchd.daemon.host_memory import HostMemory
from oomwatchd.daemon.warmup import RECORDS
from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.diagnosis.headroom import CgroupHeadroom
from oomwatchd.event import conclude
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.observe.host import read_host
from oomwatchd.records.kmsg import parse_record
from oomwatchd.store import Limits, Store
from oomwatchd.web import Access, App, Health, HttpServer, open_listeners
from oomwatchd.web.pages import Pages
from tests.browser import DESKTOP, PHONE, Browser
from tests.samples import capture, event
from tests.test_web_pages import HOSTILE, state
from tests.waiting import PATIENCE

pytestmark = pytest.mark.slow


class Site:
    """A server with a real store behind it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        health = Health()
        health.ready()
        view = HostMemory(read_host())
        cgroup = CgroupHeadroom(path=HOSTILE, limit_bytes=100 << 20, usage_bytes=90 << 20)

        def shown() -> object:
            headroom = msgspec.structs.replace(view(), cgroups=(cgroup,))
            return state(headroom=headroom, stored=store.events, without=(HOSTILE,))

        access = Access()
        app = App(registry(Metrics()), health, Pages(shown, lambda: store))  # type: ignore[arg-type]
        self.server = HttpServer(open_listeners("127.0.0.1", 0), access.gate(app), access)
        self.address = f"http://{self.server.addresses[0]}"

    def add(self, seq: int, comm: str, unit: str) -> None:
        whose = (Attribution(pid=4242, role="victim", cgroup=f"/{unit}", unit=unit),)
        kept = capture(seq)
        # the id is what the report's page derives from the capture, too
        told = event(seq, comm=comm, attribution=whose, id=conclude(kept).event.id)
        self.store.put(kept, told)


@pytest.fixture
def site() -> Iterator[Site]:
    store = Store.open(None, limits=Limits(max_events=None))
    made = Site(store)
    for n in range(70):
        made.add(100 + n * 10, f"worker{n}", "web.service" if n % 7 else "db.service")
    made.add(5000, HOSTILE, HOSTILE)
    records = tuple(record for line in RECORDS.splitlines() if (record := parse_record(line.encode())))
    report = msgspec.structs.replace(
        capture(23195), records=records, last_seq=records[-1].seq, settled=True, wall_offset=1_790_100_000.0
    )
    store.put(report, conclude(report).event)
    made.server.start()
    yield made
    made.server.stop()
    store.close()


def well(browser: Browser, site: Site) -> None:
    """Nothing was refused, nothing failed, and no other host was asked."""
    assert browser.complaints() == []
    assert all(url.startswith(site.address) for url in browser.requests())


def rows(browser: Browser) -> int:
    return len(browser.driver.find_elements(By.CSS_SELECTOR, "tbody tr"))


def test_from_the_state_to_a_report_and_its_sorted_table(browser: Browser, site: Site) -> None:
    browser.open(f"{site.address}/")
    assert browser.driver.find_element(By.TAG_NAME, "h1").text == "Watching"
    assert browser.driver.find_elements(By.TAG_NAME, "meter")
    well(browser, site)
    browser.driver.find_element(By.LINK_TEXT, "All events").click()
    assert rows(browser) == 50
    browser.driver.find_element(By.LINK_TEXT, "Older").click()
    assert rows(browser) == 22
    well(browser, site)
    browser.driver.find_element(By.LINK_TEXT, "Newest").click()
    # the newest is the whole report
    browser.driver.find_element(By.CSS_SELECTOR, "tbody a").click()
    assert "labbox" in browser.driver.title
    before = browser.complaints()
    assert before == []
    sorters = browser.driver.find_elements(By.CSS_SELECTOR, "th button")
    assert sorters, "the report's script ran under the policy of the header"
    browser.run("arguments[0].click()", sorters[0])
    assert browser.driver.find_elements(By.CSS_SELECTOR, "th[aria-sort]")
    well(browser, site)
    browser.driver.find_element(By.LINK_TEXT, "All events").click()
    assert browser.driver.find_element(By.TAG_NAME, "h1").text == "Events"


def test_the_filter_by_keyboard_alone(browser: Browser, site: Site) -> None:
    browser.open(f"{site.address}/events")
    first = browser.driver.switch_to.active_element
    first.send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "To the content"
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    field = browser.driver.find_element(By.NAME, "unit")
    for _ in range(12):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        if browser.driver.switch_to.active_element == field:
            break
    browser.driver.switch_to.active_element.send_keys("db.service", Keys.ENTER)
    # a form that a key sends is on its way when the key is done
    WebDriverWait(browser.driver, 20).until(url_contains("unit=db.service"))
    assert rows(browser) == 10
    assert browser.driver.find_element(By.NAME, "unit").get_attribute("value") == "db.service"
    well(browser, site)


def test_from_a_crash_loop_to_each_of_its_kills_and_their_neighbours(browser: Browser, site: Site) -> None:
    for n in range(12):
        site.add(20_000 + n * 10, "looper", "loop.service")
    browser.open(f"{site.address}/events?unit=loop")
    assert rows(browser) == 1
    assert socket.gethostname() in browser.driver.title
    browser.driver.find_element(By.LINK_TEXT, "12 times").click()
    assert rows(browser) == 12
    browser.driver.find_elements(By.CSS_SELECTOR, "tbody th a")[1].click()
    here = browser.driver.current_url
    browser.driver.find_element(By.LINK_TEXT, "Older").click()
    assert browser.driver.current_url != here
    browser.driver.find_element(By.LINK_TEXT, "Newer").click()
    assert browser.driver.current_url == here
    browser.driver.find_element(By.LINK_TEXT, "Markdown").click()
    assert browser.driver.find_element(By.TAG_NAME, "body").text.startswith("### OOM")
    well(browser, site)


@pytest.mark.parametrize("path", ["/", "/events"])
def test_hostile_names_are_text(browser: Browser, site: Site, path: str) -> None:
    browser.open(site.address + path)
    assert "<script>alert(1)</script>" in browser.driver.find_element(By.TAG_NAME, "main").text
    assert len(browser.driver.find_elements(By.TAG_NAME, "script")) == 1
    well(browser, site)


def test_new_events_come_by_themselves(browser: Browser, site: Site) -> None:
    browser.open(f"{site.address}/events?comm=newcomer")
    assert rows(browser) == 0
    site.add(9000, "newcomer", "web.service")
    browser.run("renew()")
    deadline = time.monotonic() + PATIENCE
    while rows(browser) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "new events: 1" in browser.driver.find_element(By.ID, "renewed").text
    well(browser, site)


@pytest.mark.parametrize("path", ["/", "/events", "/events?kind=oom_kill"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("dark", [False, True])
def test_no_page_is_wider_than_the_screen(
    browser: Browser, site: Site, path: str, size: tuple[int, int], dark: bool
) -> None:
    browser.shape(size, dark=dark)
    browser.open(site.address + path)
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(18, 22, 27)") is dark
    well(browser, site)


@pytest.mark.parametrize(("size", "dark"), [(PHONE, True), (DESKTOP, False)], ids=["phone-dark", "desktop"])
def test_axe_finds_nothing(browser: Browser, site: Site, size: tuple[int, int], dark: bool) -> None:
    browser.shape(size, dark=dark)
    newest = next(iter(site.store.list(limit=1))).id
    found = {}
    for path in ("/", "/events", f"/events/{newest}"):
        browser.open(site.address + path)
        if said := browser.violations():
            found[path] = said
    assert found == {}
    browser.run("document.body.append(new Image())")
    assert [said.partition(":")[0] for said in browser.violations()] == ["image-alt", "region"]


def test_all_is_there_without_scripts(browser: Browser, site: Site) -> None:
    browser.shape(scripts=False)
    for path, count in (("/", 8), ("/events", 50), ("/events?unit=db.service", 10)):
        browser.open(site.address + path)
        assert rows(browser) == count
    browser.open(f"{site.address}/events")
    assert browser.run("return document.querySelectorAll('noscript meta').length") == 1
    well(browser, site)
