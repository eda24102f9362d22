"""`python -m benchmarks run | report | check | levels | soak`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks import check, levels, report, runner, soak
from benchmarks.systems import NAMES
from benchmarks.workloads import WORKLOADS, WrongResult


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="measure workloads side by side")
    run.add_argument("workload", nargs="+", choices=[*WORKLOADS, "all"])
    run.add_argument("--system", nargs="+", choices=NAMES, help="default: all that are installed")
    run.add_argument("--main", action="store_true", help="of those, only the main ones")
    run.add_argument("--repeat", type=int, default=3, help="turns; the figures are medians")
    run.add_argument("--size", type=int, help="instead of the workload's default")
    run.add_argument("--minutes", type=float, default=10.0, help="slow systems get smaller sizes for it")
    run.add_argument("--to", type=Path, default=runner.RESULTS, help="folder for the figures")
    verbs.add_parser("report", help="write the newest figures into docs/performance.md")
    compare = verbs.add_parser("check", help="compare Rain's speed with the baseline, about a minute")
    compare.add_argument("--store", action="store_true", help="make what is measured the baseline")
    verbs.add_parser("levels", help="measure the service levels")
    long = verbs.add_parser("soak", help="run random graphs for minutes, watch results and memory")
    long.add_argument("--minutes", type=float, default=10.0)
    long.add_argument("--seed", type=int, default=1)
    return top


def main() -> int:
    """Run the command line; exit code 1 when something failed."""
    options = parser().parse_args()
    if options.verb == "report":
        if not report.write():
            print("there are no figures yet; run `make bench`", file=sys.stderr)
            return 1
        return 0
    if options.verb == "levels":
        return 0 if levels.run() else 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    try:
        if options.verb == "soak":
            return 0 if soak.soak(options.minutes, options.seed) else 1
        if options.verb == "check":
            return 0 if check.check(store=options.store) else 1
        names = list(WORKLOADS) if "all" in options.workload else options.workload
        well = runner.run_all(
            names,
            options.repeat,
            options.minutes,
            asked=options.system,
            main=options.main,
            size=options.size,
            folder=options.to,
        )
        return 0 if well else 1
    except WrongResult as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
