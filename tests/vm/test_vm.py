"""Real kernels and a real system, as far as each run of the tests can afford; ``python -m tests.vm`` has
the rest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.vm import full, kernels
from tests.vm.checks import check
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


def test_the_package_at_work_in_a_whole_system(tmp_path: Path) -> None:
    cache = cache_directory()
    image = full.install(full.package(cache), cache, tmp_path)
    found = check(full.run(image, memory_mib=768, seconds=1800))
    assert [claim.text for claim in found if not claim.holds] == []
