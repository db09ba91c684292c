"""What people wait for before anything happens: `import editr1`, `editr1 --help`, and the next pair of a large labelling study.

    python benchmarks/start_up.py

The last line is one JSON object: seconds of the import, the best of five fresh processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from editr1.annotate.items import Item
from editr1.annotate.queue import Overlap, Queue
from editr1.annotate.votes import Vote
from editr1.schema import Candidate, EditTask, ImageRef

GOAL_IMPORT = 0.3  # seconds
COMMAND = "import contextlib; from editr1.cli import main\nwith contextlib.suppress(SystemExit): main({})\n"
REPEATS = 5


def fresh(code: str) -> float:
    """Seconds of a statement in a new process, interpreter left out; the best of several."""
    timed = f"import time; start = time.perf_counter(); {code}\nprint(time.perf_counter() - start, file=__import__('sys').stderr)"
    runs = [subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True) for _ in range(REPEATS)]
    return min(float(done.stderr.strip().splitlines()[-1]) for done in runs)


def next_pair(num: int = 10_000, answered: int = 9_000, asked: int = 10) -> float:
    """Seconds until a labeller has the next of many pairs."""
    picture = ImageRef("0" * 64)
    task = EditTask("task", picture, "make it red")
    candidates = [tuple(Candidate(f"{side}{i}", "task", picture, "editor", 0) for side in "ab") for i in range(num)]
    items = [Item(f"item{i}", task, (), a, b, None) for i, (a, b) in enumerate(candidates)]
    queue = Queue(items, [Vote(f"item{i}", "bob", "a", False, 1.0) for i in range(answered)], Overlap(0.1))
    queue.next("ada", 4)
    start = time.perf_counter()
    for _ in range(asked):
        queue.answered(Vote(queue.next("ada", 4)[0].id, "ada", "a", False, 1.0))
        queue.remaining("ada")
    return (time.perf_counter() - start) / asked


def main() -> None:
    """Prints the table and the line."""
    seconds = fresh("import editr1")
    print(f"import editr1              {seconds:.3f} s")
    for words in ("--help", "compare --help", "sft --help"):
        print(f"editr1 {words:<19} {fresh(COMMAND.format(words.split())):.3f} s")
    print(f"next of 10,000 pairs       {next_pair():.4f} s")
    line = {"what": "import editr1", "value": round(seconds, 4), "unit": "s", "n": REPEATS, "goal": f"below {GOAL_IMPORT}"}
    print(json.dumps({**line, "holds": seconds < GOAL_IMPORT}))


if __name__ == "__main__":
    main()
