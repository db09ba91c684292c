"""Error propagation: the damage is what it says, and its effect is measured against the undamaged judgement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_judges import PRINCIPLES, ByPrinciples, Silent, items
from editr1.audit.perturb import KINDS, PairOfCases, PerturbCase, damage, run_perturbation
from editr1.schema import Principle

FOREIGN = (Principle("Is the dog asleep?", "follow"), Principle("Is the bone kept?", "keep"))
GOLD = (True, False, True, False)
CASES = [PerturbCase(item, f"task-{index}", GOLD) for index, item in enumerate(items(8))]


@given(st.sampled_from(KINDS), st.integers(0, 10_000), st.integers(1, 6))
def test_untouched_principles_keep_their_words_and_order(kind, seed, amount):
    found = damage(PRINCIPLES, kind, np.random.default_rng(seed), FOREIGN, amount)
    kept = [(origin, principle) for origin, principle in zip(found.origins, found.principles, strict=True) if origin is not None]
    assert kept
    assert [origin for origin, _ in kept] == sorted(origin for origin, _ in kept)
    assert all(principle.question == PRINCIPLES[origin].question for origin, principle in kept)


@pytest.mark.parametrize(("kind", "size"), [("drop", 3), ("duplicate", 5), ("negate", 4), ("swap_category", 4), ("replace", 4)])
def test_one_principle_is_touched(kind, size):
    found = damage(PRINCIPLES, kind, np.random.default_rng(1), FOREIGN)
    assert len(found.principles) == size
    changed = set(PRINCIPLES) ^ set(found.principles)
    assert len({principle.question for principle in changed}) == {"drop": 1, "duplicate": 0, "swap_category": 1}.get(kind, 2)


def figures(result) -> dict[str, float | None]:
    return {metric.name.rpartition("/")[2]: metric.value for metric in result.metrics}


def test_the_effect_on_a_judge_whose_score_follows_its_answers():
    results = {result.kind: result for result in run_perturbation(ByPrinciples(), CASES, amount=1)}
    for result in results.values():
        assert result.num_edits == 8
        found = figures(result)
        assert found["verdict_accuracy_change"] == found["verdict_flips"] == 0.0  # answers to untouched questions stay right
        assert found["score_movement"] > 0.0
    assert figures(results["negate"])["score_change"] < 0.0  # a negated truth becomes a no
    names = {metric.name for metric in results["drop"].metrics}
    assert names == {
        f"propagation/drop/{figure}" for figure in ("score_change", "score_movement", "verdict_accuracy_change", "verdict_flips")
    }


def test_pair_accuracy_before_and_after_is_compared_on_the_same_pairs():
    pairs = [PairOfCases("edit-0", "edit-1", "a", "task-0"), PairOfCases("edit-2", "edit-3", "same", "task-2")]
    (result,) = run_perturbation(ByPrinciples(), CASES, pairs, kinds=("duplicate",))
    (change,) = [metric for metric in result.metrics if metric.name.endswith("/pair_accuracy_change")]
    assert change.n == 1  # "same" decides nothing


def test_a_judge_that_scores_nothing_gives_no_figures():
    (result,) = run_perturbation(Silent(), CASES, kinds=("drop",))
    assert (result.num_edits, result.num_unscored, result.metrics) == (0, 8, ())
