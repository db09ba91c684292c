"""One table of one's own becomes the tables of a run, and training goes on from there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from editr1.cli import main
from editr1.commands.data import NEEDED, OPTIONAL
from editr1.config import Component
from editr1.editors.base import EditRequest
from editr1.judge.decompose import Decomposer, Rules
from editr1.stages import decompose
from editr1.store import Engine, Run, preference_pairs, quadruples
from editr1.world import annotators
from editr1.world.procedural_editors import ProceduralEditor
from editr1.world.tasks import TaskSource

NUM = 6


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures with one comparison a task, as somebody else's tool would leave it."""
    folder = tmp_path_factory.mktemp("mine")
    writer, rows = Decomposer(annotators.Decomposer(), Rules(quotas=None)), []
    for index, task in enumerate(TaskSource(NUM, 5)):
        task.image.save(folder / f"{index}.png")
        for side, profile, seed in (("a", "steady", index), ("b", "leaky", 200 + index)):  # no two edits alike
            (edit,) = ProceduralEditor(profile).edit([EditRequest(task.image, task.instruction, seed)])
            edit.save(folder / f"{index}_{side}.png")
        (found,) = writer.decompose([(task.image, task.instruction)], index)
        principles = json.dumps([{"question": p.question, "category": p.category} for p in found.principles])
        names = {"source": f"{index}.png", "a": f"{index}_a.png", "b": f"{index}_b.png", "label": "ab"[index % 2]}
        rows.append({**names, "instruction": task.instruction, "principles": principles, "editor_a": "steady", "editor_b": "leaky"})
    _write(folder / "table.csv", rows)
    return folder / "table.csv"


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_becomes_tasks_principles_candidates_and_pairs(table: Path, tmp_path: Path) -> None:
    arguments = ["import-data", str(table), "--run", str(tmp_path / "run"), "--held-out-share", "0"]
    assert main(arguments) == 0
    run = Run.open(tmp_path / "run")
    found = list(quadruples(run))
    assert len(found) == 2 * NUM
    assert {q.candidate.editor for q in found} == {"steady", "leaky"}
    pairs = list(preference_pairs(run, "train"))
    assert [pair.label for pair in pairs] == ["a", "b"] * (NUM // 2)
    assert {side.id for pair in pairs for side in (pair.a, pair.b)} <= {q.candidate.id for q in found}
    assert all(pair.principles for pair in pairs)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("part-*")}
    assert main(arguments) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("part-*")} == before


def test_the_same_table_again_says_that_nothing_was_written(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for times in (0, 1):
        assert main(["import-data", str(table), "--run", str(tmp_path / "run")]) == 0
        assert capsys.readouterr().out.count("nothing was written now") == times


def test_missing_principles_are_made_by_a_model_in_between(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = table.parent / "plain.csv"
    _write(plain, [{key: value for key, value in row.items() if key != "principles"} for row in _rows(table)])
    run_dir = tmp_path / "run"
    assert main(["import-data", str(plain), "--run", str(run_dir)]) == 0
    assert "editr1 decompose" in capsys.readouterr().out
    assert not Run.open(run_dir).has("03_candidates")
    vlm = Component("editr1.world.annotators:Decomposer")
    decompose.run(decompose.Config(vlm, quotas=None, engine=Engine(progress=False)), run_dir)
    assert main(["import-data", str(plain), "--run", str(run_dir)]) == 0
    assert len(list(quadruples(Run.open(run_dir)))) == 2 * NUM
    assert Run.open(run_dir).count("07_pairs") == NUM


def test_bad_rows_are_dropped_by_number_and_a_bad_table_is_refused(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(table)
    rows[0]["a"], rows[1]["principles"], rows[2]["b"], rows[2]["label"] = "absent.png", "no list", "", ""
    _write(table.parent / "bad.csv", rows)
    assert main(["import-data", str(table.parent / "bad.csv"), "--run", str(tmp_path / "run"), "--held-out-share", "0"]) == 0
    dropped = (tmp_path / "run" / "01_tasks" / "dropped.jsonl").read_text()
    assert "row 1" in dropped
    assert "row 2" in dropped
    run = Run.open(tmp_path / "run")
    assert (run.count("01_tasks"), run.count("03_candidates"), run.count("07_pairs")) == (NUM - 2, 2 * NUM - 5, NUM - 3)
    for row in rows:
        row["lable"] = row.pop("label")
    _write(table.parent / "typo.csv", rows)
    capsys.readouterr()
    assert main(["import-data", str(table.parent / "typo.csv"), "--run", str(tmp_path / "other")]) == 2
    assert "did you mean 'label'" in capsys.readouterr().err
    assert main(["import-data", str(tmp_path / "none.csv"), "--run", str(tmp_path / "other")]) == 2


def test_a_share_that_is_none_is_refused_before_anything_is_written(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for share in ("2", "-0.1", "nan"):
        assert main(["import-data", str(table), "--run", str(tmp_path / "run"), "--held-out-share", share]) == 2
        assert "held_out_share is a share in [0, 1]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_table_of_which_most_rows_are_bad_is_refused_and_a_changed_one_needs_a_word(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, arguments = _rows(table), ["import-data", str(table.parent / "t.csv"), "--run", str(tmp_path / "run"), "--held-out-share", "0"]
    _write(table.parent / "t.csv", [row | {"label": "left"} if index < 4 else row for index, row in enumerate(rows)])
    assert main(arguments) == 2
    assert "4 of 6 rows cannot be used; the first: bad_row: row 1: label is 'left'" in capsys.readouterr().err
    _write(table.parent / "t.csv", rows)
    assert main(arguments) == 0
    _write(table.parent / "t.csv", rows[1:])
    assert main(arguments) == 2
    assert "add --accept" in capsys.readouterr().err
    assert main([*arguments, "--accept"]) == 0
    assert Run.open(tmp_path / "run").count("07_pairs") == NUM - 1


def test_a_person_answers_once_about_a_pair(table: Path, tmp_path: Path) -> None:
    one = _rows(table)[0] | {"annotator": "ada", "label": "a"}
    turned = one | {"a": one["b"], "b": one["a"], "label": "b"}
    _write(table.parent / "said.csv", [one, turned, one | {"label": "same"}, one | {"annotator": ""}, one | {"annotator": ""}])
    assert main(["import-data", str(table.parent / "said.csv"), "--run", str(tmp_path / "run")]) == 0
    assert Run.open(tmp_path / "run").counts("07_pairs").reasons == {"contradiction": 1, "duplicate": 1}


def test_sft_and_gcpo_learn_from_it(table: Path, tmp_path: Path) -> None:
    """The recipe of the page, with the embedded world in place of the endpoints and two steps in place of thousands."""
    from tiny_run import build_tiny_verifier

    run_dir, recipe = tmp_path / "run", tmp_path / "mine.yaml"
    assert main(["import-data", str(table), "--run", str(run_dir), "--held-out-share", "0"]) == 0
    small = "machine: {micro_batch: 4, activation_checkpointing: false, trackers: [], progress: false}"
    recipe.write_text(
        f"""
score: {{pool: [{{name: reader, vlm: "editr1.world.annotators:Annotator", prompt_id: compact, num_traces: 2}}]}}
inspect: {{inspector: {{vlm: "editr1.world.annotators:Inspector"}}, engine: {{progress: false}}}}
sft: {{model: "{build_tiny_verifier(tmp_path / "model")}", prompt_id: compact, steps: 2, batch_size: 4, {small}}}
gcpo: {{prompt_id: compact, steps: 1, pairs_per_step: 2, num_traces: 2, silent_steps: 0, generation: {{max_tokens: 8}}, {small}}}
"""
    )
    for stage in ("score", "inspect", "sft", "gcpo"):
        assert main([stage, "--config", str(recipe), "--run", str(run_dir)]) == 0, stage
    assert (run_dir / "08_rrm_gcpo" / "model.safetensors").exists()


def test_the_page_names_every_column() -> None:
    page = Path(__file__).parents[2] / "docs" / "how_to" / "own_data.md"
    named = page.read_text(encoding="utf-8")
    assert all(f"`{column}`" in named for column in (*NEEDED, *OPTIONAL))
