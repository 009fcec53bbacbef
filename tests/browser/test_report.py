"""The HTML report in a real browser: nothing refused, nothing fetched, and fit for every screen."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from selenium.webdriver.common.keys import Keys

from oomwatchd.event import OomEvent, conclude
from oomwatchd.render.html import render_html, render_html_page
from tests.browser import DESKTOP, PHONE, Browser
from tests.recorded import captures

pytestmark = pytest.mark.slow

_SEED = "seed/mips-3.10-highmem.log"
_SERVER = "field/kmsg-raw-caller-wrapped-android-qcom-510.log"
_HOSTILE = "kernel/6.12.94+deb13-cloud-amd64-amd64.kmsg.gz"
_FILES = (
    _SEED,
    _SERVER,
    "field/oomgroup-41-kills-duplicated-611rc6.log",
    "field/numa4-two-events-deadlocked-panic-58next.log",
    "field/numeric-comm-531-order1-610rc1.log",
)


def page(corpus: Path, file: str, to: Path) -> Path:
    """The page of a file's first report."""
    capture = captures(corpus / file)[0]
    path = to / "report.html"
    path.write_text(render_html(conclude(capture).event, capture.records), encoding="utf-8")
    return path


def hostile_events(corpus: Path) -> list[OomEvent]:
    """Each recorded hostile name once, and texts that would act if one of them became markup."""
    found = {e.victims[0].comm: e for c in captures(corpus / _HOSTILE) if (e := conclude(c).event).victims}
    events = list(found.values())
    acting = (
        "</script><script>document.title='owned'</script>",
        "</style><img src=x onerror=document.title='owned'>",
        '" autofocus onfocus="document.title=\'owned\'" x="',
        "<svg/onload=document.title='owned'>",
        "<iframe src=https://example.org/>",
        "<link rel=stylesheet href=https://example.org/a.css>",
    )
    for event, text in zip(events, acting, strict=False):
        victims = tuple(msgspec.structs.replace(v, comm=text) for v in event.victims)
        tasks = tuple(msgspec.structs.replace(t, comm=text) for t in event.tasks)
        events.append(
            msgspec.structs.replace(event, id=text, summary=text, victims=victims, tasks=tasks, outcome=text)
        )
    return events


def column(browser: Browser, head: str) -> list[str]:
    """The cells of the task table below ``head``, in their present order, of the rows that are seen."""
    found: list[str] = browser.run(
        """
        const table = document.querySelector("#tasks table");
        const at = [...table.tHead.rows[0].cells].findIndex(c => c.textContent === arguments[0]);
        const rows = [...table.tBodies[0].rows].filter(r => r.offsetParent !== null);
        return rows.map(r => r.cells[at].textContent);
        """,
        head,
    )
    return found


def press(browser: Browser, head: str) -> str:
    """Press a head of the task table; how it is sorted then."""
    found: str = browser.run(
        """
        const heads = [...document.querySelectorAll("#tasks thead th")];
        const head = heads.find(c => c.textContent === arguments[0]);
        head.querySelector("button").click();
        return head.getAttribute("aria-sort");
        """,
        head,
    )
    return found


@pytest.mark.parametrize("file", _FILES)
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_no_screen_scrolls_sideways_and_nothing_is_refused_or_fetched(
    corpus: Path, tmp_path: Path, browser: Browser, file: str, size: tuple[int, int]
) -> None:
    path = page(corpus, file, tmp_path)
    browser.shape(size)
    browser.open(path)
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []
    # folded parts may be wide as well
    browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    assert browser.run("return innerWidth") == size[0]


def test_who_and_why_and_what_to_change_fit_on_a_phones_first_screen(
    corpus: Path, tmp_path: Path, browser: Browser
) -> None:
    for file in _FILES:
        browser.shape(PHONE)
        browser.open(page(corpus, file, tmp_path))
        bottom = browser.run("return document.querySelector('.verdict').getBoundingClientRect().bottom")
        assert bottom <= PHONE[1], file


def test_hostile_names_neither_run_nor_fetch(corpus: Path, tmp_path: Path, browser: Browser) -> None:
    events = hostile_events(corpus)
    assert len(events) > 15
    path = tmp_path / "hostile.html"
    path.write_text(render_html_page(events), encoding="utf-8")
    browser.open(path)
    assert browser.run("return document.title") == f"{len(events)} OOM reports"
    assert browser.run("return [document.scripts.length, document.images.length, frames.length]") == [1, 0, 0]
    assert browser.requests() == [path.as_uri()]
    assert browser.complaints() == []


def test_a_script_that_is_not_ours_is_refused(corpus: Path, tmp_path: Path, browser: Browser) -> None:
    """The policy is the second barrier: markup that got in anyway would not run."""
    path = page(corpus, _SEED, tmp_path)
    sound = path.read_text(encoding="utf-8")
    added = "<script>document.title='owned'</script><img src='https://example.org/x.png'>"
    path.write_text(sound.replace("<footer>", f"{added}<footer>"), encoding="utf-8")
    browser.open(path)
    assert browser.run("return document.title") != "owned"
    complaints = browser.complaints()
    assert len(complaints) == 2 and all("Content Security Policy" in c for c in complaints)


def test_tasks_are_sorted_by_figures_and_by_name(corpus: Path, tmp_path: Path, browser: Browser) -> None:
    browser.open(page(corpus, _SERVER, tmp_path))
    assert press(browser, "rss kB") == "descending"
    sizes = [int(cell) for cell in column(browser, "rss kB")]
    assert len(sizes) == 378 and sizes == sorted(sizes, reverse=True)
    assert press(browser, "rss kB") == "ascending"
    assert [int(cell) for cell in column(browser, "rss kB")] == sizes[::-1]
    assert press(browser, "name") == "ascending"
    names = column(browser, "name")
    assert names == sorted(names) and len(set(names)) > 300
    assert browser.run("return document.querySelectorAll('#tasks [aria-sort]').length") == 1


def test_tasks_are_filtered(corpus: Path, tmp_path: Path, browser: Browser) -> None:
    browser.open(page(corpus, _SERVER, tmp_path))
    everything = column(browser, "name")
    box = browser.driver.find_element("css selector", "#tasks input")
    box.send_keys("TENCENT")
    found = column(browser, "name")
    assert 0 < len(found) < len(everything) and all("tencent" in name for name in found)
    assert browser.run("return document.querySelector('#tasks output').textContent") == f"{len(found)} of 378"
    box.send_keys(Keys.BACKSPACE * len("TENCENT"))
    assert column(browser, "name") == everything


def test_all_can_be_read_without_scripts(corpus: Path, tmp_path: Path, browser: Browser) -> None:
    browser.shape(scripts=False)
    browser.open(page(corpus, _SEED, tmp_path))
    # the page's own script did not run: no control that would do nothing
    assert browser.run("return document.querySelectorAll('button, input').length") == 0
    body = browser.run("return document.body.innerText")
    for words in ("min_free_kbytes (pid 118) killed", "HighMem: 32 kB short", "dbus-daemon", "Died"):
        assert words in body
    assert column(browser, "rss kB")[0] == "480072"
    # folded parts open by themselves
    browser.driver.find_element("css selector", ".raw summary").click()
    assert browser.run("return document.querySelector('.raw').open")
    assert "Normal free:18244kB" in browser.run("return document.querySelector('.raw pre').innerText")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_told_from_its_ground(corpus: Path, tmp_path: Path, browser: Browser, dark: bool) -> None:
    """Contrast of all text is 4.5 to 1 at least (WCAG 2.2, 1.4.3)."""
    browser.shape(dark=dark)
    browser.open(page(corpus, _SERVER, tmp_path))
    assert browser.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    weak = browser.run(
        """
        const rgb = c => c.match(/[\\d.]+/g).map(Number);
        const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
          .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const ground = e => { for (; e; e = e.parentElement) {
          const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] !== 0) return c; } };
        const seen = new Map();
        for (const e of document.querySelectorAll("body *")) {
          if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
          if (e.closest("style, script, .off")) continue;
          const ink = e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color;
          const [a, b] = [light(rgb(ink)), light(rgb(ground(e)))];
          const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          if (contrast < 4.5) seen.set(`${ink} on ${ground(e)}`, contrast);
        }
        return [...seen.entries()];
        """
    )
    assert weak == []
