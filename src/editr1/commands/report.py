"""Write the report of a run, or of several side by side: one HTML file that works offline.

With --watch the page is written again whenever a run has changed, and shows itself anew, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

SHARE = 0.2  # ours: of the time that may go into writing the page while a run needs the machine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directory; several are put side by side")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page (default: report.html in RUN; of several, comparison.html in the first)"
    )
    parser.add_argument(
        "--watch", type=_seconds, nargs="?", const=10, default=0, metavar="SECONDS", help="follow runs that go on (default: every 10 s)"
    )


def main(args: argparse.Namespace) -> int:
    seen = _state(args.runs)
    print(_write(args, args.watch))  # noqa: T201
    try:
        while args.watch:
            time.sleep(args.watch)
            if (now := _state(args.runs)) != seen:
                seen, start = now, time.monotonic()
                _write(args, args.watch)
                time.sleep((time.monotonic() - start) * (1 / SHARE - 1))
    except KeyboardInterrupt:
        _write(args, 0)  # the page that stays does not load itself again
    return 0


def _write(args: argparse.Namespace, refresh: int) -> Path:
    from editr1.report import write_report

    path, damage = write_report(*args.runs, output=args.output, refresh=refresh)
    for line in damage:
        print(f"editr1 report: {line}", file=sys.stderr)  # noqa: T201
    return path


def _state(runs: Sequence[Path]) -> set[tuple[str, int, int]]:
    """What changes when a run goes on: its files with their sizes and times. Pictures are left out, for rows name them."""
    found = set()
    for run in runs:
        for folder, folders, names in os.walk(run):
            folders[:] = [name for name in folders if name != "images"]
            for path in (Path(folder, name) for name in names if not name.startswith(("report.html", "comparison.html", ".lock"))):
                try:
                    about = path.stat()
                except FileNotFoundError:  # renamed meanwhile
                    continue
                found.add((str(path), about.st_size, about.st_mtime_ns))
    return found


def _seconds(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected whole seconds, at least 1")
    return int(text)
