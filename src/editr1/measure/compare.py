"""Two judges, or two editors under one judge, on the same samples: the difference with its interval, and where they differ.

Works on outcome rows (`bench.base.Outcome`), which every judged benchmark leaves behind. Credits of pairs are compared by their
half credit and by exact McNemar on strict right and wrong; scores of edits by their mean and by GSB, sample by sample. Every p but
McNemar's is that of the sign-flip test of whole sources; on answers that are right or wrong, one a source, it is McNemar's.
Protocols: `compare/<unit>/<micro|macroN>`, `compare/<unit>/category/<name>`, `compare/credit/{mcnemar,agreement,kappa}`,
`compare/score/gsb`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from editr1.bench.base import Outcome, Stored, refuse_doubles
from editr1.config import offered
from editr1.errors import DataError
from editr1.measure.metrics import to_metric
from editr1.schema import Metric, derive_seed, from_json
from editr1.stats import MIN_CLUSTERS, TIE_TOLERANCE, holm, mcnemar, paired_difference
from editr1.stats.agreement import cohen_kappa
from editr1.stats.clusters import Floats
from editr1.stats.pairwise import without_rounding
from editr1.text import lines_of

# ours: peers report about .1 between two runs of the same judge on the same images; a smaller change in a mean score is no finding
NOISE_FLOOR = 0.1


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; every difference is b - a."""

    metrics: list[Metric]
    disagreements: list[tuple[str, float | None, float | None]]
    """(key, value of a, value of b) where they differ, largest difference first; one-sided silence comes last."""
    num_only_a: int
    """Samples that only a has; left out of every number."""
    num_only_b: int


def read_outcomes(path: Path, category: str = "") -> list[Outcome]:
    """The rows of an `*.outcomes.jsonl`, optionally only those whose category starts with `category`.

    Raises DataError for a file that is no such list, holds a key twice, or has no row left.
    """
    try:
        rows = [from_json(Outcome, line) for line in lines_of(path.read_text(encoding="utf-8")) if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(f"{path}: no outcome rows ({error}); give a *.outcomes.jsonl that `editr1 bench` wrote") from error
    return in_category(rows, category, str(path))


def in_category(rows: Sequence[Outcome], category: str, where: str) -> list[Outcome]:
    """The rows whose category starts so. Raises DataError where there is none, a key stands twice, or a credit is none."""
    kept = [row for row in rows if row.category.startswith(category)]
    if not kept:
        raise DataError(
            f"{where}: no row of category {category!r}; there are {', '.join(sorted({row.category for row in rows})) or 'none'}"
        )
    refuse_doubles([row.key for row in kept], where)
    if odd := next((row for row in kept if row.unit == "credit" and row.value is not None and not 0 <= row.value <= 1), None):
        raise DataError(f"{where}: {odd.key} has the credit {odd.value:g}, expected one in [0, 1]")
    return kept


def compare(a: Sequence[Outcome], b: Sequence[Outcome], seed: int = 0, noise_floor: float = NOISE_FLOOR) -> Comparison:
    """Paired comparison on the samples that both have. Raises DataError when there is none, or for scores against credits.

    noise_floor: a change of a mean score below it is marked (`holds` is False); measure it with `bench --repeats`.
    """
    common = in_common(a, b)
    units = {row.unit for pair in common for row in pair}
    if len(units) > 1:
        raise DataError("one file holds scores and the other credits of pairs: they cannot be compared")
    metrics = _credits(common, seed) if units == {"credit"} else [_against_noise(m, noise_floor) for m in _scores(common, seed)]
    return Comparison(metrics, _disagreements(common), len(a) - len(common), len(b) - len(common))


def _credits(common: Sequence[tuple[Outcome, Outcome]], seed: int) -> list[Metric]:
    half = [np.array([0.5 if pair[side].value is None else pair[side].value for pair in common]) for side in (0, 1)]
    right = [values == 1.0 for values in half]
    num_unscored = sum(x.value is None or y.value is None for x, y in common)
    test = mcnemar(*right)
    agreement = float(np.mean(right[0] == right[1]))
    discordant = test.only_a + test.only_b
    clusters = {first.cluster for first, _ in common}
    # Exact for any number of independent samples; samples of a few sources are not independent.
    p_value = test.p_value if len(clusters) >= min(MIN_CLUSTERS, len(common)) else None
    share = test.only_b / discordant if discordant else None
    return [
        *_differences([first for first, _ in common], half[0], half[1], "credit", num_unscored, seed),
        Metric("compare_only_b_right", share, n=discordant, protocol="compare/credit/mcnemar", p_value=p_value),
        Metric("compare_agreement", agreement, n=len(common), num_unscored=num_unscored, protocol="compare/credit/agreement"),
        Metric("compare_kappa", cohen_kappa(right[0].tolist(), right[1].tolist()), n=len(common), protocol="compare/credit/kappa"),
    ]


def _scores(common: Sequence[tuple[Outcome, Outcome]], seed: int) -> list[Metric]:
    scored = [(x, x.value, y.value) for x, y in common if x.value is not None and y.value is not None]
    num_unscored = len(common) - len(scored)
    if not scored:
        return [Metric("compare_micro", None, num_unscored=num_unscored, protocol="compare/score/micro")]
    rows = [row for row, _, _ in scored]
    first, second = np.array([value for _, value, _ in scored]), np.array([value for _, _, value in scored])
    gsb = _difference(rows, np.zeros(len(rows)), np.sign(without_rounding(second - first)), "score", "gsb", None, num_unscored, seed)
    return [*_differences(rows, first, second, "score", num_unscored, seed), gsb]


def _differences(rows: Sequence[Outcome], a: Floats, b: Floats, unit: str, num_unscored: int, seed: int) -> list[Metric]:
    """Micro and macro difference, and each category with p adjusted by Holm over the categories."""
    categories = sorted({row.category for row in rows})
    found = [_difference(rows, a, b, unit, "micro", None, num_unscored, seed)]
    if len(categories) > 1:
        found.append(_difference(rows, a, b, unit, f"macro{len(categories)}", [row.category for row in rows], num_unscored, seed))
        found += _by_category(rows, a, b, unit, categories, seed)
    return found


def _difference(
    rows: Sequence[Outcome], a: Floats, b: Floats, unit: str, kind: str, strata: Sequence[str] | None, num_unscored: int, seed: int
) -> Metric:
    rng = np.random.default_rng(derive_seed(seed, "compare", unit, kind))
    difference = paired_difference(a, b, [row.cluster for row in rows], rng=rng, strata=strata)
    name = "compare_" + kind.rstrip("0123456789")
    return to_metric(name, difference, f"compare/{unit}/{kind}", num_unscored=num_unscored)


def _by_category(rows: Sequence[Outcome], a: Floats, b: Floats, unit: str, categories: Sequence[str], seed: int) -> list[Metric]:
    found = []
    for category in categories:
        inside = [i for i, row in enumerate(rows) if row.category == category]
        found.append(_difference([rows[i] for i in inside], a[inside], b[inside], unit, f"category/{category}", None, 0, seed))
    return [replace(metric, p_value=p) for metric, p in zip(found, holm([metric.p_value for metric in found]), strict=True)]


def _against_noise(metric: Metric, floor: float) -> Metric:
    """The metric with its mark, where it is the change of a mean score."""
    if not metric.protocol.startswith(("compare/score/micro", "compare/score/macro", "compare/score/category/")):
        return metric
    holds = metric.value is not None and abs(metric.value) >= floor - TIE_TOLERANCE
    return replace(metric, goal=f"a change of at least {floor:g}, the spread between runs of one judge", holds=holds)


def in_common(a: Sequence[Outcome], b: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """The samples that both have, in the order of a. Raises DataError when there is none."""
    by_key = {row.key: row for row in b}
    common = [(row, by_key[row.key]) for row in a if row.key in by_key]
    if not common:
        raise DataError("the two files have no sample in common: they are of different benchmarks, sets or versions")
    return common


def sample_table(a: Sequence[Outcome], b: Sequence[Outcome], noise_floor: float = NOISE_FLOOR) -> list[tuple[str, str, str, str, str, str]]:
    """(key, category, a, b, b - a, mark) of every sample that both have, as text under a heading.

    mark: `unscored` where one has no value, and then there is no difference; `below noise floor`; empty for a change above it.
    """
    rows = [("key", "category", "a", "b", "difference", "mark")]
    for x, y in in_common(a, b):
        shown_a, shown_b = ("" if row.value is None else f"{row.value:g}" for row in (x, y))
        if x.value is None or y.value is None:
            rows.append((x.key, x.category, shown_a, shown_b, "", "unscored"))
        else:
            change = float(without_rounding(y.value - x.value))
            is_small = x.unit == "score" and abs(change) < noise_floor - TIE_TOLERANCE
            rows.append((x.key, x.category, shown_a, shown_b, f"{change:g}", "below noise floor" if is_small else ""))
    return rows


def _disagreements(common: Sequence[tuple[Outcome, Outcome]]) -> list[tuple[str, float | None, float | None]]:
    rows = [(x.key, x.value, y.value) for x, y in common if _differ(x.value, y.value)]
    return sorted(rows, key=lambda row: (row[1] is None or row[2] is None, -abs((row[1] or 0.0) - (row[2] or 0.0)), row[0]))


def _differ(a: float | None, b: float | None) -> bool:
    return a != b if a is None or b is None else bool(without_rounding(a - b))


FIXED = ("chance", "chance-with-ties", "floor", "single-rater", "unanimous")  # ends of protocols of numbers that no judge moves


def between_run(repeats: Sequence[Sequence[Metric]]) -> list[Metric]:
    """Standard deviation over repeats of each number that every repeat has; nothing for fewer than two repeats."""
    if len(repeats) < 2:
        return []
    found = []
    for metric in repeats[0]:
        if metric.protocol.rpartition("/")[2] in FIXED:
            continue
        values = [
            m.value for repeat in repeats for m in repeat if (m.name, m.protocol) == (metric.name, metric.protocol) and m.value is not None
        ]
        if len(values) == len(repeats):
            spread = float(np.std(values, ddof=1))
            found.append(Metric(f"{metric.name}/between_run_sd", spread, n=len(repeats), protocol=f"{metric.protocol}/between-run-sd"))
    return found


def read_stored(paths: Sequence[Path], data: Path | None = None, seed: int = 0, benchmark: str = "") -> list[Stored]:
    """What the paths hold, one entry a judge or judged editor, in the order of the paths' benchmarks.

    data: the benchmark's own file where its numbers need one that does not lie beside. benchmark: of those that
    know a path as theirs, this one. Raises DataError for a path that is missing or of no known kind, and where two entries have one name.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; expected stored outputs of {', '.join(offered('bench', 'recognise'))}")
        groups.setdefault(benchmark_of(path, benchmark), []).append(path)
    readers = offered("bench", "read_stored")
    found: list[Stored] = [stored for name, group in groups.items() for stored in readers[name](group, data, seed)]
    names = [(stored.benchmark, stored.name) for stored in found]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise DataError(f"two of the paths are of {doubled[1]!r} on {doubled[0]}: judges are told apart by the names of their folders")
    return found


def benchmark_of(path: Path, chosen: str = "") -> str:
    """The benchmark that knows the file or folder as its own. Raises DataError where none does (or the chosen one does not), or several."""
    known = offered("bench", "recognise")
    owners = [name for name, recognise in known.items() if recognise(path) and chosen in ("", name)]
    if len(owners) == 1:
        return owners[0]
    if owners:
        raise DataError(f"{path} could be of {' or '.join(owners)}; say which with --benchmark NAME")
    expected = chosen or ", ".join(known)
    raise DataError(f"{path}: unknown content; expected stored outputs of {expected} (see docs/benchmarks.md)")


def outcomes_of(path: Path, category: str = "", data: Path | None = None) -> list[Outcome]:
    """Rows for a comparison: of an `*.outcomes.jsonl`, or of stored outputs of one judge. Raises DataError as the readers do."""
    owners = [name for name, recognise in offered("bench", "recognise").items() if path.exists() and recognise(path)]
    if not owners or path.name.endswith(".outcomes.jsonl"):
        return read_outcomes(path, category)
    found = [stored for stored in read_stored([path], data) if stored.outcomes]
    if len(found) != 1:
        raise DataError(f"{path} holds outcomes of {len(found)} judges or tasks; a comparison wants one: give its own folder or file")
    return in_category(found[0].outcomes, category, str(path))
