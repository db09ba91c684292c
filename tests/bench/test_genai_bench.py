"""GenAI-Bench's stored answers: published accuracies to every digit, three rules of reading, bad files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench_files import png, write_parquet
from editr1.bench.genai_bench import RULES, Rule, build, metrics, read_answers, read_votes
from editr1.errors import DataError

labels = st.sampled_from(["[[A>B]]", "[[B>A]]", "[[A>>B]]", "[[A=B]]", "[[A=B=Good]]", "[[A=B=Bad]]", "[[", "]]", "A>B", "\n", " or "])
answer_texts = st.text(max_size=200) | st.lists(labels | st.text(max_size=5), max_size=8).map("".join)


def by_protocol(path: Path) -> dict:
    return {metric.protocol: metric for metric in metrics(read_answers(path))}


@pytest.mark.parametrize(
    ("judge", "official", "first", "last", "unambiguous"),
    [("gpt4o", *["53.54"] * 4), ("qwenVL", "14.91", "14.91", "16.43", "12.08"), ("llava", *["26.12"] * 4)],
)
def test_published_four_label_accuracies(public_data: Path, judge: str, official: str, first: str, last: str, unambiguous: str) -> None:
    found = by_protocol(public_data / "genai_bench" / judge / "pairwise.json")
    printed = [f"{100 * found[f'genai-bench/4-label/{rule}'].value:.2f}" for rule in RULES]
    assert printed == [official, first, last, unambiguous]
    assert found["genai-bench/4-label/first"].n == 919
    assert found["genai-bench/decisive/strict"].n == 503
    published = json.loads((public_data / "published_tables.json").read_text())["genai_bench_image_edition"]
    assert f"{published[judge]:.2f}" == official


def test_position_bias_is_visible(public_data: Path) -> None:
    llava = by_protocol(public_data / "genai_bench" / "llava" / "pairwise.json")
    assert llava["genai-bench/position/judge"].value == 1.0  # answers A 919 of 919 times
    assert llava["genai-bench/decisive/strict"].value == pytest.approx(240 / 503)
    gpt4o = by_protocol(public_data / "genai_bench" / "gpt4o" / "pairwise.json")["genai-bench/4-label/first"]
    assert [f"{100 * gpt4o.by_category[vote]:.1f}" for vote in ("A>B", "B>A")] == ["64.2", "79.5"]


@settings(deadline=None)
@given(answer_texts, st.sampled_from(RULES))
def test_a_label_is_read_only_where_it_stands(text: str, rule: Rule) -> None:
    votes = read_votes(text, rule)
    if len(votes) == 2:
        assert "[[A=B]]" in text
    assert all(f"[[{vote}]]" in text or f"[[{vote.replace('>', '>>')}]]" in text for vote in votes[: len(votes) % 2])


@pytest.mark.parametrize(
    ("text", "official", "first"),
    [
        ("[[A>B]]", ("A>B",), ("A>B",)),
        ("[[A>>B]]", ("A>B",), ()),
        ("[[A=B]]", ("A=B=Good", "A=B=Bad"), ()),
        ("1. [[A>B]] 2. [[B>A]]", (), ("A>B",)),
        ("1. [[A>B]]\n2. [[B>A]]", ("A>B",), ("A>B",)),
        ("[[left]]\n[[B>A]]", (), ("B>A",)),
        ("A>B", (), ()),
        ("<think>[[B>A]]</think>\n[[A>B]]", ("B>A",), ("A>B",)),  # the official script knows no thinking
        ("<think>[[B>A]]", ("B>A",), ()),
    ],
)
def test_the_benchmarks_own_rule_takes_one_label_from_the_first_line_that_has_brackets(text: str, official: tuple, first: tuple) -> None:
    assert read_votes(text, "official") == official
    assert read_votes(text, "first") == first


def test_every_answer_that_says_nothing_is_wrong_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "pairwise.json"
    path.write_text(json.dumps([{"idx": i, "response": "no idea", "human_vote": "leftvote"} for i in range(4)]))
    found = by_protocol(path)
    first = found["genai-bench/4-label/first"]
    assert (first.value, first.num_unscored, first.low) == (0.0, 4, 0.0)
    assert first.high > 0.4  # four wrong answers do not prove that all are
    assert found["genai-bench/decisive/half"].value == 0.5
    assert found["genai-bench/position/judge"].value is None


def test_another_number_of_rows_than_published_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pairwise.json"
    for n, said in [(3, ["3 rows, the published set has 919"]), (919, [])]:
        caplog.clear()
        path.write_text(json.dumps([{"idx": i, "response": "[[A>B]]", "human_vote": "leftvote"} for i in range(n)]))
        read_answers(path)
        assert [message for message in said if message in caplog.text] == said
        assert len(caplog.records) == len(said)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "list of comparisons"),
        ("[", "cannot read"),
        ('[{"response": "x"}]', "human_vote"),
        ('[{"human_vote": "left"}]', "unknown vote"),
        ('[{"human_vote": "leftvote", "prompt": "a cat", "response": "[[A>B]]"}]', "answers about generation"),
        ('[{"idx": 1, "human_vote": "leftvote"}, {"idx": 1, "human_vote": "leftvote"}]', "more than once"),
    ],
)
def test_bad_files_give_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "pairwise.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_answers(path)


@pytest.mark.parametrize("name", ["source_prompt", "instruct_prompt", "vote_type"])
def test_a_cell_that_is_no_text_is_one_line(tmp_path: Path, name: str) -> None:
    row: dict[str, object] = {"source_prompt": "s", "instruct_prompt": "i", "vote_type": "leftvote"}
    row |= {column: png(9) for column in ("source_image", "left_output_image", "right_output_image")}
    for odd in (None, 3, ["a"], {"a": 1}):
        write_parquet(tmp_path, [row | {name: odd}], ("source_image", "left_output_image", "right_output_image"))
        with pytest.raises(DataError, match=f"row 0: {name} is .*, expected a text"):
            build(tmp_path)
