"""Small files in published layouts."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from editr1.bench.viescore_pairs import TASK


def png(shade: int, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (shade, shade // 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def dot(number: int, better: bool) -> bytes:
    """A picture of its own for each number below 65,536, bright where it is the better edit."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (220 if better else 90, number % 256, number // 256)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder: Path, rows: list[dict[str, Any]], images: tuple[str, ...] = ()) -> Path:
    """Rows as `datasets` writes them; `images` names columns of encoded bytes."""
    import datasets

    table = datasets.Dataset.from_list([{k: {"bytes": v} if k in images else v for k, v in row.items()} for row in rows])
    for name in images:
        table = table.cast_column(name, datasets.Image())
    folder.mkdir(parents=True, exist_ok=True)
    table.to_parquet(str(folder / "part-0.parquet"))
    return folder


def write_study(root: Path, scores: dict[str, dict[str, object]], ratings: dict[str, dict[str, str]], task: str = TASK) -> Path:
    """A study of one rater in the published layout; scores[editor][uid], ratings[uid][editor]."""
    raters = root / "_human_annotations" / "ImagenHub_human_eval_results" / task
    raters.mkdir(parents=True)
    editors = sorted(scores)
    lines = ["\t".join(["uid", *editors]), *("\t".join([uid, *(row[editor] for editor in editors)]) for uid, row in ratings.items())]
    (raters / "Text-Guided_IE_rater1.tsv").write_text("\n".join(lines))
    for editor in editors:
        folder = root / "_answers" / "judge" / task / editor
        folder.mkdir(parents=True)
        for aspect in ("SC", "PQ"):
            (folder / f"{aspect}.json").write_text(json.dumps({uid: {"score": raw} for uid, raw in scores[editor].items()}))
    return root
