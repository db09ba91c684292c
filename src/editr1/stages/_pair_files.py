"""Reads preferences from a file of the user's own.

CSV or JSONL, one comparison a row, in one of two forms:

    a, b, label[, annotator]                        a and b are candidate ids of the run
    source, instruction, a, b, label[, annotator]   source, a and b are image files beside the preference file

For the second form, run `tasks` and `decompose` on the same sources first if the pairs shall carry principles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editr1.errors import DataError
from editr1.store import read_inside, read_table

LABELS = ("a", "b", "same")


@dataclass(frozen=True, slots=True)
class PairRow:
    """One comparison as the file gives it."""

    number: int
    """Row number from 0."""
    a: str = ""
    b: str = ""
    label: str = ""
    annotator: str = ""
    instruction: str = ""
    images: tuple[bytes, bytes, bytes] | None = None
    """Encoded source, a and b; None when a and b are candidate ids."""
    fault: str = ""
    """Why the row cannot be used; `code: detail`."""


def read_pair_rows(path: Path) -> Iterator[PairRow]:
    """The comparisons of a file, bad ones included. Raises DataError for a file that is missing or no CSV / JSONL."""
    for number, row in enumerate(read_table(path)):
        yield PairRow(number, fault=row) if isinstance(row, str) else _row(number, row, path.parent)


def _row(number: int, row: dict[str, Any], root: Path) -> PairRow:
    values = {key: row.get(key) or "" for key in ("a", "b", "label", "annotator", "instruction", "source")}
    odd = [key for key, value in values.items() if not isinstance(value, str)]
    if odd:
        return PairRow(number, fault=f"bad_value: {odd[0]} is {row[odd[0]]!r}, expected a text")
    needed = ["a", "b", "label"] + (["instruction"] if values["source"] else [])
    missing = [key for key in needed if not values[key].strip()]
    if missing:
        return PairRow(number, fault=f"missing_value: {missing[0]}")
    plain = PairRow(number, values["a"], values["b"], values["label"].strip().lower(), values["annotator"], values["instruction"].strip())
    if not values["source"]:
        return plain
    try:
        images = tuple(read_inside(root, values[key]) for key in ("source", "a", "b"))
    except DataError as error:
        return PairRow(number, fault=f"bad_image: {error}")
    return PairRow(number, plain.a, plain.b, plain.label, plain.annotator, plain.instruction, (images[0], images[1], images[2]))
