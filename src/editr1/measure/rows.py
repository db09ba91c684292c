"""Published data from a local folder: rows of Arrow or Parquet files, JSON files, pictures; and the scores that judges really stored.

A score that cannot be read is None and is counted by the caller; nothing is guessed, clamped or drawn at random, as the scripts that wrote
such files sometimes do.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from editr1 import store
from editr1.bench.base import ComparisonItem, EditItem, JudgedEdit, Outcome, credit_outcome, require_columns
from editr1.errors import DataError
from editr1.measure.metrics import accuracy_metrics
from editr1.pictures import decode_image
from editr1.schema import Label, Metric, Principle, Source, stable_id
from editr1.stats import to_margins
from editr1.stats.clusters import Floats
from editr1.store.foreign import without_doubles

logger = logging.getLogger(__name__)

Pictures = tuple[Image.Image, Image.Image]  # source, edited

_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")


def read_rows(folder: Path, columns: Sequence[str], where: str, config: str = "", split: str = "", texts: Sequence[str] = ()) -> Any:
    """The `datasets.Dataset` of the `*.arrow` or `*.parquet` files below the folder, pictures left as encoded bytes.

    config: the sub-folder to look in, where a copy of the whole dataset has it. split: the one to read where files of several lie there;
    a single one is taken under any name, for the same rows are published as `test`, `train` or nothing. texts: columns that hold a text
    in every row. Raises DataError when there is no such file, one cannot be read, a column is missing, or a text is none.
    """
    import datasets

    folder = folder / config if config and (folder / config).is_dir() else folder
    arrows = _of_split([path for path in folder.rglob("*.arrow") if not path.name.startswith("cache-")], split)
    parquets = _of_split(list(folder.rglob("*.parquet")), split)
    if not arrows and not parquets:
        raise DataError(f"{where}: no .arrow or .parquet file below {folder}; download the dataset as it is published")
    opened, paths = (partial(datasets.Dataset.from_parquet, cache_dir=None), parquets) if parquets else (datasets.Dataset.from_file, arrows)
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # reading what lies on the disk is no progress that a user waits for
    try:
        rows = datasets.concatenate_datasets([opened(str(path)) for path in paths])
    except (OSError, ValueError, datasets.exceptions.DatasetGenerationError) as error:
        raise DataError(f"{where}: cannot read the files below {folder}: {error}; download them again") from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    require_columns(rows.column_names, columns, f"{where} ({folder})")
    for name in texts:
        if odd := next(([i, cell] for i, cell in enumerate(rows[name]) if not isinstance(cell, str)), None):
            raise DataError(f"{where} ({folder}): row {odd[0]}: {name} is {str(odd[1])[:60]!r}, expected a text; download the files again")
    return _encoded(rows)


def _of_split(paths: Sequence[Path], split: str) -> list[Path]:
    """The files of a split, `<split>-00000-of-00001.parquet` or `<split>/0000.parquet`; all of them where none is named so."""
    named = [path for path in paths if _SHARD.sub("", path.stem) == split or path.parent.name == split]
    return sorted(named or paths)


def _encoded(rows: Any) -> Any:
    """The rows with image features undecoded: decoding is guarded and happens when a judge needs the picture."""
    import datasets

    raw = datasets.Image(decode=False)
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, raw)
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(name, datasets.List(raw))
    return rows


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError when it cannot be read, or for an object in which a key stands twice."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=without_doubles)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot read as JSON: {error}") from error


def to_bytes(cell: Any, folder: Path, where: str) -> bytes:
    """The encoded bytes of an image cell: `{"bytes", "path"}`, bytes, or a path inside the folder.

    Raises DataError for anything else, a missing file, or a path that leaves the folder.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str) or not cell:
        raise DataError(f"{where}: no image, found {type(cell).__name__}")
    return read_inside(folder, cell, where)


def read_inside(folder: Path, name: str, where: str) -> bytes:
    """The bytes of a file that lies inside the folder. Raises DataError, naming `where`, when it is missing or lies elsewhere."""
    try:
        return store.read_inside(folder, name)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def load_source(folder: Path, name: str, where: str) -> Image.Image:
    """A picture inside the folder. Raises DataError as `read_inside` does, and for one that cannot be read."""
    return decode_image(read_inside(folder, name, where), where)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two edits of one source, and what people said about them."""

    key: str
    sides: tuple[str, str]
    """Keys of the judged edits a and b."""
    instruction: str
    label: Label
    cluster: str
    """What pairs share: source image or task."""
    category: str
    load: Callable[[int], tuple[Source, Image.Image]]
    """Gives (source, edited) of side 0 or 1; raises DataError for a missing or broken file."""
    principles: tuple[Principle, ...] | None = None

    @property
    def sign(self) -> int:
        """+1: a is better, -1: b is, 0: same."""
        return {"a": 1, "b": -1, "same": 0}[self.label]

    def comparison(self) -> ComparisonItem:
        return ComparisonItem(self.key, self.instruction, lambda: (*self.load(0), self.load(1)[1]), self.label, self.cluster, self.category)


@dataclass(frozen=True, slots=True)
class Edit(EditItem):
    """An edit, and what its figures are counted by."""

    cluster: str = ""
    category: str = ""


class EditBench:
    """What a benchmark asks, and what it compares, where all follows from its edits."""

    rows: Sequence[Edit]

    def edits(self) -> Iterator[EditItem]:
        return iter(self.rows)

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        """Every edit; one without an answer is unscored."""
        values = {key: found.value for key, found in judged.items()}
        return [Outcome(row.key, row.cluster, row.category, values.get(row.key)) for row in self.rows]


class PairBench:
    """What a benchmark asks, and what it compares, where all follows from its pairs."""

    rows: Sequence[Pair]

    def edits(self) -> Iterator[EditItem]:
        """Every edit once, although it may stand in several pairs."""
        seen: set[str] = set()
        for pair in self.rows:
            for side, key in enumerate(pair.sides):
                if key not in seen:
                    seen.add(key)
                    yield EditItem(key, pair.instruction, partial(pair.load, side), pair.principles)

    def comparisons(self) -> Iterator[ComparisonItem]:
        """Every pair; where a is always the winner, only a judge asked in both orders may see them so."""
        return (pair.comparison() for pair in self.rows)

    def outcomes(self, judged: Mapping[str, JudgedEdit]) -> list[Outcome]:
        """Every pair in which people chose a side."""
        chosen = [pair for pair in self.rows if pair.sign]
        margins = self.margins(chosen, judged).tolist()
        return [credit_outcome(pair.key, pair.cluster, pair.category, margin) for pair, margin in zip(chosen, margins, strict=True)]

    def margins(self, pairs: Sequence[Pair], judged: Mapping[str, JudgedEdit]) -> Floats:
        """`[N]` score of the preferred edit minus the other's, a minus b where people said "same"; nan = unscored."""
        gaps = self.gaps(pairs, judged)
        return np.where([pair.label == "b" for pair in pairs], -gaps, gaps)

    def gaps(self, pairs: Sequence[Pair], judged: Mapping[str, JudgedEdit]) -> Floats:
        """`[N]` score of a minus that of b; nan = unscored."""
        scores = [[self.score(pair, judged.get(key)) for key in pair.sides] for pair in pairs]
        return to_margins([a for a, _ in scores], [b for _, b in scores])

    def accuracy(
        self,
        name: str,
        protocol: str,
        judged: Mapping[str, JudgedEdit],
        pairs: Sequence[Pair] | None = None,
        kind: Callable[[Pair], str] = attrgetter("category"),
        macro: bool = False,
    ) -> list[Metric]:
        """`accuracy_metrics` of those pairs (None = of all) in which people chose a side, by `kind`."""
        chosen = [pair for pair in (self.rows if pairs is None else pairs) if pair.sign]
        margins, clusters, kinds = self.margins(chosen, judged), [pair.cluster for pair in chosen], list(map(kind, chosen))
        return accuracy_metrics(name, margins, clusters, protocol, kinds=kinds, macro=macro)

    def score(self, pair: Pair, judged: JudgedEdit | None) -> float | None:  # what of an answer counts for this pair
        return judged.value if judged else None


def opener(
    table: Any, i: int, cells: Callable[[Any], Sequence[Any]], folder: Path, where: str, resize: bool = True
) -> Callable[[int], Pictures]:  # fmt: skip
    """Opens a side of the pair in row `i`; `cells` finds source, a and b in it."""

    def load(side: int) -> Pictures:
        source, *edited = cells(table[i])
        return load_pair((folder, source), (folder, edited[side]), where, resize)

    return load


def pair_keys(cells: Sequence[Any], instruction: str, folder: Path, where: str) -> tuple[str, tuple[str, str]]:
    """The source's hash, and keys of both edits that are the same in every row with these pictures and this instruction."""
    source, a, b = (hashlib.sha256(to_bytes(cell, folder, where)).hexdigest() for cell in cells)
    return source, (stable_id(source, a, instruction), stable_id(source, b, instruction))


def load_pair(source: tuple[Path, Any], edited: tuple[Path, Any], where: str, resize: bool = True) -> Pictures:
    """Both pictures in RGB, each a folder and what `to_bytes` reads; `resize` brings the edit to the source's size, as the official scripts
    do before judging."""
    named = {"source": source, "edited": edited}
    first, second = (decode_image(to_bytes(cell, folder, where), f"{where}: {name} image") for name, (folder, cell) in named.items())
    if resize and second.size != first.size:
        second = second.resize(first.size, Image.Resampling.LANCZOS)
    return first, second


def expect_count(found: int, published: int, where: str) -> None:
    """Says so where another number of rows is read than published numbers are of; a part is a benchmark, too, and no error."""
    if found != published:
        logger.warning("%s: %d rows, the published set has %d: these numbers are of another set", where, found, published)


TOP = 10.0  # VIEScore and GEdit scales
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


def sub_scores(raw: Any, top: float = TOP, num_expected: int | None = None) -> tuple[float, ...] | None:
    """The numbers of one stored score, each in [0, top]; None when anything about it is no such number.

    raw: a number, a list of numbers, or a string that is one of these as JSON. num_expected: refuse lists of another length.

    >>> sub_scores([7, 8.5]), sub_scores("[7, 8]"), sub_scores("7/10"), sub_scores([7, 11])
    ((7.0, 8.5), (7.0, 8.0), None, None)
    """
    if isinstance(raw, str):
        try:
            raw = json.loads(raw) if len(raw) <= 1000 else None  # a whole answer stored in place of a score
        except (ValueError, RecursionError):
            return None
    items = raw if isinstance(raw, list) else [raw]
    if not items or (num_expected is not None and len(items) != num_expected):
        return None
    numbers = [in_range(item, top) for item in items]
    return None if any(number is None for number in numbers) else tuple(number for number in numbers if number is not None)


def in_range(raw: Any, top: float = TOP) -> float | None:
    """The number if it is one in [0, top]; a bool is none, a string only when it is nothing but a number."""
    if isinstance(raw, str):
        raw = float(raw) if _NUMBER.fullmatch(raw.strip()) else None
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    return float(raw) if 0 <= raw <= top else None  # false for nan, and no overflow for a whole number of a thousand digits


def lowest(raw: Any) -> float | None:
    """VIEScore's rule: an aspect is as good as its worst sub-score."""
    numbers = sub_scores(raw)
    return min(numbers) if numbers else None


def geometric_mean(semantic: float | None, quality: float | None) -> float | None:
    """O = sqrt(SC * PQ) of one sample; None when either is missing."""
    return None if semantic is None or quality is None else math.sqrt(semantic * quality)
