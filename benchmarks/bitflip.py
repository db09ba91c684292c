"""Flips single bits in finished shards and reads the run: every flip must be noticed, in one line, by the name of its shard.

    python benchmarks/bitflip.py --flips 2000

A run of the embedded world is made by the real stages; each flip is made in one shard, the whole table is read, and the bit is put back.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from editr1 import cli
from editr1.errors import DataError
from editr1.store import TABLES, Run

STAGES = ("tasks", "decompose", "generate", "score", "inspect", "pairs")
RECIPE = Path(__file__).parents[1] / "tests" / "stages" / "data_loop.yaml"


def make(run_dir: Path, num_tasks: int) -> Run:
    """The data stages on the embedded world."""
    for stage in STAGES:
        with contextlib.redirect_stdout(io.StringIO()):
            command = [stage, "--config", str(RECIPE), "--run", str(run_dir), "--set", f"tasks.source.options.num={num_tasks}"]
            if code := cli.main(command):
                raise SystemExit(f"stage {stage} failed with code {code}")
    return Run.open(run_dir)


def flip(run: Run, path: Path, draw: random.Random, expected: list[object]) -> str:
    """What came of one flipped bit: `noticed`, `same rows`, or what should never be."""
    good = path.read_bytes()
    bad = bytearray(good)
    bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
    path.write_bytes(bad)
    try:
        found = list(run.read(path.parent.name))
    except DataError as error:
        return "noticed" if path.name in str(error) and "\n" not in str(error) else "noticed without the shard's name"
    except Exception as error:  # noqa: BLE001  # this is what is counted
        return f"traceback: {type(error).__name__}"
    finally:
        path.write_bytes(good)
    return "same rows" if found == expected else "silently different"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=2000)
    parser.add_argument("--tasks", type=int, default=12, help="size of the run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        run = make(Path(name) / "run", args.tasks)
        shards = [path for table in TABLES for path in sorted((run.dir / table).glob("part-*.parquet"))]
        rows = {table: list(run.read(table)) for table in TABLES}
        chosen = (draw.choice(shards) for _ in range(args.flips))
        seen = Counter(flip(run, path, draw, rows[path.parent.name]) for path in tqdm(chosen, total=args.flips, unit="flip"))
    for outcome, count in seen.most_common():
        print(f"{outcome:<32}{count:>6}")
    bad = args.flips - seen["noticed"]
    result = {
        "measured": "single-bit flips in finished shards that were not noticed by name, or ended in a traceback",
        "value": bad,
        "n": args.flips,
        "shards": len(shards),
        "goal": "0",
        "holds": not bad,
    }
    print(json.dumps(result))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
