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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image

from editr1.bench.base import EditItem, JudgedEdit, Outcome, by_kind, refuse_doubles, require_folder, to_metric
from editr1.errors import DataError
from editr1.measure.raw_scores import geometric_mean, in_range
from editr1.measure.rows import load_pair, read_csv, read_inside, read_rows
from editr1.schema import Metric, derive_seed
from editr1.stats import mean_estimate

# Samples a task; the same for English and Chinese. Alphabetical, which is also the order of the columns in the paper's table.
TASK_COUNTS = {
    "background_change": 40,
    "color_alter": 40,
    "material_alter": 40,
    "motion_change": 40,
    "ps_human": 70,
    "style_change": 60,
    "subject-add": 60,
    "subject-remove": 57,
    "subject-replace": 60,
    "text_change": 99,
    "tone_transfer": 40,
}
TOTAL = sum(TASK_COUNTS.values())
LANGUAGES = ("en", "cn")
Aspect = Literal["SC", "PQ", "O"]
ASPECTS: tuple[Aspect, ...] = ("SC", "PQ", "O")
CSV_COLUMNS = ("edited_image", "sementics_score", "quality_score", "intersection_exist", "instruction_language")  # spelled so in the files
DATA_COLUMNS = ("task_type", "key", "instruction", "instruction_language", "Intersection_exist")
DOWNLOAD = "huggingface-cli download stepfun-ai/GEdit-Bench --repo-type dataset --local-dir DIR"

RowId = tuple[str, str, str]
"""(task, language, key)."""


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


def read_scores(paths: Sequence[Path]) -> list[Sample]:
    """Samples of the official score CSVs of one model.

    An empty or unreadable score is None. Raises DataError for a missing column, an unknown task or language, and for a row
    that stands twice, which an interrupted run of the official script leaves behind.
    """
    samples = [sample for path in paths for sample in _read_csv(path)]
    refuse_doubles([sample.id for sample in samples], ", ".join(path.name for path in paths))
    return samples


def _read_csv(path: Path) -> Iterator[Sample]:
    for number, row in read_csv(path, CSV_COLUMNS):
        where = f"{path}, line {number}"
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


def metrics(samples: Sequence[Sample], language: str, seed: int = 0, expected: Mapping[str, int] | None = None) -> list[Metric]:
    """SC, PQ and O of one language, micro and macro, full set and intersection, with intervals over sources.

    expected: samples a task that should be there; what is not counts as unscored. None: the benchmark's own counts.
    """
    check_language(language, "gedit")
    mine = [sample for sample in samples if sample.id[1] == language]
    wanted = sum((TASK_COUNTS if expected is None else expected).values())
    num_missing = max(0, wanted - len(mine))
    common = [sample for sample in mine if sample.in_intersection]
    found = []
    for aspect in ASPECTS:
        found += _means(mine, aspect, f"gedit-{language}/{aspect}/full", num_missing, seed)
        found += _means(common, aspect, f"gedit-{language}/{aspect}/intersection", 0, seed)
    return [*found, _unscored(mine, wanted, language)]


def _unscored(samples: Sequence[Sample], wanted: int, language: str) -> Metric:
    """Share of the wanted samples without O; `by_category` counts them by reason: missing, empty, unparsed, or a judge's own code."""
    reasons = Counter(sample.reason or "missing" for sample in samples if sample.aspect("O") is None)
    reasons["missing"] += max(0, wanted - len(samples))
    total = max(wanted, len(samples))
    counts = {reason: float(count) for reason, count in sorted(reasons.items()) if count}
    share = reasons.total() / total if total else None
    return Metric("gedit_unscored", share, n=total, by_category=counts, protocol=f"gedit-{language}/unscored")


def _means(samples: Sequence[Sample], aspect: Aspect, protocol: str, num_missing: int, seed: int) -> list[Metric]:
    scored = [(sample, value) for sample in samples if (value := sample.aspect(aspect)) is not None]
    num_unscored = num_missing + len(samples) - len(scored)
    tasks = [sample.id[0] for sample, _ in scored]
    values, clusters = np.array([value for _, value in scored]), [sample.cluster for sample, _ in scored]
    found = []
    for kind, strata in [("micro", None), (f"macro{len(set(tasks))}", tasks)]:
        rng = np.random.default_rng(derive_seed(seed, protocol, kind))
        estimate = mean_estimate(values, clusters, rng=rng, strata=strata) if len(values) else None
        by_task = by_kind(values, tasks)
        name = f"gedit_{aspect}/{kind.rstrip('0123456789')}"
        found.append(to_metric(name, estimate, f"{protocol}/{kind}", n=len(scored), num_unscored=num_unscored, by_category=by_task))
    return found


def to_outcomes(samples: Sequence[Sample], aspect: Aspect = "O") -> list[Outcome]:
    """One row a sample for a paired comparison of two editors."""
    return [Outcome("/".join(s.id), s.cluster, s.id[0], s.aspect(aspect)) for s in sorted(samples, key=lambda s: s.id)]


def micro_of_tasks(task_means: Mapping[str, float], counts: Mapping[str, int] | None = None) -> float:
    """The mean over samples from the means of tasks."""
    weights = TASK_COUNTS if counts is None else counts
    return sum(weights[task] * mean for task, mean in task_means.items()) / sum(weights[task] for task in task_means)


def macro_of_tasks(task_means: Mapping[str, float]) -> float:
    """The unweighted mean of the tasks, as the official script prints it."""
    return sum(task_means.values()) / len(task_means)


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
    table = read_rows(folder, DATA_COLUMNS, "gedit").select_columns(list(DATA_COLUMNS))
    rows = tuple(
        (row_id, table[i]["instruction"], bool(table[i]["Intersection_exist"])) for i, row_id in numbered(table, language, partial_set)
    )
    return GEditBench(Path(edits), rows, language)


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
