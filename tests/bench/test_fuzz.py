"""Readers of what others wrote never invent a score: what comes out of a damaged text still stands in it, or it is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

import stored_samples
from bench_files import png
from editr1.bench import (
    editreward,
    editreward_tiger,
    gedit,
    genai_bench,
    imgedit,
    marks,
    mmrb2_edit,
    viescore_pairs,
)  # fmt: skip
from editr1.bench.base import Outcome, require_columns
from editr1.bench.judges._aspects import read_scores
from editr1.bench.judges.pairwise import read_choice
from editr1.errors import EditR1Error
from editr1.judge.parse import parse
from editr1.measure.compare import read_outcomes, read_stored
from editr1.measure.rows import lowest
from editr1.schema import Judgement, to_json

Stated = float | str
"""A number that must be one of the text's, or a passage that must stand in it."""

NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
NUMBERS = ("", "0", "9", "12", "45", "-7", "7/10", "7.5", "1e1", "1e400", "9" * 400, "NaN", "Infinity")
MARKS = (*"\"'{}[],:\t\n\\=>AB\x00²٣\ufeff", "null", "true", "zh", "cn")


@dataclass(frozen=True)
class Case:
    """A reader, a text that it reads, and what it finds there."""

    name: str
    read: Callable[[str, Path], Iterable[Stated | None]]
    seed: str
    expected: list[Stated]


def written(name: str, read: Callable[[Path], Iterable[Stated | None]]) -> Callable[[str, Path], Iterable[Stated | None]]:
    """A reader of files as one of texts."""

    def read_text(text: str, folder: Path) -> Iterable[Stated | None]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
        return read(path)

    return read_text


# --- stored files -------------------------------------------------------------------------------------


def gedit_csv(path: Path) -> list[Stated | None]:
    samples = gedit.read_scores([path])
    read_stored([path])
    return [value for sample in samples for value in (sample.semantic, sample.quality)]


def imgedit_results(path: Path) -> list[Stated | None]:
    (path.parent / "basic_edit.json").write_text(json.dumps({"k": {"id": "p.png", "prompt": "p", "edit_type": "add"}}))
    texts = imgedit.read_results(path).values()
    read_stored([path])
    return [float(mark) for text in texts for read in imgedit.READERS.values() for mark in read(text) or ()]


def imgedit_tasks(path: Path) -> list[Stated | None]:
    return [task.kind for task in imgedit.read_tasks(path).values()]


def rater(path: Path) -> list[Stated | None]:
    return [value for pair in viescore_pairs.read_rater(path).values() for value in pair]


def viescore_answers(path: Path) -> list[Stated | None]:
    """One aspect of one editor of a study, which is then counted as a whole."""
    stored = viescore_pairs.read_answers(path)
    root = path.parent / "study"
    raters = root / "_human_annotations" / viescore_pairs.TASK
    raters.mkdir(parents=True, exist_ok=True)
    uids = ("sample_1_1.jpg", "sample_2_1.jpg")
    (raters / "x_rater1.tsv").write_text("uid\tx\ty\n" + "".join(f"{uid}\t[1, 1]\t[0, 0.5]\n" for uid in uids))
    for editor, text in (("x", path.read_text(encoding="utf-8")), ("y", json.dumps({uid: {"score": 3} for uid in uids}))):
        folder = root / "_answers" / "judge" / viescore_pairs.TASK / editor
        folder.mkdir(parents=True, exist_ok=True)
        for aspect in ("SC", "PQ"):
            (folder / f"{aspect}.json").write_text(text, encoding="utf-8")
    read_stored([root / "_answers" / "judge"])
    return [lowest(raw) for raw in stored.values()]


def genai_answers(path: Path) -> list[Stated | None]:
    answers = genai_bench.read_answers(path)
    read_stored([path])
    names = {vote: name for name, vote in genai_bench.VOTES.items()}
    return [names[answer.vote] for answer in answers] + [genai_bench.read_label(answer.response) for answer in answers]


def stored(path: Path) -> list[Stated | None]:
    """The samples' own figures of readers that keep them as they stand."""
    if path.name == "judge.json":
        (path.parent / "edit.json").write_text(json.dumps(stored_samples.MMRB2_PAIRS))
    found = [row for entry in read_stored([path]) for row in entry.outcomes]
    return [row.value for row in found if row.unit == "score"] if path.suffix == ".csv" else []


def kris(path: Path) -> list[Stated | None]:
    read_stored([path.parent.parent])
    return [found for row in marks.kris_folder(path.parent.parent).values() for found in row.values()]


def rise(path: Path) -> list[Stated | None]:
    read_stored([path])
    return [found for sample in marks.rise_samples(path) for found in sample.asked.values()]


def outcomes(path: Path) -> list[Stated | None]:
    return [row.value for row in read_outcomes(path)]


# --- data sets ----------------------------------------------------------------------------------------


def mmrb2(path: Path) -> list[Stated | None]:
    return [f'"{row.label.upper()}"' for row in mmrb2_edit.read_file(path)]


def table_of(path: Path, columns: tuple[str, ...]) -> Any:
    """The JSON rows as the table that a loader opens; a text of no table is not the loader's to refuse."""
    (path.parent / "p.png").write_bytes(png(1))
    try:
        table = datasets.Dataset.from_list(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError, pyarrow.ArrowException):
        reject()
    require_columns(table.column_names, columns, "rows")
    return table


def tiger(path: Path) -> list[Stated | None]:
    bench = editreward_tiger.open_table(path.parent, table_of(path, editreward_tiger.COLUMNS))
    rows = bench.rows
    bench.metrics({})
    return [row.letters[0] + ("" if row.sign == 0 else ">") if row.sign >= 0 else row.letters[1] + ">" for row in rows]


def editscore_bench(path: Path) -> list[Stated | None]:
    bench = editreward.open_table(path.parent, table_of(path, editreward.COLUMNS))
    bench.metrics({})
    return [row.category.partition("/")[0] for row in bench.rows]


TIGER_ROW = {
    **{"id": "g_1", "num_candidates": 2, "instruction": "i", "source_image": "p.png", "candidate_1": "p.png", "candidate_2": "p.png"},
    **{"comparison_type": "AvsB", "ranking": "A>B"},
}
EDITSCORE_ROW = {
    **{"key": ["w", "l"], "instruction": "i", "input_image": "p.png", "output_images": ["p.png", "p.png"]},
    **{"task_type": "extract", "dimension": "overall"},
}
MMRB2_PAIR = {
    **{"id": "r", "prompt_content": [["image", "s.png"], ["text", "edit"]], "chosen": "A", "human_annotations": [5, 6, 2]},
    **{"response_a": {"response_content": [["image", "a.png"]]}, "response_b": {"response_content": [["image", "b.png"]]}},
}
GENAI_ROWS = [
    {"idx": 0, "source_prompt": "a cat", "response": "Because. [[A>B]]", "human_vote": "leftvote"},
    {"idx": 1, "source_prompt": "a dog", "response": "[[A=B=Bad]]", "human_vote": "bothbad_vote"},
]
GEDIT_LINES = [
    ",".join(gedit.CSV_COLUMNS),
    "out/fullset/ps_human/en/k.png,8,7.5,True,en",
    "out/fullset/ps_human/en/l.png,6,,False,en",
]
OUTCOME = to_json(Outcome("k", "c", "", 7.25))

CASES = [
    Case("gedit csv", written("m_ps_human_gpt_score.csv", gedit_csv), "\r\n".join(GEDIT_LINES), [8.0, 7.5, 6.0]),
    Case("imgedit result.json", written("result.json", imgedit_results), json.dumps({"k": "A: 4\nB: 3\nC: 5\n"}), [4.0, 3.0, 5.0] * 2),
    Case("basic_edit.json", written("tasks.json", imgedit_tasks), '{"k": {"id": "p", "prompt": "p", "edit_type": "add"}}', ["add"]),
    Case("viescore rater", written("r.tsv", rater), "uid\tx\ty\nu\t[1, 0.5]\t[0, 0]\n", [1.0, 0.5, 0.0, 0.0]),
    Case(
        "viescore answers",
        written("SC.json", viescore_answers),
        '{"sample_1_1.jpg": {"score": [7, 8.5]}, "sample_2_1.jpg": {"score": "6"}}',
        [7.0, 6.0],
    ),
    Case(
        "genai pairwise.json",
        written("pairwise.json", genai_answers),
        json.dumps(GENAI_ROWS),
        ["leftvote", "bothbad_vote", "A>B", "A=B=Bad"],
    ),
    Case("mmrb2 edit.json", written("edit.json", mmrb2), json.dumps({"pairs": [MMRB2_PAIR]}), ['"A"']),
    Case("tiger rows", written("rows.json", tiger), json.dumps([TIGER_ROW]), ["A>"]),
    Case("editscore rows", written("rows.json", editscore_bench), json.dumps([EDITSCORE_ROW]), ["overall"]),
    Case("any table", written("t.csv", stored), stored_samples.TABLE, [7.5, 2.0, 6.0, 6.0]),
    Case("kris marks", written("m/biology/metrics.json", kris), json.dumps(stored_samples.KRIS_MARKS), [4.0, 5.0, 3.0, 2.0, 5.0, 5.0, 5.0]),
    Case(
        "rise marks",
        written("m_judge.csv", rise),
        stored_samples.RISE_HEAD + stored_samples.RISE_LINES,
        [*[5.0] * 3, 1.0, 5.0, 4.0, 5.0, 1.0, 5.0, 4.0, 5.0, 4.0],
    ),
    Case("mmrb2 judgements", written("judge.json", stored), json.dumps(stored_samples.MMRB2_SAID), []),
    Case("lmms-eval gedit", written("m/s.jsonl", stored), stored_samples.lines(stored_samples.LMMS_GEDIT), []),
    Case("lmms-eval imgedit", written("m/s.jsonl", stored), stored_samples.lines(stored_samples.LMMS_IMGEDIT), []),
    Case("lmms-eval kris", written("m/s.jsonl", stored), stored_samples.lines(stored_samples.LMMS_KRIS), []),
    Case("evalscope", written("m/gedit_ps_human.jsonl", stored), stored_samples.lines(stored_samples.EVALSCOPE), []),
    Case("outcomes", written("x.outcomes.jsonl", outcomes), OUTCOME, [7.25]),
    Case("viescore reply", lambda text, _: read_scores(text, 10) or (), 'Sure: {"score": [7, 8.5], "reasoning": "fine"}', [7.0, 8.5]),
    Case("editscore reply", lambda text, _: read_scores(text, 25) or (), '{"reasoning": "fine", "score": [24, 22]}', [24.0, 22.0]),
    Case("pairwise reply", lambda text, _: choice(text), "Sharper.\n**CHOICE: A**", ["choice", "a"]),
    Case("rrm reply", lambda text, _: tau(text), '[{"id": "F1", "score": 1}, {"id": "K1", "score": 0}]\n<score>6.5</score>', [6.5]),
    *(
        Case(f"genai answer, {rule}", lambda text, _, rule=rule: genai_bench.read_votes(text, rule), "So: [[B>A]].", ["B>A"])  # type: ignore[misc]
        for rule in genai_bench.RULES
    ),
]


def choice(text: str) -> list[Stated]:
    found = read_choice(text)
    return ["choice", found] if found else []


def tau(text: str) -> list[Stated]:
    found = parse(text, 2, labels=["F1", "K1"])
    return [found.score] if isinstance(found, Judgement) else []


def unknown(stated: Iterable[Stated | None], text: str) -> list[Stated]:
    """What was read and does not stand in the text."""
    spelled = re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match.group(1), 16)), text)
    numbers = {float(number) for number in NUMBER.findall(f"{text} {spelled}")}
    passages = f"{spelled} {spelled.lower()} {spelled.replace('>>', '>')}"
    known = {"A=B=Good", "A=B=Bad"} if "[[A=B]]" in text else set()
    return [
        item
        for item in stated
        if item is not None and item not in known and (item not in passages if isinstance(item, str) else item not in numbers)
    ]


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """The text after a few cuts, insertions and repetitions, half of them at a number."""
    for _ in range(draw(st.integers(1, 4))):
        numbers = [match.start() for match in NUMBER.finditer(text)]
        start = draw(st.integers(0, len(text)) | (st.sampled_from(numbers) if numbers else st.nothing()))
        stop = min(len(text), start + draw(st.integers(0, 3) | st.integers(0, 12)))
        any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
        put = draw(st.sampled_from(NUMBERS) | st.sampled_from(MARKS) | st.just(text[start:stop] * 2) | any_text)
        text = text[:start] + put + text[stop:]
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 5)) == 0 else text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_undamaged_text_is_read(case: Case, tmp_path: Path) -> None:
    assert [item for item in case.read(case.seed, tmp_path) if item is not None] == case.expected


def test_a_whole_number_that_no_float_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EditR1Error, match="larger than any float"):
        list(written("x.outcomes.jsonl", outcomes)(OUTCOME.replace("7.25", "9" * 400), tmp_path))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(data=st.data())
def test_no_reader_invents_a_score(case: Case, tmp_path: Path, data: st.DataObject) -> None:
    text = data.draw(damaged(case.seed))
    try:
        stated = list(case.read(text, tmp_path))
    except EditR1Error:
        return
    assert unknown(stated, text) == []
