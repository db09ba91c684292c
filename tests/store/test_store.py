"""The run directory: rows survive, nothing shrinks in silence, and foreign bytes are looked at before they are believed."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.errors import BackendError, DataError
from editr1.pictures import decode_image
from editr1.schema import EditTask, ImageRef, Judgement, Metric, Trace, to_json
from editr1.store import Drop, Engine, Lane, Run, StageCounts, Work
from editr1.store._files import write_atomic
from editr1.store.engine import WorkFunction

QUIET = Engine(progress=False)
REF = ImageRef("a" * 64)


def echo(batch: Sequence[int]) -> list[EditTask | Drop]:
    return [Drop("odd: by nature") if i % 2 else EditTask.make(REF, f"edit {i}") for i in batch]


def fill(
    run: Run, num: int, function: WorkFunction = echo, lane: Lane | None = None, engine: Engine = QUIET, **settings: Any
) -> StageCounts:
    items = ((f"k{i}", i) for i in range(num))
    return run.process(
        "01_tasks", items, Work(lambda: function, {"": lane or Lane()}, choices=frozenset({"odd"})), settings=settings, engine=engine
    )


def table_bytes(run: Run) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run.dir / "01_tasks").iterdir()) if not p.name.endswith(".seconds.jsonl")}


def test_a_table_keeps_rows_in_order_and_counts_every_drop(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    counts = fill(run, 10, lane=Lane(batch_size=3), engine=replace(QUIET, shard_size=4))
    assert counts == StageCounts(10, 5, 5, {"odd": 5}) == run.counts("01_tasks")
    assert [task.instruction for task in run.read("01_tasks")] == [f"edit {i}" for i in range(0, 10, 2)]
    dropped = [json.loads(line) for line in (run.dir / "01_tasks" / "dropped.jsonl").read_text().splitlines()]
    assert dropped[0] == {"key": "k1", "reason": "odd: by nature"}
    assert len(dropped) == 5


def test_how_the_work_was_spread_does_not_change_a_byte(tmp_path: Path) -> None:
    results = []
    for number, lane in enumerate([Lane(), Lane(5, 1), Lane(1, 8), Lane(3, 4)]):
        run = Run.open(tmp_path / str(number))
        fill(run, 40, lane=lane, engine=replace(QUIET, shard_size=16))
        results.append(table_bytes(run))
    assert all(result == results[0] for result in results)


def test_stopped_after_any_row_a_stage_continues_to_the_same_bytes(tmp_path: Path) -> None:
    whole = Run.open(tmp_path / "whole")
    fill(whole, 9, engine=replace(QUIET, shard_size=4))
    for stop in range(9):
        run = Run.open(tmp_path / f"stopped-{stop}")

        def stops(batch: Sequence[int], stop: int = stop) -> list[EditTask | Drop]:
            if stop in batch:
                raise RuntimeError("power cut")
            return echo(batch)

        with pytest.raises(RuntimeError):
            fill(run, 9, stops, engine=replace(QUIET, shard_size=4))
        with pytest.raises(DataError, match="unfinished"):
            run.count("01_tasks")
        log = next(iter((run.dir / "01_tasks").glob("*.partial.jsonl")))
        log.write_bytes(log.read_bytes() + b'["k')  # a torn last line
        fill(run, 9, engine=replace(QUIET, shard_size=4))
        assert table_bytes(run) == table_bytes(whole)


def test_a_curve_goes_on_after_a_torn_line_which_no_reader_cuts_off(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    run.log("sft", 1, {"loss": 2.0})
    log = run.dir / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + b'{"stage"')
    assert [point["step"] for point in run.curves("sft")] == [1]
    assert log.read_bytes().endswith(b'{"stage"')  # a run that goes on may be writing that line
    run.log("sft", 2, {"loss": 1.0})
    assert [point["step"] for point in run.curves("sft")] == [1, 2]


def test_finished_rows_are_never_done_twice(tmp_path: Path) -> None:
    run, seen = Run.open(tmp_path / "run"), []

    def counting(batch: Sequence[int]) -> list[EditTask | Drop]:
        if 6 in batch and 6 not in seen:
            seen.append(6)
            raise RuntimeError("once")
        seen.extend(batch)
        return echo(batch)

    with pytest.raises(RuntimeError):
        fill(run, 8, counting)
    fill(run, 8, counting)
    fill(run, 8, counting)
    assert sorted(seen) == [0, 1, 2, 3, 4, 5, 6, 6, 7]


def test_other_settings_or_inputs_do_not_continue_a_table(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    fill(run, 4, temperature=0.7)
    with pytest.raises(DataError, match=r"begun with temperature=0\.7, now it is 0\.8"):
        fill(run, 4, temperature=0.8)
    with pytest.raises(DataError, match="other inputs"):
        fill(run, 5, temperature=0.7)
    with pytest.raises(DataError, match="more inputs than there are now"):
        fill(run, 0, temperature=0.7)


def test_a_lost_request_becomes_a_counted_row_and_a_dead_backend_stops_the_stage(tmp_path: Path) -> None:
    def loses(lost: set[int]) -> WorkFunction:
        def function(batch: Sequence[int]) -> list[EditTask | Drop]:
            if lost & set(batch):
                raise BackendError("http://localhost:1/v1 did not answer")
            return echo(batch)

        return function

    run = Run.open(tmp_path / "few")
    counts = fill(run, 100, loses({10, 50}), lane=Lane(4, 2))
    assert counts == StageCounts(100, 48, 52, {"backend": 2, "odd": 50})

    run = Run.open(tmp_path / "dead")
    with pytest.raises(BackendError, match="3 of 3 items failed"):
        fill(run, 100, loses(set(range(100))))
    fill(run, 100)  # nothing of the failure was kept
    assert run.count("01_tasks") == 50

    run = Run.open(tmp_path / "one")
    with pytest.raises(BackendError, match="1 of 1 items failed"):
        fill(run, 1, loses({0}))


def test_latencies_lie_beside_the_table(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    trace = Trace("q", "text", Judgement((True,), 5.0), "m", "tv", 0.7, 1, seconds=1.25)
    work = Work(lambda: lambda batch: [trace for _ in batch], timed=True)
    run.process("04_traces", [("q:m:0", 0)], work, settings={}, engine=QUIET)
    assert [t.seconds for t in run.read("04_traces")] == [0.0]
    assert run.seconds("04_traces") == {"q:m:0": 1.25}


def test_a_run_of_another_schema_version_is_refused(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    header = json.loads((run.dir / "env.json").read_text())
    (run.dir / "env.json").write_text(json.dumps(header | {"schema": 99}))
    with pytest.raises(DataError, match="schema version 99, this program reads 2"):
        Run.open(run.dir)


def test_a_folder_of_something_else_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is no run directory"):
        Run.open(tmp_path)
    with pytest.raises(DataError, match="there is no run at"):
        Run.open(tmp_path / "missing", create=False)


def test_two_processes_do_not_fill_one_table(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")

    def nested(batch: Sequence[int]) -> list[EditTask | Drop]:
        fill(run, 1)
        return echo(batch)

    with pytest.raises(DataError, match="being written by another process"):
        fill(run, 1, nested)


def test_what_is_no_file_is_written_to_and_a_link_stays(tmp_path: Path) -> None:
    pipe, kept, link = tmp_path / "pipe", tmp_path / "elsewhere" / "page.html", tmp_path / "page.html"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, b"rows")
    assert os.read(reader, 10) == b"rows"
    os.close(reader)
    assert not pipe.is_file()
    kept.parent.mkdir()
    kept.write_bytes(b"old")
    link.symlink_to(kept)
    write_atomic(link, b"new")
    assert (link.is_symlink(), kept.read_bytes()) == (True, b"new")
    with pytest.raises(IsADirectoryError, match=re.escape(f"'{kept.parent}'")):
        write_atomic(kept.parent, b"")


def test_metrics_are_replaced_not_repeated(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    run.add_metric(Metric("accuracy", 0.5, protocol="p"))
    run.add_metric(Metric("accuracy", 0.6, protocol="p"))
    run.add_metric(Metric("accuracy", 0.7, protocol="other"))
    assert [metric.value for metric in run.metrics()] == [0.6, 0.7]
    run.log("sft", 1, {"loss": 2})
    run.log("sft", 1, {"loss": 1})
    assert run.curves("sft") == [{"stage": "sft", "step": 1, "loss": 1.0}]


# --- images -----------------------------------------------------------------------------------------


def png(width: int = 4, height: int = 3, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header promises width x height pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_an_image_is_stored_once(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    ref = run.images.put(png())
    assert ref == run.images.put(png()) == ImageRef(ref.digest, "png", 4, 3)
    assert run.images.get(ref).getpixel((0, 0)) == (255, 0, 0)
    assert run.images.put(Image.new("RGB", (4, 3), "red")) == run.images.put(Image.new("RGB", (4, 3), "red"))
    files = [p for p in (run.dir / "images").rglob("*") if p.is_file()]
    assert all(p.parent.name == p.name[:2] for p in files)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "zero bytes"),
        (b"not an image", "not a readable"),
        (png(400, 300)[:200], "broken"),
        (bomb(10_000, 10_000), "10000 x 10000 pixels, the limit is"),
        (bomb(60_000, 60_000), "60000 x 60000 pixels, the limit is"),
        (b"GIF89a" + b"\x00" * 40, "not a readable"),
    ],
    ids=["empty", "text", "cut", "100 megapixels", "3600 megapixels", "gif"],
)
def test_bad_bytes_are_refused_with_a_reason(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Run.open(tmp_path / "run").images.put(data)


def test_a_reference_cannot_leave_the_folder(tmp_path: Path) -> None:
    images = Run.open(tmp_path / "run").images
    for ref in (ImageRef("../../etc/passwd"), ImageRef("a" * 64, "../x"), ImageRef("A" * 64)):
        with pytest.raises(DataError, match="bad image reference"):
            images.path(ref)
    with pytest.raises(DataError, match="is missing"):
        images.get(ImageRef("0" * 64))


def test_pictures_come_out_upright_on_white() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees", as telephones write it
    Image.new("RGB", (8, 4), "blue").save(buffer, "JPEG", exif=exif)
    assert decode_image(buffer.getvalue()).size == (4, 8)
    buffer = io.BytesIO()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(buffer, "PNG")
    assert decode_image(buffer.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_a_row_of_another_version_is_named(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    fill(run, 2)
    with pytest.raises(DataError, match="holds no rows of Metric"):
        list(run.read("01_tasks", Metric))
    assert json.loads(to_json(Metric("x", None)))["schema"] == 2
