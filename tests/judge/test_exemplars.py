"""The pool of exemplars: as many as the paper has, inside the quotas, answerable, and not the same thing twice."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from editr1.judge.decompose import check_principles, normalised
from editr1.judge.prompts import NUM_SHOWN, draw_exemplars, exemplars

GEDIT_CATEGORIES = {
    *("background_change", "color_alter", "material_alter", "motion_change", "ps_human", "style_change"),
    *("subject-add", "subject-remove", "subject-replace", "text_change", "tone_transfer"),
}
# Questions about taste, or about the editing itself, cannot be answered from two pictures.
_TASTE = r"\b(beautiful|good|nice|better|improved|correctly edited|as (?:asked|instructed|requested)|instruction)\b"
UNANSWERABLE = re.compile(_TASTE, re.IGNORECASE)


def test_the_pool_has_sixty_and_covers_every_category_and_compound_edits():
    kinds = Counter(exemplar.kind for exemplar in exemplars())
    assert sum(kinds.values()) == 60
    assert kinds.keys() == GEDIT_CATEGORIES | {"compound"}
    assert min(kinds.values()) >= 4


@pytest.mark.parametrize("exemplar", exemplars(), ids=lambda exemplar: exemplar.instruction[:40])
def test_each_set_is_inside_the_quotas_and_answerable_by_yes_or_no(exemplar):
    assert check_principles(exemplar.principles) == ""
    for principle in exemplar.principles:
        assert not UNANSWERABLE.search(principle.question), principle.question
        assert principle.question.count("?") == 1
        assert len(principle.question.split()) <= 20, principle.question
    assert exemplar.source.endswith(".")
    assert exemplar.instruction.endswith(".")


def test_about_ten_principles_a_task():
    sizes = [len(exemplar.principles) for exemplar in exemplars()]
    assert min(sizes) >= 8
    assert 9.0 <= sum(sizes) / len(sizes) <= 10.5


def test_no_two_exemplars_are_alike_and_questions_are_not_boilerplate():
    assert len({exemplar.instruction for exemplar in exemplars()}) == 60
    assert len({exemplar.source for exemplar in exemplars()}) == 60
    asked = Counter(normalised(principle.question) for exemplar in exemplars() for principle in exemplar.principles)
    assert max(asked.values()) <= 3
    assert sum(count > 1 for count in asked.values()) <= 0.05 * len(asked)


def test_every_exemplar_can_be_drawn_and_a_draw_has_no_doubles():
    drawn = {exemplar.instruction for seed in range(400) for exemplar in draw_exemplars(seed)}
    assert len(drawn) == 60
    assert all(len({exemplar.instruction for exemplar in draw_exemplars(seed)}) == NUM_SHOWN for seed in range(50))
    assert draw_exemplars(7) == draw_exemplars(7)
