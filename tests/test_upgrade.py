"""Upgrade from 0.1.0: its configuration and its store still work. Both were written by that version."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from oomwatchd.config import load
from oomwatchd.observe.host import read_host
from oomwatchd.store import FILE_NAME, Store
from tests.attacked import attacked
from tests.kernel.running import command

OLD = Path(__file__).parent / "data" / "upgrade" / "0.1.0"
#: whom the old version saw die
OLD_PIDS = [40020, 40010, 40000]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The old version's store, as if of this boot, for counters last as long as one."""
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    shutil.copy(OLD / FILE_NAME, directory / FILE_NAME)
    (directory / FILE_NAME).chmod(0o600)
    with contextlib.closing(sqlite3.connect(directory / FILE_NAME)) as connection:
        for table in ("event", "boot", "counter"):
            connection.execute(f"UPDATE {table} SET boot_id = ?", (read_host().boot_id,))  # noqa: S608
        connection.commit()
    return directory


def test_its_whole_configuration_is_one() -> None:
    config, _ = load(OLD / "config.toml")
    assert config.store.max_events == 10_000


def test_its_events_are_listed_and_shown(state: Path, tmp_path: Path) -> None:
    with contextlib.closing(Store.open(state)) as store:
        rows = store.list()
        assert [row.victim_pid for row in rows] == OLD_PIDS
        assert store.load_counters(rows[0].boot_id or "")["kills memcg"] == 3
    config = tmp_path / "config.toml"
    config.write_text((OLD / "config.toml").read_text().replace('directory = ""', f'directory = "{state}"'))
    done = subprocess.run(
        command("events", "show", rows[0].id, "--config", str(config)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "victim (pid 40020" in done.stdout and "a2.service" in done.stdout


def test_a_daemon_goes_on_with_its_store_and_counters(state: Path, tmp_path: Path) -> None:
    with attacked(tmp_path) as one:
        old = (OLD / "config.toml").read_text().replace('directory = ""', f'directory = "{state}"')
        one.config.write_text(old.replace("127.0.0.1:10053", f"127.0.0.1:{one.port}"))
        one.begin()
        assert one.kills == 3
        one.seq = 5000
        one.report(41000, "/b.service")
        one.until(lambda: one.kills == 4)
        assert one.stop() == 0
    with contextlib.closing(Store.open_reader(state)) as store:
        assert [row.victim_pid for row in store.list()] == [41000, *OLD_PIDS]
    assert not list(state.glob("*.corrupt-*"))
