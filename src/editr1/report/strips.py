"""Before/after strips of the editor, from `09_editor/gallery.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from editr1.errors import DataError
from editr1.report.pictures import Album
from editr1.schema import SCHEMA_VERSION, ImageRef, from_json
from editr1.store import Run
from editr1.store._files import read_jsonl

GALLERY = Path("09_editor") / "gallery.jsonl"


def build_strips(run: Run, album: Album) -> list[dict[str, Any]]:
    """Rows of source, before and after, in the file's order; none when the run has no gallery. Raises DataError for a broken row."""
    path = run.dir / GALLERY
    if not path.exists():
        return []
    strips = []
    for number, row in enumerate(read_jsonl(path), start=1):
        if album.full:
            break
        try:
            pictures = {name: album.add(_ref(row[name])) for name in ("source", "before", "after")}
            strips.append(
                {
                    **pictures,
                    "instruction": row["instruction"],
                    "kind": row.get("kind", ""),
                    "score_before": row.get("score_before"),
                    "score_after": row.get("score_after"),
                }
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number} is no strip ({error!r}); expected instruction, source, before, after") from error
    return strips


def _ref(value: dict[str, Any]) -> ImageRef:
    return from_json(ImageRef, json.dumps({"schema": SCHEMA_VERSION} | value))
