"""The fuzz targets for some seconds each, their earlier finds, and time that grows only with the input."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import run
from tests.fuzz.run import main, without_atheris
from tests.fuzz.scaling import FLOODS, TEXTS, growth, line_floods, seconds
from tests.fuzz.targets import TARGETS, Target, fuzz_lines

#: doubling the input doubles the work; what is above that is noise, and the square would be 4
MOST_FOR_DOUBLE = 3.0
#: 8 times the length: the square would be 64
MOST_FOR_EIGHTFOLD = 24.0
SHORT, LONG = 2048, 16_384
#: below, nothing is worth measuring
WORTH_SECONDS = 0.02


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_themselves_hold(name: str, corpus: Path) -> None:
    target = TARGETS[name]
    for seed in target.seeds(corpus):
        target.run(seed[:20_000])


def test_a_second_table_header_does_not_raise() -> None:
    """Once an IndexError: the rows before it had fewer columns."""
    fuzz_lines(
        b"x invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n"
        b"[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name\n"
        b"[  100]     0   100     1000      900      10        0             0 bash\n"
        b"[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents"
        b" oom_score_adj name\n"
    )


def test_a_hang_and_an_exception_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that needs no atheris; that of atheris is libFuzzer's own."""

    def raises(data: bytes) -> None:
        raise ValueError(len(data))

    monkeypatch.setitem(TARGETS, "record", Target(raises, lambda corpus: iter([b"seed"])))
    assert not without_atheris("record", 5, tmp_path)
    assert (tmp_path / "record-found").exists()
    monkeypatch.setattr(run, "HANG_SECONDS", 0)
    monkeypatch.setitem(TARGETS, "record", Target(len, lambda corpus: iter([b"seed"])))  # type: ignore[arg-type]
    assert not without_atheris("record", 5, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_finds_nothing(name: str, tmp_path: Path) -> None:
    assert main(["--seconds", "6", "--keep", str(tmp_path / "found"), name]) == 0


@pytest.mark.skipif(
    "CI" not in os.environ or platform.machine() != "x86_64", reason="CI on x86-64 has wheels"
)
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are none for this Python")
def test_ci_fuzzes_by_coverage() -> None:
    assert find_spec("atheris") is not None


@pytest.mark.slow
def test_without_atheris_the_run_says_so(tmp_path: Path) -> None:
    hide = (
        "import sys; sys.modules['atheris'] = None\n"
        "from tests.fuzz.run import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide, "--seconds", "2", "--keep", str(tmp_path), "record"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "atheris is not installed" in done.stdout and "nothing found" in done.stdout


def test_the_measure_sees_the_square() -> None:
    def square(n: int) -> Callable[[], object]:
        return lambda: sum(1 for _ in range(n) for _ in range(n))

    assert growth(square, enough=0.02)[0] > MOST_FOR_DOUBLE


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FLOODS, *TEXTS])
def test_twice_the_input_is_about_twice_the_work(name: str) -> None:
    work = {**FLOODS, **TEXTS}[name]
    # another process may disturb one measurement
    measured = [growth(work, enough=0.2, largest=1 << 17)]
    while measured[-1][0] > MOST_FOR_DOUBLE and len(measured) < 3:
        measured.append(growth(work, enough=0.2, largest=1 << 17))
    assert measured[-1][0] <= MOST_FOR_DOUBLE, measured


@pytest.mark.slow
def test_no_line_takes_the_square_of_its_length() -> None:
    worse = []
    for name, work in line_floods().items():
        long = work(LONG)
        for _ in range(3):
            once = seconds(long, 1)
            if once < WORTH_SECONDS or once / seconds(work(SHORT)) < MOST_FOR_EIGHTFOLD:
                break
        else:
            worse.append(name)
    assert worse == []
