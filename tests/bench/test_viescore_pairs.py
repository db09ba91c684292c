"""VIEScore's stored answers give the known figures, and files that are not what they should be give one clear line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from editr1.bench.viescore_pairs import TASK, load, metrics, read_answers, read_rater
from editr1.errors import DataError
from editr1.stats import bootstrap_mean


def write_study(root: Path, scores: dict[str, dict[str, object]], ratings: dict[str, dict[str, str]]) -> Path:
    """A study of one rater in the published layout; scores[editor][uid], ratings[uid][editor]."""
    raters = root / "human_annotations" / "ImagenHub_human_eval_results" / TASK
    raters.mkdir(parents=True)
    editors = sorted(scores)
    lines = ["\t".join(["uid", *editors]), *("\t".join([uid, *(row[editor] for editor in editors)]) for uid, row in ratings.items())]
    (raters / "Text-Guided_IE_rater1.tsv").write_text("\n".join(lines))
    for editor in editors:
        folder = root / "answers" / "judge" / TASK / editor
        folder.mkdir(parents=True)
        for aspect in ("SC", "PQ"):
            (folder / f"{aspect}.json").write_text(json.dumps({uid: {"score": raw} for uid, raw in scores[editor].items()}))
    return root


def test_gpt4o_on_the_published_study(public_data: Path) -> None:
    data = load(public_data / "viescore", "results_gpt4o_0shot")
    found = {metric.name: metric for metric in metrics(data)}
    strict, half, non_tied = (found[name] for name in ("viescore_pairs_strict", "viescore_pairs", "viescore_pairs_non_tied"))
    assert [f"{100 * m.value:.2f}" for m in (strict, half, non_tied)] == ["78.64", "82.08", "84.45"]
    assert strict.n == 2182
    assert round(strict.tie_rate * strict.n) == 150
    assert found["viescore_three_class"].n == 5012
    assert f"{100 * found['viescore_always_tie'].value:.1f}" == "56.5"
    # benchmarks that average rho and apply tanh print 38.21 for these files; the plain mean is 40.3, Fisher's 41.9
    plain = found["viescore_spearman_plain"].value
    assert f"{100 * math.tanh(plain):.2f}" == "38.21"
    assert [f"{100 * v:.1f}" for v in (plain, found["viescore_spearman_fisher"].value)] == ["40.2", "41.9"]


def test_the_clustered_error_is_twice_the_naive_one(public_data: Path) -> None:
    data = load(public_data / "viescore", "results_gpt4o_0shot")
    pairs = [(uid, a, b) for uid in data.uids for i, a in enumerate(data.editors) for b in data.editors[i + 1 :]]
    pairs = [(u, a, b) for u, a, b in pairs if (u, a) in data.judge and (u, b) in data.judge]
    pairs = [(u, a, b) for u, a, b in pairs if abs(data.human[u, a] - data.human[u, b]) > 1e-9]
    right = [float((data.judge[u, a] - data.judge[u, b]) * (data.human[u, a] - data.human[u, b]) > 1e-9) for u, a, b in pairs]
    share = np.mean(right)
    assert f"{math.sqrt(share * (1 - share) / len(right)):.4f}" == "0.0088"
    estimate = bootstrap_mean(right, [uid for uid, _, _ in pairs], rng=np.random.default_rng(0))
    assert estimate.standard_error == pytest.approx(0.0170, abs=3e-4)  # Monte Carlo


def test_an_unreadable_score_is_unscored_and_counted(tmp_path: Path) -> None:
    root = write_study(
        tmp_path,
        {"x": {"u1": [8, 9], "u2": "refused"}, "y": {"u1": [2, 3], "u2": [5, 5]}},
        {"u1": {"x": "[1, 1]", "y": "[0, 0]"}, "u2": {"x": "[1, 1]", "y": "[0, 0.5]"}},
    )
    found = {metric.name: metric for metric in metrics(load(root, "judge"))}
    assert (found["viescore_pairs_strict"].value, found["viescore_pairs_strict"].num_unscored) == (0.5, 1)
    assert found["viescore_pairs"].value == 0.75


def test_files_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="git clone"):
        load(None, "judge")
    ratings = tmp_path / "r.tsv"
    for text, message in [
        ("id\tx\nu\t[1, 1]", "column 'uid' is missing"),
        ("uid\tx\nu\t[1, 1]\nu\t[1, 1]", "more than once"),
        ("uid\tx\nu\t[1, 2]", r"values in \[0, 1\]"),
    ]:
        ratings.write_text(text)
        with pytest.raises(DataError, match=message):
            read_rater(ratings)
    answers = tmp_path / "SC.json"
    for text in ("[1]", "{", '{"u": 7}'):
        answers.write_text(text)
        with pytest.raises(DataError, match=r"SC\.json"):
            read_answers(answers)


def test_answers_without_a_human_rating_are_refused(tmp_path: Path) -> None:
    root = write_study(tmp_path, {"x": {"u1": [8, 9], "u9": [1, 1]}}, {"u1": {"x": "[1, 1]"}})
    with pytest.raises(DataError, match="no human rating"):
        load(root, "judge")
