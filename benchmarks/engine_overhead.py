"""What the data engine costs when models cost nothing: rows a second, and resident memory over the whole run.

    python benchmarks/engine_overhead.py --quadruples 2000000

Synthetic tables of the real schema go through the real joins, shards and files: principles, candidates (ten a task), one trace a
quadruple of a realistic length, and a full reading of the traces joined to their quadruples. The stage's function only
fills in a record. The slowest of the timed passes counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from editr1.schema import Candidate, EditTask, ImageRef, Judgement, Principle, Quadruple, TaskPrinciples, Trace
from editr1.store import Engine, Lane, Run, Work, quadruples, with_traces

T = TypeVar("T")

PER_TASK = 10
CATEGORIES = ("follow", "follow", "follow", "keep", "keep", "keep", "keep", "quality", "quality", "quality")
PRINCIPLES = tuple(
    Principle(f"Is requirement number {i} met in the edited picture as it was asked for?", c) for i, c in enumerate(CATEGORIES)
)
TEXT = "The edited picture shows the change at the place that was asked for, and the rest stays as it was. " * 8
OUTCOME = Judgement((True,) * len(PRINCIPLES), 7.5)


def ref(name: str) -> ImageRef:
    return ImageRef(hashlib.sha256(name.encode()).hexdigest(), "png", 1024, 1024)


def tasks(num: int) -> Iterator[tuple[str, TaskPrinciples]]:
    for i in range(num):
        task = EditTask.make(ref(f"source {i}"), f"Instruction number {i}: put the small red ball behind the second chair")
        yield task.id, TaskPrinciples(task, PRINCIPLES, "synthetic")


def candidates(run: Run) -> Iterator[tuple[str, Candidate]]:
    for row in run.read("02_principles"):
        for seed in range(PER_TASK):
            candidate = Candidate.make(row.task.id, ref(f"{row.task.id} {seed}"), "synthetic", seed)
            yield candidate.id, candidate


def identity(batch: Sequence[Any]) -> Sequence[Any]:
    return batch


def traces(batch: Sequence[Quadruple]) -> list[Trace]:
    return [Trace(q.id, TEXT, OUTCOME, "synthetic", "tv", 0.7, 1, 200, 1500, 0.5) for q in batch]


class Memory:
    """Resident memory of this process, sampled twice a second."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.5):
            self.samples.append(resident_bytes())

    @property
    def mebibytes(self) -> tuple[float, float, float]:
        """Mean of the second and of the last tenth of the run, and the peak."""
        tenth = max(1, len(self.samples) // 10)
        early, late = self.samples[tenth : 2 * tenth] or self.samples, self.samples[-tenth:]
        return sum(early) / len(early) / 2**20, sum(late) / len(late) / 2**20, max(self.samples) / 2**20


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def reported(name: str, rows: Iterable[T], num_rows: int) -> Iterator[T]:
    """The rows as they are; every tenth of them prints a line."""
    begin = time.perf_counter()
    for number, row in enumerate(rows, start=1):
        yield row
        if number % max(1, num_rows // 10) == 0:
            rate = number / (time.perf_counter() - begin)
            print(f"  {name}: {number:,} of {num_rows:,}, {rate:,.0f} rows/s, {resident_bytes() / 2**20:,.0f} MiB resident", flush=True)


def timed(name: str, num_rows: int, work: Callable[[], object], rates: dict[str, float]) -> None:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    work()
    rates[name] = num_rows / (time.perf_counter() - begin)
    cpu = num_rows / (time.process_time() - begin_cpu)  # on a busy machine this one says what the engine costs
    print(f"{name:<28}{num_rows:>12,} rows {rates[name]:>10,.0f} rows/s {cpu:>10,.0f} rows per CPU second", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quadruples", type=int, default=200_000)
    parser.add_argument("--concurrency", type=int, default=2, help="threads of the trace pass")
    args = parser.parse_args()
    num_tasks = args.quadruples // PER_TASK
    num = num_tasks * PER_TASK
    rates: dict[str, float] = {}
    engine = Engine(progress=False)
    with tempfile.TemporaryDirectory() as name, Memory() as memory:
        run = Run.open(Path(name) / "run")
        plain = Work(lambda: identity, {"": Lane(batch_size=64)})
        work = Work(lambda: traces, {"": Lane(batch_size=16, concurrency=args.concurrency)}, timed=True)

        def write_candidates() -> None:
            items = reported("write candidates", candidates(run), num)
            run.process("03_candidates", items, plain, settings={}, engine=engine)

        def write_traces(label: str = "join, write traces") -> None:
            items = reported(label, ((q.id, q) for q in quadruples(run)), num)
            run.process("04_traces", items, work, settings={}, engine=engine)

        def read_traces() -> None:
            found = sum(len(said) for _, said in reported("read traces, joined", with_traces(run), num))
            assert found == num, f"{found} traces of {num}"

        run.process("02_principles", tasks(num_tasks), plain, settings={}, engine=engine)
        timed("write candidates", num, write_candidates, rates)
        timed("join, write traces", num, write_traces, rates)
        timed("run the finished stage again", num, lambda: write_traces("run again"), rates)
        timed("read traces, joined", num, read_traces, rates)
    early, late, peak = memory.mebibytes
    print(f"resident memory: {early:,.0f} MiB early, {late:,.0f} MiB late, {peak:,.0f} MiB at most")
    slowest = min(rates.values())
    result = {
        "measured": "rows a second of the slowest engine pass without model work",
        "value": round(slowest),
        "n": num,
        "peak_mib": round(peak),
        "late_minus_early_mib": round(late - early),
        "goal": ">= 20000 rows/s, peak < 2048 MiB",
        "holds": slowest >= 20_000 and peak < 2048,
    }
    print(json.dumps(result))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
