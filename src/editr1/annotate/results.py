"""What the answers say: progress, pace, control questions, agreement, disputes, win rates, and GSB between two editors."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from editr1.annotate.items import LABELS, Item
from editr1.annotate.votes import ADJUDICATOR, Answer, Vote
from editr1.stats import GSB
from editr1.stats.agreement import cohen_kappa, krippendorff_alpha

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
