"""GEdit's arithmetic: SC, PQ and O of samples, micro and macro; shared by the benchmark and by readers of other harnesses' logs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from editr1.bench.base import Outcome, Stored, headline
from editr1.errors import DataError
from editr1.measure.metrics import by_kind, to_metric
from editr1.measure.rows import TOP, geometric_mean
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
        estimate = mean_estimate(values, clusters, rng=rng, strata=strata, top=TOP) if len(values) else None
        by_task = by_kind(values, tasks)
        name = f"gedit_{aspect}/{kind.rstrip('0123456789')}"
        found.append(to_metric(name, estimate, f"{protocol}/{kind}", n=len(scored), num_unscored=num_unscored, by_category=by_task))
    return found


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
