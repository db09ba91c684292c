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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from PIL import Image

from editr1.bench.base import (
    EditItem,
    EditOrder,
    EditSet,
    JudgedEdit,
    Outcome,
    Stored,
    headline,
    refuse_doubles,
    require_edits,
    require_folder,
)
from editr1.errors import DataError
from editr1.measure.metrics import mean_metric
from editr1.measure.rows import TOP, geometric_mean, in_range, load_pair, read_inside, read_rows, to_bytes
from editr1.pictures import decode_image
from editr1.schema import Metric
from editr1.store.foreign import column_names, whole_table

CSV_COLUMNS = ("edited_image", "sementics_score", "quality_score", "intersection_exist", "instruction_language")  # spelled so in the files
FLAGS = {"true": True, "1": True, "false": False, "0": False}
DATA_COLUMNS = ("task_type", "key", "instruction", "instruction_language", "Intersection_exist")
DOWNLOAD = "huggingface-cli download stepfun-ai/GEdit-Bench --repo-type dataset --local-dir DIR"
# Samples a task; the same for English and Chinese. Alphabetical, which is also the order of the columns in the paper's table.
TASK_COUNTS = {
    "background_change": 40, "color_alter": 40, "material_alter": 40, "motion_change": 40, "ps_human": 70, "style_change": 60,
    "subject-add": 60, "subject-remove": 57, "subject-replace": 60, "text_change": 99, "tone_transfer": 40,
}  # fmt: skip
TOTAL = sum(TASK_COUNTS.values())
LANGUAGES = ("en", "cn")
Aspect = Literal["SC", "PQ", "O"]
ASPECTS: tuple[Aspect, ...] = ("SC", "PQ", "O")

RowId = tuple[str, str, str]
"""(task, language, key)."""
_MODEL = re.compile(rf"(.+)_(?:{'|'.join(TASK_COUNTS)}|combined)_gpt_score\.csv")


@dataclass(frozen=True, slots=True)
class Sample:
    """Scores of one edit, in [0, 10]; None = missing, refused or unparsed."""

    id: RowId
    semantic: float | None
    quality: float | None
    in_intersection: bool = True
    """Whether every method of the benchmark's paper answered this instruction."""
    single: float | None = None
    """O of a judge that gives one number and no factors."""
    reason: str = ""
    """Why a score is missing, where that is known."""
    source: str = ""
    """What samples of one source share; empty where the source is not known."""

    @property
    def cluster(self) -> str:
        """The source; where it is not known the key, for rows of two tasks with one key may be of one picture."""
        return self.source or self.id[2]

    def aspect(self, aspect: Aspect) -> float | None:
        if aspect == "O":
            return geometric_mean(self.semantic, self.quality) if self.single is None else self.single
        return self.semantic if aspect == "SC" else self.quality


def check_language(language: str, where: str) -> str:
    """The language if it is `en` or `cn`. Raises DataError otherwise; the official script offers zh, which the data do not use."""
    if language not in LANGUAGES:
        hint = "; the data say 'cn' for Chinese" if language.startswith("zh") else ""
        raise DataError(f"{where}: language {language!r}, expected en or cn{hint}")
    return language


def metrics(samples: Sequence[Sample], language: str, seed: int = 0, expected: Mapping[str, int] | None = None) -> list[Metric]:
    """SC, PQ and O of one language, micro and macro, full set and intersection, with intervals over sources.

    expected: samples a task that should be there; what is not counts as unscored. None: the benchmark's own counts.
    """
    check_language(language, "gedit")
    mine = [sample for sample in samples if sample.id[1] == language]
    wanted = sum((TASK_COUNTS if expected is None else expected).values())
    num_missing = max(0, wanted - len(mine))
    common = [sample for sample in mine if sample.in_intersection]
    found = [
        mean_metric(
            f"gedit_{aspect}/{kind}", to_outcomes(chosen, aspect), f"gedit-{language}/{aspect}/{part}/{kind}",
            macro=kind == "macro", seed=seed, top=TOP, num_missing=missing,
        )
        for aspect in ASPECTS
        for part, chosen, missing in (("full", mine, num_missing), ("intersection", common, 0))
        for kind in ("micro", "macro")
    ]  # fmt: skip
    return [*found, _unscored(mine, wanted, language)]


def _unscored(samples: Sequence[Sample], wanted: int, language: str) -> Metric:
    """Share of the wanted samples without O; `by_category` counts them by reason: missing, empty, unparsed, or a judge's own code."""
    reasons = Counter(sample.reason or "missing" for sample in samples if sample.aspect("O") is None)
    reasons["missing"] += max(0, wanted - len(samples))
    total = max(wanted, len(samples))
    counts = {reason: float(count) for reason, count in sorted(reasons.items()) if count}
    share = reasons.total() / total if total else None
    return Metric("gedit_unscored", share, n=total, by_category=counts, protocol=f"gedit-{language}/unscored")


def to_outcomes(samples: Sequence[Sample], aspect: Aspect = "O") -> list[Outcome]:
    """One row a sample for a paired comparison of two editors."""
    return [Outcome("/".join(s.id), s.cluster, s.id[0], s.aspect(aspect)) for s in sorted(samples, key=lambda s: s.id)]


def stored(name: str, samples: Sequence[Sample], seed: int = 0) -> Stored:
    """All numbers of one model's samples, each language by itself, with those of the published table as headline."""
    languages = sorted({sample.id[1] for sample in samples})
    numbers = [metric for language in languages for metric in metrics(samples, language, seed)]
    columns: dict[str, str] = {}
    for language in languages:
        mine = {sample.id[0] for sample in samples if sample.id[1] == language and sample.aspect("O") is not None}
        label = f" {language}" if len(languages) > 1 else ""
        columns |= {f"{aspect}{label}": f"gedit-{language}/{aspect}/full/macro{len(mine)}" for aspect in ASPECTS}
    return Stored(name, "gedit", numbers, to_outcomes(samples), headline(numbers, columns, 1.0))


# --- stored scores ------------------------------------------------------------------------------------


def read_scores(paths: Sequence[Path]) -> list[Sample]:
    """Samples of the official score CSVs of one model; an empty or unreadable score is None.

    Raises DataError for a missing column, an unknown task or language, and a row that stands twice, as an interrupted run leaves behind.
    """
    samples = [sample for path in paths for sample in _read_csv(path)]
    refuse_doubles([sample.id for sample in samples], ", ".join(path.name for path in paths))
    return samples


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
        named = [*reversed(place.parts), *(task for task in TASK_COUNTS if f"_{task}_" in path.name)]
        task = next((name for name in named if name in TASK_COUNTS), None)
        if task is None:
            raise DataError(f"{where}: no task name in the image path or the file name; expected one of {', '.join(TASK_COUNTS)}")
        common = FLAGS.get(row["intersection_exist"].strip().lower())
        if common is None:
            raise DataError(f"{where}: intersection_exist is {row['intersection_exist']!r}, expected True or False")
        cells = (row["sementics_score"], row["quality_score"])
        semantic, quality = (in_range(cell) for cell in cells)
        reason = "" if None not in (semantic, quality) else "unparsed" if all(cell.strip() for cell in cells) else "empty"
        yield Sample((task, language, place.stem), semantic, quality, common, reason=reason)


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
        return metrics(self._samples(judged), self.language, seed, expected=Counter(task for (task, _, _), _, _ in self.rows))

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        return to_outcomes(self._samples(judged))

    def _samples(self, judged: Mapping[str, JudgedEdit]) -> list[Sample]:
        return [_sample(row_id, judged.get("/".join(row_id)), common, self._source(row_id)) for row_id, _, common in self.rows]

    def _load(self, row_id: RowId) -> tuple[Image.Image, Image.Image]:
        root, name = self.edits_root, "/".join(row_id)
        return load_pair((root, f"fullset/{name}_SRCIMG.png"), (root, f"fullset/{name}.png"), f"gedit {name}")

    def _source(self, row_id: RowId) -> str:
        """Equal for rows of one source picture, which two tasks may share; empty where it is missing."""
        try:
            return hashlib.sha256(read_inside(self.edits_root, f"fullset/{'/'.join(row_id)}_SRCIMG.png", "gedit")).hexdigest()
        except DataError:
            return ""  # such a sample is unscored and counted


def build(root: Path | str | None = None, edits: Path | str | None = None, language: str = "en", partial_set: bool = False) -> GEditBench:
    """The benchmark for the edits of one model, in the folder `edits` that holds `fullset/`; root: local copy of the dataset.

    language: en or cn. partial_set: accept another number of rows than 606. Raises DataError that says what to download, and for a copy
    that lost rows to a clash of keys.
    """
    check_language(language, "gedit")
    folder = require_folder(root, "gedit", DOWNLOAD)
    place = require_edits(edits, "gedit", f"fullset/<task>/{language}/<key>.png and <key>_SRCIMG.png")
    ids, table = _dataset(folder, DATA_COLUMNS, language, partial_set)
    instructions, common = table["instruction"], table["Intersection_exist"]
    return GEditBench(place, tuple((row_id, instructions[i], bool(common[i])) for i, row_id in ids), language)


def edit_set(root: Path | str | None = None, language: str = "en", partial_set: bool = False) -> EditSet:
    """The instructions of one language as edits to make. Raises DataError as `build` does."""
    check_language(language, "gedit")
    folder = require_folder(root, "gedit", DOWNLOAD)
    ids, table = _dataset(folder, (*DATA_COLUMNS, "input_image"), language, partial_set)
    instructions = table["instruction"]

    def source(index: int, where: str) -> Image.Image:
        return decode_image(to_bytes(table[index]["input_image"], folder, where), where)

    orders = []
    for i, row_id in ids:
        place = f"fullset/{'/'.join(row_id)}"
        load = partial(source, i, f"gedit {'/'.join(row_id)}")
        orders.append(EditOrder("/".join(row_id), instructions[i], load, f"{place}.png", f"{place}_SRCIMG.png"))
    return EditSet(tuple(orders))


def _dataset(folder: Path, columns: Sequence[str], language: str, partial_set: bool) -> tuple[list[tuple[int, RowId]], Any]:
    """Place and id of every row of a language, and the table.

    Raises DataError for doubled ids, and for another number than 606 unless allowed.
    """
    table = read_rows(folder, columns, "gedit", texts=DATA_COLUMNS[:4]).select_columns(list(columns))
    ids = zip(table["task_type"], table["instruction_language"], table["key"], strict=True)
    found = [(i, row_id) for i, row_id in enumerate(ids) if row_id[1] == language]
    refuse_doubles([row_id for _, row_id in found], "gedit")
    if len(found) != TOTAL and not partial_set:
        fault = f"{len(found)} rows of language {language}, expected {TOTAL}"
        raise DataError(f"gedit: {fault}; download again, or accept with partial_set=true")
    return found, table


def _sample(row_id: RowId, judged: JudgedEdit | None, common: bool, source: str) -> Sample:
    semantic, quality = (judged.parts.get(name) if judged else None for name in ("semantic_consistency", "perceptual_quality"))
    if semantic is None or quality is None:  # a judge of one number has O and no factors
        semantic = quality = None
    single = judged.value if judged and quality is None else None
    return Sample(row_id, semantic, quality, common, single, (judged.reason or "") if judged else "", source)
