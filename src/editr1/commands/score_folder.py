"""Score a folder of edits: GEdit's layout, ImgEdit's layout, or a plain folder with an edits.jsonl or edits.csv.

editr1 score-folder OUT/kontext --root GEDIT_DATA --run RUN --judge viescore --model gpt-4.1
editr1 score-folder my_edits --run RUN --judge rrm --checkpoint checkpoints/rrm
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from editr1.bench.folder import LISTS
from editr1.commands._judge import options
from editr1.commands._judged_table import add_judging_arguments, judge_and_show
from editr1.commands._metrics import add_output_arguments
from editr1.config import Component, create
from editr1.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="local copy of the benchmark whose edits these are (instructions, sources)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="option of the layout, such as language=cn")
    add_judging_arguments(parser)
    add_output_arguments(parser)


def main(args: argparse.Namespace) -> int:
    name, chosen = recognise(args.folder, args.root)
    chosen |= options(args.set)
    benchmark = create("bench", Component(name, chosen))
    return judge_and_show(benchmark, {"name": name, **{key: str(value) for key, value in chosen.items()}}, args)


def recognise(folder: Path, root: Path | None) -> tuple[str, dict[str, Any]]:
    """The benchmark id of the folder's layout and its options. Raises DataError for a folder of no known layout."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    if any((folder / name).is_file() for name in LISTS):
        return "folder", {"root": folder}
    if (folder / "fullset").is_dir():
        return "gedit", {"root": root, "edits": folder}
    if root is not None and any(root.rglob("basic_edit.json")):
        return "imgedit", {"root": root, "edits": folder}
    raise DataError(
        f"{folder} has no known layout: expected {' or '.join(LISTS)}, GEdit's fullset/<task>/<language>/, "
        "or ImgEdit's <key>.png with --root naming the folder of basic_edit.json"
    )
