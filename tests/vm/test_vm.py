"""Real kernels and a real system, as many as each test run has time for; ``python -m tests.vm`` has the
rest."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vm import full, kernels, names, power, trouble
from tests.vm.checks import Claim, check
from tests.vm.lab import cache_directory

pytestmark = [pytest.mark.vm, pytest.mark.slow]

MACHINES = ("bookworm-amd64", "trixie-amd64")


def test_every_kill_that_the_kernels_counted_is_read() -> None:
    with ThreadPoolExecutor(len(MACHINES)) as pool:
        recordings = list(pool.map(lambda name: kernels.record(name, cache_directory(), 1200), MACHINES))
    for recording in recordings:
        compared = kernels.compare(recording)
        assert len(compared) == 28
        assert [each for each in compared if not each.agrees] == []
        assert kernels.panics(recording) == 1


@pytest.fixture
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oomwatchd-lab-", dir=full.SCRATCH) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oomwatchd-lab-", dir=full.SCRATCH) as directory:
        cache = cache_directory()
        yield full.install(full.package(cache, Path(directory)), cache, Path(directory), idle=60)


def test_the_package_at_work_in_a_whole_system(image: Path) -> None:
    assert _wrong(check(full.run(image, memory_mib=768, seconds=1800))) == []


def test_names_under_the_packaged_units(image: Path) -> None:
    assert _wrong(names.test(image, memory_mib=768, seconds=900)) == []


def test_a_machine_in_trouble(image: Path, scratch: Path) -> None:
    assert _wrong(trouble.test(image, scratch, memory_mib=trouble.LARGE_MIB, seconds=1800)) == []


def test_a_power_cut(image: Path, scratch: Path) -> None:
    assert _wrong(power.test(image, scratch, memory_mib=768, seconds=900)) == []


def _wrong(claims: list[Claim]) -> list[str]:
    return [claim.text for claim in claims if not claim.holds]
