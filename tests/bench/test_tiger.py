"""TIGER-Lab's bench: pooling of the published table, groups, both protocols apart, bad rows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_files import png, write_parquet
from editr1.bench.base import JudgedEdit, JudgedPair
from editr1.bench.editreward_tiger import LABELS, AnsweredGroup, Row, TigerBench, build, complete_groups, kway_pair_metrics, read_ranking
from editr1.errors import DataError
from editr1.schema import Metric


def row(group: str, k: int, letters: tuple[str, str], keys: tuple[str, str], sign: int) -> Row:
    return Row("", keys, "", LABELS[sign], group, f"k{k}", lambda _: None, k=k, letters=letters)  # type: ignore[arg-type, return-value]


def metrics(rows: list[Row], scores: dict[str, float]) -> list[Metric]:
    return TigerBench(tuple(rows)).metrics({key: JudgedEdit(key, score) for key, score in scores.items()})


def group_rows(name: str, order: str, k: int) -> list[Row]:
    """All comparisons of a group whose letters fall in `order`, best first."""
    return [
        row(name, k, (a, b), (f"{name}{a}", f"{name}{b}"), 1 if order.index(a) < order.index(b) else -1)
        for a, b in itertools.combinations(sorted(order), 2)
    ]


def pooled(accuracies: list[float], counts: list[int]) -> float:
    """Overall accuracy of groups of several sizes: right groups are whole numbers, so each accuracy is first turned back into one."""
    right = [round(accuracy * count / 100) for accuracy, count in zip(accuracies, counts, strict=True)]
    return 100 * sum(right) / sum(counts)


def test_published_overall_is_pooled_groups(published: dict[str, Any]) -> None:
    table = published["tiger_editreward_bench"]
    counts = table["_inferred_groups"]
    assert sum(counts) == 484
    exact = {name for name, row in table.items() if not name.startswith("_") and abs(pooled(row[:3], counts) - row[3]) < 0.011}
    assert {"Random", "GPT-4o", "EditReward (MiMo-VL-7B)"} <= exact
    assert f"{pooled(table['Gemini-2.0-Flash'][:3], counts):.2f}" == "34.71"  # printed 33.47
    assert f"{pooled(table['EditReward (Qwen2.5-VL-7B)'][:3], counts):.2f}" == "36.36"  # printed 36.78


def test_oracle_constant_and_missing_scores() -> None:
    rows = [row for g in range(20) for row in group_rows(f"t{g}", "BAC", 3)] + [
        row for g in range(20) for row in group_rows(f"f{g}", "DBCA", 4)
    ]
    rows += [row for g in range(20) for row in group_rows(f"p{g}", "AB", 2)]
    keys = {key for one in rows for key in one.sides}
    rank = {"t": "BAC", "f": "DBCA", "p": "AB"}
    oracle = {key: 9.0 - rank[key[0]].index(key[-1]) for key in keys}
    found = {metric.protocol: metric for metric in metrics(rows, oracle)}
    for protocol in ("tiger-erb/k3/argsort", "tiger-erb/k4/argsort", "tiger-erb/k2/three-class/cross-fitted", "tiger-erb/k4/tau-b"):
        assert found[protocol].value == pytest.approx(1.0)
    assert found["tiger-erb/k4/argsort/chance"].value == pytest.approx(1 / 24)
    constant = {metric.protocol: metric for metric in metrics(rows, dict.fromkeys(keys, 5.0))}
    assert constant["tiger-erb/k3/argsort"].value == 0.0
    silent = {metric.protocol: metric for metric in metrics(rows, {})}
    assert (silent["tiger-erb/k3/argsort"].value, silent["tiger-erb/k3/argsort"].num_unscored) == (0.0, 20)


def test_a_coin_meets_the_chance_of_its_protocol() -> None:
    rows = [row for g in range(400) for row in group_rows(f"t{g}", "ABC", 3)]
    rng = np.random.default_rng(0)
    coin = {key: float(rng.random()) for one in rows for key in one.sides}
    found = {metric.protocol: metric for metric in metrics(rows, coin)}["tiger-erb/k3/argsort"]
    assert found.low < 1 / 6 < found.high


def test_incomplete_and_circular_groups_are_left_out_and_counted() -> None:
    whole, short = group_rows("w", "ABC", 3), group_rows("s", "ABC", 3)[:2]
    circle = [row("c", 3, pair, pair, sign) for pair, sign in [(("A", "B"), 1), (("B", "C"), 1), (("A", "C"), -1)]]
    groups, num_broken = complete_groups([*whole, *short, *circle])
    assert ([group.name for group in groups], num_broken) == (["w"], 2)
    assert groups[0].places == (1, 2, 3)
    twice = [*group_rows("d", "ABC", 3)[:2], group_rows("d", "ABC", 3)[0]]
    assert complete_groups(twice) == ([], 1)  # three rows, and B against C was never asked
    tied = [row("e", 3, ("A", "B"), ("a", "b"), 0), row("e", 3, ("A", "C"), ("a", "c"), 1), row("e", 3, ("B", "C"), ("b", "c"), 1)]
    assert complete_groups(tied)[0][0].places == (1, 1, 3)


def test_a_judge_of_pairs_must_win_every_comparison_and_each_order_counts_half() -> None:
    labels = ("a", "a", "same")
    whole = tuple(JudgedPair("", label, label) for label in labels)
    once = (*whole[:2], JudgedPair("", "same", "b"))
    groups = [AnsweredGroup(labels, answers) for answers in (whole, once, (*whole[:2], None))]
    found = {metric.protocol: metric for metric in kway_pair_metrics(groups, 3, "t", "p/k3/pairs", num_left_out=2)}
    assert [group.credit for group in groups] == [1.0, 0.5, 0.0]
    assert (found["p/k3/pairs"].value, found["p/k3/pairs"].num_unscored) == (0.5, 1)
    assert found["p/k3/pairs"].by_category == {"groups left out": 2}
    assert found["p/k3/pairs/chance"].value == 1 / 8


def test_a_ranking_uses_the_letters_of_its_comparison() -> None:
    assert read_ranking("AvsC", "A=C", "r") == (("A", "C"), 0)
    for comparison, ranking in [("AvsC", "A>B"), ("A", "A>B"), ("AvsA", "A=A"), ("AvsB", "")]:
        with pytest.raises(DataError, match="row 3: comparison_type"):
            read_ranking(comparison, ranking, "row 3")


def test_loading_the_published_layout(tmp_path: Path) -> None:
    rows = [
        {
            "id": f"g1_{i}",
            "dataset": "3pair",
            "num_candidates": 3,
            "instruction": "do",
            "source_image": png(0),
            "candidate_1": png(ord(a)),
            "candidate_2": png(ord(b)),
            "comparison_type": f"{a}vs{b}",
            "ranking": f"{a}>{b}",
        }
        for i, (a, b) in enumerate(itertools.combinations("ABC", 2))
    ]
    bench = build(write_parquet(tmp_path / "3pair", rows, ("source_image", "candidate_1", "candidate_2")))
    items = list(bench.edits())
    assert len(items) == 3
    assert items[0].load()[0].size == (8, 8)
    groups, num_broken = complete_groups(bench.rows)
    assert (len(groups), num_broken) == (1, 0)
    judged = {key: JudgedEdit(key, 9.0 - place) for key, place in zip(groups[0].keys, groups[0].places, strict=True)}
    assert {metric.protocol: metric.value for metric in bench.metrics(judged)}["tiger-erb/k3/argsort"] == 1.0
    with pytest.raises(DataError, match="accept the terms"):
        build()
