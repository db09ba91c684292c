"""What it costs to read a trace back from its line of JSON, against `json.loads` of the same line, which checks nothing.

python benchmarks/record_speed.py
"""

from __future__ import annotations

import argparse
import json
import sys
import timeit
from collections.abc import Callable

from editr1.schema import Judgement, Trace, from_json, to_json

TRACE = Trace("q" * 16, "reasoning " * 200, Judgement((True,) * 10, 6.5), "m", "tv", 0.7, 5, 400, 2000)


def microseconds(work: Callable[[], object], number: int) -> float:
    """The fastest of seven: what else runs on the machine only adds."""
    return min(timeit.repeat(work, number=number, repeat=7)) / number * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=5000, help="readings of each of the seven repeats")
    args = parser.parse_args()
    line = to_json(TRACE)
    read = microseconds(lambda: from_json(Trace, line), args.number)
    plain = microseconds(lambda: json.loads(line), args.number)
    write = microseconds(lambda: to_json(TRACE), args.number)
    print(f"from_json {read:.1f} us, json.loads {plain:.1f} us, to_json {write:.1f} us, for a line of {len(line)} characters")
    result = {
        "measured": "time of from_json(Trace) over json.loads of the same line",
        "value": round(read / plain, 2),
        "n": 7 * args.number,
        "goal": "<= 2",
        "holds": read <= 2 * plain,
    }
    print(json.dumps(result))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
