"""VIEScore's stored answers give the known figures, and files that are not what they should be give one clear line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench_files import write_study
from editr1.bench.viescore_pairs import VIEScoreData, load, metrics, notebook_rho, photo_of, read_answers, read_rater, read_stored
from editr1.errors import DataError
from editr1.stats import clustered_standard_error


def test_gpt4o_on_the_published_study(public_data: Path) -> None:
    data = load(public_data / "viescore", "results_gpt4o_0shot")
    found = {metric.name: metric for metric in metrics(data)}
    strict, half, non_tied = (found[name] for name in ("viescore_pairs_strict", "viescore_pairs", "viescore_pairs_non_tied"))
    assert [f"{100 * m.value:.2f}" for m in (strict, half, non_tied)] == ["78.64", "82.08", "84.45"]
    assert strict.n == 2182
    assert round(strict.tie_rate * strict.n) == 150
    assert found["viescore_three_class"].n == 5012
    assert f"{100 * found['viescore_always_tie'].value:.1f}" == "56.5"
    assert [f"{100 * found[f'viescore_spearman_{kind}'].value:.1f}" for kind in ("plain", "fisher")] == ["40.3", "41.9"]
    # VIEScore's notebook and EditReward's table apply tanh to the mean of rho: 38.21 is O of these files in both
    assert [f"{100 * found[f'viescore_notebook_{aspect}'].value:.2f}" for aspect in ("SC", "PQ", "O")] == ["40.62", "48.63", "38.21"]
    # lists of one are drawn at random by VIEScore's script when it could not parse an answer
    assert round(found["viescore_odd_scores"].value * found["viescore_odd_scores"].n) == 6


def strict_on_decisive(data: VIEScoreData) -> tuple[list[float], list[str]]:
    """Strict credit of every decisive pair with its uid, written apart from the code under test."""
    pairs = [(uid, a, b) for uid in data.uids for i, a in enumerate(data.editors) for b in data.editors[i + 1 :]]
    pairs = [(u, a, b) for u, a, b in pairs if abs(data.human[u, a] - data.human[u, b]) > 1e-9]
    right = [float((data.judge[u, a] - data.judge[u, b]) * (data.human[u, a] - data.human[u, b]) > 1e-9) for u, a, b in pairs]
    return right, [uid for uid, _, _ in pairs]


def test_the_clustered_error_is_twice_the_naive_one(public_data: Path) -> None:
    data = load(public_data / "viescore", "results_gpt4o_0shot")
    found = {metric.protocol.rpartition("/")[2]: metric.value for metric in metrics(data) if "standard-error" in metric.protocol}
    # uids are turns about one photo: errors clustered by uid are still too small
    assert {name: f"{value:.4f}" for name, value in found.items()} == {"naive": "0.0088", "by-uid": "0.0168", "by-photo": "0.0175"}
    assert len({photo_of(uid) for uid in data.uids}) == 116
    right, uids = strict_on_decisive(data)
    assert clustered_standard_error(right, uids) == pytest.approx(found["by-uid"], rel=1e-12)


def test_an_answer_that_is_not_there_is_unscored_and_counted(tmp_path: Path) -> None:
    ratings = {uid: {"x": "[1, 1]", "y": "[0, 0]"} for uid in ("u1", "u2", "u3")}
    root = write_study(tmp_path, {"x": {"u1": [8, 9], "u2": [8, 9]}, "y": {"u1": [2, 3], "u3": [2, 3]}}, ratings)
    found = {metric.name: metric for metric in metrics(load(root, "judge"))}
    strict = found["viescore_pairs_strict"]
    assert (strict.n, strict.num_unscored, strict.value) == (3, 2, pytest.approx(1 / 3))
    assert found["viescore_pairs"].value == pytest.approx(2 / 3)


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
        ("uid\tx\n\t[1, 1]", "a row has no uid"),
        ("uid\tx\nu", "line 2 has another number of cells"),
    ]:
        ratings.write_text(text)
        with pytest.raises(DataError, match=message):
            read_rater(ratings)
    answers = tmp_path / "SC.json"
    for text in ("[1]", "{", '{"u": 7}'):
        answers.write_text(text)
        with pytest.raises(DataError, match=r"SC\.json"):
            read_answers(answers)


def test_a_study_of_one_photo_and_one_without_answers_have_no_three_class_number(tmp_path: Path) -> None:
    ratings = {"sample_1_1.jpg": {"x": "[1, 1]", "y": "[0, 0]"}}
    one = write_study(tmp_path / "one", {name: {"sample_1_1.jpg": [8, 8]} for name in "xy"}, ratings)
    empty = write_study(tmp_path / "empty", {"x": {}, "y": {}}, ratings)
    for root, num_stored, num_unscored in ((one, 4, 0), (empty, 0, 1)):
        found = {metric.name: metric for metric in metrics(load(root, "judge"))}
        assert (found["viescore_three_class"].value, found["viescore_three_class"].num_unscored) == (None, num_unscored)
        assert found["viescore_odd_scores"].n == num_stored


def test_answers_without_a_human_rating_are_refused(tmp_path: Path) -> None:
    root = write_study(tmp_path, {"x": {"u1": [8, 9], "u9": [1, 1]}}, {"u1": {"x": "[1, 1]"}})
    with pytest.raises(DataError, match="no human rating"):
        load(root, "judge")


def test_a_task_gives_its_own_figures_and_another_is_refused(tmp_path: Path) -> None:
    """What lies below _answers/<results> is never taken for the Text-Guided study."""
    ratings = {f"sample_{i}_1.jpg": {"x": "[1, 1]", "y": "[0, 0]"} for i in range(3)}
    good = {"x": {uid: [9, 9] for uid in ratings}, "y": {uid: [1, 1] for uid in ratings}}
    write_study(tmp_path, good, ratings)
    write_study(tmp_path, {"x": good["y"], "y": good["x"]}, ratings, task="ImagenHub_Mask-Guided_IE")
    write_study(tmp_path, good, ratings, task="ImagenHub_Text-Guided_IG")
    results = tmp_path / "_answers" / "judge"
    both = {stored.benchmark: stored for stored in read_stored([results])}
    assert {name: stored.headline["strict"] for name, stored in both.items()} == {"viescore_pairs": 100.0, "viescore_mask_guided": 0.0}
    assert [row.value for row in both["viescore_mask_guided"].outcomes] == [0.0] * 3
    assert [stored.benchmark for stored in read_stored([results / "ImagenHub_Mask-Guided_IE"])] == ["viescore_mask_guided"]
    for other in ("ImagenHub_Text-Guided_IG", "ImagenHub_Mask-Guided_IE/x"):
        with pytest.raises(DataError, match="give a folder _answers/<results>, or one of its"):
            read_stored([results / other])


def test_the_notebooks_rho_takes_the_last_bit_for_a_rank_and_ours_does_not(tmp_path: Path) -> None:
    ratings = {f"u{i}": {"x": f"[{score}, 1]"} for i, score in enumerate((0, 0.5, 0.5, 1))}
    data = load(write_study(tmp_path, {"x": {"u0": [1.9, 9], "u1": [7, 8.5], "u2": [6, 9], "u3": [12, 9]}}, ratings), "judge")
    # whole sub-scores (u0: 1), cut off at 10 (u3): SC .1 .7 .6 1 against 0 .5 .5 1
    assert notebook_rho(data, "x", "SC") == pytest.approx(3 / math.sqrt(10))
    assert data.judge["u3", "x"] is None  # out of range is no score of ours


def test_the_notebooks_rho_hangs_on_the_order_of_the_raters() -> None:
    # sqrt(SC PQ) is .5, .71, .71 and .71, .5, .71: the same mean, to the last bit or not by the order in which it is added up
    ratings = {"u0": [(0.5, 0.5), (0.5, 1.0), (0.5, 1.0)], "u1": [(0.5, 1.0), (0.5, 0.5), (0.5, 1.0)], "u2": [(1.0, 1.0)] * 3}
    raw = {(uid, "x"): (score, score) for uid, score in (("u0", 1), ("u1", 2), ("u2", 3))}
    data = VIEScoreData({}, {}, 0, 0, {(uid, "x"): rated for uid, rated in ratings.items()}, raw)
    assert notebook_rho(data, "x", "O") == pytest.approx(math.sqrt(3) / 2)
    assert notebook_rho(data, "x", "O", (0, 2, 1)) in (pytest.approx(0.5), pytest.approx(1.0))
