"""Do our own recipes run on one 80 GB card, at real size, and how fast? No network, random weights, real classes.

    python benchmarks/gpu_check.py [--minutes 6] [--parts kontext,klein] [--json gpu.json]
    python benchmarks/gpu_check.py --tiny            # the same at a size for a CPU: tests the check, not the machine

Each part is a process of its own with a limit of its own: a crash or a hang ends the part, not the check. Results are printed as they
come; the goals were stated before. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for a card must not start CUDA here: parts are forked
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "benchmarks")]


def run_part(name: str, tiny: bool, rate: float, out: Path) -> None:
    """Runs one part in this process; rows go to the terminal and, as JSON lines, to `out`."""
    import logging

    import _gpu_parts

    os.setsid()  # so that what the part started ends with it
    faulthandler.register(signal.SIGUSR1)  # asked for when the part outlasts its limit
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)

    def say(row: dict[str, Any]) -> None:
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"part": name, **row}) + "\n")
        print(shown(row), flush=True)

    try:
        _gpu_parts.PARTS[name][1](say, tiny, rate)
    except BaseException as error:  # noqa: BLE001  (a part reports whatever ends it)
        where = traceback.format_exc().strip().splitlines()
        say(_gpu_parts.row(f"{name}: {type(error).__name__}", str(error)[:300], "runs", False, trace=where[-8:]))
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # a part's threads and process groups die with it


def shown(row: dict[str, Any]) -> str:
    """A row for people."""
    verdict = {True: "holds", False: "FAILS", None: ""}[row["holds"]]
    value = f"{row['value']:.4g}" if isinstance(row["value"], float) else str(row["value"])
    return f"  {row['what']:<48} {value:>12}  {row['goal']:<28} {verdict}"


def isolated(name: str, limit: float, args: argparse.Namespace, rate: float, out: Path, forked: bool) -> str | None:
    """One part in a process of its own; None, or why it did not end by itself."""
    if forked:
        process = multiprocessing.get_context("fork").Process(target=run_part, args=(name, args.tiny, rate, out))
        process.start()
        process.join(limit)
        if process.is_alive():
            assert process.pid is not None
            end(process.pid)
            process.join()
            return f"stopped after {limit:.0f} s"
        return f"died of signal {-process.exitcode}" if process.exitcode is not None and process.exitcode < 0 else None
    command = [sys.executable, __file__, "--one", name, "--rate", str(rate), "--rows", str(out), *(["--tiny"] if args.tiny else [])]
    with subprocess.Popen(command) as started:
        try:
            code = started.wait(limit + 20)  # importing takes its time
        except subprocess.TimeoutExpired:
            end(started.pid)
            return f"stopped after {limit:.0f} s"
    return f"died of signal {-code}" if code < 0 else None


def end(process: int) -> None:
    """Ends a part that outlasted its limit, and all that it started; its threads say first where they were."""
    os.kill(process, signal.SIGUSR1)
    time.sleep(1.0)
    os.killpg(process, signal.SIGKILL)


def can_fork() -> bool:
    """Imports what all parts need once; False where that started CUDA, which does not survive a fork."""
    import _gpu_parts  # noqa: F401
    import diffusers  # noqa: F401
    import torch
    import transformers  # noqa: F401
    import trl  # noqa: F401

    return not torch.cuda.is_initialized()


def machine() -> dict[str, Any]:
    """Device, versions and commit."""
    import importlib.metadata

    import torch

    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "diffusers", "trl", "peft", "accelerate")}
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    listing = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, check=False) \
        if torch.cuda.is_available() else None  # fmt: skip
    return {"device": listing.stdout.strip() if listing else "cpu", "commit": done.stdout.strip() or "unknown", **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--parts", help="some of the parts, by comma")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_part(args.one, args.tiny, args.rate, args.rows)
    begin = time.monotonic()
    forked = can_fork()
    from _gpu_parts import PARTS, row

    seen = machine()
    print(json.dumps(seen), flush=True)
    chosen = args.parts.split(",") if args.parts else list(PARTS)
    rate, spent = 0.0, {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        for name in chosen:
            left = args.minutes * 60 - (time.monotonic() - begin)
            if left < 10:
                add(out, name, row(f"{name}: not run", "no time left", "runs", False))
                continue
            print(f"{name}  ({time.monotonic() - begin:.0f} s)", flush=True)
            since = time.monotonic()
            limit = min(left, 600.0 if args.tiny else PARTS[name][0])
            trouble = isolated(name, limit, args, rate, out, forked)
            if trouble:
                add(out, name, row(f"{name}: {trouble}", None, "runs", False))
            if name == "matrix" and forked and "initializ" in read(out, name):
                forked = False
                isolated(name, limit, args, rate, out, forked)
            spent[name] = round(time.monotonic() - since, 1)
            rate = max([rate, *(r["rate"] for r in rows_of(out) if "rate" in r)])
        rows = rows_of(out)
    finish(args, seen, rows, spent, time.monotonic() - begin)


def add(out: Path, part: str, row: dict[str, Any]) -> None:
    """A row of the parent's own."""
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"part": part, **row}) + "\n")
    print(shown(row), flush=True)


def rows_of(out: Path) -> list[dict[str, Any]]:
    """What the parts said so far."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []


def read(out: Path, part: str) -> str:
    """Everything that a part said, as text."""
    return json.dumps([row for row in rows_of(out) if row["part"] == part])


def finish(args: argparse.Namespace, seen: dict[str, Any], rows: list[dict[str, Any]], spent: dict[str, float], total: float) -> None:
    """The table and the line of JSON."""
    print("\n| part | what | value | goal | holds |\n|---|---|---|---|---|")
    for r in rows:
        verdict = {True: "yes", False: "NO", None: ""}[r["holds"]]
        print(f"| {r['part']} | {r['what']} | {r['value']} | {r['goal']} | {verdict} |")
    missed = [r["what"] for r in rows if r["holds"] is False]
    result = {
        "measure": "goals that hold on one card" + (" (tiny)" if args.tiny else ""), "value": sum(r["holds"] is True for r in rows),
        "n": sum(r["holds"] is not None for r in rows), "goal": "all", "holds": not missed, "missed": missed,
        "seconds": round(total, 1), "seconds_a_part": spent, **seen, "rows": rows,
    }  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
