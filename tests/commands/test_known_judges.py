"""Judges whose figures are known, on every benchmark of pairs: an oracle is right, a constant never, a coin half of the time."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench_files import dot, write_parquet, write_study
from bench_judges import ByName
from editr1.bench.editreward import TASKS
from editr1.cli import main
from tiny_run import build_tiny_run

NUM = 120


def editscore(folder: Path) -> None:
    import datasets

    rows = [
        {
            "key": [f"{i}w", f"{i}l"],
            "instruction": f"edit {i}",
            "input_image": {"bytes": dot(i, False)},
            "output_images": [{"bytes": dot(1000 + i, True)}, {"bytes": dot(1000 + i, False)}],
            "task_type": TASKS[i % 13],
            "dimension": "overall",
        }
        for i in range(NUM)
    ]
    table = datasets.Dataset.from_list(rows).cast_column("input_image", datasets.Image())
    table.cast_column("output_images", datasets.List(datasets.Image())).to_parquet(str(folder / "test.parquet"))


def tiger(folder: Path) -> None:
    """Groups of two, whose better edit stands first or second in turn, and groups of three with two equal losers."""
    rows = []
    for i in range(NUM):
        letters, winner = ("ABC", "B") if i % 3 == 0 else ("AB", "AB"[i % 2])
        edits = {letter: dot(1000 + 3 * i + place, letter == winner) for place, letter in enumerate(letters)}
        for place, (a, b) in enumerate(itertools.combinations(letters, 2)):
            ranking = f"{a}>{b}" if a == winner else f"{b}>{a}" if b == winner else f"{a}={b}"
            rows.append(
                {
                    **{"id": f"g{i}_{place}", "num_candidates": len(letters), "instruction": f"edit {i}", "source_image": dot(i, False)},
                    **{"candidate_1": edits[a], "candidate_2": edits[b], "comparison_type": f"{a}vs{b}", "ranking": ranking},
                }
            )
    write_parquet(folder / "pairs", rows, ("source_image", "candidate_1", "candidate_2"))


def genai(folder: Path) -> None:
    votes = ("leftvote", "rightvote", "rightvote", "bothbad_vote")
    rows = [
        {
            "source_prompt": f"s{i // 2}",
            "instruct_prompt": f"edit {i}",
            "source_image": dot(i, False),
            "left_output_image": dot(1000 + i, votes[i % 4] == "leftvote"),
            "right_output_image": dot(2000 + i, votes[i % 4] == "rightvote"),
            "vote_type": votes[i % 4],
        }
        for i in range(NUM)
    ]
    write_parquet(folder, rows, ("source_image", "left_output_image", "right_output_image"))


def mmrb2(folder: Path) -> None:
    pairs = []
    for i in range(NUM):
        for name, data in {"s": dot(i, False), "a": dot(1000 + i, i % 2 == 0), "b": dot(2000 + i, i % 2 == 1)}.items():
            (folder / f"{name}{i}.png").write_bytes(data)
        sides = {f"response_{side}": {"response_content": [["image", f"{side}{i}.png"]]} for side in "ab"}
        pairs.append({"id": f"r{i}", "prompt_content": [["image", f"s{i}.png"], ["text", f"edit {i}"]], "chosen": "AB"[i % 2], **sides})
    (folder / "edit.json").write_text(json.dumps({"pairs": pairs}))


@dataclass(frozen=True)
class Bench:
    """A benchmark of pairs, how to write it small, and what its figures are called."""

    name: str
    write: Callable[[Path], None]
    scores: str
    """Strict accuracy of judges of scores."""
    n: int = NUM
    """Decisive pairs."""
    pairwise: str = ""
    """First part of the protocols of judges of pairs."""


BENCHES = [
    Bench("editreward_editscore", editscore, "editscore-erb/overall/strict/macro13", pairwise="editscore-erb"),
    Bench("editreward_tiger", tiger, "tiger-erb/decisive/strict", 80 + 2 * 40, "tiger-erb"),
    Bench("genai_bench", genai, "genai-bench/decisive/strict", 90, "genai-bench"),
    Bench("mmrb2_edit", mmrb2, "mmrb2-edit/pointwise/strict", pairwise="mmrb2-edit"),
]


def run_bench(capsys: pytest.CaptureFixture[str], *argv: object) -> dict[str, dict[str, Any]]:
    assert main(["bench", *map(str, argv), "--json"]) == 0
    return {row["protocol"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}


def check(oracle: dict[str, Any], constant: dict[str, Any], coin: dict[str, Any], n: int) -> None:
    """The three figures of strict accuracy."""
    assert (oracle["value"], oracle["n"], oracle["num_unscored"], oracle["tie_rate"]) == (1.0, n, 0, 0.0)
    assert oracle["low"] < oracle["high"] == 1.0  # as many pairs as these do not prove that a judge never errs
    assert (constant["value"], constant["n"], constant["tie_rate"], constant["low"]) == (0.0, n, 1.0, 0.0)
    assert constant["high"] > 0.0
    assert coin["low"] <= 0.5 <= coin["high"]
    assert coin["low"] < coin["value"] < coin["high"]


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
def test_judges_of_scores(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    root.mkdir()
    bench.write(root)
    oracle, constant, coin = (
        run_bench(capsys, bench.name, "--root", root, "--run", tmp_path / "run", "--judge", f"bench_judges:{judge}")
        for judge in ("Oracle", "Constant", "Coin")
    )
    check(*(found[bench.scores] for found in (oracle, constant, coin)), bench.n)
    half = bench.scores.replace("strict", "half")
    assert (oracle[half]["value"], constant[half]["value"]) == (1.0, 0.5)
    assert constant[bench.scores.replace("strict", "non-tied")]["value"] is None  # no pair was decided: no number, and not 0


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
def test_judges_of_pairs(bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    root.mkdir()
    bench.write(root)
    found = [
        run_bench(capsys, bench.name, "--root", root, "--run", tmp_path / "run", "--judge", f"bench_judges:{judge}")
        for judge in ("PairOracle", "PairConstant", "PairCoin")
    ]
    check(*(metrics[f"{bench.pairwise}/pairwise/mean-of-orders"] for metrics in found), bench.n)
    oracle, constant, coin = ({kind.rpartition("/")[2]: row for kind, row in metrics.items() if "/pairwise/" in kind} for metrics in found)
    assert [oracle[kind]["value"] for kind in ("both-right", "half", "consistency")] == [1.0, 1.0, 1.0]
    assert [constant[kind]["value"] for kind in ("both-right", "half", "consistency")] == [0.0, 0.5, 1.0]
    assert abs(coin["consistency"]["value"] - 0.5) < 4 * (0.25 / bench.n) ** 0.5  # two throws agree half of the time
    if bench.name == "editreward_tiger":
        groups = [[metrics[f"tiger-erb/k{k}/pairs"]["value"] for k in (2, 3)] for metrics in found[:2]]
        assert groups == [[1.0, 1.0], [0.0, 0.0]]
        assert [found[0][f"tiger-erb/k3/pairs/{kind}"]["value"] for kind in ("chance", "chance-with-ties")] == [1 / 8, 1 / 27]


def test_a_runs_own_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ByName.folder = build_tiny_run(tmp_path / "run", num_tasks=60)
    oracle, constant, coin = (
        run_bench(capsys, "pairs", "--run", ByName.folder, "--set", "split=all", "--judge", f"bench_judges:{judge}")["pairs/all/strict"]
        for judge in ("ByName", "Constant", "Coin")
    )
    check(oracle, constant, coin, 60)


def test_viescores_study_of_stored_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uids = [f"sample_{i}_1.jpg" for i in range(NUM)]
    ratings = {uid: {"x": "[1, 1]", "y": "[0, 0.5]"} if i % 2 else {"x": "[0, 0]", "y": "[0.5, 1]"} for i, uid in enumerate(uids)}
    rng = random.Random(0)

    def strict(name: str, say: Callable[[str], object]) -> dict[str, Any]:
        root = write_study(tmp_path / name, {editor: {uid: say(ratings[uid][editor]) for uid in uids} for editor in "xy"}, ratings)
        assert main(["aggregate", str(root / "_answers" / "judge"), "--json"]) == 0
        found = {row["protocol"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
        return found["viescore-pairs/decisive/strict"]

    coins = [strict(f"coin{i}", lambda rating: [round(10 * rng.random(), 3)] * 2) for i in range(10)]
    inside = [coin for coin in coins if coin["low"] <= 0.5 <= coin["high"]]
    assert len(inside) >= 8  # of ten 95 % intervals
    oracle = strict("oracle", lambda rating: [9, 9] if rating in ("[1, 1]", "[0.5, 1]") else [2, 3])
    check(oracle, strict("constant", lambda rating: [5, 5]), inside[0], NUM)
