"""Best-of-N: the judge lies between random and oracle when it should, and ties are nobody's choice."""

from __future__ import annotations

import random

import pytest

from editr1.errors import DataError
from editr1.measure.groups import Choice, best_of_n, pick_value


def groups(judge: str, num_tasks: int = 60) -> list[list[Choice]]:
    rng = random.Random(0)
    made = []
    for _ in range(num_tasks):
        truths = {editor: rng.uniform(0, 10) + (1.0 if editor == "y" else 0.0) for editor in "xyz"}
        score = {"oracle": lambda t: t, "constant": lambda t: 5.0, "silent": lambda t: None, "wrong": lambda t: -t}[judge]
        made.append([Choice(editor, score(truth), truth) for editor, truth in truths.items()])
    return made


def values(judge: str) -> dict[str, float]:
    return {metric.protocol: metric.value for metric in best_of_n(groups(judge))}


def test_an_oracle_judge_reaches_the_oracle_and_one_that_says_nothing_is_a_random_pick() -> None:
    found = values("oracle")
    assert found["best-of-n/judge"] == found["best-of-n/oracle"] > found["best-of-n/best-editor"] > found["best-of-n/random"]
    for judge in ("constant", "silent"):
        found = values(judge)
        assert found["best-of-n/judge"] == pytest.approx(found["best-of-n/random"])
        assert found["best-of-n/gain"] == pytest.approx(0.0)
    assert values("wrong")["best-of-n/gain"] < 0


def test_unscored_edits_are_counted_and_not_picked() -> None:
    assert pick_value([Choice("x", None, 9.0), Choice("y", 1.0, 2.0)]) == 2.0
    assert best_of_n(groups("silent"))[0].num_unscored == 180


def test_the_last_bit_of_a_mean_of_traces_picks_nothing() -> None:
    assert pick_value([Choice("x", (0.1 + 0.2 + 0.3) / 3, 1.0), Choice("y", (0.3 + 0.2 + 0.1) / 3, 0.0)]) == 0.5


def test_no_edit_is_no_best_of_n() -> None:
    for bad in ([], [[]]):
        with pytest.raises(DataError, match="at least one"):
            best_of_n(bad)
