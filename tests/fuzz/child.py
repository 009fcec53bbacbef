"""One target under atheris, ended by libFuzzer: ``python -m tests.fuzz.child TARGET [ARGUMENT ...]``."""

from __future__ import annotations

import sys

import atheris

# branches are counted in what is imported here
with atheris.instrument_imports(include=["oomwatchd"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until something is found or the time is over."""
    target = TARGETS[sys.argv[1]].run
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
