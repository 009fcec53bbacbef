"""The inputs and the results of one run of a scenario, on this host and in a machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tests.advice.scenarios import Change, Scenario

Json = dict[str, Any]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A scenario with the changes of this run."""

    work: str
    looks: Mapping[str, str]
    env: Mapping[str, str]
    memory: int
    append: str
    devices: tuple[str, ...]
    seconds: int
    #: where the advice says to look is looked at, and the daemon is asked
    looking: bool


def order(scenario: Scenario, change: Change | None = None, *, looking: bool = True) -> Order:
    """The order of a run; the first has no ``change``. ``looking``: look where the advice says to look."""
    memory, append = scenario.memory, scenario.append
    if change is not None:
        memory = change.memory or memory
        append = append if change.append is None else change.append
    return Order(
        work=scenario.work,
        looks={name: look.command for name, look in scenario.looks.items()} if looking else {},
        looking=looking,
        env={**scenario.env, **(change.env if change else {})},
        memory=memory,
        append=append,
        devices=scenario.devices,
        seconds=scenario.seconds,
    )


def script(order: Order) -> str:
    """The shell functions ``work`` and ``looks``."""
    values = "".join(f"{name}='{value}'\n" for name, value in order.env.items())
    looks = "".join(f"echo '@@LOOK {name}'\n{command}\n" for name, command in order.looks.items())
    values += f"LOOKING={'yes' if order.looking else ''}\n"
    return f"{values}work() {{\n{order.work}\n}}\nlooks() {{\n:\n{looks}\n}}\n"


class Ran(msgspec.Struct, kw_only=True):
    """What a run left. ``rc`` is the work's end, None where it did not come to one; ``group`` names this
    run's cgroups where others run beside it."""

    rc: int | None
    started: bool
    timed_out: bool
    kmsg: bytes
    console: str
    looks: dict[str, str]
    live: list[Json]
    group: str = ""


def ran(console: str, kmsg: bytes, live: Iterable[str], *, timed_out: bool = False, group: str = "") -> Ran:
    """Read what was written."""
    result = re.search(r"@@RESULT rc=(\d+)", console)
    looked = re.search(r"@@LOOKS\n(.*?)@@LOOKED", console, re.S)
    parts = re.findall(r"@@LOOK ([^\n]+)\n(.*?)(?=@@LOOK |\Z)", looked[1] if looked else "", re.S)
    return Ran(
        rc=int(result[1]) if result else None,
        started="@@START" in console,
        timed_out=timed_out,
        kmsg=kmsg,
        console=console,
        looks=dict(parts),
        live=events(live),
        group=group,
    )


def events(lines: Iterable[str]) -> list[Json]:
    """Events, one a line; incomplete lines are left out."""
    out = []
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            out.append(value)
    return out
