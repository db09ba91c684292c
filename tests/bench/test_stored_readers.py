"""Readers of what other projects store: known answers on small files in their layouts, and what they refuse."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench_files import png
from editr1.bench.base import JudgedEdit, Stored
from editr1.bench.editreward import editreward_compass
from editr1.cli import main
from editr1.config import offered
from editr1.errors import DataError
from editr1.measure.compare import benchmark_of, read_stored
from editr1.store import whole_table
from stored_samples import (
    COMPASS,
    EVALSCOPE,
    KRIS_MARKS,
    LMMS_GEDIT,
    LMMS_IMGEDIT,
    LMMS_KRIS,
    MMRB2_PAIRS,
    MMRB2_SAID,
    RATERS,
    RISE_HEAD,
    RISE_LINES,
    TABLE,
    lines,
)  # fmt: skip


def one(path: Path, data: Path | None = None) -> tuple[Stored, dict[str, float | None]]:
    """The only judge of a path, and its metrics by protocol."""
    (found,) = read_stored([path], data)
    return found, {metric.protocol: metric.value for metric in found.metrics}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_kris_marks(tmp_path: Path) -> None:
    write(tmp_path / "model" / "biology" / "metrics.json", json.dumps(KRIS_MARKS))
    color = {key: {name: mark for name, mark in row.items() if name != "knowledge_score"} for key, row in KRIS_MARKS.items()}
    color["3"] = {"consistency_score": 4, "instruction_score": None, "quality_score": 7}
    write(tmp_path / "model" / "color_change" / "metrics.json", json.dumps(color))
    found, metrics = one(tmp_path / "model")
    assert found.name == "model"
    assert metrics["kris-bench/knowledge/micro"] == 2.0
    assert metrics["kris-bench/quality/micro"] == (3 + 5 + 3 + 5) / 4  # a 7 is no mark
    assert metrics["kris-bench/overall/micro"] == pytest.approx((3.5 + 5 + 4 + 5) / 4)
    assert metrics["kris-bench/overall/macro2"] == pytest.approx((4.25 + 4.5) / 2)
    assert (metrics["kris-bench/factual/micro"], metrics["kris-bench/conceptual/micro"]) == (4.5, 4.25)
    assert found.headline["overall"] == pytest.approx(25 * (4.375 - 1))
    assert {row.key: row.value for row in found.outcomes}["color_change/3"] is None
    write(tmp_path / "model" / "biology" / "metrics_zh.json", "{}")
    with pytest.raises(DataError, match="keep one language a folder"):
        read_stored([tmp_path / "model"])


def test_rise_scores_and_completion(tmp_path: Path) -> None:
    found, metrics = one(write(tmp_path / "bagel_judge.csv", RISE_HEAD + RISE_LINES))
    # t1 5; t2 (.5 + 1.5 + .8) / 2 = 1.4; l1 .7 * 5 + .3 = 3.8; c1 .8 * 5 + .2 * 4 = 4.8; s1 has no reasoning
    assert {row.key: row.value for row in found.outcomes} == {
        "t1": 5.0, "t2": pytest.approx(1.4), "l1": pytest.approx(3.8), "c1": pytest.approx(4.8), "s1": None,
    }  # fmt: skip
    assert metrics["risebench/score/micro"] == pytest.approx(15 / 4)
    assert metrics["risebench/complete/strict"] == 1 / 5
    assert (found.name, found.headline["accuracy"]) == ("bagel", 20.0)
    means = write(tmp_path / "means_judge.csv", "-,Score-Origin,Score-Percentage,Accuracy\nOverall,3,50,.2\n")
    with pytest.raises(DataError, match="holds means only"):
        read_stored([means])


def test_rise_reads_the_sheet_that_its_script_writes(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for line in (RISE_HEAD + RISE_LINES).splitlines():
        book.active.append([float(cell) if cell.replace(".", "").isdigit() else cell or None for cell in line.split(",")])
    book.save(tmp_path / "bagel_judge.xlsx")
    assert one(tmp_path / "bagel_judge.xlsx")[1]["risebench/score/micro"] == pytest.approx(15 / 4)


def test_mmrb2_judgements(tmp_path: Path) -> None:
    labels, said = write(tmp_path / "edit.json", json.dumps(MMRB2_PAIRS)), write(tmp_path / "gpt.json", json.dumps(MMRB2_SAID))
    found, metrics = one(said)
    assert metrics["mmrb2-edit/judgements/as-published"] == 3 / 4  # what is missing is dropped there
    assert metrics["mmrb2-edit/pairwise/mean-of-orders"] == pytest.approx(3 / 6)
    assert metrics["mmrb2-edit/pairwise/consistency"] == 0.5
    assert [row.value for row in found.outcomes] == [1.0, 0.5, None]
    assert read_stored([said], labels)[0].headline["published"] == 75.0
    labels.rename(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match="name it with --data FILE"):
        read_stored([said])
    write(said, json.dumps({"p9": MMRB2_SAID["p0"]}))
    with pytest.raises(DataError, match=r"of no pair of elsewhere\.json"):
        read_stored([said], tmp_path / "elsewhere.json")


def test_imagenhub_ratings(tmp_path: Path) -> None:
    for i, text in enumerate(RATERS):
        write(tmp_path / "Text-Guided_IE" / f"Text-Guided_IE_rater{i + 1}.tsv", text)
    x, y = read_stored([tmp_path / "Text-Guided_IE"])
    assert (x.name, x.headline["SC"], x.headline["PQ"]) == ("x", 0.75, 0.5)
    assert x.headline["O"] == pytest.approx((math.sqrt(0.5) + 0.5) / 2)
    assert y.headline["alpha O"] == 1.0  # the same ratings twice
    assert [row.value for row in y.outcomes] == [0.0, 10.0]
    write(tmp_path / "Text-Guided_IE" / "Text-Guided_IE_rater2.tsv", RATERS[0].replace("sample_2", "sample_3"))
    with pytest.raises(DataError, match="of different edits"):
        read_stored([tmp_path / "Text-Guided_IE"])


def test_lmms_eval_zeros_of_failures_are_no_scores(tmp_path: Path) -> None:
    found, metrics = one(write(tmp_path / "bagel" / "1_samples_gedit_bench.jsonl", lines(LMMS_GEDIT)))
    assert metrics["gedit-en/O/full/micro"] == pytest.approx((4 + 0) / 2)  # the third row is all zeros
    assert (found.name, found.headline["SC"]) == ("bagel", 4.0)
    found, metrics = one(write(tmp_path / "bagel" / "1_samples_imgedit.jsonl", lines(LMMS_IMGEDIT)))
    assert metrics["imgedit/lmms-eval/macro2"] == 3.0
    assert [row.value for row in found.outcomes] == [4.0, 2.0, None]
    found, metrics = one(write(tmp_path / "bagel" / "1_samples_kris_bench.jsonl", lines(LMMS_KRIS)))
    assert metrics["kris-bench/overall/micro"] == 3.5
    assert [row.value for row in found.outcomes] == [3.5, None]
    with pytest.raises(DataError, match="occur more than once"):
        read_stored([write(tmp_path / "b" / "x.jsonl", lines([*LMMS_GEDIT, LMMS_GEDIT[0]]))])


def test_evalscope_reviews(tmp_path: Path) -> None:
    write(tmp_path / "kontext" / "gedit_ps_human.jsonl", lines(EVALSCOPE))
    for path in (tmp_path / "kontext", tmp_path / "kontext" / "gedit_ps_human.jsonl"):
        found, metrics = one(path)
        assert (found.name, metrics["gedit-en/O/full/micro"]) == ("kontext", 6.0)
        assert [row.value for row in found.outcomes] == [6.0, None]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_any_table(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    rows = [dict(zip(TABLE.splitlines()[0].split(","), line.split(","), strict=True)) for line in TABLE.splitlines()[1:]]
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        write(path, lines(rows) if suffix == ".jsonl" else TABLE.replace(",", "\t") if suffix == ".tsv" else TABLE)
    found, metrics = one(path)
    assert metrics["table/mean/micro"] == pytest.approx(21.5 / 4)
    assert metrics["table/mean/macro2"] == pytest.approx((4.75 + 6) / 2)
    # pairs whom people rate differently: a > b right; c > d tied; c = e in people's eyes; e > d unscored
    assert (metrics["table/pairs/strict"], metrics["table/pairs/half"]) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert metrics["table/spearman"] is not None
    assert (found.outcomes[0].cluster, found.outcomes[0].unit) == ("s1", "score")


def test_a_table_of_credits_and_what_is_refused(tmp_path: Path) -> None:
    found, metrics = one(write(tmp_path / "c.csv", "key,value\na,1\nb,0.5\nc,\n"))
    assert (metrics["table/mean/micro"], found.outcomes[0].unit) == (pytest.approx(2 / 3), "credit")
    for cells, message in [
        ("a,1\na,2\n", "more than once"),
        ("a,inf\n", "finite number"),
        ("a,x\n", "finite number"),
        ("a,1,2\n", "number of cells"),
        ("", "no row"),
    ]:
        with pytest.raises(DataError, match=message):
            read_stored([write(tmp_path / "d.csv", "key,value\n" + cells)])
    for text in ('{"key": "a", "value": 1', "[1]\n"):
        with pytest.raises(DataError, match=r"line 1 is not JSON|line 1 is no JSON object"):
            whole_table(write(tmp_path / "x.jsonl", text), ())


def test_compass_asks_each_dimension_for_its_own_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "pairs.json", json.dumps(COMPASS))
    for name in "swl":
        (tmp_path / f"{name}.png").write_bytes(png(9))
    bench = editreward_compass.build(tmp_path)
    assert len([edit.load() for edit in bench.edits()]) == 6
    assert [item.label for item in bench.comparisons()] == ["a", "same", "a"]
    scores = {
        "IA/0/winner": (9, 1),
        "IA/0/loser": (3, 9),
        "IA/1/winner": (5, 5),
        "IA/1/loser": (5, 5),
        "VQ/2/winner": (9, 1),
        "VQ/2/loser": (3, 9),
    }
    judged = {key: JudgedEdit(key, 5.0, {"prompt_following": a, "perceptual_quality": b}) for key, (a, b) in scores.items()}
    found = {metric.protocol: metric.value for metric in bench.metrics(judged)}
    assert (found["editreward-compass/IA/as-published"], found["editreward-compass/VQ/as-published"]) == (1.0, 0.0)
    assert found["editreward-compass/IA/tie-rate"] == 1.0
    assert [row.value for row in bench.outcomes(judged)] == [1.0, 0.0]
    silent = {metric.protocol: metric for metric in bench.metrics({})}
    assert (silent["editreward-compass/IA/as-published"].value, silent["editreward-compass/IA/as-published"].num_unscored) == (0.0, 2)
    assert main(["bench", "editreward_compass", "--run", str(tmp_path / "r")]) == 2
    assert "download EditReward-Compass" in capsys.readouterr().err
    for change, message in (({"label": "win"}, "label 'win'"), ({"dimension": "XX"}, "dimension 'XX'")):
        write(tmp_path / "pairs.json", json.dumps([COMPASS[0] | change]))
        with pytest.raises(DataError, match=message):
            editreward_compass.build(tmp_path)


def test_every_reader_says_what_it_needs_and_no_two_claim_one_file(tmp_path: Path) -> None:
    readers = offered("bench", "read_stored")
    assert readers.keys() == offered("bench", "recognise").keys()
    for name in readers:
        with pytest.raises(DataError, match="does not exist"):
            read_stored([tmp_path / name])
        with pytest.raises(DataError):
            read_stored([write(tmp_path / "empty.json", "{}")], benchmark=name) if name != "table" else read_stored(
                [tmp_path / "empty.json"]
            )
    for name, text in (("a.csv", "x,y\n1,2\n"), ("a.txt", "7"), ("a.jsonl", '{"doc_id": 1}\n'), ("b.json", '{"forward": 1}')):
        with pytest.raises(DataError, match="unknown content"):
            benchmark_of(write(tmp_path / name, text))
