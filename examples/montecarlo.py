"""Pi by throwing darts: large numpy arrays are made once and read by many tasks of a worker, without copies.

Each array of random points (64 MiB by default) is the output of one `delayed` call; `session.map` then counts the hits
in slices of it. Every counting task also tells what lies below the array it was given: a read-only mapping of the file
in which the worker's store keeps the value. All tasks of one worker name the same file: there is one copy in memory.

    python examples/montecarlo.py                       embedded cluster
    python examples/montecarlo.py --server HOST:PORT    on a running cluster
"""

from __future__ import annotations

import argparse
import math
import sys
from typing import Any

import numpy

from rain.client import Client, TaskException, delayed

MIB = 1 << 20


@delayed
def points(seed: int, mebibytes: int) -> Any:
    """Task: points in the unit square, two columns of floats."""
    return numpy.random.default_rng(seed).random((mebibytes * MIB // 16, 2))


def backing(address: int) -> str:
    """What this process has mapped at an address: a path, or nothing for memory of its own."""
    with open("/proc/self/maps", encoding="ascii") as maps:
        for line in maps:
            fields = line.split(maxsplit=5)
            start, end = (int(bound, 16) for bound in fields[0].split("-"))
            if start <= address < end:
                return fields[5].strip() if len(fields) > 5 else ""
    return ""


def hits(array: Any, part: int, parts: int) -> dict[str, Any]:
    """Task: how many points of a part of the array lie in the circle, and where the array lies."""
    rows = len(array) // parts
    x, y = array[part * rows : (part + 1) * rows].T
    return {
        "hits": int(numpy.count_nonzero(x * x + y * y <= 1.0)),
        "points": rows,
        "writeable": bool(array.flags.writeable),
        "owns memory": bool(array.flags.owndata),
        "backed by": backing(array.__array_interface__["data"][0]),
    }


def estimate(client: Client, arrays: int, mebibytes: int, parts: int) -> list[dict[str, Any]]:
    """Run the graph; one result per part of each array, array by array."""
    with client.new_session("monte carlo") as session:
        made = [points(seed, mebibytes) for seed in range(arrays)]
        counted = session.map(
            hits,
            [array for array in made for _ in range(parts)],
            [part for _ in made for part in range(parts)],
            [parts] * (arrays * parts),
        )
        results: list[dict[str, Any]] = counted.result()
    return results


def main() -> int:
    """Read the command line, compute, check that nothing was copied."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="HOST:PORT", help="a running cluster; default: an embedded one")
    parser.add_argument("--arrays", type=int, default=3, help="number of arrays; default: 3")
    parser.add_argument("--mebibytes", type=int, default=64, help="size of each array in MiB; default: 64")
    parser.add_argument("--parts", type=int, default=8, help="tasks that read each array; default: 8")
    options = parser.parse_args()

    try:
        with Client(options.server) as client:
            results = estimate(client, options.arrays, options.mebibytes, options.parts)
    except TaskException as error:
        print(error.message, file=sys.stderr)
        return 1
    pi = 4 * sum(result["hits"] for result in results) / sum(result["points"] for result in results)
    print(f"pi is about {pi:.4f} (off by {abs(pi - math.pi):.4f}), from {len(results)} tasks")
    copies = [result for result in results if result["writeable"] or result["owns memory"] or not result["backed by"]]
    files = {result["backed by"] for result in results}
    print(f"{len(results) - len(copies)} of them read a mapping; {len(files)} files are mapped")
    for path in sorted(files):
        print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
