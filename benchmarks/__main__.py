"""`python -m benchmarks run | report | levels | soak`."""

from __future__ import annotations

import argparse
import sys

from benchmarks import levels, report, runner, soak
from benchmarks.systems import NAMES
from benchmarks.workloads import WORKLOADS, WrongResult


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="measure workloads side by side")
    run.add_argument("workload", choices=[*WORKLOADS, "all"])
    run.add_argument("--system", nargs="+", choices=NAMES, default=list(NAMES))
    run.add_argument("--repeat", type=int, default=3)
    run.add_argument("--size", type=int, help="instead of the workload's default")
    verbs.add_parser("report", help="write the newest figures into docs/performance.md")
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
    try:
        if options.verb == "soak":
            return 0 if soak.soak(options.minutes, options.seed) else 1
        for workload in list(WORKLOADS) if options.workload == "all" else [options.workload]:
            print(runner.run(workload, options.system, options.repeat, options.size))
    except (runner.MeasurementFailed, WrongResult) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
