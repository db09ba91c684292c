"""evalscope's reviews of GEdit-Bench: the benchmark's own arithmetic and intervals from what the harness keeps.

    <work_dir>/reviews/<model>/gedit_<task>.jsonl    {"index": 0, "sample_score": {"score": {"value": {"semantic_consistency", ...}}, ...}}

`value` has semantic_consistency, perceptual_similarity (GEdit's PQ) and normalized_score (its O), 0 to 10; a review whose judge failed has
no such key and is unscored. The language is in the sample's metadata where the harness kept it, else it is English, the harness' default.
Give a model's folder or its files. Numbers under `gedit-<en|cn>/...`. Source: evalscope 1.14.1 (Apache-2.0), benchmarks/image_edit/gedit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from editr1.bench._gedit_scores import TASK_COUNTS, Sample, check_language, stored
from editr1.bench.base import Stored, refuse_doubles
from editr1.errors import DataError
from editr1.measure.rows import in_range
from editr1.measure.tables import column_names, read_table

_NAME = re.compile(rf"gedit_({'|'.join(TASK_COUNTS)})\.jsonl")


def recognise(path: Path) -> bool:
    """Whether a file is a review of a GEdit task, or a folder holds such files."""
    if path.is_dir():
        return any(_NAME.fullmatch(file.name) for file in path.glob("gedit_*.jsonl"))
    return bool(_NAME.fullmatch(path.name)) and "sample_score" in column_names(path)


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0) -> list[Stored]:
    """One model a folder: its files are its tasks. Raises DataError for another layout and for a sample that stands twice."""
    models: dict[str, list[Path]] = {}
    for path in paths:
        for file in sorted(path.glob("gedit_*.jsonl")) if path.is_dir() else [path]:
            models.setdefault(file.parent.name, []).append(file)
    found = []
    for name, files in models.items():
        samples = [sample for file in files for sample in _samples(file)]
        refuse_doubles([sample.id for sample in samples], name)
        found.append(stored(name, samples, seed))
    return found


def _samples(path: Path) -> Iterator[Sample]:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise DataError(f"{path}: expected gedit_<task>.jsonl with a task of {', '.join(TASK_COUNTS)}")
    for where, row in read_table(path, ("index", "sample_score")):
        review = row["sample_score"]
        score = review.get("score") if isinstance(review, dict) else None
        if not isinstance(score, dict) or not isinstance(score.get("value", {}), dict):
            raise DataError(f"{where}: expected sample_score.score.value, an object of scores")
        metadata: Mapping[str, Any] = review.get("sample_metadata") or {}
        language = check_language(str(metadata.get("instruction_language", "en")), where)
        key = str(metadata.get("key") or review.get("sample_id") or row["index"])
        value = score.get("value", {})
        semantic, quality = (in_range(value.get(name)) for name in ("semantic_consistency", "perceptual_similarity"))
        common = metadata.get("Intersection_exist") is True
        reason = "" if None not in (semantic, quality) else str(score.get("status") or "unparsed")
        yield Sample((match.group(1), language, key), semantic, quality, common, reason=reason)
