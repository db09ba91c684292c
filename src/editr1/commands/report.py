"""Write the run's report: one HTML file that works offline."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")


def main(args: argparse.Namespace) -> int:
    from editr1.report import write_report

    print(write_report(args.run))  # noqa: T201
    return 0
