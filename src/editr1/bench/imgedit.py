"""ImgEdit-Bench, basic part: 737 edits of 9 types, three marks of 1 to 5 each.

    basic_edit.json    {key: {"id": path, "prompt": ..., "edit_type": ...}}       in Benchmark.tar of HF sysuyy/ImgEdit
    result.json        {key: the judge's text, with lines "Name: <digit>"}         as the official script writes it
    <edits>/<key>.png  the edits

Per image the mean of its marks (rounded to 2), per type the mean (rounded to 2), overall the unweighted mean of the rounded types: 9 of
12 published rows are that macro mean, the micro mean fits none. The 737 edits are of 171 source pictures, up to 20 of one: intervals
resample pictures inside each type. Two ways to read a text, side by side:
`imgedit/official/macro9` takes what the official parser finds ("4/5", "**4**" and "4." vanish without a word);
`imgedit/complete/macro9` reads these forms too and leaves out a text without exactly three marks, counted as unscored.
Source: PKU-YuanGroup/ImgEdit at 547185d (Benchmark/Basic), arXiv 2505.20275.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from editr1.bench.base import EditOrder, EditSet, JudgedEdit, Outcome, Stored, headline, require_columns, require_edits, require_folder
from editr1.errors import DataError
from editr1.judge.answers import normalised
from editr1.judge.parse import answer_of, without_asides
from editr1.measure.metrics import mean_metric
from editr1.measure.rows import Edit, EditBench, expect_count, load_pair, load_source, read_json
from editr1.schema import MAX_SCORE, Metric

TYPE_COUNTS = {
    "add": 95,
    "adjust": 94,
    "extract": 117,
    "replace": 92,
    "remove": 86,
    "background": 94,
    "style": 100,
    "compose": 23,  # printed as "Hybrid" in tables
    "action": 36,
}
NUM_MARKS = 3
LOW, HIGH = 1, 5
DOWNLOAD = (
    "huggingface-cli download sysuyy/ImgEdit Benchmark.tar --repo-type dataset --local-dir DIR, unpack it, "
    "and put Benchmark/Basic/basic_edit.json of github.com/PKU-YuanGroup/ImgEdit beside the folders of pictures"
)
_MARK = re.compile(r"[*_` ]*([1-5])(?:\.0?)?(?:\s*/\s*5)?[*_`. ]*")


def official_marks(text: str) -> tuple[int, ...] | None:
    """Marks as the official parser finds them: lines `Name: <digits>` and nothing else; None without any. A mark outside 1 to 5 is none.

    >>> official_marks("Prompt Compliance: 4\\nVisual Quality: **3**\\nPhysical: 5")
    (4, 5)
    """
    parts = [line.strip().split(": ") for line in text.splitlines()]
    digits = [int(part[1]) for part in parts if len(part) == 2 and part[1].isascii() and part[1].isdigit() and len(part[1]) == 1]
    marks = tuple(digit for digit in digits if LOW <= digit <= HIGH)
    return marks or None


def complete_marks(text: str) -> tuple[int, ...] | None:
    """The three marks of an answer, in the forms that judges write; None unless there are exactly three.

    >>> complete_marks("Prompt Compliance: 4/5\\nVisual Quality: **3**\\nPhysical: 5.")
    (4, 3, 5)
    """
    found = []
    for line in without_asides(answer_of(normalised(text)) or "").splitlines():
        name, colon, value = line.partition(":")
        match = _MARK.fullmatch(value) if colon and name.strip() else None
        if match:
            found.append(int(match.group(1)))
    return tuple(found) if len(found) == NUM_MARKS else None


Reader = Callable[[str], tuple[int, ...] | None]
READERS: dict[str, Reader] = {"official": official_marks, "complete": complete_marks}


@dataclass(frozen=True, slots=True)
class Task:
    """One entry of `basic_edit.json`."""

    picture: str
    """Path of the source picture, which several tasks share."""
    instruction: str
    kind: str


def read_tasks(path: Path) -> dict[str, Task]:
    """The tasks of `basic_edit.json` by key. Raises DataError for another layout or an unknown type."""
    tasks = {}
    for key, row in _read_object(path).items():
        where = f"{path}: key {key}"
        if not isinstance(row, dict):
            raise DataError(f"{where}: expected an object with id, prompt and edit_type")
        require_columns(row, ("id", "prompt", "edit_type"), where)
        if row["edit_type"] not in tuple(TYPE_COUNTS):
            raise DataError(f"{where}: unknown edit_type {row['edit_type']!r}, expected one of {', '.join(TYPE_COUNTS)}")
        tasks[key] = Task(str(row["id"]), str(row["prompt"]), row["edit_type"])
    expect_count(len(tasks), sum(TYPE_COUNTS.values()), str(path))
    return tasks


def read_results(path: Path) -> dict[str, str]:
    """The judge's text by key from `result.json`; what is no text (the official script stores errors) is empty, thus unscored."""
    return {key: text if isinstance(text, str) else "" for key, text in _read_object(path).items()}


def metrics(results: Mapping[str, str], tasks: Mapping[str, Task], seed: int = 0) -> list[Metric]:
    """The overall mark under both ways of reading. Tasks without a text count as unscored.

    Raises DataError for a result whose key has no task: the two files are of different sets.
    """
    strangers = sorted(results.keys() - tasks.keys())
    if strangers:
        raise DataError(f"imgedit: {len(strangers)} results have no entry in basic_edit.json (first: {strangers[0]})")
    return [overall(outcomes(results, tasks, read, 2), f"imgedit/{name}", seed) for name, read in READERS.items()]


def outcomes(results: Mapping[str, str], tasks: Mapping[str, Task], read: Reader, digits: int | None = None) -> list[Outcome]:
    """The mean of each task's marks, rounded to `digits` where the benchmark rounds it; None where the text states none."""
    found = []
    for key, task in tasks.items():
        marks = read(results.get(key, ""))
        mean = sum(marks) / len(marks) if marks else None
        found.append(Outcome(key, task.picture, task.kind, mean if mean is None or digits is None else round(mean, digits)))
    return found


def overall(rows: Sequence[Outcome], protocol: str, seed: int = 0) -> Metric:
    """The mean of the types' means, these rounded to 2 as published; its interval is of pictures inside each type."""
    metric = mean_metric("imgedit", rows, f"{protocol}/macro", macro=True, seed=seed, top=MAX_SCORE)
    by_type = {kind: round(mean, 2) for kind, mean in metric.by_category.items()}
    return dataclasses.replace(metric, value=sum(by_type.values()) / len(by_type) if by_type else None, by_category=by_type)


def recognise(path: Path) -> bool:
    """Whether a file is a `result.json`: a JSON object of texts, of which one at least has a mark, or the errors of a judge."""
    if path.suffix != ".json" or not path.is_file():
        return False
    rows = read_json(path)
    texts = [text for text in rows.values() if isinstance(text, str)] if isinstance(rows, dict) else []
    return any(read(text) for text in texts for read in READERS.values())


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One judged editor a `result.json`. data: `basic_edit.json`, where it does not lie beside. Raises DataError where it is missing."""
    found = []
    for path in paths:
        beside = data or path.with_name("basic_edit.json")
        if not beside.is_file():
            raise DataError(f"{path} looks like an ImgEdit result.json, but {beside} is missing; name it with --data FILE")
        tasks, results = read_tasks(beside), read_results(path)
        numbers = metrics(results, tasks, seed)
        columns = {metric.protocol.split("/")[1]: metric.protocol for metric in numbers}
        name = path.parent.name if path.stem == "result" else path.stem
        found.append(Stored(name, "imgedit", numbers, outcomes(results, tasks, complete_marks), headline(numbers, columns, 1.0)))
    return found


def edit_set(root: Path | str | None = None) -> EditSet:
    """The basic part as edits to make. Raises DataError as `build` does."""
    path = find_list(root)
    orders = (
        EditOrder(key, task.instruction, partial(load_source, path.parent, task.picture, f"imgedit {key}"), f"{key}.png")
        for key, task in read_tasks(path).items()
    )
    return EditSet(tuple(orders))


@dataclass(frozen=True)
class ImgEditBench(EditBench):
    """The edits of one model. Make one with `build`."""

    rows: tuple[Edit, ...]
    name: str = "imgedit"

    def metrics(self, judged: Mapping[str, JudgedEdit], seed: int = 0) -> list[Metric]:
        """Scores in [0, 10] of any judge, averaged as the benchmark averages marks; not comparable with its 1 to 5 table."""
        return [overall(self.outcomes(judged), "imgedit/judge10", seed)]


def build(root: Path | str | None = None, edits: Path | str | None = None) -> ImgEditBench:
    """The benchmark for the edits of one model. root: unpacked Benchmark.tar with `basic_edit.json`; edits: folder of `<key>.png`.

    Raises DataError that says what to download.
    """
    list_path = find_list(root)
    tasks, place = read_tasks(list_path), require_edits(edits, "imgedit", "<key>.png")
    loads = {
        key: partial(load_pair, (list_path.parent, task.picture), (place, f"{key}.png"), f"imgedit {key}") for key, task in tasks.items()
    }
    rows = (Edit(key, task.instruction, loads[key], None, task.picture, task.kind) for key, task in tasks.items())
    return ImgEditBench(tuple(rows))


def find_list(root: Path | str | None) -> Path:
    """`basic_edit.json` in the benchmark's folder. Raises DataError that says what to download."""
    folder = require_folder(root, "imgedit", DOWNLOAD)
    found = sorted(folder.rglob("basic_edit.json"))
    if not found:
        raise DataError(f"imgedit: no basic_edit.json below {folder}; {DOWNLOAD}")
    return found[0]


def _read_object(path: Path) -> dict[str, Any]:
    rows = read_json(path)
    if not isinstance(rows, dict) or not rows:
        raise DataError(f"{path}: expected a JSON object of key to entry")
    return rows
