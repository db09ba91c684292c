"""Which benchmark stored judge outputs are of, and their numbers: no model is asked. The benchmarks say so themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from editr1.bench.base import Outcome, Stored
from editr1.config import offered
from editr1.errors import DataError
from editr1.measure.compare import in_category, read_outcomes


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
