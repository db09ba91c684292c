"""Make the numbers of stored judge outputs again, with intervals and counts, without a model.

Knows GEdit's score CSVs, ImgEdit's result.json, GenAI-Bench's pairwise.json and VIEScore's answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from editr1.commands._metrics import add_output_arguments, show
from editr1.measure.recognise import KNOWN, aggregate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=KNOWN)
    parser.add_argument(
        "--basic-edit", type=Path, metavar="FILE", help="ImgEdit's basic_edit.json, where it does not lie beside result.json"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default 0)")
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    show(aggregate(args.files, args.basic_edit, args.seed), args)
    return 0
