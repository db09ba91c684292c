"""GEdit-Bench: edits of 606 English and 606 Chinese instructions over 11 tasks, judged for SC, PQ and O.

    <root>/<model>/fullset/<task>/<en|cn>/<key>.png and <key>_SRCIMG.png        edits as the official script lays them out
    <root>/**/*.parquet                                                         the dataset: task_type, key, instruction, ...
    <model>_<task>_gpt_score.csv                                                scores as the official script writes them

O = sqrt(SC * PQ) per sample. Published numbers differ in their mean: the official script takes the **macro** mean over 11 tasks,
the Edit-R1 paper's SC is the **micro** mean over samples (9 of its 11 rows agree with micro). Both are printed, never mixed:
`gedit-<en|cn>/<SC|PQ|O>/<full|intersection>/<micro|macro11>`. `key` is not unique across tasks: a row is (task, language, key).
Missing, refused and unparsed samples are counted by reason (`gedit-<en|cn>/unscored`); no number stands in for them.
Source: stepfun-ai/Step1X-Edit at 570eba6 (GEdit-Bench), arXiv 2504.17761; data MIT.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from editr1.bench._gedit_scores import LANGUAGES, TASK_COUNTS, TOTAL, RowId, Sample, check_language, metrics, stored, to_outcomes
from editr1.bench.base import EditItem, EditOrder, EditSet, JudgedEdit, Outcome, Stored, refuse_doubles, require_folder
from editr1.errors import DataError
from editr1.measure.rows import in_range, load_pair, read_inside, read_rows, to_bytes
from editr1.pictures import decode_image
from editr1.schema import Metric
from editr1.store.foreign import column_names, whole_table

CSV_COLUMNS = ("edited_image", "sementics_score", "quality_score", "intersection_exist", "instruction_language")  # spelled so in the files
DATA_COLUMNS = ("task_type", "key", "instruction", "instruction_language", "Intersection_exist")
DOWNLOAD = "huggingface-cli download stepfun-ai/GEdit-Bench --repo-type dataset --local-dir DIR"


def read_scores(paths: Sequence[Path]) -> list[Sample]:
    """Samples of the official score CSVs of one model.

    An empty or unreadable score is None. Raises DataError for a missing column, an unknown task or language, and for a row
    that stands twice, which an interrupted run of the official script leaves behind.
    """
    samples = [sample for path in paths for sample in _read_csv(path)]
    refuse_doubles([sample.id for sample in samples], ", ".join(path.name for path in paths))
    return samples


_MODEL = re.compile(rf"(.+)_(?:{'|'.join(TASK_COUNTS)}|combined)_gpt_score\.csv")


def recognise(path: Path) -> bool:
    """Whether a file is a score CSV of the official script, by its name or heading, or a folder holds such files (`eval_results_new`)."""
    if path.is_dir():
        return any(_MODEL.fullmatch(file.name) for file in path.glob("*_gpt_score.csv"))
    return path.suffix == ".csv" and (bool(_MODEL.fullmatch(path.name)) or CSV_COLUMNS[1] in column_names(path))


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One model a name in the files' names: several files of one are its tasks. A folder's combined file is not read beside the others.

    Raises DataError for a combined file named beside others of its model.
    """
    models: dict[str, list[Path]] = {}
    for path in paths:
        for file in sorted(path.glob("*_gpt_score.csv")) if path.is_dir() else [path]:
            match = _MODEL.fullmatch(file.name)
            models.setdefault(match.group(1) if match else file.stem, []).append(file)
    found = []
    for model, files in models.items():
        single = [file for file in files if not file.name.endswith("_combined_gpt_score.csv")]
        combined = [file for file in files if file not in single and file in paths]
        if combined and single:
            raise DataError(f"{combined[0]} holds the rows of all tasks, which the other files hold too; give one or the other")
        found.append(stored(model, read_scores(single or files), seed))
    return found


def _read_csv(path: Path) -> Iterator[Sample]:
    for where, row in whole_table(path, CSV_COLUMNS):
        language = check_language(row["instruction_language"].strip(), where)
        place = PurePosixPath(row["edited_image"])
        if not place.stem:
            raise DataError(f"{where}: no edited_image, so whose scores these are is unknown")
        if place.parent.name in LANGUAGES and place.parent.name != language:
            raise DataError(f"{where}: instruction_language is {language} and edited_image lies under {place.parent.name}")
        task = _task_of([*reversed(place.parts), *_words(path)], where)
        common = _flag(row["intersection_exist"], where)
        cells = (row["sementics_score"], row["quality_score"])
        semantic, quality = (in_range(cell) for cell in cells)
        reason = "" if None not in (semantic, quality) else "unparsed" if all(cell.strip() for cell in cells) else "empty"
        yield Sample((task, language, place.stem), semantic, quality, common, reason=reason)


def _flag(text: str, where: str) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower())
    if found is None:
        raise DataError(f"{where}: intersection_exist is {text!r}, expected True or False")
    return found


def _words(path: Path) -> list[str]:
    return [task for task in TASK_COUNTS if f"_{task}_" in path.name]


def _task_of(words: Sequence[str], where: str) -> str:
    for word in words:
        if word in TASK_COUNTS:
            return word
    raise DataError(f"{where}: no task name in the image path or the file name; expected one of {', '.join(TASK_COUNTS)}")


# --- judging ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GEditBench:
    """The edits of one model in one language. Make one with `build`."""

    edits_root: Path
    rows: tuple[tuple[RowId, str, bool], ...]
    """(id, instruction, in the intersection)."""
    language: str
    name: str = "gedit"

    def edits(self) -> Iterator[EditItem]:
        for row_id, instruction, _ in self.rows:
            yield EditItem("/".join(row_id), instruction, partial(self._load, row_id))

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        samples = self._samples(judged)
        counts: dict[str, int] = {}
        for (task, _, _), _, _ in self.rows:
            counts[task] = counts.get(task, 0) + 1
        return metrics(samples, self.language, seed, expected=counts)

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        return to_outcomes(self._samples(judged))

    def _samples(self, judged: Mapping[str, JudgedEdit]) -> list[Sample]:
        return [_judged_sample(row_id, judged.get("/".join(row_id)), common, self._source(row_id)) for row_id, _, common in self.rows]

    def _load(self, row_id: RowId) -> tuple[Image.Image, Image.Image]:
        where = f"gedit {'/'.join(row_id)}"
        source = read_inside(self.edits_root, f"{_place(row_id)}_SRCIMG.png", where)
        return load_pair(source, read_inside(self.edits_root, f"{_place(row_id)}.png", where), where)

    def _source(self, row_id: RowId) -> str:
        """Equal for rows of one source picture, which two tasks may share; empty where it is missing."""
        try:
            return hashlib.sha256(read_inside(self.edits_root, f"{_place(row_id)}_SRCIMG.png", "gedit")).hexdigest()
        except DataError:
            return ""  # such a sample is unscored and counted


def build(root: Path | str | None = None, edits: Path | str | None = None, language: str = "en", partial_set: bool = False) -> GEditBench:
    """The benchmark for the edits of one model.

    Args:
        root: local copy of the dataset.
        edits: folder of one model, which holds `fullset/`.
        language: en or cn.
        partial_set: accept another number of rows than 606.

    Raises DataError that says what to download, and for a copy that lost rows to a clash of keys.
    """
    check_language(language, "gedit")
    folder = require_folder(root, "gedit", DOWNLOAD)
    if edits is None or not Path(edits).is_dir():
        layout = f"fullset/<task>/{language}/<key>.png and <key>_SRCIMG.png"
        raise DataError(f"gedit: no folder of edits{f' {edits}' if edits else ''}; give --edits DIR with {layout}")
    table = read_rows(folder, DATA_COLUMNS, "gedit", texts=DATA_COLUMNS[:4]).select_columns(list(DATA_COLUMNS))
    rows = tuple(
        (row_id, table[i]["instruction"], bool(table[i]["Intersection_exist"])) for i, row_id in numbered(table, language, partial_set)
    )
    return GEditBench(Path(edits), rows, language)


def edit_set(root: Path | str | None = None, language: str = "en", partial_set: bool = False) -> EditSet:
    """The instructions of one language as edits to make. Raises DataError as `build` does."""
    check_language(language, "gedit")
    folder = require_folder(root, "gedit", DOWNLOAD)
    table = read_rows(folder, (*DATA_COLUMNS, "input_image"), "gedit", texts=DATA_COLUMNS[:4])
    instructions = table["instruction"]
    orders = []
    for i, row_id in numbered(table, language, partial_set):
        name, place = "/".join(row_id), _place(row_id)
        load = partial(_source_picture, table, i, folder, f"gedit {name}")
        orders.append(EditOrder(name, instructions[i], load, f"{place}.png", f"{place}_SRCIMG.png"))
    return EditSet(tuple(orders))


def _source_picture(table: Any, index: int, folder: Path, where: str) -> Image.Image:
    return decode_image(to_bytes(table[index]["input_image"], folder, where), where)


def numbered(table: Any, language: str, partial_set: bool) -> list[tuple[int, RowId]]:
    """Place and id of every row of a language. Raises DataError for doubled ids, and for another number than 606 unless allowed."""
    columns = (table[name] for name in ("task_type", "instruction_language", "key"))
    found = [(i, row_id) for i, row_id in enumerate(zip(*columns, strict=True)) if row_id[1] == language]
    refuse_doubles([row_id for _, row_id in found], "gedit")
    if len(found) != TOTAL and not partial_set:
        raise DataError(
            f"gedit: {len(found)} rows of language {language}, expected {TOTAL}; download again, or accept with partial_set=true"
        )
    return found


def _place(row_id: RowId) -> str:
    task, language, key = row_id
    return f"fullset/{task}/{language}/{key}"


def _judged_sample(row_id: RowId, judged: JudgedEdit | None, in_intersection: bool, source: str) -> Sample:
    if judged is None or judged.value is None:
        return Sample(row_id, None, None, in_intersection, reason=(judged.reason or "") if judged else "", source=source)
    if {"semantic_consistency", "perceptual_quality"} <= judged.parts.keys():
        return Sample(row_id, judged.parts["semantic_consistency"], judged.parts["perceptual_quality"], in_intersection, source=source)
    return Sample(row_id, None, None, in_intersection, judged.value, source=source)  # a judge of one number has O and no factors
