"""Reads preferences from a file of the user's own.

CSV, JSONL or Parquet, one comparison a row, in one of two forms:

    a, b, label[, annotator]                        a and b are candidate ids of the run
    source, instruction, a, b, label[, annotator]   source, a and b are image files beside the preference file

For the second form, run `tasks` and `decompose` on the same sources first if the pairs shall carry principles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from editr1.errors import ChangedInputsError, DataError
from editr1.schema import stable_id
from editr1.store import Origin, Origins, check_columns, read_inside, read_table, stamp_inside
from editr1.text import whole_text

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
    source: str = ""
    """Name of the source's file, beside those of a and b; empty when a and b are candidate ids."""
    images: tuple[bytes, ...] = ()
    """Encoded source, a and b, where they were needed."""
    origin: Origin | None = None
    fault: str = ""
    """Why the row cannot be used; `code: detail`."""

    @property
    def key(self) -> str:
        return f"row-{self.number:08d}"


def read_pair_rows(path: Path, origins: Origins) -> Iterator[PairRow]:
    """The comparisons of a file, bad ones included, with their pictures where the table has them not yet.

    Raises DataError for a file that is missing, of another kind, or without the columns.
    """
    checked = False
    for number, row in enumerate(read_table(path)):
        if isinstance(row, dict) and not checked:
            check_columns(path, row, ("a", "b", "label"), ("annotator", "source", "instruction"))
            checked = True
        yield _load(PairRow(number, fault=row) if isinstance(row, str) else _row(number, row), path.parent, origins)


def _load(row: PairRow, root: Path, origins: Origins) -> PairRow:
    words = stable_id(row.a, row.b, row.label, row.annotator, row.instruction, row.source, whole_text(row.fault))
    names = [name for name in (row.source, row.a, row.b) if row.source and not row.fault]
    stamps = [stamp_inside(root, name) for name in names]
    stamp = " ".join(stamps) if all(stamps) else ""
    where = f"row {row.number + 1}"
    try:
        found = origins.load(row.key, words, stamp, lambda: tuple(read_inside(root, name) for name in names), where)
    except ChangedInputsError:
        raise
    except DataError as error:
        return replace(row, fault=f"bad_image: {error}", origin=origins.load(row.key, words, "", lambda: (), where).origin)
    return replace(row, images=found.value or (), origin=found.origin)


def _row(number: int, row: dict[str, Any]) -> PairRow:
    values = {key: row.get(key) or "" for key in ("a", "b", "label", "annotator", "instruction", "source")}
    odd = [key for key, value in values.items() if not isinstance(value, str)]
    if odd:
        return PairRow(number, fault=f"bad_value: {odd[0]} is {row[odd[0]]!r}, expected a text")
    needed = ["a", "b", "label"] + (["instruction"] if values["source"] else [])
    missing = [key for key in needed if not values[key].strip()]
    if missing:
        return PairRow(number, fault=f"missing_value: {missing[0]}")
    label, instruction = values["label"].strip().lower(), values["instruction"].strip()
    return PairRow(number, values["a"], values["b"], label, values["annotator"], instruction, values["source"])
