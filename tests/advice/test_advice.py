"""The bench itself, and the representative part of its scenarios: after CHANGE is followed, the work
survives."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from oomwatchd.render.fields import change
from tests.advice import host, judge, machine
from tests.advice.__main__ import Bench, rounds, wanted
from tests.advice.judge import Outcome, Verdict
from tests.advice.run import order, ran, script
from tests.advice.scenarios import HOST, LOOK, SCENARIOS, VM, Change, Scenario
from tests.recorded import kinds, whole_corpus
from tests.vm.lab import cache_directory, command

#: of the representative part: so many must be named, and so many cured
LEAST_SHARE = 0.84


def _scenario(name: str) -> Scenario:
    return next(s for s in SCENARIOS if s.name == name)


def test_scenarios_are_sound() -> None:
    names = [s.name for s in SCENARIOS]
    assert len(names) == len(set(names)) >= 65
    levers = {name for name, _ in judge.LEVERS}
    for scenario in SCENARIOS:
        re.compile(scenario.named)
        assert set(scenario.follow) <= levers, scenario.name
        assert set(scenario.looks) <= set(judge.PLACES), scenario.name
        assert scenario.looks or LOOK not in scenario.follow.values(), scenario.name
        # what is changed is a variable of the work, or the machine
        for step in scenario.follow.values():
            if isinstance(step, Change):
                for variable in step.env:
                    known = f"${{{variable}" in scenario.work or f"${variable}" in scenario.work
                    assert known or variable == "BALLOON", (scenario.name, variable)


def test_scripts_are_shell(tmp_path: Path) -> None:
    if shutil.which("sh") is None:
        pytest.skip("no sh")
    for scenario in SCENARIOS:
        file = tmp_path / scenario.name
        file.write_text(script(order(scenario)))
        command("sh", "-n", file)


def test_every_change_of_the_corpora_has_a_lever(corpus: Path) -> None:
    """A new wording that the bench does not know would be 'unmapped'."""
    said = {change(event) for path in whole_corpus(corpus) for event in kinds(path)}
    assert len(said) > 30
    assert {text for text in said if judge.lever(text) == "unmapped"} == set()


def test_an_interrupted_bench_goes_on() -> None:
    one, other = _scenario("g-leak"), _scenario("g-nft")
    todo = [(one, VM), (other, VM)]
    had = ["g-leak.vm", "g-leak.vm", "g-nft.vm"]
    assert list(rounds(todo, had, 3)) == [(other, VM, False), (one, VM, False), (other, VM, False)]
    assert list(rounds(todo, [], 1)) == [(one, VM, True), (other, VM, True)]


def test_the_next_step_is_taken_where_change_names_one() -> None:
    full = (
        "More swap: 100.0 MiB are full, begin with 1.5 GiB more. If x fills that, too, it leaks: bound it by"
    )
    assert (judge.lever(full), judge.next_lever(f"{full} its own settings.")) == ("swap", "bound_process")
    assert judge.next_lever("Bound x: its own settings. If it needs more, add RAM.") is None
    assert judge.begun(full, Change(did="", env={"A": "swap_on {begin}"})).env == {"A": "swap_on 1572864"}


def test_the_lever_is_what_comes_first() -> None:
    assert (
        judge.lever("Raise memory.max of cgroup /a above 40 MiB, or make what runs smaller.") == "raise_limit"
    )
    assert judge.lever("Add swap, or bound how many may run: TasksMax= (pids.max).") == "swap"
    assert judge.lever("Pray.") == "unmapped"


def test_a_verdict_is_judged_by_where_the_cause_is_named() -> None:
    leak = _scenario("g-leak")
    finding = {"id": "x", "title": "One process", "explanation": "leaky holds", "advice": ""}
    other = {"id": "y", "title": "Swap", "explanation": "none", "advice": "Add swap"}
    event = {
        "summary": "a (pid 1) killed: too little",
        "victims": [{"comm": "a"}],
        "findings": [finding, other],
    }
    assert judge.verdict(event, leak).named == "yes"
    assert judge.verdict({**event, "findings": [other, finding]}, leak).named == "partly"
    assert judge.verdict({**event, "findings": [other]}, leak).named == "no"
    assert judge.verdict({**event, "summary": "a (pid 1) killed: leaky", "findings": []}, leak).named == "yes"
    assert judge.verdict(event, leak) == Verdict(
        why="too little", change="Add swap", findings=("x", "y"), named="yes"
    )


def test_a_cause_among_many_is_not_named() -> None:
    pipes = _scenario("cg-pipes")
    text = "the kernel's own memory holds 90 % of it (slab, threads, pipes, sockets or BPF)"
    event = {"summary": f"a (pid 1) killed: {text}", "victims": [{"comm": "a"}], "findings": []}
    assert judge.verdict(event, pipes).named == "kind"
    assert judge.verdict({**event, "summary": "a (pid 1) killed: 1000 pipes of piper"}, pipes).named == "yes"


def test_the_end_of_the_second_run() -> None:
    done, less = Change(did="x"), Change(did="x", less=True)
    good, bad = (
        ran("@@START\n@@RESULT rc=0 kills=0", b"", ()),
        ran("@@START\n@@RESULT rc=137 kills=1", b"", ()),
    )
    limit, together = _scenario("cg-limit"), _scenario("cg-together")
    assert judge.cured(good, [], limit, done) == "cured"
    assert judge.cured(good, [], limit, less) == "by doing less"
    assert judge.cured(good, [{}], limit, done) == "not cured"
    assert judge.cured(good, [{}], together, done) == "cured"
    assert judge.cured(bad, [], limit, done) == "not cured"


def test_what_was_told_before_the_kill_is_no_report() -> None:
    near, kill = {"kind": "oom_near", "memcg": None}, {"kind": "oom_kill", "memcg": {"oom_path": "/a"}}
    assert judge.counted([near, kill], _scenario("cg-limit"), ran("", b"", ())) == [kill]


def test_the_sums_count_every_run() -> None:
    named = Verdict(named="yes")
    runs = [
        Outcome(name="a.vm", cause="c", reports=1, offline=named, end="cured"),
        Outcome(name="a.vm", cause="c", reports=1, offline=named, live=Verdict(named="no"), end="not cured"),
        Outcome(name="b.vm", cause="c", end="no OOM"),
    ]
    text = judge.table(runs)
    assert "3 runs, 2 ended in an OOM" in text
    assert "cured in 1 (50 %)" in text
    assert "Live said less than offline: a.vm." in text
    assert text.count("\n| a.vm ") == 1


# ---- the representative part


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="advice-", dir="/var/tmp"))
        lab = machine.prepare(cache_directory(), Path(scratch), suite="bookworm", live=True)
        daemon = stack.enter_context(host.watching()) if host.version() else None
        yield Bench(cache_directory(), {("amd64", "bookworm"): lab}, daemon, None, "bookworm")


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.oom
def test_the_advice_cures(bench: Bench) -> None:
    """Counts over the whole part: on an emulated and busy machine two runs may end differently."""
    outcomes = [bench.measure(scenario, where) for scenario, where in wanted([], None, small=True)]
    shown = judge.table(outcomes)
    assert len(outcomes) >= 9, shown
    assert [outcome.name for outcome in outcomes if outcome.end == "unmapped"] == [], shown
    named = [outcome for outcome in outcomes if outcome.best.named == "yes"]
    cured = [outcome for outcome in outcomes if outcome.end in ("cured", "by doing less", "leads there")]
    assert len(named) >= LEAST_SHARE * len(outcomes), shown
    assert len(cured) >= LEAST_SHARE * len(outcomes), shown


def test_the_representative_part_has_both_places() -> None:
    places = {where for _, where in wanted([], None, small=True)}
    assert VM in places
    assert HOST in places or host.version() is None
