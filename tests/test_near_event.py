"""A warning through everything: event, words, pages, journal, store, and the kill that it announced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from prometheus_client import generate_latest

from oomwatchd.config import WarningSection, parse
from oomwatchd.daemon.nearing import Warnings
from oomwatchd.daemon.optional import warnings_of
from oomwatchd.daemon.worker import Worker
from oomwatchd.event import OomEvent, conclude
from oomwatchd.event.identity import near_id
from oomwatchd.metrics import Metrics
from oomwatchd.metrics.families import registry
from oomwatchd.observe.container import ContainerNames
from oomwatchd.observe.host import Host
from oomwatchd.observe.recorder import Recorder
from oomwatchd.records.capture import OomCapture, Snapshot, Source, Track
from oomwatchd.records.nearing import Candidate, Nearing
from oomwatchd.render.html import render_html
from oomwatchd.render.markdown import render_markdown
from oomwatchd.render.terminal import render_text
from oomwatchd.sinks import alertmanager, journal
from oomwatchd.sinks._particulars import place, severity, unit_of
from oomwatchd.store import Store
from oomwatchd.warning.incidents import Outlook
from tests import samples

MB = 1 << 20
PATH = "/system.slice/b\x1b[31m.service"
TOLD = Nearing(
    cgroup="/system.slice/b.service",
    limit_bytes=512 * MB,
    capacity_bytes=512 * MB,
    used_bytes=300 * MB,
    cache_bytes=20 * MB,
    usec=100_000_000,
    wall=1_790_000_000.0,
    since_usec=40_000_000,
    grown_bytes=240 * MB,
    rate_bytes_per_second=4.0 * MB,
    soonest_seconds=51.0,
    latest_seconds=58.0,
    points=tuple((40_000_000 + n * 10_000_000, (60 + 40 * n) * MB) for n in range(7)),
    candidates=(
        Candidate(pid=7, comm="leak", rss_bytes=260 * MB),
        Candidate(pid=8, comm="spared", rss_bytes=300 * MB, oom_score_adj=-1000),
        Candidate(pid=9, comm="chosen", rss_bytes=20 * MB, oom_score_adj=900),
    ),
)
TRACKS = (
    Track(kind="process", name="leak", pid=7, cgroup="/system.slice/b.service", points=TOLD.points),
    Track(kind="process", name="other", pid=3, cgroup="/system.slice/c.service", points=TOLD.points),
    Track(kind="cgroup", name="/system.slice/b.service", points=TOLD.points),
    Track(
        kind="process",
        name="calm",
        pid=8,
        cgroup="/system.slice/b.service",
        points=((40_000_000, 9), (90_000_000, 9)),
    ),
)


def capture(told: Nearing = TOLD, tracks: tuple[Track, ...] = TRACKS) -> OomCapture:
    return OomCapture(
        source=Source(kind="recorder", form="near", boot_id="0" * 32),
        records=(),
        revision=int(told.state != "near"),
        settled=told.state != "near",
        detected=told.wall,
        page_size_bytes=4096,
        nearing=told,
        tracks=tracks,
    )


def test_the_event_says_who_grows_when_it_ends_and_who_would_be_killed() -> None:
    event, error = conclude(capture())
    assert error is None
    assert (event.kind, event.kills, event.victims, event.constraint) == ("oom_near", 0, (), "memcg")
    assert event.near is not None
    assert [(one.name, one.pid) for one in event.near.growers] == [("leak", 7)]
    assert (event.near.soonest_seconds, event.near.latest_seconds) == (51.0, 58.0)
    assert event.near.left_bytes == 212 * MB
    assert "leak (pid 7)" in event.summary
    (finding,) = event.findings
    # oom_badness(): 900 of oom_score_adj outweigh 260 MiB of 512
    assert "would kill chosen (pid 9)" in finding.explanation
    assert "leak (pid 7)" in finding.advice
    assert (severity(event), place(event), unit_of(event)) == ("warning", "b.service", "b.service")


def test_one_line_says_who_how_fast_when_and_what_is_left() -> None:
    event = conclude(capture()).event
    assert event.summary == (
        "b.service: out of memory in 51 to 58 s at this rate: 300 MiB of 512 MiB held (58.6 %), +4.0 MiB/s; "
        "leak (pid 7), 300 MiB, +4.0 MiB/s for 60 s"
    )
    ended = msgspec.structs.replace(
        TOLD, state="came_true", ended_usec=1, ended_wall=1.0, kill_id="a" * 20, lead_seconds=52.0
    )
    (finding,) = conclude(capture(ended)).event.findings
    assert finding.explanation.startswith("b.service: the kernel killed 52 s after the warning")
    assert "would have killed chosen (pid 9) then" in finding.explanation


def test_who_holds_most_is_told_where_no_growth_of_one_was_seen() -> None:
    thrashing = msgspec.structs.replace(TOLD, reason="thrashing", pressure_full_ratio=0.4)
    for told in (TOLD, thrashing):
        event = conclude(capture(told, ())).event
        assert event.summary.endswith("; spared (pid 8) holds most, 300 MiB")
        assert "nobody yet; spared (pid 8) holds most" in render_text(event)
        assert event.findings[0].advice.startswith("Stop or restart spared (pid 8), or raise")
    small = msgspec.structs.replace(TOLD, candidates=TOLD.candidates[2:])
    event = conclude(capture(small, ())).event
    assert "holds most" not in event.summary
    assert event.findings[0].advice.startswith("Stop or restart what grows, or raise")


def test_the_id_lasts_to_the_end() -> None:
    ended = msgspec.structs.replace(TOLD, state="passed", passed="stopped", ended_usec=1, ended_wall=1.0)
    ids = {conclude(capture(told)).event.id for told in (TOLD, ended)}
    assert ids == {near_id("0" * 32, TOLD)}
    assert "passed: the growth stopped" in conclude(capture(ended)).event.summary


@pytest.mark.parametrize("told", [TOLD, msgspec.structs.replace(TOLD, cgroup=None, latest_seconds=None)])
def test_every_medium_shows_it(told: Nearing) -> None:
    event = conclude(capture(told)).event
    for text in (render_text(event), render_markdown(event), render_html(event)):
        assert ("51 to 58 s" if told is TOLD else "51 s or later") in text
        assert "leak" in text
    page = render_html(event)
    assert "Where it leads" in page
    assert page.count("polyline") >= 4


@pytest.mark.parametrize(
    ("name", "shown"),
    [("web", "container web"), ("shop/web-0/app", "shop/web-0/app"), (None, "container 0123456789ab")],
)
def test_a_container_is_called_as_people_call_it(name: str | None, shown: str) -> None:
    full = "0123456789abcdef" * 4
    path = f"/system.slice/docker-{full}.scope"
    inside = msgspec.structs.replace(TRACKS[0], cgroup=path)
    held = () if name is None else ((full, name),)
    one = msgspec.structs.replace(
        capture(msgspec.structs.replace(TOLD, cgroup=path), (inside,)), container_names=held
    )
    event = conclude(one).event
    for text in (event.summary, event.findings[0].explanation, place(event)):
        assert text is not None
        assert shown in text
        assert full not in text
    # of the machine: whose the process is that grows
    one = msgspec.structs.replace(
        capture(msgspec.structs.replace(TOLD, cgroup=None), (inside,)), container_names=held
    )
    assert f"leak (pid 7, {shown})" in conclude(one).event.summary


def test_a_tmpfs_grows_only_where_shared_memory_does() -> None:
    mount = Track(kind="tmpfs", name="/dev/shm", points=TOLD.points)  # noqa: S108  # a mount's name
    for shared, grows in ((0, False), (200 * MB, True)):
        told = msgspec.structs.replace(TOLD, shmem_grown_bytes=shared)
        event = conclude(capture(told, (mount,))).event
        assert event.near is not None
        assert bool(event.near.growers) is grows
        assert ("Remove files from tmpfs /dev/shm" in event.findings[0].advice) is grows


def test_names_do_no_harm() -> None:
    hostile = msgspec.structs.replace(TOLD, cgroup=PATH)
    event = conclude(capture(hostile)).event
    assert "\x1b" not in event.summary + render_text(event) + render_html(event)
    assert "\x1b" not in "".join(finding.explanation + finding.advice for finding in event.findings)


def test_a_name_breaks_no_line_of_the_metrics() -> None:
    metrics = Metrics()
    metrics.outlook((Outlook(cgroup='/a\n\x1b[31moomwatchd_up 0\n"b\\', left_bytes=1, open=True),))
    page = generate_latest(registry(metrics)).decode()
    assert "\x1b" not in page
    assert not any(line.startswith("oomwatchd_up 0") for line in page.splitlines())
    (line,) = (line for line in page.splitlines() if line.startswith("oomwatchd_warning_open{"))
    assert line.endswith("} 1.0")


def test_the_journal_has_it_under_an_id_that_the_catalog_explains() -> None:
    fields = dict(journal.fields(conclude(capture()).event))
    assert (fields["OOM_KIND"], fields["PRIORITY"], fields["OOM_NEAR_STATE"]) == ("oom_near", 4, "near")
    assert (fields["OOM_NEAR_SECONDS"], fields["OBJECT_SYSTEMD_UNIT"]) == (51.0, "b.service")
    catalog = Path(__file__).parents[1] / "packaging/systemd/oomwatchd.catalog"
    assert f"-- {fields['MESSAGE_ID']}\n" in catalog.read_text()


def test_an_alert_ends_with_its_warning() -> None:
    ended = msgspec.structs.replace(TOLD, state="passed", passed="freed", ended_usec=1, ended_wall=1.0)
    options = alertmanager.Options(urls=["http://x"])
    ends = [
        alertmanager.alert(conclude(capture(told)).event, options, 1_790_000_100.0)["endsAt"]
        for told in (TOLD, ended)
    ]
    assert ends == ["2026-09-21T15:15:00.000Z", "2026-09-21T14:15:00.000Z"]


def test_its_end_is_a_later_revision_in_the_store(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    ended = msgspec.structs.replace(TOLD, state="passed", passed="freed", ended_usec=1, ended_wall=1.0)
    outcomes = [store.put(one, conclude(one).event) for one in (capture(), capture(ended, ()), capture())]
    assert outcomes == ["new", "updated", "known"]
    (row,) = store.list(limit=9)
    assert (row.kind, row.unit, row.cgroup) == ("oom_near", "b.service", "/system.slice/b.service")
    # both are news to whoever fetches from the store
    assert [news.event_id for news in store.news(0, 9)] == [row.id, row.id]
    kept = store.get(row.id)
    assert kept is not None
    assert kept.nearing is not None
    assert kept.nearing.state == "passed"
    store.close()


def test_what_was_left_open_in_another_boot_ends_as_unknown(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state")
    ended = msgspec.structs.replace(
        TOLD, usec=5, state="passed", passed="freed", ended_usec=6, ended_wall=1.0
    )
    for one in (capture(), capture(ended)):
        store.put(one, conclude(one).event)
    bench = Bench(tmp_path, boot_id="1" * 32)
    (left,) = bench.warnings.left_open(store)
    assert store.put(left, conclude(left).event) == "updated"
    assert bench.warnings.left_open(store) == []
    assert left.nearing is not None
    assert (left.nearing.usec, left.nearing.state) == (TOLD.usec, "unknown")
    assert bench.outcomes()["unknown"] == 1
    store.close()


class Bench:
    """Warnings on a made host whose memory is told sample by sample."""

    def __init__(self, tmp_path: Path, boot_id: str = "0" * 32, **section: object) -> None:
        self.proc = tmp_path / "proc"
        (self.proc / "self").mkdir(parents=True, exist_ok=True)
        for name in ("vmstat", "zoneinfo", "swaps", "self/mountinfo"):
            (self.proc / name).write_text("")
        self.tell(1000)
        host = Host(proc=self.proc, sys=tmp_path, boot_id=boot_id)
        self.recorder = Recorder(host, parse({}, "x").recorder)
        self.metrics = Metrics()
        self.made: list[OomCapture] = []
        options = msgspec.convert({"enabled": True, **section}, WarningSection)
        self.hook = Path(str(section.get("hook_directory", "/nowhere")))
        self.warnings = Warnings(options, host, self.recorder, self.metrics, self.serve, lambda task: task())
        self.usec = 0

    def serve(self, make: Callable[[], OomCapture]) -> None:
        assert not self.hook.exists()  # it is called when the event is stored
        self.made.append(make())

    def tell(self, available: int) -> None:
        text = f"MemTotal: {1000 * 1024} kB\nMemAvailable: {available * 1024} kB\nSwapFree: 0 kB\n"
        (self.proc / "meminfo").write_text(text)

    def run(self, seconds: int, available: Callable[[int], int]) -> None:
        for second in range(seconds):
            self.tell(available(second))
            self.usec += 1_000_000
            if self.recorder.seconds_until_due(self.usec) <= 0:
                self.recorder.run(self.usec, self.usec / 1e6)
                self.warnings.look(self.usec, self.usec / 1e6)

    def outcomes(self) -> dict[str, float]:
        (family,) = [one for one in self.metrics.collect() if one.name == "oomwatchd_warnings"]
        return {sample.labels["outcome"]: sample.value for sample in family.samples}


def kill(usec: int) -> OomCapture:
    at = Snapshot(usec=usec, wall=usec / 1e6)
    made = samples.capture()
    source = msgspec.structs.replace(made.source, boot_id="0" * 32)
    return msgspec.structs.replace(made, source=source, historical=False, detected=at.wall, at=at)


def read_afterwards(usec: int) -> OomCapture:
    """A kill that happened while nobody watched."""
    made = kill(usec)
    records = (msgspec.structs.replace(made.records[0], usec=usec), *made.records[1:])
    return msgspec.structs.replace(made, records=records, historical=True, at=None)


def of_the_machine(capture: OomCapture) -> OomEvent:
    return msgspec.structs.replace(conclude(capture).event, kind="oom_kill", constraint="none")


def test_a_machine_that_runs_out_is_told_of_and_its_kill_links_to_that(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(30, lambda _second: 900)
    bench.run(60, lambda second: 900 - 10 * second)
    (near,) = bench.made
    assert near.nearing is not None
    assert (near.nearing.state, near.nearing.cgroup) == ("near", None)
    killed = kill(bench.usec + 5_000_000)
    event = msgspec.structs.replace(conclude(killed).event, kind="oom_kill", constraint="none")
    linked = bench.warnings.linked(killed, event)
    assert linked.warned is not None
    assert linked.warned.id == conclude(near).event.id
    assert linked.warned.lead_seconds == pytest.approx((killed.detected or 0) - near.nearing.wall, abs=0.01)
    assert conclude(linked).event.warned == linked.warned
    ended = bench.made[-1].nearing
    assert ended is not None
    assert (ended.state, ended.kill_id) == ("came_true", event.id)
    # a later revision of the same report says the same, and counts nothing
    assert bench.warnings.linked(killed, event).warned == linked.warned
    assert bench.outcomes() == {"came_true": 1, "passed": 0, "unknown": 0, "missed": 0}


def test_a_kill_without_a_warning_is_a_miss_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(30, lambda _second: 900)
    killed = kill(bench.usec)
    event = msgspec.structs.replace(conclude(killed).event, kind="oom_kill", constraint="none")
    again = msgspec.structs.replace(event, id="1" * 20)
    assert bench.warnings.linked(killed, event).warned is None
    assert bench.warnings.linked(killed, again).warned is None
    assert bench.outcomes()["missed"] == 1


@pytest.mark.parametrize("quiet", [["machine"], ["m*"]])
def test_who_is_named_quiet_is(quiet: list[str], tmp_path: Path) -> None:
    bench = Bench(tmp_path, quiet=quiet)
    bench.run(60, lambda second: 900 - 10 * second)
    assert bench.made == []


def test_the_hook_gets_an_empty_file_named_by_the_event(tmp_path: Path) -> None:
    bench = Bench(tmp_path, hook_directory=str(tmp_path / "near"))
    bench.run(60, lambda second: 900 - 10 * second)
    (file,) = (tmp_path / "near").iterdir()
    assert (file.name, file.stat().st_size) == (conclude(bench.made[0]).event.id, 0)


@pytest.fixture
def restarted(tmp_path: Path) -> tuple[Bench, OomCapture]:
    """A daemon that follows one which warned and ended, and that warning."""
    before, store = Bench(tmp_path), Store.open(tmp_path / "state")
    before.run(30, lambda _second: 900)
    before.run(60, lambda second: 900 - 10 * second)
    (near,) = before.made
    store.put(near, conclude(near).event)
    after = Bench(tmp_path)
    after.usec = before.usec
    after.run(12, lambda second: 300 - 10 * second)
    assert after.warnings.left_open(store) == []
    store.close()
    return after, near


def test_a_warning_is_watched_on_after_a_restart(restarted: tuple[Bench, OomCapture]) -> None:
    bench, near = restarted
    bench.run(10, lambda second: 180 - 10 * second)
    assert bench.made == []  # it is no second one
    killed = kill(bench.usec)
    linked = bench.warnings.linked(killed, of_the_machine(killed))
    assert near.nearing is not None
    assert linked.warned is not None
    assert linked.warned.id == conclude(near).event.id
    assert linked.warned.lead_seconds == pytest.approx((bench.usec - near.nearing.usec) / 1e6, abs=0.01)
    (ended,) = bench.made
    assert ended.nearing is not None
    assert (ended.nearing.state, ended.nearing.candidates) == ("came_true", near.nearing.candidates)
    assert bench.outcomes() == {"came_true": 1, "passed": 0, "unknown": 0, "missed": 0}


def test_a_kill_while_the_daemon_was_down_makes_the_warning_true(
    restarted: tuple[Bench, OomCapture],
) -> None:
    bench, near = restarted
    assert near.nearing is not None
    older = read_afterwards(near.nearing.usec - 5_000_000)
    assert bench.warnings.linked(older, of_the_machine(older)).warned is None
    killed = read_afterwards(near.nearing.usec + 7_000_000)
    event = msgspec.structs.replace(of_the_machine(killed), id="1" * 20)
    linked = bench.warnings.linked(killed, event)
    assert linked.warned is not None
    assert linked.warned.lead_seconds == 7
    # the one before it was nobody's to announce
    assert bench.outcomes() == {"came_true": 1, "passed": 0, "unknown": 0, "missed": 0}


def test_a_warning_passes_after_a_restart(restarted: tuple[Bench, OomCapture]) -> None:
    bench, _ = restarted
    bench.run(20, lambda _second: 950)
    (ended,) = bench.made
    assert ended.nearing is not None
    assert (ended.nearing.state, ended.nearing.passed) == ("passed", "freed")
    assert bench.outcomes() == {"came_true": 0, "passed": 1, "unknown": 0, "missed": 0}


def test_outcomes_last_as_long_as_the_boot(tmp_path: Path) -> None:
    metrics, later = Metrics(), Metrics()
    metrics.warned("passed")
    metrics.warned("missed")
    metrics.withheld(3)
    # they are saved with the event that ends the warning, or with that of the kill
    later.load(metrics.count(conclude(capture()).event, 0, 0, 0))
    later.warned("missed")
    found = {
        (sample.name, sample.labels.get("outcome")): sample.value
        for family in later.collect()
        if family.name.startswith("oomwatchd_warnings")
        for sample in family.samples
    }
    assert found["oomwatchd_warnings_total", "passed"] == 1
    assert found["oomwatchd_warnings_total", "missed"] == 2
    assert found["oomwatchd_warnings_withheld_total", None] == 3


def test_a_daemon_that_a_kill_starts_counts_no_kill_as_missed(tmp_path: Path) -> None:
    for seconds, there in ((0, True), (20, False)):
        config = msgspec.structs.replace(parse({}, "x"), exit_after_idle_seconds=seconds)
        host = Host(proc=tmp_path, sys=tmp_path, boot_id="0" * 32)
        metrics = Metrics()
        recorder = Recorder(host, config.recorder)
        worker = Worker(config, metrics, lambda _event: None)
        made = warnings_of(config, host, recorder, metrics, worker, ContainerNames())
        assert (made is not None) is there
        recorder.close()


def test_a_clock_that_jumps_back_hides_no_miss(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(30, lambda _second: 900)
    for number, wall in enumerate((5_000_000.0, 100.0)):
        killed = kill(bench.usec + number * 60_000_000)
        killed = msgspec.structs.replace(killed, detected=wall, at=Snapshot(usec=killed.at.usec, wall=wall))  # type: ignore[union-attr]
        event = msgspec.structs.replace(of_the_machine(killed), id=f"{number}" * 20)
        bench.warnings.linked(killed, event)
    assert bench.outcomes()["missed"] == 2


def test_an_end_that_the_clock_puts_before_the_beginning_is_shown(tmp_path: Path) -> None:
    ended = msgspec.structs.replace(
        TOLD, state="passed", passed="freed", ended_usec=TOLD.usec + 9, ended_wall=TOLD.wall - 1e6
    )
    event = conclude(capture(ended)).event
    for text in (render_text(event), render_markdown(event), render_html(event)):
        assert "memory was freed" in text


def test_a_calm_host_is_looked_at_no_more_often(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(600, lambda _second: 900)
    assert bench.recorder.samples <= 61
    assert bench.made == []


def test_metrics_say_how_near_the_end_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.run(60, lambda second: 900 - 10 * second)
    text = {family.name: family for family in bench.metrics.collect()}
    assert registry(bench.metrics) is not None
    (left,) = text["oomwatchd_exhaustion_left_bytes"].samples
    (seconds,) = text["oomwatchd_exhaustion_seconds"].samples
    (stands,) = text["oomwatchd_warning_open"].samples
    assert (left.labels, stands.value) == ({"cgroup": ""}, 1)
    assert seconds.value == pytest.approx(left.value / (10 * MB), rel=0.1)
