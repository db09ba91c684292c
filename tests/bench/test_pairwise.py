"""Judges of pairs over MMRB2, GenAI-Bench and EditScore's bench, against a real HTTP server."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bench_files import png, write_parquet
from editr1.bench import genai_bench, mmrb2_edit
from editr1.bench.base import JudgedEdit
from editr1.bench.judges.pairwise import read_choice
from editr1.cli import main
from editr1.errors import DataError
from fake_endpoint import completion, serve


def brightest_wins(body: dict[str, Any]) -> dict[str, Any]:
    """Prefers the edit with more red: what it says depends on the pictures and not on their order."""
    shades = []
    for part in body["messages"][-1]["content"]:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            shades.append(Image.open(io.BytesIO(data)).getpixel((0, 0))[0])
    _, first, second = shades
    return completion("Because.\nCHOICE: " + ("SAME" if first == second else "A" if first > second else "B"))


def write_mmrb2(folder: Path, shades: list[tuple[int, int]], chosen: str = "A", **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s.png").write_bytes(png(1))
    pairs = []
    for i, (a, b) in enumerate(shades):
        (folder / f"a{i}.png").write_bytes(png(a))
        (folder / f"b{i}.png").write_bytes(png(b))
        pair = {
            "id": f"r{i}",
            "prompt_content": [["image", "s.png"], ["text", f"edit {i}"]],
            "prompt_source": "emu-edit",
            "prompt_metadata": {"id": i // 2},
            "response_a": {"model_name": "x", "response_content": [["image", f"a{i}.png"]]},
            "response_b": {"model_name": "y", "response_content": [["image", f"b{i}.png"]]},
            "chosen": chosen,
            "human_annotations": [5, 6, 2],
        }
        pairs.append({**pair, **changes})
    (folder / "edit.json").write_text(json.dumps({"pairs": pairs}))
    return folder


def run_bench(capsys: pytest.CaptureFixture[str], name: str, root: Path, run: Path, url: str, *more: str) -> dict[str, dict[str, Any]]:
    argv = ["--root", str(root), "--run", str(run), "--judge", "pairwise", "--model", "m", "--base-url", url, "--json", *more]
    code = main(["bench", name, *argv])
    out = capsys.readouterr()
    assert code == 0, out.err
    return {row["protocol"]: row for row in map(json.loads, out.out.splitlines())}


def test_an_order_blind_judge_is_consistent_and_a_first_lover_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_mmrb2(tmp_path / "d", [(200, 100), (200, 100), (100, 200)])
    with serve(brightest_wins) as endpoint:
        found = run_bench(capsys, "mmrb2_edit", root, tmp_path / "one", endpoint.url)
    assert found["mmrb2-edit/pairwise/both-right"]["value"] == pytest.approx(2 / 3)
    assert found["mmrb2-edit/pairwise/consistency"]["value"] == 1.0
    assert found["mmrb2-edit/human/single-rater"]["value"] == pytest.approx(2 / 3)  # the ceiling stands beside
    with serve(lambda body: completion("CHOICE: A")) as endpoint:
        found = run_bench(capsys, "mmrb2_edit", root, tmp_path / "two", endpoint.url)
    assert found["mmrb2-edit/pairwise/mean-of-orders"]["value"] == 0.5
    assert found["mmrb2-edit/pairwise/both-right"]["value"] == 0.0
    assert found["mmrb2-edit/pairwise/first-share"]["value"] == 1.0
    outcomes = (tmp_path / "two" / "bench_mmrb2_edit_pairwise.outcomes.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in outcomes] == [0.5] * 3


def test_silence_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_mmrb2(tmp_path / "d", [(200, 100)] * 3)
    with serve(lambda body: completion("both are nice")) as endpoint:
        argv = ["--root", root, "--run", tmp_path / "r", "--judge", "pairwise", "--model", "m", "--base-url", endpoint.url]
        assert main(["bench", "mmrb2_edit", *map(str, argv)]) == 2
        assert "3 of 3 pairs are unscored (limit: share 0.5; NO_CHOICE)" in capsys.readouterr().err
        found = run_bench(capsys, "mmrb2_edit", root, tmp_path / "r", endpoint.url, "--max-unscored", "1")
    assert found["mmrb2-edit/pairwise/half"]["value"] == 0.5
    assert found["mmrb2-edit/pairwise/half"]["num_unscored"] == 3


def test_mmrb2_with_scores_and_its_human_ceiling(tmp_path: Path) -> None:
    bench = mmrb2_edit.build(write_mmrb2(tmp_path / "d", [(200, 100)] * 2))
    judged = {item.key: JudgedEdit(item.key, 8.0 if item.key.endswith("a") else 3.0) for item in bench.edits()}
    found = {metric.protocol: metric.value for metric in bench.metrics(judged)}
    assert found["mmrb2-edit/pointwise/strict"] == 1.0
    assert found["mmrb2-edit/human/single-rater"] == pytest.approx(2 / 3)  # 5 and 6 say A, 2 says B
    assert found["mmrb2-edit/human/unanimous"] == 0.0
    assert {outcome.cluster for outcome in bench.outcomes(judged)} == {"emu-edit/0"}  # two pairs about one prompt


def test_a_prompt_of_several_pictures_is_unscored_and_the_rest_is_printed_alone(tmp_path: Path) -> None:
    folder = write_mmrb2(tmp_path / "d", [(200, 100)] * 2)
    pairs = json.loads((folder / "edit.json").read_text())["pairs"]
    pairs[1]["prompt_content"].insert(0, ["image", "s.png"])
    (folder / "edit.json").write_text(json.dumps({"pairs": pairs}))
    bench = mmrb2_edit.build(folder)
    judged = {}
    for item in bench.edits():
        if item.key.startswith("r1"):
            with pytest.raises(DataError, match="are 2 and 1 and 1 pictures"):
                item.load()
        else:
            judged[item.key] = JudgedEdit(item.key, 8.0 if item.key.endswith("a") else 3.0)
    found = {metric.protocol: metric for metric in bench.metrics(judged)}
    assert (found["mmrb2-edit/pointwise/strict"].value, found["mmrb2-edit/pointwise/strict"].num_unscored) == (0.5, 1)
    assert (found["mmrb2-edit/single-image/pointwise/strict"].value, found["mmrb2-edit/single-image/pointwise/strict"].n) == (1.0, 1)


def test_mmrb2_as_the_dataset_that_its_build_script_downloads(tmp_path: Path) -> None:
    import datasets

    rows = [
        {
            "pair_id": f"r{i}",
            "prompt_text": "<image_1> Make it red. <image_2>" if i else "<image_1>Make it red.",
            "prompt_images": [{"bytes": png(1)}] * (1 + i),
            "response_a_images": [{"bytes": png(200)}],
            "response_b_images": [{"bytes": png(100)}],
            "chosen": "a",
            "human_annotations": "[5, 6, 2]",
            "prompt_source": "emu-edit",
            "prompt_metadata": '{"id": 7}',
        }
        for i in range(2)
    ]
    table = datasets.Dataset.from_list(rows)
    for name in mmrb2_edit.PICTURES:
        table = table.cast_column(name, datasets.List(datasets.Image()))
    (tmp_path / "edit").mkdir()
    table.to_parquet(str(tmp_path / "edit" / "test-00000-of-00001.parquet"))
    bench = mmrb2_edit.build(tmp_path)
    first, second = bench.comparisons()
    assert (first.instruction, first.label, first.category, first.cluster) == ("Make it red.", "a", "single-image", "emu-edit/7")
    assert [picture.getpixel((0, 0))[0] for picture in first.load()] == [1, 200, 100]
    assert second.category == "several-images"
    with pytest.raises(DataError, match="are 2 and 1 and 1 pictures"):
        second.load()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": "C"}, "pair 0: chosen is 'C'"),
        ({"human_annotations": [7]}, "whole numbers 1 to 6"),
        ({"human_annotations": [True]}, "whole numbers 1 to 6"),
        ({"prompt_content": [["text", "no picture"]]}, "expected a source picture"),
        ({"prompt_content": "no parts"}, "expected a list of"),
        ({"response_b": {"response_content": []}}, "a picture in each response"),
        ({"response_b": None}, "expected a list of"),
        ({"id": "same"}, "more than once"),
    ],
)
def test_mmrb2_pairs_that_are_not_as_published(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        mmrb2_edit.build(write_mmrb2(tmp_path / "d", [(1, 2), (1, 2)], **changes))


def test_the_file_of_responses_alone_says_what_to_build(tmp_path: Path) -> None:
    folder = write_mmrb2(tmp_path / "d", [(1, 2)])
    pair = json.loads((folder / "edit.json").read_text())["pairs"][0]
    del pair["prompt_content"]
    (folder / "edit.json").write_text(json.dumps({"pairs": [pair]}))
    with pytest.raises(DataError, match=r"responses alone.*build_from_hf\.py"):
        mmrb2_edit.build(folder)
    (folder / "edit.json").unlink()
    with pytest.raises(DataError, match=r"no edit\.json.*build_from_hf\.py"):
        mmrb2_edit.build(folder)


def write_genai(folder: Path, votes: list[str]) -> Path:
    rows = [
        {
            "source_prompt": f"s{i // 2}",
            "target_prompt": "t",
            "instruct_prompt": f"edit {i}",
            "source_image": png(1),
            "left_output_image": png(200 if vote == "leftvote" else 100),
            "right_output_image": png(200 if vote == "rightvote" else 100),
            "vote_type": vote,
        }
        for i, vote in enumerate(votes)
    ]
    return write_parquet(folder, rows, ("source_image", "left_output_image", "right_output_image"))


def test_genai_from_its_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_genai(tmp_path / "d", ["leftvote", "rightvote", "tievote", "bothbad_vote"] * 3)
    with serve(brightest_wins) as endpoint:
        found = run_bench(capsys, "genai_bench", root, tmp_path / "r", endpoint.url)
    assert (found["genai-bench/pairwise/both-right"]["value"], found["genai-bench/pairwise/both-right"]["n"]) == (1.0, 6)
    bench = genai_bench.build(root)
    judged = {}
    for item in bench.edits():
        shade = item.load()[1].getpixel((0, 0))[0]
        judged[item.key] = JudgedEdit(item.key, shade / 30)
    numbers = {metric.protocol: metric.value for metric in bench.metrics(judged)}
    assert numbers["genai-bench/decisive/strict"] == numbers["genai-bench/three-class/cross-fitted"] == 1.0
    assert numbers["genai-bench/three-class/floor"] == 0.5
    with pytest.raises(DataError, match="image_edition"):
        genai_bench.build()


def test_genai_reads_the_published_split_and_not_the_other_that_lies_beside_it(tmp_path: Path) -> None:
    for split, votes in (("test", ["leftvote"] * 5), ("test_v1", ["rightvote"] * 3)):
        part = write_genai(tmp_path / split, votes) / "part-0.parquet"
        (tmp_path / "d" / "image_edition").mkdir(parents=True, exist_ok=True)
        part.rename(tmp_path / "d" / "image_edition" / f"{split}-00000-of-00001.parquet")
    for root in (tmp_path / "d", tmp_path / "d" / "image_edition"):
        assert genai_bench.build(root).votes == ("B>A",) * 3


def test_a_judge_of_pairs_needs_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.png").write_bytes(png(1))
    (tmp_path / "edits.jsonl").write_text(json.dumps({"source": "s.png", "edited": "s.png", "instruction": "i"}))
    argv = [
        "score-folder",
        str(tmp_path),
        "--run",
        str(tmp_path / "r"),
        "--judge",
        "pairwise",
        "--model",
        "m",
        "--base-url",
        "http://127.0.0.1:9/v1",
    ]
    assert main(argv) == 2
    assert "compares pairs" in capsys.readouterr().err


@settings(deadline=None)
@given(st.text(max_size=60) | st.sampled_from(["CHOICE: A or B", "my choice: A", "choice: b.", "CHOICE: C", "CHOICE: SAME\nCHOICE: maybe"]))
def test_a_choice_is_read_only_from_its_own_line(text: str) -> None:
    choice = read_choice(text)
    stating = [line for line in text.replace("\r", "\n").split("\n") if "choice" in line.lower() and ":" in line]
    if choice is not None:
        assert stating[-1].lower().replace(" ", "").strip("*_`.#\"'()[]\t")[:8] in ("choice:a", "choice:b", "choice:s")
