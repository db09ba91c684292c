"""Makes the edits of a benchmark with any editor, one file each: what is there is kept, what is missing is made.

A folder holds the edits of one editor with one seed; `editor.json` says whose, and another editor is refused. A picture is whole or
absent, so a killed run continues. What could not be made is listed in `missing.jsonl`, counts as unscored when the folder is judged,
and is tried again by the next run.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from editr1.bench.base import EditOrder, EditSet
from editr1.editors.base import Editor, EditRequest
from editr1.errors import BackendError, ContentRefusedError, DataError
from editr1.measure.rows import batches
from editr1.pictures import encode_picture
from editr1.schema import derive_seed
from editr1.store._files import exclusive, read_json, write_atomic, write_json
from editr1.store.engine import FailureBudget

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
            for batch in batches(orders, batch_size):
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
