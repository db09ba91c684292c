"""Makes the edits of a benchmark with any editor, one file each: what is there is kept, what is missing is made.

A folder holds the edits of one editor with one seed; `editor.json` says whose, and another editor is refused. A picture is whole or
absent, so a killed run continues. What could not be made is listed in `missing.jsonl`, counts as unscored when the folder is judged,
and is tried again by the next run.

What a judge said of every edit is written as a table with names (CSV and Parquet) and as a page of the worst and the best.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from editr1.bench.base import EditItem, EditOrder, EditSet, JudgedEdit
from editr1.editors.base import Editor, EditRequest
from editr1.errors import BackendError, ContentRefusedError, DataError
from editr1.pictures import encode_picture
from editr1.records import arrow_type, hints
from editr1.schema import derive_seed, pictures_of
from editr1.store._files import exclusive, read_json, write_atomic, write_json
from editr1.store.engine import FailureBudget
from editr1.text import as_cell

SETTINGS = "editor.json"
MISSING = "missing.jsonl"


@dataclasses.dataclass(frozen=True, slots=True)
class EditCounts:
    """What a folder holds after a run: num_wanted = num_kept + num_made + all of `failed`."""

    num_wanted: int
    num_kept: int
    """Edits that were there before."""
    num_made: int
    failed: dict[str, int]
    """Edits that are missing, by reason: image, refused, backend."""

    def __str__(self) -> str:
        failed = ", ".join(f"{reason} {count}" for reason, count in sorted(self.failed.items()))
        return f"{self.num_wanted} edits: {self.num_kept} there, {self.num_made} made, {sum(self.failed.values())} missing" + (
            f" ({failed})" if failed else ""
        )


def missing_orders(edit_set: EditSet, out: Path) -> list[EditOrder]:
    """The edits that the folder does not have, or whose copy of the source it does not have."""
    return [order for order in edit_set.orders if not all((out / name).is_file() for name in (order.edited, order.source) if name)]


def refuse_foreign(out: Path, settings: Mapping[str, Any]) -> None:
    """Raises DataError when the folder holds another editor's edits, or files and does not say whose."""
    path = out / SETTINGS
    wanted = json.loads(json.dumps(settings))
    if path.exists():
        found = read_json(path)
        changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        if changed:
            name = changed[0]
            raise DataError(f"{out} holds edits made with {name}={found.get(name)!r}, now it is {wanted.get(name)!r}; choose another --out")
    elif out.exists() and any(entry.name != ".lock" for entry in out.iterdir()):
        raise DataError(f"{out} is not empty and has no {SETTINGS}, so whose edits it holds is unknown; choose another --out")


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Makes the folder this editor's. Raises DataError as `refuse_foreign` does."""
    refuse_foreign(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS, settings)


def make_edits(
    edit_set: EditSet,
    editor: Editor,
    out: Path,
    *,
    seed: int = 0,
    batch_size: int = 1,
    max_failed_share: float = 0.05,
    progress: bool = True,
) -> EditCounts:
    """Makes what is missing. Raises BackendError when more than a share of it failed at the backend; what is done is kept."""
    with exclusive(out / ".lock", f"folder {out}"):
        for name, text in edit_set.lists.items():
            write_atomic(out / name, text.encode())
        orders = missing_orders(edit_set, out)
        budget, failed = FailureBudget(max_failed_share), dict[str, str]()
        with tqdm(total=len(orders), desc=f"edits of {editor.name}", unit="edit", disable=not progress) as bar:
            for batch in (orders[start : start + batch_size] for start in range(0, len(orders), batch_size)):
                failed |= _make(batch, editor, out, seed, budget)
                bar.update(len(batch))
        lines = (json.dumps({"key": key, "reason": reason}, ensure_ascii=False) + "\n" for key, reason in failed.items())
        write_atomic(out / MISSING, "".join(lines).encode())
        budget.check()
    reasons = Counter(reason.partition(":")[0] for reason in failed.values())
    return EditCounts(len(edit_set.orders), len(edit_set.orders) - len(orders), len(orders) - len(failed), dict(reasons))


def _make(batch: Sequence[EditOrder], editor: Editor, out: Path, seed: int, budget: FailureBudget) -> dict[str, str]:
    """Makes a batch; gives why by key for what could not be made. A batch that failed is tried again edit by edit."""
    failed, sources = {}, {}
    for order in batch:
        try:
            sources[order.key] = order.load()
        except DataError as error:
            failed[order.key] = f"image: {error}"
    loaded = [order for order in batch if order.key in sources]
    requests = [EditRequest(sources[order.key], order.instruction, derive_seed(seed, "edit-benchmark", order.key)) for order in loaded]
    try:
        images = editor.edit(requests) if requests else []
    except (ContentRefusedError, BackendError) as error:
        if len(loaded) > 1:
            for order in loaded:
                failed |= _make([order], editor, out, seed, budget)
            return failed
        if isinstance(error, BackendError):
            budget.failed(1, error)
        kind = "backend" if isinstance(error, BackendError) else "refused"
        return failed | {loaded[0].key: f"{kind}: {error}"}
    for order, image in zip(loaded, images, strict=True):
        if order.source:
            _save(sources[order.key], out / order.source)
        _save(image, out / order.edited)
    budget.succeeded(len(loaded))
    return failed


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encode_picture(image))


SIDE = 320  # ours: pixels of a picture's longer side on the page


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """A principle and the share of traces that say yes, in [0, 1]."""

    question: str
    yes: float


@dataclasses.dataclass(frozen=True, slots=True)
class EditRow:
    """What a judge said of one edit, by its name: a row of `<table>.edits.csv` and `.edits.parquet`."""

    edit: str
    instruction: str
    score: float | None
    """On the judge's own scale; None where it is unscored."""
    unscored: str | None
    """Why there is no score."""
    parts: dict[str, float]
    verdicts: tuple[Verdict, ...]
    trace_scores: tuple[float | None, ...]
    text: str
    """The judge's words."""


def edit_rows(edits: Iterable[EditItem], judged: Mapping[str, JudgedEdit]) -> list[EditRow]:
    """One row an edit in the benchmark's order; an edit that is not in `judged` could not be shown."""
    rows = []
    for edit in edits:
        found = judged.get(edit.key) or JudgedEdit(edit.key, None, reason="not shown to the judge")
        verdicts = tuple(Verdict(question, rate) for question, rate in zip(found.questions, found.rates, strict=False))
        rows.append(EditRow(edit.key, edit.instruction, found.value, found.reason, found.parts, verdicts, found.scores, found.text))
    return rows


def as_csv(rows: Sequence[EditRow]) -> str:
    """The rows under a heading: what is missing is empty, what has parts is JSON."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(field.name for field in dataclasses.fields(EditRow))
    writer.writerows(map(_cell, dataclasses.asdict(row).values()) for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return as_cell(value or "") if isinstance(value, str | None) else json.dumps(value, ensure_ascii=False) if value else ""


def as_parquet(rows: Sequence[EditRow]) -> bytes:
    """The rows as typed columns; a mapping is a list of (key, value)."""
    import pyarrow as pa
    from pyarrow import parquet

    plain = [dataclasses.asdict(row) | {"parts": [{"key": k, "value": v} for k, v in row.parts.items()]} for row in rows]
    schema = pa.schema([pa.field(name, arrow_type(hint)) for name, hint in hints(EditRow).items()])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(plain, schema), buffer)
    return buffer.getvalue()


def worst_and_best(edits: Iterable[EditItem], judged: Mapping[str, JudgedEdit], num: int = 12) -> tuple[list[EditItem], list[EditItem]]:
    """The edits of the lowest and of the highest scores, at most `num` each and none twice."""
    scored = [(found.value, edit) for edit in edits if (found := judged.get(edit.key)) is not None and found.value is not None]
    ordered = [edit for _, edit in sorted(scored, key=lambda pair: (pair[0], pair[1].key))]
    half = min(num, (len(ordered) + 1) // 2)
    return ordered[:half], ordered[::-1][: min(num, len(ordered) - half)]


def shown_pictures(edit: EditItem) -> list[tuple[str, bool, str]] | str:
    """(alternative text, whether it is small, data URI) of the sources and the edit; or why there are none."""
    try:
        source, edited = edit.load()
    except DataError as error:
        return str(error)
    return [*(_picture(image, "before") for image in pictures_of(source)), _picture(edited, "after")]


def _picture(image: Image.Image, alt: str) -> tuple[str, bool, str]:
    shown = image.copy()
    shown.thumbnail((SIDE, SIDE))
    return alt, image.width <= 128, f"data:image/jpeg;base64,{base64.b64encode(encode_picture(shown, 'jpeg', 85)).decode()}"
