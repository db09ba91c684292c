"""Run directories -> one self-contained HTML page that a researcher would send around.

    reading    what can be read of a run, with a line for each file that cannot; pictures; the drawing of the loop with its counts
    figures    10_metrics.jsonl in words and one unit: verdict, tiles, accuracy beside chance, tables, audits
    editor     before and after: the evaluation's gallery and those of editor RL, verdicts by category
    curves     metrics.jsonl as charts with healthy bands and alarms
    judges     edits with all that was said of them: annotators, people's pairs, trained judges, calibration

`write_report` puts them into page/report.html, or several runs side by side into page/compare.html. The page shows what the run
directory holds, and says so where it holds nothing.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from editr1.report.curves import StageCurves, draw_curves, overlay, read_points
from editr1.report.editor import CATEGORIES, Comparison, Edit, as_data, corner, read_comparisons, read_radar
from editr1.report.figures import (
    CHANCE,
    SECONDS,
    ResultRow,
    accuracies,
    category_bars,
    in_words,
    percent,
    promises,
    read_audits,
    result_groups,
    result_row,
    verdict,
)
from editr1.report.judges import (
    build_gallery,
    confusion_row,
    count_pairs,
    margin_bars,
    read_annotators,
    read_judges,
    reliabilities,
)
from editr1.report.reading import HEIGHT, WIDTH, Album, Reader, draw_loop, dropped_reasons
from editr1.schema import Metric
from editr1.store._files import read_object, write_atomic

REPORT = "report.html"
COMPARISON = "comparison.html"
MAX_TASKS = 48  # ours: as in the editor's own part


def write_report(run_dir: Path, *more: Path, output: Path | None = None, refresh: int = 0) -> tuple[Path, list[str]]:
    """Writes the page and returns its path, and a line for each file that could not be read.

    output: None = `report.html` in the run directory, `comparison.html` in the first of several. refresh: seconds after which the
    page loads itself again; 0 = never. What is absent is said on the page. Raises DataError for a directory that is no run.
    """
    readers = [Reader(path) for path in (run_dir, *more)]
    path = output or run_dir / (COMPARISON if more else REPORT)
    text = render_comparison(readers, refresh) if more else render(readers[0], refresh)
    write_atomic(path, text.encode("utf-8", "replace"))
    return path, [f"{reader.dir / name}: {line}" for reader in readers for name, line in reader.damage.items()]


def render(reader: Reader, refresh: int = 0) -> str:
    """The page of one run as HTML."""
    album = Album()
    metrics = reader.records("10_metrics.jsonl", Metric)
    points = read_points(reader)
    rl_points = points.get("edit_rl", {})
    comparisons = [as_data(reader, comparison, album) for comparison in read_comparisons(reader)]
    judges = read_judges(reader)
    gallery = build_gallery(reader, judges, album)
    curves = draw_curves(points)
    audits = read_audits(reader)
    audited = {metric.name for audit in audits for metric in audit.record.metrics()}
    results = [metric for metric in metrics if metric.name not in audited]
    rooms, arrows = draw_loop(reader, metrics, rl_points)
    pairs = list(reader.rows("07_pairs"))
    promised = promises(results)
    return _page(
        "report.html",
        [reader],
        refresh,
        {"images": album.uris, "cards": gallery.cards, "comparisons": comparisons},
        curves,
        title=reader.dir.resolve().name,
        verdict=verdict(promised) if results else "This run has no results yet: run a benchmark or the evaluation.",
        headlines=promised,
        accuracies=accuracies(results),
        chance=100 * CHANCE,
        radar=read_radar(reader, rl_points),
        corner=corner,
        categories_of_verdicts=CATEGORIES,
        comparisons=comparisons,
        rooms=rooms,
        arrows=arrows,
        room_size=(WIDTH, HEIGHT),
        reasons=dropped_reasons(reader),
        groups=result_groups(results),
        audits=audits,
        categories=[*category_bars(results), *margin_bars(pairs, judges)],
        reliabilities=reliabilities(pairs, judges),
        seconds=[(m.name.removeprefix(SECONDS), m.value) for m in metrics if m.name.startswith(SECONDS) and m.value is not None],
        pairs=count_pairs(pairs),
        annotators=read_annotators(reader),
        confusion_row=confusion_row,
        percent=percent,
        gallery=gallery,
        config=reader.value("config.json", lambda path: json.dumps(read_object(path), indent=2, ensure_ascii=False), None),
    )


def render_comparison(readers: Sequence[Reader], refresh: int = 0) -> str:
    """The page of several runs as HTML."""
    album, by_name = Album(), dict(zip(names_of(readers), readers, strict=True))
    metrics = {name: reader.records("10_metrics.jsonl", Metric) for name, reader in by_name.items()}
    tasks = same_tasks(by_name, {name: read_comparisons(reader) for name, reader in by_name.items()}, album)
    curves = overlay({name: read_points(reader) for name, reader in by_name.items()})
    verdicts = {name: verdict(promises(found)) if found else "No results yet." for name, found in metrics.items()}
    data = {"images": album.uris, "tasks": tasks, "names": list(by_name)}
    title = " · ".join(by_name)
    return _page("compare.html", readers, refresh, data, curves, title=title, verdicts=verdicts, figures=side_by_side(metrics), tasks=tasks)


def names_of(readers: Sequence[Reader]) -> list[str]:
    """A name a run: its folder's, with as many parents as it takes to tell them apart; the same run twice gets a number."""
    parts = [reader.dir.resolve().parts for reader in readers]
    deepest = max(map(len, parts))
    depth = next((d for d in range(1, deepest) if len({p[-d:] for p in parts}) == len(parts)), 1)
    names = ["/".join(p[-depth:]) for p in parts]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)]


def side_by_side(metrics: Mapping[str, Sequence[Metric]]) -> list[tuple[str, str, list[ResultRow | None]]]:
    """(name with its protocol, in words, a cell a run) of every figure, in the order in which the runs name them."""
    by_run = {run: {(m.name, m.protocol): m for m in found if not m.name.startswith(SECONDS)} for run, found in metrics.items()}
    keys = dict.fromkeys(key for found in by_run.values() for key in found)
    found = []
    for name, protocol in keys:
        metrics_of = (own.get((name, protocol)) for own in by_run.values())
        found.append((f"{name} · {protocol}", in_words(name), [result_row(metric, [metric]) if metric else None for metric in metrics_of]))
    return found


def same_tasks(readers: Mapping[str, Reader], comparisons: Mapping[str, Sequence[Comparison]], album: Album) -> list[dict[str, Any]]:
    """A row a task whose last edit at least two runs show: its source, and picture and score by run; the largest differences first."""
    edits: dict[tuple[str, str], dict[str, Edit]] = defaultdict(dict)
    for run, found in comparisons.items():
        for _, after in (pair for comparison in reversed(found) for pair in comparison.pairs):  # held-out ones overwrite those of training
            edits[after.source.digest, after.instruction][run] = after
    rows: list[dict[str, Any]] = []
    for (_, instruction), by_run in sorted(edits.items(), key=lambda item: -_range(list(item[1].values()))):
        if len(by_run) < 2 or len(rows) == MAX_TASKS or album.full:
            continue
        run, any_edit = next(iter(by_run.items()))
        shown = {name: {"image": album.add(readers[name], edit.image), "score": edit.score} for name, edit in by_run.items()}
        rows.append({"instruction": instruction, "kind": any_edit.kind, "source": album.add(readers[run], any_edit.source), "edits": shown})
    return rows


def _range(edits: Sequence[Edit]) -> float:
    scores = [edit.score for edit in edits if edit.score is not None]
    return max(scores) - min(scores) if scores else -1.0


def _page(template: str, readers: Sequence[Reader], refresh: int, data: dict[str, Any], curves: Sequence[StageCurves], **parts: Any) -> str:
    page = Environment(loader=PackageLoader("editr1.report", "page"), undefined=StrictUndefined, autoescape=select_autoescape())
    stages = [asdict(stage) for stage in curves]
    return page.get_template(template).render(
        parts,
        curves=curves,
        alarms=[(stage.title, chart.alarm) for stage in curves for chart in (*stage.headlines, *stage.others) if chart.alarm],
        outside=[(stage.title, chart.outside) for stage in curves for chart in stage.headlines if chart.outside],
        damage=[(name if len(readers) == 1 else str(r.dir / name), line) for r in readers for name, line in r.damage.items()],
        environments=[_environment(reader) for reader in readers],
        refresh=refresh,
        written=time.strftime("%H:%M:%S"),
        data=Markup(embed_json(data | {"curves": stages, "refresh": refresh})),
    )


def _environment(reader: Reader) -> dict[str, Any]:
    """The header of the run with every field that the page prints."""
    found = {name: str(reader.environment.get(name) or "unknown") for name in ("editr1", "commit", "python", "platform", "schema")}
    packages = reader.environment.get("packages")
    return found | {"packages": {str(k): str(v) for k, v in packages.items()} if isinstance(packages, dict) else {}}


def embed_json(value: Any) -> str:
    """JSON that can stand inside a script element: no character in it can end the element. A number that is not finite is null.

    >>> embed_json("</script>"), embed_json([float("nan")])
    ('"\\\\u003c/script>"', '[null]')
    """
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    text = json.dumps(finite, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
