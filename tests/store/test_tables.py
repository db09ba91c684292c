"""Tables are plain Parquet, know what they were made from, and notice what a disk or a user changed behind their back."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from editr1 import cli
from editr1.commands.runs import migrate
from editr1.errors import BackendError, ChangedInputsError, DataError
from editr1.schema import (
    Candidate,
    EditTask,
    ImageRef,
    Inspection,
    Judgement,
    Metric,
    ParseFailure,
    PreferencePair,
    Principle,
    TaskPrinciples,
    Trace,
    to_json,
)
from editr1.store import Drop, Engine, Lane, Run, Work, hold

QUIET = Engine(progress=False, max_dropped_share=1.0)
REF = ImageRef("a" * 64, width=3, height=4)
TASK = EditTask.make(REF, "make it red\u2028now", "colour")
PRINCIPLES = (Principle("Is it red?", "follow"), Principle("Is the rest as it was?", "keep"))
ONE, TWO = Candidate.make(TASK.id, REF, "e", 1), Candidate.make(TASK.id, REF, "e", 2)
ROWS: dict[str, list[Any]] = {
    "01_tasks": [TASK, replace(TASK, difficulty="hard")],
    "02_principles": [TaskPrinciples(TASK, PRINCIPLES, "m", 1), TaskPrinciples(TASK, ())],
    "03_candidates": [ONE, TWO],
    "04_traces": [
        Trace(ONE.id, "Red.", Judgement((True, False), 6.5), "m", "tv", 0.7, 1, 10, 20),
        Trace(ONE.id, "...", ParseFailure("NO_SCORE", "..."), "m", "tv", 0.7, 2),
        Trace(TWO.id, "", Judgement((), 0.0), "m", "t", 1.0, 3),
    ],
    "05_inspections": [Inspection(ONE.id, (True, False), ("a", ""), 0, 1.0), Inspection(TWO.id, (), (), None, None, "refused")],
    "07_pairs": [PreferencePair(TASK, PRINCIPLES, ONE, TWO, "a", "ann"), PreferencePair(TASK, (), TWO, ONE, "same")],
}


def write(run: Run, table: str, rows: Sequence[Any], engine: Engine = QUIET, **settings: Any) -> None:
    items = ((f"k{i}", row) for i, row in enumerate(rows))
    run.process(table, items, Work(lambda: list, {"": Lane(batch_size=2)}), settings=settings, engine=engine)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.open(tmp_path / "run")
    for table, rows in ROWS.items():
        write(run, table, [*rows, Drop("bad_row: for the test")], replace(QUIET, shard_size=2))
    return run


def test_every_record_comes_back_from_its_columns(run: Run) -> None:
    for table, rows in ROWS.items():
        assert list(run.read(table)) == rows


@dataclass(frozen=True)
class Odd:
    """What the columns must hold and no table of the loop does."""

    parts: dict[str, float] = field(default_factory=dict)
    scores: tuple[float | None, ...] = ()
    best: Trace | None = None
    others: tuple[Trace, ...] = ()
    done: bool | None = None


def test_records_of_odd_shapes_come_back(run: Run) -> None:
    traces = tuple(ROWS["04_traces"])
    rows = [Odd(), Odd({"a": 1.0, "b": 0.5}, (None, 1.5), traces[0], traces, False), Odd(scores=(None,), best=traces[1])]
    run.process("odd", enumerate_keys(rows), Work(lambda: list), settings={}, record=Odd, engine=QUIET)
    assert list(run.read("odd", Odd)) == rows


def enumerate_keys(rows: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    return ((f"k{i}", row) for i, row in enumerate(rows))


def without_further(table: pa.Table) -> pa.Table:
    """The table as it was written before a task could have several source pictures."""

    def older(array: pa.Array) -> pa.Array:
        if pa.types.is_list(array.type):
            return pa.ListArray.from_arrays(array.offsets, older(array.values))
        if not pa.types.is_struct(array.type):
            return array
        fields = [(field, older(array.field(i))) for i, field in enumerate(array.type) if field.name != "further"]
        return pa.StructArray.from_arrays([column for _, column in fields], [field.name for field, _ in fields], mask=array.is_null())

    kept = [name for name in table.column_names if name != "further"]
    return pa.table({name: older(table[name].combine_chunks()) for name in kept})


def rewrite(path: Path, table: pa.Table) -> None:
    """The shard with other rows, and the checksum of those."""
    pq.write_table(table, path)
    path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())


def test_tables_from_before_a_field_with_a_default_still_read(run: Run) -> None:
    for table in ("01_tasks", "02_principles", "07_pairs"):
        for path in (run.dir / table).glob("*.parquet"):
            old = pq.read_table(path)
            changed = without_further(old)
            assert "further" not in str(changed.schema)
            rewrite(path, changed.replace_schema_metadata(old.schema.metadata))
        assert list(run.read(table)) == ROWS[table]
    path = next((run.dir / "01_tasks").glob("*.parquet"))
    old = pq.read_table(path)
    rewrite(path, old.drop_columns(["instruction"]).replace_schema_metadata(old.schema.metadata))
    with pytest.raises(DataError, match="holds no rows of EditTask"):
        list(run.read("01_tasks"))


def test_a_log_from_before_a_field_with_a_default_is_continued(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    log = run.dir / "01_tasks" / "part-00000.partial.jsonl"

    def stopped(batch: Sequence[EditTask]) -> Sequence[EditTask]:
        if log.stat().st_size:
            raise KeyboardInterrupt
        return batch

    items = list(enumerate_keys(ROWS["01_tasks"]))
    with pytest.raises(KeyboardInterrupt):
        run.process("01_tasks", items, Work(lambda: stopped), settings={}, engine=QUIET)
    log.write_text(log.read_text().replace(',"further":[]', ""))
    run.process("01_tasks", items, Work(lambda: list), settings={}, engine=QUIET)
    assert list(run.read("01_tasks")) == ROWS["01_tasks"]


# --- other programs read them -----------------------------------------------------------------------


def test_pandas_reads_a_table(run: Run) -> None:
    import pandas as pd

    frame = pd.read_parquet(sorted((run.dir / "04_traces").glob("*.parquet")))
    kept = frame[frame.row_dropped.isna()]
    assert list(kept.text) == ["Red.", "...", ""]
    assert kept.outcome.iloc[0]["score"] == 6.5
    assert kept.outcome.iloc[1]["code"] == "NO_SCORE"
    assert list(frame.row_dropped.dropna()) == ["bad_row: for the test"]


def test_datasets_reads_every_table(run: Run, tmp_path: Path) -> None:
    from datasets import load_dataset

    for table, rows in ROWS.items():
        found = load_dataset("parquet", data_files=str(run.dir / table / "*.parquet"), split="train", cache_dir=str(tmp_path / "cache"))
        assert len(found) == len(rows) + 1
    assert found[0]["a"]["image"]["digest"] == REF.digest


def test_duckdb_queries_a_table(run: Run) -> None:
    import duckdb

    rows = duckdb.sql(f"select avg(outcome.score) from '{run.dir}/04_traces/*.parquet' where row_dropped is null").fetchall()
    assert rows == [(3.25,)]


# --- layout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", [1, 3, 1000])
def test_another_shard_size_makes_no_row_twice_and_refuses_nothing(tmp_path: Path, then: int) -> None:
    made: list[int] = []

    def work(stop: int) -> Work:
        def function(batch: Sequence[int]) -> list[EditTask]:
            if stop in batch:
                raise OSError(errno.EIO, "stopped")
            made.extend(batch)
            return [EditTask.make(REF, f"edit {i}") for i in batch]

        return Work(lambda: function)

    def fill(run: Run, size: int, stop: int = -1) -> None:
        items = ((f"k{i}", i) for i in range(25))
        run.process("01_tasks", items, work(stop), settings={}, engine=replace(QUIET, shard_size=size))

    run = Run.open(tmp_path / "run")
    for size, stop in ((10, 3), (then, 13), (7, 22), (then, -1), (2, -1)):
        if stop < 0:
            fill(run, size)
        else:
            with pytest.raises(OSError, match="stopped"):
                fill(run, size, stop)
    assert sorted(made) == list(range(25))
    other = Run.open(tmp_path / "other")
    fill(other, then)
    assert list(run.keyed("01_tasks")) == list(other.keyed("01_tasks"))
    assert run.inputs("01_tasks") == other.inputs("01_tasks"), "what comes after asks what the rows say, not how they lie"


# --- damage -----------------------------------------------------------------------------------------


def test_no_flipped_bit_is_read_as_other_rows(run: Run) -> None:
    draw = random.Random(0)
    shards = [path for path in run.dir.glob("0*/*") if path.suffix in (".parquet", ".sha256")]
    for _ in range(300):
        path = draw.choice(shards)
        good = path.read_bytes()
        bad = bytearray(good)
        bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
        path.write_bytes(bad)
        table = path.parent.name
        if path.suffix == ".sha256" and bad[:64] == good[:64]:  # a letter of the name beside the digest
            assert list(run.read(table)) == ROWS[table]
        else:
            with pytest.raises(DataError, match=rf"{path.stem}.*editr1 repair"):
                list(run.read(table))
        path.write_bytes(good)


def test_a_missing_shard_is_noticed(run: Run) -> None:
    (run.dir / "01_tasks" / "part-00000.parquet").unlink()
    with pytest.raises(DataError, match=r"part-00000\.parquet is missing"):
        list(run.read("01_tasks"))


def pictures(folder: Path, num: int = 12) -> Path:
    from PIL import Image

    folder.mkdir()
    for i in range(num):
        Image.new("RGB", (8, 8), (i * 20, 0, 0)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(f"Make it {i}\n")
    recipe = folder.parent / "r.yaml"
    recipe.write_text(f"tasks: {{source: {{id: folder, options: {{path: {folder}}}}}, engine: {{shard_size: 4, progress: false}}}}\n")
    return recipe


def stage(recipe: Path, *more: str, name: str = "tasks") -> int:
    return cli.main([name, "--config", str(recipe), "--run", str(recipe.parent / "run"), *more])


def content(run_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run_dir / "01_tasks").iterdir())}


def test_repair_makes_the_damaged_shard_again_and_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run_dir = pictures(tmp_path / "pictures"), tmp_path / "run"
    assert stage(recipe) == 0
    whole = content(run_dir)
    others = {path: path.stat().st_mtime_ns for path in (run_dir / "01_tasks").glob("part-*") if "part-00001" not in path.name}
    shard = run_dir / "01_tasks" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    assert stage(recipe) == 2
    assert "editr1 repair" in capsys.readouterr().err
    assert cli.main(["repair", str(run_dir), "--dry-run"]) == 1
    assert "part-00001.parquet" in capsys.readouterr().out
    assert cli.main(["repair", str(run_dir)]) == 0
    assert content(run_dir) == whole
    assert {path: path.stat().st_mtime_ns for path in others} == others
    assert cli.main(["repair", str(run_dir)]) == 0


# --- what a table was made from ---------------------------------------------------------------------


def test_other_settings_are_refused_or_accepted_and_never_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run_dir = pictures(tmp_path / "pictures"), tmp_path / "run"
    assert stage(recipe) == 0
    more = ("--set", "tasks.num_random=5")
    assert stage(recipe, *more) == 2
    assert "new run directory, or add --accept" in capsys.readouterr().err
    assert stage(recipe, *more, "--accept") == 0
    assert Run.open(run_dir).count("01_tasks") == 5
    assert (run_dir / ".aside" / "01_tasks-1" / "part-00002.parquet").exists()


def test_a_changed_list_or_picture_is_refused_and_an_unchanged_one_is_not_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from editr1.sources import folder as source

    recipe, run_dir = pictures(tmp_path / "pictures"), tmp_path / "run"
    read: list[str] = []
    true_read = source.read_inside

    def counted(root: Path, name: str) -> bytes:
        read.extend([name] if name.endswith(".png") else [])
        return true_read(root, name)

    monkeypatch.setattr(source, "read_inside", counted)
    more = ("--set", "tasks.num_random=7")
    assert stage(recipe, *more) == 0
    assert len(read) == 7, "only what was chosen is read"
    read.clear()
    assert stage(recipe, *more) == 0
    assert read == []
    picture, other = tmp_path / "pictures" / "02.png", tmp_path / "pictures" / "09.png"
    good = picture.read_bytes()
    picture.touch()
    assert stage(recipe, *more) == 0, "the same bytes at another time are the same picture"
    assert read == ["02.png"]
    picture.write_bytes(other.read_bytes())
    capsys.readouterr()
    assert stage(recipe, *more) == 2
    assert "row 2 (02.png) is not what" in (err := capsys.readouterr().err)
    assert "its picture has changed" in err
    picture.write_bytes(good)
    picture.with_suffix(".txt").write_text("Make it blue\n")
    assert stage(recipe, *more) == 2
    assert "its text has changed" in capsys.readouterr().err
    assert stage(recipe, *more, "--accept") == 0
    assert [task.instruction for task in Run.open(run_dir).read("01_tasks")][2] == "Make it blue"


def test_what_makes_no_row_another_may_change_and_what_does_is_named(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")

    def settings(**changes: object) -> dict[str, object]:
        options = {"model": "m", "timeout": changes.pop("timeout", 300.0), "max_attempts": changes.pop("max_attempts", 6)}
        return {"pool": [{"name": "x", "price_out": 0.0, "temperature": 0.7, "vlm": {"id": "openai_api", "options": options}} | changes]}

    write(run, "01_tasks", ROWS["01_tasks"], **settings())
    write(run, "01_tasks", ROWS["01_tasks"], **settings(price_out=3.0, timeout=20.0, max_attempts=1))
    with pytest.raises(ChangedInputsError, match=r"begun with pool\.0\.temperature=0\.7, now it is 0\.8"):
        write(run, "01_tasks", ROWS["01_tasks"], **settings(temperature=0.8))


@pytest.mark.parametrize("name", ["settings.json", "layout.json"])
@pytest.mark.parametrize("text", ["null", "[]", "3", '{"shard_size": "x"}', ""])
def test_a_damaged_file_beside_a_table_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    run = Run.open(tmp_path / "run")
    write(run, "01_tasks", ROWS["01_tasks"])
    (run.dir / "01_tasks" / name).write_text(text)
    with pytest.raises(DataError, match=name if name == "layout.json" or not text.startswith("{") else "begun with shard_size"):
        write(run, "01_tasks", ROWS["01_tasks"])


def test_a_damaged_cache_of_digests_is_made_again_and_a_plain_name_is_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steady").mkdir()  # a folder of this name, and a word
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text("{}")
    (run.dir / ".digests.json").write_text("[")
    found = run.made_from({"vlm": {"id": "local", "options": {"path": "qwen", "profile": "steady"}}})
    assert [key for key in found if key.startswith("content ")] == ["content qwen"]


@pytest.mark.parametrize("odd", [AttributeError("x"), OSError("image file is truncated"), SyntaxError("broken PNG file"), EOFError()])
def test_what_a_library_raises_of_one_row_stops_nothing(tmp_path: Path, odd: Exception) -> None:
    def function(batch: Sequence[int]) -> list[EditTask]:
        if 3 in batch:
            raise odd
        return [EditTask.make(REF, f"edit {i}") for i in batch]

    run = Run.open(tmp_path / "run")
    counts = run.process("01_tasks", ((f"k{i}", i) for i in range(10)), Work(lambda: function, {"": Lane(4)}), settings={}, engine=QUIET)
    assert counts.reasons == {"bad_row": 1}
    odd, other = OSError(errno.ENOSPC, "full"), Run.open(tmp_path / "other")  # of the machine, and no trouble of a row
    with pytest.raises(OSError, match="full"):
        other.process("01_tasks", [(f"k{i}", i) for i in range(4)], Work(lambda: function), settings={}, engine=QUIET)


def test_a_model_library_may_fail_at_a_few_rows_and_not_at_many(tmp_path: Path) -> None:
    def function(batch: Sequence[int]) -> list[EditTask]:
        if any(i % 50 == 0 for i in batch if i < 100) or any(i >= 100 for i in batch):
            raise RuntimeError("shapes cannot be multiplied")
        return [EditTask.make(REF, f"edit {i}") for i in batch]

    run = Run.open(tmp_path / "run")
    work, engine = Work(lambda: function, {"": Lane(4)}), Engine(progress=False)
    counts = run.process("01_tasks", ((f"k{i}", i) for i in range(100)), work, settings={}, engine=engine)
    assert counts.reasons == {"backend": 2}
    with pytest.raises(BackendError, match="RuntimeError: shapes"):
        run.process("02_principles", ((f"k{i}", i) for i in range(100, 110)), work, settings={}, engine=engine)


def test_a_source_of_ones_own_may_raise_what_it_will_about_a_picture(tmp_path: Path) -> None:
    origins = Run.open(tmp_path / "run").origins("01_tasks")

    def load() -> bytes:
        return (tmp_path / "absent.png").read_bytes()

    assert origins.load("k0", "words", "", load, "row 0").fault.startswith("bad_image: FileNotFoundError")


def test_a_stage_that_keeps_nothing_says_why_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = pictures(tmp_path / "pictures")
    for text in (tmp_path / "pictures").glob("*.txt"):
        text.write_text("\n")
    assert stage(recipe) == 2
    assert "12 of 12 rows" in (err := capsys.readouterr().err)
    assert "bad_instruction" in err
    assert err.count("\n") == 1
    assert stage(recipe, "--set", "tasks.engine.max_dropped_share=1") == 2
    assert "none of 12 rows was kept" in capsys.readouterr().err


def test_a_stage_where_most_rows_fail_stops_and_tries_them_again(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    made: list[int] = []

    def fill(bad: set[int]) -> None:
        def function(batch: Sequence[int]) -> list[EditTask]:
            made.extend(batch)
            if bad & set(batch):
                raise ValueError(f"cannot read row {batch[0]}")
            return [EditTask.make(REF, f"edit {i}") for i in batch]

        engine = Engine(progress=False, shard_size=4)
        run.process("01_tasks", ((f"k{i}", i) for i in range(10)), Work(lambda: function), settings={}, engine=engine)

    with pytest.raises(DataError, match=r"6 of 10 rows .*commonest reason, 6 times: 'bad_row: ValueError: cannot read row 0'"):
        fill(set(range(6)))
    made.clear()
    fill({2})
    assert sorted(made) == [0, 1, 2, 3, 4, 5]
    assert run.counts("01_tasks").reasons == {"bad_row": 1}


def test_a_checkpoint_that_changed_behind_its_path_is_noticed(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    model = tmp_path / "model"
    (model / "vae").mkdir(parents=True)
    (model / "checkpoint-5").mkdir()
    for name in ("model.safetensors", "vae/config.json", "checkpoint-5/model.safetensors", "events.log"):
        (model / name).write_text(name)
    settings = {"pool": [{"name": "a", "vlm": {"id": "local", "options": {"model": str(model), "device": "cpu"}}}], "seed": 0}
    first = run.made_from(settings)
    assert first.keys() - settings.keys() == {f"content {model}"}
    for name in ("events.log", "checkpoint-5/model.safetensors"):  # what no reply depends on
        (model / name).write_text("other")
    (model / "model.safetensors").touch()
    assert run.made_from(settings) == first
    write(run, "04_traces", ROWS["04_traces"], **first)
    (model / "vae" / "config.json").write_text("other")
    with pytest.raises(ChangedInputsError, match=r"begun with content .*model"):
        write(run, "04_traces", ROWS["04_traces"], **run.made_from(settings))


def test_what_an_older_program_did_not_write_down_is_no_change(run: Run) -> None:
    write(run, "01_tasks", [*ROWS["01_tasks"], Drop("bad_row: for the test")], prompts="x")
    with pytest.raises(ChangedInputsError, match="begun with prompts='x', now it is 'y'"):
        write(run, "01_tasks", [*ROWS["01_tasks"], Drop("bad_row: for the test")], prompts="y")


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    held = hold(tmp_path / "06_rrm_sft")
    with pytest.raises(DataError, match="06_rrm_sft is being written by another process"):
        hold(tmp_path / "06_rrm_sft")
    del held
    assert hold(tmp_path / "06_rrm_sft")


def test_the_ranks_of_one_run_hold_their_folder_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold(tmp_path)
    monkeypatch.setenv("RANK", "1")
    assert held
    assert hold(tmp_path) is None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_is_one_line_and_costs_no_row(
    code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = pictures(tmp_path / "pictures")
    true_replace, calls = os.replace, iter(range(10_000))

    def full(source: Any, target: Any) -> None:
        if next(calls) == 9:
            raise OSError(code, os.strerror(code), str(target))
        true_replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert stage(recipe) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "run the same command again" in err
    assert stage(recipe) == 0
    assert Run.open(tmp_path / "run").count("01_tasks") == 12


# --- runs of schema 1 -------------------------------------------------------------------------------


def as_schema_1(run: Run) -> None:
    """Rewrites a run as editr1 wrote it before tables had columns."""
    digests = {}
    for table, record in ((t, type(rows[0])) for t, rows in ROWS.items()):
        folder = run.dir / table
        for path in folder.glob("part-*.parquet"):
            old = pq.read_table(path)
            lines = {key: to_json(row).replace('"schema":2', '"schema": 1') for key, row in run.keyed(table, record)}
            keys, dropped = old["row_key"].to_pylist(), old["row_dropped"].to_pylist()
            columns = {"key": keys, "record": [lines.get(key) for key in keys], "dropped": dropped}
            digests[path] = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    for path, rows in digests.items():
        pq.write_table(rows, path)
        path.with_suffix(".sha256").unlink()
    for path in run.dir.glob("*/counts.json"):
        summary = json.loads(path.read_text())
        del summary["shards"]
        path.write_text(json.dumps(summary | {"digest": f"old {path.parent.name}"}))
        (path.parent / "layout.json").unlink()
    (run.dir / "02_principles" / "settings.json").write_text(json.dumps({"input 01_tasks": "old 01_tasks"}))
    header = run.dir / "env.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"schema": 1}))


def test_a_run_of_schema_1_is_brought_up_to_date(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.add_metric(Metric("m", 1.0))
    as_schema_1(run)
    log = run.dir / "03_candidates" / "part-00007.partial.jsonl"
    log.write_text(json.dumps(["k9", to_json(ONE).replace('"schema":2', '"schema": 1'), None]) + "\n")
    with pytest.raises(DataError, match="editr1 migrate"):
        Run.open(run.dir)
    assert cli.main(["migrate", str(run.dir)]) == 0
    again = Run.open(run.dir)
    for table, rows in ROWS.items():
        assert list(again.read(table)) == rows
    assert again.inputs("01_tasks").items() <= json.loads((run.dir / "02_principles" / "settings.json").read_text()).items()
    assert json.loads(log.read_text())[1]["id"] == ONE.id
    write(again, "01_tasks", [*ROWS["01_tasks"], Drop("bad_row: for the test")])  # nothing is left to do, and nothing is refused
    assert migrate(run.dir, []) == []
    assert cli.main(["migrate", str(run.dir.parent)]) == 2


def test_other_inputs_name_the_folder_to_put_aside(run: Run) -> None:
    with pytest.raises(ChangedInputsError) as caught:
        write(run, "01_tasks", ROWS["01_tasks"], temperature=1)
    assert caught.value.folder == run.dir / "01_tasks"
