"""Kills data stages with SIGKILL at random moments, runs them again, and compares every byte with an undisturbed run.

    python benchmarks/kill_resume.py --kills 50
    python benchmarks/kill_resume.py --kills 50 --shard-sizes 3 11 40      every start with another shard size

With shard sizes the rows are compared in place of the bytes, for a table keeps the size that it was begun with.

The stages are the real ones, on the embedded world; a delay before each model call keeps them busy long enough to be hit.
Files that differ by design are left out: latencies (`*.seconds.jsonl`), lock files and `images/.incoming`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from editr1 import cli

STAGES = {"tasks": "01_tasks", "decompose": "02_principles", "generate": "03_candidates", "score": "04_traces", "inspect": "05_inspections"}
STAGES |= {"pairs": "07_pairs"}
HERE = Path(__file__).stem

RECIPE = f"""
seed: 11
tasks:
  source: {{id: "{HERE}:SlowTasks", options: {{num: NUM_TASKS}}}}
  engine: {{shard_size: 7, progress: false}}
decompose:
  vlm: {{id: "{HERE}:slow_vlm", options: {{role: Decomposer}}}}
  quotas: null
  concurrency: 2
  engine: {{shard_size: 10, progress: false}}
generate:
  editors:
    - {{name: steady, editor: {{id: "{HERE}:slow_editor", options: {{profile: steady}}}}, num_seeds: 2, batch_size: 4}}
    - {{name: sloppy, editor: {{id: "{HERE}:slow_editor", options: {{profile: sloppy}}}}, concurrency: 3}}
  engine: {{shard_size: 20, progress: false}}
score:
  pool:
    - {{name: a, vlm: &annotator {{id: "{HERE}:slow_vlm", options: {{role: Annotator}}}}, prompt_id: compact, num_traces: 2, batch_size: 8}}
    - {{name: b, vlm: *annotator, prompt_id: compact, concurrency: 4}}
  engine: {{shard_size: 60, progress: false}}
inspect:
  inspector: {{vlm: {{id: "{HERE}:slow_vlm", options: {{role: Inspector}}}}, concurrency: 2}}
  second: {{vlm: {{id: "{HERE}:slow_vlm", options: {{role: Inspector}}}}, batch_size: 8, concurrency: 1}}
  engine: {{shard_size: 30, progress: false}}
pairs:
  annotator: "{HERE}:SlowPeople"
  pairs_per_task: 3
  engine: {{shard_size: 20, progress: false}}
"""


def delay() -> None:
    time.sleep(float(os.environ.get("KILL_RESUME_DELAY", "0")))


class Slow:
    """A component that waits before every call, so that a kill finds it at work."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.name = inner.name

    def chat(self, requests: Sequence[Any]) -> list[Any]:
        delay()
        return self.inner.chat(requests)

    def edit(self, requests: Sequence[Any]) -> list[Any]:
        delay()
        return self.inner.edit(requests)


def slow_vlm(role: str) -> Slow:
    from editr1.world import annotators

    return Slow(getattr(annotators, role)())


def slow_editor(profile: str) -> Slow:
    from editr1.world.procedural_editors import ProceduralEditor

    return Slow(ProceduralEditor(profile))


class SlowPeople:
    """The world's people, who wait before every answer."""

    def __init__(self) -> None:
        from editr1.world.annotators import HumanPairs

        self.inner = HumanPairs()
        self.name = self.inner.name

    def label(self, *args: Any) -> Any:
        delay()
        return self.inner.label(*args)


class SlowTasks:
    """A task source that waits before every row."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __iter__(self) -> Iterator[Any]:
        from editr1.world.tasks import TaskSource

        for task in TaskSource(self.num, seed=5):
            delay()
            yield task


def slowly(stage: str, recipe: Path, run_dir: Path, seconds: float, more: Sequence[str]) -> None:
    """The stage with `seconds` of delay before each model call, for a process of its own."""
    os.environ["KILL_RESUME_DELAY"] = str(seconds)
    finish(stage, recipe, run_dir, more)


def finish(stage: str, recipe: Path, run_dir: Path, more: Sequence[str] = ()) -> None:
    """The stage to its end, in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = cli.main([stage, "--config", str(recipe), "--run", str(run_dir), *more])
    if code:
        raise SystemExit(f"stage {stage} failed with code {code}")


def content(run_dir: Path) -> dict[str, bytes]:
    """Every byte of a run that must not depend on kills."""
    files = (path for path in sorted(run_dir.rglob("*")) if path.is_file())
    relative = {str(path.relative_to(run_dir)): path for path in files}
    skip = (".seconds.jsonl", ".lock")
    return {name: path.read_bytes() for name, path in relative.items() if not name.endswith(skip) and ".incoming" not in name}


def rows(run_dir: Path) -> dict[str, bytes]:
    """What the tables of a run say, however their rows lie in shards."""
    import pyarrow.parquet as pq

    found = {}
    for table in sorted(run_dir.glob("0*")):
        parts = [row for path in sorted(table.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]
        found[table.name] = json.dumps(parts, sort_keys=True).encode()
    return found


def other_size(stage: str, draw: random.Random, sizes: Sequence[int]) -> list[str]:
    """Options that start a stage with one of the shard sizes; none where none are given."""
    return ["--set", f"{stage}.engine.shard_size={draw.choice(sizes)}"] if sizes else []


def kill_at_random(stage: str, recipe: Path, run_dir: Path, draw: random.Random, seconds: float, more: Sequence[str]) -> bool:
    """Starts a stage and kills it within forty delays of its table's first sign; False when it was done before that."""
    # a fork has everything imported: most of a kill's time was the start of an interpreter
    process = multiprocessing.get_context("fork").Process(target=slowly, args=(stage, recipe, run_dir, seconds, more))
    process.start()
    folder = run_dir / STAGES[stage]
    while process.is_alive() and not folder.exists():
        time.sleep(0.002)
    process.join(timeout=draw.uniform(0, 40 * seconds))
    if killed := process.is_alive():
        process.kill()
    process.join()
    if not killed and process.exitcode:
        raise SystemExit(f"stage {stage} failed with code {process.exitcode}")
    return killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills over all stages")
    parser.add_argument("--tasks", type=int, default=60, help="size of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before each model call of a stage that is to be killed")
    parser.add_argument("--shard-sizes", type=int, nargs="*", default=[], help="every start takes one of these, drawn by seed")
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        recipe = Path(name) / "kill.yaml"
        recipe.write_text(RECIPE.replace("NUM_TASKS", str(args.tasks)))
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        kills = dict.fromkeys(STAGES, 0)
        with tqdm(total=args.kills, desc="kills", unit="kill") as bar:
            for number, stage in enumerate(STAGES):
                finish(stage, recipe, whole)
                wanted = args.kills // len(STAGES) + (number < args.kills % len(STAGES))
                while kills[stage] < wanted:
                    if kill_at_random(stage, recipe, killed, draw, args.delay, other_size(stage, draw, args.shard_sizes)):
                        kills[stage] += 1
                        bar.update()
                    else:  # it came through: once more from its beginning
                        for table in killed.glob(f"{STAGES[stage][:3]}*"):
                            shutil.rmtree(table)
                finish(stage, recipe, killed, other_size(stage, draw, args.shard_sizes))
        look = rows if args.shard_sizes else content
        expected, found = look(whole), look(killed)
        different = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))
    for stage, count in kills.items():
        print(f"{stage:<10} killed {count} times")
    for key in different:
        print(f"differs: {key}")
    result = {
        "measured": f"{'tables' if args.shard_sizes else 'files'} that differ after SIGKILL at random moments and a rerun",
        "value": len(different),
        "n": sum(kills.values()),
        "files": len(expected),
        "goal": "0",
        "holds": not different,
    }
    print(json.dumps(result))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
