"""Benchmarks whose edits an editor makes: the tasks, and where each picture belongs so that `score-folder` reads the folder.

gedit      <out>/fullset/<task>/<language>/<key>.png and <key>_SRCIMG.png
imgedit    <out>/<key>.png
folder     <out>/edits.jsonl, edits/, sources/; tasks from an edits.jsonl whose rows need no `edited`
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.bench import gedit as gedit_bench
from editr1.bench import imgedit as imgedit_bench
from editr1.bench.base import require_folder
from editr1.bench.folder import LIST, read_list
from editr1.errors import DataError
from editr1.measure.rows import read_inside, read_rows, to_bytes
from editr1.pictures import decode_image
from editr1.schema import stable_id

NAMES = ("folder", "gedit", "imgedit")


@dataclass(frozen=True, slots=True)
class EditOrder:
    """One edit to make."""

    key: str
    """Unique within the set, and the same in every run: the seed follows it."""
    instruction: str
    load: Callable[[], Image.Image]
    """The source picture; raises DataError for a missing or broken one."""
    edited: str
    """Where the edit belongs, relative to the folder of the editor's edits."""
    source: str | None = None
    """Where a copy of the source belongs, where the layout has one."""


@dataclass(frozen=True)
class EditSet:
    """The tasks of a benchmark."""

    orders: tuple[EditOrder, ...]
    lists: Mapping[str, str] = field(default_factory=dict)
    """Text files that belong beside the pictures: {name: content}."""


def gedit(root: Path | str | None = None, language: str = "en", partial_set: bool = False) -> EditSet:
    """GEdit-Bench in one language. Raises DataError as `gedit.build` does."""
    gedit_bench.check_language(language, "gedit")
    folder = require_folder(root, "gedit", gedit_bench.DOWNLOAD)
    table = read_rows(folder, (*gedit_bench.DATA_COLUMNS, "input_image"), "gedit")
    instructions = table["instruction"]
    orders = []
    for i, row_id in gedit_bench.numbered(table, language, partial_set):
        task, _, key = row_id
        name = "/".join(row_id)
        place = f"fullset/{task}/{language}/{key}"
        load = partial(_from_table, table, i, folder, f"gedit {name}")
        orders.append(EditOrder(name, instructions[i], load, f"{place}.png", f"{place}_SRCIMG.png"))
    return EditSet(tuple(orders))


def imgedit(root: Path | str | None = None) -> EditSet:
    """The basic part of ImgEdit-Bench. Raises DataError as `imgedit.build` does."""
    path = imgedit_bench.find_list(root)
    return EditSet(
        tuple(
            EditOrder(key, task.instruction, partial(_from_file, path.parent, task.picture, f"imgedit {key}"), f"{key}.png")
            for key, task in imgedit_bench.read_tasks(path).items()
        )
    )


def folder(root: Path | str | None = None) -> EditSet:
    """Tasks of one's own. Raises DataError for a missing or broken list."""
    place = require_folder(root, "folder", f"make a folder with a file {LIST}")
    if not (place / LIST).is_file():
        raise DataError(f"{place} has no {LIST}; write one JSON object a line with source and instruction")
    orders, lines = [], []
    for row in read_list(place / LIST, ("source", "instruction")):
        edited, source = f"edits/{stable_id(row.key)}.png", f"sources/{stable_id(row.source)}.png"
        orders.append(EditOrder(row.key, row.instruction, partial(_from_file, place, row.source, f"folder {row.key}"), edited, source))
        line = {"id": row.key, "source": source, "edited": edited, "instruction": row.instruction, "category": row.category}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return EditSet(tuple(orders), {LIST: "".join(lines)})


def _from_table(table: Any, index: int, folder: Path, where: str) -> Image.Image:
    return decode_image(to_bytes(table[index]["input_image"], folder, where), where)


def _from_file(folder: Path, name: str, where: str) -> Image.Image:
    return decode_image(read_inside(folder, name, where), where)
