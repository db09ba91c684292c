"""Which published raw format a file or folder is, and its metrics: no model is asked.

GEdit score CSVs of one model        <model>_<task>_gpt_score.csv, <model>_combined_gpt_score.csv, or their folder eval_results_new
ImgEdit result.json                  with basic_edit.json beside it or named
GenAI-Bench pairwise.json            a list of answers with human votes
VIEScore answers                     a folder _answers/<results> beside _human_annotations
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from editr1.bench import gedit, genai_bench, imgedit, viescore_pairs
from editr1.errors import DataError
from editr1.measure.rows import read_json
from editr1.schema import Metric

KNOWN = (
    "GEdit *_gpt_score.csv files or their folder, an ImgEdit result.json, a GenAI-Bench pairwise.json, "
    "or a VIEScore folder _answers/<results>"
)


_MODEL = re.compile(rf"(.+)_(?:{'|'.join(gedit.TASK_COUNTS)}|combined)_gpt_score\.csv")


def aggregate(paths: Sequence[Path], basic_edit: Path | None = None, seed: int = 0) -> list[Metric]:
    """The metrics of files of one kind. Several CSVs are the tasks of one model; of every other kind one path is given.

    Raises DataError for a path that is missing or of no known kind, and for several kinds at once.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; expected {KNOWN}")
    if all(path.suffix == ".csv" for path in paths):
        return _gedit(paths, seed)
    if len(paths) > 1:
        raise DataError(f"{len(paths)} paths of which not all are .csv: aggregate one judge at a time")
    path = paths[0]
    if path.is_dir():
        scores = sorted(path.glob("*_gpt_score.csv"))
        if scores:
            return _gedit([csv for csv in scores if not _is_combined(csv)] or scores, seed)
        return viescore_pairs.metrics(viescore_pairs.load(*_viescore_root(path)), seed)
    return _json(path, basic_edit, seed)


def _gedit(paths: Sequence[Path], seed: int) -> list[Metric]:
    combined = [path for path in paths if _is_combined(path)]
    if combined and len(combined) < len(paths):
        raise DataError(f"{combined[0]} holds the rows of all tasks, which the other files hold too; give one or the other")
    models = sorted({match.group(1) for path in paths if (match := _MODEL.fullmatch(path.name))})
    if len(models) > 1:
        raise DataError(f"CSVs of {len(models)} models ({', '.join(models)}): aggregate one model at a time")
    samples = gedit.read_scores(paths)
    languages = sorted({sample.id[1] for sample in samples})
    return [metric for language in languages for metric in gedit.metrics(samples, language, seed)]


def _is_combined(path: Path) -> bool:
    return path.name.endswith("_combined_gpt_score.csv")


def _json(path: Path, basic_edit: Path | None, seed: int) -> list[Metric]:
    value = read_json(path)
    if isinstance(value, list):
        return genai_bench.metrics(genai_bench.read_answers(path))
    if not isinstance(value, dict):
        raise DataError(f"{path}: unknown content; expected {KNOWN}")
    if any(isinstance(row, dict) and "score" in row for row in value.values()):
        raise DataError(f"{path} is one aspect of VIEScore's answers about one editor; give their folder _answers/<results>")
    beside = basic_edit or path.with_name("basic_edit.json")
    if not beside.exists():
        raise DataError(f"{path} looks like an ImgEdit result.json, but {beside} is missing; name it with --basic-edit FILE")
    return imgedit.metrics(imgedit.read_results(path), imgedit.read_tasks(beside), seed)


def _viescore_root(path: Path) -> tuple[Path, str]:
    for folder in (path, *path.parents):
        if folder.parent.name in viescore_pairs.ANSWERS:
            return folder.parent.parent, folder.name
    raise DataError(f"{path} is no folder _answers/<results> of VIEScore's layout; expected {KNOWN}")
