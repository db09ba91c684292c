"""Small files in published layouts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image


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
