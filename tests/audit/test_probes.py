"""Probes: a sound judge passes all, each unsound one fails where its fault lies."""

from __future__ import annotations

import numpy as np
import pytest

from audit_judges import Gullible, Nervous, Silent, Sound, items
from editr1.audit.probes import PROBES, blend, find_probes, pair_up, recompressed, resized, run_probes, unedited, white_border
from editr1.errors import ConfigError, DataError

CASES = pair_up(items(12), "test")


def _broken(judge) -> set[str]:
    return {result.name for result in run_probes(judge, CASES) if result.metric.holds is False}


def test_a_sound_judge_keeps_every_law():
    for result in run_probes(Sound(), CASES):
        metric = result.metric
        assert metric.holds, (result.name, result.broken)
        assert metric.n == 12
        assert metric.low is not None
        assert 0.7 < metric.low < metric.value == 1.0  # Wilson: 12 of 12 proves no more than 76 %


def test_each_unsound_judge_breaks_the_laws_that_it_should():
    assert _broken(Gullible()) == {"unedited", "black", "white_border", "other_edit", "wrong_instruction", "injected_tag", "injected_order"}
    assert {"resized", "recompressed"} <= _broken(Nervous())


def test_a_judge_that_scores_nothing_keeps_no_law_and_is_no_zero():
    for result in run_probes(Silent(), CASES):
        metric = result.metric
        assert (metric.value, metric.n, metric.num_unscored, metric.holds) == (None, 0, 12, False)


def test_blends_say_nothing_about_an_edit_that_is_bad_to_begin_with():
    blends = find_probes(["blends"])
    unmoved = [unedited(case) for case in CASES]
    result = run_probes(Sound(), pair_up(unmoved, "test"), probes=blends)[0]
    assert (result.metric.n, result.num_not_applicable) == (0, 12)
    assert result.metric.holds is None
    law = blends[0].law
    assert law([0.0, 3.0, 2.5, 6.0, 8.0]) is True  # a dip of half a point is none
    assert law([0.0, 5.0, 2.0, 6.0, 8.0]) is False


def test_variants_keep_the_size_and_the_id():
    for probe in PROBES:
        for item in probe.variants(CASES[0]):
            assert item.edited.size == CASES[0].item.edited.size
            assert item.id == CASES[0].id


def test_pictures_are_changed_as_the_probes_say():
    case = CASES[0]
    original = np.asarray(case.item.edited, float)
    assert np.asarray(white_border(case).edited)[0].min() == 255
    for jitter in (resized(case), recompressed(case)):
        assert 0 < np.abs(np.asarray(jitter.edited, float) - original).mean() < 6
    assert np.array_equal(np.asarray(blend(case, 0.0).edited), np.asarray(case.item.source))
    assert np.array_equal(np.asarray(blend(case, 1.0).edited), np.asarray(case.item.edited))


def test_equal_variants_are_scored_once():
    class Counting(Sound):
        calls = 0

        def score(self, items, seed=0):
            self.calls += len(items)
            return super().score(items, seed)

    judge = Counting()
    run_probes(judge, CASES[:2])
    assert judge.calls == 2 * 14  # edit, source, black, border, other, wrong words, 3 blends + the blend at 0, 2 jitters, 2 injections


def test_an_unknown_probe_and_too_few_cases_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'unedited'"):
        find_probes(["unedted"])
    with pytest.raises(DataError, match="needs at least 2"):
        pair_up(items(1), "x.jsonl")
