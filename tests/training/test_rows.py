"""What the reward model is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editr1.errors import DataError
from editr1.judge.parse import parse
from editr1.judge.prompts import labels, render_score
from editr1.schema import Judgement, Principle
from editr1.store import Run, is_held_out
from editr1.training.rows import Lesson, SelectedTraces, completion, mixed, pair_rows, read_pairs, read_selected
from editr1.vlm.base import ChatRequest, PromptContext
from editr1.world.annotators import Decomposer
from tiny_run import PRINCIPLES, build_tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run.open(build_tiny_run(tmp_path_factory.mktemp("run") / "run"))


def test_the_kept_trace_of_every_quadruple_is_the_lesson(run: Run) -> None:
    rows = read_selected(run)
    assert len(rows) == 6
    assert all(row.trace.seed == 1 for row in rows)  # the inspections keep index 1
    lesson = SelectedTraces(run, rows, "compact")[0]
    assert lesson.completion.endswith("<score>9.5</score>")
    assert [type(part).__name__ for part in lesson.request.parts] == ["Image", "str", "Image"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("score", "<score>9.5</score>"),
        ("verdicts", "F1 -> yes\nK1 -> yes\nQ1 -> yes\n<score>9.5</score>"),
        (
            "reasoning",
            " red solid circle, want red solid circle -> yes\n white, want white -> yes\n clean, want clean -> yes\n<score>9.5</score>",
        ),
    ],
)
def test_each_variant_learns_its_part_of_the_trace(run: Run, target: str, expected: str) -> None:
    assert completion(read_selected(run)[0].trace, PRINCIPLES, target) == expected  # type: ignore[arg-type]


def test_every_variant_is_made_of_words_that_the_embedded_student_knows() -> None:
    """An unknown word cannot be sampled, so a student that is taught one writes noise in its place."""
    from editr1.schema import Trace
    from editr1.world.annotators import Annotator
    from editr1.world.tasks import TaskSource
    from editr1.world.tiny_vlm import new_tokenizer

    tokenizer = new_tokenizer()
    for row in TaskSource(40, seed=1, compound_share=0.5):
        context = PromptContext("decompose", row.instruction)
        answer = Decomposer().chat([ChatRequest((row.image,), context=context)])[0]
        principles = tuple(Principle(**one) for one in json.loads(answer.text))
        request = render_score("compact", row.image, row.image, row.instruction, principles)
        text = Annotator().chat([request])[0].text
        outcome = parse(text, len(principles), labels=labels(principles))
        assert isinstance(outcome, Judgement)
        trace = Trace("x", text, outcome, "annotator", "compact", 0.0, 0)
        for target in ("trace", "verdicts", "reasoning", "score"):
            ids = tokenizer(completion(trace, principles, target))["input_ids"]
            assert tokenizer.unk_token_id not in ids, (target, completion(trace, principles, target))


def test_rows_of_a_pair_lie_side_by_side_winner_first(run: Run) -> None:
    pairs = read_pairs(run)
    rows = pair_rows(run, pairs, "compact", num_pairs=5, seed=0)
    assert len(rows) == 10
    assert [(rows[i]["pair"], rows[i]["side"]) for i in range(4)] == [(0, "w"), (0, "l"), (1, "w"), (1, "l")]
    assert sorted(rows.order[:3]) == [0, 1, 2]  # every pair once before any comes again
    assert rows[0]["labels"] == ("F1", "K1", "Q1")
    assert rows[0]["needs_verdicts"]


def test_every_nth_batch_is_replayed() -> None:
    def lesson(text: str) -> Lesson:
        return Lesson(ChatRequest((text,)), text)

    order = mixed([lesson("new")] * 3, lambda index: lesson(f"old {index}"), replay_every=3, batch_size=2, num_batches=4, seed=0)
    assert [order[i].completion.split()[0] for i in range(8)] == ["new"] * 4 + ["old"] * 2 + ["new"] * 2
    assert order[4] != order[5]


def test_held_out_tasks_are_never_trained_on(tmp_path: Path) -> None:
    run = Run.open(build_tiny_run(tmp_path / "run", num_tasks=40))
    rows = read_selected(run, held_out_share=0.3)
    assert 0 < len(rows) < 80
    assert not any(is_held_out(row.task.id, 0.3) for row in rows)
    settings = run.dir / "07_pairs" / "settings.json"
    settings.write_text(json.dumps({"held_out_share": 0.3}))
    pairs = read_pairs(run)
    assert {pair.task.id for pair in pairs} == {row.task.id for row in rows}


def test_one_half_of_the_tasks_can_be_left_out(run: Run) -> None:
    assert len(read_selected(run, difficulty="random")) == 6
    with pytest.raises(DataError, match="no trace of hard tasks"):
        read_selected(run, difficulty="hard")


def test_without_an_inspector_any_trace_that_parsed_is_learnt(tmp_path: Path) -> None:
    run = Run.open(build_tiny_run(tmp_path / "run", num_tasks=12))
    rows = read_selected(run, inspected=False)
    assert len(rows) == 24
    assert {row.trace.seed for row in rows} == {0, 1}  # the inspector kept 1 throughout
    assert rows == read_selected(run, inspected=False)
    assert len(read_selected(run, held_out_share=0.5, inspected=False)) < 24


def test_no_kept_trace_is_an_error(run: Run) -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        read_selected(run, held_out_share=1.0)


def test_rows_of_like_length_share_a_batch_and_none_is_lost() -> None:
    lessons = [Lesson(ChatRequest((str(i),)), str(i)) for i in range(32)]
    order = mixed(lessons, None, 4, batch_size=4, num_batches=8, seed=0, lengths=list(range(32)))
    rows = [int(order[i].completion) for i in range(32)]
    assert sorted(rows) == list(range(32))
    assert all(max(rows[b : b + 4]) - min(rows[b : b + 4]) == 3 for b in range(0, 32, 4))
    assert rows != sorted(rows)
