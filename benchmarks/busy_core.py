"""How much slower a training step becomes beside one other busy program, on all cores of this machine.

    python benchmarks/busy_core.py [--steps 12]

The embedded verifier's forward and backward in a process of its own, alone and beside a program that computes all the time; with threads
that wait asleep, as `editr1` starts them, and with OpenMP's own setting. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

GOAL = 3.0

STEP = """
import statistics, sys, time
from pathlib import Path
import editr1, torch
from editr1.training.model import load_model
from editr1.training.options import Trained

torch.set_num_threads(int(sys.argv[2]))
model = load_model(Path(editr1.__file__).parent / "world" / "weights" / "verifier_small", Trained())
ids = torch.randint(10, 60, (16, 160))
seconds = []
for _ in range(int(sys.argv[1])):
    begin = time.perf_counter()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    seconds.append(time.perf_counter() - begin)
print(statistics.median(seconds[1:]))
"""


def step(policy: str | None, steps: int, cores: int) -> float:
    """Median seconds of a step."""
    environment = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    command = [sys.executable, "-c", STEP, str(steps), str(cores)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    seconds = {}
    for name, policy in (("asleep", "passive"), ("spinning", None)):
        seconds[f"{name}, alone"] = step(policy, args.steps, cores)
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                seconds[f"{name}, beside a busy program"] = step(policy, args.steps, cores)
            finally:
                busy.kill()
    for name, value in seconds.items():
        print(f"{name:35s} {value:8.3f} s a step")
    slower = seconds["asleep, beside a busy program"] / seconds["asleep, alone"]
    what = "step beside a busy program / step alone"
    print(json.dumps({"what": what, "value": round(slower, 2), "n": args.steps - 1, "goal": GOAL, "holds": slower <= GOAL}))


if __name__ == "__main__":
    main()
