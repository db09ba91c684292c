"""Write a run's training data as rows of ms-swift, LLaMA-Factory or TRL.

editr1 export-rows runs/demo sft.jsonl
editr1 export-rows runs/demo dpo.jsonl --what dpo --as sharegpt
editr1 export-rows runs/demo pairs.jsonl --what pairs --as trl
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory")
    parser.add_argument("output", type=Path, metavar="FILE", help="JSONL file to write")
    parser.add_argument(
        "--what",
        choices=("sft", "dpo", "pairs"),
        default="sft",
        help="kept traces; kept traces before ones that misread the edit; people's choices (default: sft)",
    )
    parser.add_argument(
        "--as",
        dest="form",
        choices=("messages", "sharegpt", "trl"),
        default="messages",
        help="ms-swift and LLaMA-Factory; LLaMA-Factory; TRL",
    )
    parser.add_argument("--prompt", metavar="ID", help="score prompt of sft and dpo rows (default: the traces' own)")


def main(args: argparse.Namespace) -> int:
    from editr1.export_rows import export_rows
    from editr1.store import Run

    count = export_rows(Run.open(args.run, create=False), args.output, args.what, args.form, args.prompt)
    print(f"{args.output}: {count} rows")  # noqa: T201
    return 0
