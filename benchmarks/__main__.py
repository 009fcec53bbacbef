"""All benchmarks: ``python -m benchmarks [--quick]``. Exit status 1 if a bound of the project is broken."""

from __future__ import annotations

import argparse
import sys

from benchmarks import (
    bench_decode,
    bench_footprint,
    bench_growth,
    bench_latency,
    bench_live,
    bench_peers,
    bench_recorder,
    bench_text,
)


def main() -> int:
    """Run them one after the other, for they would disturb each other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller inputs, for a first look")
    quick = parser.parse_args().quick
    decode = bench_decode.main(quick=quick)
    print()
    text = bench_text.main(100 if quick else 1000)
    print()
    recorder = bench_recorder.main([300] if quick else [300, 3000])
    print()
    footprint = bench_footprint.main(["--quick"] if quick else [])
    print()
    growth = bench_growth.main(quick=quick)
    print()
    live = bench_live.main(quick=quick)
    print()
    bench_peers.main(quick=quick)
    print()
    return max(decode, text, recorder, footprint, growth, live, bench_latency.main(quick=quick))


if __name__ == "__main__":
    sys.exit(main())
