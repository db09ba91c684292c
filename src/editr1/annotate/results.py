"""What the answers say: progress, pace, control questions, agreement, and GSB between two editors."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any

from editr1.annotate.items import LABELS, Item
from editr1.annotate.votes import Vote
from editr1.stats import GSB
from editr1.stats.agreement import cohen_kappa, krippendorff_alpha


def summarise(items: Sequence[Item], votes: Sequence[Vote], editors: tuple[str, str] | None) -> dict[str, Any]:
    """Everything that the results page shows, as plain JSON; what cannot be computed is None."""
    known = {item.id: item for item in items}
    relevant = [vote for vote in votes if vote.item in known]
    real = [vote for vote in relevant if known[vote.item].gold is None and vote.label is not None]
    return {
        "num_items": sum(item.gold is None for item in items),
        "num_answered": len({vote.item for vote in real}),
        "num_votes": len(relevant),
        "labels": {label: sum(vote.label == label for vote in real) for label in LABELS},
        "annotators": [_annotator(name, relevant, known) for name in sorted({vote.annotator for vote in relevant})],
        "agreement": agreement(real),
        "gsb": gsb(real, editors),
    }


def _annotator(name: str, votes: Sequence[Vote], items: dict[str, Item]) -> dict[str, Any]:
    own = [vote for vote in votes if vote.annotator == name]
    timed = [vote.seconds for vote in own if vote.seconds > 0]
    gold = [vote for vote in own if items[vote.item].gold is not None and vote.label is not None]
    sided = [vote for vote in own if vote.answer in ("a", "b")]
    return {
        "name": name,
        "answers": len(own),
        "skipped": sum(vote.answer == "skip" for vote in own),
        "same": sum(vote.answer == "same" for vote in own),
        "median_seconds": round(median(timed), 2) if timed else None,
        "gold_right": sum(vote.label == items[vote.item].gold for vote in gold),
        "gold_asked": len(gold),
        "left_share": sum((vote.answer == "b") == vote.swapped for vote in sided) / len(sided) if sided else None,
    }


def agreement(votes: Sequence[Vote]) -> dict[str, Any]:
    """Krippendorff's alpha over everybody, Cohen's kappa and raw agreement of every two people who share items."""
    codes = {"a": -1.0, "same": 0.0, "b": 1.0}
    by_item: dict[str, dict[str, str]] = defaultdict(dict)
    for vote in votes:
        by_item[vote.item][vote.annotator] = vote.answer
    shared = [answers for answers in by_item.values() if len(answers) > 1]
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
    """(G - B) / (G + S + B) of the second editor over the first, one majority answer an item (paper, section 5)."""
    if editors is None or not votes:
        return None
    by_item: dict[str, Counter[str]] = defaultdict(Counter)
    for vote in votes:
        by_item[vote.item][vote.answer] += 1
    answers = Counter(_majority(counts) for counts in by_item.values())
    study = GSB(good=answers["b"], same=answers["same"], bad=answers["a"])
    low, high = study.interval()
    named = {"before": editors[0], "after": editors[1], "good": study.good, "same": study.same, "bad": study.bad}
    return named | {"value": study.value, "low": low, "high": high, "n": study.n, "p_value": study.p_value}


def _majority(counts: Counter[str]) -> str:
    """The answer with the most votes; a draw between a and b is "same"."""
    best = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == best]
    return winners[0] if len(winners) == 1 else "same"
