"""Puts the parts of a run directory into one page."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from editr1.report.annotators import confusion_row, percent, read_annotators
from editr1.report.audit import read_audits
from editr1.report.calibration import margin_bars, reliabilities
from editr1.report.curves import read_curves
from editr1.report.gallery import build_gallery
from editr1.report.loop import HEIGHT, WIDTH, draw_loop, dropped_reasons
from editr1.report.pairs import count_pairs
from editr1.report.pictures import Album
from editr1.report.results import ResultRow, category_bars, result_groups, stage_seconds
from editr1.report.strips import build_strips
from editr1.schema import Metric
from editr1.store import Run
from editr1.store._files import read_json, write_atomic

REPORT = "report.html"


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into the run directory and returns its path.

    Parts whose data is absent say so on the page. Raises DataError for a directory that is no run or holds broken files.
    """
    run = Run.open(run_dir, create=False)
    path = run.dir / REPORT
    write_atomic(path, render(run).encode())
    return path


def render(run: Run) -> str:
    """The whole page as HTML."""
    album = Album(run.images)
    strips = build_strips(run, album)
    gallery = build_gallery(run, album)
    curves = read_curves(run)
    metrics = run.metrics()
    audits = read_audits(run)
    audited = {metric.name for audit in audits for metric in audit.record.metrics()}
    results = [metric for metric in metrics if metric.name not in audited]
    rooms, arrows = draw_loop(run)
    margins = margin_bars(run)
    data = {"images": album.uris, "cards": gallery.cards, "strips": strips, "curves": [asdict(stage) for stage in curves]}
    page = Environment(loader=PackageLoader("editr1.report", "page"), undefined=StrictUndefined, autoescape=select_autoescape())
    return page.get_template("report.html").render(
        title=run.dir.resolve().name,
        headlines=_headlines(results),
        rooms=rooms,
        arrows=arrows,
        room_size=(WIDTH, HEIGHT),
        reasons=dropped_reasons(run),
        curves=curves,
        groups=result_groups(results),
        audits=audits,
        categories=[*category_bars(results), *([margins] if margins else [])],
        reliabilities=reliabilities(run),
        seconds=stage_seconds(metrics),
        pairs=count_pairs(run),
        annotators=read_annotators(run),
        confusion_row=confusion_row,
        percent=percent,
        gallery=gallery,
        strips=strips,
        config=_pretty(run.dir / "config.json"),
        environment=read_json(run.dir / "env.json"),
        style=Markup(_page_file("report.css")),
        script=Markup(_page_file("report.js")),
        data=Markup(embed_json(data)),
    )


def embed_json(value: Any) -> str:
    """JSON that can stand inside a script element: no character in it can end the element.

    >>> embed_json("</script>")
    '"\\\\u003c/script>"'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _headlines(metrics: list[Metric]) -> list[ResultRow]:
    """The rows that answered a promise: what a reader asks for first. The many small promises of an audit are no headlines."""
    promised = [metric for metric in metrics if metric.goal and not metric.name.startswith("audit/")]
    return [row for group in result_groups(promised) for row in group.rows]


def _pretty(path: Path) -> str | None:
    return json.dumps(read_json(path), indent=2, ensure_ascii=False) if path.exists() else None


def _page_file(name: str) -> str:
    return resources.files("editr1.report").joinpath("page", name).read_text(encoding="utf-8")
