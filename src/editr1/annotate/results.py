"""What the answers say, and the answers out (CSV, the run's table 07_pairs) and existing votes in."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from editr1.annotate.items import LABELS, Item, edits_by_task, item_id
from editr1.annotate.votes import ADJUDICATOR, Answer, Vote
from editr1.errors import DataError
from editr1.schema import Quadruple
from editr1.stages import pairs
from editr1.stats import GSB
from editr1.stats.agreement import cohen_kappa, krippendorff_alpha
from editr1.store import Run, StageCounts
from editr1.store._files import write_atomic
from editr1.text import as_cell

# --- what they say -------------------------------------------------------------------------------------


FAST_SECONDS = 1.0  # ours: nobody looks at three pictures and reads an instruction in less
MIN_FOR_FLAGS = 5  # ours: answers before a pace or a habit is called one
ONE_SIDED = 0.8  # ours: share of answers on one side of the screen; sides are drawn, so that half is expected


def summarise(items: Sequence[Item], votes: Sequence[Vote], editors: tuple[str, str] | None) -> dict[str, Any]:
    """Everything that the results page shows, as plain JSON; what cannot be computed is None."""
    known = {item.id: item for item in items}
    relevant = [vote for vote in votes if vote.item in known]
    people = [vote for vote in relevant if vote.annotator != ADJUDICATOR]
    real = [vote for vote in people if known[vote.item].gold is None and vote.label is not None]
    settled = [vote for vote in relevant if known[vote.item].gold is None and vote.label is not None]
    return {
        "num_items": sum(item.gold is None for item in items),
        "num_answered": len({vote.item for vote in real}),
        "num_votes": len(people),
        "num_elsewhere": len(votes) - len(relevant),
        "labels": {label: sum(vote.label == label for vote in real) for label in LABELS},
        "annotators": [_annotator(name, people, known) for name in sorted({vote.annotator for vote in people})],
        "agreement": agreement(real),
        "editors": win_rates(known, settled),
        "disputed": disputed(known, settled),
        "gsb": gsb(settled, editors),
    }


def _annotator(name: str, votes: Sequence[Vote], items: dict[str, Item]) -> dict[str, Any]:
    own = [vote for vote in votes if vote.annotator == name]
    timed = [vote.seconds for vote in own if vote.seconds > 0]
    gold = [vote for vote in own if items[vote.item].gold is not None and vote.label is not None]
    sided = [vote for vote in own if vote.answer in ("a", "b")]
    left = sum((vote.answer == "b") == vote.swapped for vote in sided) / len(sided) if sided else None
    flags = []
    if len(timed) >= MIN_FOR_FLAGS and median(timed) < FAST_SECONDS:
        flags.append(f"half of the answers came in less than {median(timed):.2f} s")
    if left is not None and len(sided) >= 4 * MIN_FOR_FLAGS and max(left, 1 - left) > ONE_SIDED:
        flags.append("chooses one side of the screen")
    return {
        "name": name,
        "answers": len(own),
        "skipped": sum(vote.answer == "skip" for vote in own),
        "same": sum(vote.answer == "same" for vote in own),
        "median_seconds": round(median(timed), 2) if timed else None,
        "gold_right": sum(vote.label == items[vote.item].gold for vote in gold),
        "gold_asked": len(gold),
        "left_share": left,
        "flags": flags,
    }


def by_item(votes: Sequence[Vote]) -> dict[str, list[Vote]]:
    """The votes of each item, in their order."""
    groups: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        groups[vote.item].append(vote)
    return groups


def majority(votes: Sequence[Vote]) -> Answer | None:
    """What a pair's votes come to: the owner's decision, or the answer with the most votes; None for a draw."""
    for vote in votes:
        if vote.annotator == ADJUDICATOR:
            return vote.answer
    counts = Counter(vote.answer for vote in votes).most_common(2)
    return counts[0][0] if counts and (len(counts) == 1 or counts[0][1] > counts[1][1]) else None


def is_contradictory(votes: Sequence[Vote]) -> bool:
    """Whether people chose both edits."""
    return {"a", "b"} <= {vote.answer for vote in votes if vote.annotator != ADJUDICATOR}


def disputed(items: dict[str, Item], votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """The pairs about which people differ, both edits chosen first, with everything that an adjudicator needs."""
    groups = [(items[key], group) for key, group in by_item(votes).items()]
    differing = [(item, group) for item, group in groups if len({vote.answer for vote in group if vote.annotator != ADJUDICATOR}) > 1]
    differing.sort(key=lambda pair: not is_contradictory(pair[1]))
    return [
        {
            "item": item.id,
            "instruction": item.task.instruction,
            "pictures": {"source": item.task.source.digest, "a": item.a.image.digest, "b": item.b.image.digest},
            "further": [ref.digest for ref in item.task.further],
            "editors": {"a": item.a.editor, "b": item.b.editor},
            "votes": [{"annotator": vote.annotator, "answer": vote.answer} for vote in group if vote.annotator != ADJUDICATOR],
            "majority": majority([vote for vote in group if vote.annotator != ADJUDICATOR]),
            "decision": next((vote.answer for vote in group if vote.annotator == ADJUDICATOR), None),
        }
        for item, group in differing
    ]


def win_rates(items: dict[str, Item], votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """How often each editor's edit was the better one, one majority answer a pair, "same" and draws half; the best first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for key, group in by_item(votes).items():
        item, winner = items[key], majority(group) or "same"
        if item.a.editor == item.b.editor:
            continue
        for editor, side in ((item.a.editor, "a"), (item.b.editor, "b")):
            counts[editor]["same" if winner == "same" else "won" if winner == side else "lost"] += 1
    rows = [(name, GSB(good=count["won"], same=count["same"], bad=count["lost"])) for name, count in counts.items()]
    rows.sort(key=lambda row: (-(row[1].win_rate or 0.0), row[0]))
    return [{"name": name, "won": c.good, "same": c.same, "lost": c.bad, "n": c.n, "rate": c.win_rate} for name, c in rows]


def agreement(votes: Sequence[Vote]) -> dict[str, Any]:
    """Krippendorff's alpha over everybody, Cohen's kappa and raw agreement of every two people who share items."""
    codes = {"a": -1.0, "same": 0.0, "b": 1.0}
    answers_of = {key: {vote.annotator: vote.answer for vote in group} for key, group in by_item(votes).items()}
    shared = [answers for answers in answers_of.values() if len(answers) > 1]
    names = sorted({vote.annotator for vote in votes})
    pairs = []
    for first, second in itertools.combinations(names, 2):
        both = [(answers[first], answers[second]) for answers in shared if first in answers and second in answers]
        if both:
            kappa = cohen_kappa([x for x, _ in both], [y for _, y in both])
            pairs.append(
                {"first": first, "second": second, "n": len(both), "agree": sum(x == y for x, y in both) / len(both), "kappa": kappa}
            )
    ratings = [[codes[answers[name]] if name in answers else None for name in names] for answers in shared]
    return {"num_shared": len(shared), "alpha": krippendorff_alpha(ratings) if shared else None, "pairs": pairs}


def gsb(votes: Sequence[Vote], editors: tuple[str, str] | None) -> dict[str, Any] | None:
    """(G - B) / (G + S + B) of the second editor over the first, one majority answer an item (paper, section 4); a draw is "same"."""
    if editors is None or not votes:
        return None
    answers = Counter(majority(group) or "same" for group in by_item(votes).values())
    study = GSB(good=answers["b"], same=answers["same"], bad=answers["a"])
    low, high = study.interval()
    named = {"before": editors[0], "after": editors[1], "good": study.good, "same": study.same, "bad": study.bad}
    return named | {"value": study.value, "low": low, "high": high, "n": study.n, "p_value": study.p_value}


# --- out and in ----------------------------------------------------------------------------------------


CSV = "annotations.csv"
COLUMNS = ("a", "b", "label", "annotator", "swapped", "seconds", "at", "study", "instruction")


@dataclass(frozen=True)
class Export:
    """The rows of a CSV, and what became of every other vote of the run."""

    rows: list[tuple[str, ...]]
    num_votes: int
    left_out: Counter[str]
    """Votes without a row of their own, by reason."""
    num_contradictory: int
    """Pairs about which people chose both edits."""

    def __str__(self) -> str:
        rest = "".join(f"; {count} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.rows)} rows of {self.num_votes} votes{rest}"


def export(
    run: Run, votes: Sequence[Vote], *, study: str | None = None, with_majority: bool = False, controls: Container[str] = ()
) -> Export:
    """Every vote of the run as a row, whatever flags it was given under.

    study: only the votes of this one. with_majority: one row a pair, the owner's decision or the answer of most; a draw has none.
    controls: items that are control questions, for votes that do not say so themselves.
    """
    pairs_by_id = _known_pairs(run, {vote.item for vote in votes})
    left_out: Counter[str] = Counter()
    taken: list[Vote] = []
    for vote in votes:
        reason = _why_not(vote, pairs_by_id, study, controls)
        if reason:
            left_out[reason] += 1
        else:
            taken.append(vote)
    groups = by_item(taken)
    contradictory = sum(map(is_contradictory, groups.values()))
    if with_majority:
        taken = list(_majorities(groups, left_out))
    elif decisions := sum(vote.annotator == ADJUDICATOR for vote in taken):
        left_out["decisions about disputed pairs (--majority writes them)"] += decisions
        taken = [vote for vote in taken if vote.annotator != ADJUDICATOR]
    rows = [_row(vote, *pairs_by_id[vote.item]) for vote in taken]
    return Export(rows, len(votes), left_out, contradictory)


def _why_not(vote: Vote, known: Container[str], study: str | None, controls: Container[str]) -> str:
    if vote.item not in known:
        return "about edits that this run does not hold"
    if study is not None and vote.study not in (study, ""):
        return f"of the study '{vote.study}'"
    if vote.control or vote.item in controls:
        return "about control questions"
    return "skipped" if vote.label is None else ""


def _majorities(groups: dict[str, list[Vote]], left_out: Counter[str]) -> Iterator[Vote]:
    for votes in groups.values():
        people = [vote for vote in votes if vote.annotator != ADJUDICATOR]
        winner = majority(votes)
        if winner is None:
            left_out["about pairs without a majority"] += len(people)
            continue
        left_out["that went into a majority"] += len(people) - 1 if people else 0
        name = ADJUDICATOR if len(people) < len(votes) else f"majority of {len(people)}" if len(people) > 1 else people[0].annotator
        yield replace(votes[-1], annotator=name, answer=winner)


def _known_pairs(run: Run, wanted: set[str]) -> dict[str, tuple[Quadruple, Quadruple]]:
    """The two edits of each wanted item, found among all pairs of edits of a task."""
    couples = (couple for group in edits_by_task(run) for couple in itertools.permutations(group, 2))
    named = ((item_id(x.candidate.id, y.candidate.id), (x, y)) for x, y in couples)
    return {key: couple for key, couple in named if key in wanted}


def _row(vote: Vote, a: Quadruple, b: Quadruple) -> tuple[str, ...]:
    seconds = f"{vote.seconds:.3f}"
    fields = (a.candidate.id, b.candidate.id, vote.answer, vote.annotator, str(int(vote.swapped)), seconds, vote.at, vote.study)
    return tuple(as_cell(field) for field in (*fields, a.task.instruction))


def to_csv(rows: Sequence[tuple[str, ...]]) -> bytes:
    """The rows with their header, UTF-8."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return buffer.getvalue().encode()


def write_csv(run: Run, exported: Export) -> Path:
    """Writes `annotations.csv` into the run and returns its path."""
    path = run.dir / CSV
    write_atomic(path, to_csv(exported.rows))
    return path


def export_pairs(run: Run, exported: Export, held_out_share: float = 0.2) -> tuple[Path, StageCounts]:
    """Writes the CSV and, from it, `07_pairs`. Raises DataError when there is no answer, or when 07_pairs was made from others."""
    if not exported.rows:
        raise DataError(f"{run.dir} holds no answers to export ({exported}); label some pairs first: editr1 annotate {run.dir}")
    path = write_csv(run, exported)
    return path, pairs.run(pairs.Config(file=path, held_out_share=held_out_share), run.dir)
