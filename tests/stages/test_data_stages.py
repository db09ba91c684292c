"""What each data stage keeps, drops and counts, with models that answer from a script."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.config import Component
from editr1.errors import ConfigError, DataError
from editr1.judge.inspect import agreement
from editr1.schema import Judgement, ParseFailure, PreferencePair
from editr1.sources.base import BadRow, SourceRow
from editr1.stages import decompose, generate, inspect, pairs, score, tasks
from editr1.store import Engine, Lane, Run, StageCounts, preference_pairs, quadruples, with_inspections
from editr1.vlm.base import ChatReply, ChatRequest
from scripted_vlm import ScriptedVLM

QUIET = Engine(progress=False, shard_size=4)
HERE = __name__
PRINCIPLES = [{"question": "Is the square red?", "category": "follow"}, {"question": "Is the wall unchanged?", "category": "keep"}]


def picture(seed: int, side: int = 24) -> Image.Image:
    return Image.new("RGB", (side, side), (seed * 37 % 256, seed * 91 % 256, seed * 11 % 256))


# --- components that recipes below name -------------------------------------------------------------

answers: dict[str, Callable[[ChatRequest], str | ChatReply]] = {}
asked: dict[str, ScriptedVLM] = {}


def vlm(script: str) -> ScriptedVLM:
    asked[script] = ScriptedVLM(answers[script])
    return asked[script]


def scripted(script: str, answer: Callable[[ChatRequest], str | ChatReply]) -> Component:
    answers[script] = answer
    return Component(f"{HERE}:vlm", {"script": script})


class Tint:
    """An editor whose picture tells source and seed."""

    name = "tint"

    def edit(self, requests: Sequence[object]) -> list[Image.Image]:
        return [picture(request.seed % 1000) for request in requests]  # type: ignore[attr-defined]


source_rows: list[SourceRow | BadRow] = []


def shown(image: Image.Image | bytes, instruction: Any, kind: str = "", difficulty: Any = "random") -> SourceRow:
    """A row whose picture is at hand."""
    return SourceRow(lambda: image, instruction, kind, difficulty=difficulty)


def rows() -> list[SourceRow | BadRow]:
    return list(source_rows)


class Fond:
    """An annotator who loves what is shown first, unless the pictures are dark."""

    name = "fond"

    def label(self, source: Image.Image, instruction: str, a: Image.Image, b: Image.Image, seed: int) -> str:
        return "same" if max(a.getpixel((0, 0))) < 60 else "a"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with six tasks."""
    source_rows[:] = [shown(picture(i), f"make it nicer {i}") for i in range(6)]
    tasks.run(tasks.Config(Component(f"{HERE}:rows"), engine=QUIET), tmp_path / "run")
    return Run.open(tmp_path / "run")


def with_candidates(run: Run, num_seeds: int = 2) -> Run:
    config = decompose.Config(scripted("good", lambda request: json.dumps(PRINCIPLES)), quotas=None, engine=QUIET)
    decompose.run(config, run.dir)
    editors = (generate.EditorSpec("tint", Component(f"{HERE}:Tint"), num_seeds),)
    generate.run(generate.Config(editors, engine=QUIET), run.dir)
    return run


def dropped(run: Run, table: str) -> list[str]:
    return [json.loads(line)["reason"] for line in (run.dir / table / "dropped.jsonl").read_text().splitlines()]


# --- tasks ------------------------------------------------------------------------------------------


def test_bad_rows_are_dropped_with_a_reason_and_the_stage_goes_on(tmp_path: Path) -> None:
    good = picture(1)
    buffer = io.BytesIO()
    good.save(buffer, "PNG")
    source_rows[:] = [
        shown(good, "make it red", "colour"),
        shown(b"", "x"),
        shown(b"no picture", "x"),
        shown(buffer.getvalue()[:60], "x"),
        shown(good, float("nan")),  # type: ignore[arg-type]
        shown(good, None),  # type: ignore[arg-type]
        shown(good, "  "),
        shown(good, "NaN"),  # as a CSV file holds it
        shown(good, "y" * 5000),
        BadRow("bad_image: missing", "(row 9)"),
        shown(good, " make it red "),
        shown(picture(2), "make it red", difficulty="hard"),
    ]
    counts = tasks.run(tasks.Config(Component(f"{HERE}:rows"), engine=replace(QUIET, max_dropped_share=1.0)), tmp_path / "run")
    assert counts == StageCounts(12, 2, 10, {"bad_image": 4, "bad_instruction": 5, "duplicate": 1})
    run = Run.open(tmp_path / "run")
    assert [(t.instruction, t.kind, t.difficulty) for t in run.read("01_tasks")] == [
        ("make it red", "colour", "random"),
        ("make it red", "", "hard"),
    ]
    assert "duplicate: of row 0" in dropped(run, "01_tasks")


def test_the_random_half_is_drawn_by_seed_and_the_hard_half_by_the_filter(tmp_path: Path) -> None:
    source_rows[:] = [shown(picture(i), f"{'move and recolour' if i % 3 == 0 else 'recolour'} {i}") for i in range(40)]

    def answer(request: ChatRequest) -> str:
        assert request.context is not None
        if request.context.instruction.endswith(" 39"):
            return "I cannot say"
        hard = request.context.instruction.startswith("move")
        return json.dumps({"hard": hard, "criterion": "steps" if hard else "none", "reason": "because"})

    def make(seed: int, folder: str, num_hard: int | None = None) -> tuple[Run, tasks.Config]:
        hard = tasks.HardFilter(scripted("filter", answer), num_filtered=40, num_hard=num_hard)
        config = tasks.Config(Component(f"{HERE}:rows"), seed, random_share=0.3, num_random=5, filter=hard, engine=QUIET)
        tasks.run(config, tmp_path / folder)
        return Run.open(tmp_path / folder), config

    run, config = make(0, "a")
    found = list(run.read("01_tasks"))
    numbers = {"random": [], "hard": []}
    for task in found:
        numbers[task.difficulty].append(int(task.instruction.split()[-1]))
    drawn = [i for i in range(40) if tasks.is_drawn(config, i)]
    assert numbers["random"] == drawn[:5]
    assert numbers["hard"] == [i for i in range(39) if i % 3 == 0 and i not in drawn]
    verdicts = list(run.read("00_filter", tasks.FilterVerdict))
    assert {verdict.reason for verdict in verdicts} == {"because"}
    assert {verdict.criterion for verdict in verdicts if verdict.hard} == {"steps"}
    assert [reason[:16] for reason in dropped(run, "00_filter")] == ["filter_unparsed:"] * (39 not in drawn)
    other, _ = make(1, "b")
    assert [t.instruction for t in other.read("01_tasks")] != [t.instruction for t in found]
    few, _ = make(0, "c", num_hard=2)
    assert sum(t.difficulty == "hard" for t in few.read("01_tasks")) == 2


def once() -> object:
    return iter(())


def test_a_source_that_can_be_read_only_once_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can be read only once"):
        tasks.run(tasks.Config(Component(f"{HERE}:once")), tmp_path / "run")


# --- decompose --------------------------------------------------------------------------------------


def test_a_bad_decomposition_is_repaired_by_showing_the_fault(run: Run) -> None:
    def answer(request: ChatRequest) -> str:
        text = "".join(part for part in request.parts if isinstance(part, str))
        number = int(re.findall(r"nicer (\d)", text)[0])
        if number == 5:
            return "What colour?"  # never learns
        repaired = "cannot be used" in text
        open_question = [{"question": "What colour is it?", "category": "follow"}]
        return json.dumps(PRINCIPLES if repaired or number % 2 == 0 else open_question)

    config = decompose.Config(scripted("repair", answer), quotas=None, batch_size=4, concurrency=1, engine=QUIET)
    counts = decompose.run(config, run.dir)
    assert counts == StageCounts(6, 5, 1, {"bad_decomposition": 1})
    assert [row.num_repairs for row in run.read("02_principles")] == [0, 1, 0, 1, 0]
    assert len(asked["repair"].requests) == 6 + 3 + 1
    assert "no JSON array" in dropped(run, "02_principles")[0]
    shown = "".join(part for part in asked["repair"].requests[-1].parts if isinstance(part, str))
    assert "What colour?" in shown
    seeds = {request.seed for request in asked["repair"].requests}
    assert len(seeds) == 10


def test_quotas_are_enforced(run: Run) -> None:
    loose = replace(QUIET, max_dropped_share=1.0)
    counts = decompose.run(decompose.Config(scripted("few", lambda r: json.dumps(PRINCIPLES)), engine=loose), run.dir)
    assert counts.num_out == 0
    assert "1 follow questions in place of 3 to 4" in dropped(run, "02_principles")[0]


def test_two_files_of_one_picture_are_one_task(tmp_path: Path) -> None:
    run_dir, file = tmp_path / "twice", io.BytesIO()
    picture(1).save(file, "GIF")
    source_rows[:] = [shown(file.getvalue(), "Make it red"), shown(picture(1), "Make it red")]
    tasks.run(tasks.Config(Component(f"{HERE}:rows"), engine=QUIET), run_dir)
    answer = scripted("twice", lambda r: json.dumps(PRINCIPLES))
    counts = decompose.run(decompose.Config(answer, quotas=None, engine=QUIET), run_dir)
    assert (counts.num_in, counts.num_out, counts.reasons) == (2, 1, {"duplicate": 1})
    assert len(asked["twice"].requests) == 1


# --- score and inspect ------------------------------------------------------------------------------


def trace_text(verdicts: str, value: float) -> str:
    return json.dumps([{"score": int(v)} for v in verdicts]) + f" <score>{value}</score>"


def test_a_pool_of_which_nothing_can_be_read_fails_in_one_line(run: Run) -> None:
    with_candidates(run)
    config = score.Config((score.Member("a", scripted("a", lambda request: "I like it"), num_traces=2),), engine=QUIET)
    with pytest.raises(DataError, match=r"none of 24 traces could be read, 24 of them for NO_VERDICTS; one ends with 'I like it'"):
        score.run(config, run.dir)
    assert run.count("04_traces") == 24, "the traces are rows like any other"


def test_unparsed_traces_are_rows_and_usage_is_counted(run: Run) -> None:
    with_candidates(run)

    def answer(request: ChatRequest) -> str | ChatReply:
        if request.seed % 3 == 0:
            return ChatReply("I think", "scripted", 100, 10, 0.5, truncated=True)
        return trace_text("10", 4.5)

    pool = (
        score.Member("a", scripted("a", answer), num_traces=3, batch_size=2, concurrency=2, price_in=1.0, price_out=10.0),
        score.Member("b", scripted("b", lambda r: "<score>7</score>"), "direct"),
    )
    counts = score.run(score.Config(pool, engine=QUIET), run.dir)
    assert counts == StageCounts(12 * 4, 12 * 4, 0, {})
    traces = list(run.read("04_traces"))
    assert [t.prompt_id for t in traces[:4]] == ["tv", "tv", "tv", "direct"]
    for trace in traces:
        failed = trace.prompt_id == "tv" and trace.seed % 3 == 0
        assert isinstance(trace.outcome, ParseFailure if failed else Judgement)
        assert trace.seconds == 0.0
    assert set(run.seconds("04_traces").values()) == {0.5}
    usage = json.loads((run.dir / "04_traces" / "usage.json").read_text())
    assert usage["a"]["tokens_out"] == 360
    assert usage["a"]["cost"] == pytest.approx((3600 * 1.0 + 360 * 10.0) / 1e6)
    assert usage["a"]["unparsed"] == sum(isinstance(t.outcome, ParseFailure) for t in traces)
    assert traces[0].quadruple_id == next(quadruples(run)).id


def inspected(run: Run, gold: Callable[[ChatRequest], str], second: Callable[[ChatRequest], str] | None = None) -> StageCounts:
    with_candidates(run, 1)
    texts = {0: trace_text("10", 5), 1: trace_text("11", 9), 2: "no idea"}

    def answer(request: ChatRequest) -> str:
        assert request.context is not None
        number = int(request.context.instruction.split()[-1])
        return "no idea" if number == 0 else texts[request.seed % 3]

    score.run(score.Config((score.Member("a", scripted("pool", answer), num_traces=6),), engine=QUIET), run.dir)
    other = inspect.Inspector(scripted("second", second)) if second else None
    config = inspect.Config(inspect.Inspector(scripted("gold", gold)), other, max_disagreement=0.4, engine=QUIET)
    return inspect.run(config, run.dir)


def test_the_selector_keeps_the_trace_that_agrees_with_gold(run: Run) -> None:
    def gold(request: ChatRequest) -> str:
        assert request.context is not None
        assert request.context.traces
        if request.context.instruction.endswith("5"):
            return "cannot tell"
        return '[{"score": 1, "reason": "red"}, {"score": 0, "reason": "wall moved"}]'

    counts = inspected(run, gold)
    assert counts.reasons == {"inspector_unparsed": 1, "no trace parsed": 1}
    assert (counts.num_in, counts.num_out, counts.num_dropped) == (6, 4, 2)
    assert len(asked["gold"].requests) == 5, "a quadruple without a readable trace is not worth a call"
    for _, traces, inspection in with_inspections(run):
        if inspection.chosen is None:
            assert inspection.dropped == "no trace parsed"
            continue
        judgements = [trace.outcome for trace in traces if isinstance(trace.outcome, Judgement)]
        assert inspection.accuracy == max(agreement(judgement.verdicts, (True, False)) for judgement in judgements)
        assert inspection.reasons == ("red", "wall moved")


def test_inspectors_who_disagree_drop_the_quadruple(run: Run) -> None:
    def second(request: ChatRequest) -> str:
        assert request.context is not None
        agree = int(request.context.instruction.split()[-1]) < 3
        return f'[{{"score": 1}}, {{"score": {0 if agree else 1}}}]'

    counts = inspected(run, lambda request: '[{"score": 1}, {"score": 0}]', second)
    assert counts.reasons == {"inspectors disagree": 3, "no trace parsed": 1}
    found = json.loads((run.dir / "05_inspections" / "agreement.json").read_text())
    assert (found["n"], found["agreement"]) == (10, 0.7)
    rows = json.loads((run.dir / "05_inspections" / "annotators.json").read_text())["annotators"]
    second = next(row for row in rows if row["name"] == "second inspector")
    assert [(row["category"], row["counts"]["only_judge_yes"]) for row in second["categories"]] == [("follow", 0), ("keep", 3)]
    assert sum(row["num_traces"] for row in rows) == run.count("04_traces") + 5


# --- pairs ------------------------------------------------------------------------------------------


def test_pairs_are_drawn_by_seed_and_split_by_task(run: Run) -> None:
    with_candidates(run, 4)
    config = pairs.Config(Component(f"{HERE}:Fond"), pairs_per_task=3, held_out_share=0.5, engine=QUIET)
    counts = pairs.run(config, run.dir)
    assert counts.num_out == 18
    found = list(run.read("07_pairs"))
    assert len({pair.id for pair in found}) == 18
    assert all(pair.a.task_id == pair.b.task_id == pair.task.id and pair.a != pair.b for pair in found)
    train, held_out = (list(preference_pairs(run, split)) for split in ("train", "held_out"))
    assert len(train) + len(held_out) == 18
    assert not {p.task.id for p in train} & {p.task.id for p in held_out}
    assert held_out
    assert train


def test_answers_from_a_file_name_candidates_or_pictures(run: Run, tmp_path: Path) -> None:
    with_candidates(run)
    quads = list(quadruples(run))
    a, b, c = quads[0], quads[1], quads[2]
    picture(0).save(tmp_path / "source.png")
    picture(70).save(tmp_path / "x.png")
    picture(71).save(tmp_path / "y.png")
    lines = [
        {"a": a.id, "b": b.id, "label": "B", "annotator": "ann"},
        {"a": a.id, "b": c.id, "label": "a"},
        {"a": a.id, "b": "nobody", "label": "a"},
        {"a": a.id, "b": b.id, "label": "left"},
        {"a": a.id, "b": b.id},
        {"a": a.id, "b": a.id, "label": "a"},
        {"source": "source.png", "instruction": "make it nicer 0", "a": "x.png", "b": "y.png", "label": "same"},
        {"source": "gone.png", "instruction": "q", "a": "x.png", "b": "y.png", "label": "a"},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    counts = pairs.run(pairs.Config(file=path, engine=replace(QUIET, max_dropped_share=0.8)), run.dir)
    assert counts.reasons == dict.fromkeys(
        ("bad_image", "bad_label", "different_tasks", "missing_value", "same_picture", "unknown_candidate"), 1
    )
    first, second = run.read("07_pairs")
    assert first == PreferencePair(a.task, a.principles, a.candidate, b.candidate, "b", "ann")
    assert second.task == a.task, "the same picture and instruction are the same task"
    assert second.principles == a.principles
    assert second.label == "same"
    path.write_text(path.read_text().replace("same", "a"))
    with pytest.raises(DataError, match="begun with file_digest"):
        pairs.run(pairs.Config(file=path, engine=QUIET), run.dir)


def test_a_mistyped_column_of_pairs_is_named_and_a_changed_picture_is_refused(run: Run, tmp_path: Path) -> None:
    for name, shade in (("s", 0), ("x", 70), ("y", 71), ("z", 72)):
        picture(shade).save(tmp_path / f"{name}.png")
    path = tmp_path / "answers.csv"
    row = "s.png,make it nicer,x.png,y.png,a\n"
    faults = {"source,instruction,a,b,lable": "no column 'label' .* did you mean 'lable'", "sorce,instruction,a,b,label": "mean 'source'"}
    for header, message in faults.items():
        path.write_text(f"{header}\n{row}")
        with pytest.raises(DataError, match=message):
            pairs.run(pairs.Config(file=path, engine=QUIET), run.dir)
    path.write_text(f"source,instruction,a,b,label\n{row}")
    assert pairs.run(pairs.Config(file=path, engine=QUIET), run.dir).num_out == 1
    (tmp_path / "x.png").write_bytes((tmp_path / "z.png").read_bytes())
    with pytest.raises(DataError, match=r"row 1 is not what .* its picture has changed"):
        pairs.run(pairs.Config(file=path, engine=QUIET), run.dir)


def test_pairs_need_exactly_one_origin_and_a_file_that_exists(run: Run) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        pairs.Config()
    with pytest.raises(DataError, match="cannot read"):
        pairs.run(pairs.Config(file=Path("/nowhere.csv"), engine=QUIET), run.dir)
    (run.dir.parent / "answers.txt").write_text("a b\n")
    with pytest.raises(DataError, match="unknown kind of table"):
        pairs.run(pairs.Config(file=run.dir.parent / "answers.txt", engine=QUIET), run.dir)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pairs.Config(Component("x"), max_pairs=-1), "max_pairs is -1"),
        (lambda: pairs.Config(Component("x"), pairs_per_task=0), "pairs_per_task is 0"),
        (lambda: generate.EditorSpec("a", Component("x"), num_seeds=-1), "num_seeds is -1"),
        (lambda: Lane(concurrency=0), "concurrency 0, expected at least 1"),
    ],
)
def test_numbers_that_make_nothing_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_table_that_was_made_anew_is_not_joined_with_old_rows(run: Run) -> None:
    with_candidates(run)
    config = score.Config((score.Member("a", scripted("pool", lambda request: trace_text("10", 5))),), engine=QUIET)
    score.run(config, run.dir)
    shutil.rmtree(run.dir / "03_candidates")
    with_candidates(run)
    score.run(config, run.dir)  # the same candidates again: nothing to do
    shutil.rmtree(run.dir / "03_candidates")
    with_candidates(run, 3)
    with pytest.raises(DataError, match="begun with input 03_candidates="):
        score.run(config, run.dir)
