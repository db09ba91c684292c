"""GEdit: micro against macro, the key clash, doubled rows, mixed languages, missing and refused samples."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_files import png, write_parquet
from editr1.bench.base import JudgedEdit
from editr1.bench.gedit import (
    CSV_COLUMNS,
    TASK_COUNTS,
    TOTAL,
    Sample,
    build,
    metrics,
    read_scores,
)
from editr1.errors import DataError


def write_csv(path: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = CSV_COLUMNS) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def score_row(
    key: str, semantic: object, quality: object, language: str = "en", task: str = "ps_human", common: bool = True
) -> dict[str, Any]:
    return {
        "edited_image": f"out/model/fullset/{task}/{language}/{key}.png",
        "sementics_score": semantic,
        "quality_score": quality,
        "intersection_exist": common,
        "instruction_language": language,
    }


def test_the_counts_are_those_of_the_full_set(public_data: Path) -> None:
    assert TOTAL == 606
    meta = (public_data / "gedit" / "evalscope_gedit_meta.json").read_text()
    assert all(f'"{task}"' in meta for task in TASK_COUNTS)
    prompts = json.loads((public_data / "gedit" / "gedit_edit.json").read_text())
    kinds = [row["edit_type"] for row in prompts.values()]
    # a dictionary by key alone loses two rows of subject-remove to rows of the same key
    assert len(prompts) == 604
    assert {task: n - kinds.count(task) for task, n in TASK_COUNTS.items() if n != kinds.count(task)} == {"subject-remove": 2}


def micro_of_tasks(means: dict[str, float]) -> float:
    return sum(TASK_COUNTS[task] * mean for task, mean in means.items()) / sum(TASK_COUNTS[task] for task in means)


def macro_of_tasks(means: dict[str, float]) -> float:
    return sum(means.values()) / len(means)


def test_the_papers_table_is_micro_in_nine_of_eleven_rows(published: dict[str, Any]) -> None:
    table = {name: row for name, row in published["edit_r1_gedit_en"].items() if not name.startswith("_")}
    fits_micro, fits_macro = [], []
    for name, row in table.items():
        means = dict(zip(TASK_COUNTS, row[:11], strict=True))
        fits_micro += [name] if abs(micro_of_tasks(means) - row[11]) < 0.011 else []
        fits_macro += [name] if abs(macro_of_tasks(means) - row[11]) < 0.011 else []
    assert set(table) - set(fits_micro) == {"Kontext+RL-RRM7B", "Qwen-Edit"}
    assert fits_macro == []
    step = dict(zip(TASK_COUNTS, table["Step-Edit"][:11], strict=True))
    assert (f"{micro_of_tasks(step):.3f}", f"{macro_of_tasks(step):.3f}") == ("6.531", "6.920")
    gain = [micro_of_tasks(dict(zip(TASK_COUNTS, table[name][:11], strict=True))) for name in ("Qwen-Edit", "Qwen-Edit+RL-RRM7B")]
    assert [f"{value:.3f}" for value in gain] == ["7.979", "7.991"]  # not 7.94 -> 7.99


def test_micro_macro_intersection_and_the_geometric_mean_per_sample() -> None:
    samples = [Sample(("ps_human", "en", str(i)), 9.0, 4.0) for i in range(3)] + [Sample(("extract", "en", "x"), 1.0, 1.0, False)]
    found = {metric.protocol: metric for metric in metrics(samples, "en", expected={"ps_human": 3, "extract": 1})}
    assert found["gedit-en/O/full/micro"].value == pytest.approx((3 * 6.0 + 1.0) / 4)
    assert found["gedit-en/O/full/macro2"].value == pytest.approx((6.0 + 1.0) / 2)
    assert found["gedit-en/SC/intersection/macro1"].value == 9.0
    assert found["gedit-en/O/full/micro"].by_category == {"ps_human": 6.0, "extract": 1.0}


def test_missing_refused_and_unparsed_samples_are_counted(tmp_path: Path) -> None:
    rows = [score_row("a", 8, 8), score_row("b", "", ""), score_row("c", "{broken", 7), score_row("d", 7, 25)]
    samples = read_scores([write_csv(tmp_path / "m_ps_human_gpt_score.csv", rows)])
    found = {metric.protocol: metric for metric in metrics(samples, "en", expected={"ps_human": 70})}
    overall = found["gedit-en/O/full/micro"]
    assert (overall.value, overall.n, overall.num_unscored) == (8.0, 1, 69)
    assert found["gedit-en/SC/full/micro"].n == 2
    unscored = found["gedit-en/unscored"]
    assert (unscored.by_category, unscored.value) == ({"empty": 1.0, "missing": 66.0, "unparsed": 2.0}, 69 / 70)


def test_languages_never_mix(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "m_ps_human_gpt_score.csv", [score_row("a", 8, 8), score_row("a", 2, 2, "cn")])
    samples = read_scores([path])
    values = [metrics(samples, language, expected={"ps_human": 1})[0].value for language in ("en", "cn")]
    assert values == [8.0, 2.0]
    with pytest.raises(DataError, match="'zh', expected en or cn; the data say 'cn'"):
        metrics(samples, "zh")
    with pytest.raises(DataError, match="line 2: language 'zh'"):
        read_scores([write_csv(tmp_path / "z_ps_human_gpt_score.csv", [score_row("a", 8, 8, "zh")])])


@pytest.mark.parametrize("columns", [CSV_COLUMNS[:2], CSV_COLUMNS[1:]])
def test_a_missing_column_is_named(tmp_path: Path, columns: tuple[str, ...]) -> None:
    missing = next(column for column in CSV_COLUMNS if column not in columns)
    with pytest.raises(DataError, match=f"column '{missing}' is missing"):
        read_scores([write_csv(tmp_path / "m_ps_human_gpt_score.csv", [score_row("a", 1, 1)], columns)])


def test_doubled_rows_are_refused_but_one_key_may_stand_in_two_tasks(tmp_path: Path) -> None:
    same_key = [score_row("a", 8, 8, task="subject-remove"), score_row("a", 8, 8, task="subject-replace")]
    assert len(read_scores([write_csv(tmp_path / "ok.csv", same_key)])) == 2
    with pytest.raises(DataError, match=r"1 keys occur more than once \(ps_human/en/a\)"):
        read_scores([write_csv(tmp_path / "m_ps_human_gpt_score.csv", [score_row("a", 8, 8)] * 2)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edited_image": ""}, "line 2: no edited_image"),
        ({"edited_image": "out/fullset/ps_human/cn/a.png"}, "instruction_language is en and edited_image lies under cn"),
        ({"intersection_exist": "perhaps"}, "intersection_exist is 'perhaps'"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_scores([write_csv(tmp_path / "m_ps_human_gpt_score.csv", [score_row("a", 8, 8) | change])])


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "m_ps_human_gpt_score.csv", [score_row("a", 8, 8), score_row("b", 8, 8)])
    path.write_text(path.read_text()[:-12])
    with pytest.raises(DataError, match="line 3 has another number of cells than the heading has"):
        read_scores([path])
    with pytest.raises(DataError, match="no row"):
        read_scores([write_csv(path, [])])


def test_a_folder_named_like_a_task_is_no_task(tmp_path: Path) -> None:
    row = score_row("a", 8, 8) | {"edited_image": "style_change/fullset/ps_human/en/a.png"}
    assert read_scores([write_csv(tmp_path / "scores.csv", [row])])[0].id == ("ps_human", "en", "a")


def test_samples_of_one_source_are_not_independent() -> None:
    rows = [(str(i), 9.0 if i % 2 else 1.0) for i in range(100)]
    own = [Sample(("ps_human", "en", key), value, value) for key, value in rows]
    shared = [Sample(("ps_human", "en", key), value, value, source=str(int(key) % 10)) for key, value in rows]
    alone, together = (
        {m.protocol: m for m in metrics(samples, "en", expected={"ps_human": 100})}["gedit-en/O/full/micro"] for samples in (own, shared)
    )
    assert alone.value == together.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.characters(blacklist_characters="\x00", blacklist_categories=("Cs",)), max_size=12))
def test_a_cell_is_a_score_only_when_it_is_one(tmp_path_factory: pytest.TempPathFactory, cell: str) -> None:
    path = write_csv(tmp_path_factory.mktemp("csv") / "m_ps_human_gpt_score.csv", [score_row("a", cell, 5)])
    semantic = read_scores([path])[0].semantic
    assert semantic is None or semantic == float(cell)


def write_dataset(folder: Path, keys: list[tuple[str, str]], language: str = "en") -> Path:
    rows = [
        {"task_type": task, "key": key, "instruction": f"do {key}", "instruction_language": language, "Intersection_exist": True}
        for task, key in keys
    ]
    return write_parquet(folder, rows)


def write_edits(folder: Path, keys: list[tuple[str, str]], language: str = "en") -> Path:
    for task, key in keys:
        place = folder / "fullset" / task / language
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{key}.png").write_bytes(png(10, size=32))
        (place / f"{key}_SRCIMG.png").write_bytes(png(20))
    return folder


def test_judging_a_folder_names_what_is_missing_and_keeps_equal_keys_apart(tmp_path: Path) -> None:
    keys = [("subject-remove", "k"), ("subject-replace", "k"), ("ps_human", "h")]
    edits = write_edits(tmp_path / "edits", keys[:2])
    bench = build(write_dataset(tmp_path / "data", keys), edits, partial_set=True)
    items = {item.key: item for item in bench.edits()}
    source, edited = items["subject-remove/en/k"].load()
    assert source.size == edited.size == (8, 8)
    with pytest.raises(DataError, match="cannot read"):
        items["ps_human/en/h"].load()
    same_picture = {row.key: row.cluster for row in bench.outcomes({})}
    assert same_picture["subject-remove/en/k"] == same_picture["subject-replace/en/k"] != same_picture["ps_human/en/h"]
    parts = {"semantic_consistency": 9.0, "perceptual_quality": 4.0}
    judged = {"subject-remove/en/k": JudgedEdit("", 6.0, parts), "subject-replace/en/k": JudgedEdit("", None, reason="REFUSED")}
    reasons = {metric.protocol: metric.by_category for metric in bench.metrics(judged)}["gedit-en/unscored"]
    assert reasons == {"REFUSED": 1.0, "missing": 1.0}
    judged["subject-replace/en/k"] = JudgedEdit("", 2.0)
    found = {metric.protocol: metric for metric in bench.metrics(judged)}
    overall = found["gedit-en/O/full/micro"]
    assert (overall.value, overall.n, overall.num_unscored) == (4.0, 2, 1)
    assert found["gedit-en/SC/full/micro"].n == 1  # a judge of one number has O and no factors


def test_a_copy_that_lost_rows_is_refused(tmp_path: Path) -> None:
    keys = [("ps_human", "h")]
    with pytest.raises(DataError, match="1 rows of language en, expected 606"):
        build(write_dataset(tmp_path / "data", keys), write_edits(tmp_path / "edits", keys))
    with pytest.raises(DataError, match="stepfun-ai/GEdit-Bench"):
        build()
    with pytest.raises(DataError, match="--edits DIR"):
        build(tmp_path / "data", tmp_path / "nowhere")
