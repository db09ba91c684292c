"""What a judge said of every edit, for people: a table with names, and a page of the worst and the best."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence

from PIL import Image

from editr1.bench.base import EditItem, JudgedEdit
from editr1.errors import DataError
from editr1.pictures import encode_picture
from editr1.schema import pictures_of

COLUMNS = ("edit", "instruction", "score", "unscored", "parts", "verdicts", "trace_scores", "text")
SIDE = 320  # ours: pixels of a picture's longer side on the page
STYLE = (
    "body{font:16px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "section{border-top:1px solid #ddd;padding:1rem 0}img{max-width:48%;vertical-align:top;margin-right:1%}"
    "h3{margin:.2rem 0}li.no{color:#a33}pre{white-space:pre-wrap;background:#f6f6f6;padding:.6rem;font-size:13px}"
)


def edit_rows(edits: Iterable[EditItem], judged: Mapping[str, JudgedEdit]) -> list[dict[str, str]]:
    """One row an edit in the benchmark's order, cells as text; an edit that is not in `judged` could not be shown."""
    rows = []
    for edit in edits:
        found = judged.get(edit.key) or JudgedEdit(edit.key, None, reason="not shown to the judge")
        verdicts = [{"question": q, "yes": rate} for q, rate in zip(found.questions, found.rates, strict=False)]
        cells = (
            edit.key, edit.instruction, "" if found.value is None else f"{found.value:g}", found.reason or "",
            json.dumps(found.parts) if found.parts else "", json.dumps(verdicts, ensure_ascii=False) if verdicts else "",
            json.dumps(found.scores) if found.scores else "", found.text,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """The rows under a heading."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def edit_page(title: str, edits: Iterable[EditItem], judged: Mapping[str, JudgedEdit], num: int = 12) -> str:
    """One self-contained HTML page: the edits of the lowest and of the highest scores with pictures, verdicts and the judge's words."""
    scored = [(found.value, edit) for edit in edits if (found := judged.get(edit.key)) is not None and found.value is not None]
    ordered = [edit for _, edit in sorted(scored, key=lambda pair: (pair[0], pair[1].key))]
    half = min(num, (len(ordered) + 1) // 2)
    parts = [f"<h1>{html.escape(title)}</h1><p>{len(ordered)} scored edits.</p>"]
    for name, chosen in (("Worst", ordered[:half]), ("Best", ordered[::-1][: min(num, len(ordered) - half)])):
        parts += [f"<h2>{name}</h2>", *(_section(edit, judged[edit.key]) for edit in chosen)]
    return f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{STYLE}</style>" + "".join(parts)


def _section(edit: EditItem, found: JudgedEdit) -> str:
    verdicts = "".join(
        f'<li class="{"yes" if rate > 0.5 else "no"}">{html.escape(question)} {rate:.0%} yes</li>'
        for question, rate in zip(found.questions, found.rates, strict=False)
    )
    words = f"<details><summary>What the judge said</summary><pre>{html.escape(found.text)}</pre></details>" if found.text else ""
    try:
        source, edited = edit.load()
        pictures = "".join(_picture(image) for image in (*pictures_of(source), edited))
    except DataError as error:
        pictures = f"<p>{html.escape(str(error))}</p>"
    head = f"<h3>{found.value:g}: {html.escape(edit.instruction)}</h3><p>{html.escape(edit.key)}</p>"
    return f"<section>{head}{pictures}<ul>{verdicts}</ul>{words}</section>"


def _picture(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(encode_picture(small, "jpeg", 85)).decode()}">'
